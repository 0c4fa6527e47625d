"""The premises of each form, asked here or by other processes: what these find is sent as plain data.

Evidence is terms and solvers, which do not travel.  So what is shown of it is made where it was found; what is asked
once, after the forms, needs only to know how the forms run, and that is explored here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar, cast

import attrs

from popek.checks.classification import Classification, Finding
from popek.checks.classify import Classifier
from popek.checks.counterexample import Counterexample
from popek.checks.cycles import no_search_for_cycles
from popek.checks.ladder import LadderStep
from popek.checks.premise import A1, Premise
from popek.checks.premises import Premises
from popek.checks.presence import Present, present
from popek.checks.subject import Subject
from popek.checks.verdict import Evidence, Truth
from popek.kernel.exploration import PathBudgetError
from popek.kernel.state import State
from popek.work import engaging, results

from .one_semantics import assert_one_semantics

S = TypeVar("S", bound=State)


@attrs.frozen
class SentEvidence:
    """What is shown of evidence.

    Attributes:
        found: there is an assignment.
        brief, whole: how far it goes, without and with a second solver.
        told: its JSON, where that is wanted.
    """

    found: bool
    brief: tuple[LadderStep, ...]
    whole: tuple[LadderStep, ...]
    told: Mapping[str, object]

    def steps(self, *, confirm: bool = False) -> tuple[LadderStep, ...]:
        """As `Evidence.steps`."""
        return self.whole if confirm else self.brief

    def to_json(self) -> dict[str, object]:
        """As `Evidence.to_json`."""
        return dict(self.told)


@attrs.frozen
class SentWitness:
    """A witness as JSON."""

    told: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As `Counterexample.to_json`."""
        return dict(self.told)


@attrs.frozen
class SentPremise:
    """What a premise is made of again."""

    name: str
    form: str
    truth: Truth
    how: str
    evidence: SentEvidence | None
    witness: dict[str, Any] | None

    def premise(self) -> Premise[Any]:
        """The premise."""
        evidence = cast("Evidence | None", self.evidence)
        return Premise(self.name, self.form, self.truth, self.how, evidence, lambda: self.witness)


@attrs.frozen
class SentForm:
    """What was found of a form.

    Attributes:
        truths, privileged: of its classes; no truths where it was not explored.
        witness: of the classes, where it is wanted.
    """

    form: str
    truths: Mapping[str, Truth]
    privileged: Truth
    witness: SentWitness | None
    premises: tuple[SentPremise, ...]

    def classification(self, subject: Subject[Any]) -> Classification[Any]:
        """The classes."""
        made = cast("Counterexample[Any] | None", self.witness)
        findings = {
            name: Finding[Any](truth, None, make_witness=lambda: made) for name, truth in self.truths.items()
        }
        return Classification(subject.machine.instructions[self.form], findings, self.privileged)


def of_forms(
    subject: Subject[S],
    asked: Premises[S],
    forms: Sequence[str],
    there: Callable[[], Present[S]],
    *,
    jobs: int,
    whole: bool,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Classification[S]], list[Premise[S]]]:
    """The classes of the forms that were explored, and the premises of all.

    Args:
        asked: is told how the forms run, so that what is asked once can be.
        there: states of the question.
        jobs: processes; 0 for one per processor.
        whole: JSON is wanted of all that was found, with witnesses.
        progress: is told after each how many are done, of how many.

    Raises:
        SemanticsError: what is explored is not what runs.
    """
    alone = jobs == 1 or subject.found_as is None
    classes, premises = list[Classification[S]](), list[Premise[S]]()
    found = (
        _here(subject, asked, forms, there)
        if alone and not engaging()
        else _there(subject, asked, forms, jobs, whole)
    )
    for done, (one, more) in enumerate(found):
        if progress is not None:
            progress(done, len(forms))
        classes += [] if one is None else [one]
        premises += more
    if progress is not None:
        progress(len(forms), len(forms))
    return classes, premises


_Found = Iterator[tuple[Classification[Any] | None, Sequence[Premise[Any]]]]


def _here(
    subject: Subject[Any], asked: Premises[Any], forms: Sequence[str], there: Callable[[], Present[Any]]
) -> _Found:
    classifier = Classifier(subject, components=False)
    for instruction in map(subject.machine.instructions.__getitem__, forms):
        try:
            run = subject.explore(instruction)
        except PathBudgetError as error:
            yield None, asked.unexplored(instruction, str(error))
            continue
        assert_one_semantics(subject, instruction, run, there)
        classes = classifier.classify(instruction, run)
        try:
            found = asked.of(instruction, run)
        except PathBudgetError as error:  # in the delivery of a trap
            found = asked.unexplored(instruction, str(error))
        yield classes, found


def _there(
    subject: Subject[Any], asked: Premises[Any], forms: Sequence[str], jobs: int, whole: bool
) -> _Found:
    for sent in results(_asking, (subject, whole), forms, jobs=jobs):
        yield sent.classification(subject) if sent.truths else None, [one.premise() for one in sent.premises]
        if sent.truths:
            instruction = subject.machine.instructions[sent.form]
            with suppress(PathBudgetError):  # its premises are unknown
                asked.note(instruction, subject.explore(instruction))


def _asking(subject: Subject[Any], whole: bool) -> Callable[[str], SentForm]:
    asked, there = Premises(subject), cache(lambda: present(subject))

    def sent(form: str) -> SentForm:
        with no_search_for_cycles():
            ((classes, premises),) = _here(subject, asked, [form], there)
            if classes is None:
                return SentForm(
                    form, {}, Truth.UNKNOWN, None, tuple(_sent(one, whole, False) for one in premises)
                )
            faithful = next(one for one in premises if one.name == A1)
            apart = classes.critical is faithful.truth
            shown = apart and classes.critical is Truth.YES
            witness = classes.witness if shown else None
            return SentForm(
                form,
                {name: finding.truth for name, finding in classes.findings.items()},
                classes.privileged,
                None if witness is None else SentWitness(witness.to_json()),
                tuple(_sent(one, whole, apart and one is faithful) for one in premises),
            )

    return sent


def _sent(premise: Premise[Any], whole: bool, shown: bool) -> SentPremise:
    evidence, witness = premise.evidence, None
    if premise.truth is Truth.NO and (whole or shown):
        witness = premise.witness
    sent = None
    if evidence is not None:
        told = evidence.to_json() if whole else {}
        brief = evidence.steps()
        sent = SentEvidence(evidence.found, brief, evidence.steps(confirm=True) if whole else brief, told)
    return SentPremise(premise.name, premise.form, premise.truth, premise.how, sent, witness)


__all__ = ["of_forms"]
