"""A VMM inside a VMM: what the hardware does to the guest's guest, beside what each of the two asked for.

Three runs of one instruction: as the inner VMM believes it to be (its own controls, on hardware of its own), under the
outer VMM's controls alone, and on the hardware with what was made of both.  The promises:

    outer    what would exit under the outer VMM's controls exits
    inner    what would exit on the inner VMM's own hardware exits
    result   what does not exit does what it does there
    owned    nothing that is the outer VMM's changes without an exit
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

import attrs

from popek.checks.runs import Run, conjunction, differing, explore_instruction, together
from popek.checks.verdict import Question, Status
from popek.kernel.machine import Machine
from popek.kernel.outcome import Trap
from popek.kernel.state import State
from popek.kernel.words import Word, any_of
from popek.solving.solver import Answer, Effort

S = TypeVar("S", bound=State)

PROMISES: Final[Mapping[str, str]] = {
    "outer": "what would exit under the outer VMM's controls exits",
    "inner": "what would exit on the inner VMM's own hardware exits",
    "result": "what does not exit does what it does on the inner VMM's own hardware",
    "owned": "nothing that is the outer VMM's changes without an exit",
}


@attrs.frozen(eq=False)
class Nesting(Generic[S]):
    """Two VMMs, one inside the other.

    Attributes:
        machine: the machine on which the guest's guest runs.
        merged: the hardware's state, given what the inner VMM believes and the outer VMM's controls.
        alone: the guest's guest under the outer VMM's controls alone.
        assumed: of the two (width 1).
        is_exit: which traps give a VMM control.
        owned: leaves that are the outer VMM's.
        start: a state in which the guest's guest may be.
    """

    machine: Machine[S]
    merged: Callable[[S, S], S]
    alone: Callable[[S, S], S]
    assumed: Callable[[S, S], Word]
    is_exit: Callable[[Trap[S]], bool]
    owned: tuple[str, ...] = ()
    start: Callable[[S], S] = lambda state: state


@attrs.frozen(eq=False, slots=False)
class Nested(Generic[S]):
    """One instruction of the guest's guest."""

    nesting: Nesting[S]
    run: Run[S]

    @cached_property
    def inner(self) -> S:
        """What the inner VMM believes."""
        return self.nesting.start(self.run.before)

    @cached_property
    def outer(self) -> S:
        """What the outer VMM has."""
        return self.nesting.machine.state.symbolic("'")

    @cached_property
    def believed(self) -> Run[S]:
        """The run on the inner VMM's own hardware."""
        return self.run.at(self.inner)

    @cached_property
    def hardware(self) -> Run[S]:
        """The run on the hardware."""
        return self.run.at(self.nesting.merged(self.inner, self.outer))

    @cached_property
    def assumed(self) -> tuple[Word, ...]:
        """What holds of all three."""
        machine = self.nesting.machine
        return (
            machine.invariant(self.inner),
            machine.invariant(self.hardware.before),
            self.nesting.assumed(self.inner, self.outer),
        )

    def exits(self, run: Run[S]) -> Word:
        """Whether a run exits (width 1)."""
        return any_of(
            path.condition
            for path in run.paths
            if isinstance(path.result, Trap) and self.nesting.is_exit(path.result)
        )

    def broken(self, promise: str) -> Word:
        """When a promise is broken (width 1)."""
        real = self.exits(self.hardware)
        if promise == "outer":
            return self.exits(self.run.at(self.nesting.alone(self.inner, self.outer))) & ~real
        if promise == "inner":
            return self.exits(self.believed) & ~real
        if promise == "owned":
            before = self.hardware.before
            return any_of(
                conjunction(conditions) & (after[name] != before[name])
                for conditions, after in self.hardware.completions()
                for name in self.nesting.owned
            )
        expected = [(c, self.nesting.merged(after, self.outer)) for c, after in self.believed.completions()]
        pairs = list(together(self.hardware.completions(), expected))
        cases = differing(pairs, ignoring=frozenset(), time_is_state=True)
        unlike = any_of(conjunction(case.given) & any_of(case.unlike.values()) for case in cases)
        faults = self.hardware.traps & ~real & self.believed.completes
        silent = self.hardware.completes & self.believed.traps & ~self.exits(self.believed)
        return unlike | faults | silent


def ask(
    nesting: Nesting[S], form: str, promises: Sequence[str] = (), effort: Effort | None = None
) -> dict[str, Status]:
    """Which promises an instruction of the guest's guest keeps."""
    machine = nesting.machine
    run = explore_instruction(machine, machine.instructions[form]).without_assignments()
    nested: Nested[Any] = Nested(nesting, run)
    found = {}
    for promise in promises or PROMISES:
        question = Question(f"{form}: {promise}", [*nested.assumed, nested.broken(promise)])
        answer, _, _ = question.ask(effort)
        found[promise] = {Answer.UNSAT: Status.HOLDS, Answer.SAT: Status.REFUTED}.get(answer, Status.UNKNOWN)
    return found
