"""What every case in protected mode has: registers, flags, control bits, tables and segments."""

from __future__ import annotations

import struct

from popek.architectures.ia32.state import CR4_DEFINED
from popek.emulators.ia32.cases_builder import (
    FLAT,
    LDT_BASE,
    LDT_SELECTOR,
    Ia32CaseBuilder,
    LoadedSegment,
    words,
)
from popek.emulators.ia32.step import (
    CODE_BASE,
    DATA_BASE,
    GDT_BASE,
    IDT_BASE,
    INNER_STACK_TOPS,
    RESERVED_SELECTOR,
    STACK_TOPS,
    TSS_BASE,
    TSS_SELECTOR,
    gate_descriptor,
    segment_descriptor,
)

_GDT_LIMITS = (0xFFF, 0xFFF, 0x1000, 0x1006, 0x1007, 0x100F)
_FLAGS = 0x3D7ED5 & ~0x100
# CR0 without PE, ET, PG and without NW, which needs CD.
CR0_HELD = (1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 16, 1 << 18, 1 << 30)
_CR4_HELD = CR4_DEFINED & ~(1 << 13 | 1 << 14)  # an SMI keeps neither VMXE nor SMXE
_INWARD = frozenset(("CALL far", "INT n", "INT3", "INTO", "INT1"))


def surroundings(b: Ia32CaseBuilder) -> None:
    """Registers, flags, control bits, tables, segment registers."""
    rng = b.rng
    if b.chance(0.6):
        for name in ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi"):
            b.registers[name] = b.number()
    flags = b.subset([1 << bit for bit in range(22) if _FLAGS >> bit & 1], rng.choice((0.1, 0.5)))
    if b.chance(0.5):
        flags &= ~0x4000
    b.registers["eflags"] = flags & ~0x3000 | rng.choice((0, b.cpl, rng.randrange(4))) << 12 | 2
    if b.chance(0.5):
        b.registers["cr0"] = 0x11 | b.subset(CR0_HELD, 0.3)
        if b.registers["cr0"] >> 30 & 1 and b.chance(0.5):
            b.registers["cr0"] |= 1 << 29
    if b.chance(0.6):
        held = [1 << bit for bit in range(32) if _CR4_HELD >> bit & 1]
        b.registers["cr4"] = b.subset(held, rng.choice((0.2, 0.6)))
    if b.chance(0.2):
        b.registers["cr2"], b.registers["cr3"] = b.number(), b.number()
    if b.chance(0.3):
        b.registers["gdtr.limit"] = rng.choice(_GDT_LIMITS)
    if b.chance(0.5):
        b.registers["ldtr"] = LDT_SELECTOR
        limit = rng.choice((0x3F, 0x3F, 0x37, 0x3E, 0x1F))
        b.put(GDT_BASE + LDT_SELECTOR, segment_descriptor(LDT_BASE, limit, 0x8200))
        b.put(LDT_BASE, bytes(0x48))
    debug_registers(b)
    task(b)
    code_segment(b)
    stack_segment(b)
    for name in ("es", "ds", "fs", "gs"):
        if b.chance(0.3):
            data_segment(b, name)


def debug_registers(b: Ia32CaseBuilder) -> None:
    """Break points that nothing hits."""
    if "DR" not in b.instruction.form and not b.chance(0.1):
        return
    for number in range(4):
        b.registers[f"dr{number}"] = b.rng.getrandbits(32) | 0x80000000
    # Not BD, by which the harness knows general detect from landing.
    b.registers["dr6"] = 0xFFFF0FF0 | b.rng.getrandbits(16) & 0xC00F
    gd = 0x2000 if b.chance(0.3) else 0
    b.registers["dr7"] = 0x400 | gd | b.rng.getrandbits(1) << 9


def task(b: Ia32CaseBuilder) -> None:
    """The TSS: stacks of the inner levels, I/O permission map."""
    uses_ports = b.instruction.mnemonic in ("IN", "OUT", "INS", "OUTS")
    uses_stacks = b.instruction.mnemonic in _INWARD
    if not uses_ports and not uses_stacks and b.chance(0.5):
        return
    if b.chance(0.08):
        narrow_task(b)
        return
    limit = 0x67
    if uses_ports or b.chance(0.2):
        base = b.rng.choice((0x68, 0x68, 0x68, 0x60, 0x70, 0x20, 0x1000, 0xFFFF))
        b.put(TSS_BASE + 0x66, struct.pack("<H", base))
        limit = b.rng.choice((0x67, 0x2068, 0x68 + 0xD0, 0x69 + 0xD0, 0x6A + 0xD0, 0x2067, 0x2069))
        if base < 0x1000:
            bits = b.rng.choice((b"\0\0\0", b"\0\0\0", b.rng.randbytes(3)))
            for port in (0x680, 0x6FF, 0xE0, 0xFFFE):
                b.put(TSS_BASE + base + (port >> 3), bits[: 3 if port < 0xFFFE else 2])
    small = b.chance(0.25 if uses_stacks or uses_ports else 0.1)
    if small:
        limit = b.rng.choice((0x66, 0x17, 0x13, 0x12, 0x11, 0x10, 0x0B))
        plain_gate_for_invalid_tss(b)
    b.put(GDT_BASE + TSS_SELECTOR, segment_descriptor(TSS_BASE, limit, 0x8900))
    if uses_stacks or b.chance(0.5):
        for ring in (1, 2) if small or b.chance(0.8) else (0, 1, 2):
            inner_stack(b, ring)


def plain_gate_for_invalid_tss(b: Ia32CaseBuilder) -> None:
    """A task gate for #TS would save the state in a TSS that has no room for it."""
    b.put(IDT_BASE + 8 * 10, gate_descriptor(RESERVED_SELECTOR, 0xF8000 + 4 * 10, 0x8E00))


def narrow_task(b: Ia32CaseBuilder) -> None:
    """A 16-bit TSS, whose stacks lie in segments of 64 KiB."""
    plain_gate_for_invalid_tss(b)
    limit = b.rng.choice((0x2B, 0x2B, 0x0D, 0x0C, 0x09, 0x05, 0x2068))
    b.put(TSS_BASE + 0x66, struct.pack("<H", 0x68))
    for port in (0x680, 0x6FF, 0xE0):
        b.put(TSS_BASE + 0x68 + (port >> 3), bytes(3))
    b.put(GDT_BASE + TSS_SELECTOR, segment_descriptor(TSS_BASE, limit, 0x8100))
    for ring in range(3):
        access = b.flags_of(0x13, ring, high=b.rng.choice((0x40, 0x00)))
        selector = b.place(segment_descriptor(0x20000, 0xFFFF, access), ldt=False) | ring
        if ring and b.chance(0.15):
            selector = b.selector()
        entry = struct.pack("<HH", INNER_STACK_TOPS[ring] - 0x20000, selector)
        b.put(TSS_BASE + 2 + 4 * ring, entry)


def inner_stack(b: Ia32CaseBuilder, ring: int) -> None:
    """One entry of the TSS's stack table."""
    top = INNER_STACK_TOPS[ring]
    descriptor, segment = b.stack_descriptor(
        b.level() if b.chance(0.1) else ring, present=not b.chance(0.1), accessed=ring == 0
    )
    selector = b.place(descriptor, ldt=False) | (b.level() if b.chance(0.1) else ring)
    offset = top - segment.base
    if ring and b.chance(0.15):
        selector = b.selector()
    if ring and b.chance(0.15):
        offset = b.edge(segment, 0) & 0xFFFFFFFF
    elif ring and segment != FLAT and b.chance(0.4):
        # Just enough room for some frame, or just not.
        lowest = segment.limit + 1 if segment.expand_down else 0
        offset = lowest + b.rng.choice((8, 10, 12, 16, 20, 24, 28, 36)) - b.rng.choice((0, 0, 1, 2))
    b.put(TSS_BASE + 4 + 8 * ring, words(offset, selector))


def code_segment(b: Ia32CaseBuilder) -> None:
    """CS: conforming or not, readable or not, tight or not."""
    if not b.chance(0.3):
        return
    conforming = b.chance(0.4)
    dpl = b.rng.randrange(b.cpl + 1) if conforming else b.cpl
    eip = b.rng.choice((0x100, 0x7FF0, CODE_BASE, CODE_BASE))
    limit = b.rng.choice((0x3FFFF, eip + 0x11 + b.rng.randrange(16)))
    kind = 0x18 | (4 if conforming else 0) | b.rng.choice((0, 2, 3))
    base = CODE_BASE - eip
    selector = b.place(segment_descriptor(base, limit, b.flags_of(kind, dpl, high=0x40)))
    b.registers["cs"] = selector | b.cpl
    b.registers["eip"] = eip
    b.segments["cs"] = LoadedSegment(base, limit)


def stack_segment(b: Ia32CaseBuilder) -> None:
    """SS and ESP."""
    rng = b.rng
    if b.chance(0.35):
        descriptor, segment = b.stack_descriptor(b.cpl)
        b.registers["ss"] = b.place(descriptor) | b.cpl
        b.segments["ss"] = b.stack = segment
    b.esp = STACK_TOPS[b.cpl] - b.stack.base
    if b.chance(0.15):
        b.esp -= rng.choice((1, 2, 3))
    if b.chance(0.1):
        b.esp = b.edge(b.stack, rng.choice((0, 4, 8)))
    if not b.stack.big:
        b.esp = b.esp & 0xFFFF | (rng.getrandbits(16) << 16 if b.chance(0.5) else 0)
    b.registers["esp"] = b.esp & 0xFFFFFFFF


def data_segment(b: Ia32CaseBuilder, name: str) -> None:
    """DS, ES, FS or GS as the current level may have loaded it."""
    if b.chance(0.25):
        b.registers[name] = b.rng.randrange(4)
        b.segments[name] = LoadedSegment(0, 0xFFFFFFFF)
        return
    dpl = b.rng.randrange(b.cpl, 4)
    kind = b.rng.choice((0x12, 0x12, 0x13, 0x10, 0x16, 0x14, 0x1A, 0x1E))
    limit, high = b.rng.choice(((0xFFFFF, 0xC0), (0x2FFF, 0x40), (0x2FFF, 0x00), (2, 0xC0), (3, 0x40)))
    base = 0 if limit == 0xFFFFF else DATA_BASE + b.rng.choice((0, 1))
    if kind & 0xC == 4:  # expand-down: what lies above the limit
        base, limit, high = DATA_BASE - 0x8000, 0x7FFF, b.rng.choice((0x40, 0x00))
    if kind == 0x1E:
        dpl = b.rng.randrange(4)
    rpl = b.rng.randrange(dpl + 1)
    selector = b.place(segment_descriptor(base, limit, b.flags_of(kind, dpl, high=high)))
    b.registers[name] = selector | rpl
    whole = limit << 12 | 0xFFF if high & 0x80 else limit
    b.segments[name] = LoadedSegment(base, whole, kind & 0xC == 4, bool(high & 0x40))
    if b.chance(0.2):
        b.stale.append((b.address_of(selector), b.wild()))
