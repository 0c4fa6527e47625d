"""Random states in real-address and virtual-8086 mode (see `popek.emulators.ia32.cases`)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from popek.emulators.ia32.cases_builder import LANDING, Ia32CaseBuilder, LoadedSegment
from popek.emulators.ia32.cases_surroundings import CR0_HELD, debug_registers, narrow_task
from popek.emulators.ia32.step import (
    CODE_BASE,
    DATA_BASE,
    GDT_BASE,
    IDT_BASE,
    STACK_TOPS,
    TSS_BASE,
    TSS_SELECTOR,
    VECTOR_TABLE,
    segment_descriptor,
)

_VM, _IOPL, _VIF, _VIP, _TF = 1 << 17, 0x3000, 1 << 19, 1 << 20, 1 << 8
_VME, _PVI = 1, 2
_AM = _AC = 1 << 18
_FLAGS = 0x247ED5
_DATA = (DATA_BASE >> 4, DATA_BASE >> 4, (DATA_BASE >> 4) + 1, (DATA_BASE >> 4) - 0x100, 0x3800, 3)
_CODE = ((CODE_BASE >> 4, 0), ((CODE_BASE >> 4) - 0x100, 0x1000), (0x1800, 0x8000), (0x1003, 0xFFD0))


def surroundings_8086(b: Ia32CaseBuilder, *, virtual: bool) -> None:
    """Registers, flags, control bits, segment registers and what of the TSS virtual-8086 mode looks at."""
    for name in ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi"):
        if b.chance(0.6):
            b.registers[name] = b.number()
    flags = b.subset([1 << bit for bit in range(22) if _FLAGS >> bit & 1], b.rng.choice((0.1, 0.5)))
    flags = flags & ~_IOPL | b.rng.choice((0, 3, 3, b.rng.randrange(4))) << 12
    if virtual or b.chance(0.2):
        flags |= b.rng.choice((0, 0, _VIF, _VIP))
    b.registers["eflags"] = flags | 2 | (_VM if virtual else 0)
    b.registers["cr0"] = 0x10 | virtual | (b.subset(CR0_HELD, 0.3) if b.chance(0.5) else 0)
    held = [1 << bit for bit in range(23) if 0x00740FFC >> bit & 1]
    b.registers["cr4"] = b.subset(held, 0.3) | b.rng.choice((0, _VME, _VME, _PVI))
    debug_registers(b)
    selector, eip = b.rng.choice(_CODE)
    if b.registers["cr0"] & _AM and flags & _AC:
        # Resuming from system-management mode, Bochs takes the level for alignment checks from CS.
        selector, eip = _CODE[-1 if virtual else 0]
    b.registers["cs"], b.registers["eip"] = selector, eip
    b.segments["cs"] = LoadedSegment(selector << 4, 0xFFFF, big=False)
    for name in ("ds", "es", "fs", "gs", "ss"):
        selector = CODE_BASE >> 4 if name == "ss" else b.rng.choice(_DATA)
        b.registers[name] = selector
        limit = 0xFFFF
        if not virtual and b.chance(0.25):
            limit = _unreal(b, name)
        b.segments[name] = LoadedSegment(selector << 4, limit, big=False)
    b.stack = b.segments["ss"]
    b.esp = STACK_TOPS[0] - b.stack.base
    if b.chance(0.15):
        b.esp -= b.rng.choice((1, 2, 3))
    if b.chance(0.1):
        b.esp = b.rng.choice((0, 1, 2, 4, 8, 0xFFFF, 0xFFFE, 0xFFFC))
    if b.instruction.mnemonic == "PUSHA" and b.chance(0.3):
        b.esp = b.rng.choice((3, 5, 7, 9, 11, 13, 15, 17))
    if b.chance(0.3) and "ss" not in b.hidden:
        b.esp |= b.rng.getrandbits(16) << 16
    b.registers["esp"] = b.esp
    if virtual:
        _task(b)


def _unreal(b: Ia32CaseBuilder, name: str) -> int:
    """A hidden part that protected mode left behind; its limit."""
    big, limit = b.rng.choice(((0x40, 0xFFFFFFFF), (0x00, 0x2FFF), (0x00, 0xFFFFFFFF), (0x40, 0x3FFF)))
    if name == "ss":
        big, limit = b.rng.choice(((0x40, 0xFFFFFFFF), (0x40, 0xFFFF)))
    granular = 0x80 if limit == 0xFFFFFFFF else 0
    b.hidden[name] = (b.registers[name] << 4, limit, 0x93 | (big | granular) << 8)
    return limit


def _task(b: Ia32CaseBuilder) -> None:
    """The I/O permission map and, below it, the redirection map of INT n; seldom a 16-bit TSS, which has neither."""
    if b.chance(0.08):
        narrow_task(b)
        return
    base = b.rng.choice((0x88, 0x88, 0x88, 0x90, 0x68, 0x10, 0xFFFF))
    limit = b.rng.choice((0x2088, 0x2088, 0x67, 0x66, 0x88 + 0xD0, 0x89 + 0xD0, 0x8A + 0xD0, 0x87, 0x78))
    b.put(TSS_BASE + 0x66, struct.pack("<H", base))
    if base < 0x1000:
        bits = b.rng.choice((b"\0\0\0", b"\0\0\0", b.rng.randbytes(3)))
        for port in (0x680, 0x6FF, 0xE0, 0xFFFE):
            b.put(TSS_BASE + base + (port >> 3), bits[: 3 if port < 0xFFFE else 2])
        if base >= 0x88:
            b.put(
                TSS_BASE + base - 32, b.rng.choice((bytes(32), bytes(32), b.rng.randbytes(32), b"\xff" * 32))
            )
    b.put(GDT_BASE + TSS_SELECTOR, segment_descriptor(TSS_BASE, limit, 0x8900))


def _place_to_land(b: Ia32CaseBuilder, *, wide: bool = False) -> tuple[int, int]:
    """Selector and offset of a landing place; sometimes with an offset beyond the limit."""
    back = b.rng.choice((0, 0, 0x10, 0x7FF, 0xFFF))
    selector, offset = (LANDING >> 4) - back, back << 4
    return selector, offset | (0x10000 if wide and b.chance(0.15) else 0)


def far_operand(b: Ia32CaseBuilder) -> None:
    """CALL and JMP."""
    for operand in b.instruction.operands:
        kind, name = operand.kind.name, operand.name
        wide = kind.endswith(":32")
        selector, offset = _place_to_land(b, wide=wide)
        if kind.startswith("ptr"):
            b.operands[f"operand {name}.selector"] = selector
            b.operands[f"operand {name}.offset"] = offset
        else:
            b.point(name, struct.pack("<IH" if wide else "<HH", offset, selector))


def return_frame(b: Ia32CaseBuilder) -> None:
    """RET far and IRET."""
    form = b.instruction.form
    narrow = form.startswith("o16") or form == "IRET"
    selector, offset = _place_to_land(b, wide=not narrow)
    frame = [offset, selector if narrow else selector | b.rng.getrandbits(16) << 16]
    if b.instruction.mnemonic == "IRET":
        image = b.rng.getrandbits(32)
        frame.append(image & ~_TF if b.chance(0.7) else image)
    elif b.instruction.operands:
        b.operands["operand imm16"] = b.rng.choice((0, 4, 2, 0x10, 3))
    mask = 0xFFFF if narrow else 0xFFFFFFFF
    b.on_stack(b"".join(struct.pack("<H" if narrow else "<I", value & mask) for value in frame))


def software_interrupt(b: Ia32CaseBuilder) -> None:
    """INT n and its kin: vector tables, gates for virtual-8086 mode, and the limit of the table."""
    form = b.instruction.form
    vector = {"INT3": 3, "INTO": 4, "INT1": 1}.get(form, b.rng.choice((0x20, 0x80, 0x81, 0xFF, 0x21)))
    if form == "INT imm8":
        b.operands["operand imm8"] = vector
    if form == "INTO" and b.chance(0.7):
        b.registers["eflags"] |= 0x800
    if form == "INT1":
        b.put(LANDING, b"\x0f\x0b")  # see `Ia32CaseBuilder.software_interrupt`
    selector, offset = _place_to_land(b)
    entry = struct.pack("<HH", offset, selector)
    if b.registers["eflags"] & _VM:
        b.put(4 * vector, entry)
        kind = b.rng.choice((14, 14, 15, 6, 7)) if b.chance(0.85) else b.rng.randrange(16)
        dpl = 3 if b.chance(0.85) else b.rng.randrange(3)
        b.put(IDT_BASE + 8 * vector, b.gate(kind, dpl, present=not b.chance(0.1)))
    else:
        b.put(VECTOR_TABLE + 4 * vector, entry)
        if vector > 0x11 and b.chance(0.2):
            b.registers["idtr.limit"] = 4 * vector + b.rng.choice((-1, 2, 3))


def segment_load(b: Ia32CaseBuilder) -> None:
    """MOV to a segment register: any selector will do."""
    b.operands["operand Sreg"] = b.rng.choice((0, 2, 3, 4, 5, 0, 3, 1, 6, 7))
    b.selector_operand(_selector(b), source=True)


def pop_segment(b: Ia32CaseBuilder) -> None:
    """POP of a segment register."""
    b.on_stack(struct.pack("<I", _selector(b) | b.rng.getrandbits(16) << 16))


def far_pointer_load(b: Ia32CaseBuilder) -> None:
    """LDS and its kin."""
    offset = b.number()
    for operand in b.instruction.operands:
        if operand.kind.name == "m16:16":
            b.point(operand.name, struct.pack("<HH", offset & 0xFFFF, _selector(b)))
        elif operand.kind.name == "m16:32":
            b.point(operand.name, struct.pack("<IH", offset, _selector(b)))


def _selector(b: Ia32CaseBuilder) -> int:
    return b.rng.choice((0, 3, 0x2000, 0x3000, 0x3FFF, 0xFFFF, b.rng.getrandbits(16)))


def pushed_flags(b: Ia32CaseBuilder) -> None:
    """POPF: any image, seldom one that sets TF."""
    image = b.rng.getrandbits(32)
    b.on_stack(struct.pack("<I", image & ~_TF if b.chance(0.8) else image))


def machine_status(b: Ia32CaseBuilder) -> None:
    """LMSW and MOV to CR0 in real-address mode: leaving it needs code in CS, which no case has."""
    if b.instruction.mnemonic == "LMSW":
        b.selector_operand(b.rng.getrandbits(16))
        return
    value = 0x10 | b.subset([*CR0_HELD, 1 << 29], 0.4) | b.rng.choice((0, 0, 1, 1 << 31))
    b.register_operand("r32", value)


def return_to_virtual_8086(b: Ia32CaseBuilder) -> None:
    """IRETD at CPL 0 with VM in the image."""
    selector, offset = _place_to_land(b, wide=True)
    image = b.rng.getrandbits(32) & ~_TF | _VM
    if b.chance(0.8):
        image &= ~_VIP
    pointer = STACK_TOPS[0] - CODE_BASE | (b.rng.getrandbits(16) << 16 if b.chance(0.3) else 0)
    segments = [CODE_BASE >> 4, *(b.rng.choice((*_DATA, b.rng.getrandbits(16))) for _ in range(4))]
    high = [word | b.rng.getrandbits(16) << 16 for word in (selector, *segments)]
    b.on_stack(struct.pack("<9I", offset, high[0], image, pointer, *high[1:]))


SPECIAL_8086: Final[Mapping[str, Callable[[Ia32CaseBuilder], None]]] = {
    "CALL far": far_operand, "JMP far": far_operand, "RET far": return_frame, "IRET": return_frame,
    **dict.fromkeys(("INT n", "INT3", "INTO", "INT1"), software_interrupt),
    "MOV Sreg, r16": segment_load, "MOV Sreg, m16": segment_load, "POP sreg": pop_segment,
    **dict.fromkeys(("LDS", "LES", "LFS", "LGS", "LSS"), far_pointer_load),
    "POPF": pushed_flags, "LMSW": machine_status, "MOV CR0, r32": machine_status,
}  # fmt: skip
"""By form or mnemonic, before what cases in protected mode have."""
