"""Random states for single IA-32 instructions, biased to where the manual draws a line.

A case starts from the plain state of the step harness and builds what its instruction needs to complete; a
few things are then made wrong, most often one: a null selector, one below or above a limit, another DPL, a
segment not present.  Everything else (flags, control bits, other segment registers) is drawn as well, as a
change of the plain state that can be taken back one by one.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from popek.architectures.ia32.state import CR4_DEFINED, SEGMENT_NAMES
from popek.emulators.ia32_step import (
    CODE_BASE,
    CODE_SELECTORS,
    DATA_BASE,
    DATA_SELECTORS,
    FREE_SELECTOR,
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
from popek.kernel.instruction import Instruction

LANDING: Final = 0x38000
"""Linear address where transfers are meant to land."""
LDT_BASE: Final = 0x2F000
LDT_SELECTOR: Final = FREE_SELECTOR
PORTS: Final = (0x680, 0x687, 0x688, 0x689, 0x68F, 0x6FF, 0xE0, 0xE7, 0xFFFE)
"""Ports without a device: they read as ones and take anything."""
UNTESTED: Final[Mapping[str, str]] = {
    "TF = 1": "debug traps are outside the model",
    "breakpoints that match": "debug traps are outside the model",
    "EFLAGS.VIF and VIP with CR4.PVI at CPL 3": "a pending virtual interrupt comes before the instruction",
    "MOV CR0 that sets PG": "the harness has no page tables; attempts that fault are tested",
    "NT = 1 with IRET": "task switches are not modelled",
    "16-bit code segments to start in": "the model's forms are those of a 32-bit code segment",
    "devices": "only ports without a device",
    "MSRs": "those of the model, and numbers that no processor has",
}
"""What no case starts from, each with the reason.  No form is left out."""

IMMEDIATE_PORTS: Final = (0xE0, 0xE1, 0xE3, 0xE6, 0xE7)

_GDT_LIMITS = (0xFFF, 0xFFF, 0x1000, 0x1006, 0x1007, 0x100F)
_FLAGS = 0x3D7ED5 & ~0x100
# CR0 without PE, ET, PG and without NW, which needs CD.
_CR0 = (1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 16, 1 << 18, 1 << 30)
_CR4_HELD = CR4_DEFINED & ~(1 << 13 | 1 << 14)  # VMXE and SMXE have no say in this model
_INWARD = frozenset(("CALL far", "INT n", "INT3", "INTO", "INT1"))
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@attrs.frozen
class Case:
    """An instruction and the state it starts from, as changes of the harness's plain state.

    Attributes:
        form: the instruction's form.
        operands: the number of each part by its name as a symbol, without the length.
        cpl: the current privilege level.
        registers: as in `popek.emulators.ia32_step.StepCase`.
        memory: likewise.
        stale: likewise.
        msrs: likewise.
    """

    form: str
    operands: Mapping[str, int]
    cpl: int = 0
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    stale: tuple[tuple[int, bytes], ...] = ()
    msrs: Mapping[int, int] = attrs.field(factory=dict)


def words(*values: int) -> bytes:
    """32-bit little-endian words."""
    return struct.pack(f"<{len(values)}I", *(value & 0xFFFFFFFF for value in values))


def random_case(instruction: Instruction, cpl: int, rng: random.Random) -> Case:
    """Draw a case for one form at one privilege level."""
    builder = _Builder(instruction, cpl, rng)
    builder.surroundings()
    builder.instruction_state()
    return Case(
        instruction.form,
        builder.operands,
        cpl,
        builder.registers,
        tuple(builder.memory),
        tuple(builder.stale),
        builder.msrs,
    )


@attrs.frozen
class _Segment:
    """What the generator remembers of a loaded segment register."""

    base: int
    limit: int
    expand_down: bool = False
    big: bool = True


_FLAT = _Segment(0, 0xFFFFFFFF)


class _Builder:
    """Draws one case."""

    def __init__(self, instruction: Instruction, cpl: int, rng: random.Random) -> None:
        self.instruction, self.cpl, self.rng = instruction, cpl, rng
        self.registers: dict[str, int] = {}
        self.memory: list[tuple[int, bytes]] = []
        self.stale: list[tuple[int, bytes]] = []
        self.msrs: dict[int, int] = {}
        self.operands: dict[str, int] = {}
        self.segments = dict.fromkeys(SEGMENT_NAMES, _FLAT)
        self.next_gdt = LDT_SELECTOR + 8
        self.next_ldt = 4
        self.edge_free = True  # the place at the GDT's limit
        self.esp = STACK_TOPS[cpl]
        self.stack = _FLAT

    # -- small helpers ------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def level(self) -> int:
        return self.rng.choice((0, 1, 2, 3, self.cpl))

    def number(self, width: int = 32) -> int:
        value = self.rng.choice(_NUMBERS) if self.chance(0.4) else self.rng.getrandbits(32)
        return value & (1 << width) - 1

    def subset(self, bits: Sequence[int], probability: float) -> int:
        return sum(bit for bit in bits if self.chance(probability))

    def put(self, address: int, data: bytes) -> None:
        self.memory.append((address, data))

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

    # -- descriptors --------------------------------------------------------------------------

    def flags_of(self, kind: int, dpl: int, *, present: bool = True, high: int = 0xC0) -> int:
        return kind << 8 | dpl << 13 | (0x8000 if present else 0) | high << 16

    def code(self, dpl: int, *, conforming: bool = False, present: bool = True, wide: bool = True) -> bytes:
        kind = 0x18 | (4 if conforming else 0) | self.rng.choice((0, 1, 2, 3))
        limit, high = self.rng.choice(
            ((0xFFFFF, 0xC0), (0xFFFFF, 0xC0), (LANDING, 0x40), (LANDING - 1, 0x40), (LANDING >> 12, 0xC0))
        )
        high = high if wide else high & ~0x40
        return segment_descriptor(0, limit, self.flags_of(kind, dpl, present=present, high=high))

    def data(self, dpl: int, *, present: bool = True, writable: bool = True) -> bytes:
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
        target = self.rng.choice((0, 1, 1, 2, 3, self.cpl, self.cpl))
        if target > self.cpl and self.chance(0.8):
            target = self.rng.randrange(self.cpl + 1)
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

    # -- selectors ----------------------------------------------------------------------------

    def selector(self) -> int:
        """Any selector: null, of the default segments, of a new descriptor, at or beyond a limit."""
        rpl = self.rng.choice((0, 1, 2, 3, self.cpl))
        limit = self.registers.get("gdtr.limit", 0xFFF)
        roll = self.rng.random()
        if roll < 0.12:
            return rpl
        if roll < 0.15:
            return 4 | rpl
        if roll < 0.4:
            ring = self.level()
            return (self.rng.choice((CODE_SELECTORS, DATA_SELECTORS))[ring] & ~3) | rpl
        if roll < 0.43:
            return TSS_SELECTOR | rpl
        if roll < 0.52:
            edge = (limit + 1 & ~7) + self.rng.choice((-8, 0, 0, 8))
            return (edge & 0xFFF8 if edge & ~7 != RESERVED_SELECTOR + 24 else 0x1000) | rpl
        if roll < 0.56:
            return self.rng.choice((0x3C, 0x44, 0xFFF4, self.rng.getrandbits(16) | 4)) & ~3 | rpl
        return self.place(self.wild()) | rpl

    def data_selector(self) -> int:
        """A selector for DS, ES, FS or GS that mostly loads."""
        if self.chance(0.5):
            return self.selector()
        dpl = self.rng.randrange(self.cpl, 4)
        rpl = self.rng.randrange(dpl + 1)
        if self.chance(0.2):
            dpl = self.level()
        if self.chance(0.3):
            descriptor = self.code(dpl, conforming=self.chance(0.5), present=not self.chance(0.15))
        else:
            descriptor = self.data(dpl, present=not self.chance(0.15), writable=self.chance(0.7))
        return self.place(descriptor) | rpl

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
    ) -> tuple[bytes, _Segment]:
        """A data segment that covers the stacks, of any size and direction."""
        kind = 0x10 | (2 if writable else 0) | (1 if accessed else self.rng.choice((0, 1)))
        style = self.rng.randrange(5)
        if style == 0:
            limit, high, segment = 0xFFFFF, 0xC0, _FLAT
        elif style == 1:  # 16-bit
            limit, high = self.rng.choice((0xFFFF, 0x9FFF)), 0x00
            segment = _Segment(0x20000, limit, big=False)
        elif style == 2:  # expand-down
            limit, high = self.rng.choice((0, 0x1000, 0x3FFF)), self.rng.choice((0x40, 0x00))
            segment = _Segment(0x20000, limit, expand_down=True, big=bool(high))
        elif style == 3:
            limit, high, segment = 0x3FFFF, 0x40, _Segment(0, 0x3FFFF)
        else:
            limit, high, segment = 0xDFFF, 0x40, _Segment(0x20000, 0xDFFF)
        kind |= 4 if segment.expand_down else 0
        access = self.flags_of(kind, dpl, present=present, high=high)
        return segment_descriptor(segment.base, limit, access), segment

    # -- what every case has ------------------------------------------------------------------

    def surroundings(self) -> None:
        """Registers, flags, control bits, tables, segment registers."""
        rng = self.rng
        if self.chance(0.6):
            for name in ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi"):
                self.registers[name] = self.number()
        flags = self.subset([1 << bit for bit in range(22) if _FLAGS >> bit & 1], rng.choice((0.1, 0.5)))
        if self.chance(0.5):
            flags &= ~0x4000
        self.registers["eflags"] = flags & ~0x3000 | rng.choice((0, self.cpl, rng.randrange(4))) << 12 | 2
        if self.chance(0.5):
            self.registers["cr0"] = 0x11 | self.subset(_CR0, 0.3)
            if self.registers["cr0"] >> 30 & 1 and self.chance(0.5):
                self.registers["cr0"] |= 1 << 29
        if self.chance(0.6):
            held = [1 << bit for bit in range(32) if _CR4_HELD >> bit & 1]
            self.registers["cr4"] = self.subset(held, rng.choice((0.2, 0.6)))
        if self.chance(0.2):
            self.registers["cr2"], self.registers["cr3"] = self.number(), self.number()
        if self.chance(0.3):
            self.registers["gdtr.limit"] = rng.choice(_GDT_LIMITS)
        if self.chance(0.5):
            self.registers["ldtr"] = LDT_SELECTOR
            limit = rng.choice((0x3F, 0x3F, 0x37, 0x3E, 0x1F))
            self.put(GDT_BASE + LDT_SELECTOR, segment_descriptor(LDT_BASE, limit, 0x8200))
            self.put(LDT_BASE, bytes(0x48))
        self.debug_registers()
        self.task()
        self.code_segment()
        self.stack_segment()
        for name in ("es", "ds", "fs", "gs"):
            if self.chance(0.3):
                self.data_segment(name)

    def debug_registers(self) -> None:
        """Break points that nothing hits."""
        if "DR" not in self.instruction.form and not self.chance(0.1):
            return
        for number in range(4):
            self.registers[f"dr{number}"] = self.rng.getrandbits(32) | 0x80000000
        # Not BD, by which the harness knows general detect from landing.
        self.registers["dr6"] = 0xFFFF0FF0 | self.rng.getrandbits(16) & 0xC00F
        gd = 0x2000 if self.chance(0.3) else 0
        self.registers["dr7"] = 0x400 | gd | self.rng.getrandbits(1) << 9

    def task(self) -> None:
        """The TSS: stacks of the inner levels, I/O permission map."""
        uses_ports = self.instruction.mnemonic in ("IN", "OUT", "INS", "OUTS")
        uses_stacks = self.instruction.mnemonic in _INWARD
        if not uses_ports and not uses_stacks and self.chance(0.5):
            return
        if self.chance(0.08):
            self.narrow_task()
            return
        limit = 0x67
        if uses_ports or self.chance(0.2):
            base = self.rng.choice((0x68, 0x68, 0x68, 0x60, 0x70, 0x20, 0x1000, 0xFFFF))
            self.put(TSS_BASE + 0x66, struct.pack("<H", base))
            limit = self.rng.choice((0x67, 0x2068, 0x68 + 0xD0, 0x69 + 0xD0, 0x6A + 0xD0, 0x2067, 0x2069))
            if base < 0x1000:
                bits = self.rng.choice((b"\0\0\0", b"\0\0\0", self.rng.randbytes(3)))
                for port in (0x680, 0x6FF, 0xE0, 0xFFFE):
                    self.put(TSS_BASE + base + (port >> 3), bits[: 3 if port < 0xFFFE else 2])
        small = self.chance(0.25 if uses_stacks or uses_ports else 0.1)
        if small:
            limit = self.rng.choice((0x66, 0x17, 0x13, 0x12, 0x0B))
            self.plain_gate_for_invalid_tss()
        self.put(GDT_BASE + TSS_SELECTOR, segment_descriptor(TSS_BASE, limit, 0x8900))
        if uses_stacks or self.chance(0.5):
            for ring in (1, 2) if small or self.chance(0.8) else (0, 1, 2):
                self.inner_stack(ring)

    def plain_gate_for_invalid_tss(self) -> None:
        """A task gate for #TS would save the state in a TSS that has no room for it."""
        self.put(IDT_BASE + 8 * 10, gate_descriptor(RESERVED_SELECTOR, 0xF8000 + 4 * 10, 0x8E00))

    def narrow_task(self) -> None:
        """A 16-bit TSS, whose stacks lie in segments of 64 KiB."""
        self.plain_gate_for_invalid_tss()
        limit = self.rng.choice((0x2B, 0x2B, 0x0D, 0x0C, 0x09, 0x05, 0x2068))
        self.put(TSS_BASE + 0x66, struct.pack("<H", 0x68))
        for port in (0x680, 0x6FF, 0xE0):
            self.put(TSS_BASE + 0x68 + (port >> 3), bytes(3))
        self.put(GDT_BASE + TSS_SELECTOR, segment_descriptor(TSS_BASE, limit, 0x8100))
        for ring in range(3):
            access = self.flags_of(0x13, ring, high=self.rng.choice((0x40, 0x00)))
            selector = self.place(segment_descriptor(0x20000, 0xFFFF, access), ldt=False) | ring
            if ring and self.chance(0.15):
                selector = self.selector()
            entry = struct.pack("<HH", INNER_STACK_TOPS[ring] - 0x20000, selector)
            self.put(TSS_BASE + 2 + 4 * ring, entry)

    def inner_stack(self, ring: int) -> None:
        """One entry of the TSS's stack table."""
        top = INNER_STACK_TOPS[ring]
        descriptor, segment = self.stack_descriptor(
            self.level() if self.chance(0.1) else ring, present=not self.chance(0.1), accessed=ring == 0
        )
        selector = self.place(descriptor, ldt=False) | (self.level() if self.chance(0.1) else ring)
        offset = top - segment.base
        if ring and self.chance(0.15):
            selector = self.selector()
        if ring and self.chance(0.15):
            offset = self.edge(segment, 0) & 0xFFFFFFFF
        elif ring and segment != _FLAT and self.chance(0.4):
            # Just enough room for some frame, or just not.
            lowest = segment.limit + 1 if segment.expand_down else 0
            offset = lowest + self.rng.choice((8, 10, 12, 16, 20, 24, 28, 36)) - self.rng.choice((0, 0, 1, 2))
        self.put(TSS_BASE + 4 + 8 * ring, words(offset, selector))

    def code_segment(self) -> None:
        """CS: conforming or not, readable or not, tight or not."""
        if not self.chance(0.3):
            return
        conforming = self.chance(0.4)
        dpl = self.rng.randrange(self.cpl + 1) if conforming else self.cpl
        eip = self.rng.choice((0x100, 0x7FF0, CODE_BASE, CODE_BASE))
        limit = self.rng.choice((0x3FFFF, eip + 0x11 + self.rng.randrange(16)))
        kind = 0x18 | (4 if conforming else 0) | self.rng.choice((0, 2, 3))
        base = CODE_BASE - eip
        selector = self.place(segment_descriptor(base, limit, self.flags_of(kind, dpl, high=0x40)))
        self.registers["cs"] = selector | self.cpl
        self.registers["eip"] = eip
        self.segments["cs"] = _Segment(base, limit)

    def stack_segment(self) -> None:
        """SS and ESP."""
        rng = self.rng
        if self.chance(0.35):
            descriptor, segment = self.stack_descriptor(self.cpl)
            self.registers["ss"] = self.place(descriptor) | self.cpl
            self.segments["ss"] = self.stack = segment
        self.esp = STACK_TOPS[self.cpl] - self.stack.base
        if self.chance(0.15):
            self.esp -= rng.choice((1, 2, 3))
        if self.chance(0.1):
            self.esp = self.edge(self.stack, rng.choice((0, 4, 8)))
        if not self.stack.big:
            self.esp = self.esp & 0xFFFF | (rng.getrandbits(16) << 16 if self.chance(0.5) else 0)
        self.registers["esp"] = self.esp & 0xFFFFFFFF

    def data_segment(self, name: str) -> None:
        """DS, ES, FS or GS as the current level may have loaded it."""
        if self.chance(0.25):
            self.registers[name] = self.rng.randrange(4)
            self.segments[name] = _FLAT
            return
        dpl = self.rng.randrange(self.cpl, 4)
        kind = self.rng.choice((0x12, 0x12, 0x13, 0x10, 0x16, 0x14, 0x1A, 0x1E))
        limit, high = self.rng.choice(((0xFFFFF, 0xC0), (0x2FFF, 0x40), (0x2FFF, 0x00), (2, 0xC0), (3, 0x40)))
        base = 0 if limit == 0xFFFFF else DATA_BASE + self.rng.choice((0, 1))
        if kind & 0xC == 4:  # expand-down: what lies above the limit
            base, limit, high = DATA_BASE - 0x8000, 0x7FFF, self.rng.choice((0x40, 0x00))
        if kind == 0x1E:
            dpl = self.rng.randrange(4)
        rpl = self.rng.randrange(dpl + 1)
        selector = self.place(segment_descriptor(base, limit, self.flags_of(kind, dpl, high=high)))
        self.registers[name] = selector | rpl
        whole = limit << 12 | 0xFFF if high & 0x80 else limit
        self.segments[name] = _Segment(base, whole, kind & 0xC == 4, bool(high & 0x40))
        if self.chance(0.2):
            self.stale.append((self.address_of(selector), self.wild()))

    def address_of(self, selector: int) -> int:
        """Where the descriptor of a selector lies."""
        return (LDT_BASE if selector & 4 else GDT_BASE) + (selector & 0xFFF8)

    # -- operands -----------------------------------------------------------------------------

    def edge(self, segment: _Segment, size: int) -> int:
        """An offset such that `size` bytes from it just fit, or just do not."""
        near = self.rng.choice((-1, 0, 1, 2))
        if segment.expand_down:
            top = 0xFFFFFFFF if segment.big else 0xFFFF
            return self.rng.choice((segment.limit + near, segment.limit + 1, top - size + 1 + near))
        return segment.limit - size + 1 + near

    def target(self, segment: _Segment, size: int) -> int:
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

    # -- instructions -------------------------------------------------------------------------

    def instruction_state(self) -> None:
        """What this form looks at."""
        form, mnemonic = self.instruction.form, self.instruction.mnemonic
        special: Mapping[str, Callable[[], None]] = {
            "LGDT": self.table_operand, "LIDT": self.table_operand,
            "LLDT": lambda: self.selector_operand(self.ldt_selector()),
            "LTR": lambda: self.selector_operand(self.tss_selector()),
            "LMSW": lambda: self.selector_operand(self.rng.getrandbits(16)),
            "LAR": lambda: self.selector_operand(self.selector(), source=True),
            "LSL": lambda: self.selector_operand(self.selector(), source=True),
            "VERR": lambda: self.selector_operand(self.selector()),
            "VERW": lambda: self.selector_operand(self.selector()),
            "MOV to CR": self.to_control_register, "MOV to DR": self.to_debug_register,
            "CLI": self.virtual_interrupts, "STI": self.virtual_interrupts,
            "POPF": lambda: self.on_stack(words(self.number())),
            "POP sreg": self.pop_segment,
            "CALL far": self.far_operand, "JMP far": self.far_operand,
            "RET far": lambda: self.return_frame(flags=False),
            "IRET": lambda: self.return_frame(flags=True),
            "INT n": self.software_interrupt, "INT3": self.software_interrupt,
            "INTO": self.software_interrupt, "INT1": self.software_interrupt,
            "IN": self.port, "OUT": self.port, "INS": self.port, "OUTS": self.port,
            "RDMSR": self.model_specific, "WRMSR": self.model_specific, "RDPMC": self.counter,
            "Jcc": self.branch, "JMP near": self.branch, "CALL near": self.branch, "RET near": self.branch,
            "LEAVE": self.leave,
        }  # fmt: skip
        if form in ("MOV Sreg, r16", "MOV Sreg, m16"):
            self.segment_load()
        elif mnemonic in ("LDS", "LES", "LFS", "LGS", "LSS"):
            self.far_pointer_load()
        else:
            special.get(mnemonic, self.plain)()
        self.rest_of_operands()

    def plain(self) -> None:
        """Nothing beyond the operands."""

    def virtual_interrupts(self) -> None:
        """CLI and STI: CR4.PVI on both sides."""
        self.registers["cr4"] = self.registers.get("cr4", 0) & ~2 | self.rng.choice((0, 2))
        pending = self.rng.choice((0, 0, 1 << 19, 1 << 20))
        self.registers["eflags"] = self.registers["eflags"] & ~0x180000 | pending

    def rest_of_operands(self) -> None:
        """The operands that no method has chosen."""
        for operand in self.instruction.operands:
            names = [name for name, _ in operand.part_names()]
            if names[0] in self.operands:
                continue
            kind = operand.kind.name
            if kind.startswith("m"):
                size = {"m8": 1, "m16": 2, "m32": 4}.get(kind, 6)
                self.point(operand.name, words(self.number(), self.number())[:size])
            elif kind == "seg":
                self.operands[names[0]] = self.rng.randrange(6)
            else:
                for name, width in operand.part_names():
                    self.operands[name] = self.rng.getrandbits(width)
        if self.instruction.form in ("POP r16", "POP r32"):
            self.on_stack(words(self.number()))

    def selector_operand(self, selector: int, *, source: bool = False) -> None:
        """A 16-bit operand in a register or in memory."""
        for operand in self.instruction.operands[1:] if source else self.instruction.operands:
            if operand.kind.name == "m16":
                self.point(operand.name, struct.pack("<H", selector))
            else:
                self.register_operand(operand.name, selector)

    def ldt_selector(self) -> int:
        """For LLDT."""
        if self.chance(0.4):
            return self.selector()
        loaded = self.registers.get("ldtr", 0) != 0
        ldt = self.chance(0.3 if loaded else 0.05)
        return self.place(self.wild(2, 2, 2, 2, 9, 0x12), ldt=ldt) | self.rng.getrandbits(2)

    def tss_selector(self) -> int:
        """For LTR."""
        if self.chance(0.4):
            return self.selector()
        loaded = self.registers.get("ldtr", 0) != 0
        ldt = self.chance(0.3 if loaded else 0.05)
        return self.place(self.wild(1, 9, 9, 9, 3, 11, 2), ldt=ldt) | self.rng.getrandbits(2)

    def table_operand(self) -> None:
        """For LGDT and LIDT: where the tables are now, or anywhere when it ends right there."""
        name = self.instruction.operands[0].name
        if self.chance(0.5):
            base, limit = self.number(), self.rng.getrandbits(16)
        elif self.instruction.mnemonic == "LGDT":
            base, limit = GDT_BASE, 0xFFF
        else:
            base, limit = IDT_BASE, 0x7FF
        self.point(name, struct.pack("<HI", limit, base))

    def to_control_register(self) -> None:
        """The value written: near what is there, reserved bits seldom."""
        form = self.instruction.form
        value = self.number()
        if form == "MOV CR0, r32":
            value = 0x11 | self.subset([*_CR0, 1 << 29], 0.4)
            value ^= self.subset([1, 1 << 4, 1 << 6, 1 << 17, 1 << 20, 1 << 28, 1 << 29], 0.1)
            if value >> 29 & 3 == 1 or not value & 1:
                value |= self.rng.getrandbits(1) << 31
        elif form == "MOV CR4, r32":
            value = self.rng.getrandbits(32) & CR4_DEFINED
            if self.chance(0.2):
                value |= 1 << self.rng.choice((15, 19, 24, 25, 26, 28, 29, 30, 31, 12, 16, 17, 22, 23))
        self.register_operand("r32", value)

    def to_debug_register(self) -> None:
        """No break point is enabled that something might hit."""
        value = self.rng.getrandbits(32)
        if self.instruction.form in ("MOV DR7, r32", "MOV DR5, r32"):
            value &= ~0x20FF if self.chance(0.5) else ~0xFF
        elif "DR6" not in self.instruction.form and "DR4" not in self.instruction.form:
            value |= 0x80000000
        self.register_operand("r32", value)

    def segment_load(self) -> None:
        """MOV to a segment register."""
        number = self.rng.choice((0, 0, 2, 2, 2, 3, 3, 4, 5, 1, 6, 7))
        selector = self.stack_selector(self.cpl) if number == 2 else self.data_selector()
        self.operands["operand Sreg"] = number
        self.selector_operand(selector, source=True)

    def pop_segment(self) -> None:
        """POP of a segment register."""
        stack = "SS" in self.instruction.form
        selector = self.stack_selector(self.cpl) if stack else self.data_selector()
        self.on_stack(words(selector | self.rng.getrandbits(16) << 16))

    def far_pointer_load(self) -> None:
        """LDS and its kin."""
        stack = self.instruction.mnemonic == "LSS"
        selector = self.stack_selector(self.cpl) if stack else self.data_selector()
        offset = self.number()
        for operand in self.instruction.operands:
            if operand.kind.name == "m16:16":
                self.point(operand.name, struct.pack("<HH", offset & 0xFFFF, selector))
            elif operand.kind.name == "m16:32":
                self.point(operand.name, struct.pack("<IH", offset, selector))

    def far_operand(self) -> None:
        """CALL and JMP: to code, through a gate, or to something else."""
        roll = self.rng.random()
        if roll < 0.3:
            conforming = self.chance(0.4)
            dpl = self.rng.randrange(self.cpl + 1) if conforming else self.cpl
            if self.chance(0.15):
                dpl = self.level()
            good = not self.chance(0.15)
            selector = self.place(self.code(dpl, conforming=conforming, present=good, wide=self.chance(0.9)))
        elif roll < 0.8:
            dpl = self.rng.randrange(self.cpl, 4) if self.chance(0.85) else self.level()
            selector = self.place(self.gate(self.rng.choice((12, 12, 4)), dpl, present=not self.chance(0.1)))
        else:
            selector = self.selector() & ~3
        selector |= self.rng.choice((0, 0, self.cpl, self.rng.randrange(4)))
        offset = LANDING + self.rng.choice((0, 0, 0, 0, 1, -1))
        for operand in self.instruction.operands:
            kind, name = operand.kind.name, operand.name
            if kind.startswith("ptr"):
                self.operands[f"operand {name}.selector"] = selector
                self.operands[f"operand {name}.offset"] = offset & (
                    0xFFFF if kind.endswith(":16") else 0xFFFFFFFF
                )
            elif kind == "m16:16":
                self.point(name, struct.pack("<HH", offset & 0xFFFF, selector))
            else:
                self.point(name, struct.pack("<IH", offset, selector))
        self.on_stack(self.rng.randbytes(64))  # parameters

    def return_frame(self, *, flags: bool) -> None:
        """RET far and IRET: to the same level or to an outer one."""
        level = self.rng.choice((self.cpl, 3, self.rng.randrange(self.cpl, 4)))
        conforming = self.chance(0.3)
        dpl = self.rng.randrange(level + 1) if conforming else level
        if self.chance(0.15):
            dpl = self.level()
        if self.chance(0.5) and not conforming:
            selector = CODE_SELECTORS[dpl] & ~3
        elif self.chance(0.75):
            good = not self.chance(0.15)
            selector = self.place(self.code(dpl, conforming=conforming, present=good, wide=self.chance(0.9)))
        else:
            selector = self.selector() & ~3
        selector |= level if self.chance(0.9) else self.level()
        offset = LANDING + self.rng.choice((0, 0, 0, 0, 1, -1))
        stack = self.stack_selector(level)
        narrow = self.instruction.form.startswith("o16") or self.instruction.form == "IRET"
        image = self.rng.getrandbits(32)
        if self.cpl == 0 and self.chance(0.95):
            image &= ~0x20000  # VM
        frame = [offset, selector | self.rng.getrandbits(16) << 16, *([image] if flags else [])]
        released = 0
        if self.instruction.operands:
            released = self.rng.choice((0, 4, 8, 2, 0x10, 0x10, 3))
            self.operands["operand imm16"] = released
        outer = [STACK_TOPS[level] & 0xFFFF if self.chance(0.3) else STACK_TOPS[level], stack]
        pack = "H" if narrow else "I"
        mask = 0xFFFF if narrow else 0xFFFFFFFF
        inner = b"".join(struct.pack(f"<{pack}", value & mask) for value in frame)
        above = b"".join(struct.pack(f"<{pack}", value & mask) for value in outer)
        self.on_stack(inner + self.rng.randbytes(released) + above)

    def software_interrupt(self) -> None:
        """INT n, INT3, INTO and INT1: a gate of any kind, and its DPL on either side of CPL."""
        form = self.instruction.form
        vector = {"INT3": 3, "INTO": 4, "INT1": 1}.get(form, self.rng.choice((0x20, 0x80, 0x81, 0xFF, 2)))
        if form == "INT imm8":
            self.operands["operand imm8"] = vector
            if self.chance(0.2):
                self.registers["idtr.limit"] = (
                    8 * vector + self.rng.choice((-1, 6, 7)) if vector > 0x11 else 0x8F
                )
        if form == "INTO" and self.chance(0.7):
            self.registers["eflags"] |= 0x800
        if form == "INT1":
            # Landing places use this vector, so here the handler ends with UD2 (which the harness knows too).
            for place in (LANDING, LANDING & 0xFFFF):
                self.put(place, b"\x0f\x0b")
        kind = self.rng.choice((14, 14, 15, 6, 7)) if self.chance(0.8) else self.rng.randrange(16)
        dpl = self.rng.randrange(self.cpl, 4) if self.chance(0.75) else self.rng.randrange(self.cpl + 1)
        gate = self.gate(kind, dpl, present=not self.chance(0.1))
        self.put(IDT_BASE + 8 * vector, gate)

    def port(self) -> None:
        """A port without a device; the index registers of INS and OUTS."""
        if "imm8" in self.instruction.form:
            self.operands["operand imm8"] = self.rng.choice(IMMEDIATE_PORTS)
        self.registers["edx"] = self.rng.choice(PORTS) | self.rng.getrandbits(16) << 16
        if self.instruction.mnemonic in ("INS", "OUTS"):
            number = 0
            if self.instruction.mnemonic == "OUTS":
                number = self.operands["operand seg"] = self.rng.randrange(6)
            segment = self.segments[SEGMENT_NAMES[number]]
            register = "edi" if self.instruction.mnemonic == "INS" else "esi"
            self.registers[register] = self.target(segment, 4) & 0xFFFFFFFF

    def model_specific(self) -> None:
        """An MSR that exists, or one that surely does not."""
        number = self.rng.choice((0x174, 0x175, 0x176, 0x277, 0x277, 0x10, 0x12345678, 0xFFFFFFFF, 0x4000))
        self.registers["ecx"] = number
        if number == 0x277:
            self.msrs[number] = 0x0007040600070406
            kinds = [self.rng.choice((0, 1, 4, 5, 6, 7)) for _ in range(8)]
            if self.chance(0.4):
                kinds[self.rng.randrange(8)] = self.rng.choice((2, 3, 8, 0x10, 0xFF))
            self.registers["eax"], self.registers["edx"] = struct.unpack("<II", bytes(kinds))
        elif 0x174 <= number <= 0x176:
            self.msrs[number] = self.number()
            self.registers["edx"] = 0 if self.chance(0.9) else self.number()

    def counter(self) -> None:
        """RDPMC: counters at either side of the last one."""
        self.registers["ecx"] = self.rng.choice(
            (0, 1, 7, 8, 17, 18, 0x40000000, 0x40000002, 0x40000003, 0x80000000)
        )

    def branch(self) -> None:
        """Near transfers: to a landing place or past the limit."""
        segment = self.segments["cs"]
        eip = self.registers.get("eip", CODE_BASE)
        target = LANDING - segment.base
        if segment.limit < target or self.chance(0.15):
            target = self.rng.choice((segment.limit, segment.limit + 1, LANDING - segment.base)) & 0xFFFFFFFF
        for operand in self.instruction.operands:
            if operand.kind.name == "rel8":
                self.operands["operand rel8"] = self.rng.choice((0, 0x10, 0x20, 0x7F, 0x80, 0xE0, 0xF0))
            elif operand.kind.name == "rel32":
                self.operands["operand rel32"] = target - eip - 5 & 0xFFFFFFFF
            elif operand.kind.name == "r32":
                self.register_operand("r32", target | 0)
                self.general(self.operands["operand r32"], target)
            else:
                self.operands["operand imm16"] = self.rng.choice((0, 2, 4, 0x10, 0xFFFF))
        self.on_stack(words(target))

    def leave(self) -> None:
        """LEAVE: EBP points into the stack."""
        self.registers["ebp"] = (
            self.esp - 0x40 if self.chance(0.8) else self.esp + self.rng.getrandbits(2)
        ) & 0xFFFFFFFF
        self.on_stack(words(self.number()))
