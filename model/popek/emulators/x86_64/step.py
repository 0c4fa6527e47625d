"""Run single x86-64 instructions on Bochs, thousands in one boot, each from a complete given state.

How it works
------------
A system-management interrupt saves the whole processor state, hidden parts of segment registers included, and
RSM loads one.  So a case *is* a saved state, which the ROM `step.asm` resumes; only CR2, CR8, DR0 to
DR3, XCR0, PKRU and some MSRs are loaded by instructions.  Such an interrupt also ends the step:

* The instruction is followed by ``OUT 0B2H, AL``, which raises it where the TSS or IOPL allows the port; elsewhere
  it gives #GP(0) at the fall-through address, which is recognised.  The same two bytes lie at `landings`.
* All memory that nothing is put in is F1H (INT1), so that a landing elsewhere is recognised, too.
* Exceptions go through 64-bit interrupt gates with IST 1, a stack of the harness.
* An instruction that does not end (HLT) is ended after about 50,000 emulated instructions.

Contract
--------
* IA-32e mode.  Memory is the arena, linear 0 to `ARENA_BYTES`, identity-mapped; user pages from `USER_BASE` on,
  of which one (`READ_ONLY_BASE`) is read-only; supervisor pages below.
* The GDT must have the harness's code segment at `RESERVED_SELECTOR`, the IDT gates for the vectors that occur,
  and the TSS IST 1, unless the step ends right after the instruction at CPL 0.
* RF is not observable but in the frame of a fault.
* Ports must be left alone except those without a device.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.bochs.simulator import BochsError
from popek.emulators.bochs.step_boots import StepRom, patch_list
from popek.emulators.x86.expectation import StepResult

ARENA_BYTES: Final = 0x40000
"""Size of the memory a case may use; it starts at linear address 0."""
GDT_BASE: Final = 0x10000
IDT_BASE: Final = 0x12000
TSS_BASE: Final = 0x14000
LDT_BASE: Final = 0x17000
KERNEL_CODE: Final = 0x4000
"""Where instructions lie that run at CPL 0, 1 or 2."""
USER_BASE: Final = 0x20000
"""From here on pages are for users; where instructions lie that run at CPL 3."""
READ_ONLY_BASE: Final = 0x3C000
"""A page that user mode may not write."""
STACK_TOPS: Final = (0x8000, 0x9000, 0xA000, 0x28000)
"""RSP for each CPL."""
INNER_STACK_TOPS: Final = (0xB000, 0xC000, 0xD000)
"""RSP0, RSP1 and RSP2 of the default TSS."""
IST_TOPS: Final = (0x1026000, 0xE008, 0xE800, 0xEFF0, 0xF001, 0xF807, 0xFFF8)
"""IST1, which is the harness's, to IST7 of the default TSS."""
KERNEL_DATA, USER_DATA = 0x1000, 0x30000
KERNEL_LANDING, USER_LANDING = 0x5000, 0x38000
"""Where transfers are meant to land."""
CR3: Final = 0x01030000

CODE_SELECTORS: Final = (0x08, 0x19, 0x2A, 0x3B)
"""64-bit code segments of the rings 0 to 3."""
DATA_SELECTORS: Final = (0x10, 0x21, 0x32, 0x43)
"""Flat data segments of the rings 0 to 3."""
COMPATIBLE_SELECTORS: Final = (0x48, 0x51, 0x5A, 0x63)
"""Flat 32-bit code segments of the rings 0 to 3."""
TSS_SELECTOR: Final = 0x68
FREE_SELECTOR: Final = 0x78
RESERVED_SELECTOR: Final = 0xFF0
"""The harness's code segment."""
IO_MAP_AT: Final = 0x68
TSS_LIMIT: Final = IO_MAP_AT + 0x2000
LANDING_BYTE: Final = 0xF1
MARKER: Final = b"\xe6\xb2"

MSR_NAMES: Final = (
    *("msr.star", "msr.lstar", "msr.cstar", "msr.fmask", "msr.kernel_gs_base", "msr.tsc_aux"),
    *("msr.sysenter_cs", "msr.sysenter_esp", "msr.sysenter_eip", "msr.pat"),
)
"""In the order of the ROM's list."""
EXTRA_NAMES: Final = ("cr2", "cr8", "dr0", "dr1", "dr2", "dr3", "xcr0", "pkru", *MSR_NAMES)
REGISTER_NAMES: Final = ("cr4", "cr3", "cr0", "dr7", "dr6", "rflags", "rip", *reversed(GPR_NAMES))
"""In the order of the saved state: RIP, then R15 down to RAX."""
_TABLES = (*SEGMENT_NAMES, "gdtr", "ldtr", "idtr", "tr")

_STUBS = 0xF8000
_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
_HEADER = struct.Struct("<4I160sQ184s18Q")
_REPORT_BYTES = 1 + 160 + 8 + 184 + 48 + 18 * 8


@attrs.frozen
class X64StepCase:
    """One instruction and the state it starts from.

    Attributes:
        code: the instruction, placed at RIP.
        state: every component that the harness sets, by the model's names; see `plain_state`.
        memory: (linear address, bytes), in this order, over what every case has.
        landings: linear addresses where the step may end, besides right after the instruction.
        watch: (linear address, length) of the memory to report.
    """

    code: bytes
    state: Mapping[str, int]
    memory: tuple[tuple[int, bytes], ...] = ()
    landings: tuple[int, ...] = ()
    watch: tuple[tuple[int, int], ...] = ()

    @property
    def start(self) -> int:
        """The linear address of the instruction."""
        base = 0 if self.state["cs.rights"] >> 13 & 1 else self.state["cs.base"]
        return base + self.state["rip"] & 0xFFFFFFFF_FFFFFFFF


def segment_descriptor(base: int, limit: int, access: int) -> bytes:
    """Eight bytes of descriptor; `access` has the layout of its second dword."""
    low = (limit & 0xFFFF) | (base & 0xFFFF) << 16
    high = (base >> 16 & 0xFF) | (access & 0xF0FF00) | (limit & 0xF0000) | (base & 0xFF000000)
    return struct.pack("<II", low, high)


def system_descriptor(base: int, limit: int, access: int, upper: int = 0) -> bytes:
    """Sixteen bytes of descriptor; `upper` is its last dword."""
    return segment_descriptor(base & 0xFFFFFFFF, limit, access) + struct.pack("<II", base >> 32, upper)


def gate_descriptor(selector: int, offset: int, access: int, *, ist: int = 0, upper: int = 0) -> bytes:
    """Sixteen bytes of gate; `access` has the layout of the second dword's bits 15:8."""
    low = selector << 16 | offset & 0xFFFF
    high = offset & 0xFFFF0000 | access & 0xFF00 | ist
    return struct.pack("<IIII", low, high, offset >> 32, upper)


def default_descriptors() -> bytes:
    """The default GDT up to `FREE_SELECTOR`."""
    entries = [bytes(8)]
    for ring in range(4):
        entries.append(segment_descriptor(0, 0xFFFFF, 0xA09B00 | ring << 13))
        entries.append(segment_descriptor(0, 0xFFFFF, 0xC09300 | ring << 13))
    entries += [segment_descriptor(0, 0xFFFFF, 0xC09B00 | ring << 13) for ring in range(4)]
    entries.append(system_descriptor(TSS_BASE, TSS_LIMIT, 0x8B00))
    return b"".join(entries)


def default_tss() -> bytes:
    """Stacks, interrupt stacks, and a permission map that allows the marker's port alone."""
    tss = bytearray(IO_MAP_AT) + bytearray(b"\xff" * (TSS_LIMIT + 1 - IO_MAP_AT))
    struct.pack_into("<3Q", tss, 4, *INNER_STACK_TOPS)
    struct.pack_into("<7Q", tss, 0x24, *IST_TOPS)
    struct.pack_into("<H", tss, 0x66, IO_MAP_AT)
    tss[IO_MAP_AT + 0xB2 // 8] = 0xFF & ~(1 << 0xB2 % 8)
    return bytes(tss)


def default_gates() -> bytes:
    """An IDT of 256 gates that lead to the harness."""
    return b"".join(
        gate_descriptor(RESERVED_SELECTOR, _STUBS + 4 * vector, 0x8E00, ist=1) for vector in range(256)
    )


_DEFAULTS: Final[tuple[tuple[int, bytes], ...]] = (
    (GDT_BASE, bytes(0x1010)),
    (GDT_BASE, default_descriptors()),
    (GDT_BASE + RESERVED_SELECTOR, segment_descriptor(0, 0xFFFFF, 0xA09B00)),
    (IDT_BASE, default_gates()),
    (TSS_BASE, default_tss()),
    (LDT_BASE, bytes(0x100)),
)


def _template() -> bytes:
    arena = bytearray([LANDING_BYTE]) * ARENA_BYTES
    for address, data in _DEFAULTS:
        arena[address : address + len(data)] = data
    return bytes(arena)


TEMPLATE: Final = _template()


def _flat(cpl: int, rights: int) -> tuple[int, int, int]:
    return 0, 0xFFFFFFFF, rights | cpl << 5


def plain_state(cpl: int, *, long: bool = True) -> dict[str, int]:
    """A plain state at a privilege level, in 64-bit or compatibility mode: every component the harness sets."""
    state = dict.fromkeys((*GPR_NAMES, *EXTRA_NAMES), 0)
    state |= {"rip": USER_BASE if cpl == 3 else KERNEL_CODE, "rflags": 2, "rsp": STACK_TOPS[cpl]}
    code = (CODE_SELECTORS if long else COMPATIBLE_SELECTORS)[cpl]
    segments = {name: (DATA_SELECTORS[cpl], *_flat(cpl, 0xC093)) for name in SEGMENT_NAMES}
    segments["cs"] = (code, *_flat(cpl, 0xA09B if long else 0xC09B))
    segments["ldtr"] = (0, 0, 0, 0x10000)
    segments["tr"] = (TSS_SELECTOR, TSS_BASE, TSS_LIMIT, 0x8B)
    for name, parts in segments.items():
        for part, value in zip(("selector", "base", "limit", "rights"), parts, strict=True):
            state[f"{name}.{part}"] = value
    state |= {"gdtr.base": GDT_BASE, "gdtr.limit": 0xFFF, "idtr.base": IDT_BASE, "idtr.limit": 0xFFF}
    state |= {"cr0": 0x80000031, "cr3": CR3, "cr4": 0x20, "efer": 0x500, "xcr0": 1}
    state |= {"dr6": 0xFFFF0FF0, "dr7": 0x400, "msr.pat": 0x0007040600070406}
    return state


def initial_memory(case: X64StepCase) -> bytes:
    """The arena as it is when the instruction starts."""
    arena = bytearray(TEMPLATE)
    for address, data in _patches(case):
        arena[address : address + len(data)] = data
    return bytes(arena)


def _patches(case: X64StepCase) -> list[tuple[int, bytes]]:
    marks = [(address, MARKER) for address in case.landings]
    return [*marks, *case.memory, (case.start, case.code + MARKER)]


def _record(case: X64StepCase) -> bytes:
    state, patches = case.state, _patches(case)
    tables = b""
    for name in _TABLES:
        if name in ("gdtr", "idtr"):
            tables += struct.pack("<IIQ", 0, state[f"{name}.limit"], state[f"{name}.base"])
            continue
        rights = state[f"{name}.rights"]
        attributes = rights & 0xF0FF | (0 if rights >> 16 else 0x100)
        parts = (state[f"{name}.selector"], attributes, state[f"{name}.limit"], state[f"{name}.base"])
        tables += struct.pack("<HHIQ", *parts)
    registers = struct.pack("<23Q", *(state[name] for name in REGISTER_NAMES))
    lists = patch_list(patches) + b"".join(struct.pack("<II", *watch) for watch in case.watch)
    extras = (state[name] for name in EXTRA_NAMES)
    length = _HEADER.size + len(lists)
    header = (length, len(patches), len(case.watch), 0, tables, state["efer"], registers)
    return _HEADER.pack(*header, *extras) + lists


def _decode_all(batch: Sequence[X64StepCase], report: bytes) -> list[StepResult]:
    """Decode the complete results of a report, which may end early."""
    results = []
    at = 1
    for case in batch:
        size = _REPORT_BYTES + sum(length for _, length in case.watch)
        if at + size > len(report):
            break
        if report[at : at + 1] != b"R":
            raise BochsError(f"the guest's report is garbled at byte {at}")
        results.append(_decode(case, report[at : at + size]))
        at += size
    return results


def _decode(case: X64StepCase, report: bytes) -> StepResult:
    state: dict[str, int] = {}
    for index, name in enumerate(_TABLES):
        selector, attributes, limit, base = struct.unpack_from("<HHIQ", report, 1 + 16 * index)
        state[f"{name}.base"], state[f"{name}.limit"] = base, limit
        if name not in ("gdtr", "idtr"):
            state[f"{name}.selector"] = selector
            # What remains of the rights of an unusable register is of no consequence.
            state[f"{name}.rights"] = attributes & 0xF0FF if attributes >> 8 & 1 else 0x10000
    (state["efer"],) = struct.unpack_from("<Q", report, 161)
    state.update(zip(REGISTER_NAMES, struct.unpack_from("<23Q", report, 169), strict=True))
    frame = struct.unpack_from("<6Q", report, 353)
    state.update(zip(EXTRA_NAMES, struct.unpack_from("<18Q", report, 401), strict=True))
    memory: list[bytes] = []
    at = _REPORT_BYTES
    for _, length in case.watch:
        memory.append(report[at : at + length])
        at += length
    stub = state["rip"] - 2 - _STUBS
    if state["cs.selector"] & ~3 == RESERVED_SELECTOR and 0 <= stub < 1024 and stub % 4 == 0:
        return _delivered(case, stub // 4, frame, state, tuple(memory))
    base = 0 if state["cs.rights"] >> 13 & 1 else state["cs.base"]
    ended = (base + state["rip"] - len(MARKER)) & 0xFFFFFFFF_FFFFFFFF
    if ended == case.start + len(case.code) or ended in case.landings:
        state["rip"] -= len(MARKER)
        return StepResult("next", registers=state, memory=tuple(memory))
    return StepResult("hang", registers=state, memory=tuple(memory))


def _delivered(
    case: X64StepCase, vector: int, frame: tuple[int, ...], state: dict[str, int], memory: tuple[bytes, ...]
) -> StepResult:
    """A step that ended in one of the harness's gates."""
    code = None
    software = case.code == bytes([0xCD, vector])
    if vector in _WITH_ERROR_CODE and not software:
        code, frame = frame[0], frame[1:]
    state["rip"], state["cs.selector"], state["rflags"], state["rsp"], state["ss.selector"] = (
        frame[0],
        frame[1] & 0xFFFF,
        frame[2],
        frame[3],
        frame[4] & 0xFFFF,
    )
    for name in ("cs", "ss"):
        for part in ("base", "limit", "rights"):
            del state[f"{name}.{part}"]
    after = case.state["rip"] + len(case.code)
    moved = (state["rip"], state["cs.selector"]) != (case.state["rip"], case.state["cs.selector"])
    if vector == 1 and moved and not (case.code == b"\xf1" and state["rip"] == after):
        state["rip"] -= 1
        return StepResult("next", registers=state, memory=memory)
    if vector == 13 and code == 0 and moved and (state["rip"] == after or state["rip"] in case.landings):
        return StepResult("next", registers=state, memory=memory)
    return StepResult("trap", vector, code, state, memory)


run_steps: Final = StepRom(
    Path(__file__).with_name("step.asm"), _DEFAULTS, _record, _decode_all, StepResult
).run
"""Runs cases on Bochs and returns their results, in order; see `StepRom.run`."""
