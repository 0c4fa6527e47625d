"""Random tiny machines: the solver's answers are those of brute force over all 1,024 states."""

from __future__ import annotations

import random

import pytest

from popek.checks.survey import Request, Surveyor
from popek.checks.verdict import Truth, yes_if
from tiny.brute_force import BruteForce
from tiny.grammar import Code, draw
from tiny.machine import machine

SEED, MACHINES, AT_ONCE = "tiny machines", 160, 10


def codes(number: int, seed: str = SEED) -> list[Code]:
    """So many instructions of the grammar, the same each time."""
    chance = random.Random(seed)
    return [draw(chance) for _ in range(number)]


def solved(code: Code) -> dict[str, Truth | None]:
    """What popek says of an instruction."""
    tiny = machine({"I": code})
    row = Surveyor(Request(tiny, components=False, promises=True), tiny).row("I a")
    found = {name: row.classes[name] for name in row.classes}
    return {**found, "faithful": row.faithful, "safe": row.safe, "needless_trap": row.needless_trap}


def expected(code: Code) -> dict[str, Truth | None]:
    """What brute force says of it."""
    brute = BruteForce(code)
    return {name: yes_if(answer) for name, answer in {**brute.classes(), **brute.promises()}.items()}


@pytest.mark.parametrize("first", range(0, MACHINES, AT_ONCE))
def test_classes_and_promises_are_those_of_brute_force(first: int) -> None:
    for code in codes(MACHINES)[first : first + AT_ONCE]:
        assert solved(code) == expected(code), code
