"""What draws a case: chances, descriptors, selectors and operands (see `popek.emulators.ia32.cases`)."""

from __future__ import annotations

import random
import struct
from typing import Final

import attrs

from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.emulators.ia32.step import (
    CODE_SELECTORS,
    DATA_BASE,
    DATA_SELECTORS,
    FREE_SELECTOR,
    GDT_BASE,
    RESERVED_SELECTOR,
    STACK_TOPS,
    TSS_BASE,
    TSS_SELECTOR,
    gate_descriptor,
    segment_descriptor,
)
from popek.emulators.x86.cases_builder import CaseBuilder
from popek.kernel.instruction import Instruction

LANDING: Final = 0x38000
"""Linear address where transfers are meant to land."""
LDT_BASE: Final = 0x2F000
LDT_SELECTOR: Final = FREE_SELECTOR

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def words(*values: int) -> bytes:
    """32-bit little-endian words."""
    return struct.pack(f"<{len(values)}I", *(value & 0xFFFFFFFF for value in values))


@attrs.frozen
class LoadedSegment:
    """What the generator remembers of a loaded segment register."""

    base: int
    limit: int
    expand_down: bool = False
    big: bool = True


FLAT = LoadedSegment(0, 0xFFFFFFFF)


class Ia32CaseBuilder(CaseBuilder):
    """Draws one case."""

    any_data_selector = 0.5

    def __init__(self, instruction: Instruction, cpl: int, rng: random.Random) -> None:
        super().__init__(instruction, cpl, rng)
        self.stale: list[tuple[int, bytes]] = []
        self.msrs: dict[int, int] = {}
        self.hidden: dict[str, tuple[int, int, int]] = {}
        self.segments = dict.fromkeys(SEGMENT_NAMES, FLAT)
        self.next_gdt = LDT_SELECTOR + 8
        self.next_ldt = 4
        self.edge_free = True  # the place at the GDT's limit
        self.esp = STACK_TOPS[cpl]
        self.stack = FLAT

    def number(self, width: int = 32) -> int:
        """A number of so many bits, often at a boundary."""
        value = self.rng.choice(_NUMBERS) if self.chance(0.4) else self.rng.getrandbits(32)
        return value & (1 << width) - 1

    def place(self, descriptor: bytes, *, ldt: bool | None = None) -> int:
        """Put a descriptor in the GDT or the LDT; its selector, RPL 0."""
        if ldt is None:
            ldt = self.registers.get("ldtr", 0) != 0 and self.chance(0.25)
        if ldt and self.next_ldt < 0x3C:
            selector, base = self.next_ldt, LDT_BASE
            self.next_ldt += 8
        elif self.edge_free and self.registers.get("gdtr.limit", 0) >= 0x1007 and self.chance(0.1):
            selector, base = 0x1000, GDT_BASE
            self.edge_free = False
        else:
            selector, base = self.next_gdt, GDT_BASE
            self.next_gdt += 8
        self.put(base + (selector & ~7), descriptor)
        return selector

    def flags_of(self, kind: int, dpl: int, *, present: bool = True, high: int = 0xC0) -> int:
        """The second dword of a descriptor, without base and limit."""
        return kind << 8 | dpl << 13 | (0x8000 if present else 0) | high << 16

    def code(self, dpl: int, *, conforming: bool = False, present: bool = True, wide: bool = True) -> bytes:
        """A code segment."""
        kind = 0x18 | (4 if conforming else 0) | self.rng.choice((0, 1, 2, 3))
        limit, high = self.rng.choice(
            ((0xFFFFF, 0xC0), (0xFFFFF, 0xC0), (LANDING, 0x40), (LANDING - 1, 0x40), (LANDING >> 12, 0xC0))
        )
        high = high if wide else high & ~0x40
        return segment_descriptor(0, limit, self.flags_of(kind, dpl, present=present, high=high))

    def data(self, dpl: int, *, present: bool = True, writable: bool = True) -> bytes:
        """A data segment."""
        kind = 0x10 | (2 if writable else 0) | self.rng.choice((0, 1))
        base, limit, high = self.rng.choice(
            ((0, 0xFFFFF, 0xC0), (0, 0xFFFFF, 0xD0), (DATA_BASE, 0x2FFF, 0x40), (DATA_BASE, 1, 0xC0))
        )
        return segment_descriptor(base, limit, self.flags_of(kind, dpl, present=present, high=high))

    def wild(self, *kinds: int) -> bytes:
        """Any descriptor, of the given kinds (type and S) if there are some."""
        kind = self.rng.choice(kinds) if kinds else self.rng.getrandbits(5)
        dpl, present = self.level(), not self.chance(0.15)
        if kind < 16 and kind & 0b0100 and kind != 13 and self.chance(0.9):
            return self.gate(kind, dpl, present=present)
        if kind in (1, 3, 9, 11):
            return segment_descriptor(TSS_BASE, 0x67, self.flags_of(kind, dpl, present=present, high=0))
        base = self.rng.choice((0, 0, DATA_BASE, DATA_BASE + 0x1004))
        limit = self.rng.choice((0xFFFFF, 0xFFFFF, 0, 1, 0x2FFF, 0xFFFF))
        high = self.rng.choice((0xC0, 0x40, 0x80, 0x00, 0xD0, 0x50, 0xF0, 0xE0))
        if limit == 0xFFFFF and not high & 0x80:
            limit = 0x3FFF
        return segment_descriptor(base, limit, self.flags_of(kind, dpl, present=present, high=high))

    def gate(self, kind: int, dpl: int, *, present: bool = True) -> bytes:
        """A gate that leads to a code segment, mostly one that accepts it."""
        target = self.gate_level()
        if self.chance(0.5):
            selector = CODE_SELECTORS[target]
        elif self.chance(0.75):
            good = not self.chance(0.2)
            selector = self.place(
                self.code(target, conforming=self.chance(0.4), present=good, wide=self.chance(0.9))
            )
        else:
            selector = self.selector() & ~3 if self.chance(0.9) else 0
        selector = selector & ~3 | self.rng.getrandbits(2)
        offset = LANDING - self.rng.choice((0, 0, 0, 0x28000))
        if self.chance(0.15):
            offset = LANDING + 1
        count = (
            self.rng.choice((0, 0, 0, 1, 2, 5, 31, 0xE0, 0x21)) if kind in (4, 12) else 0
        )  # bits 7:5 are reserved
        return gate_descriptor(selector, offset, self.flags_of(kind, dpl, present=present, high=0) | count)

    def default_selector(self, ring: int) -> int:
        """A selector of the segments that every case has."""
        return self.rng.choice((CODE_SELECTORS, DATA_SELECTORS))[ring]

    def unusual_selector(self, roll: float) -> int:
        """A selector of the TSS, at or beyond a limit, or of a new descriptor."""
        limit = self.registers.get("gdtr.limit", 0xFFF)
        if roll < 0.43:
            return TSS_SELECTOR
        if roll < 0.52:
            edge = (limit + 1 & ~7) + self.rng.choice((-8, 0, 0, 8))
            return edge & 0xFFF8 if edge & ~7 != RESERVED_SELECTOR + 24 else 0x1000
        if roll < 0.56:
            return self.rng.choice((0x3C, 0x44, 0xFFF4, self.rng.getrandbits(16) | 4)) & ~3
        return self.place(self.wild())

    def stack_selector(self, level: int) -> int:
        """A selector for SS at a level, mostly one that loads."""
        if self.chance(0.2):
            return self.selector()
        dpl = self.level() if self.chance(0.1) else level
        rpl = self.level() if self.chance(0.1) else level
        if self.chance(0.3) and dpl == level:
            return DATA_SELECTORS[level] & ~3 | rpl
        descriptor = self.stack_descriptor(dpl, present=not self.chance(0.15), writable=not self.chance(0.1))
        return self.place(descriptor[0]) | rpl

    def stack_descriptor(
        self, dpl: int, *, present: bool = True, writable: bool = True, accessed: bool = False
    ) -> tuple[bytes, LoadedSegment]:
        """A data segment that covers the stacks, of any size and direction."""
        kind = 0x10 | (2 if writable else 0) | (1 if accessed else self.rng.choice((0, 1)))
        style = self.rng.randrange(5)
        if style == 0:
            limit, high, segment = 0xFFFFF, 0xC0, FLAT
        elif style == 1:  # 16-bit
            limit, high = self.rng.choice((0xFFFF, 0x9FFF)), 0x00
            segment = LoadedSegment(0x20000, limit, big=False)
        elif style == 2:  # expand-down
            limit, high = self.rng.choice((0, 0x1000, 0x3FFF)), self.rng.choice((0x40, 0x00))
            segment = LoadedSegment(0x20000, limit, expand_down=True, big=bool(high))
        elif style == 3:
            limit, high, segment = 0x3FFFF, 0x40, LoadedSegment(0, 0x3FFFF)
        else:
            limit, high, segment = 0xDFFF, 0x40, LoadedSegment(0x20000, 0xDFFF)
        kind |= 4 if segment.expand_down else 0
        access = self.flags_of(kind, dpl, present=present, high=high)
        return segment_descriptor(segment.base, limit, access), segment

    def address_of(self, selector: int) -> int:
        """Where the descriptor of a selector lies."""
        return (LDT_BASE if selector & 4 else GDT_BASE) + (selector & 0xFFF8)

    def edge(self, segment: LoadedSegment, size: int) -> int:
        """An offset such that `size` bytes from it just fit, or just do not."""
        near = self.rng.choice((-1, 0, 1, 2))
        if segment.expand_down:
            top = 0xFFFFFFFF if segment.big else 0xFFFF
            return self.rng.choice((segment.limit + near, segment.limit + 1, top - size + 1 + near))
        return segment.limit - size + 1 + near

    def target(self, segment: LoadedSegment, size: int) -> int:
        """An offset for an access of `size` bytes."""
        if self.chance(0.2):
            return self.edge(segment, size) & 0xFFFFFFFF
        at = (
            DATA_BASE
            + 0x400
            + 4 * self.rng.randrange(64)
            + (self.rng.randrange(4) if self.chance(0.3) else 0)
        )
        offset = at - segment.base
        if segment.expand_down:
            return offset & 0xFFFFFFFF
        return offset if 0 <= offset <= segment.limit else self.rng.randrange(segment.limit + 1)

    def point(self, part: str, contents: bytes) -> None:
        """A memory operand, with its contents where that is harmless."""
        number = self.rng.choice((3, 3, 3, 0, 1, 2, 4, 5))
        segment = self.segments[SEGMENT_NAMES[number]]
        offset = self.target(segment, len(contents))
        self.operands[f"operand {part}.segment"] = number
        self.operands[f"operand {part}.offset"] = offset
        self.fill(segment.base + offset, contents)

    def fill(self, address: int, contents: bytes) -> None:
        """Contents in memory, unless the tables or the code are there."""
        address &= 0xFFFFFFFF
        if 0x20100 <= address < LDT_BASE or DATA_BASE - 0x100 <= address < LANDING - 0x40:
            self.put(address, contents)

    def on_stack(self, contents: bytes) -> None:
        """What lies at the top of the stack."""
        offset = self.esp if self.stack.big else self.esp & 0xFFFF
        self.fill(self.stack.base + offset, contents)

    def general(self, number: int, value: int) -> None:
        """A general register, where its use as the stack pointer does not forbid it."""
        names = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
        if number == 4:
            return
        self.registers[names[number]] = value & 0xFFFFFFFF

    def register_operand(self, name: str, value: int | None = None) -> None:
        """A register operand, with a value if there is one to give."""
        number = self.rng.randrange(8)
        if value is not None and number == 4:
            number = 3
        self.operands[f"operand {name}"] = number
        if value is not None:
            self.general(number, value | (self.rng.getrandbits(16) << 16 if name.startswith("r16") else 0))

    def selector_operand(self, selector: int, *, source: bool = False) -> None:
        """A 16-bit operand in a register or in memory."""
        for operand in self.instruction.operands[1:] if source else self.instruction.operands:
            if operand.kind.name == "m16":
                self.point(operand.name, struct.pack("<H", selector))
            else:
                self.register_operand(operand.name, selector)

    def flat_segment(self) -> tuple[int, LoadedSegment]:
        """A data segment register that covers all of memory, or DS if there is none."""
        flat = [number for number in (3, 0, 4, 5) if self.segment_of(number) is FLAT]
        number = flat[0] if flat else 3
        return number, self.segment_of(number)

    def segment_of(self, number: int) -> LoadedSegment:
        """What is in a segment register."""
        return self.segments[SEGMENT_NAMES[number]]
