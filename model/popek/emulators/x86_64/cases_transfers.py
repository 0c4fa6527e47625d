"""Cases of x86-64 control transfers: far and near, interrupts and returns, system calls."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from popek.emulators.x86_64.cases_builder import EDGES, X64CaseBuilder, quads
from popek.emulators.x86_64.step import (
    CODE_SELECTORS,
    COMPATIBLE_SELECTORS,
    IDT_BASE,
    KERNEL_LANDING,
    STACK_TOPS,
    TSS_BASE,
    USER_LANDING,
)


def transfer_target(b: X64CaseBuilder) -> tuple[int, int]:
    """Selector and offset for a far CALL or JMP."""
    if b.chance(0.4):
        kind = 12 if b.chance(0.85) else b.rng.choice((4, 5, 14))
        dpl = b.rng.randrange(b.cpl, 4) if b.chance(0.8) else b.level()
        selector = b.place(b.gate(kind, dpl, present=not b.chance(0.1)))
        rpl = b.rng.randrange(dpl + 1) if b.chance(0.8) else b.level()
        return selector | rpl, b.number(32)
    if b.chance(0.2):
        return b.selector(), KERNEL_LANDING
    conforming = b.chance(0.4)
    dpl = b.rng.randrange(b.cpl + 1) if conforming else b.cpl
    dpl = dpl if b.chance(0.85) else b.level()
    selector = b.place(b.code(dpl, conforming=conforming, present=not b.chance(0.1)))
    rpl = b.rng.randrange(b.cpl + 1) if b.chance(0.85) else b.level()
    offset = USER_LANDING if b.cpl == 3 else KERNEL_LANDING
    return selector | rpl, offset if b.chance(0.85) else b.number()


def far_transfer(b: X64CaseBuilder) -> None:
    """CALL and JMP far: the pointer."""
    form = b.instruction.form
    selector, offset = transfer_target(b)
    if "ptr16:32" in form:
        b.operands |= {
            "operand ptr16:32.selector": selector,
            "operand ptr16:32.offset": offset & 0xFFFFFFFF,
        }
        return
    size = int(form.split(":")[1])
    data = (offset & (1 << size) - 1).to_bytes(size // 8, "little") + struct.pack("<H", selector)
    b.memory_operand(f"m16:{size}", size // 8 + 2, data)


def far_return(b: X64CaseBuilder) -> None:
    """RET far and IRET: a frame that mostly works, to the same level or outward."""
    form, rng = b.instruction.form, b.rng
    size = {"IRET": 2, "IRETD": 4, "IRETQ": 8, "o16 RETF": 2, "o64 RETF": 8}.get(form, 4)
    level = b.cpl if b.chance(0.5) else rng.randrange(b.cpl, 4)
    conforming = b.chance(0.15)
    dpl = rng.randrange(level + 1) if conforming else level
    if b.chance(0.4) and not conforming:
        selector = rng.choice((CODE_SELECTORS, COMPATIBLE_SELECTORS))[level] & ~3
    elif b.chance(0.8):
        dpl = dpl if b.chance(0.9) else b.level()
        selector = b.place(b.code(dpl, conforming=conforming, present=not b.chance(0.1)))
    else:
        selector = b.selector() & ~3
    selector |= level if b.chance(0.9) else b.level()
    offset = USER_LANDING if level == 3 else KERNEL_LANDING
    if b.chance(0.1):
        offset = b.number()
    frame = [offset, selector]
    if "IRET" in form:
        image = rng.getrandbits(32) & ~0x100
        if level == 3 and image >> 19 & 3 == 3:
            image &= ~(1 << 20)
        frame.append(image)
        if b.chance(0.8):
            b.registers["rflags"] = b.get("rflags") & ~0x4000
    stack = b.stack_selector(level)
    pointer = STACK_TOPS[level] if b.chance(0.8) else b.number()
    mask = (1 << 8 * size) - 1
    released = 0
    if b.instruction.operands:
        released = b.operands["operand imm16"] = rng.choice((0, 8, 16, 4, 3))
    data = b"".join((value & mask).to_bytes(size, "little") for value in frame) + rng.randbytes(released)
    b.on_stack(data + b"".join((value & mask).to_bytes(size, "little") for value in (pointer, stack)))


def software_interrupt(b: X64CaseBuilder) -> None:
    """INT n and its like: a gate that mostly works."""
    form, rng = b.instruction.form, b.rng
    vector = {"INT3": 3, "INTO": 4, "INT1": 1}.get(form, rng.choice((0x20, 0x80, 0x81, 0xFF)))
    if form == "INT imm8":
        b.operands["operand imm8"] = vector
        if b.chance(0.15):
            b.registers["idtr.limit"] = 16 * vector + rng.choice((-1, 7, 14, 15))
    if form == "INTO" and b.chance(0.7):
        b.registers["rflags"] = b.get("rflags") | 0x800
    kind = rng.choice((14, 14, 15)) if b.chance(0.85) else rng.randrange(16)
    dpl = rng.randrange(b.cpl, 4) if b.chance(0.75) else b.level()
    ist = rng.choice((2, 3, 4, 5, 6, 7)) if b.chance(0.3) else 0
    gate = b.gate(kind, dpl, present=not b.chance(0.1), ist=ist)
    b.put(IDT_BASE + 16 * vector, gate)
    if b.chance(0.1):
        b.put(TSS_BASE + rng.choice((4, 12, 20, 0x2C, 0x34)), quads(rng.choice(EDGES)))


def near(b: X64CaseBuilder) -> None:
    """Near transfers: to a landing place, or to what is not canonical."""
    target = USER_LANDING if b.cpl == 3 else KERNEL_LANDING
    wild = b.long and b.chance(0.2)
    if wild:
        target = b.rng.choice((EDGES[1], EDGES[2], 1 << 63, target | 1 << 47))
    start = b.get("rip")
    for operand in b.instruction.operands:
        if operand.kind.name == "rel8":
            b.operands["operand rel8"] = b.rng.choice((0, 0x10, 0x20, 0x7F, 0x80, 0xE0, 0xF0))
        elif operand.kind.name == "rel32":
            b.operands["operand rel32"] = (target - start - 5) & 0xFFFFFFFF if not wild else 0x1000
        elif operand.kind.name == "r64":
            b.register_operand("operand r64", target)
        else:
            b.operands["operand imm16"] = b.rng.choice((0, 2, 8, 0x10, 0xFFFF))
    b.on_stack(quads(target))


def system_call(b: X64CaseBuilder) -> None:
    """SYSCALL and its like: the MSRs and the registers."""
    rng, state = b.rng, b.registers
    if b.chance(0.7):
        state["efer"] = 0x501 | b.subset((1 << 11,), 0.3)
    state["msr.star"] = rng.choice((0x0010_0008_00000000, 0x0013_000B_00000000, b.number()))
    state["msr.lstar"] = KERNEL_LANDING
    state["msr.fmask"] = rng.getrandbits(32) | 0x100
    state["msr.sysenter_cs"] = rng.choice((8, 0x0B, 0, 3, 0x10, 0xFFF8, 0x10008, b.number(32)))
    state["msr.sysenter_eip"], state["msr.sysenter_esp"] = KERNEL_LANDING, b.canonical()
    landing = USER_LANDING if b.chance(0.8) else b.number()
    state["rcx"] = landing if b.instruction.mnemonic == "SYSRET" else b.number()
    state["rdx"] = landing if b.instruction.mnemonic == "SYSEXIT" else b.number()
    state["r11"] = b.number() & ~0x100
    if state["r11"] >> 19 & 3 == 3:
        state["r11"] &= ~(1 << 20)
    if not b.long:
        for name in ("rcx", "rdx", "r11"):
            state[name] &= 0xFFFFFFFF


SPECIAL: Final[Mapping[str, Callable[[X64CaseBuilder], None]]] = {
    "CALL far": far_transfer,
    "JMP far": far_transfer,
    "RET far": far_return,
    "IRET": far_return,
    "INT n": software_interrupt,
    "INT3": software_interrupt,
    "INT1": software_interrupt,
    "INTO": software_interrupt,
    "JMP near": near,
    "CALL near": near,
    "RET near": near,
    "Jcc": near,
    "SYSCALL": system_call,
    "SYSRET": system_call,
    "SYSENTER": system_call,
    "SYSEXIT": system_call,
}
"""What draws the rest of a case, by mnemonic."""
