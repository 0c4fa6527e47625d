"""KS10: two words at a time, conversions, and pointers moved by more than one.

A double word is AC and the next, or C(E) and C(E + 1): 71 bits, of which the second word's first is not one.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
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


def _pointers(machine: Machine[Ks10]) -> None:
    @machine.instruction("ADJSP AC, E", source=f"{MANUAL_KS}, stack operations")
    def adjust(cpu: Ks10, ac: Word, e: Word) -> None:
        """Both halves of AC move by E; Trap 2 where the count goes through 0 that way."""
        pointer = cpu.ac[ac]
        upper = left(pointer) + e
        before, after = pointer[35], upper[17]
        over = ite(e[17], ~before & after, before & ~after)
        cpu.ac[ac] = halves(upper, right(pointer) + e)
        cpu.stack_overflow(over)
