"""Entries without a trap: what is asked of a run that goes in where the technique says that an entry is.

That a run which leaves user mode has handed over control is no more than said until the hardware's own state shows
it.  Such a run ends where the VMM goes on, so it owes what a trap and its delivery owe together:

* where it goes on, the VMM alone says: mode and program counter, and what it leaves in leaves that the VMM owns, are
  the same for every guest of one VMM; and the cell from which the next instruction comes is the VMM's;
* what it stores into the VMM's storage is in cells that the VMM alone says, too;
* two guests of which the same is noted, and which their own machines tell apart, are not left alike (`losses`).

Where the machine does not say from which cell it fetches, or the technique not which cells are the VMM's, it is not
known whether an entry is one; nor where operands choose among several.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Generic, TypeVar

from popek.kernel.memory import Block
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.words import FALSE, TRUE, Word, any_of, symbol
from popek.solving.solver import Answer

from .hosted import BREACH, Hosted
from .obligation import Breach, BreachKind
from .runs import PROBE, Completion, Run, conjunction, handed_over, probe

S = TypeVar("S", bound=State)

OTHER = "other "


class WithoutTrap(Generic[S]):
    """The entries without a trap of one form."""

    def __init__(self, form: Hosted[S]) -> None:
        self._form, self._machine, self._technique = form, form.machine, form.technique

    @cached_property
    def ends(self) -> list[Completion[S]]:
        """Where the run on the hardware goes in."""
        found = self.going_in(self._form.hardware)
        possible = (self._form.ask.first([[conjunction(given)]], rlimit=BREACH) for given, _ in found)
        return [end for end, answer in zip(found, possible, strict=True) if answer is not Answer.UNSAT]

    def going_in(self, run: Run[S]) -> list[Completion[S]]:
        """Where a run on the hardware goes in."""
        found = []
        for conditions, after in run.completions():
            over = handed_over(self._machine, self._technique, run.before, after, self._form.private)
            if over.value != 0:
                found.append(((*conditions, over.term), after))
        return found

    def places(self) -> Iterator[Breach]:
        """It goes on in a cell that is not the VMM's, or where the guest says."""
        if not self.ends:
            return
        owns, fetches = self._technique.owns_address, self._machine.fetches
        for conditions, after in self.ends:
            if owns is None or fetches is None:
                how = "goes in at an entry, and it is not said in which storage, or whose that is"
                yield Breach(BreachKind.CHANGES, how, conditions, TRUE, silent=True)
            else:
                how = "goes in where the next instruction is not the VMM's"
                theirs = ~owns(self._form.guest, self._form.private, fetches(after))
                yield Breach(BreachKind.CHANGES, how, conditions, theirs)
        control = [leaf.name for leaf in leaves_with(self._machine.state, [Role.MODE, Role.PC])]
        yield from self._unlike(control, "goes in, and the guest has a say in where")
        yield from self._chosen(control)

    def changes(self) -> Iterator[Breach]:
        """What it leaves in the VMM's leaves, or which of the VMM's cells it stores to, the guest says."""
        if not self.ends:
            return
        owned = [
            leaf.name
            for leaf in self._form.guest.leaves
            if leaf.name in {*self._technique.owned} - {*self._technique.delivered}
        ]
        yield from self._unlike(owned, "goes in, and the guest has a say in what the VMM owns")
        before = self._form.hardware.before
        memories = frozenset(self._technique.owned) & before.memories().keys() - {*self._technique.delivered}
        for conditions, after in self.ends:
            changed = self._form.due.changed(before, after, memories)
            yield Breach(
                BreachKind.CHANGES, "goes in, and has changed what the VMM owns", conditions, changed
            )
        yield from self._stored()

    def _pairs(self) -> Iterator[tuple[Completion[S], Completion[S]]]:
        """Ways in, and those of another guest of the same VMM, with what is known about it."""
        run, assumed = self._beside
        given = tuple(one.term for one in assumed)
        for conditions, after in self.ends:
            for others, theirs in self.going_in(run):
                yield (conditions, after), ((*others, *given), theirs)

    @cached_property
    def _beside(self) -> tuple[Run[S], list[Word]]:
        return self._form.beside(self._form.other_guest)

    def _unlike(self, names: list[str], how: str) -> Iterator[Breach]:
        old = self._form.hardware.before
        control = {leaf.name for leaf in leaves_with(self._machine.state, [Role.MODE, Role.PC])}
        for (conditions, after), (others, theirs) in self._pairs():
            # What is as it was follows from what the VMM keeps and notes (A5_control).
            touched = [name for name in names if name in control or after[name].term is not old[name].term]
            apart = any_of(after[name] != theirs[name] for name in touched)
            yield Breach(
                *(BreachKind.ENTERS, how, (*conditions, *others), apart),
                other=self._form.other_guest,
                names=tuple(touched),
            )

    def _chosen(self, names: list[str]) -> Iterator[Breach]:
        """Operands choose where."""
        how = "goes in at one of several places, as its operands say, and it is not known whether each is the VMM's"
        for (conditions, after), (others, theirs) in self._with_other_operands():
            apart = any_of(after[name] != theirs[name] for name in names)
            yield Breach(BreachKind.ENTERS, how, (*conditions, *others), apart, silent=True)

    def _with_other_operands(self) -> Iterator[tuple[Completion[S], Completion[S]]]:
        """Ways in, and those from the same state with other operands."""
        run, operands = self._form.general, self._form.general.operands
        if not operands:
            return
        chosen = {name: symbol(OTHER + name, word.width) for name, word in operands.items()}
        valid = self._form.instruction.valid(chosen).term
        others = self.going_in(run.at(self._form.hardware.before, chosen))
        for conditions, after in self.ends:
            for given, theirs in others:
                yield (conditions, after), ((*given, valid), theirs)

    def _stored(self) -> Iterator[Breach]:
        owns, old = self._technique.owns_address, self._form.hardware.before
        how = "goes in, and the guest has a say in where it stores into the VMM's storage"
        for slot in old.layout if owns is not None else ():
            if owns is None or not slot.address or slot.role is not Role.MEMORY:
                continue
            where = probe(old.memories()[slot.name], f"{PROBE} in {slot.name}")
            mine = owns(self._form.guest, self._form.private, where)
            for (conditions, after), (others, theirs) in self._pairs():
                stored = mine & _changes(old, after, slot.name, where)
                apart = stored & ~_stores(self._beside[0].before, theirs, slot.name, where)
                given = (*conditions, *others)
                yield Breach(BreachKind.ENTERS, how, given, apart, other=self._form.other_guest)
            for (conditions, after), (others, theirs) in self._with_other_operands():
                stored = mine & _changes(old, after, slot.name, where)
                apart = stored & ~_stores(old, theirs, slot.name, where)
                chosen = "goes in, and stores into the VMM's storage where its operands say"
                yield Breach(BreachKind.CHANGES, chosen, (*conditions, *others), apart)


def _changes(before: State, after: State, name: str, where: Word) -> Word:
    """Whether a run has stored another value to a cell (width 1)."""
    old, new = before.memories()[name], after.memories()[name]
    return _stores(before, after, name, where) & (old.load(where) != new.load(where))


def _stores(before: State, after: State, name: str, where: Word) -> Word:
    """Whether a run has stored to a cell (width 1)."""
    old, new = before.memories()[name], after.memories()[name]
    found = FALSE
    for entry in new.stores[len(old.stores) :]:
        inside = where - entry.destination < entry.cells if isinstance(entry, Block) else where == entry[0]
        found = found | inside
    return found


__all__ = ["WithoutTrap"]
