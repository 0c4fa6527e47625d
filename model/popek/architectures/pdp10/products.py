"""PDP-10: products and quotients, in all modes.

Two products are equal where their operands are: that is all a solver is told at first (`kernel.opaque`).
"""

from __future__ import annotations

from typing import Final, TypeVar

from popek.kernel.machine import Machine
from popek.kernel.opaque import opaque
from popek.kernel.words import Word, concat, ite

from .state import WORD, Pdp10
from .words_and_halves import COMBINING

P = TypeVar("P", bound=Pdp10)

LEAST: Final = 1 << WORD - 1  # the least negative number


@opaque(2 * WORD, WORD, WORD)
def product(a: Word, b: Word) -> Word:
    """Two words, each with the sign: that of the first, where the product of the least numbers does not fit."""
    wide = a.sign_extend(72) * b.sign_extend(72)
    return concat(wide[70:35], wide[70], wide[34:0])


@opaque(2 * WORD + 1, WORD, WORD, WORD)
def division(high: Word, low: Word, divisor: Word) -> Word:
    """Whether there is no quotient (width 1), quotient, remainder; the dividend has 70 bits and a sign."""
    negative = high[35]
    dividend = concat(high, low[34:0]).sign_extend(72)
    above = ite(negative, -dividend, dividend)
    below = ite(divisor[35], -divisor, divisor).zero_extend(72)
    none = above >= below << 35
    quotient, rest = (above // below)[35:0], (above % below)[35:0]
    turned = negative ^ divisor[35]
    return concat(none, ite(turned, -quotient, quotient), ite(negative, -rest, rest))


def add(machine: Machine[P], manual: str, *, least_by_one: bool) -> None:
    """Declare them.

    Args:
        manual: the document they are described in.
        least_by_one: IDIV divides the least number by 1 and -1 (the quotient is that number); otherwise it is refused.
    """
    source = f"{manual}, fixed point arithmetic"

    def operand(cpu: Pdp10, e: Word, mode: str) -> Word:
        return e.zero_extend(WORD) if mode == "I" else cpu.load(e)

    def multiply(cpu: P, ac: Word, e: Word, mode: str) -> None:
        """AC and the next, or C(E), or all, := AC times the operand; C(E) takes the high word."""
        a, b = cpu.ac[ac], operand(cpu, e, mode)
        both = product(a, b)
        cpu.arithmetic_overflow((a == LEAST) & (b == LEAST))
        if mode in ("M", "B"):
            cpu.store(e, both[71:36])
        if mode != "M":
            cpu.ac[ac], cpu.ac[ac + 1] = both[71:36], both[35:0]

    def multiply_integers(cpu: P, ac: Word, e: Word, mode: str) -> None:
        """AC, or C(E), or both, := the low word of AC times the operand; Overflow where it does not fit."""
        both = product(cpu.ac[ac], operand(cpu, e, mode))
        high = both[71:36]
        cpu.arithmetic_overflow((high != 0) & (~high != 0))
        if mode in ("M", "B"):
            cpu.store(e, both[35:0])
        if mode != "M":
            cpu.ac[ac] = both[35:0]

    def divide(cpu: P, ac: Word, e: Word, mode: str, integers: bool) -> None:
        """AC and the next := quotient and remainder of the two, or of AC, by the operand; C(E) takes the quotient.

        No Divide, and nothing else, where the quotient does not fit.
        """
        high, low = cpu.ac[ac], cpu.ac[ac + 1]
        if integers:
            high, low = high.arithmetic_shift_right(35), high
        divisor = operand(cpu, e, mode)
        found = division(high, low, divisor)
        none = divisor == 0 if integers and least_by_one else found[72]
        quotient, rest = found[71:36], found[35:0]
        cpu.flags.no_divide = cpu.flags.no_divide | none
        cpu.arithmetic_overflow(none)
        one, two = cpu.ac[ac], cpu.ac[ac + 1]
        if mode in ("M", "B"):
            cpu.store(e, ite(none, divisor, quotient))
        if mode != "M":
            cpu.ac[ac], cpu.ac[ac + 1] = ite(none, one, quotient), ite(none, two, rest)

    for mode in COMBINING:
        machine.instruction(f"MUL{mode} AC, E", source=source, mode=mode)(multiply)
        machine.instruction(f"IMUL{mode} AC, E", source=source, mode=mode)(multiply_integers)
        machine.instruction(f"DIV{mode} AC, E", source=source, mode=mode, integers=False)(divide)
        machine.instruction(f"IDIV{mode} AC, E", source=source, mode=mode, integers=True)(divide)


__all__ = ["add"]
