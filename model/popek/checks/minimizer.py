"""Models made minimal: term by term, in a fixed order, towards preferred values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from popek.kernel import terms
from popek.kernel.terms import Term
from popek.kernel.words import Word
from popek.solving.solver import Answer, Model, QuestionKind, Solver

GUESSES = 4  # before nothing is guessed


class Minimizer:
    """Makes a model minimal: variable by variable, in a fixed order, towards preferred values."""

    def __init__(self, solver: Solver, conditions: Sequence[Word]) -> None:
        self._solver = Solver(solver.effort, beside=solver, kind=QuestionKind.CORES)
        for condition in conditions:
            self._solver.add(condition)
        self._roots = [condition.term for condition in conditions]
        self.variables = terms.variables_of(self._roots)

    def run(
        self,
        model: Model,
        preferences: Iterable[tuple[Term, Term]],
        guess: Mapping[str, int] | None = None,
    ) -> Model:
        """The model in which each term has its preferred value if the earlier ones allow it.

        Where it cannot, so it is with its bits, the high ones first.  Preferences that the current model meets cost
        nothing; others are tried many at once.  Where that fails, the solver names the last one that is to blame: it
        cannot be had beside those before it, which are tried next.

        Args:
            guess: values of variables that may be near to it, which saves work.
        """
        self._model = model
        guessed = self._guessed({} if guess is None else guess)
        wishes = [wish for wish in _wishes(preferences) if wish.condition.op != "const"]
        # How far to try: how many wishes are left then, and whether the next of them is then known to be impossible.
        ends = [(0, False)]
        while wishes:
            del wishes[: self._met(wishes)]
            while ends and ends[-1][0] > len(wishes):
                ends.pop()
            if not wishes:
                break
            left, refused = ends.pop()
            count = len(wishes) - left
            answer = Answer.UNSAT
            if count:
                ends.append((left, refused))
                count = 1 if guessed else count
                answer = self._grant(wishes[:count])
                guessed = guessed and answer is Answer.UNSAT
                if answer is Answer.SAT:
                    continue  # they are met
                count = self._solver.core()[-1] if answer is Answer.UNSAT else count // 2
                refused = count == 0
                if count:
                    ends.append((len(wishes) - count, answer is Answer.UNSAT))
            if refused:
                bits = _bits(wishes[0])
                wishes[:1] = bits
                # What was known is so beside the wish as a whole.
                ends = [(end, False) for end, _ in ends if end < len(wishes)]
                if bits:
                    ends.append((len(wishes) - len(bits) + 1, answer is Answer.UNSAT))
        return self._model

    def _guessed(self, guess: Mapping[str, int]) -> bool:
        """Take a model with the values that were guessed, as many as can be had; whether there is one."""
        names = [name for name in self.variables if name in guess]
        for _ in range(GUESSES):
            if not names:
                break
            variables = [self.variables[name] for name in names]
            values = [terms.const(v.width, guess[n]) for n, v in zip(names, variables, strict=True)]
            answer = self._solver.check(
                terms.compare("eq", *pair) for pair in zip(variables, values, strict=True)
            )
            if answer is Answer.SAT:
                self._model = self._solver.model()
                return True
            if answer is Answer.UNKNOWN:
                break
            wrong = {names[number] for number in self._solver.core()}
            names = [name for name in names if name not in wrong]
        return False

    def _met(self, wishes: Sequence[_Wish]) -> int:
        """Assert the first wishes, as many as the current model meets; how many these are."""
        for number, wish in enumerate(wishes):
            if not self._model(wish.condition):
                return number
            self._solver.add(wish.condition)
        return len(wishes)

    def _grant(self, wishes: Sequence[_Wish]) -> Answer:
        """Whether the wishes can be had together; if so the current model meets them."""
        answer = self._solver.check(wish.condition for wish in wishes)
        if answer is Answer.SAT:
            self._model = self._solver.model()
        return answer

    def cells(self) -> list[Term]:
        """The storage cells (applications of a memory's unknown contents) that the query reads."""
        return terms.applications_of(self._roots)


@attrs.frozen(eq=False)
class _Wish:
    """A term, what it should be, and the condition that it is."""

    term: Term
    preferred: Term
    condition: Term


def _wishes(preferences: Iterable[tuple[Term, Term]]) -> list[_Wish]:
    return [_Wish(*wish, terms.compare("eq", *wish)) for wish in preferences]


def _bits(wish: _Wish) -> list[_Wish]:
    """A wish for a term as one for each of its bits, the high one first; none for that of a bit."""
    places = () if wish.term.width == 1 else reversed(range(wish.term.width))
    return _wishes((terms.extract(wish.term, i, i), terms.extract(wish.preferred, i, i)) for i in places)
