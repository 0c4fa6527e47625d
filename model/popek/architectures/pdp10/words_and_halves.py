"""PDP-10: moves of words and halves, logic, tests, comparisons, each in all of its modes.

The modes are letters at the end of the mnemonic: none takes C(E) to AC, I takes 0,,E in the place of C(E), M goes to
C(E) instead of AC, S goes from C(E) to C(E) and, unless it is accumulator 0, to AC; B goes to both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from popek.kernel.machine import Machine
from popek.kernel.words import TRUE, Word, ite

from .innocuous import add_with_flags
from .state import WORD, Pdp10, halves, left, right

P = TypeVar("P", bound=Pdp10)

Function = Callable[[Word, Word], Word]

ONES: Final = (1 << 18) - 1
REST: Final = ("", "Z", "O", "E")  # what becomes of the other half: kept, 0, all 1s, copies of the sign
MOVING: Final = ("", "I", "M", "S")  # modes of moves, in the order of their opcodes
COMBINING: Final = ("", "I", "M", "B")  # modes of what takes AC and C(E)

# In the order of their opcodes, 400, 404, …; whether AC and C(E) are looked at.
LOGIC: Final[tuple[tuple[str, Function, bool], ...]] = (
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
CONDITIONS: Final[tuple[tuple[str, Function], ...]] = (
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
SKIPS: Final = ("", "E", "A", "N")  # never, if all the bits are 0, always, if not all are 0


def add(machine: Machine[P], manual: str, fetching: tuple[str, ...] = ()) -> None:
    """Declare them.

    Args:
        manual: the document they are described in.
        fetching: operations that fetch C(E), though they do not use it.
    """
    _half_words(machine, manual)
    _moves(machine, manual)
    _logic(machine, manual, fetching)
    _sums(machine, manual)
    _comparisons(machine, manual)
    _counts(machine, manual)
    _tests(machine, manual)


def _missing(machine: Machine[P], forms: Iterable[str]) -> Iterable[str]:
    """The forms that are not declared yet."""
    return (form for form in forms if form not in machine.instructions)


def _to_self(cpu: Pdp10, ac: Word, e: Word, value: Word) -> None:
    """C(E) := value, also AC unless that is 0."""
    cpu.store(e, value)
    cpu.ac[ac] = ite(ac == 0, cpu.ac[ac], value)


def _move(cpu: Pdp10, ac: Word, e: Word, mode: str, keeps: bool, made: Function) -> None:
    """What is moved goes to its place; `made` takes what is there already, if the move `keeps` part of it."""
    if mode == "I":
        cpu.ac[ac] = made(cpu.ac[ac], e.zero_extend(WORD))
    elif mode == "M":
        source = cpu.ac[ac]
        cpu.store(e, made(cpu.load(e) if keeps else source, source))
    elif mode == "S":
        source = cpu.load(e)
        _to_self(cpu, ac, e, made(source, source))
    else:
        source = cpu.load(e)
        cpu.ac[ac] = made(cpu.ac[ac], source)


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

    def move_half(cpu: P, ac: Word, e: Word, taken: str, to: str, rest: str, mode: str) -> None:
        """A half of the source to a half of the place; its other half is kept, 0, all 1s, or copies of the sign."""

        def made(old: Word, value: Word) -> Word:
            return joined(old, left(value) if taken == "L" else right(value), to == "L", rest)

        _move(cpu, ac, e, mode, rest == "", made)

    for taken in "LR":
        for to in "LR":
            for rest in REST:
                for mode in MOVING:
                    for form in _missing(machine, [f"H{taken}{to}{rest}{mode} AC, E"]):
                        machine.instruction(form, source=source, taken=taken, to=to, rest=rest, mode=mode)(
                            move_half
                        )


def _moves(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, full word data transmission"

    def move(cpu: P, ac: Word, e: Word, mode: str) -> None:
        """The word as it is."""
        _move(cpu, ac, e, mode, False, lambda old, value: value)

    def swap(cpu: P, ac: Word, e: Word, mode: str) -> None:
        """The word with its halves exchanged."""
        _move(cpu, ac, e, mode, False, lambda old, value: halves(right(value), left(value)))

    def negate(cpu: P, ac: Word, e: Word, mode: str, always: bool) -> None:
        """Minus the word, or its magnitude; Carry 0, Carry 1 and Overflow as for a subtraction from 0."""

        def made(old: Word, value: Word) -> Word:
            if always or value[35]:
                return add_with_flags(cpu, Word(WORD, 0), ~value, 1)
            return value

        _move(cpu, ac, e, mode, False, made)

    for mode in MOVING:
        for form in _missing(machine, [f"MOVE{mode} AC, E"]):
            machine.instruction(form, source=source, mode=mode)(move)
        machine.instruction(f"MOVS{mode} AC, E", source=source, mode=mode)(swap)
        machine.instruction(f"MOVN{mode} AC, E", source=source, mode=mode, always=True)(negate)
        machine.instruction(f"MOVM{mode} AC, E", source=source, mode=mode, always=False)(negate)


def _combine(cpu: Pdp10, ac: Word, e: Word, mode: str, reads: bool, made: Function) -> None:
    """What is made of AC and the operand goes to AC, to C(E), or to both."""
    if mode == "I":
        cpu.ac[ac] = made(cpu.ac[ac], e.zero_extend(WORD))
        return
    result = made(cpu.ac[ac], cpu.load(e) if reads else Word(WORD, 0))
    if mode:
        cpu.store(e, result)
    if mode != "M":
        cpu.ac[ac] = result


def _logic(machine: Machine[P], manual: str, fetching: tuple[str, ...]) -> None:
    def combine(cpu: P, ac: Word, e: Word, function: Function, reads: bool, mode: str) -> None:
        """A boolean function of AC and the operand."""
        _combine(cpu, ac, e, mode, reads, function)

    for name, function, reads in LOGIC:
        for mode in COMBINING:
            if f"{name}{mode} E" in machine.instructions:
                continue  # SETZM, without an accumulator
            for form in _missing(machine, [f"{name}{mode} AC, E"]):
                machine.instruction(
                    form,
                    source=f"{manual}, logic",
                    function=function,
                    reads=reads or name in fetching,
                    mode=mode,
                )(combine)


def _sums(machine: Machine[P], manual: str) -> None:
    def combine(cpu: P, ac: Word, e: Word, minus: bool, mode: str) -> None:
        """AC plus, or minus, the operand; Carry 0, Carry 1, Overflow."""

        def made(a: Word, b: Word) -> Word:
            return add_with_flags(cpu, a, ~b, 1) if minus else add_with_flags(cpu, a, b)

        _combine(cpu, ac, e, mode, True, made)

    for name, minus in (("ADD", False), ("SUB", True)):
        for mode in COMBINING[1:]:
            machine.instruction(
                f"{name}{mode} AC, E", source=f"{manual}, fixed point arithmetic", minus=minus, mode=mode
            )(combine)


def _comparisons(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, arithmetic testing"

    def compare(cpu: P, ac: Word, e: Word, holds: Function) -> None:
        """Skip if AC compares so with C(E)."""
        value = cpu.load(e)
        cpu.pc = ite(holds(cpu.ac[ac], value), cpu.pc + 1, cpu.pc)

    def compare_immediate(cpu: P, ac: Word, e: Word, holds: Function) -> None:
        """Skip if AC compares so with 0,,E."""
        cpu.pc = ite(holds(cpu.ac[ac], e.zero_extend(WORD)), cpu.pc + 1, cpu.pc)

    def jump(cpu: P, ac: Word, e: Word, holds: Function) -> None:
        """Jump if AC compares so with 0."""
        cpu.pc = ite(holds(cpu.ac[ac], Word(WORD, 0)), e, cpu.pc)

    def skip(cpu: P, ac: Word, e: Word, holds: Function) -> None:
        """Skip if C(E) compares so with 0; C(E) also to AC unless that is 0."""
        value = cpu.load(e)
        cpu.ac[ac] = ite(ac == 0, cpu.ac[ac], value)
        cpu.pc = ite(holds(value, Word(WORD, 0)), cpu.pc + 1, cpu.pc)

    for name, holds in CONDITIONS:
        machine.instruction(f"CAM{name} AC, E", source=source, holds=holds)(compare)
        for kind, semantics in (("CAI", compare_immediate), ("JUMP", jump), ("SKIP", skip)):
            for form in _missing(machine, [f"{kind}{name} AC, E"]):
                machine.instruction(form, source=source, holds=holds)(semantics)


def _counts(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, arithmetic testing"

    def count(cpu: P, ac: Word, e: Word, holds: Function, by: int) -> None:
        """AC := AC plus, or minus, 1, and jump if the result compares so with 0."""
        result = add_with_flags(cpu, cpu.ac[ac], Word(WORD, by & (1 << WORD) - 1))
        cpu.ac[ac] = result
        cpu.pc = ite(holds(result, Word(WORD, 0)), e, cpu.pc)

    def count_in_storage(cpu: P, ac: Word, e: Word, holds: Function, by: int) -> None:
        """C(E) := C(E) plus, or minus, 1, also to AC unless that is 0; skip if it compares so with 0."""
        result = add_with_flags(cpu, cpu.load(e), Word(WORD, by & (1 << WORD) - 1))
        _to_self(cpu, ac, e, result)
        cpu.pc = ite(holds(result, Word(WORD, 0)), cpu.pc + 1, cpu.pc)

    for letter, by in (("A", 1), ("S", -1)):
        for name, holds in CONDITIONS:
            for form in _missing(machine, [f"{letter}OJ{name} AC, E"]):
                machine.instruction(form, source=source, holds=holds, by=by)(count)
            for form in _missing(machine, [f"{letter}OS{name} AC, E"]):
                machine.instruction(form, source=source, holds=holds, by=by)(count_in_storage)

    @machine.instruction("AOBJP AC, E", source=source, negative=False)
    @machine.instruction("AOBJN AC, E", source=source, negative=True)
    def aobj(cpu: P, ac: Word, e: Word, negative: bool) -> None:
        """Add one to both halves of AC; jump if the result is not negative, or is."""
        result, _ = cpu.count_up(cpu.ac[ac])
        cpu.ac[ac] = result
        cpu.pc = ite(result[35] if negative else ~result[35], e, cpu.pc)


def _tests(machine: Machine[P], manual: str) -> None:
    source = f"{manual}, logical testing and modification"

    def test(cpu: P, ac: Word, e: Word, operand: str, change: str, skips: str) -> None:
        """Skip as the suffix says of the bits of AC that the mask selects; then change them by the third letter."""
        if operand in "RL":
            mask = halves(Word(18, 0), e) if operand == "R" else halves(e, Word(18, 0))
        else:
            mask = cpu.load(e)
            mask = mask if operand == "D" else halves(right(mask), left(mask))
        old = cpu.ac[ac]
        none = (old & mask) == 0
        cpu.pc = ite({"": ~TRUE, "E": none, "A": TRUE, "N": ~none}[skips], cpu.pc + 1, cpu.pc)
        cpu.ac[ac] = {"N": old, "Z": old & ~mask, "C": old ^ mask, "O": old | mask}[change]

    for operand in TESTS:
        for change in CHANGES:
            for skips in SKIPS:
                for form in _missing(machine, [f"T{operand}{change}{skips} AC, E"]):
                    machine.instruction(form, source=source, operand=operand, change=change, skips=skips)(
                        test
                    )
