"""The state of the paper's machine: S = <E, M, P, R>, the size of E, and the straps."""

from __future__ import annotations

from popek.kernel.outcome import MemoryFault, Vector
from popek.kernel.state import Group, Register, Role, State, bit, group, memory, register, word
from popek.kernel.words import Word, concat

SOURCE = "Popek and Goldberg 1974, section 2"
ADDRESS, WORD = 8, 32

MEMORY_TRAP = Vector("memory trap", 0)
PRIVILEGED_TRAP = Vector("privileged-instruction trap", 1)
SUPERVISOR_CALL = Vector("supervisor call", 2)

# Instructions that can be strapped to trap in user mode or to be silent.
STRAPPED = ("LPSW", "SREL", "GREL", "GMODE", "LRA", "DROP")


class Relocation(Group):
    """R = (l, b): a reference a goes to l + a, provided that a < b."""

    base = word(ADDRESS, role=Role.RESOURCE)
    bound = word(ADDRESS, role=Role.RESOURCE)


class Straps(Register):
    """Which instructions trap in user mode; soldered, no instruction changes it."""

    lpsw = bit(0)
    srel = bit(1)
    grel = bit(2)
    gmode = bit(3)
    lra = bit(4)
    drop = bit(5)


class Pg74(State):
    """S = <E, M, P, R>, the size of E, and the straps."""

    mode = word(1, role=Role.MODE)  # 0 supervisor, 1 user
    pc = word(ADDRESS, role=Role.PC)
    relocation = group(Relocation, resets={"base": 0, "bound": 0xFF})
    last = word(ADDRESS, role=Role.HIDDEN, reset=0xFF)  # the last location that exists: q - 1
    straps = register(Straps, len(STRAPPED), role=Role.HIDDEN, reset=0x3F)
    memory = memory(address=ADDRESS, cell=WORD)

    def real_address(self, reference: Word) -> Word:
        """Where a reference goes; the memory trap if it is out of bounds or off the end of E."""
        if reference >= self.relocation.bound:
            raise MemoryFault(MEMORY_TRAP)
        wide = self.relocation.base.zero_extend(ADDRESS + 1) + reference.zero_extend(ADDRESS + 1)
        if wide > self.last.zero_extend(ADDRESS + 1):
            raise MemoryFault(MEMORY_TRAP)
        return wide.truncate(ADDRESS)

    def reaches(self, address: Word) -> Word:
        """Whether a reference goes to this location (width 1)."""
        base = self.relocation.base
        return (address >= base) & (address - base < self.relocation.bound) & (address <= self.last)

    def load(self, reference: Word) -> Word:
        """E[l + a]."""
        return self.memory.load(self.real_address(reference))

    def store(self, reference: Word, value: Word) -> None:
        """E[l + a] := value."""
        self.memory = self.memory.store(self.real_address(reference), value)

    @property
    def psw(self) -> Word:
        """<M, P, R> in one word."""
        unused = Word(WORD - 1 - 3 * ADDRESS, 0)
        return concat(unused, self.mode, self.pc, self.relocation.base, self.relocation.bound)

    @property
    def next_instruction(self) -> Word:
        """The real location from which the next instruction comes."""
        return self.relocation.base + self.pc

    def load_psw(self, psw: Word) -> None:
        """<M, P, R> := psw."""
        self.mode, self.pc = psw[24], psw[23:16]
        self.relocation.base, self.relocation.bound = psw[15:8], psw[7:0]
