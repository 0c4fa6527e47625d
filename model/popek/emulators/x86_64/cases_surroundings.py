"""What every x86-64 case has: registers, flags, control bits, tables, segment registers, a stack."""

from __future__ import annotations

from typing import Final

from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.x86_64.cases_builder import EDGES, MASK, X64CaseBuilder
from popek.emulators.x86_64.step import CR3, LDT_BASE, READ_ONLY_BASE, STACK_TOPS, USER_BASE

_FLAGS = 0x3D7ED5 & ~0x3100
CR0_BITS: Final = (1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 16, 1 << 18, 1 << 30)
# VME PVI TSD DE PSE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP FSGSBASE PCIDE OSXSAVE SMEP PKE
CR4_BITS: Final = tuple(1 << bit for bit in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 16, 17, 18, 20, 22))


def surroundings(b: X64CaseBuilder) -> None:
    """Registers, flags, control bits, tables, segment registers."""
    rng, state = b.rng, b.registers
    if b.chance(0.6):
        for name in GPR_NAMES:
            if name != "rsp":
                state[name] = b.number(64 if b.long else 32)
    flags = b.subset([1 << bit for bit in range(22) if _FLAGS >> bit & 1], rng.choice((0.1, 0.5)))
    if b.chance(0.6):
        flags &= ~0x4000
    state["rflags"] = flags | rng.choice((0, b.cpl, rng.randrange(4))) << 12 | 2
    if b.chance(0.5):
        state["cr0"] = 0x80000031 | b.subset(CR0_BITS, 0.3)
        if state["cr0"] >> 30 & 1 and b.chance(0.5):
            state["cr0"] |= 1 << 29
    if b.chance(0.7):
        state["cr4"] = 0x20 | b.subset(CR4_BITS, rng.choice((0.2, 0.6)))
    if b.cpl == 3 and b.get("cr4") & 2 and state["rflags"] >> 19 & 3 == 3:
        state["rflags"] &= ~(1 << 20)
    if b.chance(0.6):
        state["efer"] = 0x500 | b.subset((1, 1 << 11), 0.6)
    if b.chance(0.3):
        state["cr8"], state["cr2"] = rng.randrange(16), b.number()
    if b.chance(0.3):
        state["cr3"] = CR3 | rng.choice((0, 0, 0x18))
    if b.chance(0.3):
        state["xcr0"], state["pkru"] = rng.choice((1, 3, 7, 0x207)), rng.getrandbits(32) & ~3
    if b.chance(0.3):
        for name in ("msr.star", "msr.fmask", "msr.tsc_aux", "msr.sysenter_cs"):
            state[name] = b.number(64 if name == "msr.star" else 32)
        for name in (
            "msr.lstar",
            "msr.cstar",
            "msr.kernel_gs_base",
            "msr.sysenter_esp",
            "msr.sysenter_eip",
        ):
            state[name] = b.canonical()
    if b.chance(0.3):
        state["gdtr.limit"] = rng.choice((0xFFF, 0x1000, 0x1006, 0x1007, 0x100E, 0x100F))
        b.edge_free = state["gdtr.limit"] >= 0x1007
    if b.chance(0.5):
        b.has_ldt = True
        state |= {"ldtr.selector": 0x50, "ldtr.base": LDT_BASE, "ldtr.rights": 0x82}
        state["ldtr.limit"] = rng.choice((0x7F, 0x7F, 0x77, 0x7E, 0x2F))
    segments(b)
    if "DR" in b.instruction.form or b.chance(0.1):
        debug_registers(b)
    if b.chance(0.3):
        stack(b)


def segments(b: X64CaseBuilder) -> None:
    """Bases of FS and GS, null segments, limits in compatibility mode, a null SS."""
    state = b.registers
    if b.chance(0.5):
        for name in ("fs", "gs"):
            state[f"{name}.base"] = b.canonical() if b.long else b.rng.choice((0, 0x1000, 0x20000))
    for name in ("es", "ds", "fs", "gs"):
        if b.chance(0.1):
            state[f"{name}.selector"] = b.rng.randrange(4)
            state |= {f"{name}.limit": 0, f"{name}.rights": 0x10000}
        elif b.chance(0.1) and not b.long:
            state[f"{name}.limit"] = b.rng.choice((0xFFF, USER_BASE - 1, 0x30003))
    if b.cpl != 3 and b.long and b.chance(0.2):
        state |= {"ss.selector": b.cpl, "ss.limit": 0, "ss.rights": 0x10000 | b.cpl << 5}


def debug_registers(b: X64CaseBuilder) -> None:
    """Break points that nothing hits."""
    for number in range(4):
        b.registers[f"dr{number}"] = b.rng.getrandbits(45) | 1 << 46
    b.registers["dr6"] = 0xFFFF0FF0 | b.subset((1, 2, 4, 8, 1 << 14, 1 << 15), 0.3)
    gd = 1 << 13 if b.chance(0.15) else 0
    b.registers["dr7"] = 0x400 | b.rng.getrandbits(10) | gd


def stack(b: X64CaseBuilder) -> None:
    """RSP elsewhere: misaligned, at the edge of a page, or not canonical."""
    top = STACK_TOPS[b.cpl]
    choices = [top - 0x10 + b.rng.randrange(16), top - 8, USER_BASE + b.rng.choice((0, 2, 4, 6, 8))]
    if b.cpl == 3:
        choices += [READ_ONLY_BASE + 8, READ_ONLY_BASE + 0x1004, USER_BASE - 8, 0x8000]
    if b.long:
        choices += [edge + b.rng.choice((-8, -4, 0, 1, 4, 8)) & MASK for edge in EDGES]
    b.registers["rsp"] = b.rng.choice(choices)
