"""Z3 beyond yes and no: the cheapest model of a formula, and the smallest reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import z3

from popek.kernel.words import Word

from .solver import Answer, Effort, Model, Solver


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
    solver = Solver(effort)
    optimizer = z3.Optimize(ctx=solver._context)
    optimizer.set("rlimit", solver.effort.rlimit)
    for condition in hard:
        optimizer.add(solver.condition(condition.term))
    for wish, weight in wishes:
        optimizer.add_soft(solver.condition(wish.term), weight)
    answer = optimizer.check()
    solver.effort.checks += 1
    if answer == z3.sat:
        return Optimum(Answer.SAT, Model(solver, optimizer.model()))
    return Optimum(Answer.UNSAT if answer == z3.unsat else Answer.UNKNOWN)


class Choices:
    """Named conditions, any selection of which can be asked about.

    Args:
        named: conditions (width 1) by name.
        effort: bounds, and the tally.
    """

    def __init__(self, named: Mapping[str, Word], effort: Effort | None = None) -> None:
        self._solver = Solver(effort)
        self._inner = self._solver._solver
        self._literals = {
            name: z3.Bool(f"?{number}", ctx=self._solver._context) for number, name in enumerate(named)
        }
        self._names = {str(literal): name for name, literal in self._literals.items()}
        for name, condition in named.items():
            self._inner.add(z3.Implies(self._literals[name], self._solver.condition(condition.term)))

    def check(self, names: Iterable[str]) -> Answer:
        """Whether these conditions can hold together."""
        self._solver.effort.checks += 1
        answer = self._inner.check(*(self._literals[name] for name in names))
        if answer == z3.sat:
            return Answer.SAT
        return Answer.UNSAT if answer == z3.unsat else Answer.UNKNOWN

    def model(self) -> Model:
        """The assignment behind the latest SAT."""
        return Model(self._solver, self._inner.model())

    def core(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Those of the conditions that contradict one another, none of which can be spared; None if none do.

        A condition whose part in it Z3 cannot settle within its bounds stays in.
        """
        if self.check(names) is not Answer.UNSAT:
            return None
        kept = self._core()
        for name in list(kept):
            fewer = [other for other in kept if other != name]
            if name in kept and self.check(fewer) is Answer.UNSAT:
                left = set(self._core())
                kept = [other for other in fewer if other in left]
        return tuple(name for name in names if name in kept)

    def _core(self) -> list[str]:
        return [self._names[str(literal)] for literal in self._inner.unsat_core()]


def contradiction(named: Mapping[str, Word], effort: Effort | None = None) -> tuple[str, ...] | None:
    """The names of conditions that contradict one another, as `Choices.core` finds them."""
    return Choices(named, effort).core(tuple(named))
