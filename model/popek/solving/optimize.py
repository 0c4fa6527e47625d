"""Beyond yes and no, by Z3: the cheapest model of a formula, and the smallest reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import z3

from popek.kernel.terms import Term
from popek.kernel.words import Word

from .engine_z3 import Z3Engine, answer_of
from .solver import Answer, Effort, Model


@attrs.frozen
class Optimum:
    """An answer, with the cheapest model if it is SAT."""

    answer: Answer
    model: Model | None = None


def cheapest(
    hard: Iterable[Word], wishes: Sequence[tuple[Word, int]], effort: Effort | None = None
) -> Optimum:
    """A model of `hard` that breaks wishes of the least total weight.

    Args:
        hard: conditions (width 1), without memory.
        wishes: conditions with what it costs to break each.
        effort: bounds, and the tally.
    """
    effort, engine = effort or Effort(), Z3Engine()
    optimizer = z3.Optimize(ctx=engine.context)
    optimizer.set("rlimit", effort.rlimit)
    roots = [condition.term for condition in hard]
    for root in roots:
        optimizer.add(engine.condition(root))
    for wish, weight in wishes:
        optimizer.add_soft(engine.condition(wish.term), weight)
        roots.append(wish.term)
    answer = answer_of(optimizer.check())
    effort.checks += 1
    if answer is not Answer.SAT:
        return Optimum(answer)
    found = optimizer.model()
    return Optimum(answer, _model(engine, roots, lambda vector: found.eval(vector, True).as_long()))


class Choices:
    """Named conditions, any selection of which can be asked about.

    Args:
        named: conditions (width 1) by name; cells of memory are unrelated.
        effort: bounds, and the tally.
    """

    def __init__(self, named: Mapping[str, Word], effort: Effort | None = None) -> None:
        self._effort, self._named = effort or Effort(), dict(named)
        self._engine = Z3Engine()
        self._session = self._engine.session()
        self._literals = {name: z3.Bool(f"?{i}", ctx=self._engine.context) for i, name in enumerate(named)}
        for name, condition in named.items():
            self._session.add(z3.Implies(self._literals[name], self._engine.condition(condition.term)))

    def check(self, names: Iterable[str]) -> Answer:
        """Whether these conditions can hold together."""
        self._effort.checks += 1
        return self._session.check([self._literals[name] for name in names], self._effort.rlimit)

    def model(self) -> Model:
        """The assignment behind the latest SAT."""
        roots = [condition.term for condition in self._named.values()]
        return _model(self._engine, roots, self._session.number)

    def core(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Those of the conditions that contradict one another, none of which can be spared; None if none do.

        A condition whose part in it Z3 cannot settle within its bounds stays in.
        """
        if self.check(names) is not Answer.UNSAT:
            return None
        kept = self._latest_core()
        for name in list(kept):
            fewer = [other for other in kept if other != name]
            if name in kept and self.check(fewer) is Answer.UNSAT:
                left = set(self._latest_core())
                kept = [other for other in fewer if other in left]
        return tuple(name for name in names if name in kept)

    def _latest_core(self) -> list[str]:
        names = {str(literal): name for name, literal in self._literals.items()}
        return [names[str(literal)] for literal in self._session.core()]


def _model(engine: Z3Engine, roots: Iterable[Term], number: Callable[[Any], int]) -> Model:
    unknowns = {unknown for root in roots for unknown in engine.unknowns[root]}
    return Model({unknown: number(engine.vector(unknown)) for unknown in unknowns})


def contradiction(named: Mapping[str, Word], effort: Effort | None = None) -> tuple[str, ...] | None:
    """The names of conditions that contradict one another, as `Choices.core` finds them."""
    return Choices(named, effort).core(tuple(named))
