"""Run single IA-32 instructions on Bochs, thousands in one boot, each from a complete given state.

How it works
------------
The ROM `ia32_step.asm` loads what only loads can establish (GDTR, LDTR, TR, DS, ES, FS, GS; SS and CS by
IRET to the wanted CPL), so that every check of the processor applies to the initial state. Two bytes at
the case's own CS:EIP then raise a system-management interrupt, whose handler sets the rest (general
registers, EIP, EFLAGS, IDTR, CR0, CR3, CR4, DR6, DR7) in the saved state and resumes at the case's
instruction. A system-management interrupt also ends the step. It saves the state without using any stack,
table or selector, and it saves the hidden part of each segment register too.

The end of a step
-----------------
* The instruction is followed by ``OUT 0B2H, AL``, which raises that interrupt if the CPL may use the
  port; otherwise it gives #GP at the fall-through address, which is recognised.
* Every other byte of the memory that the case does not set is F1H (INT1): a transfer that lands there is
  recognised too. The INT1 of a landing place, and every exception, goes through a gate of the IDT, so
  these need a gate and, from CPL > 0, a ring-0 stack in the TSS (see the contract).
* An instruction that does not end (HLT, a jump to itself) is ended after about 50,000 emulated
  instructions.

Contract
--------
* 32-bit protected mode, CR0.PE = 1 and CR0.PG = 0; EFLAGS.VM = 0. CPL is the RPL of CS.
* Memory is the arena, linear 0 to `ARENA_BYTES`; `initial_memory` tells what is in it. It is the same for
  every case except for what the case sets. Memory elsewhere (F1H from 40000H to A0000H and from 100000H
  to 1000000H) is *not* restored after a case that writes to it; 1000000H to 2000000H is the harness's
  own, F0000H its ROM.
* `reserved` is the selector of four descriptors of the harness, which the case's GDT limit must include;
  they are written last. Default `RESERVED_SELECTOR`, at the end of a GDT of 4 KiB.
* Each vector within the IDT's limit has an interrupt gate with DPL 0 to the harness, unless the case's
  memory overwrites it, usually with a gate to a landing place. #DF and #TS have task gates, so that they
  work whatever the case's stacks are.
* At CPL > 0 TR must select a TSS whose SS0:ESP0 is good; the default one is. At CPL 0 an exception or a
  landing elsewhere than after the instruction uses the current stack, which must have room.
* The frames that gates push are not part of the result: `memory` shows the bytes as they were before the
  step. What the instruction itself wrote to these bytes (the 24 below ESP0 or, at CPL 0, below ESP) is
  lost.
* An instruction that changes GDTR or IDTR, and then ends elsewhere than right after itself at CPL 0,
  needs its new tables to hold `reserved_descriptors` and `default_gates`.
* RF is not observable: it is reported as at the start for faults, and as 0 otherwise.
* A fault with an EIP or CS other than the first is the next instruction's, so the kind is ``next``,
  except for faults in the middle of a task switch.
* Ports must be left alone except those that are harmless to read, such as 70H, 80H and E9H.
"""

from __future__ import annotations

import difflib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import attrs

from popek.emulators import bochs

ARENA_BYTES: Final = 0x40000
"""Size of the memory a case may use; it starts at linear address 0."""
GDT_BASE: Final = 0x10000
"""Default base of the GDT; its default limit is FFFH."""
IDT_BASE: Final = 0x12000
"""Default base of the IDT; its default limit is 7FFH."""
TSS_BASE: Final = 0x14000
"""Base of the default TSS, a 32-bit one with limit 67H and no I/O bitmap; there is room for one after it."""
CODE_BASE: Final = 0x20000
"""Default EIP (and linear address) of the instruction."""
STACK_TOPS: Final = (0x25000, 0x26000, 0x27000, 0x28000)
"""Default ESP for each CPL."""
INNER_STACK_TOPS: Final = (0x29000, 0x2A000, 0x2B000)
"""ESP0, ESP1 and ESP2 of the default TSS."""
DATA_BASE: Final = 0x30000
"""From here to the end of the arena nothing is ever put by default."""
LANDING_BYTE: Final = 0xF1
"""What fills the arena: INT1."""

CODE_SELECTORS: Final = (0x08, 0x19, 0x2A, 0x3B)
"""Selectors of the default flat code segments of the rings 0 to 3, RPL included."""
DATA_SELECTORS: Final = (0x10, 0x21, 0x32, 0x43)
"""Selectors of the default flat data segments of the rings 0 to 3, RPL included."""
TSS_SELECTOR: Final = 0x48
"""Selector of the default TSS."""
FREE_SELECTOR: Final = 0x50
"""From here to `RESERVED_SELECTOR` the default GDT holds null descriptors."""
RESERVED_SELECTOR: Final = 0xFE0
"""Default place of the harness's four descriptors: code, data, and two TSSs."""

REGISTER_NAMES: Final = (
    *("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags"),
    *("cs", "ds", "es", "fs", "gs", "ss", "ldtr", "tr"),
    *("gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit"),
    *("cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
)
"""The registers of a case, in the order of the record on disk."""

_STUBS = 0xF8000
_TASKS = {8: 0x01022000, 10: 0x01022100}
_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
_TF, _RF, _VM, _TS, _PE, _PG = 1 << 8, 1 << 16, 1 << 17, 1 << 3, 1, 1 << 31
_MARKER = b"\xe6\xb2"
_TSS_BYTES = 0x68
_TASK_BYTES = 8 + _TSS_BYTES
_RAM_END = 0x2000000
_MOST_CODE = 30
_MOST_DISK = 8 << 20
_STALL = 2.0
_HEADER = struct.Struct("<4I32sI32I5I")
_CAUGHT_BYTES = 2 + 10 * 12 + 7 * 4 + 8 * 4 + 10 * 4 + 4 * 4 + 5 * 4
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
_TSS_FIELDS = (
    *("eip", "eflags", "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"),
    *("es", "cs", "ss", "ds", "fs", "gs"),
)

Kind = Literal["next", "trap", "hang", "triple-fault", "setup-failed"]


class StepCaseError(ValueError):
    """A case is outside the harness's contract."""


@attrs.frozen
class StepCase:
    """One instruction and the state it starts from.

    Attributes:
        code: the instruction, placed at CS:EIP.
        cpl: the current privilege level.
        registers: initial values by the names of `REGISTER_NAMES`; `initial_registers` tells the defaults.
        msrs: MSRs to write first; their values after the step are reported. The three SYSENTER MSRs are
            0 unless given here.
        memory: (linear address, bytes) to write before anything is loaded, in this order.
        stale: the same, but written after all segment registers were loaded: their hidden parts keep what
            the tables held before.
        watch: (linear address, length) of the memory to report.
        read_msrs: further MSRs to report.
        reserved: selector of the first of the harness's four descriptors.
    """

    code: bytes
    cpl: int = 0
    registers: Mapping[str, int] = attrs.field(factory=dict)
    msrs: Mapping[int, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    stale: tuple[tuple[int, bytes], ...] = ()
    watch: tuple[tuple[int, int], ...] = ()
    read_msrs: tuple[int, ...] = ()
    reserved: int = RESERVED_SELECTOR


@attrs.frozen
class StepResult:
    """What one instruction did.

    Attributes:
        kind: ``next``: completed, with the state it left. ``trap``: an exception, or an interrupt through a
            gate of the harness, with the state as the gate's frame has it. ``hang``: stopped by the
            watchdog. ``triple-fault``: the processor shut down; no state. ``setup-failed``: the initial state
            could not be loaded; `vector` and `error_code` tell why, or are None if IRET made a data segment
            register null.
        vector: of the trap.
        error_code: of the trap, if its vector has one.
        registers: by the names of `REGISTER_NAMES`, and ``cpl``. The hidden parts are there as ``ds.base``,
            ``ds.limit`` and ``ds.access`` (the second dword of a descriptor without base and limit; 0 if
            the register is unusable) where they are known: always for DS, ES, FS, GS, LDTR and TR, except
            after #DF and #TS, and for CS and SS where no gate was used.
        memory: the watched memory, in the case's order.
        msrs: the MSRs of the case, after the step.
    """

    kind: Kind
    vector: int | None = None
    error_code: int | None = None
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[bytes, ...] = ()
    msrs: Mapping[int, int] = attrs.field(factory=dict)


def segment_descriptor(base: int, limit: int, access: int) -> bytes:
    """Build a segment or system descriptor; `access` has the layout of its second dword.

    >>> segment_descriptor(0, 0xFFFFF, 0xC09300).hex()
    'ffff00000093cf00'
    """
    low = (limit & 0xFFFF) | (base & 0xFFFF) << 16
    high = (base >> 16 & 0xFF) | (access & 0xF0FF00) | (limit & 0xF0000) | (base & 0xFF000000)
    return struct.pack("<II", low, high)


def gate_descriptor(selector: int, offset: int, access: int) -> bytes:
    """Build a gate; `access` has the layout of its second dword (bits 15:0).

    >>> gate_descriptor(0x08, 0x12345678, 0xEE00).hex()
    '7856080000ee3412'
    """
    return struct.pack("<II", selector << 16 | offset & 0xFFFF, offset & 0xFFFF0000 | access & 0xFFFF)


def reserved_descriptors() -> bytes:
    """Return the four descriptors that a GDT must hold at the reserved selector."""
    return b"".join(
        (
            segment_descriptor(0, 0xFFFFF, 0xC09B00),
            segment_descriptor(0, 0xFFFFF, 0xC09300),
            segment_descriptor(_TASKS[8], _TSS_BYTES - 1, 0x8900),
            segment_descriptor(_TASKS[10], _TSS_BYTES - 1, 0x8900),
        )
    )


def default_gates(reserved: int = RESERVED_SELECTOR) -> bytes:
    """Return an IDT of 256 gates that lead to the harness."""
    gates = [gate_descriptor(reserved, _STUBS + 4 * vector, 0x8E00) for vector in range(256)]
    gates[8] = gate_descriptor(reserved + 0x10, 0, 0x8500)
    gates[10] = gate_descriptor(reserved + 0x18, 0, 0x8500)
    return b"".join(gates)


def default_tss(reserved: int = RESERVED_SELECTOR) -> bytes:
    """Return the default TSS: stacks for the rings 0 to 2, and no I/O bitmap."""
    tss = bytearray(_TSS_BYTES)
    stacks = zip(INNER_STACK_TOPS, (reserved + 8, *DATA_SELECTORS[1:3]), strict=True)
    for ring, (esp, ss) in enumerate(stacks):
        struct.pack_into("<II", tss, 4 + 8 * ring, esp, ss)
    struct.pack_into("<H", tss, 0x66, _TSS_BYTES)
    return bytes(tss)


def default_descriptors() -> bytes:
    """Return the default GDT up to `FREE_SELECTOR`."""
    entries = [bytes(8)]
    for ring in range(4):
        entries.append(segment_descriptor(0, 0xFFFFF, 0xC09B00 | ring << 13))
        entries.append(segment_descriptor(0, 0xFFFFF, 0xC09300 | ring << 13))
    entries.append(segment_descriptor(TSS_BASE, _TSS_BYTES - 1, 0x8900))
    return b"".join(entries)


def initial_registers(case: StepCase) -> dict[str, int]:
    """Return every register of a case's initial state, and refuse a case the harness cannot run."""
    if case.cpl not in range(4):
        raise StepCaseError(f"cpl is {case.cpl}, not 0, 1, 2 or 3")
    for name in case.registers:
        if name not in REGISTER_NAMES:
            near = ", ".join(difflib.get_close_matches(name, REGISTER_NAMES)) or "none"
            raise StepCaseError(f"there is no register {name!r}; near matches: {near}")
    registers = dict.fromkeys(REGISTER_NAMES, 0)
    registers.update(
        {
            "esp": STACK_TOPS[case.cpl],
            "eip": CODE_BASE,
            "eflags": 2,
            "cs": CODE_SELECTORS[case.cpl],
            **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), DATA_SELECTORS[case.cpl]),
            "tr": TSS_SELECTOR,
            "gdtr.base": GDT_BASE,
            "gdtr.limit": 0xFFF,
            "idtr.base": IDT_BASE,
            "idtr.limit": 0x7FF,
            "cr0": 0x11,
            "dr6": 0xFFFF0FF0,
            "dr7": 0x400,
            **case.registers,
        }
    )
    for name, value in registers.items():
        if not 0 <= value < 1 << 32:
            raise StepCaseError(f"{name} is {value:#x}, which has more than 32 bits")
    if registers["cs"] & 3 != case.cpl:
        raise StepCaseError(f"the RPL of cs ({registers['cs']:#x}) is not the CPL ({case.cpl})")
    if not registers["cr0"] & _PE or registers["cr0"] & _PG:
        raise StepCaseError("CR0.PE must be 1 and CR0.PG 0")
    if registers["eflags"] & _VM:
        raise StepCaseError("EFLAGS.VM must be 0")
    if registers["eflags"] & _TF and case.cpl == 0 and _opcode(case.code) in (b"\xf4", b"\x0f\x01\xc9"):
        raise StepCaseError("HLT and MWAIT cannot be run with TF = 1")
    if case.cpl > 0 and registers["tr"] < 4:
        raise StepCaseError("at CPL > 0 a TSS is needed")
    if case.reserved & 7 or case.reserved + 31 > registers["gdtr.limit"]:
        raise StepCaseError(f"reserved selectors ({case.reserved:#x}) outside the GDT or with an RPL or TI")
    if not 0 < len(case.code) <= _MOST_CODE:
        raise StepCaseError(f"code has {len(case.code)} bytes, not 1 to {_MOST_CODE}")
    registers["eflags"] |= 2
    registers["cr0"] |= 0x10
    return registers


def _cut(address: int, data: bytes, limit: int) -> tuple[int, bytes]:
    return address, data[: limit + 1]


_DEFAULTS: Final[tuple[tuple[int, bytes], ...]] = (
    (GDT_BASE, bytes(0x1000)),
    (GDT_BASE, default_descriptors()),
    (GDT_BASE + RESERVED_SELECTOR, reserved_descriptors()),
    (IDT_BASE, default_gates()),
    (TSS_BASE, default_tss()),
)


def _template() -> bytes:
    arena = bytearray([LANDING_BYTE]) * ARENA_BYTES
    for address, data in _DEFAULTS:
        arena[address : address + len(data)] = data
    return bytes(arena)


_TEMPLATE: Final = _template()


def _patch(arena: bytearray, patches: Iterable[tuple[int, bytes]]) -> None:
    for address, data in patches:
        if not 0 <= address <= address + len(data) <= ARENA_BYTES:
            raise StepCaseError(f"memory at {address:#x} to {address + len(data):#x} is not in the arena")
        arena[address : address + len(data)] = data


@attrs.frozen
class _Prepared:
    """A case with all that is derived from it."""

    case: StepCase
    registers: Mapping[str, int]
    patches: tuple[tuple[int, bytes], ...]
    code_at: int
    arena: bytes

    @property
    def end(self) -> int:
        """Linear address of the byte after the instruction."""
        return self.code_at + len(self.case.code)

    @property
    def code(self) -> bytes:
        return _with_marker(self.case.code, self.registers)


def _prepare(case: StepCase) -> _Prepared:
    registers = initial_registers(case)
    patches: list[tuple[int, bytes]] = []
    gdt, gdt_limit = registers["gdtr.base"], registers["gdtr.limit"]
    moved = gdt != GDT_BASE or case.reserved != RESERVED_SELECTOR
    if gdt != GDT_BASE:
        patches.append(_cut(gdt, default_descriptors(), gdt_limit))
    if registers["idtr.base"] != IDT_BASE or case.reserved != RESERVED_SELECTOR:
        patches.append(_cut(registers["idtr.base"], default_gates(case.reserved), registers["idtr.limit"]))
    if case.reserved != RESERVED_SELECTOR:
        patches.append((TSS_BASE, default_tss(case.reserved)))
    patches.extend(case.memory)
    own = gdt + case.reserved
    if moved or any(address < own + 32 and own < address + len(data) for address, data in case.memory):
        patches.append((own, reserved_descriptors()))
    arena = bytearray(_TEMPLATE)
    _patch(arena, patches)

    tss = _descriptor(arena, registers, registers["tr"])
    if tss is not None:
        # LTR wants an available TSS and makes it busy, so the case may state either.
        busy = (tss[0] + 5, bytes([arena[tss[0] + 5] & ~2]))
        patches.append(busy)
        _patch(arena, [busy])
    cs = _descriptor(arena, registers, registers["cs"])
    code_at = ((cs[1] if cs else 0) + registers["eip"]) & 0xFFFFFFFF
    _patch(arena, [(code_at, _with_marker(case.code, registers))])
    if tss is not None:
        arena[tss[0] + 5] |= 2
    for name in _SEGMENTS:
        found = _descriptor(arena, registers, registers[name])
        if found is not None and arena[found[0] + 5] & 0x10:
            arena[found[0] + 5] |= 1
    _patch(arena, case.stale)
    for address, length in case.watch:
        if not 0 <= address <= address + length <= 1 << 32:
            raise StepCaseError(f"cannot watch {length} bytes at {address:#x}")
    return _Prepared(case, registers, tuple(patches), code_at, bytes(arena))


def _descriptor(
    arena: bytes | bytearray, registers: Mapping[str, int], selector: int
) -> tuple[int, int, int] | None:
    """Return linear address, base and limit of the descriptor of a selector, if it has one in the arena."""
    if selector < 4:
        return None
    base, limit = registers["gdtr.base"], registers["gdtr.limit"]
    if selector & 4:
        ldt = _descriptor(arena, registers, registers["ldtr"] & ~4)
        if ldt is None:
            return None
        _, base, limit = ldt
    address = base + (selector & ~7)
    if (selector | 7) > limit or address + 8 > ARENA_BYTES:
        return None
    low, high = struct.unpack_from("<II", arena, address)
    size = (low & 0xFFFF) | (high & 0xF0000)
    if high & 1 << 23:
        size = size << 12 | 0xFFF
    return address, low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000, size


def initial_memory(case: StepCase) -> bytes:
    """Return the arena as it is when the instruction starts, with the case's code, busy and accessed bits."""
    return _prepare(case).arena


def run_steps(
    cases: Iterable[StepCase],
    *,
    model: str = "tigerlake",
    progress: Callable[[int], None] | None = None,
    chunk: int = 2000,
) -> list[StepResult]:
    """Run cases on Bochs and return their results, in order.

    `model` is a processor of Bochs. `progress` is called with the number of cases done, after each boot.
    `chunk` is the most cases that one boot runs. A case that brings the processor down costs one more boot.
    Raises `StepCaseError` for a case outside the contract and `popek.emulators.bochs.BochsError` if Bochs
    or nasm is missing.
    """
    rom = bochs.assemble(Path(__file__).with_name("ia32_step.asm"))
    results: list[StepResult] = []
    batch: list[_Prepared] = []
    size = 0
    for case in cases:
        prepared = _prepare(case)
        more = len(_record(prepared))
        if len(batch) == chunk or size + more > _MOST_DISK:
            _run_batch(rom, batch, model, progress, results)
            batch, size = [], 0
        batch.append(prepared)
        size += more
    _run_batch(rom, batch, model, progress, results)
    return results


def _run_batch(
    rom: bytes,
    batch: Sequence[_Prepared],
    model: str,
    progress: Callable[[int], None] | None,
    results: list[StepResult],
) -> None:
    done = 0
    most = len(batch)
    while done < len(batch):
        rest = batch[done : done + most]
        end: Kind | None = None
        try:
            report = bochs.run_rom(rom, _disk(rest), model=model, timeout=60 + len(rest), stall=_STALL)
        except bochs.BochsTimeout as stopped:
            report, end = stopped.partial, "hang"
        except bochs.BochsCrash as stopped:
            if not stopped.partial:
                raise
            report, end = stopped.partial, "triple-fault"
        decoded = _decode_all(rest, report)
        results.extend(decoded)
        done += len(decoded)
        if end is None and len(decoded) < len(rest):
            raise bochs.BochsError(f"the guest reported {len(decoded)} of {len(rest)} cases")
        if end == "triple-fault" or (end == "hang" and len(rest) == 1):
            results.append(StepResult(end))
            done += 1
        # A guest that was killed may have finished more than it could report: close in on the case.
        most = max(1, len(rest) // 8) if end == "hang" else min(8 * most, len(batch))
        if progress is not None:
            progress(len(results))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _patch_list(patches: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("<II", address, len(data)) + _padded(data) for address, data in patches)


def _disk(batch: Sequence[_Prepared]) -> bytes:
    body = b"".join(
        (
            struct.pack("<II", len(batch), len(_DEFAULTS)),
            _patch_list(_DEFAULTS),
            *(_record(prepared) for prepared in batch),
        )
    )
    sectors = -(-(8 + len(body)) // 512)
    return (b"STEP" + struct.pack("<I", sectors) + body).ljust(512 * sectors, b"\0")


def _msr_reads(case: StepCase) -> list[int]:
    return list(dict.fromkeys((*case.msrs, *case.read_msrs)))


def _record(prepared: _Prepared) -> bytes:
    case, registers = prepared.case, prepared.registers
    reads = _msr_reads(case)
    lists = b"".join(
        (
            *(struct.pack("<IQ", number, value) for number, value in case.msrs.items()),
            _patch_list(prepared.patches),
            _patch_list(case.stale),
            *(struct.pack("<II", address, length) for address, length in case.watch),
            *(struct.pack("<I", number) for number in reads),
        )
    )
    code = prepared.code
    return lists.join(
        (
            _HEADER.pack(
                _HEADER.size + len(lists),
                case.cpl,
                prepared.code_at,
                len(code),
                code,
                case.reserved,
                *(registers[name] for name in REGISTER_NAMES),
                len(case.msrs),
                len(prepared.patches),
                len(case.stale),
                len(case.watch),
                len(reads),
            ),
            b"",
        )
    )


def _decode_all(batch: Sequence[_Prepared], report: bytes) -> list[StepResult]:
    """Decode the complete results of a report, which may end early."""
    results = []
    at = 1
    for prepared in batch:
        if at + _CAUGHT_BYTES > len(report):
            break
        if report[at : at + 1] != b"R":
            raise bochs.BochsError(f"the guest's report is garbled at byte {at}")
        size = _CAUGHT_BYTES
        if report[at + 1]:
            (tr,) = struct.unpack_from("<H", report, at + 2 + 9 * 12)
            size += _TASK_BYTES if _in_task(prepared.case, tr) else 0
            size += sum(length for _, length in prepared.case.watch) + 8 * len(_msr_reads(prepared.case))
        if at + size > len(report):
            break
        results.append(_decode(prepared, report[at : at + size]))
        at += size
    return results


def _decode(prepared: _Prepared, report: bytes) -> StepResult:
    caught, frame, launched = _parse(report)
    if not report[1]:
        vector = _stub(caught, prepared.case)
        error = frame[0] if vector in _WITH_ERROR_CODE else None
        return StepResult("setup-failed", vector, error)
    if any(launched[name] != prepared.registers[name] for name in launched):
        return StepResult("setup-failed")
    at = _CAUGHT_BYTES
    in_task = _in_task(prepared.case, caught["tr"])
    task = report[at : at + _TASK_BYTES]
    at += len(task) if in_task else 0
    memory: list[bytes] = []
    for _, length in prepared.case.watch:
        memory.append(report[at : at + length])
        at += length
    reads = _msr_reads(prepared.case)
    msrs = dict(zip(reads, struct.unpack_from(f"<{len(reads)}Q", report, at), strict=True))
    vector = _stub(caught, prepared.case)
    if vector is None:
        return _decode_direct(prepared, caught, tuple(memory), msrs)
    if in_task:
        return _decode_task(prepared, vector, caught, frame, task, tuple(memory), msrs)
    return _decode_gate(prepared, vector, caught, frame, tuple(memory), msrs)


def _parse(report: bytes) -> tuple[dict[str, int], tuple[int, ...], dict[str, int]]:
    """Split what the ROM reports of every case: saved state, top of the stack, first selectors."""
    state: dict[str, int] = {}
    for index, name in enumerate((*_SEGMENTS, "gdtr", "ldtr", "idtr", "tr")):
        selector, attributes, limit, base = struct.unpack_from("<HHII", report, 2 + 12 * index)
        state[f"{name}.base"], state[f"{name}.limit"] = base, limit
        if not name.startswith(("gdtr", "idtr")):
            state[name] = selector
            access = (attributes & 0xFF) << 8 | (attributes & 0xF000) << 8
            # What remains of the access rights of an unusable register is of no consequence.
            state[f"{name}.access"] = access if selector >= 4 or name in ("cs", "tr") else 0
    names = (
        *("cr4", "cr3", "cr0", "dr7", "dr6", "eflags", "eip"),
        *("edi", "esi", "ebp", "esp", "ebx", "edx", "ecx", "eax"),
    )
    words = struct.unpack_from("<34I", report, 2 + 120)
    state.update(zip(names, words[:15], strict=True))
    frame = words[15:25]
    launched = dict(zip(("ds", "es", "fs", "gs"), words[25:29], strict=True))
    state.update(zip(("cr2", "dr0", "dr1", "dr2", "dr3"), words[29:], strict=True))
    state["cpl"] = state["cs"] & 3
    return state, frame, launched


def _in_task(case: StepCase, tr: int) -> bool:
    """Tell whether TR holds one of the harness's own tasks."""
    return tr in (case.reserved + 0x10, case.reserved + 0x18)


def _stub(caught: Mapping[str, int], case: StepCase) -> int | None:
    """Return the vector whose stub raised the interrupt, if one did."""
    at = caught["eip"] - 2 - _STUBS
    if caught["cs"] == case.reserved and 0 <= at < 4 * 256 and at % 4 == 0:
        return at // 4
    return None


def _decode_direct(
    prepared: _Prepared, caught: dict[str, int], memory: tuple[bytes, ...], msrs: Mapping[int, int]
) -> StepResult:
    """Decode a step that ended without a gate: at the marker after the instruction, or by the watchdog."""
    caught["eflags"] &= ~_RF
    linear = (caught["cs.base"] + caught["eip"]) & 0xFFFFFFFF
    if linear == prepared.end + len(_MARKER):
        mask = 0xFFFFFFFF if caught["cs.access"] & 1 << 22 else 0xFFFF
        caught["eip"] = (caught["eip"] - len(_MARKER)) & mask
        return StepResult("next", registers=caught, memory=memory, msrs=msrs)
    # The instruction itself may have written the port.
    ended = linear == prepared.end and _opcode(prepared.case.code)[:1] in (b"\xe6", b"\xe7", b"\xee", b"\xef")
    return StepResult("next" if ended else "hang", registers=caught, memory=memory, msrs=msrs)


def _decode_gate(
    prepared: _Prepared,
    vector: int,
    caught: dict[str, int],
    frame: tuple[int, ...],
    memory: tuple[bytes, ...],
    msrs: Mapping[int, int],
) -> StepResult:
    """Decode a step that ended in one of the harness's interrupt gates."""
    first = prepared.registers
    state = dict(caught)
    mask = 0xFFFFFFFF if caught["ss.access"] & 1 << 22 else 0xFFFF
    at = (caught["ss.base"] + (caught["esp"] & mask)) & 0xFFFFFFFF
    if not (at + 64 <= 0xA0000 or 0x100000 <= at <= _RAM_END - 64):
        # The frame was pushed where nothing keeps it.
        for name in ("eip", "cs", "eflags", "cpl"):
            del state[name]
        return StepResult("trap", vector, None, state, memory, msrs)
    opcode = _opcode(prepared.case.code)
    after = (first["eip"] + len(prepared.case.code)) & 0xFFFFFFFF
    # INT 13, say, pushes no error code.
    software = opcode == bytes([0xCD, vector]) and (frame[0], frame[1] & 0xFFFF) == (after, first["cs"])
    error = None
    pushed = 12
    if vector in _WITH_ERROR_CODE and not software:
        error, frame = frame[0], frame[1:]
        pushed += 4
    state["eip"], state["cs"], state["eflags"] = frame[0], frame[1] & 0xFFFF, frame[2]
    state["cpl"] = state["cs"] & 3
    unknown = ["cs"]
    if state["cpl"] or state["eflags"] & _VM:
        state["esp"], state["ss"] = frame[3], frame[4] & 0xFFFF
        pushed += 8
        unknown.append("ss")
        if state["eflags"] & _VM:
            state["cpl"] = 3
            pushed += 16
            state.update(zip(("es", "ds", "fs", "gs"), (word & 0xFFFF for word in frame[5:9]), strict=True))
    else:
        state["esp"] = caught["esp"] & ~mask | (caught["esp"] + pushed) & mask
    for name in unknown:
        for part in ("base", "limit", "access"):
            del state[f"{name}.{part}"]
    memory = _without_frame(prepared, memory, at, at + pushed)

    moved = (state["eip"], state["cs"]) != (first["eip"], first["cs"])
    debug = (state["dr6"] & ~first["dr6"]) & 0xE00F or first["eflags"] & first["dr6"] >> 6 & 0x100
    landed = vector == 1 and not debug and not (opcode == b"\xf1" and state["eip"] == after)
    faulted_later = vector == 6 and moved
    faulted_at_marker = vector == 13 and error == 0 and moved and state["eip"] == after
    if landed:
        state["eip"] -= 1
    if landed or faulted_later or faulted_at_marker:
        state["eflags"] &= ~_RF
        return StepResult("next", registers=state, memory=memory, msrs=msrs)
    state["eflags"] = state["eflags"] & ~_RF | (0 if moved else first["eflags"] & _RF)
    return StepResult("trap", vector, error, state, memory, msrs)


def _decode_task(
    prepared: _Prepared,
    vector: int,
    caught: dict[str, int],
    frame: tuple[int, ...],
    task: bytes,
    memory: tuple[bytes, ...],
    msrs: Mapping[int, int],
) -> StepResult:
    """Decode a step that ended in the task gate of #DF or #TS: the state is in the TSS it left."""
    first = prepared.registers
    state = {name: caught[name] for name in REGISTER_NAMES}
    state["tr"], at, *words = struct.unpack_from("<II32x16I", task)
    for name, value in zip(_TSS_FIELDS, words, strict=True):
        state[name] = value & 0xFFFF if len(name) == 2 else value
    # Entering the task set TS and replaced LDTR; but an earlier task switch, of the case itself, did so too.
    switched = state["tr"] != first["tr"]
    state["cr0"] = state["cr0"] & ~_TS | (_TS if switched else first["cr0"] & _TS)
    state["ldtr"] = task[8 + 0x60] | task[8 + 0x61] << 8 if switched else first["ldtr"]
    state["cpl"] = state["cs"] & 3
    moved = (state["eip"], state["cs"]) != (first["eip"], first["cs"])
    state["eflags"] = state["eflags"] & ~_RF | (0 if moved else first["eflags"] & _RF)
    shown = _without_frame(prepared, memory, at + 0x20, at + 0x60)
    # The interrupt that ends the step could not be delivered; its own faults have EXT = 1.
    if moved and (vector == 8 or frame[0] & 1):
        return StepResult("next", registers=state, memory=shown, msrs=msrs)
    return StepResult("trap", vector, frame[0], state, shown, msrs)


def _without_frame(prepared: _Prepared, memory: tuple[bytes, ...], start: int, end: int) -> tuple[bytes, ...]:
    """Put the bytes from `start` to `end` back to what they were before the step."""
    shown = []
    for (address, length), data in zip(prepared.case.watch, memory, strict=True):
        low, high = max(start, address), min(end, address + length, ARENA_BYTES)
        if low < high:
            data = data[: low - address] + prepared.arena[low:high] + data[high - address :]
        shown.append(data)
    return tuple(shown)


def _with_marker(code: bytes, registers: Mapping[str, int]) -> bytes:
    """Return an instruction and what ends its step."""
    # With TF = 1, Bochs lets the single-step trap of OUT interrupt the interrupt's own handler.
    may_trace = registers["eflags"] & _TF or _opcode(code)[:1] in (b"\x9d", b"\xcf")
    return code + (bytes([LANDING_BYTE] * 2) if may_trace else _MARKER)


def _opcode(code: bytes) -> bytes:
    """Return an instruction without its prefixes."""
    return code.lstrip(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
