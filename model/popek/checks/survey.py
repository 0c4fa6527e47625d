"""A survey: every instruction of a machine classified, and the verdicts of the theorems' premises.

The rows are plain data, so they can be made in several processes.

One module, though long: a row, what is asked for it, and the processes that make it have to agree field by field.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from popek.kernel.configuration import Configuration
from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.scope import Scope, scope_of
from popek.work import results

from .certification import Certifier
from .certified_files import Files
from .classification import Classification
from .classify import Classifier
from .cycles import no_search_for_cycles
from .ladder import HOW_TO_CERTIFY, REPLAYED, Ladder, LadderStep, Reached, Rung, ladder
from .leaks import Leaks, leaks_of
from .letter import CRITICAL, LETTER, PRIVILEGED, USER_CRITICAL, ByTheLetter, Letter, as_asked_here
from .presence import Present, present
from .promise import Promises
from .promises import Keeper
from .scope_words import scope_json
from .subject import Subject
from .verdict import Status, Truth, any_asked, both, negate

CLASSES = (
    "privileged",
    "control_sensitive",
    "location_sensitive",
    "mode_sensitive",
    "resource_sensitive",
    "user_sensitive",
    "sensitive",
    "innocuous",
    "critical",
    "user_critical",
)
PROMISED = ("faithful", "safe", "needless_trap")


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
    """

    subject: Subject[Any]
    components: bool = True
    promises: bool | frozenset[str] = False
    witnesses: str | tuple[frozenset[str], ...] = NONE
    leaks: str = NONE
    by_the_letter: bool = False
    certify: Path | None = None

    @property
    def certifier(self) -> Certifier | None:
        """What certifies answers, where that is asked for."""
        return None if self.certify is None else Certifier(files=Files(self.certify))


@attrs.frozen
class LetterRow:
    """One form by the letter of 1974.

    Attributes:
        classes: the answer per class of `LETTER`.
        here: the answers of `SurveyRow.classes`, by the same names.
        witness: a counterexample, where a class has another answer here.
        not_asked: why *privileged* was not asked.
    """

    classes: Mapping[str, Truth]
    here: Mapping[str, Truth]
    witness: Mapping[str, Any] | None = None
    not_asked: str = ""

    @property
    def differs(self) -> tuple[str, ...]:
        """The classes with another answer here."""
        return tuple(name for name, truth in self.classes.items() if truth is not self.here[name])

    def to_json(self) -> dict[str, object]:
        """By class."""
        row: dict[str, object] = {name: truth.value for name, truth in self.classes.items()}
        row |= {"differs": list(self.differs), "witness": self.witness}
        return row | ({"not_asked": self.not_asked} if self.not_asked else {})


@attrs.frozen
class SurveyRow:
    """One instruction form.

    Attributes:
        classes: the answer per class of `CLASSES`.
        components: what leaks or changes.
        undecided: what may, too.
        faithful, safe, needless_trap: the promises, where they were asked about.
        breaches: how the promises are broken, by name.
        witness: a counterexample for a critical form, where it was asked for.
        leaks: what leaks through it, where that was asked for.
        not_asked: per class that was not asked, why.
        steps: per question, how far the evidence goes.
        remark: why something is unknown.
        letter: the classes by the letter of 1974, where they were asked for.
        seconds, solver_seconds: what it took.
    """

    form: str
    mnemonic: str
    source: str
    classes: Mapping[str, Truth]
    components: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    faithful: Truth | None = None
    safe: Truth | None = None
    needless_trap: Truth | None = None
    breaches: Mapping[str, str] = attrs.field(factory=dict)
    witness: Mapping[str, Any] | None = None
    leaks: Leaks | None = attrs.field(default=None, repr=False)
    remark: str = ""
    not_asked: Mapping[str, str] = attrs.field(factory=dict)
    steps: Mapping[str, tuple[LadderStep, ...]] = attrs.field(factory=dict, eq=False)
    letter: LetterRow | None = None
    seconds: float = 0.0
    solver_seconds: float = 0.0

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        asked = [*self.classes.values(), *(t for t in (self.faithful, self.safe) if t is not None)]
        asked += [] if self.letter is None else self.letter.classes.values()
        return Truth.UNKNOWN in asked

    def to_json(self) -> dict[str, object]:
        """The keys of `popek/classification/1`."""
        row: dict[str, object] = {
            "mnemonic": self.mnemonic,
            "form": self.form,
            "source": self.source,
            "components": list(self.components),
            "components_undecided": list(self.undecided),
            "witness": self.witness,
        }
        row |= {name: truth.value for name, truth in self.classes.items()}
        for name in PROMISED:
            truth = getattr(self, name)
            row[name] = (Truth.NOT_ASKED if truth is None else truth).value
        if self.breaches:
            row["breaches"] = dict(self.breaches)
        if self.not_asked:
            row["not_asked"] = dict(self.not_asked)
        if self.letter is not None:
            row["by_the_letter"] = self.letter.to_json()
        if self.remark:
            row["remark"] = self.remark
        every = (step for steps in self.steps.values() for step in steps)
        if any(step.rung is Rung.CERTIFICATE and step.told != HOW_TO_CERTIFY for step in every):
            row["ladder"] = {name: [s.to_json() for s in steps] for name, steps in self.steps.items()}
        return row


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
    few = len(forms) < 24
    if not few:
        pieces.sort(key=len, reverse=True)
    alone = few or request.subject.found_as is None
    for rows in results(_rows_of, (request,), pieces, jobs=1 if alone else jobs):
        yield from rows


def _rows_of(request: Request) -> Callable[[Sequence[str]], list[SurveyRow]]:
    surveyor = Surveyor(request)

    def rows(forms: Sequence[str]) -> list[SurveyRow]:
        with no_search_for_cycles():
            return [surveyor.row(form) for form in forms]

    return rows


class Surveyor:
    """Makes the rows of one request."""

    def __init__(self, request: Request) -> None:
        self.request, self.subject = request, request.subject
        self.classifier = Classifier(self.subject, components=request.components)
        self.keeper = Keeper(self.subject)
        self._certifier = request.certifier
        self.letter = Letter(self.subject) if request.by_the_letter else None
        self._witnessed: set[str | frozenset[str]] = set()
        self._drawn: set[tuple[str, str]] = set()

    def row(self, form: str) -> SurveyRow:
        """Everything that was asked about one form."""
        instruction = self.subject.machine.instructions[form]
        begin, solving = time.perf_counter(), self.subject.effort.seconds
        try:
            run = self.subject.explore(
                instruction,
                prefer=self.classifier.likely,
                traps=self._promised(form) or self.letter is not None,
            )
        except PathBudgetError as error:
            return unexplored(instruction, str(error), letter=self.letter is not None)
        classified = self.classifier.classify(instruction, run)
        kept = self.keeper.keeps(instruction, run) if self._promised(form) else None
        witness = None
        lacking = self._shared_by(instruction) - self._witnessed
        if lacking and classified.critical is Truth.YES:
            self._witnessed |= lacking
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

    def _promised(self, form: str) -> bool:
        promises = self.request.promises
        return promises if isinstance(promises, bool) else form in promises

    def _shared_by(self, instruction: Instruction) -> set[str | frozenset[str]]:
        """What a witness for a form is wanted for: the form, its mnemonic, or the sets that it is in."""
        wanted = self.request.witnesses
        if not isinstance(wanted, str):
            return {forms for forms in wanted if instruction.form in forms}
        names = {NONE: (), ALL: (instruction.form,), ONE_EACH: (instruction.mnemonic,)}
        return set(names[wanted])


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
