"""Exploration: run plain Python once per feasible path over symbolic words.

`explore(run, oracle)` calls `run` again and again.  Each `if` on a symbolic condition asks which
sides are feasible; where both are, one side is taken now and the other in a later run.  The result is
one `Path` per way through the code.  The paths' conditions exclude one another and, together, cover
every case that the assumptions allow; a property test holds this for every instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import attrs

from . import terms
from .terms import Term
from .words import Word, decider

T = TypeVar("T")


class Oracle(Protocol):
    """Who says whether a condition can hold: a solver, behind three calls."""

    def push(self, condition: Term) -> None:
        """Assume a condition (width 1) on top of the earlier ones."""

    def pop(self) -> None:
        """Drop the latest assumption."""

    def feasible(self) -> bool:
        """False only when the assumptions are known to contradict one another."""


class PathBudgetError(RuntimeError):
    """The code has more paths than the budget allows."""


@attrs.frozen
class Path(Generic[T]):
    """One way through the code.

    Attributes:
        conditions: what the symbolic `if`s decided, in order; all of width 1.
        result: what the code returned.
    """

    conditions: tuple[Term, ...]
    result: T

    @property
    def condition(self) -> Word:
        """The conjunction of the conditions."""
        total = terms.ONE
        for condition in self.conditions:
            total = terms.arithmetic("and", total, condition)
        return Word(1, total)


def explore(
    run: Callable[[], T], oracle: Oracle, *, assume: Iterable[Word] = (), budget: int = 2000
) -> list[Path[T]]:
    """Every feasible path through `run`.

    Args:
        run: called once per path; must do the same thing each time it is given the same answers.
        oracle: prunes infeasible sides.
        assume: conditions (width 1) that hold at the start.
        budget: the greatest number of paths.

    Raises:
        PathBudgetError: there are more paths than the budget.
    """
    explorer = _Explorer(oracle)
    assumed = [condition.term for condition in assume]
    for condition in assumed:
        oracle.push(condition)
    token = decider.set(explorer.decide)
    paths: list[Path[T]] = []
    try:
        if any(condition is terms.ZERO for condition in assumed) or not oracle.feasible():
            return paths
        while True:
            explorer.restart()
            result = run()
            paths.append(Path(tuple(explorer.taken), result))
            if not explorer.backtrack():
                return paths
            if len(paths) >= budget:
                raise PathBudgetError(
                    f"more than {budget} paths; raise the budget or combine conditions with & | ite()"
                )
    finally:
        decider.reset(token)
        explorer.unwind()
        for _ in assumed:
            oracle.pop()


class _Explorer:
    """Depth-first search over the answers, keeping the oracle's assumptions in step."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.taken: list[Term] = []
        self._open: list[bool] = []  # whether the other side of each answer is still to be tried
        self._position = 0
        self._known: set[Term] = set()

    def restart(self) -> None:
        self._position = 0
        self._known = set()

    def decide(self, condition: Term) -> bool:
        if condition in self._known:
            return True
        negation = terms.invert(condition)
        if negation in self._known:
            return False
        if self._position < len(self.taken):
            answer = self.taken[self._position] is condition
            if not answer and self.taken[self._position] is not negation:
                raise RuntimeError("the explored code asked another question than in its last run")
        else:
            answer = self._fork(condition, negation)
        self._position += 1
        self._known.add(condition if answer else negation)
        return answer

    def _fork(self, condition: Term, negation: Term) -> bool:
        """Take the true side if it is feasible and remember whether the false side is."""
        self._oracle.push(negation)
        false_side = self._oracle.feasible()
        self._oracle.pop()
        self._oracle.push(condition)
        true_side = not false_side or self._oracle.feasible()
        if not true_side:
            self._oracle.pop()
            self._oracle.push(negation)
        self.taken.append(condition if true_side else negation)
        self._open.append(true_side and false_side)
        return true_side

    def backtrack(self) -> bool:
        while self.taken:
            last = self.taken.pop()
            self._oracle.pop()
            if self._open.pop():
                other = terms.invert(last)
                self.taken.append(other)
                self._open.append(False)
                self._oracle.push(other)
                return True
        return False

    def unwind(self) -> None:
        for _ in self.taken:
            self._oracle.pop()
        self.taken.clear()
