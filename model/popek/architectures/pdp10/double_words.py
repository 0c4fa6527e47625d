"""KS10: two words at a time, conversions, and pointers moved by more than one.

A double word is AC and the next, or C(E) and C(E + 1): 71 bits, of which the second word's first is not one.  Of
products and quotients a solver is told at first that they are equal where their operands are (`kernel.opaque`).
"""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.opaque import opaque
from popek.kernel.words import FALSE, Word, concat, ite

from .arithmetic import function_of, set_floating_flags
from .ks10_state import Ks10
from .state import MANUAL_KS, WORD, halves, left, right

Pair = tuple[Word, Word]

DOUBLE: Final = ("DFAD", "DFSB", "DFMP", "DFDV")  # in the order of their numbers in the table


def add(machine: Machine[Ks10]) -> None:
    """Declare them."""
    _moves(machine)
    _sums(machine)
    _products(machine)
    _floating(machine)
    _pointers(machine)


def _accumulators(cpu: Ks10, ac: Word) -> Pair:
    return cpu.ac[ac], cpu.ac[ac + 1]


def _set_accumulators(cpu: Ks10, ac: Word, pair: Pair) -> None:
    cpu.ac[ac], cpu.ac[ac + 1] = pair


def _load(cpu: Ks10, e: Word) -> Pair:
    return cpu.load(e), cpu.load(e + 1)


def _store(cpu: Ks10, e: Word, pair: Pair) -> None:
    cpu.store(e, pair[0])
    cpu.store(e + 1, pair[1])


def _sum(cpu: Ks10, a: Pair, b: Pair, carry: int = 0) -> Pair:
    """a + b + carry, with the flags Carry 0, Carry 1, Overflow; both words with the sign."""
    low = a[1][34:0].zero_extend(36) + b[1][34:0].zero_extend(36) + carry
    up = low[35].zero_extend(37)
    wide = a[0].zero_extend(37) + b[0].zero_extend(37) + up
    digits = a[0][34:0].zero_extend(37) + b[0][34:0].zero_extend(37) + up
    cpu.flags.carry_0 = cpu.flags.carry_0 | wide[36]
    cpu.flags.carry_1 = cpu.flags.carry_1 | digits[35]
    cpu.arithmetic_overflow(wide[36] ^ digits[35])
    return wide[35:0], concat(wide[35], low[34:0])


def _moves(machine: Machine[Ks10]) -> None:
    source = f"{MANUAL_KS}, double moves"

    def negative(cpu: Ks10, pair: Pair) -> Pair:
        high, low = _sum(cpu, (Word(WORD, 0), Word(WORD, 0)), (~pair[0], ~pair[1]), 1)
        return high, concat(FALSE, low[34:0])

    @machine.instruction("DMOVE AC, E", source=source, minus=False)
    @machine.instruction("DMOVN AC, E", source=source, minus=True)
    def to_accumulators(cpu: Ks10, ac: Word, e: Word, minus: bool) -> None:
        """AC and the next := the double word at E, or minus it."""
        pair = _load(cpu, e)
        _set_accumulators(cpu, ac, negative(cpu, pair) if minus else pair)

    @machine.instruction("DMOVEM AC, E", source=source, minus=False)
    @machine.instruction("DMOVNM AC, E", source=source, minus=True)
    def to_storage(cpu: Ks10, ac: Word, e: Word, minus: bool) -> None:
        """The double word at E := AC and the next, or minus that."""
        pair = _accumulators(cpu, ac)
        _store(cpu, e, negative(cpu, pair) if minus else pair)


def _sums(machine: Machine[Ks10]) -> None:
    @machine.instruction("DADD AC, E", source=f"{MANUAL_KS}, double integer arithmetic", minus=False)
    @machine.instruction("DSUB AC, E", source=f"{MANUAL_KS}, double integer arithmetic", minus=True)
    def combine(cpu: Ks10, ac: Word, e: Word, minus: bool) -> None:
        """AC and the next := their sum with the double word at E, or their difference."""
        mine, other = _accumulators(cpu, ac), _load(cpu, e)
        result = _sum(cpu, mine, (~other[0], ~other[1]), 1) if minus else _sum(cpu, mine, other)
        _set_accumulators(cpu, ac, result)


WIDE: Final = 142  # bits of a product of two double words, or of a dividend, with two signs
LEAST: Final = 1 << 70  # the least negative double word


def _number(*words: Word) -> Word:
    """Words as one number: the sign, and 35 bits of each."""
    return concat(words[0], *(word[34:0] for word in words[1:]))


def _words(number: Word, count: int) -> tuple[Word, ...]:
    """The same backwards; each word but the first repeats its sign."""
    low = 35 * count
    sign = number[low]
    first = number[low : low - 35]
    return first, *(concat(sign, number[low - 35 * n - 1 : low - 35 * n - 35]) for n in range(1, count))


@opaque(4 * WORD, *4 * (WORD,))
def product(a: Word, b: Word, c: Word, d: Word) -> Word:
    """Four words: a, b times c, d."""
    wide = _number(a, b).sign_extend(WIDE) * _number(c, d).sign_extend(WIDE)
    return concat(*_words(wide, 4))


@opaque(4 * WORD + 1, *6 * (WORD,))
def division(a: Word, b: Word, c: Word, d: Word, e: Word, f: Word) -> Word:
    """Whether there is no quotient (width 1), quotient and remainder: a, b, c, d by e, f."""
    dividend, divisor = _number(a, b, c, d).sign_extend(WIDE), _number(e, f).sign_extend(WIDE)
    above = ite(a[35], -dividend, dividend)
    below = ite(e[35], -divisor, divisor)
    none = above >= below << 70
    quotient, rest = above // below, above % below
    turned = a[35] ^ e[35]
    quotient, rest = ite(turned, -quotient, quotient), ite(a[35], -rest, rest)
    return concat(none, *_words(quotient, 2), *_words(rest, 2))


def _products(machine: Machine[Ks10]) -> None:
    source = f"{MANUAL_KS}, double integer arithmetic"

    @machine.instruction("DMUL AC, E", source=source)
    def multiply(cpu: Ks10, ac: Word, e: Word) -> None:
        """AC and the next three := AC and the next times the double word at E."""
        mine, other = _accumulators(cpu, ac), _load(cpu, e)
        cpu.arithmetic_overflow((_number(*mine) == LEAST) & (_number(*other) == LEAST))
        _set_four(cpu, ac, product(*mine, *other))

    @machine.instruction("DDIV AC, E", source=source)
    def divide(cpu: Ks10, ac: Word, e: Word) -> None:
        """Quotient and remainder of AC and the next three by the double word at E; No Divide where it does not fit."""
        four = [cpu.ac[ac + n] for n in range(4)]
        found = division(*four, *_load(cpu, e))
        none = found[4 * WORD]
        cpu.flags.no_divide = cpu.flags.no_divide | none
        cpu.arithmetic_overflow(none)
        _set_four(cpu, ac, ite(none, concat(*four), found[4 * WORD - 1 : 0]))


def _set_four(cpu: Ks10, ac: Word, words: Word) -> None:
    for n in range(4):
        cpu.ac[ac + n] = words[WORD * (4 - n) - 1 : WORD * (3 - n)]


def _floating(machine: Machine[Ks10]) -> None:
    def operate(cpu: Ks10, ac: Word, e: Word, number: int) -> None:
        """AC and the next := what the operation makes of them and of the double word at E; flags as it says."""
        one, two = _accumulators(cpu, ac), _load(cpu, e)
        found = cpu.double_floating.load(concat(Word(2, number), *one, *two))
        set_floating_flags(cpu, found[75:36], number == DOUBLE.index("DFDV"))
        _set_accumulators(cpu, ac, (found[71:36], found[35:0]))

    for number, name in enumerate(DOUBLE):
        machine.instruction(f"{name} AC, E", source=f"{MANUAL_KS}, double floating point", number=number)(
            operate
        )

    @machine.instruction("FIX AC, E", source=f"{MANUAL_KS}, floating point conversion", name="FIX")
    @machine.instruction("FIXR AC, E", source=f"{MANUAL_KS}, floating point conversion", name="FIXR")
    @machine.instruction("FLTR AC, E", source=f"{MANUAL_KS}, floating point conversion", name="FLTR")
    def convert(cpu: Ks10, ac: Word, e: Word, name: str) -> None:
        """AC := C(E) as an integer, or as a floating point number; Overflow where it does not fit."""
        found = function_of(cpu, name, cpu.ac[ac], cpu.load(e))
        if name != "FLTR":
            cpu.arithmetic_overflow(found[39])
        cpu.ac[ac] = found[35:0]


@opaque(WORD + 1, WORD, WORD)
def adjusted(count: Word, pointer: Word) -> Word:
    """Whether no byte fits into a word (width 1), and the pointer so many bytes further on, or back."""
    position, size = pointer[35:30].zero_extend(WORD + 2), pointer[29:24].zero_extend(WORD + 2)
    beyond = position > WORD  # no position in a word: division is towards zero then
    before = ite(beyond, position - WORD, WORD - position)
    earlier, aligned = (
        before // size,
        before % size,
    )  # bytes before the pointer's, and bits before all of them
    earlier, aligned = ite(beyond, -earlier, earlier), ite(beyond, -aligned, aligned)
    in_word = earlier + position // size
    far = count.sign_extend(WORD + 2) + earlier - 1
    words = ite(far[WORD + 1], ~(~far // in_word), far // in_word)  # downwards
    byte = far - words * in_word + 1
    moved = WORD - byte * size - aligned
    result = concat(moved[5:0], pointer[29:18], right(pointer) + words[17:0])
    sized = size != 0
    return concat(sized & (in_word == 0), ite(sized, result, pointer))


def _pointers(machine: Machine[Ks10]) -> None:
    @machine.instruction("ADJBP A, E", source=f"{MANUAL_KS}, byte manipulation")
    def adjust_bytes(cpu: Ks10, ac: Word, e: Word) -> None:
        """AC := the byte pointer C(E) moved by AC bytes; No Divide where no byte fits into a word."""
        count = cpu.ac[ac]
        found = adjusted(count, cpu.load(e))
        none = found[WORD]
        cpu.flags.no_divide = cpu.flags.no_divide | none
        cpu.arithmetic_overflow(none)
        cpu.ac[ac] = ite(none, count, found[35:0])

    @machine.instruction("ADJSP AC, E", source=f"{MANUAL_KS}, stack operations")
    def adjust(cpu: Ks10, ac: Word, e: Word) -> None:
        """Both halves of AC move by E; Trap 2 where the count goes through 0 that way."""
        pointer = cpu.ac[ac]
        upper = left(pointer) + e
        before, after = pointer[35], upper[17]
        over = ite(e[17], ~before & after, before & ~after)
        cpu.ac[ac] = halves(upper, right(pointer) + e)
        cpu.stack_overflow(over)
