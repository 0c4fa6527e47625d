"""Everything about one instruction: classes, promises, witnesses, and where theorem and promise part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import attrs

from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction

from .certification import Certifier
from .classification import Classification
from .classify import Classifier
from .counterexample import Counterexample
from .ladder import HOW_TO_EMULATE, NOT_FOUND, REPLAYED, Ladder, LadderStep, Reached, Rung, ladder
from .leaks import Leaks, leaks_of
from .presence import present
from .promise import Promises
from .promises import Keeper
from .runs import Run
from .subject import Subject
from .survey import Request, SurveyRow, row_of, unexplored
from .verdict import Evidence, Status, Truth

NO_WITNESS = LadderStep(Rung.REPLAYED, Reached.NOT_ASKED, "no witness is made of a needless trap")
NOT_EMULATED = LadderStep(Rung.EMULATOR, Reached.NOT_ASKED, HOW_TO_EMULATE)


@attrs.frozen(slots=False)
class FormExplanation:
    """One operand form.

    Attributes:
        row: its classes and promises.
        summary: what it does, from the semantics.
        witnesses: per class or promise that has one.
        asked: per question, what was asked and answered.
        disagreement: why the premise of Theorem 1 and fidelity part, where they do.
        counterexamples: the witnesses as they were found, with their states and programs.
        leaks: what leaks through it.
        run: every path of it; None where there are too many.
        emulated: per witness, what an emulator said of it.
    """

    row: SurveyRow
    summary: str
    witnesses: dict[str, dict[str, Any]]
    asked: Mapping[str, Evidence] = attrs.field(eq=False)
    disagreement: str
    counterexamples: Mapping[str, Counterexample[Any]] = attrs.field(factory=dict, eq=False)
    leaks: Leaks | None = None
    run: Run[Any] | None = attrs.field(default=None, eq=False)
    emulated: Mapping[str, LadderStep] = attrs.field(factory=dict, eq=False)

    @cached_property
    def evidence(self) -> dict[str, dict[str, object]]:
        """Per question the hash of what was asked and the answers, a second solver's too."""
        told = {question: evidence.to_json() for question, evidence in self.asked.items()}
        for question, one in told.items():
            one["ladder"] = [step.to_json() for step in self.steps(question, confirm=True)]
        return told

    def certified(self, certifier: Certifier) -> FormExplanation:
        """The same, with certificates."""
        return attrs.evolve(
            self, asked={n: evidence.certified(certifier) for n, evidence in self.asked.items()}
        )

    def steps(self, question: str, *, confirm: bool = False) -> tuple[LadderStep, ...]:
        """How far the evidence of one answer goes.

        Args:
            confirm: ask a second solver, where that was not done.
        """
        evidence = self.asked[question]
        if not evidence.found:
            return evidence.steps(confirm=confirm)
        shown = question.removeprefix(
            "user_"
        )  # what is so in user mode is shown once, under the general class
        if shown not in self.witnesses:
            why = NO_WITNESS if shown == "needless_trap" else NOT_FOUND
            return (why, *evidence.steps())
        return (REPLAYED, self.emulated.get(shown, NOT_EMULATED), *evidence.steps())

    def to_json(self) -> dict[str, object]:
        """The row, and more."""
        return {
            **self.row.to_json(),
            "summary": self.summary,
            "witnesses": self.witnesses,
            "evidence": self.evidence,
            "disagreement": self.disagreement,
        }


@attrs.frozen
class Explanation:
    """The forms of one instruction."""

    machine: str
    technique: str
    configuration: dict[str, int]
    forms: tuple[FormExplanation, ...]

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        return any(form.row.unknown for form in self.forms)

    def certified(self, certifier: Certifier) -> Explanation:
        """The same, with certificates.

        Raises:
            SolversDisagreeError: one finds an assignment, or a proof is not accepted.
        """
        return attrs.evolve(self, forms=tuple(form.certified(certifier) for form in self.forms))

    def emulated(self, told: Mapping[tuple[str, str], LadderStep]) -> Explanation:
        """The same, with what an emulator said of witnesses, by form and question."""
        forms = (
            attrs.evolve(form, emulated={q: step for (f, q), step in told.items() if f == form.row.form})
            for form in self.forms
        )
        return attrs.evolve(self, forms=tuple(forms))

    def ladder(self, *, confirm: bool = False) -> Ladder:
        """How far the evidence of all answers goes."""
        return ladder(form.steps(question, confirm=confirm) for form in self.forms for question in form.asked)

    def to_json(self) -> dict[str, object]:
        """`popek/explanation/1`."""
        return {
            "schema": "popek/explanation/1",
            "machine": self.machine,
            "technique": self.technique,
            "configuration": self.configuration,
            "forms": [form.to_json() for form in self.forms],
            "ladder": self.ladder(confirm=True).to_json(),
        }


def explain(
    request: Request, name: str, *, progress: Callable[[int, int], None] | None = None
) -> Explanation:
    """Everything about the forms that a mnemonic or a form names.

    Raises:
        UnknownNameError: no such instruction.
    """
    subject = request.subject
    instructions = subject.machine.find(name)
    present(subject)
    classifier, keeper = Classifier(subject), Keeper(subject)
    forms = []
    for number, instruction in enumerate(instructions):
        forms.append(explain_form(subject, instruction, classifier, keeper))
        if progress is not None:
            progress(number + 1, len(instructions))
    settings = dict(subject.configuration.settings)
    return Explanation(subject.machine.name, subject.technique.name, settings, tuple(forms))


def explain_form(
    subject: Subject[Any], instruction: Instruction, classifier: Classifier[Any], keeper: Keeper[Any]
) -> FormExplanation:
    """Everything about one form, also where some of its operands are fixed."""
    try:
        run = subject.explore(instruction)
    except PathBudgetError as error:
        return FormExplanation(unexplored(instruction, str(error)), instruction.summary, {}, {}, "")
    classified, kept = classifier.classify(instruction, run), keeper.keeps(instruction, run)
    found: dict[str, Counterexample[Any]] = {}
    for question, finding in classified.findings.items():
        # What is so in user mode is shown once, under the general class.
        if not question.startswith("user_") and finding.witness is not None:
            found[question] = finding.witness
    for name, promise in (("fidelity", kept.fidelity), ("safety", kept.safety)):
        if promise.witness is not None:
            found[name] = promise.witness
    return FormExplanation(
        row_of(classified, kept),
        instruction.summary,
        {question: witness.to_json() for question, witness in found.items()},
        {**classified.asked, **kept.asked},
        disagreement(classified, kept),
        found,
        leaks_of(classified),
        run,
    )


def disagreement(classified: Classification[Any], kept: Promises[Any]) -> str:
    """Why an instruction is critical and yet faithful, or not critical and yet unfaithful; else empty.

    The classes of Theorem 1 ask about every state of the machine; fidelity asks about the images of guest
    states under the technique's map alone.
    """
    critical, fidelity = classified.critical, kept.fidelity
    if critical is Truth.YES and fidelity.status is Status.HOLDS:
        names = ", ".join(classified.components) or "a component"
        return (
            f"critical and yet faithful: it is sensitive to {names}, but in every state into which the technique "
            "puts the hardware this makes no difference to the guest, or the run traps"
        )
    if critical is Truth.NO and fidelity.status is Status.REFUTED:
        if classified.privileged is Truth.YES:
            return f"privileged and yet unfaithful: {fidelity.how}"
        return (
            f"not sensitive and yet unfaithful: {fidelity.how}; the two states compared differ in more than mode, "
            "location or a replaced resource"
        )
    return ""
