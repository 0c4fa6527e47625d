"""What the bare machine makes of a trap: its delivery as runs from any state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from popek.kernel.exploration import Path, explore
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, Next, NotModelled, NotModelledError, Outcome, Trap
from popek.kernel.state import State
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, symbol
from popek.solving.pruning import Pruner
from popek.solving.solver import Effort

from .runs import Run

S = TypeVar("S", bound=State)

Enter = Callable[[S, Mapping[str, Word]], S]

WAYS = 200  # through a delivery


def entered(enter: Enter[S], state: S, given: Mapping[str, Word]) -> Outcome[S]:
    """The state after an entry; or that it cannot be had."""
    try:
        return Next(enter(state, given))
    except Fault as fault:  # a trap while one is delivered: the machine stops
        return Trap(fault.vector, fault.error_code, fault.memory, state, fault.level)
    except NotModelledError as stop:
        return NotModelled(str(stop))


def every_way(
    machine: Machine[S], state: S, enter: Enter[S], given: Mapping[str, Word], allowed: Word, effort: Effort
) -> Run[S]:
    """Every way through an entry from a state that may be any.

    Args:
        given: what a device or the instruction supplies.
        allowed: what it can be (width 1).

    Raises:
        PathBudgetError: too many.
    """
    paths: list[Path[Outcome[S]]] = explore(
        lambda: entered(enter, state, given),
        Pruner(effort),
        assume=[machine.invariant(state), allowed],
        budget=WAYS,
    )
    return Run(state, tuple(Path(path.conditions, path.result) for path in paths), given)


def after_a_trap(
    machine: Machine[S], before: S, conditions: Sequence[Term], trap: Trap[S], effort: Effort
) -> list[Path[Outcome[S]]]:
    """The ways through the delivery of a trap that was raised under these conditions, each with what it leads to.

    A trap while it is delivered stops the machine: that is a `Trap`.  None, where the machine delivers none.

    Raises:
        PathBudgetError: too many.
    """
    deliver = machine.deliver
    if deliver is None:
        return []
    paths = explore(
        lambda: entered(lambda state, _: deliver(state, trap), before, {}),
        Pruner(effort),
        assume=[Word(1, term) for term in conditions],
        budget=WAYS,
    )
    return [Path((*conditions, *path.conditions), path.result) for path in paths]


def of_trap(machine: Machine[S], kind: Trap[S]) -> tuple[Enter[S], dict[str, Word]]:
    """The delivery of a trap of this kind, and what it is given: a code, if it has one."""
    deliver, code = machine.deliver, kind.error_code
    given = {} if code is None else {"code": symbol(f"code of {kind.vector}", code.width)}

    def enter(state: S, given: Mapping[str, Word]) -> S:
        if deliver is None:
            raise NotModelledError("the machine does not say how a trap is delivered")
        return deliver(state, Trap(kind.vector, given.get("code"), kind.memory, state, kind.level))

    return enter, given


class Deliveries(Generic[S]):
    """Which kinds of trap a machine says how to deliver; each is explored once."""

    def __init__(self, machine: Machine[S], effort: Effort) -> None:
        self._machine, self._effort = machine, effort
        self._known: dict[tuple[str, str], bool] = {}

    def modelled(self, trap: Trap[S]) -> bool:
        """Whether there is a state after its delivery; where no trap is delivered, what it leaves is all there is."""
        if self._machine.deliver is None:
            return True
        kind = trap.vector.name, trap.level
        if kind not in self._known:
            enter, given = of_trap(self._machine, trap)
            state = self._machine.state.symbolic()
            run = every_way(self._machine, state, enter, given, TRUE, self._effort)
            self._known[kind] = any(True for _ in run.completions())
        return self._known[kind]
