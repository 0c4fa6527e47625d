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

from popek.checks.counterexample import Executed, assert_replay, differences, execute
from popek.checks.runs import PROBE, Run, conjunction, differing, explore_instruction, probe, together
from popek.checks.verdict import Question, Status
from popek.checks.witness import find_minimal
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, Trap
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
        plain: what the inner VMM believes, and what the outer has, where nothing is said of them.
        owned: leaves that are the outer VMM's.
        start: a state in which the guest's guest may be.
    """

    machine: Machine[S]
    merged: Callable[[S, S], S]
    alone: Callable[[S, S], S]
    assumed: Callable[[S, S], Word]
    is_exit: Callable[[Trap[S]], bool]
    plain: Callable[[], tuple[S, S]]
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


@attrs.frozen
class NestingFinding:
    """What became of a promise.

    Attributes:
        assembly: of a witness.
        inner, outer: how what the inner VMM believes and what the outer VMM has differ from a plain state.
        runs: what happens on the inner VMM's own hardware, under the outer VMM's controls alone, and on the hardware.
    """

    promise: str
    status: Status
    assembly: str = ""
    inner: Mapping[str, str] = attrs.field(factory=dict)
    outer: Mapping[str, str] = attrs.field(factory=dict)
    runs: tuple[str, ...] = ()


def ask(
    nesting: Nesting[Any], form: str, promises: Sequence[str] = (), effort: Effort | None = None
) -> dict[str, NestingFinding]:
    """Which promises an instruction of the guest's guest keeps; a broken one with a minimal case, run on numbers.

    Raises:
        ReplayError: a case does not break the promise on numbers: a defect of popek.
    """
    machine = nesting.machine
    run = explore_instruction(machine, machine.instructions[form]).without_assignments()
    nested: Nested[Any] = Nested(nesting, run)
    return {promise: _finding(nested, form, promise, effort) for promise in promises or PROMISES}


def _finding(nested: Nested[Any], form: str, promise: str, effort: Effort | None) -> NestingFinding:
    nesting = nested.nesting
    machine, instruction = nesting.machine, nesting.machine.instructions[form]
    question = Question(f"{form}: {promise}", [*nested.assumed, nested.broken(promise)])
    answer, model, solver = question.ask(effort)
    if answer is not Answer.SAT or model is None or solver is None:
        return NestingFinding(promise, Status.HOLDS if answer is Answer.UNSAT else Status.UNKNOWN)
    probes = {n: probe(c, f"{PROBE} {n}").term for n, c in nested.inner.memories().items()}
    states, plain = [nested.inner, nested.outer], nesting.plain()
    found = find_minimal(machine, instruction, question, solver, model, states, probes, plain)
    inner, outer = found.states

    def run_on(side: str, state: Any) -> Executed[Any]:
        return execute(machine, instruction, side, state, found.operands)

    believed = run_on("the inner VMM's own hardware", inner)
    wanted = run_on("the outer VMM's controls alone", nesting.alone(inner, outer))
    real = run_on("the hardware", nesting.merged(inner, outer))
    shown = [believed.describe(), wanted.describe(), real.describe()]
    kept = _Concrete(nesting, outer, found.addresses)
    assert_replay(kept.broken(promise, believed, wanted, real), instruction, promise, shown)
    return NestingFinding(
        promise,
        Status.REFUTED,
        instruction.assembly(found.operands),
        {d.name: hex(d.after) for d in differences(plain[0], inner)},
        {d.name: hex(d.after) for d in differences(plain[1], outer)},
        tuple(shown),
    )


@attrs.frozen(eq=False)
class _Concrete:
    """The promises on numbers."""

    nesting: Nesting[Any]
    outer: Any
    addresses: Mapping[str, tuple[int, ...]]

    def broken(
        self, promise: str, believed: Executed[Any], wanted: Executed[Any], real: Executed[Any]
    ) -> bool:
        if promise in ("outer", "inner"):
            return self._exits(wanted if promise == "outer" else believed) and not self._exits(real)
        if promise == "owned":
            if not isinstance(real.outcome, Next):
                return False
            after = real.outcome.state
            return any(after[n].value != real.before[n].value for n in self.nesting.owned)
        if isinstance(real.outcome, Next) and isinstance(believed.outcome, Next):
            expected = self.nesting.merged(believed.outcome.state, self.outer)
            return self._unlike(expected, real.outcome.state)
        return not self._exits(real) and type(real.outcome) is not type(believed.outcome)

    def _exits(self, done: Executed[Any]) -> bool:
        return isinstance(done.outcome, Trap) and self.nesting.is_exit(done.outcome)

    def _unlike(self, expected: Any, seen: Any) -> bool:
        words = any(word.value != seen[name].value for name, word in expected.words().items())
        return words or any(
            memory.load(Word(memory.address_width, place)).value
            != seen.memories()[name].load(Word(memory.address_width, place)).value
            for name, memory in expected.memories().items()
            for place in self.addresses.get(name, ())
        )
