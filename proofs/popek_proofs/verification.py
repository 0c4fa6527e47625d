"""Every "no" and "holds" once more, by others: each unsatisfiable question from its exported text.

A question is put to the solvers that did not answer it, and refuted with a certificate (`popek.solving.certificate`).
Which questions stand behind a verdict: those of classes that an instruction is not in, of "privileged", of promises
that are kept, of premises that hold; and, beside each, that no run is left out by the model.  A question that was asked
case by case is the disjunction of its cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from popek.checks.certification import Certification, Certifier
from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.premise import Premise
from popek.checks.premises import Premises
from popek.checks.presence import present
from popek.checks.promise import Promises
from popek.checks.promises import Keeper
from popek.checks.survey import Request
from popek.checks.verdict import Evidence, Question, Truth
from popek.kernel.exploration import PathBudgetError
from popek.solving.certificate import BY_DRAT_TRIM
from popek.work import results

from .theorems.proposition import Proposition

CLASSES, PROMISES, PREMISES = "classes", "promises", "premises"
PARTS: Final = (CLASSES, PROMISES, PREMISES)


@attrs.frozen
class VerificationTarget:
    """What is verified: verdicts about a machine, or propositions.

    Attributes:
        name: of a machine, a claim or a theorem.
        request: machine, technique and configuration.
        forms: which.
        parts: of `PARTS`.
        promised: forms whose promises are asked about, where not those of all.
        propositions: or these.
    """

    name: str
    request: Request | None = None
    forms: tuple[str, ...] = ()
    parts: tuple[str, ...] = PARTS
    promised: frozenset[str] | None = None
    propositions: tuple[Proposition, ...] = ()


@attrs.frozen(eq=False)
class _Asked:
    """A question that was found unsatisfiable."""

    id: str
    text: str = ""  # of a proposition
    question: Question | None = None
    by: str = ""  # who answered it, and how


@attrs.frozen
class VerifiedQuestion:
    """What became of one question.

    Attributes:
        id: target, form and what is asked.
    """

    id: str
    found: Certification


@attrs.frozen
class Verification:
    """What became of all questions, in order.

    Attributes:
        unexplored: forms with too many paths, about which nothing was asked.
    """

    questions: tuple[VerifiedQuestion, ...]
    unexplored: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def wrong(self) -> tuple[VerifiedQuestion, ...]:
        """Where something contradicts the answer."""
        return tuple(one for one in self.questions if one.found.wrong)

    @property
    def not_certified(self) -> tuple[VerifiedQuestion, ...]:
        """Those without a certificate."""
        return tuple(one for one in self.questions if not one.found.certified)

    @property
    def by_drat_trim(self) -> int:
        """How many certificates drat-trim checked, being long; the others the small checker."""
        return sum(one.found.figures.get(BY_DRAT_TRIM, 0) for one in self.questions)

    @property
    def open(self) -> tuple[VerifiedQuestion, ...]:
        """Those that neither a certificate nor a second solver confirms."""
        return tuple(
            one
            for one in self.questions
            if not (one.found.certified or one.found.confirmed or one.found.wrong)
        )

    @property
    def distinct(self) -> int:
        """How many texts there are."""
        return len({one.found.sha256 for one in self.questions})

    @property
    def processor_seconds(self) -> float:
        """For solvers, certificates and checks."""
        return sum({one.found.sha256: one.found.seconds for one in self.questions}.values())

    def to_json(self) -> dict[str, object]:
        """`popek/verification/1`."""
        return {
            "schema": "popek/verification/1",
            "questions": len(self.questions),
            "texts": self.distinct,
            "second_solver": sum(one.found.confirmed for one in self.questions),
            "third_solver": sum(one.found.confirmed_twice for one in self.questions),
            "certified": sum(one.found.certified for one in self.questions),
            "certified_by_drat_trim": self.by_drat_trim,
            "not_certified": [
                {
                    "id": one.id,
                    "why": one.found.why,
                    "smtlib_sha256": one.found.sha256,
                    "solvers": dict(one.found.solvers),
                }
                for one in self.not_certified
            ],
            "wrong": [{"id": one.id, "why": one.found.why} for one in self.wrong],
            "unexplored": list(self.unexplored),
            "processor_seconds": round(self.processor_seconds, 1),
        }


def verify(
    targets: Sequence[VerificationTarget],
    how: Certifier,
    *,
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Verify every unsatisfiable question of some verdicts.

    Args:
        jobs: processes; 0 for one per processor.
        progress: called with the number of forms and propositions that are done and of all.

    Raises:
        NothingToAskError: the questions would be about nothing.
    """
    begin = time.perf_counter()
    pieces = [(target, piece) for target in targets for piece in _pieces(target)]
    checked: list[VerifiedQuestion] = []
    unexplored: list[str] = []
    for done, (rows, left) in enumerate(_worked(pieces, how, jobs), 1):
        checked += rows
        unexplored += left
        if progress is not None:
            progress(done, len(pieces))
    found = Verification(tuple(checked), tuple(unexplored), time.perf_counter() - begin)
    if how.files is not None:
        how.files.finish(
            found.to_json(), [(one.id, one.found.sha256, one.found.certified) for one in found.questions]
        )
    return found


def _pieces(target: VerificationTarget) -> Iterator[str]:
    """Forms, propositions, and (an empty text) what is asked once of a machine."""
    if target.request is None:
        yield from (one.id for one in target.propositions)
        return
    present(target.request.subject)
    yield from target.forms
    if PREMISES in target.parts and set(target.forms) == set(target.request.subject.machine.instructions):
        yield ""


_Result = tuple[list[VerifiedQuestion], list[str]]


def _worked(pieces: Sequence[tuple[VerificationTarget, str]], how: Certifier, jobs: int) -> Iterator[_Result]:
    names = all(t.request is None or t.request.subject.found_as is not None for t, _ in pieces)
    return results(_working, (how,), pieces, jobs=jobs if names else 1, least=8)


def _working(how: Certifier) -> Callable[[tuple[VerificationTarget, str]], _Result]:
    worker = _Worker(how)
    return lambda piece: worker.piece(*piece)


class _Worker:
    """Asks for verdicts and verifies what stands behind them."""

    def __init__(self, how: Certifier) -> None:
        self._certifier = how
        self._machines: dict[str, _Machine] = {}

    def piece(self, target: VerificationTarget, piece: str) -> _Result:
        """A form, a proposition, or what is asked once."""
        try:
            return [self.check(asked) for asked in self._asked(target, piece)], []
        except PathBudgetError:
            return [], [f"{target.name}/{piece}"]

    def _asked(self, target: VerificationTarget, piece: str) -> Iterator[_Asked]:
        if target.request is None:
            proposition = next(one for one in target.propositions if one.id == piece)
            yield _Asked(proposition.id, proposition.smtlib)
            return
        if target.name not in self._machines:
            self._machines = {target.name: _Machine(target)}
        machine = self._machines[target.name]
        for what, question, by in machine.of(piece) if piece else machine.once():
            yield _Asked(f"{target.name}/{piece or '*'}/{what}", question=question, by=by)

    def check(self, asked: _Asked) -> VerifiedQuestion:
        """One question, or what an earlier run kept of it."""
        if asked.question is not None:
            return VerifiedQuestion(asked.id, self._certifier.of(asked.question, asked.by))
        return VerifiedQuestion(asked.id, self._certifier.check(asked.text))


_Named = tuple[str, Question, str]
"""What is asked for, the question, and who answered it."""


class _Machine:
    """The questions behind the verdicts about one machine."""

    def __init__(self, target: VerificationTarget) -> None:
        assert target.request is not None
        self._target, self._subject = target, target.request.subject
        self._classifier = Classifier(self._subject, components=False)
        self._keeper, self._premises = Keeper(self._subject), Premises(self._subject)

    def of(self, form: str) -> Iterator[_Named]:
        """About one form.

        Raises:
            PathBudgetError: it has too many paths.
        """
        instruction = self._subject.machine.instructions[form]
        run = self._subject.explore(instruction, prefer=self._classifier.likely)
        parts, promised = self._target.parts, self._target.promised
        if CLASSES in parts:
            yield from _of_classes(self._classifier.classify(instruction, run))
        if PROMISES in parts if promised is None else form in promised:
            yield from _of_promises(self._keeper.keeps(instruction, run))
        if PREMISES in parts:
            yield from _of_premises(self._premises.of(instruction, run))

    def once(self) -> Iterator[_Named]:
        """About no form; every form is looked at, as what none changes is known."""
        for instruction in self._subject.machine.instructions.values():
            self._premises.note(instruction, self._subject.explore(instruction))
        yield from _of_premises(self._premises.once())


def _of_classes(found: Classification[Any]) -> Iterator[_Named]:
    for name, finding in found.findings.items():
        if finding.truth is Truth.NO:
            yield from _impossible(f"not {name}", finding.evidence)
    yield from _impossible("privileged", found.completes)


def _of_promises(found: Promises[Any]) -> Iterator[_Named]:
    for name, promise in (("faithful", found.fidelity), ("safe", found.safety)):
        if promise.kept is Truth.YES:
            yield from _impossible(name, promise.evidence)
    if found.needless_trap is Truth.NO:
        yield from _impossible("no needless trap", found.needless)


def _of_premises(found: Iterable[Premise[Any]]) -> Iterator[_Named]:
    for premise in found:
        if premise.truth is Truth.YES:
            yield from _impossible(premise.name, premise.evidence)


def _impossible(name: str, evidence: Evidence | None) -> Iterator[_Named]:
    if evidence is not None:
        for question, by in zip(evidence.impossible, evidence.by, strict=True):
            yield name if question is evidence.question else f"{name}, modelled", question, by


__all__ = [
    "CLASSES",
    "PARTS",
    "PREMISES",
    "PROMISES",
    "Verification",
    "VerificationTarget",
    "VerifiedQuestion",
    "verify",
]
