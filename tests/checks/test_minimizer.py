"""A minimal model is the one that trying every preference, bit by bit, one after the other, comes to."""

# ruff: noqa: SIM300 — conditions over words, in the order in which a reader expects them

from __future__ import annotations

import random
from itertools import product

import pytest

from popek.checks.minimizer import Minimizer
from popek.kernel import terms
from popek.kernel.evaluation import evaluate
from popek.kernel.words import Word, symbol
from popek.solving.solver import Answer, Solver

NAMES = ("a", "b", "c")
A, B, C = (symbol(name, 3) for name in NAMES)


def conditions_of(chance: random.Random) -> list[Word]:
    """Some that many numbers, or few, fulfil."""
    number = chance.randrange(8)
    some = [
        A + B == C,
        (A ^ B) > number,
        A * B == number,
        ~(A == 0) | (C == number),
        (B & C) != 0,
        C < A,
        (A[2] | B[0]) == 1,
        A + C != B,
    ]
    return chance.sample(some, chance.randint(1, 3))


def best(conditions: list[Word], preferences: list[tuple[terms.Term, terms.Term]]) -> dict[str, int] | None:
    """Of all numbers, by brute force."""
    roots = [condition.term for condition in conditions]
    every = (dict(zip(NAMES, numbers, strict=True)) for numbers in product(range(8), repeat=3))
    left = [env for env in every if all(evaluate(roots, env))]
    if not left:
        return None
    for term, preferred in preferences:
        for bit in reversed(range(term.width)):
            pair = [terms.extract(one, bit, bit) for one in (term, preferred)]
            met = [env for env in left if len(set(evaluate(pair, env))) == 1]
            left = met or left
    assert len(left) == 1
    return left[0]


@pytest.mark.parametrize("seed", range(60))
def test_the_minimal_model_is_what_trying_bit_by_bit_comes_to(seed: int) -> None:
    chance = random.Random(seed)
    conditions = conditions_of(chance)
    order = chance.sample([A, B, C], 3)
    preferences = [(order[0].term, order[1].term)] if chance.random() < 0.5 else []
    preferences += [(word.term, terms.const(3, chance.randrange(8))) for word in order]
    expected = best(conditions, preferences)
    solver = Solver()
    for condition in conditions:
        solver.add(condition)
    answer = solver.check()
    assert (answer is Answer.UNSAT) == (expected is None)
    if expected is None:
        return
    model = solver.model()
    guesses: list[dict[str, int] | None] = [None, expected, {name: chance.randrange(8) for name in NAMES}]
    for guess in guesses:
        minimizer = Minimizer(solver, conditions)
        found = minimizer.run(model, preferences, guess)
        assert {name: found(terms.var(name, 3)) for name in NAMES} == expected
