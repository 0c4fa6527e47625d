"""What the bare machine makes of a trap: its delivery as runs from any state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.exploration import Budget, Path, explore, looping_code
from popek.kernel.interruption import Interruption
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, Next, NotModelled, NotModelledError, Outcome, Trap, Vector
from popek.kernel.state import State
from popek.kernel.terms import Term
from popek.kernel.words import Word, symbol
from popek.solving.pruning import Pruner
from popek.solving.solver import Effort

from .runs import Run, probe

S = TypeVar("S", bound=State)

Enter = Callable[[S, Mapping[str, Word]], S]

WAYS = Budget(paths=200)  # through a delivery
BEFORE = "@before"  # of the names of what was before the instruction


def entered(enter: Enter[S], state: S, given: Mapping[str, Word]) -> Outcome[S]:
    """The state after an entry; or that it cannot be had."""
    return entered_by(lambda: enter(state, given), state)


def entered_by(enter: Callable[[], S], state: S) -> Outcome[S]:
    """The same, of an entry from this state."""
    try:
        return Next(enter())
    except Fault as fault:  # a trap while one is delivered: the machine stops
        return Trap(fault.vector, fault.error_code, fault.memory, state, fault.level)
    except NotModelledError as stop:
        return NotModelled(str(stop))


@attrs.frozen(eq=False, slots=False)
class Delivery(Generic[S]):
    """Every way through an entry, whatever it is entered from.

    Attributes:
        run: from the state that a trap leaves, or in which an interrupt is taken.
        before: the state before the instruction that trapped.
        given: what a device supplies, or the code of the trap.
    """

    run: Run[S]
    before: S
    given: Mapping[str, Word]

    @cached_property
    def reads_before(self) -> bool:
        """It looks at the state before the instruction."""
        roots = [condition for path in self.run.paths for condition in path.conditions]
        for path in self.run.paths:
            if isinstance(path.result, Next | Trap):
                after = path.result.state
                roots += [word.term for word in after.words().values()]
                roots += [content.load(probe(content)).term for content in after.memories().values()]
        named = {*terms.variables_of(roots), *(str(cell.data) for cell in terms.applications_of(roots))}
        return any(name.endswith(BEFORE) for name in named)

    def of(
        self, path: Path[Outcome[S]], before: S, state: S, *, again: bool = False
    ) -> tuple[Path[Outcome[S]], ...]:
        """One way through it, from this state where that one was before the instruction; none if it is impossible.

        Args:
            again: undefined results may be others.
        """
        run = attrs.evolve(self.run, paths=(path,))
        undefined = self.run.undefined_again if again else {}
        if not self.reads_before:
            return run.at(state, undefined).paths
        words = {name + BEFORE: word for name, word in before.words().items()}
        contents = {name + BEFORE: content.load for name, content in before.memories().items()}
        return run.at(state, {**words, **undefined}, contents).paths


def delivery_of(machine: Machine[S], trap: Trap[S], state: S, effort: Effort) -> Delivery[S]:
    """Every way through the delivery of such a trap.

    Args:
        state: that may be anything.

    Raises:
        PathBudgetError: too many.
    """
    code = trap.error_code
    given = {} if code is None else {"code": symbol(f"code of {trap.vector}", code.width)}
    before = machine.state.symbolic(BEFORE)
    before = before.with_changes({x.name: state[x.name] for x in state.leaves if state[x.name].concrete})
    made = Trap(trap.vector, given.get("code"), trap.memory, state, trap.level)
    return Delivery(
        _explored(machine, lambda: machine.delivered(before, made), state, [], effort), before, given
    )


def interruption_of(
    machine: Machine[S], taken: Interruption[S], state: S, given: Mapping[str, Word], effort: Effort
) -> Delivery[S]:
    """Every way in which an interrupt is taken.

    Args:
        state: that may be anything.
        given: what the device supplies.

    Raises:
        PathBudgetError: too many.
    """
    run = _explored(
        machine, lambda: machine.interrupted(taken, state, given), state, [taken.may(given)], effort
    )
    return Delivery(run, state, given)


def _explored(
    machine: Machine[S], enter: Callable[[], S], state: S, assume: Sequence[Word], effort: Effort
) -> Run[S]:
    """No invariant is assumed: a form may have broken it before it trapped."""
    loops = [machine.deliver, *(one.enter for one in machine.interruptions)]
    paths: list[Path[Outcome[S]]] = explore(
        lambda: entered_by(enter, state),
        Pruner(effort),
        assume=assume,
        budget=WAYS,
        looping=frozenset(code for one in loops if one is not None for code in looping_code(one)),
    )
    return Run(state, tuple(Path(path.conditions, path.result) for path in paths), {})


def every_way(
    machine: Machine[S], state: S, enter: Enter[S], given: Mapping[str, Word], allowed: Word, effort: Effort
) -> Run[S]:
    """Every way through an entry from any state that exists.

    Args:
        given: what a device or the instruction supplies.
        allowed: what it can be (width 1).

    Raises:
        PathBudgetError: too many.
    """
    run = _explored(machine, lambda: enter(state, given), state, [machine.invariant(state), allowed], effort)
    return attrs.evolve(run, operands=given)


def of_trap(machine: Machine[S], kind: Trap[S]) -> tuple[Enter[S], dict[str, Word]]:
    """The delivery of a trap of this kind as the machine has it, and what it is given: a code, if it has one."""
    deliver, code = machine.deliver, kind.error_code
    given = {} if code is None else {"code": symbol(f"code of {kind.vector}", code.width)}

    def enter(state: S, given: Mapping[str, Word]) -> S:
        if deliver is None:
            raise NotModelledError("the machine does not say how a trap is delivered")
        return deliver(state, Trap(kind.vector, given.get("code"), kind.memory, state, kind.level))

    return enter, given


def after_a_trap(
    machine: Machine[S], before: S, conditions: Sequence[Term], trap: Trap[S], effort: Effort
) -> list[Path[Outcome[S]]]:
    """The ways through the delivery of a trap that was raised under these conditions, each with what it leads to.

    A trap while it is delivered stops the machine: that is a `Trap`.  None, where the machine delivers none.

    Raises:
        PathBudgetError: too many.
    """
    if machine.deliver is None:
        return []
    assumed = [Word(1, term) for term in conditions]
    run = _explored(machine, lambda: machine.delivered(before, trap), trap.state, assumed, effort)
    return [Path((*conditions, *path.conditions), path.result) for path in run.paths]


class Deliveries(Generic[S]):
    """Which kinds of trap a machine says how to deliver; each is explored once."""

    def __init__(self, machine: Machine[S], effort: Effort) -> None:
        self._machine, self._effort = machine, effort
        self._known: dict[tuple[Vector, str, bool, bool], Delivery[S]] = {}

    def modelled(self, trap: Trap[S]) -> bool:
        """Whether there is a state after its delivery; where no trap is delivered, what it leaves is all there is.

        Raises:
            PathBudgetError: too many ways through it.
        """
        if self._machine.deliver is None:
            return True
        return any(True for _ in self._of(trap).run.completions())

    def reads_before(self, trap: Trap[S]) -> bool:
        """Whether its delivery looks at the state before the instruction.

        Raises:
            PathBudgetError: too many ways through it.
        """
        return self._machine.deliver is not None and self._of(trap).reads_before

    def _of(self, trap: Trap[S]) -> Delivery[S]:
        kind = trap.vector, trap.level, trap.memory, trap.error_code is not None
        if kind not in self._known:
            state = self._machine.state.symbolic()
            self._known[kind] = delivery_of(self._machine, trap, state, self._effort)
        return self._known[kind]
