"""A case of the step harness: one instruction, the state it starts from, and what lies in memory then."""

from __future__ import annotations

import difflib
import struct
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

ARENA_BYTES: Final = 0x40000
"""Size of the memory a case may use; it starts at linear address 0."""
GDT_BASE: Final = 0x10000
"""Default base of the GDT; its default limit is FFFH."""
IDT_BASE: Final = 0x12000
"""Default base of the IDT; its default limit is 7FFH."""
VECTOR_TABLE: Final = 0x16000
"""Default base of IDTR in real-address mode; its default limit is 3FFH."""
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
    *("cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "xcr0", "pkru"),
)
"""The registers of a case, in the order of the record on disk."""

PLAIN_REGISTERS: Final = (
    *("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags"),
    *("cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
)
"""Registers that are one word in the model and have the same name there; XCR0 and PKRU besides."""

STUBS = 0xF8000
TASKS = {8: 0x01022000, 10: 0x01022100}
_TF, _VM, _PE, _PG = 1 << 8, 1 << 17, 1, 1 << 31
MARKER = b"\xe6\xb2"
VALID = 1 << 8  # in the attributes that a saved state has of a segment register
TSS_BYTES = 0x68
_MOST_CODE = 30
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")


class StepCaseError(ValueError):
    """A case is outside the harness's contract."""


@attrs.frozen
class Ia32StepCase:
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
        hidden: in real-address mode, (base, limit, access rights as in `ia32.state.Rights`) of segment registers
            by name, where they are not those of `hidden_parts`.
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
    hidden: Mapping[str, tuple[int, int, int]] = attrs.field(factory=dict)


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
            segment_descriptor(TASKS[8], TSS_BYTES - 1, 0x8900),
            segment_descriptor(TASKS[10], TSS_BYTES - 1, 0x8900),
        )
    )


def default_gates(reserved: int = RESERVED_SELECTOR) -> bytes:
    """Return an IDT of 256 gates that lead to the harness."""
    gates = [gate_descriptor(reserved, STUBS + 4 * vector, 0x8E00) for vector in range(256)]
    gates[8] = gate_descriptor(reserved + 0x10, 0, 0x8500)
    gates[10] = gate_descriptor(reserved + 0x18, 0, 0x8500)
    return b"".join(gates)


def default_tss(reserved: int = RESERVED_SELECTOR) -> bytes:
    """Return the default TSS: stacks for the rings 0 to 2, and no I/O bitmap."""
    tss = bytearray(TSS_BYTES)
    stacks = zip(INNER_STACK_TOPS, (reserved + 8, *DATA_SELECTORS[1:3]), strict=True)
    for ring, (esp, ss) in enumerate(stacks):
        struct.pack_into("<II", tss, 4 + 8 * ring, esp, ss)
    struct.pack_into("<H", tss, 0x66, TSS_BYTES)
    return bytes(tss)


def default_descriptors() -> bytes:
    """Return the default GDT up to `FREE_SELECTOR`."""
    entries = [bytes(8)]
    for ring in range(4):
        entries.append(segment_descriptor(0, 0xFFFFF, 0xC09B00 | ring << 13))
        entries.append(segment_descriptor(0, 0xFFFFF, 0xC09300 | ring << 13))
    entries.append(segment_descriptor(TSS_BASE, TSS_BYTES - 1, 0x8900))
    return b"".join(entries)


def initial_registers(case: Ia32StepCase) -> dict[str, int]:
    """Return every register of a case's initial state, and refuse a case the harness cannot run."""
    if case.cpl not in range(4):
        raise StepCaseError(f"cpl is {case.cpl}, not 0, 1, 2 or 3")
    for name in case.registers:
        if name not in REGISTER_NAMES:
            near = ", ".join(difflib.get_close_matches(name, REGISTER_NAMES)) or "none"
            raise StepCaseError(f"there is no register {name!r}; near matches: {near}")
    registers = dict.fromkeys(REGISTER_NAMES, 0)
    real = not case.registers.get("cr0", 1) & _PE
    virtual = bool(case.registers.get("eflags", 0) & _VM)
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
            "xcr0": 1,
        }
    )
    if real or virtual:
        registers.update(
            {"cs": CODE_BASE >> 4, "eip": 0, "ss": CODE_BASE >> 4, "esp": STACK_TOPS[0] - CODE_BASE}
        )
        registers.update(dict.fromkeys(("ds", "es", "fs", "gs"), DATA_BASE >> 4))
    if real:
        registers.update({"idtr.base": VECTOR_TABLE, "idtr.limit": 0x3FF})
    registers.update(case.registers)
    for name, value in registers.items():
        if not 0 <= value < 1 << 32:
            raise StepCaseError(f"{name} is {value:#x}, which has more than 32 bits")
    if real and virtual:
        raise StepCaseError("EFLAGS.VM is 1 and CR0.PE is 0")
    level = 0 if real else 3 if virtual else registers["cs"] & 3
    if level != case.cpl:
        raise StepCaseError(f"the CPL of this state is {level}, not {case.cpl}")
    if registers["cr0"] & _PG:
        raise StepCaseError("CR0.PG must be 0")
    if case.hidden and not real:
        raise StepCaseError("hidden parts can be given in real-address mode only")
    if registers["eflags"] & _TF and case.cpl == 0 and opcode_of(case.code) in (b"\xf4", b"\x0f\x01\xc9"):
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


def direct(registers: Mapping[str, int]) -> bool:
    """Whether segment registers are set and not loaded: real-address and virtual-8086 mode."""
    return not registers["cr0"] & _PE or bool(registers["eflags"] & _VM)


def hidden_parts(case: Ia32StepCase, registers: Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    """Base, limit and access rights of the segment registers in real-address and virtual-8086 mode.

    The limit is FFFFH; the rights are those of writable data, with DPL 0 or, in virtual-8086 mode, 3.
    """
    rights = 0xF3 if registers["eflags"] & _VM else 0x93
    return {name: (registers[name] << 4, 0xFFFF, rights) for name in SEGMENTS} | dict(case.hidden)


def _cut(address: int, data: bytes, limit: int) -> tuple[int, bytes]:
    return address, data[: limit + 1]


DEFAULTS: Final[tuple[tuple[int, bytes], ...]] = (
    (GDT_BASE, bytes(0x1000)),
    (GDT_BASE, default_descriptors()),
    (GDT_BASE + RESERVED_SELECTOR, reserved_descriptors()),
    (IDT_BASE, default_gates()),
    (TSS_BASE, default_tss()),
    (
        VECTOR_TABLE,
        b"".join(struct.pack("<HH", STUBS - 0xF0000 + 4 * vector, 0xF000) for vector in range(256)),
    ),
)


def _template() -> bytes:
    arena = bytearray([LANDING_BYTE]) * ARENA_BYTES
    for address, data in DEFAULTS:
        arena[address : address + len(data)] = data
    return bytes(arena)


TEMPLATE: Final = _template()


def _patch(arena: bytearray, patches: Iterable[tuple[int, bytes]]) -> None:
    for address, data in patches:
        if not 0 <= address <= address + len(data) <= ARENA_BYTES:
            raise StepCaseError(f"memory at {address:#x} to {address + len(data):#x} is not in the arena")
        arena[address : address + len(data)] = data


@attrs.frozen
class Prepared:
    """A case with all that is derived from it."""

    case: Ia32StepCase
    registers: Mapping[str, int]
    patches: tuple[tuple[int, bytes], ...]
    code_at: int
    arena: bytes
    loaded: Mapping[str, int]  # the selectors and EIP that the harness loads before the SMI sets the rest
    segments: bytes  # and what the SMI sets, where it sets segments

    @property
    def end(self) -> int:
        """Linear address of the byte after the instruction."""
        return self.code_at + len(self.case.code)

    @property
    def code(self) -> bytes:
        """The instruction and what ends its step."""
        return with_marker(self.case.code, self.registers)


def prepare(case: Ia32StepCase) -> Prepared:
    """A case with all that is derived from it.

    Raises:
        StepCaseError: it is outside the contract.
    """
    registers = initial_registers(case)
    patches: list[tuple[int, bytes]] = []
    gdt, gdt_limit = registers["gdtr.base"], registers["gdtr.limit"]
    moved = gdt != GDT_BASE or case.reserved != RESERVED_SELECTOR
    if gdt != GDT_BASE:
        patches.append(_cut(gdt, default_descriptors(), gdt_limit))
    real = (
        not registers["cr0"] & _PE
    )  # its vector table does not look like gates, and a case places it itself
    if not real and (registers["idtr.base"] != IDT_BASE or case.reserved != RESERVED_SELECTOR):
        patches.append(_cut(registers["idtr.base"], default_gates(case.reserved), registers["idtr.limit"]))
    if case.reserved != RESERVED_SELECTOR:
        patches.append((TSS_BASE, default_tss(case.reserved)))
    patches.extend(case.memory)
    own = gdt + case.reserved
    if moved or any(address < own + 32 and own < address + len(data) for address, data in case.memory):
        patches.append((own, reserved_descriptors()))
    arena = bytearray(TEMPLATE)
    _patch(arena, patches)

    tss = _descriptor(arena, registers, registers["tr"])
    if tss is not None:
        # LTR wants an available TSS and makes it busy, so the case may state either.
        busy = (tss[0] + 5, bytes([arena[tss[0] + 5] & ~2]))
        patches.append(busy)
        _patch(arena, [busy])
    loaded = {name: registers[name] for name in (*SEGMENTS, "eip")}
    segments = b""
    if direct(registers):
        hidden = hidden_parts(case, registers)
        code_at = hidden["cs"][0] + registers["eip"] & 0xFFFFFFFF
        loaded = dict.fromkeys(SEGMENTS, case.reserved + 8) | {"cs": case.reserved, "eip": code_at}
        segments = b"".join(
            struct.pack("<HHII", registers[name], hidden[name][2] | VALID, hidden[name][1], hidden[name][0])
            for name in SEGMENTS
        )
    else:
        cs = _descriptor(arena, registers, registers["cs"])
        code_at = ((cs[1] if cs else 0) + registers["eip"]) & 0xFFFFFFFF
    _patch(arena, [(code_at, with_marker(case.code, registers))])
    if tss is not None:
        arena[tss[0] + 5] |= 2
    for name in () if segments else SEGMENTS:
        found = _descriptor(arena, registers, registers[name])
        if found is not None and arena[found[0] + 5] & 0x10:
            arena[found[0] + 5] |= 1
    _patch(arena, case.stale)
    for address, length in case.watch:
        if not 0 <= address <= address + length <= 1 << 32:
            raise StepCaseError(f"cannot watch {length} bytes at {address:#x}")
    return Prepared(case, registers, tuple(patches), code_at, bytes(arena), loaded, segments)


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


def initial_memory(case: Ia32StepCase) -> bytes:
    """Return the arena as it is when the instruction starts, with the case's code, busy and accessed bits."""
    return prepare(case).arena


def msr_reads(case: Ia32StepCase) -> list[int]:
    """The MSRs to report, each once."""
    return list(dict.fromkeys((*case.msrs, *case.read_msrs)))


def with_marker(code: bytes, registers: Mapping[str, int]) -> bytes:
    """Return an instruction and what ends its step."""
    # With TF = 1, Bochs lets the single-step trap of OUT interrupt the interrupt's own handler.
    may_trace = registers["eflags"] & _TF or opcode_of(code)[:1] in (b"\x9d", b"\xcf")
    return code + (bytes([LANDING_BYTE] * 2) if may_trace else MARKER)


def opcode_of(code: bytes) -> bytes:
    """Return an instruction without its prefixes."""
    return code.lstrip(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
