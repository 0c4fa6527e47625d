"""Random tiny machines by the letter of 1974: the solver's answers are those of brute force over all states."""

from __future__ import annotations

import pytest

from popek.checks.subject import Subject
from popek.checks.survey import Request, Surveyor
from popek.checks.verdict import Truth
from tiny.grammar import Code
from tiny.letter import ByTheLetter
from tiny.machine import machine
from tiny.test_tiny import codes

MACHINES = 100
READ = {True: Truth.YES, False: Truth.NO, None: Truth.NOT_ASKED}


def solved(code: Code) -> dict[str, Truth]:
    """What popek says of an instruction; the witness is made, which replays it."""
    tiny = machine({"I": code})
    row = Surveyor(Request(Subject.of(tiny), components=False, by_the_letter=True)).row("I a")
    assert row.letter is not None
    return dict(row.letter.classes)


def expected(code: Code) -> dict[str, Truth]:
    """What brute force says of it."""
    return {name: READ[answer] for name, answer in ByTheLetter(code).letter().items()}


def test_the_letter_is_that_of_brute_force() -> None:
    for code in codes(MACHINES, "letters"):
        assert solved(code) == expected(code), code


@pytest.mark.parametrize(
    ("code", "behavior"),
    [
        (((("mode",), ("acc", ("low",))),), Truth.YES),
        # the accumulator is cleared in every state in which it completes: nothing shows
        (((None, ("acc", ("constant", 0))),), Truth.NO),
        # traps unless mode and base agree, and then shows the mode: both together
        (((("xor", ("mode",), ("low",)), ("trap",)), (None, ("acc", ("mode",)))), Truth.YES),
    ],
)
def test_directed(code: Code, behavior: Truth) -> None:
    assert solved(code) == expected(code)
    assert solved(code)["behavior_sensitive"] is behavior
