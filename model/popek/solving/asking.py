"""Asking several questions that share assumptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from popek.kernel.words import Word

from .solver import Answer, Effort, Model, Solver

Ask = Callable[[Sequence[Word]], bool | None]
"""Whether conditions (width 1) can hold together; None when that was not decided."""


class Asker:
    """Questions under common assumptions; terms are translated once for all of them.

    Args:
        effort: bounds, and the tally.
        assumed: conditions (width 1) of every question.
        beside: a solver whose translations it shares.
    """

    def __init__(self, effort: Effort, assumed: Sequence[Word], beside: Solver | None = None) -> None:
        self.effort, self.assumed = effort, list(assumed)
        self._translated = Solver(effort, beside=beside)

    def solver(self, *conditions: Word) -> Solver:
        """A solver for one question: questions have little in common but the terms."""
        solver = Solver(self.effort, beside=self._translated)
        for condition in (*self.assumed, *conditions):
            solver.add(condition)
        return solver

    def fulfilled(self, model: Model, *conditions: Word) -> bool:
        """Whether a known assignment answers a question: no search."""
        roots = [condition.term for condition in (*self.assumed, *conditions)]
        return all(map(model, roots)) and model.consistent(
            unknown for unknown in self._translated.unknowns(roots) if unknown.op == "apply"
        )

    def first(self, alternatives: Iterable[Sequence[Word]], *, rlimit: int | None = None) -> Answer:
        """Whether one of the alternatives is possible; `rlimit` bounds the search for each."""
        answer = Answer.UNSAT
        for conditions in alternatives:
            if any(condition.value == 0 for condition in conditions):
                continue
            match self.solver(*conditions).check(rlimit=rlimit):
                case Answer.SAT:
                    return Answer.SAT
                case Answer.UNKNOWN:
                    answer = Answer.UNKNOWN
        return answer


_KNOWN = {Answer.SAT: True, Answer.UNSAT: False, Answer.UNKNOWN: None}


def assume(base: Sequence[Word], beside: Solver | None = None) -> Ask:
    """Ask under these assumptions, beside a solver whose translations are shared."""
    asker = Asker(Effort(), base, beside)
    return lambda conditions: _KNOWN[asker.first([conditions])]
