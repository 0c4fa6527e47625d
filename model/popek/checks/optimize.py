"""Beyond yes and no: the cheapest model of a formula, and the smallest reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

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
    return Optimum(*Solver(effort).cheapest(hard, wishes))


class Choices:
    """Named conditions, any selection of which can be asked about.

    Args:
        named: conditions (width 1) by name.
        effort: bounds, and the tally.
    """

    def __init__(self, named: Mapping[str, Word], effort: Effort | None = None) -> None:
        self._solver = Solver(effort)
        for name, condition in named.items():
            self._solver.add_named(name, condition)

    def check(self, names: Iterable[str]) -> Answer:
        """Whether these conditions can hold together."""
        return self._solver.check_named(names)

    def model(self) -> Model:
        """The assignment behind the latest SAT."""
        return self._solver.model()

    def core(self, names: Sequence[str]) -> tuple[str, ...] | None:
        """Those of the conditions that contradict one another, none of which can be spared; None if none do.

        A condition whose part in it Z3 cannot settle within its bounds stays in.
        """
        if self.check(names) is not Answer.UNSAT:
            return None
        kept = self._solver.core()
        for name in list(kept):
            fewer = [other for other in kept if other != name]
            if name in kept and self.check(fewer) is Answer.UNSAT:
                left = set(self._solver.core())
                kept = [other for other in fewer if other in left]
        return tuple(name for name in names if name in kept)


def contradiction(named: Mapping[str, Word], effort: Effort | None = None) -> tuple[str, ...] | None:
    """The names of conditions that contradict one another, as `Choices.core` finds them."""
    return Choices(named, effort).core(tuple(named))
