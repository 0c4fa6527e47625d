"""What system instructions and transfers look at in protected mode (see `popek.emulators.ia32.cases`)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from popek.architectures.ia32.state import CR4_DEFINED
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.emulators.ia32.cases_8086 import return_to_virtual_8086
from popek.emulators.ia32.cases_builder import LANDING, Ia32CaseBuilder, words
from popek.emulators.ia32.cases_surroundings import CR0_HELD
from popek.emulators.ia32.step import (
    CODE_BASE,
    CODE_SELECTORS,
    GDT_BASE,
    IDT_BASE,
    STACK_TOPS,
)

PORTS: Final = (0x680, 0x687, 0x688, 0x689, 0x68F, 0x6FF, 0xE0, 0xE7, 0xFFFE)
"""Ports without a device: they read as ones and take anything."""
IMMEDIATE_PORTS: Final = (0xE0, 0xE1, 0xE3, 0xE6, 0xE7)


def virtual_interrupts(b: Ia32CaseBuilder) -> None:
    """CLI and STI: CR4.PVI on both sides."""
    b.registers["cr4"] = b.registers.get("cr4", 0) & ~2 | b.rng.choice((0, 2))
    pending = b.rng.choice((0, 0, 1 << 19, 1 << 20))
    b.registers["eflags"] = b.registers["eflags"] & ~0x180000 | pending


def ldt_selector(b: Ia32CaseBuilder) -> int:
    """For LLDT."""
    if b.chance(0.4):
        return b.selector()
    loaded = b.registers.get("ldtr", 0) != 0
    ldt = b.chance(0.3 if loaded else 0.05)
    return b.place(b.wild(2, 2, 2, 2, 9, 0x12), ldt=ldt) | b.rng.getrandbits(2)


def tss_selector(b: Ia32CaseBuilder) -> int:
    """For LTR."""
    if b.chance(0.4):
        return b.selector()
    loaded = b.registers.get("ldtr", 0) != 0
    ldt = b.chance(0.3 if loaded else 0.05)
    return b.place(b.wild(1, 9, 9, 9, 3, 11, 2), ldt=ldt) | b.rng.getrandbits(2)


def table_operand(b: Ia32CaseBuilder) -> None:
    """For LGDT and LIDT: where the tables are now, or anywhere when it ends right there."""
    name = b.instruction.operands[0].name
    if b.chance(0.5):
        base, limit = b.number(), b.rng.getrandbits(16)
    elif b.instruction.mnemonic == "LGDT":
        base, limit = GDT_BASE, 0xFFF
    else:
        base, limit = IDT_BASE, 0x7FF
    b.point(name, struct.pack("<HI", limit, base))


def to_control_register(b: Ia32CaseBuilder) -> None:
    """The value written: near what is there, reserved bits seldom."""
    form = b.instruction.form
    value = b.number()
    if form == "MOV CR0, r32":
        value = 0x11 | b.subset([*CR0_HELD, 1 << 29], 0.4)
        value ^= b.subset([1, 1 << 4, 1 << 6, 1 << 17, 1 << 20, 1 << 28, 1 << 29], 0.1)
        if value >> 29 & 3 == 1 or not value & 1:
            value |= b.rng.getrandbits(1) << 31
    elif form == "MOV CR4, r32":
        value = b.rng.getrandbits(32) & CR4_DEFINED
        if b.chance(0.2):
            value |= 1 << b.rng.choice((15, 19, 24, 25, 26, 28, 29, 30, 31, 12, 16, 17, 22, 23))
    b.register_operand("r32", value)


def to_debug_register(b: Ia32CaseBuilder) -> None:
    """No break point is enabled that something might hit."""
    value = b.rng.getrandbits(32)
    if b.instruction.form in ("MOV DR7, r32", "MOV DR5, r32"):
        value &= ~0x20FF if b.chance(0.5) else ~0xFF
    elif "DR6" not in b.instruction.form and "DR4" not in b.instruction.form:
        value |= 0x80000000
    b.register_operand("r32", value)


def segment_load(b: Ia32CaseBuilder) -> None:
    """MOV to a segment register."""
    number = b.rng.choice((0, 0, 2, 2, 2, 3, 3, 4, 5, 1, 6, 7))
    selector = b.stack_selector(b.cpl) if number == 2 else b.data_selector()
    b.operands["operand Sreg"] = number
    b.selector_operand(selector, source=True)


def pop_segment(b: Ia32CaseBuilder) -> None:
    """POP of a segment register."""
    stack = "SS" in b.instruction.form
    selector = b.stack_selector(b.cpl) if stack else b.data_selector()
    b.on_stack(words(selector | b.rng.getrandbits(16) << 16))


def far_pointer_load(b: Ia32CaseBuilder) -> None:
    """LDS and its kin."""
    stack = b.instruction.mnemonic == "LSS"
    selector = b.stack_selector(b.cpl) if stack else b.data_selector()
    offset = b.number()
    for operand in b.instruction.operands:
        if operand.kind.name == "m16:16":
            b.point(operand.name, struct.pack("<HH", offset & 0xFFFF, selector))
        elif operand.kind.name == "m16:32":
            b.point(operand.name, struct.pack("<IH", offset, selector))


def far_operand(b: Ia32CaseBuilder) -> None:
    """CALL and JMP: to code, through a gate, or to something else."""
    roll = b.rng.random()
    if roll < 0.3:
        conforming = b.chance(0.4)
        dpl = b.rng.randrange(b.cpl + 1) if conforming else b.cpl
        if b.chance(0.15):
            dpl = b.level()
        good = not b.chance(0.15)
        selector = b.place(b.code(dpl, conforming=conforming, present=good, wide=b.chance(0.9)))
    elif roll < 0.8:
        dpl = b.rng.randrange(b.cpl, 4) if b.chance(0.85) else b.level()
        selector = b.place(b.gate(b.rng.choice((12, 12, 4)), dpl, present=not b.chance(0.1)))
    else:
        selector = b.selector() & ~3
    selector |= b.rng.choice((0, 0, b.cpl, b.rng.randrange(4)))
    offset = LANDING + b.rng.choice((0, 0, 0, 0, 1, -1))
    for operand in b.instruction.operands:
        kind, name = operand.kind.name, operand.name
        if kind.startswith("ptr"):
            b.operands[f"operand {name}.selector"] = selector
            b.operands[f"operand {name}.offset"] = offset & (0xFFFF if kind.endswith(":16") else 0xFFFFFFFF)
        elif kind == "m16:16":
            b.point(name, struct.pack("<HH", offset & 0xFFFF, selector))
        else:
            b.point(name, struct.pack("<IH", offset, selector))
    b.on_stack(b.rng.randbytes(64))  # parameters


def return_frame(b: Ia32CaseBuilder, *, flags: bool) -> None:
    """RET far and IRET: to the same level or to an outer one, or to virtual-8086 mode."""
    if b.instruction.form == "IRETD" and b.cpl == 0 and b.chance(0.3):
        return_to_virtual_8086(b)
        return
    level = b.rng.choice((b.cpl, 3, b.rng.randrange(b.cpl, 4)))
    conforming = b.chance(0.3)
    dpl = b.rng.randrange(level + 1) if conforming else level
    if b.chance(0.15):
        dpl = b.level()
    if b.chance(0.5) and not conforming:
        selector = CODE_SELECTORS[dpl] & ~3
    elif b.chance(0.75):
        good = not b.chance(0.15)
        selector = b.place(b.code(dpl, conforming=conforming, present=good, wide=b.chance(0.9)))
    else:
        selector = b.selector() & ~3
    selector |= level if b.chance(0.9) else b.level()
    offset = LANDING + b.rng.choice((0, 0, 0, 0, 1, -1))
    stack = b.stack_selector(level)
    narrow = b.instruction.form.startswith("o16") or b.instruction.form == "IRET"
    image = b.rng.getrandbits(32)
    if b.cpl == 0 and b.chance(0.95):
        image &= ~0x20000  # VM
    frame = [offset, selector | b.rng.getrandbits(16) << 16, *([image] if flags else [])]
    released = 0
    if b.instruction.operands:
        released = b.rng.choice((0, 4, 8, 2, 0x10, 0x10, 3))
        b.operands["operand imm16"] = released
    outer = [STACK_TOPS[level] & 0xFFFF if b.chance(0.3) else STACK_TOPS[level], stack]
    pack = "H" if narrow else "I"
    mask = 0xFFFF if narrow else 0xFFFFFFFF
    inner = b"".join(struct.pack(f"<{pack}", value & mask) for value in frame)
    above = b"".join(struct.pack(f"<{pack}", value & mask) for value in outer)
    b.on_stack(inner + b.rng.randbytes(released) + above)


def software_interrupt(b: Ia32CaseBuilder) -> None:
    """INT n, INT3, INTO and INT1: a gate of any kind, and its DPL on either side of CPL."""
    form = b.instruction.form
    vector = {"INT3": 3, "INTO": 4, "INT1": 1}.get(form, b.rng.choice((0x20, 0x80, 0x81, 0xFF, 2)))
    if form == "INT imm8":
        b.operands["operand imm8"] = vector
        if b.chance(0.2):
            b.registers["idtr.limit"] = 8 * vector + b.rng.choice((-1, 6, 7)) if vector > 0x11 else 0x8F
    if form == "INTO" and b.chance(0.7):
        b.registers["eflags"] |= 0x800
    if form == "INT1":
        # Landing places use this vector, so here the handler ends with UD2 (which the harness knows too).
        for place in (LANDING, LANDING & 0xFFFF):
            b.put(place, b"\x0f\x0b")
    kind = b.rng.choice((14, 14, 15, 6, 7)) if b.chance(0.8) else b.rng.randrange(16)
    dpl = b.rng.randrange(b.cpl, 4) if b.chance(0.75) else b.rng.randrange(b.cpl + 1)
    gate = b.gate(kind, dpl, present=not b.chance(0.1))
    b.put(IDT_BASE + 8 * vector, gate)


def port(b: Ia32CaseBuilder) -> None:
    """A port without a device; the index registers of INS and OUTS."""
    if "imm8" in b.instruction.form:
        b.operands["operand imm8"] = b.rng.choice(IMMEDIATE_PORTS)
    b.registers["edx"] = b.rng.choice(PORTS) | b.rng.getrandbits(16) << 16
    if b.instruction.mnemonic in ("INS", "OUTS"):
        number = 0
        if b.instruction.mnemonic == "OUTS":
            number = b.operands["operand seg"] = b.rng.randrange(6)
        segment = b.segments[SEGMENT_NAMES[number]]
        register = "edi" if b.instruction.mnemonic == "INS" else "esi"
        b.registers[register] = b.target(segment, 4) & 0xFFFFFFFF


def counter(b: Ia32CaseBuilder) -> None:
    """RDPMC: counters at either side of the last one."""
    b.registers["ecx"] = b.rng.choice((0, 1, 7, 8, 17, 18, 0x40000000, 0x40000002, 0x40000003, 0x80000000))


def branch(b: Ia32CaseBuilder) -> None:
    """Near transfers: to a landing place or past the limit."""
    segment = b.segments["cs"]
    eip = b.registers.get("eip", CODE_BASE)
    target = LANDING - segment.base
    if segment.limit < target or b.chance(0.15):
        target = b.rng.choice((segment.limit, segment.limit + 1, LANDING - segment.base)) & 0xFFFFFFFF
    for operand in b.instruction.operands:
        if operand.kind.name == "rel8":
            b.operands["operand rel8"] = b.rng.choice((0, 0x10, 0x20, 0x7F, 0x80, 0xE0, 0xF0))
        elif operand.kind.name == "rel32":
            b.operands["operand rel32"] = target - eip - 5 & 0xFFFFFFFF
        elif operand.kind.name == "m32":
            b.point("m32", words(target))
        elif operand.kind.name == "r32":
            b.register_operand("r32", target | 0)
            b.general(b.operands["operand r32"], target)
        else:
            b.operands["operand imm16"] = b.rng.choice((0, 2, 4, 0x10, 0xFFFF))
    b.on_stack(words(target))


def leave(b: Ia32CaseBuilder) -> None:
    """LEAVE: EBP points into the stack."""
    b.registers["ebp"] = (b.esp - 0x40 if b.chance(0.8) else b.esp + b.rng.getrandbits(2)) & 0xFFFFFFFF
    b.on_stack(words(b.number()))


SPECIAL_PROTECTED: Final[Mapping[str, Callable[[Ia32CaseBuilder], None]]] = {
    "MOV Sreg, r16": segment_load, "MOV Sreg, m16": segment_load, "POP sreg": pop_segment,
    **dict.fromkeys(("LDS", "LES", "LFS", "LGS", "LSS"), far_pointer_load),
    "LGDT": table_operand, "LIDT": table_operand,
    "LLDT": lambda b: b.selector_operand(ldt_selector(b)),
    "LTR": lambda b: b.selector_operand(tss_selector(b)),
    "LMSW": lambda b: b.selector_operand(b.rng.getrandbits(16)),
    **dict.fromkeys(("LAR", "LSL"), lambda b: b.selector_operand(b.selector(), source=True)),
    **dict.fromkeys(("VERR", "VERW"), lambda b: b.selector_operand(b.selector())),
    "MOV to CR": to_control_register, "MOV to DR": to_debug_register,
    "CLI": virtual_interrupts, "STI": virtual_interrupts, "POPF": lambda b: b.on_stack(words(b.number())),
    "CALL far": far_operand, "JMP far": far_operand,
    "RET far": lambda b: return_frame(b, flags=False), "IRET": lambda b: return_frame(b, flags=True),
    **dict.fromkeys(("INT n", "INT3", "INTO", "INT1"), software_interrupt),
    **dict.fromkeys(("IN", "OUT", "INS", "OUTS"), port), "RDPMC": counter,
    **dict.fromkeys(("Jcc", "JMP near", "CALL near", "RET near"), branch), "LEAVE": leave,
}  # fmt: skip
"""By form or mnemonic."""
