"""Cases of x86-64 system instructions, ports, and what needs more than its operands."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from popek.emulators.x86_64.cases_builder import EDGES, MASK, X64CaseBuilder, quads
from popek.emulators.x86_64.cases_surroundings import CR0_BITS, CR4_BITS
from popek.emulators.x86_64.step import CR3, TSS_BASE, TSS_LIMIT

PORTS: Final = (0x680, 0x687, 0x688, 0x689, 0x68F, 0x6FF, 0xE0, 0xE7, 0xFFFE)
"""Ports without a device: they read as ones and take anything."""
IMMEDIATE_PORTS: Final = (0xE0, 0xE1, 0xE3, 0xE6, 0xE7)


def system_selector(b: X64CaseBuilder) -> None:
    """LLDT and LTR: an LDT or a TSS, or something else."""
    if b.chance(0.35):
        b.give_selector(b.selector())
        return
    kind = (2 if b.instruction.mnemonic == "LLDT" else 9) if b.chance(0.8) else b.rng.choice((2, 9, 11, 3))
    selector = b.place(b.system(kind, b.level(), present=not b.chance(0.15)))
    b.give_selector(selector | b.rng.getrandbits(2))


def asked_selector(b: X64CaseBuilder) -> None:
    """LAR and its like: anything."""
    b.give_selector(b.selector() if b.chance(0.7) else b.data_selector())


def to_control_register(b: X64CaseBuilder) -> None:
    """MOV to a control register: reserved bits, and what does not go together."""
    form, rng = b.instruction.form, b.rng
    if form == "MOV CR0, r64":
        value = 0x80000031 | b.subset((*CR0_BITS, 1 << 29, 1 << 4, 1 << 12, 1 << 20), 0.3)
        if b.chance(0.4):
            value ^= rng.choice((1, 1 << 31, 1 << 29, 1 << 32, 1 << 63, 0x80000001))
    elif form == "MOV CR3, r64":
        value = CR3 | rng.choice((0, 0x18, 0x8))
        if b.get("cr4") >> 17 & 1:
            value |= rng.randrange(0x1000)
        if b.chance(0.5):
            value |= rng.choice((1 << 63, 1 << 40, 1 << 62, 1 << 52, 1 << 63))
    elif form == "MOV CR4, r64":
        value = 0x20 | b.subset((*CR4_BITS, 1 << 21), 0.4)
        if b.chance(0.4):
            value ^= rng.choice((0x20, 1 << 15, 1 << 19, 1 << 27, 1 << 32, 1 << 63, 1 << 14))
    elif form == "MOV CR8, r64":
        value = rng.randrange(16) if b.chance(0.6) else b.number()
    else:
        value = b.number()
    b.register_operand("operand r64", value if b.long else value & 0xFFFFFFFF)


def to_debug_register(b: X64CaseBuilder) -> None:
    """MOV to a debug register, where no breakpoint may then be hit."""
    value = b.rng.getrandbits(32) & ~0x2000 if b.chance(0.7) else b.number()
    if b.instruction.form[4:7] in ("DR0", "DR1", "DR2", "DR3"):
        value = b.number() | 1 << 46
        b.registers["dr7"] = 0x400 | (0x2000 if b.chance(0.1) else 0)
    if b.instruction.form[4:7] in ("DR7", "DR5"):
        for number in range(4):
            b.registers[f"dr{number}"] = b.rng.getrandbits(40) | 1 << 46
    b.register_operand("operand r64", value if b.long else value & 0xFFFFFFFF)


def segment_load(b: X64CaseBuilder) -> None:
    """MOV, POP and L?S of a segment register: a selector that mostly loads."""
    form = b.instruction.form
    to_stack = b.operands.get("operand Sreg") == 2 or form.startswith(("LSS", "POP SS"))
    selector = b.stack_selector(b.cpl) if to_stack else b.data_selector()
    if "POP" in form:
        b.on_stack(struct.pack("<H", selector) + b.rng.randbytes(6))
    elif form.startswith("L"):
        b.in_operand(struct.pack("<H", selector), after=int(form.split(":")[1]) // 8)
    elif form.startswith("MOV Sreg"):
        b.give_selector(selector)


def pop_flags(b: X64CaseBuilder) -> None:
    """POPF: any image without TF."""
    image = b.rng.getrandbits(32) & ~0x100
    if b.cpl == 3:
        image &= ~0x180000
    b.on_stack(quads(image | b.rng.getrandbits(32) << 32))


def model_specific(b: X64CaseBuilder) -> None:
    """RDMSR and WRMSR: registers that exist, mostly, and values that are refused."""
    rng = b.rng
    known = (0x174, 0x175, 0x176, 0x277, *range(0xC0000080, 0xC0000085), *range(0xC0000100, 0xC0000104))
    number = rng.choice((*known, *known, 0x12345678, 0xFFFFFFFF, 0xC0001000, 0x4000))
    high = 0 if not b.long else rng.choice((0, rng.getrandbits(32) << 32))
    b.registers["rcx"] = number | high
    value = b.canonical() if b.chance(0.6) else b.number()
    if number == 0x277:
        kinds = [rng.choice((0, 1, 4, 5, 6, 7)) for _ in range(8)]
        if b.chance(0.4):
            kinds[rng.randrange(8)] = rng.choice((2, 3, 8, 0x10, 0xFF))
        (value,) = struct.unpack("<Q", bytes(kinds))
    elif number == 0xC0000080:
        value = 0x500 | b.subset((1, 1 << 11), 0.5)
        if b.chance(0.4):
            value ^= rng.choice((0x100, 0x400, 0x2, 0x200, 1 << 16, 1 << 32))
    elif number in (0xC0000084, 0xC0000103, 0x174):
        value &= 0xFFFFFFFF if b.chance(0.8) else MASK
    b.registers["rax"] = value & 0xFFFFFFFF | high
    b.registers["rdx"] = value >> 32 | high


def table(b: X64CaseBuilder) -> None:
    """LGDT and LIDT: a limit and a base."""
    value = b.canonical() if b.chance(0.7) else b.number()
    b.in_operand(struct.pack("<HQ", b.rng.getrandbits(16), value))


def counter(b: X64CaseBuilder) -> None:
    """RDPMC: a number."""
    b.registers["rcx"] = b.rng.choice((0, 1, 7, 0x40000003, 0x80000000 + 0x40, 0x1000, 0xFFFFFFFF))


def extended(b: X64CaseBuilder) -> None:
    """XSETBV, XGETBV, RDPKRU, WRPKRU and MWAIT."""
    rng = b.rng
    b.registers["rcx"] = rng.choice((0, 0, 0, 0, 1 << 32 if b.long else 0, 2, 0x80000000))
    value = rng.choice((1, 3, 7, 0x207, 0x201, 2, 4, 5, 0, 8, 1 << 63, 0x103, b.number()))
    if b.instruction.form == "WRPKRU":
        value = rng.getrandbits(32) & ~3 | (0 if b.chance(0.8) else 1 << 32)
    b.registers["rax"], b.registers["rdx"] = value & 0xFFFFFFFF, value >> 32


def watched(b: X64CaseBuilder) -> None:
    """MONITOR: an address, and hints that are mostly none."""
    b.registers["rax"] = b.target(1)
    b.registers["rcx"] = b.rng.choice((0, 0, 0, 1, 1 << 31, 1 << 32 if b.long else 2))


def invpcid(b: X64CaseBuilder) -> None:
    """INVPCID: a type and a descriptor."""
    rng = b.rng
    b.register_operand("operand r64", rng.choice((0, 1, 2, 3, 4, 1 << 32 if b.long else 5, 0xFF)))
    pcid = rng.choice((0, 0, 1, 0xFFF, 0x1000, 1 << 63))
    b.in_operand(quads(pcid, b.canonical() if b.chance(0.7) else b.number()))


def compare_16(b: X64CaseBuilder) -> None:
    """CMPXCHG16B: a value in memory, often that of RDX:RAX."""
    low, high = b.number(), b.number()
    b.in_operand(quads(low, high))
    if b.chance(0.6):
        b.registers["rax"], b.registers["rdx"] = low, high


def leave(b: X64CaseBuilder) -> None:
    """LEAVE: RBP near RSP, or where addresses are not canonical."""
    b.registers["rbp"] = b.rng.choice((b.rsp - 0x20, b.rsp + b.rng.randrange(8), *EDGES[:2])) & (
        MASK if b.long else 0xFFFFFFFF
    )


def strings(b: X64CaseBuilder) -> None:
    """STOS and MOVS: RSI and RDI."""
    for name in ("rsi", "rdi"):
        b.registers[name] = b.target(8)


def port(b: X64CaseBuilder) -> None:
    """IN, OUT, INS and OUTS: a port, its permission map, and the limit of the TSS."""
    if "imm8" in b.instruction.form:
        b.operands["operand imm8"] = b.rng.choice(IMMEDIATE_PORTS)
    b.registers["rdx"] = b.rng.choice(PORTS) | b.rng.getrandbits(16) << 16
    if b.chance(0.5):
        number = b.operands.get("operand imm8", b.registers["rdx"] & 0xFFFF)
        b.put(TSS_BASE + 0x68 + number // 8, b.rng.choice((bytes(2), b.rng.randbytes(2))))
    if b.chance(0.3):
        base = b.rng.choice((0x68, 0x67, 0x100, 0x2000, 0xDFFF, 0xFFFF))
        b.put(TSS_BASE + 0x66, struct.pack("<H", base))
    if b.chance(0.3):
        b.registers["tr.limit"] = b.rng.choice((0x66, 0x67, 0x68, 0x84, 0x85, 0x138, 0x139, TSS_LIMIT - 1))
    if b.instruction.mnemonic in ("INS", "OUTS"):
        b.registers["rdi" if b.instruction.mnemonic == "INS" else "rsi"] = b.target(4)


SPECIAL: Final[Mapping[str, Callable[[X64CaseBuilder], None]]] = {
    "LLDT": system_selector,
    "LTR": system_selector,
    "LAR": asked_selector,
    "LSL": asked_selector,
    "VERR": asked_selector,
    "VERW": asked_selector,
    "MOV to CR": to_control_register,
    "MOV to DR": to_debug_register,
    "MOV sreg": segment_load,
    "POP sreg": segment_load,
    "LFS": segment_load,
    "LGS": segment_load,
    "LSS": segment_load,
    "LDS": segment_load,
    "LES": segment_load,
    "POPF": pop_flags,
    "RDMSR": model_specific,
    "WRMSR": model_specific,
    "LGDT": table,
    "LIDT": table,
    "RDPMC": counter,
    "XSETBV": extended,
    "XGETBV": extended,
    "RDPKRU": extended,
    "WRPKRU": extended,
    "MWAIT": extended,
    "MONITOR": watched,
    "INVPCID": invpcid,
    "CMPXCHG16B": compare_16,
    "LEAVE": leave,
    "STOS": strings,
    "MOVS": strings,
    "IN": port,
    "OUT": port,
    "INS": port,
    "OUTS": port,
}
"""What draws the rest of a case, by mnemonic."""
