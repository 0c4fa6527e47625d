"""The premises about where the hardware is entered: traps, entries without one, and interrupts.

For all S, S' and P that are ok together:

| name | must be impossible |
|---|---|
| A4_entry_tells_apart | the delivery of a trap loses what the control program needs: two guests of which the same \
is noted, unlike on the hardware, are alike after it |
| A5_vector | a trap, or an interrupt, on f(S, P) and on f(S', P) goes to different places: the guest has a say \
in it |
| A6_interrupt_tells_apart | an interrupt is taken on f(S, P) and held off on f(S', P): the guest holds it off; or its \
delivery loses what the control program needs |
| A6_interrupt_closure | the guest's own machine takes it, and what it makes of a guest is none any more |

Where a trap goes is mode and program counter after its delivery.  Of a trap that is said to be the
guest's, and of entries without a trap, the forms are asked (`FormPremises.traps`).  What a form does before it traps
is another question of A4, and so is that the map loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from popek.kernel.exploration import Path
from popek.kernel.interruption import Interruption
from popek.kernel.memory import Block
from popek.kernel.outcome import Next, Outcome, Target, Trap
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, all_of, any_of, symbol
from popek.solving.asking import Asker, SolverQuery
from popek.solving.solver import Answer

from .counterexample import StateDifference, differences
from .delivery import Enter, entered, every_way, of_trap
from .premise import A4, A5_VECTOR, A6_CLOSURE, A6_NOTICED, A6_TELLS, Premise
from .presence import plainest_given
from .runs import Completion, Run, conjunction, place_of
from .verdict import Evidence, Question, Truth

if TYPE_CHECKING:
    from .premises import Premises

S = TypeVar("S", bound=State)

Replayed = tuple[bool, tuple[StateDifference, ...]]
"""Whether numbers show what the solver found, and in what."""

NOT_DECLARED = "the machine does not say what an interrupt does"
NOWHERE = "where its traps go the machine does not say"


@attrs.frozen(eq=False, slots=False)
class _Entry(Generic[S]):
    """A way into the control program: what happens to a state, given what a device, or the instruction, supplies."""

    name: str
    enter: Enter[S]
    given: Mapping[str, Word]
    allowed: Word
    interruption: Interruption[S] | None = None
    kind: tuple[str, str] = ("", "")

    def takes(self, state: S) -> Word:
        """It happens in this state (width 1)."""
        return Word(1, 1) if self.interruption is None else self.interruption.takes(state, self.given)

    def outcome(self, state: S, given: Mapping[str, Word]) -> Outcome[S]:
        """The state after it; or that it cannot be had."""
        return entered(self.enter, state, given)


class Entries(Generic[S]):
    """Asks the premises about entries, for `Premises`."""

    def __init__(self, premises: Premises[S]) -> None:
        self._p = premises
        self._runs: dict[str, Run[S]] = {}
        self._traps: dict[tuple[str, str], tuple[Trap[S], list[tuple[Term, ...]]]] = {}

    def note(self, trap: Trap[S], conditions: tuple[Term, ...]) -> None:
        """A trap that some form ends in on the hardware, if the conditions can hold."""
        kind = trap.vector.name, trap.level
        self._traps.setdefault(kind, (trap, []))[1].append(conditions)

    def _met(self, entry: _Entry[S]) -> bool:
        """Some form can end so on the hardware: asked only where something is wrong with the entry."""
        ways = self._traps[entry.kind][1] if entry.kind in self._traps else [()]
        return any(self._p.ask.first([[conjunction(way)]]) is not Answer.UNSAT for way in ways)

    @cached_property
    def interruptions(self) -> tuple[_Entry[S], ...]:
        """The interrupts that the machine declares."""
        found = []
        for one in self._p.machine.interruptions:
            given = {name: symbol(f"{name} of {one.name}", width) for name, width in one.given.items()}
            found.append(_Entry(one.name, one.enter, given, one.may(given), one))
        return tuple(found)

    @cached_property
    def _trap_entries(self) -> list[_Entry[S]]:
        machine, found = self._p.machine, []
        for kind, (trap, _) in self._traps.items() if machine.deliver is not None else ():
            if self._p.technique.target(trap) is Target.VMM:
                enter, given = of_trap(machine, trap)
                found.append(_Entry(str(trap.vector), enter, given, TRUE, kind=kind))
        return found

    def _run(self, entry: _Entry[S]) -> Run[S]:
        """Every way through an entry, from any state; explored once."""
        if entry.name in self._runs:
            return self._runs[entry.name]
        p = self._p
        run = every_way(p.machine, p.guest, entry.enter, entry.given, entry.allowed, p.effort)
        self._runs[entry.name] = run
        return run

    @cached_property
    def changed_by_interrupts(self) -> frozenset[str]:
        """The components that some interrupt changes."""
        found = set()
        for entry in self.interruptions:
            before = self._run(entry).before.words()
            for _, after in self._run(entry).completions():
                found |= {name for name, word in after.words().items() if word.term is not before[name].term}
        return frozenset(found)

    @cached_property
    def _control(self) -> tuple[str, ...]:
        """The leaves that say where control is."""
        return tuple(leaf.name for leaf in leaves_with(self._p.machine.state, [Role.MODE, Role.PC]))

    # -- A5_vector ----------------------------------------------------------------------------

    def vector(self) -> list[Premise[S]]:
        """A5_vector, of every way in."""
        p = self._p
        asked = [
            *map(self._vector_of, (*self._trap_entries, *self.interruptions)),
        ]
        if p.machine.deliver is None:
            traps = [trap for trap, _ in self._traps.values()]
            past = sorted({str(trap.vector) for trap in traps if p.technique.target(trap) is not Target.VMM})
            told = f", and that {', '.join(past)} are the guest's is the technique's word" if past else ""
            return [*asked, Premise(A5_VECTOR, "", Truth.NOT_ASKED, NOWHERE + told)]
        return asked or [Premise(A5_VECTOR, "", Truth.NOT_ASKED, "nothing traps")]

    def _vector_of(self, entry: _Entry[S]) -> Premise[S]:
        """Two guests under one control program enter it at one place, where the delivery is modelled."""
        p = self._p
        other = self._another()
        mine, theirs = self._on_hardware(entry, other)
        pairs = [(a, b) for a in mine for b in theirs]
        if not pairs:
            return Premise(A5_VECTOR, "", Truth.NOT_ASKED, f"where {entry.name} goes is not modelled")
        apart = [
            conjunction((*a[0], *b[0])) & any_of(a[1][name] != b[1][name] for name in self._control)
            for a, b in pairs
        ]
        how = f"where {entry.name} goes, the guest has a say in"

        def replay(states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            ends = self._ends(entry, self._images(states), given)
            differ = () if ends is None else differences(ends[0], ends[1])
            where = tuple(d for d in differ if d.name in self._control)
            return bool(where), where

        given = [*p.ok(other, p.private), entry.allowed]
        return self._asked(A5_VECTOR, how, given, apart, other, entry, replay)

    def _another(self) -> S:
        """Any other guest, with the same clocks."""
        p = self._p
        other = p.machine.state.symbolic("'")
        fixed = {
            name: p.guest[name] for name in p.guest.words() if p.guest[name].concrete or name in p.clocks
        }
        return other.with_changes(dict(fixed))

    def _on_hardware(self, entry: _Entry[S], other: S) -> tuple[list[Completion[S]], list[Completion[S]]]:
        """What an entry makes of the images of G and of another guest; what is not modelled is left out."""
        p, run = self._p, self._run(entry)
        mine = list(run.at(p.image).completions())
        possible = (
            {path.conditions for path in run.paths if self._possible_at_an_image(run, path)}
            if len(mine) > 1
            else {path.conditions for path in run.paths}
        )
        kept = attrs.evolve(run, paths=tuple(path for path in run.paths if path.conditions in possible))
        images = (p.image, p.technique.map(other, p.private))
        one, two = (list(kept.at(image).completions()) for image in images)
        return one, two

    def _possible_at_an_image(self, run: Run[S], path: Path[Outcome[S]]) -> bool:
        """Some image of a guest takes this way through an entry."""
        only = attrs.evolve(run, paths=(path,)).at(self._p.image)
        return any(
            self._p.ask.first([[conjunction(conditions)]]) is not Answer.UNSAT
            for conditions, _ in only.completions()
        )

    def _images(self, states: Sequence[S]) -> tuple[S, S]:
        """The images of two guests under one control program."""
        guest, private, other = states
        return self._p.technique.map(guest, private), self._p.technique.map(other, private)

    @staticmethod
    def _ends(entry: _Entry[S], images: tuple[S, S], given: Mapping[str, Word]) -> tuple[S, S] | None:
        """The states after an entry from two states, on numbers."""
        one, two = (entry.outcome(image, given) for image in images)
        return (one.state, two.state) if isinstance(one, Next) and isinstance(two, Next) else None

    # -- A6 -----------------------------------------------------------------------------------

    def interrupts(self) -> list[Premise[S]]:
        """A6, of every interrupt that is declared."""
        if not self.interruptions:
            return [
                Premise(name, "", Truth.NOT_ASKED, NOT_DECLARED)
                for name in (A6_TELLS, A6_NOTICED, A6_CLOSURE)
            ]
        return [
            premise
            for entry in self.interruptions
            for premise in (self._held_off(entry), self._tells(A6_TELLS, entry), self._closure(entry))
        ]

    def _held_off(self, entry: _Entry[S]) -> Premise[S]:
        """Whether the hardware takes it is the control program's to say, whatever guest runs."""
        p, other = self._p, self._another()
        images = (p.image, p.technique.map(other, p.private))
        how = f"a guest can hold off the {entry.name} that the control program waits for"
        given = [*p.ok(other, p.private), entry.allowed]
        apart = [entry.takes(images[0]) != entry.takes(images[1])]

        def replay(states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            assert entry.interruption is not None
            one, two = self._images(states)
            taken = [entry.interruption.takes(image, given) for image in (one, two)]
            return taken[0].value != taken[1].value, differences(one, two)

        return self._asked(A6_TELLS, how, given, apart, other, entry, replay)

    def delivery(self) -> list[Premise[S]]:
        """A4, of the delivery of every trap that goes to the control program."""
        return [self._tells(A4, entry) for entry in self._trap_entries]

    def _tells(self, name: str, entry: _Entry[S]) -> Premise[S]:
        """Two guests of which the same is noted, unlike on the hardware, are not alike after the entry."""
        p = self._p
        other = p.noted(p.guest, "'")
        images = (p.image, p.technique.map(other, p.private))
        mine, theirs = self._on_hardware(entry, other)
        start = self._run(entry)
        rebuilt = frozenset(
            name
            for _, after in start.completions()
            for name, content in after.memories().items()
            if content.root is not start.before.memories()[name].root
        )
        if not mine or not theirs:
            return Premise(name, "", Truth.NOT_ASKED, f"what {entry.name} leaves behind is not modelled")
        ways = []
        for given, a in mine:
            for others, b in theirs:
                taken = conjunction((*given, *others))
                ways += [taken & way for way in self._lost((p.guest, other), images, (a, b), rebuilt)]
        when = [entry.takes(image) for image in images]
        how = f"the delivery of {entry.name} loses what the control program needs to go on with the guest"
        allowed = [*p.ok(other, p.private), entry.allowed, *when]

        def replay(states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            images, where = self._images(states), self._touched(states)
            ends = self._ends(entry, images, given)
            seen = tuple(d for d in differences(images[0], images[1], where) if d.name not in p.clocks)
            after = () if ends is None else differences(ends[0], ends[1], where)
            alike = ends is not None and all(d.name in p.clocks for d in after)
            return bool(seen) and alike, seen

        return self._asked(name, how, allowed, ways, other, entry, replay)

    def _lost(
        self, guests: tuple[S, S], images: tuple[S, S], ends: tuple[S, S], rebuilt: frozenset[str]
    ) -> Iterator[Word]:
        """Ways in which two images can differ and nothing of it be left in the states after (each of width 1).

        What the entry leaves as it was tells itself apart: only what it changes is looked at.  Cells that the control
        program owns are left aside: what is in them follows from P (A5_control).

        Args:
            rebuilt: memories that it changes otherwise than by stores.
        """
        p, (a, b), (one, two) = self._p, ends, images
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
            places: list[tuple[Word, Word]] = []
            for guest, before, after in ((guests[0], old, left), (guests[1], other, right)):
                for entry in after.stores[len(before.stores) :]:
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

    def _touched(self, states: Sequence[S]) -> dict[str, tuple[int, ...]]:
        """The cells that some state of numbers has something in, as the guest and as the hardware address them."""
        technique, private = self._p.technique, states[1]
        found: dict[str, tuple[int, ...]] = {}
        for slot in private.layout:
            if slot.address:
                contents = [state.memories()[slot.name] for state in states]
                cells = {int(a) for one in contents if isinstance(one.root, dict) for a in one.root}
                words = [Word(contents[0].address_width, cell) for cell in cells]
                if slot.role is Role.MEMORY:
                    cells |= {int(technique.guest_address(private, word)) for word in words}
                else:
                    cells |= {int(technique.guest_cell(private, slot.name, word)) for word in words}
                found[slot.name] = tuple(sorted(cells))
        return found

    def _closure(self, entry: _Entry[S]) -> Premise[S]:
        """What it makes of a guest is a guest."""
        p = self._p
        assert entry.interruption is not None
        run = self._run(entry)
        bad = [
            conjunction(conditions) & ~all_of(p.ok(after, p.private))
            for conditions, after in run.completions()
        ]
        how = f"what the {entry.name} makes of a guest is no guest any more"
        given = [entry.allowed, entry.takes(p.guest)]

        def replay(states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            guest, private = states
            outcome = entry.outcome(guest, given)
            if not isinstance(outcome, Next):
                return False, ()
            ok = all_of(p.ok(outcome.state, private))
            return ok.value == 0, differences(guest, outcome.state)

        return self._asked(A6_CLOSURE, how, given, bad, None, entry, replay)

    # -- asking -------------------------------------------------------------------------------

    def _asked(
        self,
        name: str,
        how: str,
        given: Sequence[Word],
        ways: Sequence[Word],
        other: S | None,
        entry: _Entry[S],
        replay: Callable[[Sequence[S], Mapping[str, Word]], Replayed],
    ) -> Premise[S]:
        """Whether something wrong is possible; what is found is run again on numbers."""
        p = self._p
        title = f"{p.machine.name}: {name} fails for {entry.name} under {p.technique.name}"
        ask = Asker(p.effort, [*p.okay, *given])
        asked: list[SolverQuery] = []
        answers = {way: ask.first([[way]], asked=asked) for way in ways if way.value != 0}
        whole = Question(title, [*p.okay, *given, any_of(ways)])
        found = next((way for way, answer in answers.items() if answer is Answer.SAT), None)
        if found is not None and not self._met(entry):
            return Premise(name, "", Truth.YES, f"nothing ends in {entry.name} on the hardware")
        if found is None:
            unsure = Answer.UNKNOWN in answers.values()
            evidence = Evidence(whole, Answer.UNKNOWN if unsure else Answer.UNSAT, tuple(asked))
            if unsure:
                return Premise(name, "", Truth.UNKNOWN, f"not answered within the bounds: {how}", evidence)
            return Premise(name, "", Truth.YES, "", evidence)
        question = Question(title, [*p.okay, *given, found])
        evidence = Evidence(question, Answer.SAT, tuple(one for one in asked if one.answer is Answer.SAT)[:1])
        symbolic = [p.guest, p.private, *([] if other is None else [other])]
        states, supplied = plainest_given(p.machine, question, symbolic, p.effort, entry.given)
        if not states:
            return Premise(name, "", Truth.UNKNOWN, how, evidence)
        seen, differ = replay(states, supplied)
        if not seen:
            return Premise(name, "", Truth.UNKNOWN, f"it was not found whether {how}", evidence)
        reset = p.machine.state.reset()
        shown = [{d.name: hex(d.after) for d in differences(reset, state)} for state in states]
        told = {d.name: [hex(d.before), hex(d.after)] for d in differ}
        numbers = {name: hex(int(word)) for name, word in supplied.items()}
        story = {"story": how, "states": shown, "given": numbers, "differ": told}
        return Premise(name, "", Truth.NO, how, evidence, lambda: story)


__all__ = ["Entries"]
