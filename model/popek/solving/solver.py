"""The one place where terms meet a solver.

Terms are translated in a fixed order, and effort is bounded by what a solver counts rather than by the clock,
so an answer is the same on every run.  Memory contents are uninterpreted functions from address to cell; each
application becomes a variable, and equal arguments force equal values (Ackermann's reduction), so every query
is plain QF_BV.  Most pairs of cells never matter: a pair is tied only when an assignment would have it
otherwise, and the check is repeated.  So it is with functions that are known (`popek.kernel.opaque`): the value at
the numbers that an assignment has is told, and what the function is if that does not do.

Which solver it is `popek.solving.choice` says; this module and its users know of none.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import attrs

from popek.kernel import terms
from popek.kernel.evaluation import Evaluation
from popek.kernel.terms import Term
from popek.kernel.words import Word

from .choice import chosen_solver
from .engine import Answer, Engine, QuestionKind

GUESSES: Final = 4  # of a known function's value, before the solver is told what the function is


@attrs.define
class Effort:
    """How hard to try, and what was spent.

    Attributes:
        rlimit: work a single check may take, in Z3's resource units (roughly, where Bitwuzla answers); 0 for
            no bound.
        timeout: seconds a single check may take; 0 for no bound.
        seconds: time spent inside the solver so far.
        checks: number of checks so far.
    """

    rlimit: int = 20_000_000
    timeout: float = 0.0
    seconds: float = 0.0
    checks: int = 0


class Model:
    """A satisfying assignment: numbers for variables and cells; what the query does not mention is 0.

    Args:
        values: the numbers.
    """

    def __init__(self, values: Mapping[Term, int]) -> None:
        self._numbers = Evaluation(lambda unknown, args: 0, values)

    def __call__(self, term: Term) -> int:
        """The number that a term has."""
        return self._numbers(term)

    def consistent(self, cells: Iterable[Term]) -> bool:
        """Whether cells at equal addresses have equal values."""
        return not _loose(cells, self)


def new_engine() -> Engine:
    """A new engine of the solver that is to answer.

    Raises:
        ValueError: as `chosen_solver`.
    """
    if chosen_solver() == "z3":
        from .engine_z3 import Z3Engine

        return Z3Engine()
    from .engine_bitwuzla import BitwuzlaEngine

    return BitwuzlaEngine()


class Solver:
    """An incremental solver over terms.

    Args:
        effort: bounds, and the tally.
        rlimit: the bound of a check, where it is to be another than the effort's.
        beside: a solver whose translations it shares; nothing else.
        kind: what its questions are like.
    """

    def __init__(
        self,
        effort: Effort | None = None,
        *,
        rlimit: int | None = None,
        beside: Solver | None = None,
        kind: QuestionKind = QuestionKind.LIKELY,
    ) -> None:
        self.effort = effort or Effort()
        self._engine: Engine = new_engine() if beside is None else beside._engine
        self._session = self._engine.session(seconds=self.effort.timeout, kind=kind)
        self._bound = self.effort.rlimit if rlimit is None else rlimit
        self._asserted: list[list[Term]] = [[]]  # by level
        self._cells: list[list[Term]] = [[]]  # by level: those that its conditions read
        self._assumed: list[Term] = []  # in the latest check
        self._put: list[Any] = []  # the same, translated
        self._missed: Counter[Term] = Counter()
        self.told: list[Term] = []  # of what functions are, in the latest check

    @property
    def name(self) -> str:
        """Which solver answers, with its version."""
        return self._engine.name

    # -- assumptions --------------------------------------------------------------------------

    def add(self, condition: Term | Word) -> None:
        """Assert a condition (width 1)."""
        term = _term(condition)
        self._session.add(self._engine.condition(term))
        self._asserted[-1].append(term)
        self._cells[-1] += self._cells_of(term)

    def unknowns(self, conditions: Iterable[Term]) -> dict[Term, None]:
        """The variables and cells that conditions read, in order of first use."""
        found: dict[Term, None] = {}
        for condition in conditions:
            self._engine.condition(condition)
            found.update(dict.fromkeys(self._engine.unknowns[condition]))
        return found

    def _cells_of(self, condition: Term) -> list[Term]:
        return [unknown for unknown in self._engine.unknowns[condition] if unknown.op == "apply"]

    def push(self, condition: Term | Word | None = None) -> None:
        """Open a level, and assert a condition on it."""
        self._session.push()
        self._asserted.append([])
        self._cells.append([])
        if condition is not None:
            self.add(condition)

    def pop(self) -> None:
        """Close the latest level."""
        self._session.pop()
        self._asserted.pop()
        self._cells.pop()

    # -- answers ------------------------------------------------------------------------------

    def check(self, assumptions: Iterable[Term | Word] = (), *, rlimit: int | None = None) -> Answer:
        """Whether what was asserted, and the assumptions, can hold together; `rlimit` for this check alone."""
        bound = self._bound if rlimit is None else rlimit
        self._assumed = [_term(a) for a in assumptions]
        assumed = self._put = [self._engine.condition(a) for a in self._assumed]
        cells = [*chain.from_iterable(self._cells), *chain.from_iterable(map(self._cells_of, self._assumed))]
        start = time.process_time()
        answer, self.told = self._session.check(assumed, bound), []
        while answer is Answer.SAT and (lemmas := self._lemmas(cells)):
            for lemma in lemmas:
                self._session.add(self._engine.condition(lemma))
            answer = self._session.check(assumed, bound)
        self.effort.seconds += time.process_time() - start
        self.effort.checks += 1
        return answer

    def core(self) -> list[int]:
        """After an UNSAT of `CORES` questions, assumptions that cannot hold together, by number."""
        core = set(self._session.core())
        return [number for number, condition in enumerate(self._put) if condition in core]

    def _lemmas(self, cells: Sequence[Term]) -> list[Term]:
        """What the latest assignment offends: equal arguments give equal values; some functions are known."""
        lemmas = [_tied(*pair) for pair in _loose(cells, self._number)]
        if lemmas:
            return lemmas
        for cell in dict.fromkeys(cell for cell in cells if cell.data in terms.MEANINGS):
            numbers = [terms.const(arg.width, self._number(arg)) for arg in cell.args]
            value = terms.apply(str(cell.data), cell.width, *numbers)
            if value.data == self._number(cell):
                continue
            self._missed[cell] += 1
            if self._missed[cell] > GUESSES:
                lemmas.append(terms.compare("eq", cell, terms.MEANINGS[str(cell.data)](*cell.args)))
            else:
                lemmas.append(_point(cell, numbers, value))
        self.told += lemmas
        return lemmas

    def model(self) -> Model:
        """The assignment behind the latest SAT, as long as nothing was asserted since."""
        return Model({unknown: self._number(unknown) for unknown in self.unknowns(self._conditions())})

    def _conditions(self) -> list[Term]:
        return [*chain.from_iterable(self._asserted), *self._assumed]

    def _number(self, term: Term) -> int:
        return self._session.number(self._engine.vector(term))


def _tied(a: Term, b: Term) -> Term:
    """Equal arguments give equal values."""
    differ = terms.ZERO
    for left, right in zip(a.args, b.args, strict=True):
        differ = terms.arithmetic("or", differ, terms.invert(terms.compare("eq", left, right)))
    return terms.arithmetic("or", differ, terms.compare("eq", a, b))


def _point(cell: Term, numbers: Sequence[Term], value: Term) -> Term:
    """At these numbers the function has this value."""
    lemma = terms.compare("eq", cell, value)
    for arg, number in zip(cell.args, numbers, strict=True):
        lemma = terms.arithmetic("or", lemma, terms.invert(terms.compare("eq", arg, number)))
    return lemma


def _loose(cells: Iterable[Term], number: Callable[[Term], int]) -> list[tuple[Term, Term]]:
    """The cells to which an assignment gives equal arguments and different values."""
    found = []
    seen: dict[tuple[object, ...], Term] = {}
    for cell in cells:
        where = (cell.data, *map(number, cell.args))
        other = seen.setdefault(where, cell)
        if other is not cell and number(cell) != number(other):
            found.append((other, cell))
    return found


def _term(condition: Term | Word) -> Term:
    return condition.term if isinstance(condition, Word) else condition


def solver_version() -> str:
    """Which solver answers."""
    return new_engine().name


def sha256(text: str) -> str:
    """The hash that names a query."""
    return hashlib.sha256(text.encode()).hexdigest()


def holds(claim: Word, assuming: Sequence[Word] = (), effort: Effort | None = None) -> Answer:
    """Ask whether `claim` can fail: UNSAT means that it always holds under the assumptions."""
    solver = Solver(effort)
    for assumption in assuming:
        solver.add(assumption)
    solver.add(~claim)
    return solver.check()


def assignment(model: Model, roots: Iterable[Term]) -> Mapping[str, int]:
    """The values of the variables below the roots."""
    return {name: model(variable) for name, variable in terms.variables_of(roots).items()}


__all__ = [
    "Answer",
    "Effort",
    "Model",
    "QuestionKind",
    "Solver",
    "assignment",
    "holds",
    "new_engine",
    "sha256",
    "solver_version",
]
