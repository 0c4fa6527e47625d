"""Random tiny machines: the solver's answers are those of brute force over all 1,024 states."""

from __future__ import annotations

import random

import pytest

from popek.checks.premises import Premises
from popek.checks.promises import FormPromises
from popek.checks.runs import explore_instruction
from popek.checks.subject import Subject
from popek.checks.survey import Request, Surveyor
from popek.checks.verdict import Truth, yes_if
from popek.kernel.configuration import Configuration
from tiny.brute_force import BruteForce
from tiny.grammar import Code, draw
from tiny.machine import machine

PREMISES = frozenset(BruteForce(()).premises())
SEED, MACHINES, AT_ONCE = "tiny machines", 100, 10


def codes(number: int, seed: str = SEED) -> list[Code]:
    """So many instructions of the grammar, the same each time."""
    chance = random.Random(seed)
    return [draw(chance) for _ in range(number)]


def solved(code: Code) -> dict[str, Truth]:
    """What popek says of an instruction."""
    tiny = machine({"I": code})
    row = Surveyor(Request(Subject.of(tiny, None, Configuration()), components=False, promises=True)).row(
        "I a"
    )
    found = {name: row.classes[name] for name in row.classes}
    asked = Premises(Subject.of(tiny, None, Configuration()))
    run = explore_instruction(tiny, tiny.instructions["I a"])
    premises = {p.name: p.truth for p in asked.of(tiny.instructions["I a"], run) if p.name in PREMISES}
    told = {"faithful": row.faithful, "safe": row.safe, "needless_trap": row.needless_trap}
    return {**found, **told, **premises}


def expected(code: Code) -> dict[str, Truth]:
    """What brute force says of it."""
    brute = BruteForce(code)
    return {
        name: yes_if(answer)
        for name, answer in {**brute.classes(), **brute.promises(), **brute.premises()}.items()
    }


@pytest.mark.parametrize("first", range(0, MACHINES, AT_ONCE))
def test_classes_promises_and_premises_are_those_of_brute_force(first: int) -> None:
    for code in codes(MACHINES)[first : first + AT_ONCE]:
        assert solved(code) == expected(code), code


def test_a_change_of_the_vmms_cell_alone_breaks_safety_and_not_fidelity() -> None:
    """On the hardware, where the high bit of the base is set, the VMM's cell is stored to; natively never."""
    code: Code = ((("high",), ("absolute", 0, ("constant", 0))),)
    answers = solved(code)
    assert answers == expected(code)
    assert (answers["faithful"], answers["safe"], answers["A1_fidelity"]) == (Truth.YES, Truth.NO, Truth.NO)


def test_brute_force_finds_a_checker_that_overlooks_what_a_trap_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In user mode the timer changes before the trap: safety sees it, if what a trap leaves is looked at."""
    code: Code = ((("mode",), ("timer", ("not", ("timer",)))), (("mode",), ("keep",)))
    assert solved(code)["safe"] is expected(code)["safe"] is Truth.NO
    monkeypatch.setattr(FormPromises, "changed_before_a_trap", lambda self: iter(()))
    assert solved(code)["safe"] is Truth.YES
