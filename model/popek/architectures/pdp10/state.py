"""What the PDP-10 processors have in common: flags, accumulators, priority interrupt system.

Words have 36 bits.  DEC numbers bits from the left: bit n of the manuals is bit 35 - n here.  A PC word is
the flags in bits 0 to 12 and the PC in bits 18 to 35.

The manuals are cited by document and heading.

`executing` and `ir` stand for the instruction register while XCT or a local UUO has put an instruction
there: that instruction is the next step, and it is what its own form says.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.outcome import Vector
from popek.kernel.state import Register, Role, State, bank, bit, memory, register, word
from popek.kernel.words import Word, concat, ite

MANUAL_KA: Final = "PDP-10 System Reference Manual (DEC-10-HGAA-D, 1968)"
MANUAL_KS: Final = "DECsystem-10/DECSYSTEM-20 Processor Reference Manual (1982)"

WORD, ADDRESS, FLAGS = 36, 18, 13
FAST_MEMORY: Final = 0o20  # addresses below are accumulators

# A monitor call, and whatever is illegal in user mode; the code is the word stored for the monitor.
MUUO = Vector("MUUO", 0o40, WORD)


class Flags(Register):
    """The PC flags, bits 0 to 12 of a PC word."""

    overflow = bit(12)
    carry_0 = bit(11)
    carry_1 = bit(10)
    floating_overflow = bit(9)
    first_part_done = bit(8)
    user = bit(7, role=Role.MODE)
    user_io = bit(6, role=Role.RESOURCE)  # user in-out; on the KS10 in executive mode: previous context user
    public = bit(5)
    address_failure_inhibit = bit(4)
    trap_2 = bit(3)
    trap_1 = bit(2)
    floating_underflow = bit(1)
    no_divide = bit(0)


class Pdp10(State):
    """Accumulators, flags, PC and interrupt system; a processor adds its storage.

    The methods that raise NotImplementedError differ between processors.
    """

    flags = register(Flags, FLAGS)
    pc = word(ADDRESS, role=Role.PC)
    ac = bank(tuple(f"ac{number:o}" for number in range(16)), WORD)
    executing = word(1)
    ir = word(WORD)
    pi_on = word(1, role=Role.RESOURCE)
    pi_enabled = word(7, role=Role.RESOURCE)  # channel 1 is the high bit
    pi_active = word(7, role=Role.RESOURCE)
    pi_requests = word(7, role=Role.RESOURCE)
    running = word(1, role=Role.RESOURCE, reset=1)  # 0: halted
    # What floating point makes of an operation (5 bits) and two words: four flags and a word.  Any function.
    floating = memory(address=5 + 2 * WORD, cell=4 + WORD, role=Role.HIDDEN)

    def load(self, reference: Word) -> Word:
        """The word at an 18-bit address of the program."""
        raise NotImplementedError

    def store(self, reference: Word, value: Word) -> None:
        """The word at an 18-bit address of the program := value."""
        raise NotImplementedError

    def load_stack(self, reference: Word) -> Word:
        """As `load`, for a reference through a stack pointer."""
        return self.load(reference)

    def store_stack(self, reference: Word, value: Word) -> None:
        """As `store`, for a reference through a stack pointer."""
        self.store(reference, value)

    def count_up(self, pointer: Word) -> tuple[Word, Word]:
        """A pointer with one added to both halves, and whether its count ran out (width 1)."""
        raise NotImplementedError

    def count_down(self, pointer: Word) -> tuple[Word, Word]:
        """A pointer with one subtracted from both halves, and whether its count ran out (width 1)."""
        raise NotImplementedError

    def stack_overflow(self, condition: Word) -> None:
        """Note that a push or a pop ran out of its stack, if it did."""
        raise NotImplementedError

    def arithmetic_overflow(self, condition: Word) -> None:
        """Set Overflow, if it was one."""
        self.flags.overflow = self.flags.overflow | condition

    def enter_user(self, condition: Word) -> None:
        """User mode := 1, if the condition holds; addresses are the user's from now on."""
        raise NotImplementedError

    @property
    def pc_word(self) -> Word:
        """Flags and PC in one word."""
        return concat(self.flags.value, Word(5, 0), self.pc)

    @property
    def restricted(self) -> Word:
        """User mode without User In-out: input and output and a few jumps are illegal (width 1)."""
        return self.flags.user & ~self.flags.user_io

    def dismiss(self) -> None:
        """The highest active channel is active no more."""
        active = self.pi_active
        result = active
        for channel in range(7):  # from the lowest priority up: the last one to match decides
            result = ite(active[channel], active.replace(channel, channel, 0), result)
        self.pi_active = result


def shifted(address: Word, blocks: Word) -> Word:
    """The address of a cell `blocks` further on in core; the width of `blocks` says how large they are."""
    top, low = address.width - 1, address.width - blocks.width
    return concat(address[top:low] + blocks, address[low - 1 : 0])


def is_accumulator(reference: Word) -> Word:
    """Whether an address is one of 0 to 17 (width 1)."""
    return reference < FAST_MEMORY


def left(value: Word) -> Word:
    """Bits 0 to 17."""
    return value[35:18]


def right(value: Word) -> Word:
    """Bits 18 to 35."""
    return value[17:0]


def halves(upper: Word, lower: Word) -> Word:
    """upper,,lower."""
    return concat(upper, lower)


def instruction_word(code: Word, effective: Word) -> Word:
    """Opcode and AC (13 bits), no index, no indirection, and the effective address."""
    return concat(code, Word(5, 0), effective)
