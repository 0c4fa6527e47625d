"""Looking for an instruction with a problem: what is asked about, the ways to have it, and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import attrs

from popek.checks.counterexample import Counterexample
from popek.checks.runs import Run
from popek.checks.situation import ALTERNATIVE, Situation
from popek.checks.subject import Runs, Subject
from popek.checks.verdict import Truth
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.state import Role
from popek.kernel.words import Word
from popek.solving.asking import Asker
from popek.solving.solver import Answer

from .traces import Cost

NATIVE, HARDWARE = "on the guest's own machine", "on the hardware"


@attrs.frozen(eq=False, slots=False)
class Asking:
    """What is asked about, with every form explored once.

    Attributes:
        forms: the forms to look through.
    """

    subject: Subject[Any]
    forms: tuple[Instruction, ...]

    @cached_property
    def _runs(self) -> Runs[Any]:
        return Runs(self.subject)

    def run(self, instruction: Instruction) -> Run[Any] | None:
        """The form from any state; None where it has too many paths."""
        return self._runs.of(instruction)

    def situations(
        self, wanted: Callable[[Run[Any]], bool], examples: str
    ) -> Iterator[Situation[Any] | None]:
        """Each form whose run is wanted, under the technique; None for one that has too many paths.

        The machine's examples for a question of this name come first, so that a witness is one that the literature
        names where it can be.
        """
        places = {
            form: place for place, form in enumerate(self.subject.machine.practice.examples.get(examples, ()))
        }
        for instruction in sorted(self.forms, key=lambda i: places.get(i.form, len(places))):
            run = self.run(instruction)
            if run is None:
                yield None
            elif wanted(run):
                yield Situation(self.subject, instruction, run)


@attrs.frozen(eq=False)
class Answered:
    """The answer to one question.

    Attributes:
        present: whether there is a witness.
        witness: minimal and replayed, where there is one and time to find it.
        forms: the forms that were found to have the problem: the first, or all where all were asked for.
        costs: what was counted along instruction traces.
    """

    question: str
    present: Truth
    witness: Counterexample[Any] | None = None
    forms: tuple[str, ...] = ()
    costs: tuple[Cost, ...] = ()

    def to_json(self) -> dict[str, object]:
        """With the witness as the classification has it."""
        answer: dict[str, object] = {
            "question": self.question,
            "present": self.present.value,
            "witness": None if self.witness is None else self.witness.to_json(),
            "forms": list(self.forms),
        }
        if self.costs:
            answer["traces"] = [cost.to_json() for cost in self.costs]
        return answer


@attrs.frozen(eq=False)
class Way:
    """A way in which a form can have a problem.

    Attributes:
        conditions: that must hold together (width 1).
        starts: the states that the runs start from; with `mapped`, G and P.
        labels: of the runs.
        nicer: conditions that make a witness easier to run elsewhere; given up where they cannot be met.
    """

    conditions: Sequence[Word]
    starts: Sequence[Any]
    labels: Sequence[str] = (NATIVE, HARDWARE)
    mapped: bool = True
    nicer: Sequence[Word] = ()


def search(
    asking: Asking,
    every: bool,
    question: str,
    story: str,
    wanted: Callable[[Run[Any]], bool],
    ways: Callable[[Situation[Any]], Iterator[Way]],
    examples: str,
) -> Answered:
    """Look for a form with one of the ways; `examples` is the name of the question."""
    found: list[str] = []
    witness: Counterexample[Any] | None = None
    unknown = False
    for situation in asking.situations(wanted, examples):
        if situation is None:
            unknown = True
            continue
        for way in ways(situation):
            answer = _possible(situation, way.conditions, way.mapped)
            unknown = unknown or answer is Answer.UNKNOWN
            if answer is Answer.SAT:
                found.append(situation.instruction.form)
                if witness is None:
                    witness = _witness(situation, question, story, way)
                break
        if found and not every:
            break
        unknown = unknown or (not found and _ends_outside(situation))
    if found:
        return Answered(question, Truth.YES, witness, tuple(found))
    return Answered(question, Truth.UNKNOWN if unknown else Truth.NO)


def _ends_outside(situation: Situation[Any]) -> bool:
    """Whether the model may not say what the hardware does, or what it should have done where it goes on."""
    hardware, native = situation.hardware, situation.native
    gap = hardware.not_modelled | (hardware.completes & native.not_modelled)
    return _possible(situation, [gap], mapped=True) is not Answer.UNSAT


def _witness(situation: Situation[Any], claim: str, story: str, way: Way) -> Counterexample[Any] | None:
    conditions = [*way.conditions, *way.nicer]
    if way.nicer and _possible(situation, conditions, way.mapped) is not Answer.SAT:
        conditions = list(way.conditions)
    return situation.witness(
        claim,
        story,
        conditions,
        way.labels,
        way.starts,
        mapped=way.mapped,
        assumed=None if way.mapped else (),
    )


def _possible(situation: Situation[Any], conditions: Sequence[Word], mapped: bool) -> Answer:
    if any(condition.value == 0 for condition in conditions):
        return Answer.UNSAT
    if mapped:
        return situation.first(iter([conditions]))[0]
    return Asker(situation.effort, ()).first([conditions], rlimit=ALTERNATIVE)


def changes(names: Iterable[str]) -> Callable[[Run[Any]], bool]:
    """Whether some way through changes one of these leaves, as far as the terms tell."""
    known = tuple(names)

    def wanted(run: Run[Any]) -> bool:
        return any(
            after[name].term is not run.before[name].term for _, after in run.completions() for name in known
        )

    return wanted


def mode_leaves(machine: Machine[Any]) -> tuple[str, ...]:
    """The leaves whose role is mode."""
    return tuple(leaf.name for leaf in machine.state.leaves if leaf.role is Role.MODE)
