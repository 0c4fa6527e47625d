"""PDP-10: shifts, bytes, block transfer, floating point.

Floating point: what an operation makes of its operands, words and flags, is a function that the state holds as a table,
`floating`, of which nothing is known but that it is the same whoever asks.  So no class hangs on what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from popek.kernel.machine import Machine
from popek.kernel.opaque import opaque
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from . import products
from .ka10_state import Ka10
from .state import WORD, Pdp10, halves, left, right

P = TypeVar("P", bound=Pdp10)

# Operations of either processor, in the order of their numbers in the table.
FLOATING: Final = (
    "FADR", "FSBR", "FMPR", "FDVR", "FAD", "FSB", "FMP", "FDV", "UFA", "FSC", "FIX", "FIXR", "FLTR",
    *(f"{name}L{word}" for name in ("FAD", "FSB", "FMP") for word in ("", ", low word")),
)  # fmt: skip


def add(machine: Machine[P], manual: str, *, least_by_one: bool) -> None:
    """Declare what both processors have; `manual` is the document it is described in (`products` has the rest)."""
    products.add(machine, manual, least_by_one=least_by_one)
    _shifts(machine, manual)
    _block_transfer(machine, manual)
    _bytes(machine, manual)
    _floating(machine, manual, FLOATING[:8])


def add_ka10(machine: Machine[Ka10], manual: str) -> None:
    """Declare what the KA10 alone has: unnormalized and long floating."""
    _unnormalized_and_long(machine, manual)


def _next(ac: Word) -> Word:
    return ac + 1


def _count(e: Word, width: int) -> tuple[Word, Word]:
    """How far E shifts, and whether to the right: bit 18 is the sign, bits 28 to 35 count."""
    to_right = e[17]
    back = (Word(8, 0) - e[7:0]).zero_extend(9)
    far = ite(back == 0, Word(9, 256), back)
    return ite(to_right, far, e[7:0].zero_extend(9)).zero_extend(width), to_right


def _shifts(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, shift and rotate"

    def pair(cpu: Pdp10, ac: Word) -> Word:
        return concat(cpu.ac[ac], cpu.ac[_next(ac)])

    def set_pair(cpu: Pdp10, ac: Word, value: Word) -> None:
        cpu.ac[ac] = value[71:36]
        cpu.ac[_next(ac)] = value[35:0]

    def logical(value: Word, e: Word) -> Word:
        by, to_right = _count(e, value.width)
        return ite(to_right, value >> by, value << by)

    def rotated(value: Word, e: Word) -> Word:
        by, to_right = _count(e, value.width)
        by = by % value.width
        other = ite(by == 0, by, value.width - by)
        turn = ite(to_right, other, by)
        return value << turn | ite(turn == 0, value, value >> (value.width - turn))

    def arithmetic(cpu: Pdp10, value: Word, e: Word) -> Word:
        """A sign and digits; to the left Overflow where a digit unlike the sign goes out."""
        width = value.width
        negative, room = value[width - 1], 2 * width
        by, to_right = _count(e, room)
        digits = value[width - 2 : 0].zero_extend(room)
        lost = ite(negative, ~digits & ((1 << width - 1) - 1), digits)
        # More than all digits is all digits.
        most = ite(by > width - 1, Word(room, width - 1), by)
        cpu.arithmetic_overflow(~to_right & ((lost << most)[room - 1 : width - 1] != 0))
        up = concat(negative, (digits << most)[width - 2 : 0])
        return ite(to_right, value.sign_extend(room).arithmetic_shift_right(by)[width - 1 : 0], up)

    @machine.instruction("LSH AC, E", source=source, turns=False)
    @machine.instruction("ROT AC, E", source=source, turns=True)
    def single(cpu: P, ac: Word, e: Word, turns: bool) -> None:
        """AC shifted, or rotated, by E places."""
        cpu.ac[ac] = rotated(cpu.ac[ac], e) if turns else logical(cpu.ac[ac], e)

    @machine.instruction("LSHC AC, E", source=source, turns=False)
    @machine.instruction("ROTC AC, E", source=source, turns=True)
    def combined(cpu: P, ac: Word, e: Word, turns: bool) -> None:
        """AC and the next shifted, or rotated, as one word."""
        set_pair(cpu, ac, rotated(pair(cpu, ac), e) if turns else logical(pair(cpu, ac), e))

    @machine.instruction("ASH AC, E", source=source)
    def ash(cpu: P, ac: Word, e: Word) -> None:
        """AC shifted as a signed number."""
        cpu.ac[ac] = arithmetic(cpu, cpu.ac[ac], e)

    @machine.instruction("ASHC AC, E", source=source)
    def ashc(cpu: P, ac: Word, e: Word) -> None:
        """AC and the digits of the next shifted as one signed number; the next takes AC's sign, too."""
        one, two = cpu.ac[ac], cpu.ac[_next(ac)]
        result = arithmetic(cpu, concat(one, two[34:0]), e)
        by, _ = _count(e, WORD)
        cpu.ac[ac] = result[70:35]
        cpu.ac[_next(ac)] = ite(by == 0, two, concat(result[70], result[34:0]))

    @machine.instruction("JFFO AC, E", source=f"{manual}, arithmetic testing")
    def jffo(cpu: P, ac: Word, e: Word) -> None:
        """The next AC := number of the first bit that is 1, and jump; 0 and no jump if there is none."""
        value = cpu.ac[ac]
        first = Word(WORD, 0)
        for number in range(WORD - 1, -1, -1):
            first = ite(value[WORD - 1 - number], Word(WORD, number), first)
        cpu.ac[_next(ac)] = first
        cpu.pc = ite(value == 0, cpu.pc, e)


def _block_transfer(machine: Machine[P], manual: str) -> None:
    @machine.instruction("BLT AC, E", source=f"{manual}, full word data transmission, BLT")
    def blt(cpu: P, ac: Word, e: Word) -> None:
        """One more word from where AC left points to where AC right points, until that is E.

        An interrupt may come after any word: then AC shows how far it is and the PC is the instruction's own.
        """
        pointers = cpu.ac[ac]
        source, place = left(pointers), right(pointers)
        word = cpu.load_stack(source)
        cpu.ac[ac] = halves(source + 1, place + 1)
        cpu.store(place, word)
        cpu.pc = ite(place >= e, cpu.pc, cpu.pc - 1)


def _mask(size: Word) -> Word:
    return ~(Word(WORD, (1 << WORD) - 1) << size.zero_extend(WORD))


@opaque(WORD, WORD, 12)
def byte_of(word: Word, where: Word) -> Word:
    """The byte of a word at a position and of a size, the first 12 bits of a pointer."""
    return word >> where[11:6].zero_extend(WORD) & _mask(where[5:0])


@opaque(WORD, WORD, WORD, 12)
def with_byte(word: Word, value: Word, where: Word) -> Word:
    """The word with the byte there replaced."""
    by, bits = where[11:6].zero_extend(WORD), _mask(where[5:0])
    return word & ~(bits << by) | (value & bits) << by


def _bytes(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, byte manipulation"

    def place(cpu: Pdp10, pointer: Word, chained: Word) -> Word:
        """Where the byte's word is: Y and index; of an indirect pointer the chain's end is an operand."""
        index = pointer[21:18]
        direct = right(pointer) + ite(index == 0, Word(18, 0), right(cpu.ac[index]))
        return ite(pointer[22], chained, direct)

    def counted(pointer: Word) -> Word:
        position, size = pointer[35:30], pointer[29:24]
        over = position < size
        moved = ite(over, Word(6, 36) - size, position - size)
        return concat(moved, pointer[29:18], right(pointer) + over.zero_extend(18))

    def take(cpu: Pdp10, ac: Word, pointer: Word, chained: Word) -> None:
        word = cpu.load(place(cpu, pointer, chained))
        cpu.ac[ac] = byte_of(word, pointer[35:24])

    def put(cpu: Pdp10, ac: Word, pointer: Word, chained: Word) -> None:
        where = place(cpu, pointer, chained)
        cpu.store(where, with_byte(cpu.load(where), cpu.ac[ac], pointer[35:24]))

    @machine.instruction("LDB AC, E, B", source=source)
    def ldb(cpu: P, ac: Word, e: Word, chained: Word) -> None:
        """AC := the byte that C(E) points to."""
        take(cpu, ac, cpu.load(e), chained)

    @machine.instruction("DPB AC, E, B", source=source)
    def dpb(cpu: P, ac: Word, e: Word, chained: Word) -> None:
        """The byte that C(E) points to := AC."""
        put(cpu, ac, cpu.load(e), chained)

    def stepped(cpu: Pdp10, e: Word) -> Word:
        """The pointer in C(E), counted on unless an interruption of the instruction came after that."""
        pointer = cpu.load(e)
        following = ite(cpu.flags.first_part_done, pointer, counted(pointer))
        cpu.store(e, following)
        return following

    def second(cpu: Pdp10, part: Callable[[], None]) -> None:
        """What comes after the pointer; where it is interrupted, First Part Done says so and the pointer stays."""
        try:
            part()
        except Fault as fault:
            cpu.flags.first_part_done = TRUE
            raise Fault(fault.vector, fault.error_code, memory=fault.memory, keeps=True) from fault
        cpu.flags.first_part_done = FALSE

    @machine.instruction("ILDB AC, E, B", source=source)
    def ildb(cpu: P, ac: Word, e: Word, chained: Word) -> None:
        """C(E) := pointer to the next byte; AC := that byte."""
        pointer = stepped(cpu, e)
        second(cpu, lambda: take(cpu, ac, pointer, chained))

    @machine.instruction("IDPB AC, E, B", source=source)
    def idpb(cpu: P, ac: Word, e: Word, chained: Word) -> None:
        """C(E) := pointer to the next byte; that byte := AC."""
        pointer = stepped(cpu, e)
        second(cpu, lambda: put(cpu, ac, pointer, chained))

    @machine.instruction("IBP E", source=source)
    def ibp(cpu: P, e: Word) -> None:
        """C(E) := pointer to the next byte."""
        cpu.store(e, counted(cpu.load(e)))


def function_of(cpu: Pdp10, name: str, a: Word, b: Word) -> Word:
    """What the operation makes of two words: four flags and a word, of which nothing is known."""
    return cpu.floating.load(concat(Word(5, FLOATING.index(name)), a, b))


def set_floating_flags(cpu: Pdp10, found: Word, divides: bool) -> None:
    """Overflow, Floating Overflow, Underflow, and of a division No Divide, as the operation says."""
    flags = cpu.flags
    cpu.arithmetic_overflow(found[39])
    flags.floating_overflow = flags.floating_overflow | found[38]
    flags.floating_underflow = flags.floating_underflow | found[37]
    if divides:
        flags.no_divide = flags.no_divide | found[36]


def _floating(machine: Machine[P], manual: str, names: tuple[str, ...]) -> None:
    source = f"{manual}, floating point arithmetic"

    def operate(cpu: P, ac: Word, e: Word, name: str, mode: str) -> None:
        """AC, or C(E), or both, := the operation's result; flags as it says.  The immediate operand is E,,0."""
        other = halves(e, Word(18, 0)) if mode == "I" else cpu.load(e)
        found = function_of(cpu, name, cpu.ac[ac], other)
        set_floating_flags(cpu, found, name.startswith("FDV"))
        if mode in ("M", "B"):
            cpu.store(e, found[35:0])
        if mode != "M":
            cpu.ac[ac] = found[35:0]

    for name in names:
        modes = ("", "I", "M", "B") if name.endswith("R") else ("", "M", "B")
        for mode in modes:
            machine.instruction(f"{name}{mode} AC, E", source=source, name=name, mode=mode)(operate)

    @machine.instruction("FSC AC, E", source=source)
    def fsc(cpu: P, ac: Word, e: Word) -> None:
        """AC := AC with E added to its exponent; flags as the operation says."""
        found = function_of(cpu, "FSC", cpu.ac[ac], e.zero_extend(WORD))
        set_floating_flags(cpu, found, False)
        cpu.ac[ac] = found[35:0]


def _unnormalized_and_long(machine: Machine[Ka10], manual: str) -> None:
    source = f"{manual}, floating point arithmetic"

    @machine.instruction("UFA AC, E", source=source)
    def ufa(cpu: Ka10, ac: Word, e: Word) -> None:
        """The next AC := the sum, not normalized; flags as the operation says."""
        found = function_of(cpu, "UFA", cpu.ac[ac], cpu.load(e))
        set_floating_flags(cpu, found, False)
        cpu.ac[_next(ac)] = found[35:0]

    @machine.instruction("FADL AC, E", source=source, name="FADL")
    @machine.instruction("FSBL AC, E", source=source, name="FSBL")
    @machine.instruction("FMPL AC, E", source=source, name="FMPL")
    def long(cpu: Ka10, ac: Word, e: Word, name: str) -> None:
        """AC and the next := the result in two words; flags as the operation says."""
        a, b = cpu.ac[ac], cpu.load(e)
        found, low = function_of(cpu, name, a, b), function_of(cpu, f"{name}, low word", a, b)
        set_floating_flags(cpu, found, False)
        cpu.ac[ac] = found[35:0]
        cpu.ac[_next(ac)] = low[35:0]

    @machine.instruction("FDVL AC, E", source=source)
    def fdvl(cpu: Ka10, ac: Word, e: Word) -> None:
        """AC and the next := quotient and remainder of the two by C(E); flags as the operation says."""
        found = cpu.long_division.load(concat(cpu.ac[ac], cpu.ac[_next(ac)], cpu.load(e)))
        set_floating_flags(cpu, found[75:36], True)
        cpu.ac[ac] = found[71:36]
        cpu.ac[_next(ac)] = found[35:0]

    @machine.instruction("DFN AC, E", source=source)
    def dfn(cpu: Ka10, ac: Word, e: Word) -> None:
        """AC and the fraction (27 bits) of C(E) := minus that number; the exponent in C(E) stays."""
        low = cpu.load(e)
        fraction = -low[26:0]
        high = ~cpu.ac[ac] + (fraction == 0).zero_extend(WORD)
        cpu.store(e, concat(low[35:27], fraction))
        cpu.ac[ac] = high
