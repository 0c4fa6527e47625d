"""Exploration: run plain Python once per feasible path over symbolic words.

`explore(run, oracle)` calls `run` again and again.  Each `if` on a symbolic condition asks which
sides are feasible; where both are, one side is taken now and the other in a later run.  The result is
one `Path` per way through the code.  The paths' conditions exclude one another and, together, cover
every case that the assumptions allow; a property test holds this for every instruction.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, Generic, Protocol, TypeVar

import attrs

from . import terms
from .outcome import SemanticsError
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
    """The code has more paths, or longer ones, than the budget allows; the message says where it was."""


@attrs.frozen
class Budget:
    """How much an exploration may do.  Everything is counted, nothing is timed.

    Attributes:
        paths: feasible ways through.
        forks: decisions that could go both ways on one path; there is a path behind each.
        lines: lines run on one path in code that has loops.
        nodes: terms that are alive, more than at the start: memory.
    """

    paths: int = 2000
    forks: int = 1000
    lines: int = 200_000
    nodes: int = 3_000_000


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
    budget: int | Budget = 2000,
    looping: frozenset[CodeType] = frozenset(),
    unasked: Callable[[T], bool] | None = None,
) -> list[Path[T]]:
    """Every feasible path through `run`, the true side of each `if` before the false one.

    Args:
        run: called once per path; must do the same thing each time it is given the same answers.
        oracle: prunes infeasible sides.
        assume: conditions (width 1) that hold at the start.
        budget: how much may be done; a number is that of the paths.
        looping: code of which the lines are counted, so that a loop without decisions ends.
        unasked: results that nobody minds to see on an infeasible path, whose condition is false: no search is
            made for a side that comes to one before it forks again.

    Raises:
        PathBudgetError: there is more than the budget.
    """
    limits = Budget(paths=budget) if isinstance(budget, int) else budget
    explorer = _Explorer(oracle, limits, lazy=unasked is not None)
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
                with _counted_lines(looping, limits.lines):
                    result = run()
                if unasked is not None and not unasked(result):
                    explorer.settle()
                paths.append((list(explorer.sides), Path(tuple(explorer.taken), result, oracle.assignment)))
            except _InfeasibleError:
                pass
            if not explorer.backtrack():
                return [path for _, path in sorted(paths, key=lambda found: found[0])]
            if len(paths) >= limits.paths:
                raise PathBudgetError(
                    f"budget of {limits.paths} paths{explorer.place}; combine conditions with & | ite()"
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
        limits: of forks on a path and of terms.
        lazy: begin with a side without knowing that it is feasible; `settle` finds out.
    """

    def __init__(self, oracle: Oracle, limits: Budget, *, lazy: bool) -> None:
        self._oracle, self._limits, self._lazy = oracle, limits, lazy
        self._nodes = terms.alive()
        self.place = ""  # of the latest decision
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
                raise SemanticsError(
                    f"it is no function of the state: run again, it asks another question{_place()}"
                )
        else:
            self.settle()
            self._assert_within()
            answer = self._fork(condition, negation)
        self._position += 1
        self._known.add(condition if answer else negation)
        return answer

    def _assert_within(self) -> None:
        """Stop where there are too many forks on this path, or too many terms."""
        self.place = _place()
        if len(self.taken) >= self._limits.forks:
            raise PathBudgetError(f"budget of {self._limits.forks} decisions on one path{self.place}")
        if terms.alive() - self._nodes > self._limits.nodes:
            raise PathBudgetError(f"budget of {self._limits.nodes} terms{self.place}")

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


# -- where, and how long --------------------------------------------------------------------------


def _place() -> str:
    """The file and line of the semantics that are being run: the first caller outside this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(__package__ + "."):
        frame = frame.f_back
    return "" if frame is None else f", at {frame.f_code.co_filename}:{frame.f_lineno}"


@contextmanager
def _counted_lines(looping: frozenset[CodeType], budget: int) -> Iterator[None]:
    """Stop after so many lines of code that has loops; nothing is done where there is none."""
    if not looping:
        yield
        return
    left = budget

    def line(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        nonlocal left
        left -= event in ("line", "opcode")
        if left < 0:
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise PathBudgetError(f"budget of {budget} lines on one path, at {where}")
        return line

    def call(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if frame.f_code not in looping:
            return None
        frame.f_trace_opcodes = _stands_still(frame.f_code)
        return line

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(before)


@functools.lru_cache(maxsize=64)
def _stands_still(code: CodeType) -> bool:
    """It has `while True: pass`, of which Python tells no lines."""
    steps = dis.get_instructions(code)
    return any("JUMP_BACKWARD" in step.opname and step.argval == step.offset for step in steps)


# What comes with the package ends: every form is explored by its tests.
_OURS = f"{__name__.partition('.')[0]}."


def looping_code(function: Callable[..., Any]) -> frozenset[CodeType]:
    """The code that has loops, of a function and of what it names, but for what comes with the package."""
    found: set[CodeType] = set()
    seen: set[CodeType] = set()
    pending: list[Any] = [function]
    while pending:
        one = pending.pop()
        code = getattr(one, "__code__", None)
        if code is None or code in seen or (one.__module__ or "").startswith(_OURS):
            continue
        cells = [cell.cell_contents for cell in one.__closure__ or () if _filled(cell)]
        pending += [one.__globals__[name] for name in code.co_names if name in one.__globals__] + cells
        codes = [code]
        while codes:
            inner = codes.pop()
            if inner not in seen:
                seen.add(inner)
                codes += [constant for constant in inner.co_consts if isinstance(constant, CodeType)]
                if any("JUMP_BACKWARD" in step.opname for step in dis.get_instructions(inner)):
                    found.add(inner)
    return frozenset(found)


@functools.cache
def looping_methods(kind: type) -> frozenset[CodeType]:
    """The code with loops of a class's own methods."""
    own = [value for one in kind.__mro__ for value in vars(one).values()]
    methods = [getattr(value, "fget", value) for value in own]
    return frozenset(code for method in methods for code in looping_code(method))


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # an empty cell
        return False
