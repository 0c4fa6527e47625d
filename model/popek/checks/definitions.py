"""The definitions of the classes: states to compare, and for one form the cases of which one must be possible."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.instruction import Instruction
from popek.kernel.state import Leaf, Role, State, leaves_with
from popek.kernel.words import Word, any_of, symbol
from popek.solving.asking import Asker
from popek.solving.solver import Answer

from .runs import (
    Completion,
    PathPair,
    Run,
    compared,
    conjunction,
    handed_over,
    kept_by_the_guest,
    operating_mode,
    together,
)
from .subject import Subject

S = TypeVar("S", bound=State)


PRIME = "'"


def configured(subject: Subject[S]) -> S:
    """The state that may be anything but for the settings that are one leaf each, and the operating mode."""
    machine, configuration = subject.machine, subject.configuration
    state = machine.state.symbolic().with_changes(operating_mode(machine, configuration))
    fixed = {
        machine.setting(name).leaf: value
        for name, value in configuration.settings.items()
        if machine.setting(name).leaf is not None
    }
    return state.with_changes({str(leaf): value for leaf, value in fixed.items()})


@attrs.frozen
class Varied:
    """What two compared states differ in: leaves, and memories by name."""

    leaves: tuple[Leaf, ...]
    contents: tuple[str, ...] = ()

    def names(self, before: State, read: set[str]) -> list[str]:
        """Those of them that a run reads."""
        found = [
            x.name for x in self.leaves if not read.isdisjoint(terms.variables_of([before[x.name].term]))
        ]
        return [*found, *(name for name in self.contents if name + PRIME in read)]


@attrs.frozen(eq=False)
class Definition(Generic[S]):
    """What a question asks: conditions, cases of which one must be possible, and the runs they are about."""

    conditions: list[Word]
    cases: list[PathPair]
    runs: list[Run[S]]
    varied: Varied | None = None
    offset: Word | None = None
    not_asked: str = ""


class States(Generic[S]):
    """The states that definitions speak of: any state of a configuration, and what is compared with it.

    Attributes:
        state: any state.
        invariant: that it exists (width 1).
    """

    def __init__(self, subject: Subject[S]) -> None:
        self.subject, self.machine = subject, subject.machine
        self.state = configured(subject)
        self.invariant = self.machine.invariant(self.state)
        self._twins: dict[Varied, tuple[S, Word]] = {}
        self._moved: tuple[Word, S, Word] | None = None

    def twin(self, varied: Varied) -> tuple[S, Word]:
        """A second state that differs only in what is varied, settings kept, and that it exists (width 1)."""
        if varied not in self._twins:
            fresh = {
                leaf.name: symbol(leaf.name + PRIME, leaf.width)
                for leaf in varied.leaves
                if not self.state[leaf.name].concrete
            }
            contents = {name: name + PRIME for name in varied.contents}
            state = self.state.with_changes(dict(fresh)).with_contents(contents)
            self._twins[varied] = state, self.machine.invariant(state)
        return self._twins[varied]

    @cached_property
    def modes(self) -> frozenset[str]:
        """The mode leaves that can differ between a state and a supervisor's: the invariant fixes the others."""
        varied = Varied(leaves_with(self.machine.state, [Role.MODE]))
        state, exists = self.twin(varied)
        settings = [self.subject.holds(one) for one in (self.state, state)]
        ask = Asker(self.subject.effort, [self.invariant, exists, *settings, self.machine.supervisor(state)])
        return frozenset(
            leaf.name
            for leaf in varied.leaves
            if ask.first([[self.state[leaf.name] != state[leaf.name]]]) is not Answer.UNSAT
        )

    def moved(self, relocate: Callable[[S, Word], S]) -> tuple[Word, S, Word]:
        """An offset, the state moved by it, and that this exists (width 1)."""
        if self._moved is None:
            offset = symbol("relocation", self.machine.relocation_width)
            state = relocate(self.state, offset)
            self._moved = offset, state, self.machine.invariant(state)
        return self._moved


class Definitions(Generic[S]):
    """The definitions of the classes, put to one form.

    Attributes:
        run: the form from any state of the configuration.
        in_user: that this is a user's (of width 1).
        assumed: conditions (width 1) under which everything is asked.
    """

    def __init__(self, states: States[S], instruction: Instruction, general: Run[S]) -> None:
        self._states, self._general = states, general
        self._subject, self._machine, self._technique = (
            states.subject,
            states.machine,
            states.subject.technique,
        )
        self._completing = general.completing()
        self._moved: dict[tuple[Run[S], S], Run[S]] = {}
        self._completed: dict[Run[S], list[Completion[S]]] = {}
        self.run = general.at(states.state)
        self.in_user = [self._technique.deprivileged(states.state)]
        self.assumed = [self._settings(states.state), states.invariant, instruction.valid(general.operands)]

    def _settings(self, state: S) -> Word:
        return self._subject.holds(state, mentioned=self._general.mentioned)

    def completions(self, run: Run[S]) -> list[Completion[S]]:
        """The ways in which it completes and has not handed control to the VMM."""
        if run not in self._completed:
            self._completed[run] = self._kept_by_the_guest(run)
        return self._completed[run]

    def _kept_by_the_guest(self, run: Run[S]) -> list[Completion[S]]:
        was_deprivileged = self._technique.deprivileged(run.before)

        def over(run: Run[S], after: S) -> Word:
            return was_deprivileged & handed_over(self._machine, self._technique, run.before, after)

        return kept_by_the_guest(run, over)

    def _at(self, run: Run[S], state: S) -> Run[S]:
        """The run from another state."""
        if (run, state) not in self._moved:
            self._moved[run, state] = run.at(state)
        return self._moved[run, state]

    def completes(self, run: Run[S]) -> Word:
        """It completes and has not handed control to the VMM (width 1)."""
        return any_of(conjunction(conditions) for conditions, _ in self.completions(run))

    def control(self) -> Definition[S]:
        """A run that completes changes a mode or resource leaf that is not the guest's own."""
        roles = [Role.MODE, Role.RESOURCE, *([Role.TIME] if self._subject.time_is_state else [])]
        elsewhere = frozenset(slot.name for slot in self._machine.state.layout if slot.role not in roles)
        other_leaves = frozenset(leaf.name for leaf in self._machine.state.leaves if leaf.role not in roles)
        before = self.run.before
        pairs = [(when, (), before, after) for when, after in self.completions(self.run)]
        ignored = elsewhere | other_leaves | frozenset(self._technique.guests_own)
        changed = compared(pairs, ignoring=ignored, time_is_state=self._subject.time_is_state)
        return Definition([], changed, [self.run])

    def mode(self) -> Definition[S]:
        """Two states differ only in mode, and the results differ."""
        if not self._states.modes:
            why = "no user state has a supervisor twin"
            return Definition([], [], [self.run], not_asked=why)
        modes = leaves_with(self._machine.state, [Role.MODE])
        if not modes:
            return Definition([], [], [self.run], not_asked="the state has no mode")
        return self.two_states(Varied(modes), self._general)

    def resource(self) -> Definition[S]:
        """Two states differ only in what the technique replaces, and the results differ."""
        stored = tuple(n for n in self._technique.replaced if n in self.run.before.memories())
        replaced = [self._machine.state.leaf(n) for n in self._technique.replaced if n not in stored]
        if not self._subject.time_is_state:
            replaced = [leaf for leaf in replaced if leaf.role is not Role.TIME]
        if not replaced and not stored:
            return Definition(
                [], [], [self.run], not_asked="the technique replaces nothing by a value of its own"
            )
        return self.two_states(Varied(tuple(replaced), stored), self._general)

    def location(self) -> Definition[S]:
        """Relocating before and after the run does not give the same."""
        relocate = self._machine.relocate
        if relocate is None:
            return Definition(
                [], [], [self.run], not_asked="the machine does not say what moving a program is"
            )
        offset, elsewhere, exists = self._states.moved(relocate)
        other = self._at(self._general, elsewhere)
        moved = [(when, relocate(after, offset)) for when, after in self.completions(self.run)]
        cases = compared(
            together(moved, self.completions(other)),
            ignoring=frozenset(),
            time_is_state=self._subject.time_is_state,
        )
        return Definition([exists], cases, [self.run, other], offset=offset)

    def two_states(self, varied: Varied, paths: Run[S]) -> Definition[S]:
        """Two states that differ only in what is varied; the second a supervisor's if that is the mode."""
        state, exists = self._states.twin(varied)
        other = self._at(paths, state)
        conditions = [self._settings(other.before), exists]
        if any(leaf.role is Role.MODE for leaf in varied.leaves):
            conditions.append(self._machine.supervisor(other.before))
        cases = compared(
            together(self.completions(self.run), self.completions(other)),
            ignoring=frozenset((*(leaf.name for leaf in varied.leaves), *varied.contents)),
            time_is_state=self._subject.time_is_state,
        )
        return Definition(conditions, cases, [self.run, other], varied)

    def with_a_supervisor(self) -> tuple[Run[S], Word]:
        """The run from a state that differs in mode only, and that this exists (width 1)."""
        state, exists = self._states.twin(Varied(leaves_with(self._machine.state, [Role.MODE])))
        return self._at(self._general, state), exists

    def alone(self, varied: Varied) -> Definition[S]:
        """Two states that differ in this alone, of the runs that complete."""
        return self.two_states(varied, self._completing)
