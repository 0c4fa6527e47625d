"""What a technique owes one instruction form: the run on the guest's own machine beside the run on the hardware.

With G the guest's state, P what the VMM has and f the technique's map, the hardware starts in f(G, P).  A run that
traps to the VMM keeps every promise, for the VMM finishes what the guest's machine would do; so does one that hands
over to the VMM otherwise.  The ways in which any other run can break a promise are `Breach`es: fidelity's and
safety's.  This module states them; who asks, and of which G and P, is the caller's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Outcome, Target, Trap, Vector
from popek.kernel.state import Role, State
from popek.kernel.technique import Technique
from popek.kernel.terms import Term
from popek.kernel.words import FALSE, TRUE, Word, any_of, ite

from .runs import (
    PROBE,
    Completion,
    Run,
    conjunction,
    differing,
    handed_over,
    kept_by_the_guest,
    operating_mode,
    place_of,
    probe,
    together,
)
from .subject import Subject

S = TypeVar("S", bound=State)

OF_THE_VMM = "@vmm"


class BreachKind(enum.Enum):
    """What a breach is about."""

    UNLIKE = "the guest's own machine does something else"
    FAULTS = "the guest's own machine does not fault so"
    CHANGES = "the VMM's things change"
    SHOWS = "the VMM's things show"
    LOSES = "two guests are one to the VMM"
    STOPS = "the machine stops"
    ENTERS = "the guest has a say in how the VMM is entered"


@attrs.frozen(slots=False, eq=False)
class Breach:
    """A way to break a promise: words for it, and conditions that must hold together.

    Attributes:
        parts: where `also` is any of several, each of them: where the whole is too hard, they are asked one by one.
        other: the second P or guest, where there is one.
        names: the leaves in which two runs are unlike; none where it is in storage.
        silent: if it is possible, nothing is known.
    """

    kind: BreachKind
    how: str
    given: tuple[Term, ...]
    also: Word
    parts: tuple[Word, ...] = ()
    other: Any = None
    names: tuple[str, ...] = ()
    silent: bool = False

    @property
    def when(self) -> Word:
        """It is broken so (width 1)."""
        return conjunction(self.given) & self.also

    @cached_property
    def conditions(self) -> tuple[Word, ...]:
        """The conditions, each simplified by what the earlier ones say; none if they exclude one another."""
        found = simplified([Word(1, term) for term in (*self.given, self.also.term)])
        return () if found is None else tuple(found)


def simplified(conditions: Iterable[Word]) -> list[Word] | None:
    """The conditions, each simplified by what the earlier ones say; None if they exclude one another."""
    known: dict[Term, Term] = {}
    kept: list[Word] = []
    for condition in conditions:
        simple = Word(1, terms.Substitution(known=known)(condition.term))
        if simple.value == 0:
            return None
        if not simple.concrete:
            kept.append(simple)
            known |= terms.literals([simple.term])
    return kept or [TRUE]


@attrs.frozen(eq=False, slots=False)
class Obligation(Generic[S]):
    """One form on the guest's own machine and on the hardware.

    Attributes:
        native: the run from G.
        hardware: the run from f(G, P).
        private: P.
        places: for runs on numbers, where memories are compared, by name.
        time_is_state: clocks count, whatever the technique says.
    """

    machine: Machine[S]
    technique: Technique[S]
    instruction: Instruction
    native: Run[S]
    hardware: Run[S]
    private: S
    places: Mapping[str, int] | None = None
    time_is_state: bool = False

    @property
    def _time(self) -> bool:
        return self.time_is_state or self.technique.uncompared is not None

    @property
    def guest(self) -> S:
        """G."""
        return self.native.before

    # -- the ways to end ----------------------------------------------------------------------

    def over(self, run: Run[S], after: S) -> Word:
        """Whether a run that completes has handed control to the VMM (width 1)."""
        return handed_over(self.machine, self.technique, run.before, after, self.private)

    def kept(self, run: Run[S]) -> list[Completion[S]]:
        """The ways in which a run completes without having handed control to the VMM."""
        return kept_by_the_guest(run, self.over)

    def elsewhere(self, trap: Trap[S]) -> bool:
        """A trap on the hardware goes to somebody who is not the VMM."""
        return self.technique.goes_to(trap) is not Target.VMM

    # -- fidelity -----------------------------------------------------------------------------

    def unlike(self, ends: Sequence[Completion[S]]) -> Iterator[Breach]:
        """These ends on the hardware are not the images of what the guest's own machine does."""
        yield from self._other_result(ends)
        yield from self._unnoticed(ends)
        yield from self._silent(ends)

    def _other_result(self, ends: Sequence[Completion[S]]) -> Iterator[Breach]:
        technique, native = self.technique, list(self.native.completions())
        ignoring = frozenset(technique.uncompared or ())
        if technique.settled:
            pairs = [
                (conditions, others, done, technique.map(after, done))
                for conditions, others, done, after in together(ends, native)
            ]
        else:
            expected = [(c, self.expected(after, self.private)) for c, after in native]
            ours = [(c, self.seen(after, [self.private])) for c, after in ends]
            # The hardware's conditions come first: they say most about what the other run sees.
            pairs = list(together(ours, expected))
        began = (self.hardware.before, self.hardware.before)
        for case in differing(
            pairs, ignoring=ignoring, time_is_state=self._time, places=self.places, began=began
        ):
            yield Breach(
                BreachKind.UNLIKE,
                "another result than on the guest's own machine",
                case.given,
                any_of(case.unlike.values()),
                tuple(case.unlike.values()),
            )

    def _unnoticed(self, ends: Sequence[Completion[S]]) -> Iterator[Breach]:
        """The VMM keeps it for the guest and never learns of the change."""
        technique = self.technique
        kept = frozenset(technique.shadowed) - technique.shadowed_when.keys()
        for conditions, after in self.native.completions():
            changed = self.changed(self.guest, after, kept)
            at_times = any_of(
                unlike_notes(technique, name, self.guest, after) for name in technique.shadowed_when
            )
            for condition in (changed | at_times, *self._shadowed_cells(after)):
                if condition.value != 0:
                    for other, _ in ends:
                        yield Breach(
                            BreachKind.UNLIKE,
                            "changes on the guest's own machine what the VMM keeps for the guest",
                            (*other, *conditions),
                            condition,
                        )

    def _silent(self, ends: Sequence[Completion[S]]) -> Iterator[Breach]:
        for path in self.native.paths:
            if isinstance(path.result, Trap):
                for conditions, _ in ends:
                    yield Breach(
                        BreachKind.UNLIKE,
                        f"silent where the guest's own machine raises {path.result.vector}",
                        (*conditions, *path.conditions),
                        TRUE,
                    )

    def faults(self) -> Iterator[Breach]:
        """Per vector that goes past the VMM: the guest's own machine does not raise it, or with another error code."""
        known = self.technique.guest_level
        raised = {
            (path.result.vector, path.result.level): self.technique.goes_to(path.result)
            for path in self.hardware.paths
            if isinstance(path.result, Trap) and self.elsewhere(path.result)
        }
        for (vector, level), target in raised.items():
            here, code = _raised(self.hardware, vector, level)
            there, native_code = _raised(self.native, vector, known(level))
            same = there if code is None or native_code is None else there & (code == native_code)
            whose = "" if target is Target.GUEST else f" to {target.value}"
            yield Breach(
                BreachKind.FAULTS,
                f"raises {vector}{whose} where the guest's own machine does not",
                (here.term,),
                ~same & ~self.native.not_modelled,
            )

    def same_trap(self, native: Outcome[S], hardware: Outcome[S]) -> bool:
        """Whether both are traps of one vector to one level (of the guest's) with one error code, if both have one."""
        if not isinstance(native, Trap) or not isinstance(hardware, Trap) or native.vector != hardware.vector:
            return False
        if native.level != self.technique.guest_level(hardware.level):
            return False
        codes = native.error_code, hardware.error_code
        return codes[0] is None or codes[1] is None or codes[0].value == codes[1].value

    # -- safety -------------------------------------------------------------------------------

    def changes(self, ends: Sequence[Completion[S]]) -> Iterator[Breach]:
        """The VMM's components or storage change."""
        before, owned = self.hardware.before, frozenset(self.technique.owned)
        for conditions, after in ends:
            changed = self.changed(before, after, owned)
            yield Breach(BreachKind.CHANGES, "changes what the VMM owns", conditions, changed)
            for cell in self.own_cells(before, after):
                yield Breach(BreachKind.CHANGES, "changes the VMM's storage", conditions, cell)

    # -- states beside one another ------------------------------------------------------------

    def changed(self, before: S, after: S, names: frozenset[str]) -> Word:
        """Whether one of these leaves or memories changed (width 1)."""
        found = changes(
            before,
            after,
            names,
            self.technique.owns_cell,
            places=self.places,
        )
        return any_of(found.values())

    def own_cells(self, before: S, after: S) -> Iterator[Word]:
        """Per changed cell: it is the VMM's."""
        owns = self.technique.owns_address
        if owns is not None:
            for where, changed in changed_cells(before, after):
                yield owns(self.guest, self.private, where) & changed

    def _shadowed_cells(self, after: S) -> Iterator[Word]:
        """Per cell that changes natively: the VMM keeps a shadow of it; or which cells it keeps one of changes."""
        shadows = self.technique.shadows_address
        if shadows is not None:
            for where, changed in changed_cells(self.guest, after):
                yield shadows(self.guest, where) & changed
            for name in _storages(self.guest):
                where = place_of(self.guest.memories()[name], name, self.places)
                yield shadows(self.guest, where) != shadows(after, where)

    def seen(self, after: S, privates: Sequence[S], guest: S | None = None) -> S:
        """A hardware state with storage as the guest addresses it, and nothing where it is the VMM's.

        Args:
            privates: what the VMM has, in this run first; what is its own in any of them is left out.
        """
        owns, home, guest = self.technique.owns_address, self.technique.guest_address, guest or self.guest
        state = after.copy()
        for slot in after.layout:
            if not slot.address or slot.role is not Role.MEMORY:
                continue
            content = after.memories()[slot.name]

            def view(address: Word, content: Memory = content) -> Word:
                cell = content.load(home(privates[0], address))
                if owns is None:
                    return cell
                hidden = any_of(owns(guest, private, home(private, address)) for private in privates)
                shown = terms.Substitution(known=terms.literals([terms.invert(hidden.term)]))(cell.term)
                return ite(hidden, Word(cell.width, 0), Word(cell.width, shown))

            state._memories[slot.name] = Memory(content.address_width, content.cell_width, view)
        return state

    def expected(self, after: S, private: S, guest: S | None = None) -> S:
        """What should be seen of the hardware when the guest's own machine is in `after`."""
        if not self._time:
            private = with_the_time_of(self.technique, private, after)
        return self.seen(self.technique.map(after, private), [private], guest)


def changes(
    before: S,
    after: S,
    names: frozenset[str],
    owns_cell: Callable[[str, Word], Word] | None = None,
    *,
    places: Mapping[str, int] | None = None,
) -> Mapping[str, Word]:
    """Per leaf or memory of these that can be another than before, the condition that it is.

    Args:
        owns_cell: which cells of a memory count.
        places: as for `Obligation`.
    """
    everything = {leaf.name for leaf in before.leaves} | set(before.memories())
    cases = differing(
        [((), (), before, after)],
        ignoring=frozenset(everything - names),
        time_is_state=True,
        places=places,
    )
    found: dict[str, Word] = {}
    for case in cases:
        for name, condition in case.unlike.items():
            content = before.memories().get(name)
            if content is not None and owns_cell is not None:
                condition = condition & owns_cell(name, place_of(content, name, places))
            if condition.value != 0:
                found[name] = condition
    return found


def with_the_time_of(technique: Technique[S], private: S, guest: S) -> S:
    """What a VMM has, at a guest's time: clocks are everyone's, but for those that the VMM owns."""
    clocks = [leaf.name for leaf in guest.leaves if leaf.role is Role.TIME]
    told = {name: guest[name] for name in clocks if name not in technique.owned}
    return (
        private
        if all(private[name].term is word.term for name, word in told.items())
        else (private.with_changes(dict(told)))
    )


def unlike_notes(technique: Technique[S], name: str, before: S, after: S) -> Word:
    """Whether other things are noted of a shadowed leaf after a run than before it (width 1).

    The VMM has begun to keep it, or ended, or keeps it and it is another.
    """
    if name in before.memories():
        old, new = before.memories()[name], after.memories()[name]
        where = probe(old, f"{PROBE} in {name}")
        return old.load(where) != new.load(where)
    kept = technique.keeps(name, before)
    return (kept != technique.keeps(name, after)) | (kept & (before[name] != after[name]))


def _storages(state: State) -> list[str]:
    return [slot.name for slot in state.layout if slot.address and slot.role is Role.MEMORY]


def changed_cells(before: State, after: State) -> Iterator[tuple[Word, Word]]:
    """The address of each store to storage, and whether it changed the cell (width 1)."""
    for slot in before.layout:
        if slot.address and slot.role is Role.MEMORY:
            old, new = before.memories()[slot.name], after.memories()[slot.name]
            for entry in new.stores[len(old.stores) :]:
                if isinstance(entry, Block):
                    step = probe(old, f"{PROBE} of a copy in {slot.name}")
                    where, inside = entry.destination + step, step < entry.cells
                else:
                    where, inside = entry[0], TRUE
                yield where, inside & (old.load(where) != new.load(where))


def _raised(run: Run[S], vector: Vector, level: str) -> tuple[Word, Word | None]:
    """Whether a run ends in a trap of this vector to this level (width 1), and its error code where it has one."""
    found, code = FALSE, None
    for path in run.paths:
        result = path.result
        if isinstance(result, Trap) and result.vector == vector and result.level == level:
            found = found | path.condition
            given = result.error_code
            if given is not None:
                code = given if code is None else ite(path.condition, given, code)
    return found, code


def private_of(subject: Subject[S]) -> S:
    """All that the VMM may have: symbols, but for owned leaves that a configuration fixes."""
    machine, settings = subject.machine, subject.configuration.settings
    owned = set(subject.technique.owned)
    fixed = {a.leaf: settings[a.name] for a in machine.settings if a.name in settings and a.leaf in owned}
    mode = operating_mode(machine, subject.configuration)
    fixed |= {leaf: value for leaf, value in mode.items() if leaf in owned}
    return machine.state.symbolic(OF_THE_VMM).with_changes(
        {str(leaf): value for leaf, value in fixed.items()}
    )
