"""Exploration: run plain Python once per feasible path over symbolic words.

`explore(run, oracle)` calls `run` again and again.  Each `if` on a symbolic condition asks which
sides are feasible; where both are, one side is taken now and the other in a later run.  The result is
one `Path` per way through the code.  The paths' conditions exclude one another and, together, cover
every case that the assumptions allow; a property test holds this for every instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import attrs

from . import terms
from .terms import Term
from .words import Word, decider

T = TypeVar("T")


class Oracle(Protocol):
    """Who says whether a condition can hold: a solver, behind four calls."""

    def push(self, condition: Term) -> None:
        """Assume a condition (width 1) on top of the earlier ones."""

    def pop(self) -> None:
        """Drop the latest assumption."""

    @property
    def assignment(self) -> object | None:
        """What fulfils the assumptions, where that is known without a search; they are feasible then."""

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
        assignment: the oracle's, which takes this path, if it knew one.
    """

    conditions: tuple[Term, ...]
    result: T
    assignment: Any = attrs.field(default=None, eq=False)

    @property
    def condition(self) -> Word:
        """The conjunction of the conditions."""
        total = terms.ONE
        for condition in self.conditions:
            total = terms.arithmetic("and", total, condition)
        return Word(1, total)


def explore(
    run: Callable[[], T],
    oracle: Oracle,
    *,
    assume: Iterable[Word] = (),
    budget: int = 2000,
    unasked: Callable[[T], bool] | None = None,
) -> list[Path[T]]:
    """Every feasible path through `run`, the true side of each `if` before the false one.

    Args:
        run: called once per path; must do the same thing each time it is given the same answers.
        oracle: prunes infeasible sides.
        assume: conditions (width 1) that hold at the start.
        budget: the greatest number of paths.
        unasked: results that nobody minds to see on an infeasible path, whose condition is false: no search is
            made for a side that comes to one before it forks again.

    Raises:
        PathBudgetError: there are more paths than the budget.
    """
    explorer = _Explorer(oracle, lazy=unasked is not None)
    assumed = [condition.term for condition in assume]
    for condition in assumed:
        oracle.push(condition)
    token = decider.set(explorer.decide)
    paths: list[tuple[list[bool], Path[T]]] = []
    try:
        if any(condition is terms.ZERO for condition in assumed) or not oracle.feasible():
            return []
        while True:
            explorer.restart()
            try:
                result = run()
                if unasked is not None and not unasked(result):
                    explorer.settle()
                paths.append((list(explorer.sides), Path(tuple(explorer.taken), result, oracle.assignment)))
            except _InfeasibleError:
                pass
            if not explorer.backtrack():
                return [path for _, path in sorted(paths, key=lambda found: found[0])]
            if len(paths) >= budget:
                raise PathBudgetError(
                    f"more than {budget} paths; raise the budget or combine conditions with & | ite()"
                )
    finally:
        decider.reset(token)
        explorer.unwind()
        for _ in assumed:
            oracle.pop()


class _InfeasibleError(Exception):
    """The run is on a side that turns out to be infeasible."""


class _Explorer:
    """Depth-first search over the answers, keeping the oracle's assumptions in step.

    Args:
        oracle: says what is feasible.
        lazy: begin with a side without knowing that it is feasible; `settle` finds out.
    """

    def __init__(self, oracle: Oracle, *, lazy: bool) -> None:
        self._oracle, self._lazy = oracle, lazy
        self.taken: list[Term] = []
        self.sides: list[bool] = []  # per answer, whether it was the false side
        self._open: list[bool] = []  # whether the other side of each answer is still to be tried
        self._unsettled = False  # whether it is unknown that the latest side is feasible
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
            self.settle()
            answer = self._fork(condition, negation)
        self._position += 1
        self._known.add(condition if answer else negation)
        return answer

    def settle(self) -> None:
        """Find out whether the latest side is feasible, if that was left open."""
        if self._unsettled:
            self._unsettled = False
            if not self._oracle.feasible():
                raise _InfeasibleError

    def _fork(self, condition: Term, negation: Term) -> bool:
        """Take a side that is feasible at no cost, or else one that is at all; the other is tried later."""
        for side in (condition, negation):
            self._oracle.push(side)
            if self._oracle.assignment is not None:
                return self._take(side, negation, True)
            self._oracle.pop()
        self._oracle.push(condition)
        if self._oracle.feasible():
            return self._take(condition, negation, True)
        self._oracle.pop()
        self._oracle.push(negation)
        return self._take(negation, negation, False)

    def _take(self, side: Term, negation: Term, other: bool) -> bool:
        self.taken.append(side)
        self.sides.append(side is negation)
        self._open.append(other)
        return side is not negation

    def backtrack(self) -> bool:
        self._unsettled = False
        while self.taken:
            last, side = self.taken.pop(), self.sides.pop()
            self._oracle.pop()
            if self._open.pop():
                other = terms.invert(last)
                self._oracle.push(other)
                if self._lazy or self._oracle.feasible():
                    self.taken.append(other)
                    self.sides.append(not side)
                    self._open.append(False)
                    self._unsettled = self._lazy
                    return True
                self._oracle.pop()
        return False

    def unwind(self) -> None:
        for _ in self.taken:
            self._oracle.pop()
        self.taken.clear()
