"""Verdicts: a claim, holds / refuted / unknown, and the evidence for it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import attrs

from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word
from popek.solving.asking import SolverQuery
from popek.solving.solver import Answer, Effort, Model, Solver, sha256, solver_version

from .ladder import HOW_TO_CERTIFY, HOW_TO_CONFIRM, NOT_WANTED, LadderStep, Reached, Rung

if TYPE_CHECKING:
    from .certification import Certification, Certifier

SIMPLIFICATION = "simplification"


class Truth(enum.Enum):
    """One of four answers.  It has no truth value of its own: compare it.

    UNKNOWN was asked and not decided; NOT_ASKED has no meaning for this machine or technique, or needs something
    that they do not say.
    """

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    NOT_ASKED = "not-asked"

    def __bool__(self) -> bool:
        raise TypeError("an answer is no bool: compare it with Truth.YES, NO, UNKNOWN or NOT_ASKED")


def yes_if(condition: bool) -> Truth:
    """YES or NO."""
    return Truth.YES if condition else Truth.NO


def either(a: Truth, b: Truth) -> Truth:
    """Or: yes if one is; no only if both were asked."""
    return next((t for t in (Truth.YES, Truth.UNKNOWN, Truth.NOT_ASKED) if t in (a, b)), Truth.NO)


def both(a: Truth, b: Truth) -> Truth:
    """And: no if one is; yes only if both were asked."""
    return next((t for t in (Truth.NO, Truth.UNKNOWN, Truth.NOT_ASKED) if t in (a, b)), Truth.YES)


def any_asked(answers: Iterable[Truth]) -> Truth:
    """Or, over those of the answers that were asked; NOT_ASKED where none was."""
    asked = [answer for answer in answers if answer is not Truth.NOT_ASKED]
    total = Truth.NO if asked else Truth.NOT_ASKED
    for answer in asked:
        total = either(total, answer)
    return total


def negate(a: Truth) -> Truth:
    """Not."""
    return {Truth.YES: Truth.NO, Truth.NO: Truth.YES}.get(a, a)


class Status(enum.Enum):
    """What became of a claim."""

    HOLDS = "holds"
    REFUTED = "refuted"
    UNKNOWN = "unknown"
    NOT_ASKED = "not-asked"

    @classmethod
    def of(cls, truth: Truth) -> Status:
        """A claim that something is so."""
        return {
            Truth.YES: cls.HOLDS,
            Truth.NO: cls.REFUTED,
            Truth.UNKNOWN: cls.UNKNOWN,
            Truth.NOT_ASKED: cls.NOT_ASKED,
        }[truth]


@attrs.frozen(eq=False, slots=False)
class Question:
    """Can these conditions hold together?  The conditions are kept, so the question can be shown.

    Args:
        name: what is asked, for people.
        conditions: words of width 1, or what makes them where nobody may look.
    """

    name: str
    _conditions: Sequence[Word] | Callable[[], Sequence[Word]]

    @cached_property
    def conditions(self) -> Sequence[Word]:
        """Words of width 1."""
        return self._conditions() if callable(self._conditions) else self._conditions

    @property
    def trivial(self) -> bool:
        """One of the conditions is false by itself: no solver is needed."""
        return any(condition.value == 0 for condition in self.conditions)

    def ask(
        self, effort: Effort | None = None, *, beside: Solver | None = None
    ) -> tuple[Answer, Model | None, Solver | None]:
        """SAT with a model and the solver that found it, UNSAT, or UNKNOWN.

        Args:
            beside: a solver whose translations the new one shares.
        """
        if self.trivial:
            return Answer.UNSAT, None, None
        answer, solver = self._search(effort, beside)
        if answer is Answer.SAT:
            return answer, solver.model(), solver
        return answer, None, None

    def _search(self, effort: Effort | None, beside: Solver | None = None) -> tuple[Answer, Solver]:
        solver = Solver(effort, beside=beside)
        for condition in self.conditions:
            solver.add(condition)
        return solver.check(), solver

    def put(self, effort: Effort) -> SolverQuery:
        """Ask at once."""
        if self.trivial:
            return SolverQuery((), Answer.UNSAT, SIMPLIFICATION)
        begin = effort.seconds
        answer, solver = self._search(effort)
        told = (Word(1, lemma) for lemma in solver.told)
        return SolverQuery((*self.conditions, *told), answer, solver_version(), effort.seconds - begin)

    @cached_property
    def smtlib(self) -> str:
        """The question as an SMT-LIB 2 script, which any solver can be asked."""
        from popek.solving.engine_z3 import (
            smtlib,  # where Z3 need not answer it is not loaded before its words are wanted
        )

        return f"; {self.name}\n(set-logic QF_UFBV)\n{smtlib(word.term for word in self.conditions)}"

    @cached_property
    def sha256(self) -> str:
        """The hash of the script."""
        return sha256(self.smtlib)


# Z3's resource units for confirming what another solver said.
CONFIRMATION = 5_000_000


class SolversDisagreeError(RuntimeError):
    """One solver finds an assignment where another says that there is none: a defect of one of them, or ours."""


@attrs.frozen(eq=False, slots=False)
class Evidence:
    """How far an answer goes.

    Attributes:
        question: what is claimed to be possible, as one text.
        answer: what follows for it.
        asked: what a solver was really asked, in order: the question at once, or case by case.
        also: where there is no assignment, further questions that have none: is there a run that is not modelled?
        checked: what others made of the question and of those, where they were asked.
    """

    question: Question
    answer: Answer
    asked: tuple[SolverQuery, ...] = ()
    also: tuple[Question, ...] = ()
    checked: tuple[Certification, ...] = ()

    @property
    def found(self) -> bool:
        """Whether there is an assignment."""
        return self.answer is Answer.SAT

    @property
    def impossible(self) -> tuple[Question, ...]:
        """The questions without an assignment."""
        return (self.question, *self.also) if self.answer is Answer.UNSAT else ()

    @property
    def by(self) -> tuple[str, ...]:
        """Who answered each of the questions without an assignment, and how."""
        (first,) = self.answers
        further = (SIMPLIFICATION if one.trivial else solver_version() for one in self.also)
        return (first, *further) if self.impossible else ()

    def certified(self, certifier: Certifier) -> Evidence:
        """The same with what others make of the questions without an assignment.

        Raises:
            SolversDisagreeError: one finds an assignment, or a proof is not accepted.
        """
        pairs = list(zip(self.impossible, self.by, strict=True))
        checked = tuple(certifier.of(question, by) for question, by in pairs)
        for (question, _), one in zip(pairs, checked, strict=True):
            if one.wrong:
                raise SolversDisagreeError(f"{question.name}: no assignment, but {one.why}")
        return attrs.evolve(self, checked=checked)

    @cached_property
    def at_once(self) -> bool:
        """The question was asked as it stands."""
        if len(self.asked) != 1:
            return False
        return _parts(self.asked[0].conditions) == _parts(self.question.conditions)

    @cached_property
    def answers(self) -> Mapping[str, Answer]:
        """The answer, by whom; a question that is false by itself was answered by simplification."""
        if self.question.trivial or not self.asked:
            return {SIMPLIFICATION: self.answer}
        by = self._solvers()
        return {by if self.at_once else f"{by}, case by case": self.answer}

    def _solvers(self) -> str:
        return " and ".join(dict.fromkeys(one.solver for one in self.asked))

    @cached_property
    def confirmed(self) -> Mapping[str, Answer]:
        """The answer, and beside an UNSAT what Z3 says to the exported text, if it was not Z3's.

        Raises:
            SolversDisagreeError: Z3 finds an assignment.
        """
        return self._confirmed[0] if self._confirmed else self.answers

    @cached_property
    def _confirmed(self) -> tuple[Mapping[str, Answer], ...]:
        """What solvers say to each question without an assignment."""
        if self.checked:
            return tuple({n: Answer(answer) for n, answer in one.solvers.items()} for one in self.checked)
        return tuple(map(_confirm, self.impossible, self.by))

    def steps(self, *, confirm: bool = False, brief: bool = False) -> tuple[LadderStep, ...]:
        """How far it goes: solver, second solver, certificate.

        Args:
            confirm: ask a second solver, where that was not done.
            brief: who answered, without looking whether the question was asked as it stands: that takes time.
        """
        if not self.impossible:
            solver = self._solvers() if brief and self.asked else next(iter(self.answers))
            told = solver if self.found else f"{solver} does not decide"
            return (LadderStep(Rung.SOLVER, Reached.YES if self.found else Reached.UNKNOWN, told),)
        second = LadderStep(Rung.SECOND_SOLVER, Reached.NOT_ASKED, HOW_TO_CONFIRM)
        certificate = LadderStep(Rung.CERTIFICATE, Reached.NOT_ASKED, HOW_TO_CERTIFY)
        if not (confirm or self.checked):  # whether it stands by itself is not looked at for nothing
            by = self._solvers() or solver_version()
            return (LadderStep(Rung.SOLVER, Reached.YES, by), second, certificate)
        trivial = set(self.by) == {SIMPLIFICATION}
        first = LadderStep(Rung.SOLVER, Reached.YES, "false as it stands" if trivial else self.by[0])
        if self.checked or not trivial:
            second = min(map(_second, self.by, self._confirmed), key=_merit)
        if self.checked:
            missing = next((one.why for one in self.checked if not one.certified), None)
            reached = Reached.NOT_ASKED if missing == NOT_WANTED else Reached.UNKNOWN
            certificate = LadderStep(Rung.CERTIFICATE, reached, missing or "")
            if missing is None:
                certificate = LadderStep(Rung.CERTIFICATE, Reached.YES, "proof checked")
        return (first, second, certificate)

    @property
    def seconds(self) -> float:
        """What it took; not in `to_json`, which is the same on every run."""
        return sum(one.seconds for one in self.asked)

    @cached_property
    def script(self) -> str:
        """What was really asked, as an SMT-LIB 2 script with one check for each case."""
        if self.at_once:
            return self.question.smtlib
        from popek.solving.engine_z3 import smtlib_of_cases

        wholes = [dict.fromkeys(condition.term for condition in one.conditions) for one in self.asked]
        common = [term for term in wholes[0] if all(term in whole for whole in wholes)] if wholes else []
        cases = [[term for term in whole if term not in common] for whole in wholes]
        return f"; {self.question.name}, case by case\n(set-logic QF_UFBV)\n{smtlib_of_cases(common, cases)}"

    def to_json(self) -> dict[str, object]:
        """`evidence.schema.json`: who answered it, what was asked for that, certificate, and how far all that goes.

        A second solver is asked where there is no assignment.
        """
        asked: dict[str, object] | None = None
        if self.asked and SIMPLIFICATION not in self.answers:
            said = [one.answer.value for one in self.asked]
            asked = {
                "smtlib_sha256": sha256(self.script),
                "answers": {answer: said.count(answer) for answer in dict.fromkeys(said)},
            }
        return {
            "question": self.question.name,
            "smtlib_sha256": self.question.sha256,
            "also_sha256": [question.sha256 for question in self.also],
            "solvers": {name: answer.value for name, answer in sorted(self.confirmed.items())},
            "asked": asked,
            "certificate": self.checked[0].to_json() if self.checked else None,
            "ladder": [step.to_json() for step in self.steps(confirm=True)],
        }


def _confirm(question: Question, by: str) -> Mapping[str, Answer]:
    """That there is no assignment, and what Z3 says to the exported text, if it was not Z3's."""
    from popek.solving.engine_z3 import Z3Engine  # loads Z3
    from popek.solving.first_order import ask

    if by in (SIMPLIFICATION, Z3Engine.name):
        return {by: Answer.UNSAT}
    second = ask(question.smtlib, effort=Effort(rlimit=CONFIRMATION)).answer
    if second is Answer.SAT:
        raise SolversDisagreeError(f"{question.name}: no assignment, but {Z3Engine.name} finds one")
    return {by: Answer.UNSAT, Z3Engine.name: second}


def _second(by: str, answers: Mapping[str, Answer]) -> LadderStep:
    """Whether another than the one who answered says so, too."""
    others = {name: answer for name, answer in answers.items() if name != by}
    agree = [name for name, answer in others.items() if answer is Answer.UNSAT]
    if by == SIMPLIFICATION and not others:
        return LadderStep(Rung.SECOND_SOLVER, Reached.YES, "false as it stands")
    if agree:
        return LadderStep(Rung.SECOND_SOLVER, Reached.YES, ", ".join(agree))
    if not others:
        return LadderStep(Rung.SECOND_SOLVER, Reached.NOT_ASKED, "there is no other solver")
    return LadderStep(Rung.SECOND_SOLVER, Reached.UNKNOWN, f"{', '.join(others)} does not decide")


def _merit(step: LadderStep) -> int:
    return (Reached.NOT_ASKED, Reached.UNKNOWN, Reached.YES).index(step.reached)


def _parts(conditions: Iterable[Word]) -> set[Term]:
    """The terms that a conjunction is made of."""
    found: set[Term] = set()
    left = [condition.term for condition in conditions]
    while left:
        term = left.pop()
        if term.op == "and":
            left += term.args
        elif term is not TRUE.term:
            found.add(term)
    return found
