"""One way into the control program, a kind of trap or an interrupt, and what is asked of it.

For all guests S and S' of a control program that keeps P, with what a form has changed before it traps (`arrivals`):

| asked | must be impossible |
|---|---|
| where | from f(S, P) it goes elsewhere than from f(S', P), or stops the machine from one of them alone; or it goes \
to another mode than supervisor mode, or to storage that is not the control program's |
| keeps | from f(S, P) it overwrites a cell of the control program's that it does not from f(S', P) |
| puts | it leaves in a register of the control program's what depends on the guest: then it is taken for granted that \
this is what the hardware tells |
| tells | f(S, P) and f(S', P) are unlike, where the same is noted of S and S', and are alike after it |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.interruption import Interruption
from popek.kernel.memory import Block
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.words import TRUE, Word, all_of, any_of
from popek.solving.asking import Asker
from popek.solving.solver import Answer

from .arrivals import Arrival, DirtyTrap, TrapArrivals
from .delivery import Delivery, delivery_of, entered_by, interruption_of
from .entry_search import ArrivalPair, Asked, End, EntryFault, EntrySearch, Replay
from .premise import Premise
from .runs import AGAIN, conjunction, place_of

if TYPE_CHECKING:
    from .premises import Premises

S = TypeVar("S", bound=State)

CODE = "code"


@attrs.frozen(eq=False, slots=False)
class Entry(Generic[S]):
    """A way in.

    Attributes:
        given: what the device supplies.
        allowed: what it can be.
        interruption, arrivals: which interrupt it is, or which traps.
    """

    premises: Premises[S]
    name: str
    given: Mapping[str, Word]
    allowed: Word
    interruption: Interruption[S] | None = None
    arrivals: TrapArrivals[S] | None = None

    @classmethod
    def by_interrupt(
        cls, premises: Premises[S], taken: Interruption[S], given: Mapping[str, Word]
    ) -> Entry[S]:
        """An interrupt."""
        return cls(premises, taken.name, given, taken.may(given), taken)

    @classmethod
    def by_traps(cls, premises: Premises[S], arrivals: TrapArrivals[S]) -> Entry[S]:
        """A kind of trap."""
        return cls(premises, str(arrivals.sample.vector), {}, TRUE, None, arrivals)

    def takes(self, state: S) -> Word:
        """It happens in this state (width 1)."""
        return TRUE if self.interruption is None else self.interruption.takes(state, self.given)

    @cached_property
    def delivery(self) -> Delivery[S]:
        """Every way through it, explored once.

        Raises:
            PathBudgetError: too many.
        """
        p = self.premises
        if self.interruption is not None:
            return interruption_of(p.machine, self.interruption, p.guest, self.given, p.effort)
        assert self.arrivals is not None
        return delivery_of(p.machine, self.arrivals.sample, p.guest, p.effort)

    @property
    def supplied(self) -> dict[str, Word]:
        """What the device supplies, or the code of the trap."""
        return {**self.given, **self.delivery.given}

    # -- arrivals -----------------------------------------------------------------------------

    def _clean(self, image: S) -> Arrival[S]:
        return Arrival(image, image, shape="clean")

    @property
    def _some_clean(self) -> bool:
        return self.arrivals is None or bool(self.arrivals.clean) or not self.arrivals.ways

    def _reference(self, image: S) -> tuple[Arrival[S], DirtyTrap[S] | None]:
        """What every other arrival is compared with, from another guest."""
        if self._some_clean or self.arrivals is None:
            return self._clean(image), None
        for way in self.arrivals.ways:
            found = way.at(image, others=True)
            mine = way.at(self.premises.image)
            if found is not None and mine is not None and self._possible(mine):
                return found, way
        return self._clean(image), None

    def _possible(self, arrival: Arrival[S]) -> bool:
        return self.premises.ask.first([[conjunction(arrival.conditions)]]) is not Answer.UNSAT

    def _loosest(self, images: tuple[S, S], guests: tuple[S, S]) -> ArrivalPair[S] | None:
        """More arrivals than there are, where a form changes something before it traps."""
        if self.arrivals is None or not self.arrivals.touched:
            return None
        one, two = map(self.arrivals.loosest, images, guests, ("", "'"))
        return ArrivalPair(one, two, exact=False)

    def _groups(
        self, images: tuple[S, S], guests: tuple[S, S], *, together: bool
    ) -> Iterator[tuple[ArrivalPair[S], Callable[[], Iterator[ArrivalPair[S]]]]]:
        """Pairs, and for each the exact ones that it stands for, where it is none.

        Args:
            together: of one form; otherwise of a form and of what all are compared with.
        """
        if self._some_clean:
            yield ArrivalPair(self._clean(images[0]), self._clean(images[1])), lambda: iter(())
        found = self.arrivals
        if found is None:
            return
        theirs, way = (None, None) if together else self._reference(images[1])
        for becomes, ways in found.groups.items():
            mine = found.of_group(images[0], guests[0], becomes, "")
            if together:
                other = found.of_group(images[1], guests[1], becomes, "'")
                yield ArrivalPair(mine, other, exact=False), partial(self._of_one_form, ways, images)
            elif theirs is not None:
                yield (
                    ArrivalPair(mine, theirs, (None, way), exact=False),
                    partial(self._with_reference, ways, images[0], theirs, way),
                )

    def _of_one_form(self, ways: Sequence[DirtyTrap[S]], images: tuple[S, S]) -> Iterator[ArrivalPair[S]]:
        assert self.arrivals is not None
        for way in ways:
            mine = way.at(images[0])
            if mine is None or not self._possible(mine):
                continue
            for other in self.arrivals.ways:
                theirs = other.at(images[1], again=True) if other.instruction is way.instruction else None
                if theirs is not None:
                    yield ArrivalPair(mine, theirs, (way, other))

    def _with_reference(
        self, ways: Sequence[DirtyTrap[S]], image: S, theirs: Arrival[S], reference: DirtyTrap[S] | None
    ) -> Iterator[ArrivalPair[S]]:
        for way in ways:
            mine = way.at(image)
            if mine is not None and self._possible(mine):
                yield ArrivalPair(mine, theirs, (way, reference), renamed=True)

    # -- ends ---------------------------------------------------------------------------------

    def _ends(self, pair: ArrivalPair[S]) -> tuple[list[End[S]], list[End[S]]]:
        """What becomes of two arrivals, and when (width 1)."""
        return self._ends_of(pair.mine, mine=True), self._ends_of(pair.theirs, mine=False)

    def _ends_of(self, arrival: Arrival[S], *, mine: bool) -> list[End[S]]:
        code, found = self.delivery.given.get(CODE), []
        same = TRUE if code is None or arrival.code is None else code == arrival.code
        for number, path in enumerate(self.delivery.run.paths):
            if (arrival.shape, number) in self._impossible:
                continue
            for one in self.delivery.of(path, arrival.before, arrival.state, again=not mine):
                when = conjunction((*arrival.conditions, *one.conditions)) & same
                if mine and len(self.delivery.run.paths) > 1 and self._never(when):
                    self._impossible.add((arrival.shape, number))
                else:
                    found.append((when, one.result))
        return found

    def _never(self, when: Word) -> bool:
        return self.premises.ask.first([[when]]) is Answer.UNSAT

    @cached_property
    def _impossible(self) -> set[tuple[object, int]]:
        """Of arrivals of a shape, the ways through it, by number, that no image of a guest takes."""
        return set()

    @cached_property
    def modelled(self) -> bool:
        """The model says of some state what becomes of it."""
        return any(isinstance(path.result, Next) for path in self.delivery.run.paths)

    # -- what is wrong ------------------------------------------------------------------------

    @cached_property
    def control(self) -> tuple[str, ...]:
        """The leaves that say where control is: not where the hardware tells of a trap, and no mode depends on it."""
        machine, technique, told = (
            self.premises.machine,
            self.premises.technique,
            self.premises.technique.delivered,
        )
        state = machine.state.symbolic()
        modes = (machine.supervisor(state), machine.user(state), technique.deprivileged(state))
        read = terms.bits_of([one.term for one in modes])
        return tuple(
            leaf.name
            for leaf in leaves_with(machine.state, [Role.MODE, Role.PC])
            if not {leaf.name, leaf.component} & set(told)
            or read.get(leaf.component, 0) >> leaf.low & (1 << leaf.width) - 1
        )

    def where(self, pair: ArrivalPair[S], other: S) -> Iterator[EntryFault]:
        """Where it goes, and whether it goes anywhere."""
        p = self.premises
        mine, theirs = self._ends(pair)
        address, owns = p.machine.fetches, p.technique.owns_address
        for given, a in mine:
            if isinstance(a, Next) and address is not None and owns is not None:
                kept = p.machine.supervisor(a.state) & owns(p.guest, p.private, address(a.state))
                yield EntryFault(f"{self.name} goes elsewhere than to the control program", given & ~kept)
            for others, b in theirs:
                when = given & others
                if isinstance(a, Next) and isinstance(b, Next):
                    apart = any_of(a.state[name] != b.state[name] for name in self.control)
                    yield EntryFault(f"where {self.name} goes, the guest has a say in", when & apart)
                elif isinstance(a, Trap) and isinstance(b, Next):
                    how = f"{self.name} stops the machine, and it is the guest that has a say in that: {a.vector}"
                    yield EntryFault(how, when)
                elif isinstance(a, NotModelled) and isinstance(b, Next):
                    how = f"of some guests it is not modelled where {self.name} goes: {a.reason}"
                    yield EntryFault(how, when, silent=True)
                elif isinstance(b, Trap) and isinstance(a, Next):
                    yield EntryFault(
                        f"{self.name} stops the machine, and not of every guest: {b.vector}", when
                    )

    @cached_property
    def registers(self) -> tuple[str, ...]:
        """The leaves that the control program owns, but for where control is and what it is told."""
        p = self.premises
        owned = set(p.technique.owned) - set(p.technique.delivered) - set(self.control) - p.clocks
        return tuple(leaf.name for leaf in p.guest.leaves if {leaf.name, leaf.component} & owned)

    def puts(self, pair: ArrivalPair[S], other: S) -> Iterator[EntryFault]:
        """What depends on the guest and is left in a register of the control program's."""
        for when, a, b in self._both_end(pair):
            one, two = pair.mine.state, pair.theirs.state
            for name in self.registers:
                x, y, old, before = a[name], b[name], one[name], two[name]
                if x.term is not y.term and not (x.term is old.term and y.term is before.term):
                    yield EntryFault(name, when & (x != y) & ((x != old) | (y != before)))

    def keeps(self, pair: ArrivalPair[S], other: S) -> Iterator[EntryFault]:
        """What it overwrites of the control program's storage."""
        how = f"{self.name} overwrites a cell of the control program's, and the guest has a say in which"
        for when, a, b in self._both_end(pair):
            for also in self._cells(pair.mine.state, a, b):
                yield EntryFault(how, when & also)

    def _both_end(self, pair: ArrivalPair[S]) -> Iterator[tuple[Word, S, S]]:
        """The states after it, where there are two, and when (width 1)."""
        mine, theirs = self._ends(pair)
        for given, a in mine:
            for others, b in theirs:
                if isinstance(a, Next) and isinstance(b, Next):
                    yield given & others, a.state, b.state

    def _cells(self, one: S, a: S, b: S) -> Iterator[Word]:
        """A cell of the control program's that one delivery changes and the other does not write (each of width 1)."""
        p = self.premises
        owns = p.technique.owns_address
        for slot in one.layout if owns is not None else ():
            if owns is None or not slot.address or slot.role is not Role.MEMORY:
                continue
            old = one.memories()[slot.name]
            mine, theirs = (after.memories()[slot.name] for after in (a, b))
            written = [entry[0] for entry in theirs.stores if not isinstance(entry, Block)]
            for entry in mine.stores:
                if not isinstance(entry, Block):
                    at, changed = entry[0], old.load(entry[0]) != mine.load(entry[0])
                    yield owns(p.guest, p.private, at) & changed & ~any_of(at == place for place in written)

    def tells(self, pair: ArrivalPair[S], other: S, how: str) -> Iterator[EntryFault]:
        """What is unlike before it and alike after it."""
        p, start = self.premises, self.delivery.run
        rebuilt = frozenset(
            name
            for _, after in start.completions()
            for name, content in after.memories().items()
            if content.root is not start.before.memories()[name].root
        )
        for when, a, b in self._both_end(pair):
            starts = pair.mine.state, pair.theirs.state
            for way in self._lost((p.guest, other), starts, (a, b), rebuilt):
                yield EntryFault(how, when & way)

    def _lost(
        self, guests: tuple[S, S], starts: tuple[S, S], ends: tuple[S, S], rebuilt: frozenset[str]
    ) -> Iterator[Word]:
        """Ways in which two states can differ and nothing of it be left in the states after (each of width 1).

        What the entry leaves as it was tells itself apart: only what it changes is looked at.  Cells that the control
        program owns are left aside: what is in them follows from P (A5_control).

        Args:
            rebuilt: memories that it changes otherwise than by stores.
        """
        p, (a, b), (one, two) = self.premises, ends, starts
        owns = p.technique.owns_address
        alike = [a[name] == b[name] for name in a.words() if name not in p.clocks]
        apart = [
            one[name] != two[name]
            for name, word in one.words().items()
            if name not in p.clocks and not (word.term is a[name].term and two[name].term is b[name].term)
        ]
        for slot in a.layout:
            if not slot.address:
                continue
            name = slot.name
            contents = [state.memories()[name] for state in (a, b, one, two)]
            left, right, old, other = contents
            if left is old and right is other:
                continue
            places: list[tuple[Word, Word]] = []
            for guest, after in ((guests[0], left), (guests[1], right)):
                for entry in after.stores:
                    where = entry.destination if isinstance(entry, Block) else entry[0]
                    owned = slot.role is Role.MEMORY and owns is not None
                    places.append((where, ~owns(guest, p.private, where) if owned and owns else TRUE))
            if name in rebuilt:
                places.append((place_of(left, name, None), TRUE))
            alike += [left.load(at) == right.load(at) for at, _ in places]
            apart += [(old.load(at) != other.load(at)) & theirs for at, theirs in places]
        for way in apart:
            if way.value != 0:
                yield all_of(alike) & way

    # -- asking -------------------------------------------------------------------------------

    def asked(
        self,
        name: str,
        wrong: Asked[S],
        other: S,
        replay: Replay[S],
        given: Sequence[Word] = (),
        *,
        together: bool = False,
    ) -> Premise[S]:
        """Whether something wrong is possible; what is found is run again on numbers.

        Args:
            other: another guest.
            given: what is assumed besides.
            together: of two guests that run one form.

        Raises:
            PathBudgetError: too many ways through it.
        """
        p = self.premises
        images, guests = (p.image, p.technique.map(other, p.private)), (p.guest, other)
        whole = [*p.okay, *p.ok(other, p.private), self.allowed, *given]
        search = EntrySearch(self, name, wrong, other, Asker(p.effort, whole), whole)
        loosest = self._loosest(images, guests)
        if loosest is not None and search.of(loosest) is Answer.UNSAT:
            return search.holds()
        for pair, exact in self._groups(images, guests, together=together):
            pairs = [pair] if pair.exact else []
            if not pair.exact and search.of(pair) is not Answer.UNSAT:
                pairs = list(exact())
            for one in pairs:
                if search.of(one) is Answer.SAT and (found := search.found(one, replay)) is not None:
                    return found
        return search.holds()

    def met(self) -> bool:
        """Some form can end so on the hardware and leave the state as it was."""
        ways = [()] if self.arrivals is None else self.arrivals.clean
        return any(self.premises.ask.first([[conjunction(way)]]) is not Answer.UNSAT for way in ways)

    # -- on numbers ---------------------------------------------------------------------------

    def ends_on_numbers(
        self, pair: ArrivalPair[S], states: Sequence[S], given: Mapping[str, Word]
    ) -> tuple[list[S], list[Outcome[S]]]:
        """Where two arrivals are, and what becomes of them."""
        guest, private, other = states
        images = [self.premises.technique.map(one, private) for one in (guest, other)]
        images[1] = images[1].with_undefined_again(AGAIN)
        starts, ends = [], []
        for image, way, prefix in zip(images, pair.ways, ("mine ", "theirs "), strict=True):
            start, end = self._end_on_numbers(image, way, prefix, given)
            starts.append(start)
            ends.append(end)
        return starts, ends

    def end(self, state: S, given: Mapping[str, Word]) -> Outcome[S]:
        """What becomes of a state in which the interrupt is taken."""
        taken = self.interruption
        assert taken is not None
        return entered_by(lambda: self.premises.machine.interrupted(taken, state, given), state)

    def _end_on_numbers(
        self, image: S, way: DirtyTrap[S] | None, prefix: str, given: Mapping[str, Word]
    ) -> tuple[S, Outcome[S]]:
        machine = self.premises.machine
        if self.interruption is not None:
            return image, self.end(image, given)
        assert self.arrivals is not None
        if way is None:
            kind = self.arrivals.sample
            trap = Trap(kind.vector, given.get(CODE), kind.memory, image, kind.level)
        else:
            operands = {name: given[prefix + name] for name in way.general.operands}
            outcome = machine.step(way.instruction, image, operands)
            if not isinstance(outcome, Trap):
                return image, outcome
            trap = outcome
        return trap.state, entered_by(lambda: machine.delivered(image, trap), trap.state)


__all__ = ["Entry"]
