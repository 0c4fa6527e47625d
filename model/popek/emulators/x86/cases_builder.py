"""What draws a case in any mode: chances, and selectors of data and stack segments."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from popek.kernel.instruction import Instruction


class CaseBuilder:
    """Draws one case; a mode's own builder says what its descriptors are."""

    any_data_selector: ClassVar[float]
    """How often a selector for a data segment register is any at all."""

    def __init__(self, instruction: Instruction, cpl: int, rng: random.Random) -> None:
        self.instruction, self.cpl, self.rng = instruction, cpl, rng
        self.registers: dict[str, int] = {}
        self.memory: list[tuple[int, bytes]] = []
        self.operands: dict[str, int] = {}

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def level(self) -> int:
        """A privilege level, often the case's own."""
        return self.rng.choice((0, 1, 2, 3, self.cpl))

    def subset(self, bits: Sequence[int], probability: float) -> int:
        """The sum of some of these bits, each with this probability."""
        return sum(bit for bit in bits if self.chance(probability))

    def put(self, address: int, data: bytes) -> None:
        """Bytes that lie in memory before anything is loaded."""
        self.memory.append((address, data))

    # -- descriptors, as the mode has them --------------------------------------------------------

    def place(self, descriptor: bytes) -> int:
        """Put a descriptor in the GDT or the LDT; its selector, RPL 0."""
        raise NotImplementedError

    def default_selector(self, ring: int) -> int:
        """A selector of the segments that every case has."""
        raise NotImplementedError

    def unusual_selector(self, roll: float) -> int:
        """A selector of the TSS, at or beyond a limit, or of a new descriptor; RPL 0.  `roll` is 0.4 or more."""
        raise NotImplementedError

    def selector(self) -> int:
        """Any selector: null, of the default segments, of a new descriptor, at or beyond a limit."""
        rpl = self.rng.choice((0, 1, 2, 3, self.cpl))
        roll = self.rng.random()
        if roll < 0.12:
            return rpl
        if roll < 0.15:
            return 4 | rpl
        if roll < 0.4:
            return self.default_selector(self.level()) & ~3 | rpl
        return self.unusual_selector(roll) & ~3 | rpl

    def code(self, dpl: int, *, conforming: bool = False, present: bool = True) -> bytes:
        """A code segment."""
        raise NotImplementedError

    def data(self, dpl: int, *, present: bool = True, writable: bool = True) -> bytes:
        """A data segment."""
        raise NotImplementedError

    def gate_level(self) -> int:
        """The level of the code that a gate leads to, mostly one that accepts it."""
        target = self.rng.choice((0, 1, 1, 2, 3, self.cpl, self.cpl))
        if target > self.cpl and self.chance(0.8):
            target = self.rng.randrange(self.cpl + 1)
        return target

    def data_selector(self) -> int:
        """A selector for DS, ES, FS or GS that mostly loads."""
        if self.chance(self.any_data_selector):
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
