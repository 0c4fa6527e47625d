"""What a trap loses: the guest's own machine does not, and the VMM cannot tell where the guest was."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from popek.kernel.exploration import Path
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import Role, State
from popek.kernel.words import FALSE, TRUE, Word, any_of, ite, symbol
from popek.solving.asking import SolverQuery
from popek.solving.solver import Answer

from .delivery import after_a_trap
from .hosted import ANOTHER_GUEST, BREACH, Hosted, overwritten
from .obligation import Breach, BreachKind
from .runs import (
    PROBE,
    Completion,
    Run,
    conjunction,
    probe,
)

S = TypeVar("S", bound=State)


CELLS = 3


class Losses(Generic[S]):
    """Looks for what a run changed before it trapped, and the VMM cannot tell what it was."""

    def __init__(self, form: Hosted[S]) -> None:
        self._form, self._ask, self._due = form, form.ask, form.due
        self._machine, self._technique, self._general = form.machine, form.technique, form.general
        self._guest, self._private, self._native = form.guest, form.private, form.native

    def breaches(self) -> Iterator[Breach]:
        """What a run changed before it trapped: the guest's own machine does not, and the VMM cannot tell what was."""
        for conditions, trap, changed in self._form.dirty_traps:
            if self._due.elsewhere(trap) or not changed:
                continue
            another = self._another_guest(changed)
            there, known = self._form.beside(another, again=True)
            assumed = [*self._cells_that_are_there(changed), *known]
            reflected = FALSE  # the guest's own machine traps so, and leaves just this
            for path in self._native.paths:
                native = path.result
                if isinstance(native, Trap) and native.vector == trap.vector and not self._looks_back(native):
                    mapped = self._technique.map(native.state, self._private)
                    apart = any_of(self._apart(trap.state, mapped, look="on the hardware"))
                    same = path.condition & _same_code(trap, native)
                    together = [Word(1, conjunction(conditions).term), same, apart]
                    if self._ask.first([together], rlimit=BREACH) is not Answer.UNSAT:
                        same = same & ~apart
                    reflected = reflected | same
            alone = [conjunction(conditions), ~reflected]
            asked: list[SolverQuery] = []
            if self._ask.first([alone], rlimit=BREACH, asked=asked) is Answer.UNSAT:
                self._form.ruled_out.append((alone[0] & alone[1], asked))
                continue
            apart = self._unlike_natively(self._general.at(another))
            for path in there.paths:
                other = path.result
                if isinstance(other, Trap) and (other.vector, other.level) == (trap.vector, trap.level):
                    alike = ~any_of(self._apart(trap.state, other.state, everywhere=True))
                    yield Breach(
                        BreachKind.LOSES,
                        f"raises {trap.vector} and has changed what the VMM needs to go on with the guest",
                        (*conditions, *path.conditions, *(a.term for a in assumed)),
                        alike & _same_code(trap, other) & ~reflected & apart,
                        other=another,
                    )

    def by_entries(
        self, ends: Sequence[Completion[S]], going_in: Callable[[Run[S]], Sequence[Completion[S]]]
    ) -> Iterator[Breach]:
        """What a run changed before it went in without a trap.

        Args:
            ends: where the run on the hardware goes in.
            going_in: the same of another run.
        """
        how = "goes in, and has changed what the VMM needs to go on with the guest"
        for conditions, after in ends:
            changed = overwritten(self._form.hardware.before, after)
            if not changed:
                continue
            another = self._another_guest(changed)
            there, known = self._form.beside(another, again=True)
            assumed = [*self._cells_that_are_there(changed), *known]
            apart = self._unlike_natively(self._general.at(another))
            # Whether two guests have one image at all is another question (A4_image_tells).
            images = any_of(self._apart(self._form.hardware.before, there.before, everywhere=True))
            for others, theirs in going_in(there):
                alike = ~any_of(self._apart(after, theirs, everywhere=True))
                given = (*conditions, *others, *(a.term for a in assumed))
                yield Breach(BreachKind.LOSES, how, given, alike & images & apart, other=another)

    def _unlike_natively(self, other: Run[S]) -> Word:
        """The guest's own machine does something else from another guest (width 1), as far as it says what it does."""
        unlike = []
        for mine, theirs in itertools.product(self._delivered(self._native), self._delivered(other)):
            a, b = mine.result, theirs.result
            differ = TRUE
            if not all(self._told(one) for one in (a, b)):
                continue
            if isinstance(a, Next) and isinstance(b, Next):
                differ = any_of(self._apart(a.state, b.state, look="natively", there=True))
            elif isinstance(a, Trap) and isinstance(b, Trap) and a.vector == b.vector:
                apart = self._apart(a.state, b.state, look="natively", there=True)
                differ = ~_same_code(a, b) | any_of(apart)
            unlike.append(mine.condition & theirs.condition & differ)
        return any_of(unlike)

    def _looks_back(self, trap: Trap[S]) -> bool:
        """What becomes of it depends on more than the state that it leaves."""
        return self._form.subject.deliveries.reads_before(trap)

    def _delivered(self, run: Run[S]) -> Iterator[Path[Outcome[S]]]:
        """The ways through a run, with the delivery of a trap where that depends on more than what the trap leaves."""
        for path in run.paths:
            if isinstance(path.result, Trap) and self._looks_back(path.result):
                effort = self._form.subject.effort
                yield from after_a_trap(self._machine, run.before, path.conditions, path.result, effort)
            else:
                yield path

    def _told(self, outcome: Outcome[S]) -> bool:
        """The machine says what becomes of this."""
        if isinstance(outcome, Trap):
            return self._form.subject.deliveries.modelled(outcome)
        return not isinstance(outcome, NotModelled)

    def _another_guest(self, names: Sequence[str]) -> S:
        """A guest that differs from G in these components, and in a few cells of these memories.

        What a trap can have lost is in cells that were stored to.
        """
        guest = self._guest.copy()
        for name in names:
            if name in guest.memories():
                content = guest.memories()[name]
                for place, where in enumerate(_places(name, content)):
                    cell = symbol(f"{name}{ANOTHER_GUEST}{place or ''}", content.cell_width)
                    content = content.store(where, cell)
                guest._memories[name] = content
            elif not guest[name].concrete:
                guest[name] = symbol(name + ANOTHER_GUEST, guest[name].width)
        for name in self._technique.shadowed:  # what the VMM keeps for the guest it does not lose
            if name not in guest.memories() and guest.leaf(name).component in names:
                kept = self._technique.keeps(name, self._guest)
                guest[name] = ite(kept, self._guest[name], guest[name])
        return guest

    def _cells_that_are_there(self, names: Sequence[str]) -> Iterator[Word]:
        """The probed cells of these memories exist in the guest's own machine (each of width 1)."""
        for name, content in self._guest.memories().items():
            for where in _places(name, content) if name in names else ():
                yield self._is_there(name, where)

    def _is_there(self, name: str, cell: Word) -> Word:
        """The guest's own machine has such a cell (width 1)."""
        technique, guest, private = self._technique, self._guest, self._private
        storage = {slot.name for slot in guest.layout if slot.address and slot.role is Role.MEMORY}
        if name in storage and technique.owns_address is not None:
            return ~technique.owns_address(guest, private, technique.guest_address(private, cell))
        return technique.has_cell(guest, name, cell)

    def _apart(
        self, a: S, b: S, *, everywhere: bool = False, look: str = "", there: bool = False
    ) -> Iterator[Word]:
        """Where two states differ, each a condition (width 1).

        Args:
            everywhere: memories that differ by stores and a few cells are compared wherever they can differ.
            look: where else memories are compared: at any one cell, a name for which this is.
            there: of the guest's own machine, and only cells that it has.
        """
        for name, old in a.words().items():
            if old.term is not b.words()[name].term:
                yield old != b.words()[name]
        storage = {slot.name for slot in a.layout if slot.address and slot.role is Role.MEMORY}
        for name, left in a.memories().items():
            right = b.memories()[name]
            if left is right:
                continue
            places = [probe(left, f"{PROBE} in {name} {look}")] if look else list(_places(name, left))
            if everywhere:
                if name in storage:
                    places += [self._technique.guest_address(self._private, where) for where in places]
                for entry in (*left.stores, *right.stores):
                    places.append(entry.destination if isinstance(entry, Block) else entry[0])
            for place in places:
                differ = left.load(place) != right.load(place)
                yield differ & self._is_there(name, place) if there else differ


def _places(name: str, content: Memory) -> Iterator[Word]:
    """The addresses at which another guest's memory may differ; the first is where all questions look."""
    for place in range(CELLS):
        yield probe(content, f"{PROBE} in {name}" + (f" ({place})" if place else ""))


def _same_code(a: Trap[S], b: Trap[S]) -> Word:
    """Two traps have the same error code, where both have one (width 1)."""
    return TRUE if a.error_code is None or b.error_code is None else a.error_code == b.error_code
