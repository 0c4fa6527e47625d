"""State of the PDP-11/45: processor status, registers, memory management (KT11-C), core.

What the *current* mode uses and what the other modes will find are kept apart, as in a processor that
has fetched the current column of its register file: `sp`, `par` and `pdr` are in use, `saved_sp`,
`space_par` and `space_pdr` hold the rest, and the place of the current mode in these is stale.

Virtual addresses have 16 bits, physical ones 18.  Storage cells are words, so a cell has a 17-bit
address.  A page is 128 blocks of 32 words; a page address register counts blocks.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.outcome import Fault, Vector
from popek.kernel.state import Register, Role, State, bank, bit, bits, memory, register, word
from popek.kernel.words import Word, concat, ite

HANDBOOK: Final = "PDP-11/45 Processor Handbook (1972)"

KERNEL, SUPERVISOR, UNDEFINED_MODE, USER = 0, 1, 2, 3
CELL_ADDRESS, BLOCK, PAGE, MODE_AND_PAGE = 17, 12, 3, 5
IO_PAGE: Final = 0o7600  # the first block of the I/O page, physical 760000

BUS_ERROR = Vector("bus error", 0o4)
ILLEGAL_HALT = Vector("illegal HALT", 0o4)
RESERVED = Vector("reserved instruction", 0o10)
BPT_TRAP = Vector("BPT", 0o14)
TRACE_TRAP = Vector("trace", 0o14)
IOT_TRAP = Vector("IOT", 0o20)
EMT_TRAP = Vector("EMT", 0o30)
TRAP_TRAP = Vector("TRAP", 0o34)
SEGMENT_FAULT = Vector("memory management", 0o250, 16)  # for MMR2: where the instruction begins
FLOATING_TRAP = Vector("floating point", 0o244)

REGISTERS: Final = tuple(f"r{number_of_set}{number}" for number_of_set in range(2) for number in range(6))
PS_BITS: Final = 0o174377
"""The bits of PS that exist; 10 to 8 read as 0."""


FPS_BITS: Final = 0o147757
"""The bits of the floating point status that exist."""


class FloatingStatus(Register):
    """FPS (handbook, chapter 7, floating point status register)."""

    c = bit(0)
    v = bit(1)
    z = bit(2)
    n = bit(3)
    truncates = bit(5)
    long = bit(6)
    double = bit(7)
    conversion_enabled = bit(8)
    overflow_enabled = bit(9)
    underflow_enabled = bit(10)
    undefined_enabled = bit(11)
    disabled = bit(14)
    error = bit(15)


class ProcessorStatus(Register):
    """PS (handbook, chapter 2, processor status word)."""

    c = bit(0)
    v = bit(1)
    z = bit(2)
    n = bit(3)
    t = bit(4)
    priority = bits(7, 5, role=Role.RESOURCE)
    set = bit(11, role=Role.RESOURCE)
    previous = bits(13, 12, role=Role.RESOURCE)
    current = bits(15, 14, role=Role.MODE)


class Pdp11(State):
    """The whole machine but for its devices."""

    begun: Word  # where the instruction that runs begins, in a working copy

    ps = register(ProcessorStatus, 16)
    pc = word(16, role=Role.PC)
    sp = word(16)
    r = bank(REGISTERS, 16)  # two sets of R0 to R5
    saved_sp = bank(("ksp", "ssp", "usp"), 16, role=Role.RESOURCE)
    mme = word(1, role=Role.RESOURCE)  # MMR0 bit 0: relocation is on
    mmr2 = word(16, role=Role.RESOURCE)  # where the instruction begins that memory management has aborted
    pirq = word(7, role=Role.RESOURCE)  # program interrupt requests 7 to 1
    running = word(1, role=Role.RESOURCE, reset=1)  # 0: halted
    waiting = word(1, role=Role.RESOURCE)  # 1: WAIT, until an interrupt
    last = word(BLOCK, role=Role.HIDDEN, reset=IO_PAGE - 1)  # the last block of core that exists
    par = memory(address=PAGE, cell=BLOCK, role=Role.RESOURCE)
    pdr = memory(address=PAGE, cell=16, role=Role.RESOURCE)  # register images; A and W are left out
    space_par = memory(address=MODE_AND_PAGE, cell=BLOCK, role=Role.RESOURCE)
    space_pdr = memory(address=MODE_AND_PAGE, cell=16, role=Role.RESOURCE)
    fps = register(FloatingStatus, 16)
    fac = bank(tuple(f"fac{number}" for number in range(6)), 64)
    fec = word(4)  # code of the last floating point exception
    fea = word(16)  # and where its instruction is
    # What floating point makes of operation (3 bits), precision, accumulator and operand: exception code, condition
    # codes, result.  Any function.
    floating = memory(address=4 + 128, cell=72, role=Role.HIDDEN)
    memory = memory(address=CELL_ADDRESS, cell=16)

    # -- registers ----------------------------------------------------------------------------

    def _place(self, number: Word) -> Word:
        wide = number.zero_extend(4)
        return ite(self.ps.set, wide + 6, wide)

    def register(self, number: Word) -> Word:
        """R0 to R5 of the current set; `number` has 3 bits and is below 6."""
        return self.r[self._place(number)]

    def set_register(self, number: Word, value: Word) -> None:
        """R0 to R5 of the current set := value."""
        self.r[self._place(number)] = value

    # -- storage ------------------------------------------------------------------------------

    def load(self, address: Word) -> Word:
        """The word at a virtual address of the current mode."""
        page = address[15:13]
        return self.memory.load(self._cell(address, self.par.load(page), self.pdr.load(page), write=False))

    def store(self, address: Word, value: Word) -> None:
        """The word at a virtual address of the current mode := value."""
        page = address[15:13]
        cell = self._cell(address, self.par.load(page), self.pdr.load(page), write=True)
        self.memory = self.memory.store(cell, value)

    def load_sized(self, address: Word, *, byte: bool, write: bool) -> Word:
        """The word or byte at a virtual address of the current mode; `write`: it will be stored into."""
        content = self.memory.load(self._located(address, byte=byte, write=write))
        return ite(address[0], content[15:8], content[7:0]) if byte else content

    def store_sized(self, address: Word, value: Word) -> None:
        """The word or byte, as wide as the value, at a virtual address of the current mode := value."""
        cell = self._located(address, byte=value.width == 8, write=True)
        if value.width == 8:
            old = self.memory.load(cell)
            value = ite(address[0], old.replace(15, 8, value), old.replace(7, 0, value))
        self.memory = self.memory.store(cell, value)

    def _located(self, address: Word, *, byte: bool, write: bool) -> Word:
        page = address[15:13]
        even = address.replace(0, 0, 0) if byte else address
        return self._cell(even, self.par.load(page), self.pdr.load(page), write=write)

    def load_previous(self, address: Word) -> Word:
        """The word at a virtual address of the previous mode."""
        return self.memory.load(self._cell(address, *self._previous(address), write=False))

    def store_previous(self, address: Word, value: Word) -> None:
        """The word at a virtual address of the previous mode := value."""
        cell = self._cell(address, *self._previous(address), write=True)
        self.memory = self.memory.store(cell, value)

    def load_kernel(self, address: Word) -> Word:
        """The word at a virtual address of kernel mode, whatever the current mode: trap vectors."""
        place = concat(Word(2, KERNEL), address[15:13])
        kernel, page = self.ps.current == KERNEL, address[15:13]
        par = ite(kernel, self.par.load(page), self.space_par.load(place))
        pdr = ite(kernel, self.pdr.load(page), self.space_pdr.load(place))
        return self.memory.load(self._cell(address, par, pdr, write=False))

    def _previous(self, address: Word) -> tuple[Word, Word]:
        page, same = address[15:13], self.ps.previous == self.ps.current
        place = concat(self.ps.previous, page)
        return (
            ite(same, self.par.load(page), self.space_par.load(place)),
            ite(same, self.pdr.load(page), self.space_pdr.load(place)),
        )

    def _cell(self, address: Word, par: Word, pdr: Word, *, write: bool) -> Word:
        """Where a reference goes (handbook, chapter 6, "Memory Management").

        What the instruction did before the reference stands, as the processor leaves it.

        Raises:
            Fault: bus error on an odd address, on core that does not exist and, because devices are
                left out, on the I/O page; memory management on access control or length.
        """
        if address[0]:
            raise Fault(BUS_ERROR, memory=True, keeps=True)
        number, control = address[12:6], pdr[2:0]
        length = pdr[14:8]
        outside = ite(pdr[3], number < length, number > length)
        permitted = control.isin((4, 5, 6)) if write else control.isin((1, 2, 4, 5, 6))
        if self.mme & (outside | ~permitted):
            raise Fault(SEGMENT_FAULT, self.begun, memory=True, keeps=True)
        relocated = par + number.zero_extend(BLOCK)
        # Without relocation the highest page of the 64 KB is the I/O page.
        top = Word(2, 3)
        direct = concat(ite(address[15:13] == 7, top, Word(2, 0)), address[15:6])
        block = ite(self.mme, relocated, direct)
        if (block > self.last) | (block >= IO_PAGE):
            raise Fault(BUS_ERROR, memory=True, keeps=True)
        return concat(block, address[5:1])

    # -- the stack and the modes --------------------------------------------------------------

    def push(self, value: Word) -> None:
        """-(SP) := value."""
        self.sp = self.sp - 2
        self.store(self.sp, value)

    def pop(self) -> Word:
        """(SP)+."""
        value = self.load(self.sp)
        self.sp = self.sp + 2
        return value

    def enter(self, mode: Word) -> None:
        """Current mode := mode (2 bits); stack pointer and map change with it."""
        old = self.ps.current
        self.saved_sp[_column(old)] = self.sp
        self.sp = self.saved_sp[_column(mode)]
        for page in range(1 << PAGE):
            number = Word(PAGE, page)
            self.space_par = self.space_par.store(concat(old, number), self.par.load(number))
            self.space_pdr = self.space_pdr.store(concat(old, number), self.pdr.load(number))
        for page in range(1 << PAGE):
            number = Word(PAGE, page)
            self.par = self.par.store(number, self.space_par.load(concat(mode, number)))
            self.pdr = self.pdr.store(number, self.space_pdr.load(concat(mode, number)))
        self.ps.current = mode

    @property
    def previous_sp(self) -> Word:
        """R6 of the previous mode."""
        return ite(self.ps.previous == self.ps.current, self.sp, self.saved_sp[_column(self.ps.previous)])

    @previous_sp.setter
    def previous_sp(self, value: Word) -> None:
        same = self.ps.previous == self.ps.current
        old = self.saved_sp[_column(self.ps.previous)]
        self.saved_sp[_column(self.ps.previous)] = ite(same, old, value)
        self.sp = ite(same, value, self.sp)

    def set_nz(self, result: Word) -> None:
        """N and Z as the result says."""
        self.ps.n, self.ps.z = result[result.width - 1], result == 0


def shifted(cell: Word, blocks: Word) -> Word:
    """The address of a cell `blocks` further on in core."""
    return concat(cell[16:5] + blocks, cell[4:0])


def _column(mode: Word) -> Word:
    """Where a mode's stack pointer is: user, number 3, takes the third place."""
    return ite(mode == USER, Word(2, 2), mode)
