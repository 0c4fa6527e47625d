"""Asking several questions that share assumptions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import attrs

from popek.kernel.terms import Term
from popek.kernel.words import Word

from .solver import Answer, Effort, Model, QuestionKind, Solver

Ask = Callable[[Sequence[Word]], bool | None]
"""Whether conditions (width 1) can hold together; None when that was not decided."""


EVALUATION = "an assignment met before"


@attrs.frozen(eq=False)
class SolverQuery:
    """What a solver was really asked.

    Attributes:
        conditions: of width 1, those that were assumed among them.
        solver: who answered; `EVALUATION` where a known assignment did.
        seconds: what it took.
    """

    conditions: tuple[Word, ...]
    answer: Answer
    solver: str
    seconds: float = 0.0


class Asker:
    """Questions under common assumptions; terms are translated once for all of them.

    Args:
        effort: bounds, and the tally.
        assumed: conditions (width 1) of every question.
        beside: a solver whose translations it shares.
        kind: what the questions are like.
        excluded: what was found impossible, by its conditions, and is not searched for again; many forms reach storage
            in the same way.
    """

    def __init__(
        self,
        effort: Effort,
        assumed: Sequence[Word],
        beside: Solver | None = None,
        *,
        kind: QuestionKind = QuestionKind.LIKELY,
        excluded: dict[frozenset[Term], SolverQuery] | None = None,
    ) -> None:
        self._excluded = {} if excluded is None else excluded
        self.effort, self.assumed, self._kind = effort, list(assumed), kind
        self._translated = Solver(effort, beside=beside)

    def solver(self, *conditions: Word) -> Solver:
        """A solver for one question: questions have little in common but the terms."""
        solver = Solver(self.effort, beside=self._translated, kind=self._kind)
        for condition in (*self.assumed, *conditions):
            solver.add(condition)
        return solver

    def fulfilled(self, model: Model, *conditions: Word) -> bool:
        """Whether a known assignment answers a question: no search."""
        roots = [condition.term for condition in (*self.assumed, *conditions)]
        return all(map(model, roots)) and model.consistent(
            unknown for unknown in self._translated.unknowns(roots) if unknown.op == "apply"
        )

    def first(
        self,
        alternatives: Iterable[Sequence[Word]],
        *,
        rlimit: int | None = None,
        asked: list[SolverQuery] | None = None,
    ) -> Answer:
        """Whether one of the alternatives is possible.

        Args:
            rlimit: bounds the search for each.
            asked: what the solver is asked is added here.
        """
        answer = Answer.UNSAT
        for conditions in alternatives:
            if any(condition.value == 0 for condition in conditions):
                continue
            key = frozenset(condition.term for condition in (*self.assumed, *conditions))
            if key in self._excluded:
                if asked is not None:
                    asked.append(self._excluded[key])
                continue
            solver, begin = self.solver(*conditions), self.effort.seconds
            found = solver.check(rlimit=rlimit)
            whole = (*self.assumed, *conditions, *(Word(1, told) for told in solver.told))
            query = SolverQuery(whole, found, solver.name, self.effort.seconds - begin)
            if asked is not None:
                asked.append(query)
            if found is Answer.UNSAT and query.seconds > _WORTH_KEEPING:
                self._excluded[key] = query
            if found is Answer.SAT:
                return found
            if found is Answer.UNKNOWN:
                answer = found
        return answer


_WORTH_KEEPING = 0.1  # seconds; it decides what is asked again, and never an answer
_KNOWN = {Answer.SAT: True, Answer.UNSAT: False, Answer.UNKNOWN: None}


def assume(base: Sequence[Word], beside: Solver | None = None) -> Ask:
    """Ask under these assumptions, beside a solver whose translations are shared."""
    asker = Asker(Effort(), base, beside)
    return lambda conditions: _KNOWN[asker.first([conditions])]
