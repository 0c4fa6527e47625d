"""Everything about one instruction: classes, promises, witnesses, and where theorem and promise part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import attrs

from popek.kernel.exploration import PathBudgetError

from .classification import Classification
from .classify import Classifier
from .counterexample import Counterexample
from .leaks import Leaks, leaks_of
from .presence import present
from .promise import Promises
from .promises import Keeper
from .runs import Run
from .survey import Request, Row, row_of, unexplored
from .verdict import Evidence, Status, Truth


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
    """

    row: Row
    summary: str
    witnesses: dict[str, dict[str, Any]]
    asked: Mapping[str, Evidence] = attrs.field(eq=False)
    disagreement: str
    counterexamples: Mapping[str, Counterexample[Any]] = attrs.field(factory=dict, eq=False)
    leaks: Leaks | None = None
    run: Run[Any] | None = attrs.field(default=None, eq=False)

    @cached_property
    def evidence(self) -> dict[str, dict[str, object]]:
        """Per question the hash of what was asked and the answers, a second solver's too."""
        return {question: evidence.to_json() for question, evidence in self.asked.items()}

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

    def to_json(self) -> dict[str, object]:
        """`popek/explanation/1`."""
        return {
            "schema": "popek/explanation/1",
            "machine": self.machine,
            "technique": self.technique,
            "configuration": self.configuration,
            "forms": [form.to_json() for form in self.forms],
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
        try:
            run = subject.explore(instruction)
        except PathBudgetError as error:
            forms.append(
                FormExplanation(unexplored(instruction, str(error)), instruction.summary, {}, {}, "")
            )
            continue
        classified, kept = classifier.classify(instruction, run), keeper.keeps(instruction, run)
        found: dict[str, Counterexample[Any]] = {}
        asked: dict[str, Evidence] = {}
        for question, finding in classified.findings.items():
            if finding.evidence is not None:
                asked[question] = finding.evidence
            # What is so in user mode is shown once, under the general class.
            if not question.startswith("user_") and finding.witness is not None:
                found[question] = finding.witness
        for promise_name, promise in (("fidelity", kept.fidelity), ("safety", kept.safety)):
            asked[promise_name] = promise.evidence
            if promise.witness is not None:
                found[promise_name] = promise.witness
        why = disagreement(classified, kept)
        witnesses = {question: witness.to_json() for question, witness in found.items()}
        forms.append(
            FormExplanation(
                row_of(classified, kept),
                instruction.summary,
                witnesses,
                asked,
                why,
                found,
                leaks_of(classified),
                run,
            )
        )
        if progress is not None:
            progress(number + 1, len(instructions))
    settings = dict(subject.configuration.settings)
    return Explanation(subject.machine.name, subject.technique.name, settings, tuple(forms))


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
