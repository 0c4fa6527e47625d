"""PDP-10: moves of words and halves, logic, tests, comparisons (what `innocuous` has one of each of).

Every operation has the mode without a letter; the modes with a letter (immediate, memory, self, both) are there for
one operation of each class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from popek.kernel.machine import Machine
from popek.kernel.words import TRUE, Word, ite

from .innocuous import add_with_flags
from .state import WORD, Pdp10, halves, left, right

P = TypeVar("P", bound=Pdp10)

ONES: Final = (1 << 18) - 1
REST: Final = ("", "Z", "O", "E")  # what becomes of the other half: kept, 0, all 1s, copies of the sign

# In the order of their opcodes, 400, 404, …; whether AC and C(E) are looked at.
LOGIC: Final[tuple[tuple[str, Callable[[Word, Word], Word], bool], ...]] = (
    ("SETZ", lambda a, m: a ^ a, False),
    ("AND", lambda a, m: a & m, True),
    ("ANDCA", lambda a, m: ~a & m, True),
    ("SETM", lambda a, m: m, True),
    ("ANDCM", lambda a, m: a & ~m, True),
    ("SETA", lambda a, m: a, False),
    ("XOR", lambda a, m: a ^ m, True),
    ("IOR", lambda a, m: a | m, True),
    ("ANDCB", lambda a, m: ~a & ~m, True),
    ("EQV", lambda a, m: ~(a ^ m), True),
    ("SETCA", lambda a, m: ~a, False),
    ("ORCA", lambda a, m: ~a | m, True),
    ("SETCM", lambda a, m: ~m, True),
    ("ORCM", lambda a, m: a | ~m, True),
    ("ORCB", lambda a, m: ~a | ~m, True),
    ("SETO", lambda a, m: ~(a ^ a), False),
)
# In the order of their opcodes' last digit.
CONDITIONS: Final[tuple[tuple[str, Callable[[Word, Word], Word]], ...]] = (
    ("", lambda a, b: ~TRUE),
    ("L", lambda a, b: a.signed_lt(b)),
    ("E", lambda a, b: a == b),
    ("LE", lambda a, b: ~b.signed_lt(a)),
    ("A", lambda a, b: TRUE),
    ("GE", lambda a, b: ~a.signed_lt(b)),
    ("N", lambda a, b: a != b),
    ("G", lambda a, b: b.signed_lt(a)),
)
TESTS: Final = ("R", "L", "D", "S")
CHANGES: Final = ("N", "Z", "C", "O")


def add(machine: Machine[P], manual: str, fetching: tuple[str, ...] = ()) -> None:
    """Declare them.

    Args:
        manual: the document they are described in.
        fetching: operations that fetch C(E), though they do not use it.
    """
    _half_words(machine, manual)
    _moves(machine, manual)
    _logic(machine, manual, fetching)
    _comparisons(machine, manual)
    _tests(machine, manual)


def _declared(machine: Machine[P], form: str) -> bool:
    return form in machine.instructions


def _half_words(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, half word data transmission"

    def joined(old: Word, half: Word, to_left: bool, rest: str) -> Word:
        other = {
            "": right(old) if to_left else left(old),
            "Z": Word(18, 0),
            "O": Word(18, ONES),
            "E": ite(half[17], Word(18, ONES), Word(18, 0)),
        }[rest]
        return halves(half, other) if to_left else halves(other, half)

    def load(cpu: P, ac: Word, e: Word, taken: str, to: str, rest: str) -> None:
        """A half of AC := a half of C(E); the other half is kept, 0, all 1s, or copies of the sign."""
        value = cpu.load(e)
        half = left(value) if taken == "L" else right(value)
        cpu.ac[ac] = joined(cpu.ac[ac], half, to == "L", rest)

    for taken in "LR":
        for to in "LR":
            for rest in REST:
                name = f"H{taken}{to}{rest}"
                if not _declared(machine, f"{name} AC, E"):
                    machine.instruction(f"{name} AC, E", source=source, taken=taken, to=to, rest=rest)(load)

    @machine.instruction("HRRI AC, E", source=source)
    def immediate(cpu: P, ac: Word, e: Word) -> None:
        """Right half of AC := E."""
        cpu.ac[ac] = joined(cpu.ac[ac], e, False, "")

    @machine.instruction("HRRM AC, E", source=source)
    def to_memory(cpu: P, ac: Word, e: Word) -> None:
        """Right half of C(E) := right half of AC."""
        cpu.store(e, joined(cpu.load(e), right(cpu.ac[ac]), False, ""))

    @machine.instruction("HRRS AC, E", source=source)
    def to_self(cpu: P, ac: Word, e: Word) -> None:
        """C(E) is written as it is, and also to AC unless that is 0."""
        value = cpu.load(e)
        cpu.store(e, value)
        cpu.ac[ac] = ite(ac == 0, cpu.ac[ac], value)


def _moves(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, full word data transmission"

    @machine.instruction("MOVES AC, E", source=source)
    def moves(cpu: P, ac: Word, e: Word) -> None:
        """C(E) is written as it is, and also to AC unless that is 0."""
        value = cpu.load(e)
        cpu.store(e, value)
        cpu.ac[ac] = ite(ac == 0, cpu.ac[ac], value)

    @machine.instruction("MOVS AC, E", source=source)
    def swapped(cpu: P, ac: Word, e: Word) -> None:
        """AC := C(E) with its halves exchanged."""
        value = cpu.load(e)
        cpu.ac[ac] = halves(right(value), left(value))

    @machine.instruction("MOVSI AC, E", source=source)
    def swapped_immediate(cpu: P, ac: Word, e: Word) -> None:
        """AC := E,,0."""
        cpu.ac[ac] = halves(e, Word(18, 0))

    @machine.instruction("MOVN AC, E", source=source, always=True)
    @machine.instruction("MOVM AC, E", source=source, always=False)
    def negative(cpu: P, ac: Word, e: Word, always: bool) -> None:
        """AC := -C(E), or its magnitude; Carry 0, Carry 1 and Overflow as for a subtraction from 0."""
        value = cpu.load(e)
        if always or value[35]:
            value = add_with_flags(cpu, Word(WORD, 0), ~value, 1)
        cpu.ac[ac] = value


def _logic(machine: Machine[P], manual: str, fetching: tuple[str, ...]) -> None:
    source = f"{manual}, logic"

    def combine(cpu: P, ac: Word, e: Word, function: Callable[[Word, Word], Word], reads: bool) -> None:
        """AC := a boolean function of AC and C(E)."""
        cpu.ac[ac] = function(cpu.ac[ac], cpu.load(e) if reads else Word(WORD, 0))

    for name, function, reads in LOGIC:
        if not _declared(machine, f"{name} AC, E"):
            machine.instruction(
                f"{name} AC, E", source=source, function=function, reads=reads or name in fetching
            )(combine)

    @machine.instruction("ANDI AC, E", source=source)
    def immediate(cpu: P, ac: Word, e: Word) -> None:
        """AC := AC and 0,,E."""
        cpu.ac[ac] = cpu.ac[ac] & e.zero_extend(WORD)

    @machine.instruction("ANDM AC, E", source=source, both=False)
    @machine.instruction("ANDB AC, E", source=source, both=True)
    def to_memory(cpu: P, ac: Word, e: Word, both: bool) -> None:
        """C(E), or C(E) and AC, := AC and C(E)."""
        result = cpu.ac[ac] & cpu.load(e)
        cpu.store(e, result)
        if both:
            cpu.ac[ac] = result


def _comparisons(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, arithmetic testing"

    def compare(cpu: P, ac: Word, e: Word, holds: Callable[[Word, Word], Word]) -> None:
        """Skip if AC compares so with C(E)."""
        value = cpu.load(e)
        cpu.pc = ite(holds(cpu.ac[ac], value), cpu.pc + 1, cpu.pc)

    for name, holds in CONDITIONS:
        machine.instruction(f"CAM{name} AC, E", source=source, holds=holds)(compare)

    @machine.instruction("SOJ AC, E", source=source)
    def soj(cpu: P, ac: Word, e: Word) -> None:
        """AC := AC - 1."""
        cpu.ac[ac] = add_with_flags(cpu, cpu.ac[ac], Word(WORD, (1 << WORD) - 1))

    @machine.instruction("SOSL AC, E", source=source)
    def sosl(cpu: P, ac: Word, e: Word) -> None:
        """C(E) := C(E) - 1, also to AC unless that is 0; skip if the result is below zero."""
        result = add_with_flags(cpu, cpu.load(e), Word(WORD, (1 << WORD) - 1))
        cpu.store(e, result)
        cpu.ac[ac] = ite(ac == 0, cpu.ac[ac], result)
        cpu.pc = ite(result[35], cpu.pc + 1, cpu.pc)

    @machine.instruction("AOBJP AC, E", source=source, negative=False)
    @machine.instruction("AOBJN AC, E", source=source, negative=True)
    def aobj(cpu: P, ac: Word, e: Word, negative: bool) -> None:
        """Add one to both halves of AC; jump if the result is not negative, or is."""
        result, _ = cpu.count_up(cpu.ac[ac])
        cpu.ac[ac] = result
        cpu.pc = ite(result[35] if negative else ~result[35], e, cpu.pc)


def _tests(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, logical testing and modification"

    def test(cpu: P, ac: Word, e: Word, operand: str, change: str) -> None:
        """Skip if the bits of AC that the mask selects are all 0; then change them as the third letter says."""
        if operand in "RL":
            mask = halves(Word(18, 0), e) if operand == "R" else halves(e, Word(18, 0))
        else:
            mask = cpu.load(e)
            mask = mask if operand == "D" else halves(right(mask), left(mask))
        old = cpu.ac[ac]
        cpu.pc = ite((old & mask) == 0, cpu.pc + 1, cpu.pc)
        cpu.ac[ac] = {"N": old, "Z": old & ~mask, "C": old ^ mask, "O": old | mask}[change]

    for operand in TESTS:
        for change in CHANGES:
            form = f"T{operand}{change}E AC, E"
            if not _declared(machine, form):
                machine.instruction(form, source=source, operand=operand, change=change)(test)
