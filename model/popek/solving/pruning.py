"""Pruning an exploration: which sides of a fork are possible.

The assignment that fulfils the path so far often fulfils one side of the next fork too; only otherwise is the
whole path asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from popek.kernel.terms import Term
from popek.kernel.words import Word

from .solver import Answer, Effort, Model, Solver

# Solver resources for one fork.  A path that is not pruned costs little: its condition is false.
FEASIBILITY = 60_000


class Pruner:
    """The oracle of an exploration: conditions, and after each an assignment that fulfils all so far.

    Args:
        effort: bounds, and the tally.
        prefer: conditions (width 1) that assignments should fulfil where that costs nothing.
        rlimit: work for one fork, as in `Effort`.

    Attributes:
        translated: a solver whose translations others may share.
    """

    def __init__(
        self, effort: Effort | None = None, *, prefer: Sequence[Word] = (), rlimit: int = FEASIBILITY
    ) -> None:
        self.translated = Solver(effort, rlimit=rlimit)
        self._prefer = [word.term for word in prefer]
        self._conditions: list[Term] = []
        self._models: list[Model | None] = [None]

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
        # The first assignment takes many paths further on.
        if all(model is None for model in self._models):
            found = self._ask([*self._conditions, *self._prefer])
            if found[0] is Answer.SAT:
                return found
        return self._ask(self._conditions)

    def _fulfils(self, model: Model) -> bool:
        return model(self._conditions[-1]) == 1 and model.consistent(self._cells())

    def _cells(self) -> list[Term]:
        return [unknown for unknown in self.translated.unknowns(self._conditions) if unknown.op == "apply"]

    def _ask(self, conditions: Iterable[Term]) -> tuple[Answer, Model | None]:
        # One solver for all forks of an exploration, which have most conditions in common.
        answer = self.translated.check(conditions)
        return answer, self.translated.model() if answer is Answer.SAT else None
