"""What draws an x86-64 case: chances, descriptors, selectors and operands (see `popek.emulators.x86_64.cases`)."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Final

from popek.architectures.x86.registers import (
    DS,
    SEGMENT_NAMES,
)
from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.x86.cases_builder import CaseBuilder
from popek.emulators.x86_64.step import (
    ARENA_BYTES,
    CODE_SELECTORS,
    COMPATIBLE_SELECTORS,
    DATA_SELECTORS,
    FREE_SELECTOR,
    GDT_BASE,
    KERNEL_DATA,
    KERNEL_LANDING,
    LDT_BASE,
    READ_ONLY_BASE,
    RESERVED_SELECTOR,
    TSS_BASE,
    TSS_LIMIT,
    TSS_SELECTOR,
    USER_BASE,
    USER_DATA,
    USER_LANDING,
    gate_descriptor,
    plain_state,
    segment_descriptor,
    system_descriptor,
)
from popek.kernel.instruction import Instruction

EDGES: Final = (0x7FFF_FFFFFFFF, 0x8000_00000000, 0xFFFF7FFF_FFFFFFFF, 0xFFFF8000_00000000)
"""The ends of the canonical addresses, and their neighbours."""

MASK: Final = 0xFFFFFFFF_FFFFFFFF

_NUMBERS = (
    *(
        0,
        1,
        2,
        0x7F,
        0x80,
        0xFF,
        0x7FFF,
        0x8000,
        0xFFFF,
        0x10000,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        1 << 32,
    ),
    *(1 << 63, (1 << 63) - 1, (1 << 64) - 1, *EDGES),
)


def quads(*values: int) -> bytes:
    """64-bit little-endian words."""
    return struct.pack(f"<{len(values)}Q", *(value & MASK for value in values))


class X64CaseBuilder(CaseBuilder):
    """Draws one case."""

    any_data_selector = 0.45

    def __init__(self, instruction: Instruction, cpl: int, long: bool, rng: random.Random) -> None:
        super().__init__(instruction, cpl, rng)
        self.long = long
        self.plain = plain_state(cpl, long=long)
        self.next_gdt = FREE_SELECTOR
        self.next_ldt = 4
        self.has_ldt = False
        self.edge_free = False

    def number(self, width: int = 64) -> int:
        """A number of so many bits, often at an edge."""
        value = self.rng.choice(_NUMBERS) if self.chance(0.4) else self.rng.getrandbits(64)
        if self.chance(0.2):
            value += self.rng.choice((-1, 1, -8, 8))
        return value & (1 << width) - 1

    def canonical(self) -> int:
        """A canonical address."""
        value = self.rng.choice((0x1000, 0x38000, self.rng.getrandbits(47), EDGES[0], EDGES[3], MASK))
        return value if self.chance(0.7) else (value & 0x7FFF_FFFFFFFF | 0xFFFF8000_00000000)

    def get(self, name: str) -> int:
        """A component as the case has it so far."""
        return self.registers.get(name, self.plain[name])

    @property
    def rsp(self) -> int:
        """RSP as the case has it so far."""
        return self.get("rsp")

    def on_stack(self, data: bytes) -> None:
        """Bytes at the top of the stack, where it is in the arena."""
        if self.rsp + len(data) < ARENA_BYTES:
            self.put(self.rsp, data)

    def place(self, descriptor: bytes) -> int:
        """Put a descriptor in the GDT or the LDT; its selector, RPL 0."""
        size = len(descriptor)
        if self.has_ldt and self.next_ldt + size <= 0x78 and self.chance(0.25):
            selector, base = self.next_ldt, LDT_BASE
            self.next_ldt += size
        elif self.edge_free and self.chance(0.15):
            selector, base = 0x1000, GDT_BASE
            self.edge_free = False
        else:
            selector, base = self.next_gdt, GDT_BASE
            self.next_gdt += size
        self.put(base + (selector & ~7), descriptor)
        return selector

    def code(self, dpl: int, *, conforming: bool = False, present: bool = True, kind: str = "") -> bytes:
        """A code segment: of 64 bits, of 32 bits, or of both at once."""
        kind = kind or self.rng.choice(("long",) * 6 + ("compatible",) * 2 + ("both",))
        access = {"long": 0xA01800, "compatible": 0xC01800, "both": 0xE01800}[kind]
        access |= (0x400 if conforming else 0) | self.rng.choice((0, 0x100, 0x200, 0x300))
        limit = 0xFFFFF
        if kind == "compatible" and self.chance(0.3):
            limit, access = (
                self.rng.choice((KERNEL_LANDING - 1, USER_LANDING - 1, 0x3FFFF)),
                access & ~0x800000,
            )
        return segment_descriptor(0, limit, access | dpl << 13 | (0x8000 if present else 0))

    def data(self, dpl: int, *, present: bool = True, writable: bool = True) -> bytes:
        """A data segment."""
        access = 0xC01000 | (0x200 if writable else 0) | self.rng.choice((0, 0x100))
        base = self.rng.choice((0, 0, KERNEL_DATA, 0x20000, 0xFFFF0000))
        return segment_descriptor(base, 0xFFFFF, access | dpl << 13 | (0x8000 if present else 0))

    def wild(self) -> bytes:
        """Any descriptor."""
        kind = self.rng.getrandbits(5)
        dpl, present = self.level(), not self.chance(0.15)
        if kind in (4, 5, 12) and self.chance(0.9):
            return self.gate(kind, dpl, present=present)
        access = kind << 8 | dpl << 13 | (0x8000 if present else 0)
        high = self.rng.choice((0xC0, 0x40, 0x80, 0x00, 0xA0, 0xD0, 0xF0, 0xE0)) << 16
        limit = self.rng.choice((0xFFFFF, 0, 1, 0x2FFF, 0xFFFF))
        if kind in (2, 9, 11):
            return self.system(kind, dpl, present=present)
        return segment_descriptor(self.rng.choice((0, KERNEL_DATA)), limit, access | high)

    def system(self, kind: int, dpl: int, *, present: bool = True) -> bytes:
        """An LDT or a TSS."""
        access = kind << 8 | dpl << 13 | (0x8000 if present else 0)
        upper = self.rng.choice((0, 0, 0, 0, 0x100, 0x1F00, 0xE0FF)) if self.chance(0.4) else 0
        base = TSS_BASE if kind != 2 else LDT_BASE
        if self.chance(0.2):
            base = self.rng.choice((*EDGES, self.canonical(), 1 << 63))
        limit = self.rng.choice((TSS_LIMIT, 0x67, 0x66, 0xFFFF))
        return system_descriptor(base, limit, access, upper)

    def gate(self, kind: int, dpl: int, *, present: bool = True, ist: int = 0) -> bytes:
        """A gate that leads to a code segment, mostly one that accepts it."""
        target = self.gate_level()
        conforming = self.chance(0.3)
        if self.chance(0.5) and not conforming:
            selector = CODE_SELECTORS[target]
        elif self.chance(0.85):
            kind_of = "long" if self.chance(0.8) else ""
            code = self.code(target, conforming=conforming, present=not self.chance(0.1), kind=kind_of)
            selector = self.place(code)
        else:
            selector = self.selector() if self.chance(0.9) else 0
        selector = selector & ~3 | self.rng.getrandbits(2)
        # Conforming code and code of CPL's own level go on at CPL.
        runs_at = self.cpl if conforming or target >= self.cpl else target
        offset = USER_LANDING if runs_at == 3 else KERNEL_LANDING
        if self.chance(0.1):
            offset = self.rng.choice((*EDGES, offset | 1 << 47, offset | 1 << 63))
        access = kind << 8 | dpl << 13 | (0x8000 if present else 0)
        upper = self.rng.choice((0x100, 0x1F00, 0xE0FF)) if self.chance(0.1) and kind == 12 else 0
        return gate_descriptor(selector, offset, access, ist=ist, upper=upper)

    def default_selector(self, ring: int) -> int:
        """A selector of the segments that every case has."""
        return self.rng.choice((CODE_SELECTORS, DATA_SELECTORS, COMPATIBLE_SELECTORS))[ring]

    def unusual_selector(self, roll: float) -> int:
        """A selector of the TSS, at or beyond a limit, or of a new descriptor."""
        limit = self.get("gdtr.limit")
        if roll < 0.45:
            return TSS_SELECTOR
        if roll < 0.52:
            edge = (limit + 1 & ~7) + self.rng.choice((-8, 0, 0, 8))
            return edge & 0xFFF8 if edge & ~7 != RESERVED_SELECTOR else 0x1000
        if roll < 0.56:
            return self.rng.choice((0x74, 0x7C, 0xFFF4, self.rng.getrandbits(16) | 4)) & ~3
        return self.place(self.wild())

    def stack_selector(self, level: int) -> int:
        """A selector for SS at a level, mostly one that loads."""
        if self.chance(0.15):
            return self.selector()
        if self.chance(0.25):
            return level if self.chance(0.8) else self.level()
        dpl = self.level() if self.chance(0.1) else level
        rpl = self.level() if self.chance(0.1) else level
        if self.chance(0.5) and dpl == level:
            return DATA_SELECTORS[level] & ~3 | rpl
        access = 0xC01200 | self.rng.choice((0, 0x100)) | dpl << 13 | (0 if self.chance(0.15) else 0x8000)
        if self.chance(0.1):
            access &= ~0x200
        return self.place(segment_descriptor(0, 0xFFFFF, access)) | rpl

    def target(self, size: int) -> int:
        """An address to refer to, mostly one that is allowed."""
        rng = self.rng
        good = USER_DATA if self.cpl == 3 or self.chance(0.2) else KERNEL_DATA
        roll = rng.random()
        if roll < 0.55:
            return good + 16 * rng.randrange(16)
        if roll < 0.7:
            return good + rng.randrange(64)
        if roll < 0.8:
            return USER_BASE + 0x1000 * rng.choice((0, 1)) - rng.randrange(1, 2 * size + 1)
        if roll < 0.85:
            return KERNEL_DATA
        if roll < 0.9:
            return READ_ONLY_BASE + rng.choice((0, 8, -size + 1, 0xFFC, 0x1000 - size))
        edge = rng.choice(EDGES)
        return edge + rng.randrange(-size - 1, size + 1) & MASK if self.long else good

    def memory_operand(self, name: str, size: int, data: bytes) -> None:
        """A reference through DS, or through FS or GS with a base that brings it there."""
        where = self.target(size)
        signed = where - (1 << 64 if where >> 63 else 0)
        segment = DS
        offset = where
        if not -(1 << 31) <= signed < 1 << 31 or (self.chance(0.2) and self.long):
            segment = self.rng.choice((4, 5))
            shift = self.rng.choice((0, 8, 0x1000, -16))
            base = where - shift & MASK
            if base >> 47 not in (0, (1 << 17) - 1):
                base = self.rng.choice((EDGES[0] - 15, EDGES[3]))
            self.registers["fs.base" if segment == 4 else "gs.base"] = base
            offset = where - base & MASK
            if not (offset < 1 << 31 or offset >= MASK - (1 << 31)):
                offset = self.rng.randrange(32)
        elif not self.long and self.chance(0.3):
            segment = self.rng.choice((0, 2, 3, 4, 5))
            base = self.get(SEGMENT_NAMES[segment] + ".base")
            offset = where - base & 0xFFFFFFFF
        self.operands[f"operand {name}.segment"] = segment
        self.operands[f"operand {name}.offset"] = offset
        if where + len(data) < ARENA_BYTES:
            self.put(where, data)

    def register_operand(self, name: str, value: int | None = None, *, avoid: Sequence[int] = (4,)) -> int:
        """Choose a general register, none of `avoid`, and give it a value."""
        top = 16 if self.long else 8
        if name == "operand r8" or name.startswith("operand r8 "):
            top = 16 if self.long else 4
        number = self.rng.choice([n for n in range(top) if n not in avoid])
        self.operands[name] = number
        if value is not None:
            self.registers[GPR_NAMES[number]] = value & MASK
        return number

    def in_operand(self, data: bytes, *, after: int = 0) -> None:
        """Bytes in the memory operand, so many bytes after its first, where it is in the arena."""
        for name, offset in self.operands.items():
            if name.endswith(".offset"):
                segment = SEGMENT_NAMES[self.operands[name.replace(".offset", ".segment")]]
                based = not self.long or segment in ("fs", "gs")
                where = offset + (self.get(f"{segment}.base") if based else 0) & (
                    MASK if self.long else 0xFFFFFFFF
                )
                if where < ARENA_BYTES - 0x20:
                    self.put(where + after, data)

    def give_selector(self, selector: int) -> None:
        """Put a selector where the instruction takes it from: its last 16-bit register or its memory operand."""
        if any(name.endswith(".offset") for name in self.operands):
            self.in_operand(struct.pack("<H", selector))
            return
        taken = [n for n in self.operands if n.startswith("operand r16")]
        if taken:
            value = selector | self.rng.getrandbits(48 if self.long else 16) << 16
            self.registers[GPR_NAMES[self.operands[taken[-1]]]] = value
