"""The KA10's state: one protection and one relocation register (manual, time sharing)."""

from __future__ import annotations

from popek.kernel.outcome import Fault, Vector
from popek.kernel.state import Register, Role, bit, bits, memory, register, word
from popek.kernel.words import Word, concat, ite

from .state import ADDRESS, WORD, Pdp10, is_accumulator

BLOCK = 8
WHOLE = 0xFF

PROTECTION = Vector("memory protection violation", 0)
NONEXISTENT = Vector("nonexistent memory", 0)


class ProcessorConditions(Register):
    """What CONO APR and CONI APR set and read, besides the flags (bits of the right half)."""

    channel = bits(2, 0)
    overflow_enabled = bit(3)
    floating_overflow_enabled = bit(4)
    clock = bit(5)
    clock_enabled = bit(6)
    nonexistent_memory = bit(7)
    memory_protection = bit(8)
    address_break = bit(9)


class Ka10(Pdp10):
    """The whole machine; its devices are one that stands for the device an instruction selects."""

    bound = word(BLOCK, role=Role.RESOURCE, reset=WHOLE)
    base = word(BLOCK, role=Role.RESOURCE)
    # What user mode will find: the protection and relocation registers.  Stale in user mode.
    user_bound = word(BLOCK, role=Role.RESOURCE)
    user_base = word(BLOCK, role=Role.RESOURCE)
    apr = register(ProcessorConditions, 10, role=Role.RESOURCE)
    pushdown_overflow = word(1)
    switches = word(WORD, role=Role.RESOURCE)  # the console's data switches
    device_data = word(WORD, role=Role.RESOURCE)
    device_conditions = word(WORD, role=Role.RESOURCE)
    last = word(BLOCK, role=Role.HIDDEN, reset=WHOLE)  # the last block of core that exists
    # What FDVL makes of three words: four flags, quotient and remainder.
    long_division = memory(address=3 * WORD, cell=4 + 2 * WORD, role=Role.HIDDEN)
    memory = memory(address=ADDRESS, cell=WORD)

    def _cell(self, reference: Word) -> Word:
        """Where a reference goes (manual, time sharing).

        Raises:
            Fault: protection violation, nonexistent memory; the processor reports these through the
                interrupt system, to the monitor.
        """
        block = reference[17:10]
        if block > self.bound:
            raise Fault(PROTECTION, memory=True)
        real = block + self.base
        if real > self.last:
            raise Fault(NONEXISTENT, memory=True)
        return concat(real, reference[9:0])

    def reaches(self, address: Word) -> Word:
        """Whether a reference goes to this location of core (width 1)."""
        real = address[17:10]
        return (real - self.base <= self.bound) & (real <= self.last)

    def load(self, reference: Word) -> Word:
        """Accumulator or core."""
        if is_accumulator(reference):
            return self.ac[reference[3:0]]
        return self.memory.load(self._cell(reference))

    def store(self, reference: Word, value: Word) -> None:
        """Accumulator or core := value."""
        if is_accumulator(reference):
            self.ac[reference[3:0]] = value
        else:
            self.memory = self.memory.store(self._cell(reference), value)

    def count_up(self, pointer: Word) -> tuple[Word, Word]:
        """One addition of 1,,1: a carry runs from the right half into the left."""
        wide = pointer.zero_extend(WORD + 1) + 0o1000001
        return wide[35:0], wide[36]

    def count_down(self, pointer: Word) -> tuple[Word, Word]:
        """One subtraction of 1,,1."""
        return pointer - 0o1000001, pointer < 0o1000001

    def stack_overflow(self, condition: Word) -> None:
        """A flag of the processor, which may interrupt."""
        self.pushdown_overflow = self.pushdown_overflow | condition

    def enter_user(self, condition: Word) -> None:
        """User := 1 and the user's relocation, if the condition holds."""
        now = condition & ~self.flags.user
        self.bound = ite(now, self.user_bound, self.bound)
        self.base = ite(now, self.user_base, self.base)
        self.flags.user = self.flags.user | condition
