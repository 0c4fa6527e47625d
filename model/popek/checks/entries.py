"""The premises about where the hardware is entered: traps, entries without one, and interrupts.

For all S, S' and P that are ok together:

| name | must be impossible |
|---|---|
| A4_entry_tells_apart | the delivery of a trap loses what the control program needs: two guests of which the same \
is noted, unlike on the hardware, are alike after it |
| A5_control | the delivery overwrites a cell of the control program's, and the guest has a say in which |
| A5_vector | a trap, or an interrupt, on f(S, P) and on f(S', P) goes to different places, or stops the machine: the \
guest has a say in it; or an entry lies in storage that is not the control program's |
| A6_interrupt_tells_apart | an interrupt is taken on f(S, P) and held off on f(S', P): the guest holds it off; or its \
delivery loses what the control program needs |
| A6_interrupt_closure | the guest's own machine takes it, and what it makes of a guest is none any more |

Where a trap goes is mode and program counter after its delivery; and the cell there, where the machine says which that
is (`Machine.fetches`).  A trap is delivered from what its form has made of f(S, P) (`arrivals`).  Of a trap that is
said to be the guest's, the forms are asked (`FormPremises.traps`).  What a form does before it traps is another
question of A4, and so is that the map loses nothing.  Of entries without a trap, the forms are asked, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Generic, TypeVar

from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next, Target, Trap
from popek.kernel.state import Role, State
from popek.kernel.words import Word, all_of, any_of, symbol
from popek.solving.asking import Asker, SolverQuery
from popek.solving.solver import Answer

from .arrivals import TrapArrivals, TrapKind, ways_of
from .counterexample import differences
from .entering import Entry
from .entry_search import ArrivalPair, EntryFault, Replayed, found_on_numbers
from .premise import A4, A5, A5_VECTOR, A6_CLOSURE, A6_NOTICED, A6_TELLS, Premise
from .runs import Run, conjunction
from .verdict import Evidence, Question, Truth

if TYPE_CHECKING:
    from .premises import Premises

S = TypeVar("S", bound=State)

MANY = 6  # forms that are named
NOT_DECLARED = "the machine does not say what an interrupt does"
NO_CELL = "and the cell there is its own: from which one the machine fetches it does not say"
NOWHERE = "where its traps go the machine does not say"


class Entries(Generic[S]):
    """Asks the premises about entries, for `Premises`."""

    def __init__(self, premises: Premises[S]) -> None:
        self._p = premises
        self._traps: dict[TrapKind, TrapArrivals[S]] = {}

    def note(self, instruction: Instruction, general: Run[S], hardware: Run[S], valid: Word) -> None:
        """The traps in which a form ends on the hardware.

        Args:
            general: every path of it, from any state.
            hardware: from f(S, P).
            valid: what its operands can be.
        """
        for path in hardware.paths:
            trap = path.result
            if isinstance(trap, Trap) and trap.state is hardware.before:
                met = self._of_kind(trap)
                met.clean.append((*path.conditions, valid.term))
                met.clean_forms[instruction.form] = None
            elif isinstance(trap, Trap):
                self._of_kind(trap)
        for way in ways_of(instruction, general) if self._p.machine.deliver is not None else ():
            kind = TrapKind.of(way.trap, self._p.technique)
            if kind in self._traps:
                self._traps[kind].ways.append(way)

    def _of_kind(self, trap: Trap[S]) -> TrapArrivals[S]:
        kind = TrapKind.of(trap, self._p.technique)
        return self._traps.setdefault(kind, TrapArrivals(self._p, trap))

    @cached_property
    def interruptions(self) -> tuple[Entry[S], ...]:
        """The interrupts that the machine declares."""
        found = []
        for one in self._p.machine.interruptions:
            given = {name: symbol(f"{name} of {one.name}", width) for name, width in one.given.items()}
            found.append(Entry.by_interrupt(self._p, one, given))
        return tuple(found)

    @cached_property
    def _trap_entries(self) -> list[Entry[S]]:
        if self._p.machine.deliver is None:
            return []
        return [Entry.by_traps(self._p, a) for kind, a in self._traps.items() if kind.target is Target.VMM]

    def _each(
        self, name: str, entries: Iterable[Entry[S]], asked: Callable[[Entry[S]], Premise[S]]
    ) -> list[Premise[S]]:
        """A premise of every entry; unknown, where there are too many ways through it."""
        found = []
        for entry in entries:
            try:
                found.append(asked(entry))
            except PathBudgetError as error:
                found.append(Premise(name, "", Truth.UNKNOWN, f"the delivery of {entry.name}: {error}"))
        return found

    @cached_property
    def changed_by_interrupts(self) -> frozenset[str]:
        """The components that some interrupt changes."""
        found = set()
        for entry in self.interruptions:
            run = entry.delivery.run
            before = run.before.words()
            for _, after in run.completions():
                found |= {name for name, word in after.words().items() if word.term is not before[name].term}
        return frozenset(found)

    # -- A5 -----------------------------------------------------------------------------------

    def vector(self) -> list[Premise[S]]:
        """A5_vector, of every way in."""
        p = self._p
        ways = (*self._trap_entries, *self.interruptions)
        asked = self._each(A5_VECTOR, ways, self._vector_of)
        if p.machine.deliver is None:
            traps = [(arrivals.sample, kind.target) for kind, arrivals in self._traps.items()]
            past = sorted({str(trap.vector) for trap, target in traps if target is not Target.VMM})
            told = f", and that {', '.join(past)} are the guest's is the technique's word" if past else ""
            return [*asked, Premise(A5_VECTOR, "", Truth.NOT_ASKED, NOWHERE + told)]
        if asked and p.machine.fetches is None and p.technique.owns_address is not None:
            asked.append(Premise(A5_VECTOR, "", Truth.NOT_ASKED, NO_CELL))
        return asked or [Premise(A5_VECTOR, "", Truth.NOT_ASKED, "nothing traps")]

    def _vector_of(self, entry: Entry[S]) -> Premise[S]:
        """Two guests under one control program enter it at one place, where the delivery is modelled."""
        p = self._p
        if not entry.modelled:
            return Premise(A5_VECTOR, "", Truth.NOT_ASKED, f"where {entry.name} goes is not modelled")

        def replay(pair: ArrivalPair[S], states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            _, (a, b) = entry.ends_on_numbers(pair, states, given)
            if not isinstance(a, Next) or not isinstance(b, Next):
                return isinstance(a, Trap) != isinstance(b, Trap), ()
            address, owns = p.machine.fetches, p.technique.owns_address
            where = tuple(d for d in differences(a.state, b.state) if d.name in entry.control)
            lost = ~p.machine.supervisor(a.state)
            if address is not None and owns is not None:
                lost = lost | ~owns(states[0], states[1], address(a.state))
            return bool(where) or (address is not None and lost.value == 1), where

        return entry.asked(A5_VECTOR, entry.where, self._another(), replay)

    def control(self) -> list[Premise[S]]:
        """A5_control, of the delivery of every trap that goes to the control program, and of every interrupt."""
        entries = list(filter(self._modelled, (*self._trap_entries, *self.interruptions)))
        found = [
            p.how.rpartition(": ")[2] for p in self._each(A5, entries, self._puts) if p.truth is Truth.NO
        ]
        told = ", ".join(dict.fromkeys(found))
        granted = (
            [f"what entries leave of the guest in registers of its own, such as {told}, is told"]
            if told
            else []
        )
        return [
            *self._each(A5, entries, self._keeps),
            *(Premise(A5, "", Truth.NOT_ASKED, how) for how in granted),
        ]

    def _puts(self, entry: Entry[S]) -> Premise[S]:
        """A delivery leaves nothing of the guest's in a register of the control program's; the first one is named."""

        def replay(pair: ArrivalPair[S], states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            return True, ()

        return entry.asked(A5, entry.puts, self._another(), replay)

    @staticmethod
    def _modelled(entry: Entry[S]) -> bool:
        try:
            return entry.modelled
        except PathBudgetError:
            return True

    def _keeps(self, entry: Entry[S]) -> Premise[S]:
        """What a delivery overwrites of the control program's, the guest has no say in."""

        def replay(pair: ArrivalPair[S], states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            starts, (a, b) = entry.ends_on_numbers(pair, states, given)
            if not isinstance(a, Next) or not isinstance(b, Next):
                return False, ()
            mine, theirs = (
                {d.name: d for d in differences(start, end.state)}
                for start, end in zip(starts, (a, b), strict=True)
            )
            cells = tuple(d for name, d in mine.items() if name not in theirs and "[" in name)
            return bool(cells), cells

        return entry.asked(A5, entry.keeps, self._another(), replay)

    def _another(self) -> S:
        """Any other guest, with the same clocks."""
        p = self._p
        other = p.machine.state.symbolic("'")
        fixed = {
            name: p.guest[name] for name in p.guest.words() if p.guest[name].concrete or name in p.clocks
        }
        return other.with_changes(dict(fixed))

    # -- A6 -----------------------------------------------------------------------------------

    def interrupts(self) -> list[Premise[S]]:
        """A6, of every interrupt that is declared."""
        if not self.interruptions:
            return [
                Premise(name, "", Truth.NOT_ASKED, NOT_DECLARED)
                for name in (A6_TELLS, A6_NOTICED, A6_CLOSURE)
            ]
        asked = (
            (A6_TELLS, self._held_off),
            (A6_TELLS, partial(self._tells, A6_TELLS)),
            (A6_CLOSURE, self._closure),
        )
        return [
            premise
            for entry in self.interruptions
            for name, one in asked
            for premise in self._each(name, [entry], one)
        ]

    def _held_off(self, entry: Entry[S]) -> Premise[S]:
        """Whether the hardware takes it is the control program's to say, whatever guest runs."""
        p, other = self._p, self._another()
        images = (p.image, p.technique.map(other, p.private))
        how = f"a guest can hold off the {entry.name} that the control program waits for"
        given = [*p.ok(other, p.private), entry.allowed]
        apart = [entry.takes(images[0]) != entry.takes(images[1])]

        def replay(states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            assert entry.interruption is not None
            guest, private, theirs = states
            one, two = (p.technique.map(state, private) for state in (guest, theirs))
            taken = [entry.interruption.takes(image, given) for image in (one, two)]
            return taken[0].value != taken[1].value, differences(one, two)

        return self._asked(A6_TELLS, how, given, apart, other, entry, replay)

    def delivery(self) -> list[Premise[S]]:
        """A4, of the delivery of every trap that goes to the control program."""
        return [*self._each(A4, self._trap_entries, partial(self._tells, A4)), *self._causes()]

    def _causes(self) -> list[Premise[S]]:
        """What is taken for granted: which instruction it was, where a trap need not tell."""
        kinds: dict[str, None] = {}
        forms: dict[str, None] = {}
        for entry in self._trap_entries:
            if entry.arrivals is not None and (untold := entry.arrivals.untold(self._another())):
                kinds[entry.name] = None
                forms |= dict.fromkeys(untold)
        if not kinds:
            return []
        what, which = _few(list(kinds)), _few(list(forms))
        why = f"what raised {what}, and with which operands, it knows: {which} may leave what others leave"
        return [Premise(A4, "", Truth.NOT_ASKED, why)]

    def _tells(self, name: str, entry: Entry[S]) -> Premise[S]:
        """Two guests of which the same is noted, unlike on the hardware, are not alike after the entry."""
        p = self._p
        if not entry.modelled:
            return Premise(name, "", Truth.NOT_ASKED, f"what {entry.name} leaves behind is not modelled")
        other = p.noted(p.guest, "'")
        how = f"the delivery of {entry.name} loses what the control program needs to go on with the guest"
        when = [entry.takes(image) for image in (p.image, p.technique.map(other, p.private))]

        def wrong(pair: ArrivalPair[S], other: S) -> Iterator[EntryFault]:
            return entry.tells(pair, other, how)

        def replay(pair: ArrivalPair[S], states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            starts, (a, b) = entry.ends_on_numbers(pair, states, given)
            if not isinstance(a, Next) or not isinstance(b, Next):
                return False, ()
            where = self._touched(states)
            seen = tuple(d for d in differences(starts[0], starts[1], where) if d.name not in p.clocks)
            after = differences(a.state, b.state, where)
            return bool(seen) and all(d.name in p.clocks for d in after), seen

        return entry.asked(name, wrong, other, replay, when, together=True)

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

    def _closure(self, entry: Entry[S]) -> Premise[S]:
        """What it makes of a guest is a guest."""
        p = self._p
        bad = [
            conjunction(conditions) & ~all_of(p.ok(after, p.private))
            for conditions, after in entry.delivery.run.completions()
        ]
        how = f"what the {entry.name} makes of a guest is no guest any more"
        given = [entry.allowed, entry.takes(p.guest)]

        def replay(states: Sequence[S], given: Mapping[str, Word]) -> Replayed:
            guest, private = states
            outcome = entry.end(guest, given)
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
        entry: Entry[S],
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
        if found is None:
            unsure = Answer.UNKNOWN in answers.values()
            evidence = Evidence(whole, Answer.UNKNOWN if unsure else Answer.UNSAT, tuple(asked))
            if unsure:
                return Premise(name, "", Truth.UNKNOWN, f"not answered within the bounds: {how}", evidence)
            return Premise(name, "", Truth.YES, "", evidence)
        question = Question(title, [*p.okay, *given, found])
        evidence = Evidence(question, Answer.SAT, tuple(one for one in asked if one.answer is Answer.SAT)[:1])
        symbolic = [p.guest, p.private, *([] if other is None else [other])]
        return found_on_numbers(p, name, how, question, evidence, symbolic, entry.given, replay)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return ", ".join(names[:MANY]) + more


__all__ = ["Entries"]
