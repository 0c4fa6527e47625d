"""Every "no" and "holds" once more, by others: each unsatisfiable question from its exported text.

A question is put to the solvers that did not answer it, and refuted with a certificate (`popek.solving.certificate`).
Which questions stand behind a verdict: those of classes that an instruction is not in, of "privileged", of promises
that are kept, of premises that hold; and, beside each, that no run is left out by the model.  A question that was asked
case by case is the disjunction of its cases.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count
from typing import Any, Final

import attrs

from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.premise import Premise
from popek.checks.premises import Premises
from popek.checks.presence import present
from popek.checks.promise import Promises
from popek.checks.promises import Keeper
from popek.checks.survey import Request
from popek.checks.verdict import CONFIRMATION, Evidence, Question, Truth
from popek.checks.workers import process_context
from popek.kernel.exploration import PathBudgetError
from popek.solving import second_solver
from popek.solving.certificate import CONFLICTS, NotCertifiedError, RefutedError, certify
from popek.solving.solver import Answer, Effort, solver_version

from .theorems.proposition import RLIMIT, Proposition
from .verification_files import Files

CLASSES, PROMISES, PREMISES = "classes", "promises", "premises"
PARTS: Final = (CLASSES, PROMISES, PREMISES)


@attrs.frozen
class Target:
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


@attrs.frozen
class How:
    """How questions are verified.

    Attributes:
        certificates: make and check them.
        conflicts: of the SAT solver, before a question counts as too hard.
        files: where texts, clauses, proofs and results are kept, if anywhere.
    """

    certificates: bool = True
    conflicts: int = CONFLICTS
    files: Files | None = None


@attrs.frozen(eq=False)
class _Asked:
    """A question that was found unsatisfiable."""

    id: str
    text: str
    answered: str  # by which solver
    question: Question | None = None


@attrs.frozen
class Checked:
    """What became of one question.

    Attributes:
        id: target, form and what is asked.
        sha256: of its text.
        solvers: what each said; the first is the one that answered.
        certified: there is a certificate, and it was checked.
        why: why there is none, or what is wrong.
        wrong: a solver, the clauses or the proof contradict the answer.
        figures: of the certificate.
        seconds: of processor time.
    """

    id: str
    sha256: str
    solvers: Mapping[str, str]
    certified: bool
    why: str = ""
    wrong: bool = False
    figures: Mapping[str, int] = attrs.field(factory=dict)
    seconds: float = 0.0

    @property
    def confirmed(self) -> bool:
        """A second solver says the same."""
        return sum(answer == Answer.UNSAT.value for answer in self.solvers.values()) > 1

    @property
    def confirmed_twice(self) -> bool:
        """A third says the same."""
        return sum(answer == Answer.UNSAT.value for answer in self.solvers.values()) > 2


@attrs.frozen
class Verification:
    """What became of all questions, in order.

    Attributes:
        unexplored: forms with too many paths, about which nothing was asked.
    """

    questions: tuple[Checked, ...]
    unexplored: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def wrong(self) -> tuple[Checked, ...]:
        """Where something contradicts the answer."""
        return tuple(one for one in self.questions if one.wrong)

    @property
    def not_certified(self) -> tuple[Checked, ...]:
        """Those without a certificate."""
        return tuple(one for one in self.questions if not one.certified)

    @property
    def open(self) -> tuple[Checked, ...]:
        """Those that neither a certificate nor a second solver confirms."""
        return tuple(one for one in self.questions if not (one.certified or one.confirmed or one.wrong))

    @property
    def distinct(self) -> int:
        """How many texts there are."""
        return len({one.sha256 for one in self.questions})

    @property
    def processor_seconds(self) -> float:
        """For solvers, certificates and checks."""
        return sum({one.sha256: one.seconds for one in self.questions}.values())

    def to_json(self) -> dict[str, object]:
        """`popek/verification/1`."""
        return {
            "schema": "popek/verification/1",
            "questions": len(self.questions),
            "texts": self.distinct,
            "second_solver": sum(one.confirmed for one in self.questions),
            "third_solver": sum(one.confirmed_twice for one in self.questions),
            "certified": sum(one.certified for one in self.questions),
            "not_certified": [
                {"id": one.id, "why": one.why, "smtlib_sha256": one.sha256, "solvers": dict(one.solvers)}
                for one in self.not_certified
            ],
            "wrong": [{"id": one.id, "why": one.why} for one in self.wrong],
            "unexplored": list(self.unexplored),
            "processor_seconds": round(self.processor_seconds, 1),
        }


def verify(
    targets: Sequence[Target],
    how: How,
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
    checked: list[Checked] = []
    unexplored: list[str] = []
    for done, (rows, left) in enumerate(_worked(pieces, how, jobs or cpu_count() or 1), 1):
        checked += rows
        unexplored += left
        if progress is not None:
            progress(done, len(pieces))
    found = Verification(tuple(checked), tuple(unexplored), time.perf_counter() - begin)
    if how.files is not None:
        how.files.finish(found.to_json(), [(one.id, one.sha256, one.certified) for one in found.questions])
    return found


def _pieces(target: Target) -> Iterator[str]:
    """Forms, propositions, and (an empty text) what is asked once of a machine."""
    if target.request is None:
        yield from (one.id for one in target.propositions)
        return
    present(target.request.subject)
    yield from target.forms
    if PREMISES in target.parts and set(target.forms) == set(target.request.subject.machine.instructions):
        yield ""


_Result = tuple[list[Checked], list[str]]


def _worked(pieces: Sequence[tuple[Target, str]], how: How, jobs: int) -> Iterator[_Result]:
    names = all(t.request is None or t.request.subject.found_as is not None for t, _ in pieces)
    if jobs == 1 or len(pieces) < 8 or not names:
        worker = _Worker(how)
        yield from (worker.piece(*piece) for piece in pieces)
        return
    with ProcessPoolExecutor(jobs, mp_context=process_context(), initializer=_begin, initargs=(how,)) as pool:
        yield from pool.map(_piece, pieces, chunksize=1)


_worker: _Worker | None = None  # of a worker process


def _begin(how: How) -> None:
    global _worker
    gc.disable()  # terms form no cycles; looking for some takes a tenth of the time
    _worker = _Worker(how)


def _piece(piece: tuple[Target, str]) -> _Result:
    assert _worker is not None
    return _worker.piece(*piece)


class _Worker:
    """Asks for verdicts and verifies what stands behind them."""

    def __init__(self, how: How) -> None:
        self._how = how
        self._machines: dict[str, _Machine] = {}

    def piece(self, target: Target, piece: str) -> _Result:
        """A form, a proposition, or what is asked once."""
        try:
            return [self.check(asked) for asked in self._asked(target, piece)], []
        except PathBudgetError:
            return [], [f"{target.name}/{piece}"]

    def _asked(self, target: Target, piece: str) -> Iterator[_Asked]:
        if target.request is None:
            proposition = next(one for one in target.propositions if one.id == piece)
            yield _Asked(proposition.id, proposition.smtlib, "")
            return
        if target.name not in self._machines:
            self._machines = {target.name: _Machine(target)}
        machine = self._machines[target.name]
        for what, question, by in machine.of(piece) if piece else machine.once():
            yield _Asked(f"{target.name}/{piece or '*'}/{what}", question.smtlib, by, question)

    def check(self, asked: _Asked) -> Checked:
        """One question, or what an earlier run kept of it."""
        files = self._how.files
        kept = None if files is None else files.kept(asked.text, certified=self._how.certificates)
        if kept is not None:
            return Checked(id=asked.id, **kept)
        begin = time.process_time()
        solvers = {asked.answered: Answer.UNSAT.value} if asked.answered else {}
        solvers |= {name: answer.value for name, answer in others(asked.text, asked.answered)}
        disagrees = [name for name, answer in solvers.items() if answer == Answer.SAT.value]
        why, certificate, wrong = "", None, bool(disagrees)
        if wrong:
            why = f"{', '.join(disagrees)} finds an assignment"
        elif not self._how.certificates:
            why = "no certificate was asked for"
        else:
            conditions = None if asked.question is None else [w.term for w in asked.question.conditions]
            try:
                certificate = certify(
                    asked.text,
                    conditions,
                    about=asked.text.partition("\n")[0].lstrip("; "),
                    conflicts=self._how.conflicts,
                )
            except NotCertifiedError as error:
                why = str(error)
            except RefutedError as error:
                why, wrong = str(error), True
        made: dict[str, Any] = {
            "sha256": Files.name_of(asked.text),
            "solvers": solvers,
            "certified": certificate is not None,
            "why": why,
            "wrong": wrong,
            "figures": {} if certificate is None else dict(certificate.figures),
            "seconds": round(time.process_time() - begin, 3),
        }
        if files is not None:
            texts = None if certificate is None else (certificate.cnf, certificate.proof)
            files.keep(asked.text, texts, made)
        return Checked(id=asked.id, **made)


def others(text: str, answered: str) -> Iterator[tuple[str, Answer]]:
    """What solvers that did not answer say to a text."""
    from popek.solving.engine_z3 import Z3Engine
    from popek.solving.first_order import ask

    if answered != Z3Engine.name:
        yield Z3Engine.name, ask(text, effort=Effort(rlimit=CONFIRMATION if answered else RLIMIT)).answer
    if second_solver.available():
        yield second_solver.second_solver_version(), second_solver.second_answer(text)


_Named = tuple[str, Question, str]
"""What is asked for, the question, and who answered it."""


class _Machine:
    """The questions behind the verdicts about one machine."""

    def __init__(self, target: Target) -> None:
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
            self._premises._note(instruction, self._subject.explore(instruction))
        yield from _of_premises(self._premises.once())


def _by(evidence: Evidence) -> str:
    """Who gave the answer, and how."""
    (by,) = evidence.answers
    return by


def _of_classes(found: Classification[Any]) -> Iterator[_Named]:
    for name, finding in found.findings.items():
        if finding.truth is Truth.NO:
            assert finding.evidence is not None
            yield f"not {name}", finding.evidence.question, _by(finding.evidence)
            if finding.gap is not None:
                yield f"not {name}, modelled", finding.gap, solver_version()
    if found.completes is not None:
        yield "privileged", found.completes, f"{solver_version()}, case by case"


def _of_promises(found: Promises[Any]) -> Iterator[_Named]:
    for name, promise in (("faithful", found.fidelity), ("safe", found.safety)):
        if promise.kept is Truth.YES:
            yield name, promise.evidence.question, _by(promise.evidence)
            if promise.gap is not None:
                yield f"{name}, modelled", promise.gap, f"{solver_version()}, case by case"


def _of_premises(found: Iterable[Premise[Any]]) -> Iterator[_Named]:
    for premise in found:
        if premise.truth is Truth.YES and premise.evidence is not None:
            yield premise.name, premise.evidence.question, _by(premise.evidence)


__all__ = [
    "CLASSES",
    "PARTS",
    "PREMISES",
    "PROMISES",
    "Checked",
    "How",
    "Target",
    "Verification",
    "verify",
]
