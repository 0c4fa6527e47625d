"""What a machine does besides instructions, tried on numbers: it delivers traps, takes interrupts, moves a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import attrs

from popek.kernel.declaration import MISTAKES, contents, described, place
from popek.kernel.exploration import Path, PathBudgetError
from popek.kernel.interruption import Interruption
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.state import State
from popek.kernel.words import TRUE, Word, symbol
from popek.solving.solver import Effort

from .delivery import Enter, entered, every_way, of_trap
from .presence import plainest_given
from .runs import Run
from .trial_finding import TrialFinding, TrialKind
from .trial_law import RandomStates, unlike
from .verdict import Question

S = TypeVar("S", bound=State)


class _WrongError(Exception):
    """What a function of the machine's does wrong, in a line."""


@attrs.frozen
class TrialEntries(Generic[S]):
    """The trial of what is no instruction.

    Attributes:
        times: states on numbers, for each thing that is tried.
    """

    machine: Machine[S]
    states: RandomStates[S]
    effort: Effort
    times: int

    def deliveries(self, traps: Sequence[tuple[S, Trap[S]]]) -> Iterator[TrialFinding]:
        """Traps that were met, each with the state before it, are delivered; of each kind the first fault is told."""
        if self.machine.deliver is None:
            return
        kinds: dict[tuple[str, str], list[tuple[S, Trap[S]]]] = {}
        for state, trap in traps:
            kinds.setdefault((trap.vector.name, trap.level), []).append((state, trap))
        for (vector, level), met in kinds.items():
            what = f"deliver of {vector}{f' to {level}' if level else ''}"
            yield from self._told(what, partial(self._deliver, what, met[: self.times]))

    def _deliver(self, what: str, met: Sequence[tuple[S, Trap[S]]]) -> Iterator[TrialFinding]:
        deliver = self.machine.deliver
        assert deliver is not None
        first = met[0][1]
        for state, trap in met:
            self._entered(deliver, what, partial(_delivered, deliver, trap), state, {})
        enter, symbols = of_trap(self.machine, first)
        run = every_way(self.machine, self.machine.state.symbolic(), enter, symbols, TRUE, self.effort)
        for state, trap in met:
            # Elsewhere the exploration is of another trap: the law is asked of those that leave the state as it was.
            if trap.state is state and _kind(trap) == _kind(first):
                numbers = {} if trap.error_code is None else {"code": trap.error_code}
                yield from self._law(what, run, state, enter, numbers, _by_symbol(symbols, numbers))

    def interruptions(self) -> Iterator[TrialFinding]:
        """Each is taken from states in which it asks and nothing holds it off."""
        for one in self.machine.interruptions:
            yield from self._told(f"interruption {one.name}", partial(self._interrupt, one))

    def _interrupt(self, one: Interruption[S]) -> Iterator[TrialFinding]:
        machine, what = self.machine, f"interruption {one.name}"
        state = machine.state.symbolic()
        symbols = {name: symbol(f"given {name}", width) for name, width in one.given.items()}
        taken = one.takes(state, symbols) & one.may(symbols)
        question = Question(f"{machine.name}: {what} is taken", [machine.invariant(state), taken])
        found, numbers = plainest_given(machine, question, [state], self.effort, symbols)
        if not found:
            yield TrialFinding(
                TrialKind.ADVICE, "", f"{machine.name}: {what} is taken in no state that was found"
            )
            return
        run = every_way(machine, state, one.enter, symbols, taken, self.effort)
        near = attrs.evolve(self.states, start=found[0])
        for _ in range(self.times):
            start = near.state(lambda s: one.takes(s, numbers).value == 1)
            if one.takes(start, numbers).value != 1:  # it hangs on what storage holds
                continue
            self._entered(one.enter, what, one.enter, start, numbers)
            yield from self._law(what, run, start, one.enter, numbers, _by_symbol(symbols, numbers))

    def relocation(self) -> Iterator[TrialFinding]:
        """A program that is moved by nothing stays as it was; what is explored of the move is what numbers give."""
        relocate = self.machine.relocate
        if relocate is not None:
            yield from self._told("relocate", partial(self._relocated, relocate))

    def _relocated(self, relocate: Callable[[S, Word], S]) -> Iterator[TrialFinding]:
        width, what = self.machine.relocation_width, "relocate"
        symbols = self.machine.state.symbolic()
        moved = relocate(symbols, symbol("relocation", width))
        run: Run[S] = Run(symbols, (Path((), Next(moved)),), {})

        def enter(state: S, given: Mapping[str, Word]) -> S:
            return relocate(state, given["relocation"])

        for number in range(self.times):
            state = self.states.state()
            given = {"relocation": Word(width, self.states.number(width) if number else 0)}
            found = self._called(relocate, what, enter, state, given)
            if found is not None and number == 0:
                names = [name for name, word in found.words().items() if word != state.words()[name]]
                if names:
                    yield TrialFinding(
                        TrialKind.ADVICE,
                        "",
                        f"{_written(relocate)}{self.machine.name}: relocate(state, 0) changes {', '.join(names[:4])}: "
                        "a program that is moved by nothing is expected to stay as it was",
                    )
            yield from self._law(what, run, state, enter, given, given)

    # -- one call -------------------------------------------------------------------------------

    def _told(self, what: str, tried: Callable[[], Iterator[TrialFinding]]) -> Iterator[TrialFinding]:
        """The first thing that is found."""
        try:
            yield from list(tried())[:1]
        except _WrongError as wrong:
            yield TrialFinding(TrialKind.MISTAKE, "", str(wrong))
        except PathBudgetError as error:
            yield TrialFinding(TrialKind.LIMIT, "", f"{self.machine.name}: {what}: {error}")
        except MISTAKES as error:
            yield TrialFinding(TrialKind.MISTAKE, "", str(self._wrong(what, error)))

    def _wrong(self, what: str, error: Exception) -> _WrongError:
        where = place(error)
        return _WrongError(f"{where + ': ' if where else ''}{self.machine.name}: {what}: {described(error)}")

    def _law(
        self,
        what: str,
        run: Run[S],
        state: S,
        enter: Enter[S],
        given: Mapping[str, Any],
        variables: Mapping[str, Word],
    ) -> Iterator[TrialFinding]:
        concrete: Outcome[S] = entered(enter, state, given)
        how = unlike(run, state, variables, concrete)
        if how:
            yield TrialFinding(TrialKind.LAW, "", f"{self.machine.name}: {what}: {how}, from {state!r}")

    def _entered(
        self,
        function: Callable[..., Any],
        what: str,
        enter: Enter[S],
        state: S,
        given: Mapping[str, Word],
    ) -> None:
        """An entry gives a state that exists, or stops."""
        after = self._called(function, what, enter, state, given)
        if after is not None and self.machine.invariant(after).value != 1:
            raise _WrongError(
                f"{_written(function)}{self.machine.name}: {what} leads to a state that the invariant excludes: "
                f"{after!r}"
            )

    def _called(
        self, function: Callable[..., Any], what: str, enter: Enter[S], state: S, given: Mapping[str, Word]
    ) -> S | None:
        """The state that a function gives, None where it stops; the one it is given stays as it is."""
        before = contents(state)
        try:
            found = entered(enter, state, given)
        except MISTAKES as error:
            raise self._wrong(what, error) from error
        if before != contents(state):
            raise _WrongError(
                f"{_written(function)}{self.machine.name}: {what} changes the state it is given: "
                "begin with a copy, state.copy()"
            )
        if not isinstance(found, Next):
            return None
        if not isinstance(found.state, self.machine.state):
            raise _WrongError(
                f"{_written(function)}{self.machine.name}: {what} gives {found.state!r}: expected a state of "
                f"{self.machine.state.__name__}, such as a changed copy of the one it is given"
            )
        return found.state


def _delivered(deliver: Callable[[S, Trap[S]], S], trap: Trap[S], state: S, given: Mapping[str, Word]) -> S:
    return deliver(state, trap)


def _kind(trap: Trap[Any]) -> tuple[bool, int]:
    return trap.memory, 0 if trap.error_code is None else trap.error_code.width


def _by_symbol(symbols: Mapping[str, Word], numbers: Mapping[str, Word]) -> dict[str, Word]:
    return {str(word.term.data): numbers[name] for name, word in symbols.items()}


def _written(function: Callable[..., Any]) -> str:
    """Where a function is, `toy.py:12: `."""
    code = getattr(function, "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}: "
