"""Exploration: one run per feasible path, conditions that exclude one another, a budget."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popek.kernel.evaluation import evaluate
from popek.kernel.exploration import PathBudgetError, explore
from popek.kernel.outcome import SemanticsError
from popek.kernel.terms import Term
from popek.kernel.words import SymbolicConditionError, Word, symbol
from popek.solving.pruning import Pruner

A, B = symbol("a", 4), symbol("b", 4)


class Anything:
    """An oracle that prunes nothing."""

    assignment = None

    def push(self, condition: Term) -> None: ...
    def pop(self) -> None: ...
    def feasible(self) -> bool:
        return True


def holding(paths: list[object], a: int, b: int) -> list[object]:
    return [p for p in paths if evaluate([p.condition.term], {"a": a, "b": b}) == [1]]  # type: ignore[attr-defined]


def classify() -> str:
    if A < 3:
        return "low"
    if (A == B) & (B > 9):
        return "same"
    return "bit" if A[0] else "none"


def test_every_value_goes_through_exactly_one_path_with_the_result_of_the_plain_run() -> None:
    paths = explore(classify, Pruner())
    assert sorted(path.result for path in paths) == ["bit", "low", "none", "same"]
    for a, b in itertools.product(range(16), range(16)):
        (path,) = holding(paths, a, b)  # type: ignore[arg-type]
        plain = "low" if a < 3 else "same" if a == b and b > 9 else "bit" if a & 1 else "none"
        assert path.result == plain  # type: ignore[attr-defined]


def test_sides_that_cannot_be_are_not_run() -> None:
    ran = []

    def run() -> str:
        if A < 3:
            if A == 7:
                ran.append("never")
            return "low"
        return "high"

    assert len(explore(run, Pruner())) == 2
    assert ran == []
    assert len(explore(run, Anything())) == 3


def test_sides_that_come_to_an_unasked_result_are_not_searched_for() -> None:
    searched = []

    class Counting(Pruner):
        def feasible(self) -> bool:
            if self.assignment is None:
                searched.append(1)
            return super().feasible()

    def run() -> str:
        for value in range(3):
            if value == A:
                return "trap"
        if A < 3:
            return "impossible"
        return "high"

    eager = explore(run, Counting(prefer=[A == 9]))
    needed = len(searched)
    searched.clear()
    lazy = explore(run, Counting(prefer=[A == 9]), unasked=lambda result: result == "trap")
    assert [path.result for path in lazy] == [path.result for path in eager] == ["trap"] * 3 + ["high"]
    assert (needed, len(searched)) == (5, 2)  # at the start, and for the impossible side
    impossible = explore(lambda: (A < 3) and (A == 7) and "trap", Pruner(), unasked=lambda r: r == "trap")
    assert all(not holding([path], a, 0) for path in impossible if path.result == "trap" for a in range(16))  # type: ignore[list-item]


def test_true_sides_come_first_whichever_was_run_first() -> None:
    paths = explore(lambda: (bool(A == 5), bool(B == 2)), Pruner(prefer=[A == 1, B == 2]))
    assert [path.result for path in paths] == [(True, True), (True, False), (False, True), (False, False)]


def test_a_question_that_was_answered_is_not_asked_again() -> None:
    def run() -> bool:
        first = bool(A == 1)
        assert bool(A != 1) is not first
        return first

    assert [path.result for path in explore(run, Anything())] == [True, False]


def test_assumptions_restrict_the_paths() -> None:
    paths = explore(classify, Pruner(), assume=[A < 2])
    assert [path.result for path in paths] == ["low"]
    assert explore(classify, Pruner(), assume=[A < 2, A > 2]) == []
    assert explore(classify, Pruner(), assume=[Word(1, 0)]) == []


def test_more_paths_than_the_budget_is_a_clear_error() -> None:
    def run() -> int:
        return sum(int(bool(A[i])) for i in range(4))

    assert len(explore(run, Pruner(), budget=16)) == 16
    with pytest.raises(PathBudgetError, match="budget of 15 paths"):
        explore(run, Pruner(), budget=15)


def test_after_an_exploration_a_symbolic_condition_raises_again_and_the_oracle_is_empty() -> None:
    oracle = Pruner()
    with pytest.raises(ZeroDivisionError):
        explore(lambda: 1 // 0 if A == 1 else 0, oracle)
    with pytest.raises(SymbolicConditionError):
        bool(A == 1)
    oracle.push((A == 2) & (B == 2))
    assert oracle.feasible()


def test_code_that_asks_other_questions_the_second_time_is_noticed() -> None:
    calls = itertools.count()

    def run() -> bool:
        return bool((A == 1) if next(calls) == 0 else (A == 2)) and bool(B == 1)

    with pytest.raises(SemanticsError, match="asks another question"):
        explore(run, Pruner())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 15)), min_size=1, max_size=4))
def test_paths_of_random_comparisons_partition_all_values(tests: list[tuple[str, int]]) -> None:
    names = {"a": A, "b": B}

    def run() -> tuple[bool, ...]:
        return tuple(bool(names[name] < bound) for name, bound in tests)

    paths = explore(run, Pruner())
    for a, b in itertools.product(range(16), range(16)):
        (path,) = holding(paths, a, b)  # type: ignore[arg-type]
        assert path.result == tuple({"a": a, "b": b}[n] < bound for n, bound in tests)  # type: ignore[attr-defined]
