"""A survey: every instruction of a machine classified, and the verdicts of the theorems' premises.

The rows are plain data, so they can be made in several processes.

One module, though long: a row, what is asked for it, and the processes that make it have to agree field by field.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import attrs

from popek.kernel.configuration import Configuration
from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.scope import Scope, scope_of
from popek.work import engaging, results

from .certification import Certifier
from .certified_files import Files
from .classification import Classification
from .classify import Classifier
from .cycles import no_search_for_cycles
from .kept_rows import KeptRows
from .ladder import REPLAYED, Ladder, LadderStep, Reached, Rung, ladder
from .leaks import leaks_of
from .letter import CRITICAL, LETTER, PRIVILEGED, USER_CRITICAL, ByTheLetter, Letter, as_asked_here
from .presence import Present, present
from .promise import Promises
from .promises import Keeper
from .scope_words import scope_json
from .subject import Subject
from .survey_row import CLASSES, PROMISED, LetterRow, SurveyRow
from .verdict import Status, Truth, any_asked, both, negate

NOT_SHOWN = LadderStep(Rung.REPLAYED, Reached.NOT_ASKED, "by explain")
NONE, ONE_EACH, ALL = "none", "one of each mnemonic", "all"


@attrs.frozen
class Request:
    """What to survey.

    Attributes:
        subject: of what; where no other process can find it, its rows are made in this one.
        components: find out which leaves leak or change.
        promises: check fidelity and safety too, of every form or of these.
        witnesses: find a witness for every critical form, or (`ONE_EACH`) for one of each mnemonic, or for one
            of each of these sets of forms.
        leaks: for a figure, find out what leaks through every form, or (`ONE_EACH`) through the first critical and
            the first sensitive form of each mnemonic.
        certify: a folder in which certificates are kept, and looked for; None if none are asked for.
        by_the_letter: ask for the classes by the letter of 1974, too.
        keep: rows that were found earlier are taken from the store, where there is one, and others kept there.
    """

    subject: Subject[Any]
    components: bool = True
    promises: bool | frozenset[str] = False
    witnesses: str | tuple[frozenset[str], ...] = NONE
    leaks: str = NONE
    by_the_letter: bool = False
    certify: Path | None = None
    keep: bool = False

    def promised(self, form: str) -> bool:
        """Whether it asks for the promises of a form."""
        return self.promises if isinstance(self.promises, bool) else form in self.promises

    @property
    def certifier(self) -> Certifier | None:
        """What certifies answers, where that is asked for."""
        return None if self.certify is None else Certifier(files=Files(self.certify))


@attrs.frozen
class Survey:
    """The rows of a machine, in the order in which it declares its instructions.

    Attributes:
        partial: some instructions were left out, so that no premise of a theorem can hold.
        scope: over which forms, and what of the architecture is left out.
        there: states that the questions range over.
    """

    machine: str
    technique: str
    configuration: Configuration
    rows: tuple[SurveyRow, ...]
    seconds: float = 0.0
    partial: bool = False
    scope: Scope | None = None
    there: Present[Any] | None = attrs.field(default=None, eq=False)

    def by_mnemonic(self) -> dict[str, list[SurveyRow]]:
        """The forms of each mnemonic."""
        folded: dict[str, list[SurveyRow]] = {}
        for row in self.rows:
            folded.setdefault(row.mnemonic, []).append(row)
        return folded

    def mnemonics(self, name: str) -> list[str]:
        """The mnemonics of which some form is in a class."""
        return [
            m for m, rows in self.by_mnemonic().items() if any(r.classes[name] is Truth.YES for r in rows)
        ]

    def by_the_letter(self, name: str) -> list[str]:
        """The mnemonics of which some form is in a class by the letter."""
        letters = [(row.mnemonic, row.letter) for row in self.rows if row.letter is not None]
        return list(dict.fromkeys(m for m, one in letters if one.classes[name] is Truth.YES))

    @property
    def letters(self) -> bool:
        """Whether the classes were asked by the letter, too."""
        return any(row.letter is not None for row in self.rows)

    def premise_by_the_letter(self, name: str) -> Status:
        """The premise of a theorem by the letter: nothing is in a class, critical or user-critical."""
        asked = [Truth.UNKNOWN if row.letter is None else row.letter.classes[name] for row in self.rows]
        return Status.of(negate(any_asked([Truth.UNKNOWN, *asked] if self.partial else asked)))

    def _premise(self, name: str) -> Status:
        asked = [row.classes[name] for row in self.rows]
        return Status.of(negate(any_asked([Truth.UNKNOWN, *asked] if self.partial else asked)))

    @property
    def theorem1(self) -> Status:
        """The premise of Theorem 1: every sensitive instruction is privileged."""
        return self._premise("critical")

    @property
    def theorem3(self) -> Status:
        """The premise of Theorem 3: every user-sensitive instruction is privileged."""
        return self._premise("user_critical")

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        return any(row.unknown for row in self.rows)

    def to_json(self) -> dict[str, object]:
        """`popek/classification/1`."""
        letter: dict[str, object] = {
            "critical_mnemonics": self.by_the_letter(CRITICAL),
            "theorem1": self.premise_by_the_letter(CRITICAL).value,
            "theorem3": self.premise_by_the_letter(USER_CRITICAL).value,
        }
        return {
            "schema": "popek/classification/1",
            **({"by_the_letter": letter} if self.letters else {}),
            "machine": self.machine,
            "technique": self.technique,
            "configuration": dict(self.configuration.settings),
            "instructions": [row.to_json() for row in self.rows],
            "critical_mnemonics": self.mnemonics("critical"),
            "partial": self.partial,
            "scope": None if self.scope is None else scope_json(self.scope),
            "there_are": None if self.there is None else self.there.to_json(),
            "theorem1": self.theorem1.value,
            "theorem3": self.theorem3.value,
            "ladder": self.ladder.to_json(),
        }

    @property
    def ladder(self) -> Ladder:
        """How far the evidence of all answers goes."""
        return ladder(steps for row in self.rows for steps in row.steps.values())


def survey(
    request: Request,
    *,
    forms: Iterable[str] | None = None,
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Classify the instructions of a machine.

    Args:
        forms: only these.
        jobs: processes; 0 for one per processor.
        progress: called with the number of forms that are done and of all.

    Raises:
        NothingToAskError: the questions would be about nothing.
        ReplayError: a defect of popek.
    """
    begin = time.perf_counter()
    subject, machine = request.subject, request.subject.machine
    there = present(subject)
    wanted = list(machine.instructions) if forms is None else list(forms)
    found: dict[str, SurveyRow] = {}
    for row in _rows(request, wanted, jobs):
        found[row.form] = row
        if progress is not None:
            progress(len(found), len(wanted))
    rows = tuple(found[form] for form in wanted)
    partial = not found.keys() >= machine.instructions.keys()
    seconds = time.perf_counter() - begin
    return Survey(
        machine.name,
        subject.technique.name,
        subject.configuration,
        rows,
        seconds,
        partial,
        scope_of(machine),
        there,
    )


def _rows(request: Request, forms: Sequence[str], jobs: int) -> Iterator[SurveyRow]:
    # The forms of a mnemonic go together, so that which of them has the witness is the same on every run;
    # mnemonics of many forms first, which leaves small pieces for the end.
    together: dict[str, list[str]] = {}
    for form in forms:
        together.setdefault(request.subject.machine.instructions[form].mnemonic, []).append(form)
    pieces = list(together.values())
    kept = None if engaging() else KeptRows.of(request)
    if kept is not None:
        known = [_all_known(request, kept, piece) for piece in pieces]
        yield from chain.from_iterable(rows for rows in known if rows is not None)
        pieces = [piece for piece, rows in zip(pieces, known, strict=True) if rows is None]
    few = sum(map(len, pieces)) < 24
    if not few:
        pieces.sort(key=len, reverse=True)
    alone = few or request.subject.found_as is None
    if pieces or engaging():
        for rows in results(_rows_of, (request,), pieces, jobs=1 if alone else jobs):
            yield from rows


def _all_known(request: Request, kept: KeptRows, forms: Sequence[str]) -> list[SurveyRow] | None:
    """The rows of the forms of a mnemonic from the store; None where one is not there."""
    wanted, rows = WantedWitnesses(request), []
    for form in forms:
        instruction = request.subject.machine.instructions[form]
        row = kept.get(form, witness=wanted.of(instruction))
        if row is None:
            return None
        wanted.note(instruction, row.classes["critical"])
        rows.append(row)
    return rows


def _rows_of(request: Request) -> Callable[[Sequence[str]], list[SurveyRow]]:
    surveyor = Surveyor(request)

    def rows(forms: Sequence[str]) -> list[SurveyRow]:
        with no_search_for_cycles():
            return [surveyor.row(form) for form in forms]

    return rows


class WantedWitnesses:
    """For which forms a request wants a witness: those, or the first critical one of each mnemonic or set."""

    def __init__(self, request: Request) -> None:
        self._wanted = request.witnesses
        self._had: set[str | frozenset[str]] = set()

    def of(self, instruction: Instruction) -> bool:
        """Whether one is wanted for this form, if it is critical."""
        return not self._shared_by(instruction) <= self._had

    def note(self, instruction: Instruction, critical: Truth) -> None:
        """After this form one is wanted no more where it was critical."""
        if critical is Truth.YES:
            self._had |= self._shared_by(instruction)

    def _shared_by(self, instruction: Instruction) -> set[str | frozenset[str]]:
        """What a witness for a form is wanted for: the form, its mnemonic, or the sets that it is in."""
        if not isinstance(self._wanted, str):
            return {forms for forms in self._wanted if instruction.form in forms}
        names = {NONE: (), ALL: (instruction.form,), ONE_EACH: (instruction.mnemonic,)}
        return set(names[self._wanted])


class Surveyor:
    """Makes the rows of one request."""

    def __init__(self, request: Request) -> None:
        self.request, self.subject = request, request.subject
        self.classifier = Classifier(self.subject, components=request.components)
        self.keeper = Keeper(self.subject)
        self._certifier = request.certifier
        self.letter = Letter(self.subject) if request.by_the_letter else None
        self._kept = KeptRows.of(request)
        self._wanted = WantedWitnesses(request)
        self._drawn: set[tuple[str, str]] = set()

    def row(self, form: str) -> SurveyRow:
        """Everything that was asked about one form."""
        instruction = self.subject.machine.instructions[form]
        witness = self._wanted.of(instruction)
        row = None if self._kept is None else self._kept.get(form, witness=witness)
        if row is None:
            row = self._derived(instruction, wanted=witness)
            if self._kept is not None:
                self._kept.put(row, witness=witness)
        self._wanted.note(instruction, row.classes["critical"])
        return row

    def _derived(self, instruction: Instruction, *, wanted: bool) -> SurveyRow:
        form = instruction.form
        begin, solving = time.perf_counter(), self.subject.effort.seconds
        try:
            run = self.subject.explore(
                instruction,
                prefer=self.classifier.likely,
                traps=self.request.promised(form) or self.letter is not None,
            )
        except PathBudgetError as error:
            return unexplored(instruction, str(error), letter=self.letter is not None)
        classified = self.classifier.classify(instruction, run)
        kept = self.keeper.keeps(instruction, run) if self.request.promised(form) else None
        witness = None
        if wanted and classified.critical is Truth.YES:
            found = classified.witness
            witness = None if found is None else found.to_json()
        row = row_of(classified, kept)
        letter = None if self.letter is None else _lettered(self.letter.of(instruction, run), row.classes)
        return attrs.evolve(
            row,
            letter=letter,
            witness=witness,
            leaks=leaks_of(classified) if self._drawn_for(classified) else None,
            steps=self._steps(classified, kept, witnessed=witness is not None),
            seconds=time.perf_counter() - begin,
            solver_seconds=self.subject.effort.seconds - solving,
        )

    def _steps(
        self, classified: Classification[Any], kept: Promises[Any] | None, *, witnessed: bool
    ) -> dict[str, tuple[LadderStep, ...]]:
        steps = {}
        asked = {**classified.asked, **({} if kept is None else kept.asked)}
        for name, evidence in asked.items():
            told = evidence if self._certifier is None else evidence.certified(self._certifier)
            steps[name] = told.steps(brief=True)
            if told.found:
                replayed = witnessed and name == classified.witnessed
                steps[name] = (REPLAYED if replayed else NOT_SHOWN, *steps[name])
        return steps

    def _drawn_for(self, classified: Classification[Any]) -> bool:
        """Whether a figure shows what leaks through a form."""
        if self.request.leaks == NONE:
            return False
        mnemonic = classified.instruction.mnemonic
        kinds = {"critical": classified.critical, "sensitive": classified.sensitive}
        new = {(kind, mnemonic) for kind, truth in kinds.items() if truth is Truth.YES} - self._drawn
        self._drawn |= new
        return self.request.leaks == ALL or bool(new)


def unexplored(instruction: Instruction, why: str, *, letter: bool = False) -> SurveyRow:
    """The row of a form that has too many paths, or longer ones: nothing is known.

    Args:
        letter: the classes by the letter were asked for, too.
    """
    nothing = dict.fromkeys(CLASSES, Truth.UNKNOWN)
    unknown = LetterRow(dict.fromkeys(LETTER, Truth.UNKNOWN), dict.fromkeys(LETTER, Truth.UNKNOWN))
    return SurveyRow(
        instruction.form,
        instruction.mnemonic,
        instruction.source,
        nothing,
        remark=f"unknown: {why}",
        letter=unknown if letter else None,
    )


def _lettered(found: ByTheLetter[Any], classes: Mapping[str, Truth]) -> LetterRow:
    """The row by the letter; with a witness where a class has another answer here."""
    here = as_asked_here(classes)
    row = LetterRow(found.truths, here, not_asked=found.answers[PRIVILEGED].why)
    witness = found.witness if row.differs else None
    return row if witness is None else attrs.evolve(row, witness=witness.to_json())


def row_of(classified: Classification[Any], kept: Promises[Any] | None = None) -> SurveyRow:
    """The row of one form."""
    instruction = classified.instruction
    row = SurveyRow(
        instruction.form,
        instruction.mnemonic,
        instruction.source,
        classes(classified),
        classified.components,
        classified.undecided,
        not_asked={name: found.why for name, found in classified.findings.items() if found.why},
    )
    return row if kept is None else attrs.evolve(row, **_promises(kept, classified))


def classes(classified: Classification[Any]) -> dict[str, Truth]:
    """The answers by the names of `CLASSES`."""
    own = {"privileged", "sensitive", "user_sensitive", "innocuous", "critical", "user_critical"}
    return {name: getattr(classified, name) if name in own else classified.truth(name) for name in CLASSES}


def _promises(kept: Promises[Any], classified: Classification[Any]) -> dict[str, Any]:
    breaches = {
        name: promise.how
        for name, promise in (("fidelity", kept.fidelity), ("safety", kept.safety))
        if promise.how
    }
    return {
        "faithful": kept.fidelity.kept,
        "safe": kept.safety.kept,
        # A trap is needless only where nothing had to be hidden from the guest.
        "needless_trap": both(kept.needless_trap, classified.innocuous),
        "breaches": breaches,
    }


__all__ = [
    "ALL",
    "CLASSES",
    "NONE",
    "ONE_EACH",
    "PROMISED",
    "LetterRow",
    "Request",
    "Survey",
    "SurveyRow",
    "Surveyor",
    "WantedWitnesses",
    "classes",
    "row_of",
    "survey",
    "unexplored",
]
