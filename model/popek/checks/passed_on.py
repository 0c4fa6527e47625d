"""Traps on the hardware that the technique says are not the VMM's: what their delivery makes of the hardware.

That a trap goes to the guest is no more than said until its delivery was looked at.  It is a step of the guest's, as
an instruction that completes is one: it must end in the image of what the guest's own machine makes of the same trap,
must not change what the VMM owns, nor enter a supervisor mode.  Where the machine does not say how a trap is
delivered, nothing of this is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel.outcome import Trap, Vector
from popek.kernel.state import State
from popek.kernel.words import TRUE, Word, any_of
from popek.solving.solver import Effort

from .delivery import after_a_trap
from .obligation import Breach, BreachKind, Obligation
from .runs import Completion, Run

S = TypeVar("S", bound=State)

Kind = tuple[Vector, str]


class PassedOn(Generic[S]):
    """The traps of one form that go past the VMM.

    Attributes:
        due: what the form owes, with both runs.
    """

    def __init__(self, due: Obligation[S], effort: Effort) -> None:
        self.due, self._machine, self._effort = due, due.machine, effort
        self._natively: dict[Kind, Run[S]] = {}

    @cached_property
    def ends(self) -> list[Completion[S]]:
        """The states of the hardware after a delivery, and when."""
        return [end for _, run in self._kinds for end in run.completions()]

    def ends_of(self, hardware: Run[S]) -> list[Completion[S]]:
        """The same of another run on the hardware."""
        return PassedOn(attrs.evolve(self.due, hardware=hardware), self._effort).ends

    @cached_property
    def silent(self) -> Word:
        """The model does not say how a trap is delivered, on the hardware or natively (width 1)."""
        return any_of(
            run.not_modelled
            | (any_of(path.condition for path in run.paths) & self._native(kind).not_modelled)
            for kind, run in self._kinds
        )

    def steps(self) -> Iterator[tuple[Run[S], Run[S]]]:
        """Per kind of trap: the run on the hardware and that on the guest's own machine, each with its delivery."""
        for kind, run in self._kinds:
            yield run, self._native(kind)

    def unlike(self) -> Iterator[Breach]:
        """The delivery is not the image of that on the guest's own machine."""
        for kind, run in self._kinds:
            due = attrs.evolve(self.due, native=self._native(kind))
            for breach in due.unlike(list(run.completions())):
                yield attrs.evolve(breach, how=f"raises {kind[0]} past the VMM, and then: {breach.how}")

    def changes(self) -> Iterator[Breach]:
        """The delivery changes what the VMM owns, or enters a supervisor mode."""
        before, supervisor = self.due.hardware.before, self._machine.supervisor
        for (vector, _), run in self._kinds:
            ends = list(run.completions())
            how = f"raises {vector} past the VMM, and then: "
            for conditions, after in ends:
                entered = supervisor(after) & ~supervisor(before)
                words = "enters a supervisor mode of the hardware"
                yield Breach(BreachKind.CHANGES, how + words, conditions, entered)
            for breach in self.due.changes(ends):
                yield attrs.evolve(breach, how=how + breach.how)
            for path in run.paths:
                if isinstance(path.result, Trap):
                    words = f"stops the machine by {path.result.vector}"
                    yield Breach(BreachKind.STOPS, how + words, path.conditions, TRUE)

    @cached_property
    def _kinds(self) -> list[tuple[Kind, Run[S]]]:
        """Per kind of trap that goes past the VMM: the run on the hardware, with its delivery."""
        run = self.due.hardware
        traps = [path.result for path in run.paths if isinstance(path.result, Trap)]
        kinds = dict.fromkeys((trap.vector, trap.level) for trap in traps if self.due.elsewhere(trap))
        return [
            (kind, self._delivered(run, kind, self.due.elsewhere))
            for kind in kinds
            if self._machine.deliver is not None
        ]

    def _native(self, kind: Kind) -> Run[S]:
        """The run on the guest's own machine that ends in such a trap, with its delivery."""
        if kind not in self._natively:
            vector, level = kind
            known = self.due.technique.guest_level(level)
            self._natively[kind] = self._delivered(self.due.native, (vector, known), lambda trap: True)
        return self._natively[kind]

    def _delivered(self, run: Run[S], kind: Kind, counts: Callable[[Trap[S]], bool]) -> Run[S]:
        """The paths that end in a trap of this kind that counts, each with its own delivery.

        Raises:
            PathBudgetError: too many ways through it.
        """
        paths = [
            after
            for path in run.paths
            if isinstance(path.result, Trap)
            and (path.result.vector, path.result.level) == kind
            and counts(path.result)
            for after in after_a_trap(self._machine, run.before, path.conditions, path.result, self._effort)
        ]
        return Run(run.before, tuple(paths), run.operands)
