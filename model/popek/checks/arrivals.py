"""How traps arrive at their delivery: from the image of a guest, or from what a form has made of one before it trapped.

Most traps leave the state as it was, and what is asked of their delivery is asked of every image at once.  Of the rest
it is asked in three steps, and the next one only where the last does not settle it:

1. of every image in which whatever some form changes before such a trap may be anything;
2. per way of changing it: leaves that become one of few things become that, the rest may be anything;
3. of the forms, with the conditions under which they trap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.exploration import Path
from popek.kernel.instruction import Instruction
from popek.kernel.memory import Memory
from popek.kernel.outcome import Outcome, Target, Trap, Vector
from popek.kernel.state import Role, State
from popek.kernel.technique import Technique
from popek.kernel.terms import Term
from popek.kernel.words import Word, any_of, ite, symbol
from popek.solving.solver import Answer

from .runs import Run

if TYPE_CHECKING:
    from .premises import Premises

S = TypeVar("S", bound=State)

MANY_GROUPS = 8  # ways of changing a state, whose pairs are not asked about
FEW = 6  # things that a leaf becomes
ANOTHERS = "'"  # of the names of another guest's operands


@attrs.frozen
class TrapKind:
    """Traps that are delivered alike, but for the state: whatever else a delivery can look at is the same.

    Attributes:
        coded: there is an error code.
        target: whose handler it goes to.
    """

    vector: Vector
    level: str
    memory: bool
    coded: bool
    target: Target

    @classmethod
    def of(cls, trap: Trap[S], technique: Technique[S]) -> TrapKind:
        """The kind of a trap."""
        coded = trap.error_code is not None
        return cls(trap.vector, trap.level, trap.memory, coded, technique.goes_to(trap))


@attrs.frozen(eq=False, slots=False)
class Arrival(Generic[S]):
    """A state in which a trap is delivered, or an interrupt taken.

    Attributes:
        before: the state before the instruction.
        state: that in which it is delivered.
        conditions: when.
        code: the error code, where that is known.
        shape: equal for arrivals that differ by the guest alone.
    """

    before: S
    state: S
    conditions: tuple[Term, ...] = ()
    code: Word | None = None
    shape: object = None


@attrs.frozen(eq=False, slots=False)
class DirtyTrap(Generic[S]):
    """A path on which a form traps and has changed something.

    Attributes:
        general: the form's run from any state, with this path alone.
    """

    instruction: Instruction
    general: Run[S]

    @property
    def trap(self) -> Trap[S]:
        """From any state."""
        found = self.general.paths[0].result
        assert isinstance(found, Trap)
        return found

    @cached_property
    def changed(self) -> Mapping[str, Word | None]:
        """What the leaves and memories that it changes become; None for a memory."""
        before, after = self.general.before, self.trap.state
        old = before.words()
        components = {name for name, word in after.words().items() if word.term is not old[name].term}
        leaves = [leaf.name for leaf in after.leaves if leaf.component in components]
        words = {name: after[name] for name in leaves if after[name].term is not before[name].term}
        stored = (n for n, content in after.memories().items() if content is not before.memories()[n])
        return {**words, **dict.fromkeys(stored)}

    def at(self, image: S, *, others: bool = False, again: bool = False) -> Arrival[S] | None:
        """Where it arrives from a state of the hardware; None where it does not.

        Args:
            others: with operands of another name, and
            again: with undefined results of another name.
        """
        operands = self.others_operands if others else self.general.operands
        undefined = self.general.undefined_again if others or again else {}
        found = self.general.at(image, {**operands, **undefined}).paths
        if not found:
            return None
        trap, valid = found[0].result, self.instruction.valid(operands).term
        assert isinstance(trap, Trap)
        return Arrival(image, trap.state, (*found[0].conditions, valid), trap.error_code, self)

    @property
    def others_operands(self) -> dict[str, Word]:
        """Operands of another name."""
        return {name: symbol(name + ANOTHERS, word.width) for name, word in self.general.operands.items()}


Becomes = tuple[tuple[str, Term], ...]
"""What leaves become, by name."""


class TrapArrivals(Generic[S]):
    """The traps of one kind.

    Attributes:
        sample: one of them.
        clean, clean_forms: when a trap leaves the state as it was, and of which forms.
        ways: how traps arrive that do not.
    """

    def __init__(self, premises: Premises[S], sample: Trap[S]) -> None:
        self._p = premises
        self.sample = sample
        self.clean: list[tuple[Term, ...]] = []
        self.clean_forms: dict[str, None] = {}
        self.ways: list[DirtyTrap[S]] = []

    @cached_property
    def touched(self) -> frozenset[str]:
        """Leaves and memories that some form changes before such a trap."""
        return frozenset(name for way in self.ways for name in way.changed)

    @cached_property
    def _known(self) -> tuple[str, ...]:
        """The leaves that become one of few things."""
        become: dict[str, set[Term]] = {}
        for way in self.ways:
            for name, word in way.changed.items():
                if word is not None:
                    become.setdefault(name, set()).add(word.term)
        return tuple(name for name, found in become.items() if len(found) <= FEW)

    @cached_property
    def groups(self) -> Mapping[Becomes, Sequence[DirtyTrap[S]]]:
        """The ways, by what becomes of the leaves of which that is known."""
        found: dict[Becomes, list[DirtyTrap[S]]] = {}
        for way in self.ways:
            known = tuple(
                (name, word.term) for name in self._known if (word := way.changed.get(name)) is not None
            )
            found.setdefault(known, []).append(way)
        return found

    def untold(self, other: S) -> list[str]:
        """The forms of which the control program is taken to know by other means which it was, and of what operands.

        It knows the instruction where it knows the state before: what is fetched there is what is there (A2).  So it
        does where no two images can be left alike by two of these ways, as far as it is known what they change.

        Args:
            other: another guest.
        """
        if not self.ways:
            return []
        p, found = self._p, dict.fromkeys(self._unclear())
        if len(self.groups) > MANY_GROUPS:
            return list(found | dict.fromkeys(way.instruction.form for way in self.ways))
        images = p.image, p.technique.map(other, p.private)
        given = [*p.ok(other, p.private), _unlike(*images)]
        for one, two in itertools.combinations([None, *self.groups] if self.clean else self.groups, 2):
            a, b = (
                image if becomes is None else self.of_group(image, guest, becomes, "").state
                for becomes, image, guest in zip((one, two), images, (p.guest, other), strict=True)
            )
            alike = ~_unlike(a, b)
            if alike.value != 0 and p.ask.first([[*given, alike]]) is not Answer.UNSAT:
                found |= dict.fromkeys([*self._forms(one), *self._forms(two)])
        return list(found)

    def _forms(self, becomes: Becomes | None) -> Iterator[str]:
        """The forms that trap so."""
        if becomes is None:
            yield from self.clean_forms
        else:
            yield from (way.instruction.form for way in self.groups[becomes])

    def _unclear(self) -> Iterator[str]:
        """Forms that change more than is known, or what they change as operands say."""
        known = set(self._p.guest.words())
        for becomes, ways in self.groups.items():
            told = terms.variables_of([term for _, term in becomes]).keys() <= known
            forms = dict.fromkeys(way.instruction.form for way in ways)
            loose = any(way.changed.keys() - dict(becomes).keys() for way in ways)
            if not told or (loose and (len(forms) > 1 or any(way.general.operands for way in ways))):
                yield from forms

    def of_group(self, image: S, guest: S, becomes: Becomes, fresh: str) -> Arrival[S]:
        """An arrival in which leaves have become something, and what else is touched by the group may be anything."""
        touched = {name for way in self.groups[becomes] for name in way.changed} - dict(becomes).keys()
        general = self._p.guest
        made = general.with_changes({name: Word(general[name].width, term) for name, term in becomes})
        run: Run[S] = Run(general, (Path((), Trap(self.sample.vector, None, False, made)),), {})
        result: Outcome[S] = run.at(image, run.undefined_again if fresh else {}).paths[0].result
        assert isinstance(result, Trap)
        return Arrival(image, self._loosened(result.state, image, guest, touched, fresh), shape=becomes)

    def loosest(self, image: S, guest: S, fresh: str) -> Arrival[S]:
        """An arrival in which whatever is touched may be anything."""
        return Arrival(
            image, self._loosened(image.copy(), image, guest, set(self.touched), fresh), shape="any"
        )

    def _loosened(self, state: S, image: S, guest: S, touched: set[str], fresh: str) -> S:
        """In these leaves and memories may be anything; but storage of the control program's is as it was (A5)."""
        technique, private = self._p.technique, self._p.private
        owns = technique.owns_address
        for slot in state.layout:
            if not slot.address or slot.name not in touched:
                continue
            name, content = slot.name, image.memories()[slot.name]
            anything = Memory(content.address_width, content.cell_width, f"{name}@trap{fresh}")

            def cell(address: Word, name: str = name, old: Memory = content, new: Memory = anything) -> Word:
                kept, mine = old.load(address), technique.owns_cell
                if name not in technique.owned:
                    return new.load(address)
                return kept if mine is None else ite(mine(name, address), kept, new.load(address))

            def place(address: Word, old: Memory = content, new: Memory = anything) -> Word:
                assert owns is not None
                return ite(owns(guest, private, address), old.load(address), new.load(address))

            view = place if slot.role is Role.MEMORY and owns is not None else cell
            state._memories[name] = Memory(content.address_width, content.cell_width, view)
        loose = {x.name: symbol(f"{x.name}@trap{fresh}", x.width) for x in state.leaves if x.name in touched}
        return state.with_changes(dict(loose))


def _unlike(a: State, b: State) -> Word:
    """Two states differ in a leaf (width 1)."""
    return any_of(word != b.words()[name] for name, word in a.words().items())


def ways_of(instruction: Instruction, general: Run[S]) -> Iterator[DirtyTrap[S]]:
    """The paths on which a form traps and has changed something.

    Args:
        general: every path of it, from any state.
    """
    whole = general.without_assignments()
    for path in general.paths:
        if isinstance(path.result, Trap) and path.result.state is not general.before:
            yield DirtyTrap(instruction, attrs.evolve(whole, paths=(path,)))


__all__ = ["Arrival", "Becomes", "DirtyTrap", "TrapArrivals", "TrapKind", "ways_of"]
