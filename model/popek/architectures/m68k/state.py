"""State of the Motorola 68000 and 68010: status register, registers, and an assumed unit that relocates references.

What the current state of the processor uses and what the other one will find are kept apart: `sp`, `base` and
`bound` are in use, `other_sp`, `other_base` and `other_bound` belong to the state (user or supervisor) that is not
current, and a change of S exchanges them.

Addresses have 32 bits, of which 24 leave the chip.  Storage cells are the bus's words of 16 bits, big-endian, so a
cell has a 23-bit address.  Neither processor has memory management on the chip; the function codes tell a unit
outside who makes a reference.  The unit that is assumed here has a base and a bound in blocks of 512 bytes for user
references and another pair for supervisor references, and answers what is outside with a bus error.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.outcome import Fault, Vector
from popek.kernel.state import Register, Role, State, bank, bit, bits, memory, register, word
from popek.kernel.words import Word, concat, ite

MANUAL: Final = "M68000 8-/16-/32-bit Microprocessors User's Manual"
REFERENCE: Final = "M68000 Family Programmer's Reference Manual"

M68000, M68010 = 0, 1
CELL_ADDRESS, BLOCK, SIZES = 23, 15, {"B": 8, "W": 16, "L": 32}
SR_BITS: Final = 0xA71F
"""The bits of SR that exist: T, S, I2 to I0, X, N, Z, V, C; the others read as 0."""

BUS_ERROR = Vector("bus error", 2, 32)  # for the frame: the address of the reference
ADDRESS_ERROR = Vector("address error", 3, 32)
ILLEGAL = Vector("illegal instruction", 4)
ZERO_DIVIDE = Vector("zero divide", 5)
CHECK = Vector("CHK", 6)
OVERFLOW = Vector("TRAPV", 7)
PRIVILEGE = Vector("privilege violation", 8)
LINE_A, LINE_F = Vector("line 1010", 10), Vector("line 1111", 11)
FORMAT_ERROR = Vector("format error", 14)
TRAPS: Final = tuple(Vector(f"TRAP #{number}", 32 + number) for number in range(16))


Relocation = tuple[Word, Word]
"""Base and bound, in blocks."""


class StatusRegister(Register):
    """SR (User's Manual, section 2, programming model)."""

    c = bit(0)
    v = bit(1)
    z = bit(2)
    n = bit(3)
    x = bit(4)
    i = bits(10, 8, role=Role.RESOURCE)
    s = bit(13, role=Role.MODE)
    t = bit(15, role=Role.RESOURCE)


class M68k(State):
    """The processor, the unit before its storage, and the storage."""

    m68010 = word(1, role=Role.HIDDEN)  # 0: a 68000, 1: a 68010
    sr = register(StatusRegister, 16)
    pc = word(32, role=Role.PC)
    d = bank(tuple(f"d{number}" for number in range(8)), 32)
    a = bank(tuple(f"a{number}" for number in range(7)), 32)
    sp = word(32)  # A7 of the current state
    other_sp = word(32, role=Role.RESOURCE)  # A7 of the other: USP in supervisor state
    vbr = word(32, role=Role.RESOURCE)  # 68010
    sfc = word(3, role=Role.RESOURCE)  # 68010
    dfc = word(3, role=Role.RESOURCE)  # 68010
    running = word(1, role=Role.RESOURCE, reset=1)  # 0: stopped, until an interrupt
    base = word(BLOCK, role=Role.RESOURCE)
    bound = word(BLOCK + 1, role=Role.RESOURCE, reset=1 << BLOCK)
    other_base = word(BLOCK, role=Role.RESOURCE)
    other_bound = word(BLOCK + 1, role=Role.RESOURCE, reset=1 << BLOCK)
    ahead = word(
        3, role=Role.HIDDEN, reset=1
    )  # words the PC has run ahead when a bus or address error is taken
    last = word(BLOCK, role=Role.HIDDEN, reset=(1 << BLOCK) - 1)  # the last block of storage that exists
    memory = memory(address=CELL_ADDRESS, cell=16)

    # -- registers ----------------------------------------------------------------------------

    def address_register(self, number: Word) -> Word:
        """A0 to A7; `number` has 3 bits."""
        return ite(number == 7, self.sp, self.a[_below_7(number)])

    def set_address_register(self, number: Word, value: Word) -> None:
        """A0 to A7 := value (32 bits)."""
        place = _below_7(number)
        self.a[place] = ite(number == 7, self.a[place], value)
        self.sp = ite(number == 7, value, self.sp)

    def set_data_register(self, number: Word, value: Word) -> None:
        """The low byte, word or all of a data register := value, as wide as that is."""
        width = value.width
        self.d[number] = value if width == 32 else self.d[number].replace(width - 1, 0, value)

    def set_nz(self, result: Word) -> None:
        """N and Z as the result says."""
        self.sr.n, self.sr.z = result[result.width - 1], result == 0

    # -- storage ------------------------------------------------------------------------------

    def load(self, address: Word, width: int, under: Relocation | None = None) -> Word:
        """The byte, word or longword at an address (32 bits), by the relocation in use or another one."""
        if width == 8:
            cell = self.memory.load(self._cell(address, under))
            return ite(address[0], cell[7:0], cell[15:8])
        _even(address)
        high = self.memory.load(self._cell(address, under))
        if width == 16:
            return high
        return concat(high, self.memory.load(self._cell(address + 2, under)))

    def store(self, address: Word, value: Word, under: Relocation | None = None) -> None:
        """The byte, word or longword at an address := value."""
        if value.width == 8:
            cell = self._cell(address, under)
            old = self.memory.load(cell)
            new = ite(address[0], old.replace(7, 0, value), old.replace(15, 8, value))
            self.memory = self.memory.store(cell, new)
            return
        _even(address)
        first = self._cell(address, under)
        if value.width == 32:  # both words are in reach before one is stored
            second = self._cell(address + 2, under)
            self.memory = self.memory.store(first, value[31:16]).store(second, value[15:0])
        else:
            self.memory = self.memory.store(first, value)

    def _cell(self, address: Word, under: Relocation | None) -> Word:
        """Where a reference goes.

        Raises:
            Fault: bus error beyond the bound or beyond the storage that exists; what the instruction did before stands.
        """
        if ~self._within(address, under):
            raise Fault(BUS_ERROR, address, memory=True, keeps=True)
        return self._place(address, under)

    def _place(self, address: Word, under: Relocation | None = None) -> Word:
        base, _ = under or (self.base, self.bound)
        return concat(base + address[23:9], address[8:1])

    def _within(self, address: Word, under: Relocation | None = None) -> Word:
        """The unit lets a reference pass (width 1)."""
        base, bound = under or (self.base, self.bound)
        block = address[23:9]
        real = base + block
        return (block.zero_extend(BLOCK + 1) < bound) & (real >= base) & (real <= self.last)

    def has_room(self, frame: int) -> Word:
        """The stack can take a frame of so many bytes, at most a block (width 1)."""
        return ~self.sp[0] & self._within(self.sp - frame) & self._within(self.sp - 2)

    def has_vector(self, address: Word) -> Word:
        """The longword at an address can be read (width 1)."""
        return ~address[0] & self._within(address) & self._within(address + 2)

    def put(self, address: Word, value: Word) -> None:
        """The words of a longword, or the word, := value, where it is known that they are in reach."""
        for offset in range(0, value.width // 8, 2):
            high = value.width - 1 - 8 * offset
            self.memory = self.memory.store(self._place(address + offset), value[high : high - 15])

    # -- the two states -----------------------------------------------------------------------

    def exchange(self) -> None:
        """The stack pointer and the relocation of the other state come into use."""
        self.sp, self.other_sp = self.other_sp, self.sp
        self.base, self.other_base = self.other_base, self.base
        self.bound, self.other_bound = self.other_bound, self.bound

    def set_status(self, value: Word) -> None:
        """SR := value (16 bits), with what a change of S brings."""
        new = value & SR_BITS
        if new[13] != self.sr.s:
            self.exchange()
        self.sr.value = new

    def relocation(self, code: Word) -> Relocation:
        """What relocates references under a function code (3 bits); in supervisor state.

        1 and 2 are user data and program, 5 and 6 the supervisor's; under the others nothing is in reach.
        """
        supervisor, user = code.isin((5, 6)), code.isin((1, 2))
        nothing = Word(BLOCK + 1, 0)
        return (
            ite(supervisor, self.base, self.other_base),
            ite(supervisor, self.bound, ite(user, self.other_bound, nothing)),
        )

    def push(self, value: Word) -> None:
        """-(A7) := value, a word or a longword."""
        self.sp = self.sp - value.width // 8
        self.store(self.sp, value)

    def pop(self, width: int) -> Word:
        """(A7)+."""
        value = self.load(self.sp, width)
        self.sp = self.sp + width // 8
        return value


def _below_7(number: Word) -> Word:
    """A register's place among A0 to A6; A7, which has none there, is given A0's."""
    return ite(number == 7, Word(3, 0), number)


def _even(address: Word) -> None:
    if address[0]:
        raise Fault(ADDRESS_ERROR, address, memory=True, keeps=True)


def shifted(cell: Word, blocks: Word) -> Word:
    """The address of a cell `blocks` further on in storage."""
    return concat(cell[22:8] + blocks, cell[7:0])


def is_68010(cpu: M68k) -> Word:
    """Whether the processor is the 68010 (width 1)."""
    return cpu.m68010 == M68010


def supervisor_only(cpu: M68k) -> None:
    """Privilege violation in user state."""
    if cpu.sr.s == 0:
        raise Fault(PRIVILEGE)


def only_on_68010(cpu: M68k) -> None:
    """An illegal instruction on a 68000, in both states."""
    if cpu.m68010 == M68000:
        raise Fault(ILLEGAL)
