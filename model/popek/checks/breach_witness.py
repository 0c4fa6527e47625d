"""Witnesses for broken promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.program import Line
from popek.kernel.state import State
from popek.kernel.words import Word, all_of
from popek.solving.solver import Answer

from .counterexample import (
    Counterexample,
    Executed,
    ReplayError,
    assert_replay,
    assert_within,
    differences,
    execute,
)
from .delivery import entered_by
from .hosted import Hosted
from .obligation import Breach, BreachKind
from .runs import AGAIN, PROBE, probe
from .verdict import Question
from .witness import find_minimal

S = TypeVar("S", bound=State)


class BreachWitness(Generic[S]):
    """Makes the witness of a breach: minimal, inside what was assumed, and run again on numbers."""

    def __init__(self, form: Hosted[S], breach: Breach) -> None:
        self._form, self._breach = form, breach
        self._machine, self._technique, self._instruction = form.machine, form.technique, form.instruction
        self._guest, self._private, self._due = form.guest, form.private, form.due

    def within(self) -> list[Word]:
        """The settings that the runs do not depend on: a witness has them all the same."""
        images = [self._form.hardware.before]
        if self._breach.kind is BreachKind.SHOWS:
            images.append(self._technique.map(self._guest, self._breach.other))
        elif self._breach.other is not None:
            images.append(self._technique.map(self._breach.other, self._private))
        return [self._form.subject.holds_of_the_image(image) for image in images]

    def _assert_within(self, guest: S, private: S) -> None:
        image = self._technique.map(guest, private)
        assert_within(
            self._machine,
            self._instruction,
            self._breach.how,
            the_invariant=self._machine.invariant(image),
            what_is_a_guest=all_of(self._form.is_guest(guest)),
            what_the_VMM_promises=all_of(
                [self._technique.private(guest, private), *self._form.can_be_kept(private)]
            ),
            the_configuration=self._form.subject.holds_of_the_image(image),
        )

    def find(self, question: Question) -> Counterexample[S] | None:
        """The counterexample that answers a question about the breach; None where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        answer, model, solver = question.ask(self._form.subject.effort)
        if answer is Answer.UNKNOWN:  # there is one, and no time to find it again
            return None
        if model is None or solver is None:
            raise ReplayError(f"{question.name}: was satisfiable and is no more")
        machine, instruction, technique = self._machine, self._instruction, self._technique
        two = self._breach.other is not None
        symbolic = [self._guest, self._private, *([self._breach.other] if two else [])]
        probes = {n: probe(c, f"{PROBE} in {n}").term for n, c in self._guest.memories().items()}
        found = find_minimal(machine, instruction, question, solver, model, symbolic, probes)
        guest, private, *others = found.states
        self._assert_within(guest, private)
        if two:
            self._assert_within(
                *((guest, others[0]) if self._breach.kind is BreachKind.SHOWS else (others[0], private))
            )
        on_hardware = execute(
            machine, instruction, "on the hardware", technique.map(guest, private), found.operands
        )
        if self._breach.kind is BreachKind.SHOWS:
            second = execute(
                machine,
                instruction,
                "with another VMM state",
                technique.map(guest, others[0]),
                found.operands,
            )
            runs: tuple[Executed[S], Executed[S] | None] = (on_hardware, second)
            mine, theirs = self._after(on_hardware), self._after(second)
            differ = tuple(
                d
                for d in differences(
                    self._due.seen(mine, [private, others[0]], guest),
                    self._due.seen(theirs, [others[0], private], guest),
                    found.addresses,
                )
                if d.name not in self._form.private_parts
            )
        elif self._breach.kind is BreachKind.LOSES:
            image = technique.map(others[0], private)
            if self._form.general.undefined_again:
                image = image.with_undefined_again(AGAIN)
            second = execute(machine, instruction, "with another guest", image, found.operands)
            runs = (on_hardware, second)
            natives = [self._natively(one, found.operands) for one in (guest, others[0])]
            differ = differences(guest, others[0], found.addresses)
            ends = [run.outcome.state for run in runs if isinstance(run.outcome, Trap | Next)]
            went_in = all(isinstance(run.outcome, Next) for run in runs)
            alike = _same_trap(on_hardware.outcome, second.outcome) or went_in
            if not alike or differences(ends[0], ends[1], found.addresses) or _same_outcome(*natives):
                differ = ()
        elif self._breach.kind is BreachKind.ENTERS:
            second = execute(
                machine, instruction, "with another guest", technique.map(others[0], private), found.operands
            )
            runs = (on_hardware, second)
            mine, theirs = self._after(on_hardware), self._after(second)
            names = self._breach.names
            differ = tuple(d for d in differences(mine, theirs) if d.name in names)
            if not names:
                differ = differences(on_hardware.before, mine, found.addresses)
        elif self._breach.kind is BreachKind.CHANGES:
            runs = (on_hardware, None)
            after = self._ended(on_hardware)
            differ = differences(on_hardware.before, after, found.addresses)
        elif self._breach.kind is BreachKind.STOPS:
            runs, differ = (on_hardware, None), ()
        elif self._breach.kind is BreachKind.FAULTS:
            native = execute(machine, instruction, "on the guest's own machine", guest, found.operands)
            runs, differ = (native, on_hardware), native.changes
        else:
            native = execute(machine, instruction, "on the guest's own machine", guest, found.operands)
            runs = (native, on_hardware)
            after = self._after(on_hardware)
            trapped, differ = isinstance(native.outcome, Trap), ()
            silent = trapped and isinstance(on_hardware.outcome, Next)
            done = None if silent else self._after(native, delivered=trapped)
            if done is not None:
                expected = self._due.expected(done, private, guest)
                seen = self._due.seen(after, [private], guest)
                if technique.settled:
                    expected, seen = technique.map(done, after), after
                differ = differences(expected, seen, found.addresses)
                differ = tuple(d for d in differ if d.name not in (technique.uncompared or ()))
                differ = differ or differences(guest, done)
        shown = bool(differ) or (self._breach.kind is BreachKind.UNLIKE and silent)
        if self._breach.kind is BreachKind.FAULTS:
            same = self._due.same_trap(native.outcome, on_hardware.outcome)
            shown = isinstance(on_hardware.outcome, Trap) and not same
        if self._breach.kind is BreachKind.STOPS:
            shown = self._stops(on_hardware)
        assert_replay(
            shown, instruction, self._breach.how, [run.describe() for run in runs if run is not None]
        )
        return Counterexample(
            self._breach.how,
            self._breach.how[0].upper() + self._breach.how[1:] + ".",
            instruction,
            instruction.assembly(found.operands),
            differences(machine.state.reset(), guest),
            *runs,
            differ,
        )

    def _natively(self, guest: S, operands: Mapping[str, int]) -> Outcome[S]:
        """How the guest's own machine ends, with the delivery where that looks at the state before the trap."""
        machine, instruction = self._machine, self._instruction
        outcome = machine.step(instruction, guest, Line(instruction, operands).words)
        if isinstance(outcome, Trap) and self._form.subject.deliveries.reads_before(outcome):
            trap = outcome
            return entered_by(lambda: machine.delivered(guest, trap), trap.state)
        return outcome

    def _stops(self, run: Executed[S]) -> bool:
        """A trap while its trap is delivered stops the machine."""
        outcome, machine = run.outcome, self._machine
        return isinstance(outcome, Trap) and isinstance(
            entered_by(lambda: machine.delivered(run.before, outcome), outcome.state), Trap
        )

    def _ended(self, run: Executed[S]) -> S:
        """Where a run ended, by a trap or without one."""
        outcome = run.outcome
        if isinstance(outcome, Trap) and not self._due.elsewhere(outcome):
            return outcome.state
        return self._after(run)

    def _after(self, run: Executed[S], *, delivered: bool = False) -> S:
        """The state after a run: one that completes, or whose trap goes past the VMM or is to be delivered."""
        outcome, machine = run.outcome, self._machine
        if isinstance(outcome, Trap) and (delivered or self._due.elsewhere(outcome)):
            return outcome.state if machine.deliver is None else machine.delivered(run.before, outcome)
        if not isinstance(outcome, Next):
            raise ReplayError(f"the witness for {self._breach.how!r} {run.describe()}")
        return outcome.state


def _same_outcome(a: Outcome[S], b: Outcome[S]) -> bool:
    """Two runs on numbers ended alike."""
    if isinstance(a, NotModelled) or isinstance(b, NotModelled):
        return True
    return (
        type(a) is type(b) and (isinstance(a, Next) or _same_trap(a, b)) and not differences(a.state, b.state)
    )


def _same_trap(a: Outcome[S], b: Outcome[S]) -> bool:
    """Whether both are traps of one vector with one error code, if both have one."""
    if not isinstance(a, Trap) or not isinstance(b, Trap) or (a.vector, a.level) != (b.vector, b.level):
        return False
    return a.error_code is None or b.error_code is None or a.error_code.value == b.error_code.value
