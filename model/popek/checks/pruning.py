"""Pruning an exploration: which sides of a fork are possible.

Where one side of a fork is possible the other mostly is so too, after a small change.  So the assignment that
fulfils the path so far is kept, first for all but what the new condition is the first to read, then for all
but what it reads; only where that fails is the whole path asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from popek.kernel import terms
from popek.kernel.terms import Term
from popek.kernel.words import Word

from .solver import Answer, Effort, Model, Solver

# Solver resources for one fork.  A path that is not pruned costs little: its condition is false.
FEASIBILITY = 60_000
# The same, near a known assignment.
NEAR = 150_000


class Pruner:
    """The oracle of an exploration: conditions, and after each an assignment that fulfils all so far.

    Args:
        effort: bounds, and the tally.
        prefer: conditions (width 1) that assignments should fulfil where that costs nothing.
        rlimit: Z3 resource units for one fork.

    Attributes:
        translated: a solver whose translations others may share.
    """

    def __init__(
        self, effort: Effort | None = None, *, prefer: Sequence[Word] = (), rlimit: int = FEASIBILITY
    ) -> None:
        self.translated = Solver(effort, rlimit=rlimit)
        self._effort, self._prefer, self._rlimit = effort, [word.term for word in prefer], rlimit
        self._conditions: list[Term] = []
        self._models: list[Model | None] = [None]
        self._parts_of: dict[Term, list[Term]] = {}

    @property
    def assignment(self) -> Model | None:
        """What fulfils every condition, where that is known."""
        return self._models[-1]

    def push(self, condition: Term | Word) -> None:
        """Assume a condition (width 1) on top of the earlier ones."""
        self._conditions.append(condition.term if isinstance(condition, Word) else condition)
        model = self._models[-1]
        self._models.append(model if model is not None and self._fulfils(model) else None)

    def pop(self) -> None:
        """Drop the latest assumption."""
        self._conditions.pop()
        self._models.pop()

    def feasible(self) -> bool:
        """False only when the assumptions contradict one another; unknown counts as feasible."""
        if self._models[-1] is not None:
            return True
        answer, self._models[-1] = self._search()
        return answer is not Answer.UNSAT

    def _search(self) -> tuple[Answer, Model | None]:
        known = max((i for i, model in enumerate(self._models) if model is not None), default=0)
        model = self._models[known]
        if model is None:
            found = self._ask([*self._conditions, *self._prefer])
            return found if found[0] is Answer.SAT else self._ask(self._conditions)
        unknowns = self.translated.unknowns
        old, new = unknowns(self._conditions[:known]), unknowns(self._conditions[known:])
        fresh, changing = {u for u in new if u not in old}, set(new)
        for ring in (fresh, changing, {*changing, *unknowns(self._affected(changing, known))}):
            if ring:
                found = self._near(model, ring, known)
                if found[0] is Answer.SAT:
                    return found
                if found[0] is Answer.UNKNOWN:
                    break
        return self._ask(self._conditions)

    def _fulfils(self, model: Model) -> bool:
        return model(self._conditions[-1]) == 1 and model.consistent(self._cells())

    def _cells(self) -> list[Term]:
        return [unknown for unknown in self.translated.unknowns(self._conditions) if unknown.op == "apply"]

    def _affected(self, changing: set[Term], known: int) -> list[Term]:
        """What must be asked: the new conditions, and what else reads something that changes."""
        unknowns = self.translated.unknowns
        old = self._parts(self._conditions[:known])
        new = self._conditions[known:]
        return [*new, *(part for part in old if not changing.isdisjoint(unknowns([part])))]

    def _near(self, model: Model, changing: set[Term], known: int) -> tuple[Answer, Model | None]:
        """An assignment that differs only in what is changing from one for the first `known` conditions."""
        kept = [u for u in self.translated.unknowns(self._conditions) if u not in changing]
        return self._ask(self._affected(changing, known), kept, model, NEAR)

    def _ask(
        self,
        conditions: Iterable[Term],
        kept: Iterable[Term] = (),
        model: Model | None = None,
        rlimit: int | None = None,
    ) -> tuple[Answer, Model | None]:
        near = model is not None
        solver = Solver(self._effort, rlimit=rlimit or self._rlimit, beside=self.translated, quick=near)
        for condition in conditions:
            solver.add(condition)
        if model is not None:
            solver.fix(kept, model)
        answer = solver.check()
        return answer, solver.model() if answer is Answer.SAT else None

    def _parts(self, conditions: Iterable[Term]) -> list[Term]:
        """The conditions, a conjunction as its parts."""
        found = []
        for condition in conditions:
            if condition not in self._parts_of:
                self._parts_of[condition] = list(terms.conjuncts(condition))
            found += self._parts_of[condition]
        return found
