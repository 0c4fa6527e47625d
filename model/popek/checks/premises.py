"""The premises of the theorems, asked of one machine under one technique.

S is a guest's state, P what the control program keeps, f(S, P) the state of the hardware, n(S) what the control
program notes of the guest (the technique's `shadowed` leaves and cells).  S and P range over

    ok(S, P)   both fulfil the invariant and the configuration, S is a guest, and P is what the technique promises

Names are those of the theorems' hypotheses.  What is asked is their text, read over words (`premise_texts`,
`premise_reading`, `premise_meaning`), but for traps and entries, which A4, A5 and A5_vector ask about in words of
their own.  Per instruction form i:

| name | must be impossible |
|---|---|
| A1_fidelity | i completes on f(S, P) and not in f(i(S), P), or not on S; or i changes n(S) natively |
| A1s_model_speaks | where i completes, the model is silent: then nothing is known |
| A3_closure_next, A3_closure_trap | what i, or its trap, makes of a guest is none any more |
| A4_entry_tells_apart | i traps and leaves two guests alike that go on differently; or goes by a cell that the guest \
does not have (`absent_cells`) |
| A5_control | i traps and has changed what the control program owns |
| A5_vector | i traps past the control program, and the guest's own machine does not, or makes something else of it; \
or i goes in without a trap, and not where the control program says (`without_trap`) |
| A8_efficiency | i completes on S and not on f(S, P) |
| A9_no_clock, A9_no_clock_trap | states equal but for clocks, and i, or its trap, does something else |
| A6_interrupt_noticed | i completes on f(S, P), and S takes an interrupt after it that was held off before |
| A10_hybrid | as A1, of guests in user mode |

Once per machine and technique: A0_image (f(S, P) is deprivileged and exists), A4_entry_tells_apart (the half that is
A4_image_tells), A5_control (what is owned in f(S, P) follows from P and n(S)), A7_nesting (f(S, P) is a guest),
A9_guests and A9_map (neither depends on a clock), and those about entries (see `entries`).  A2_fetch is taken for
granted: operands come with the instruction.

Time is outside, as in the paper: P's clocks are S's, and clocks that a run does not write to are not compared; A9 is
about them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Generic, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.terms import Term
from popek.kernel.words import Word, all_of, any_of, ite
from popek.solving.asking import Asker, SolverQuery
from popek.solving.solver import Answer

from .counterexample import differences
from .delivery import after_a_trap
from .entries import Entries
from .form_premises import FormPremises
from .obligation import OF_THE_VMM
from .premise import (
    A0,
    A1,
    A1S,
    A3_NEXT,
    A3_TRAP,
    A4,
    A4_IMAGE,
    A5,
    A6_NOTICED,
    A7,
    A8,
    A9,
    A9_GUESTS,
    A9_MAP,
    A9_TRAP,
    A10,
    OF_THE_WHOLE,
    TAKEN_FOR_GRANTED,
    Premise,
)
from .premise_meaning import OfMachine
from .premise_reading import ways
from .presence import NothingToAskError, plainest
from .promises import Keeper
from .runs import PROBE, Run, operating_mode, probe
from .subject import Subject
from .verdict import Evidence, Question, Truth

S = TypeVar("S", bound=State)


class Premises(Generic[S]):
    """Asks the premises of a machine under a technique.

    Where time is state, clocks are compared, and P's are its own.
    """

    def __init__(self, subject: Subject[S]) -> None:
        self.subject, self.effort = subject, subject.effort
        self.machine, self.technique = machine, technique = subject.machine, subject.technique
        mode = operating_mode(machine, subject.configuration)
        self.guest = machine.state.symbolic().with_changes(mode)
        times = () if subject.time_is_state else leaves_with(machine.state, [Role.TIME])
        self.clocks = frozenset(leaf.name for leaf in times)
        private = machine.state.symbolic(OF_THE_VMM).with_changes(mode)
        self.private = private.with_changes({name: self.guest[name] for name in self.clocks})
        self.image = technique.map(self.guest, self.private)
        self.keeper = Keeper(subject)
        self.entries = Entries(self)
        self._changed: set[str] = set()  # components that some form changes
        self._asked: set[str] = set()  # forms
        self.excluded: dict[frozenset[Term], SolverQuery] = {}  # shared by the forms

    def ok(self, guest: S, private: S) -> list[Word]:
        """S is a guest of a control program that keeps P (each of width 1)."""
        return [
            self.technique.guest(guest),
            self.technique.private(guest, private),
            *(self.machine.invariant(state) for state in (guest, private)),
            self.subject.of_the_guest.holds(self.machine, guest),
            self.subject.holds(private),
        ]

    def assert_some(self) -> None:
        """Premises range over guests, each with what the VMM keeps.

        Raises:
            NothingToAskError: there are none.
        """
        there = Question(f"{self.machine.name}: there is a guest with its VMM", self.okay)
        if there.put(self.effort).answer is Answer.UNSAT:
            raise NothingToAskError(
                f"{self.subject}: no guest's own machine is so; whatever is said of nothing is true"
            )

    @property
    def constant(self) -> tuple[str, ...]:
        """Leaves that nothing in the machine changes; to be asked for when every form was explored."""
        if self._asked != set(self.machine.instructions):
            return ()
        roles = (Role.HIDDEN, Role.RESOURCE)
        changed = self._changed | self.entries.changed_by_interrupts
        return tuple(x.name for x in leaves_with(self.machine.state, roles) if x.component not in changed)

    @cached_property
    def okay(self) -> list[Word]:
        """ok(S, P)."""
        return self.ok(self.guest, self.private)

    @cached_property
    def ask(self) -> Asker:
        """Questions under ok(S, P)."""
        return Asker(self.effort, self.okay)

    def noted(self, guest: S, fresh: str) -> S:
        """Another guest of which the control program notes the same: all else is fresh."""
        technique, shadows = self.technique, self.technique.shadows_address
        other = self.machine.state.symbolic(fresh)
        kept = {
            name: ite(technique.keeps(name, guest), guest[name], other[name])
            for name in technique.shadowed
            if name not in guest.memories()
        }
        kept |= {name: guest[name] for name in (*self.constant, *self.clocks) if name not in guest.memories()}
        other = other.with_changes(kept)
        for slot in self.machine.state.layout:
            if not slot.address:
                continue
            mine, theirs = guest.memories()[slot.name], other.memories()[slot.name]
            if slot.name in technique.shadowed:
                other._memories[slot.name] = mine
            elif slot.role is Role.MEMORY and shadows is not None:

                def cell(address: Word, mine: Memory = mine, theirs: Memory = theirs) -> Word:
                    return ite(shadows(guest, address), mine.load(address), theirs.load(address))

                other._memories[slot.name] = Memory(mine.address_width, mine.cell_width, cell)
        return other

    # -- once per machine ---------------------------------------------------------------------

    def once(self) -> list[Premise[S]]:
        """The premises that are about no instruction."""
        return [
            self._read(A0, A0, "the image of a guest is no state of the hardware, or a supervisor's"),
            *(
                Premise(
                    name, "", Truth.NOT_ASKED, "taken for granted: an instruction comes with its operands"
                )
                for name in TAKEN_FOR_GRANTED
            ),
            self._read(A4, A4_IMAGE, "two guests of which the same is noted have one image", exact=False),
            self._read(A5, A5, "what the control program owns depends on more of the guest than it notes"),
            *self.entries.delivery(),
            *self.entries.control(),
            *self.entries.vector(),
            *self.entries.interrupts(),
            self._read(A7, A7, "the image of a guest is no guest of another control program"),
            self._read(A9_GUESTS, A9_GUESTS, "whether a state is a guest depends on a clock"),
            self._read(A9_MAP, A9_MAP, "the image of a guest, or what is noted of it, depends on a clock"),
        ]

    def alike(self, mine: S, theirs: S) -> Word:
        """That two states of the hardware are equal but for clocks, memories where they are asked about or stored."""
        equal = [mine.words()[n] == theirs.words()[n] for n in mine.words() if n not in self.clocks]
        for name, where, home in self._places:
            a, b = mine.memories()[name], theirs.memories()[name]
            stored = [entry[0] for entry in (*a.stores, *b.stores) if not isinstance(entry, Block)]
            equal += [a.load(place) == b.load(place) for place in (where, home, *stored)]
        return all_of(equal)

    def apart(self, guest: S, other: S) -> Word:
        """That two guests differ, in what is theirs (width 1)."""
        owns, apart = self.technique.owns_address, [guest[n] != other[n] for n in guest.words()]
        for name, where, home in self._places:
            differ = guest.memories()[name].load(where) != other.memories()[name].load(where)
            if name in self._storage and owns is not None:  # a cell that is there
                differ = differ & ~owns(guest, self.private, home)
            apart.append(differ & self.technique.has_cell(guest, name, where))
        return any_of(apart)

    @cached_property
    def _storage(self) -> frozenset[str]:
        return frozenset(x.name for x in self.guest.layout if x.address and x.role is Role.MEMORY)

    @cached_property
    def _places(self) -> list[tuple[str, Word, Word]]:
        """Per memory, a place of the guest's, and where it is on the hardware."""
        found = []
        for slot in self.guest.layout:
            if slot.address:
                where = probe(self.guest.memories()[slot.name], f"{PROBE} in {slot.name}")
                home = self.technique.guest_address
                if slot.name not in self._storage:
                    home = partial(self._home, slot.name)
                found.append((slot.name, where, home(self.private, where)))
        return found

    def _home(self, name: str, private: S, cell: Word) -> Word:
        return self.technique.guest_cell(private, name, cell)

    def owned_apart(self, mine: S, theirs: S, guest: S, other: S) -> Word:
        """That what the control program owns differs in the images of two guests (width 1)."""
        guests = [
            name
            for name in self.technique.owned
            if name not in self.guest.memories() and self.image[name].term is self.guest[name].term
        ]
        guests += self.technique.guests_own
        apart = []
        for name in self.technique.owned:
            if name in mine.memories():
                a, b = mine.memories()[name], theirs.memories()[name]
                where = probe(a, f"{PROBE} in {name}")
                if guest.memories()[name] is not other.memories()[name]:
                    # the hardware's content is the guest's own: nothing of the control program's
                    continue
                apart.append(a.load(where) != b.load(where))
            elif name not in guests and name not in self.clocks:
                apart.append(mine[name] != theirs[name])
        owns = self.technique.owns_address
        for slot in guest.layout if owns is not None else ():
            if owns is not None and slot.address and slot.role is Role.MEMORY:
                a, b = mine.memories()[slot.name], theirs.memories()[slot.name]
                where = probe(a, f"{PROBE} in {slot.name}")
                apart.append(owns(guest, self.private, where) & (a.load(where) != b.load(where)))
        return any_of(apart)

    def _read(self, name: str, text: str, how: str, *, exact: bool = True) -> Premise[S]:
        """What is asked once, as the text of a premise says.

        Args:
            name: of the premise that it is, or is a half of.
            text: its text.
            how: how it fails.
        """
        meaning = OfMachine(self)
        wrong = any_of(all_of(way.conditions) for way in ways(text, meaning))
        return self.asked_once(name, how, lambda *_: wrong, *meaning.chosen, exact=exact)

    def another_private(self, name: str) -> S:
        """What another control program keeps; time is everyone's."""
        private = self.machine.state.symbolic(f"{OF_THE_VMM} {name}")
        mode = operating_mode(self.machine, self.subject.configuration)
        return private.with_changes({**mode, **{name: self.guest[name] for name in self.clocks}})

    def asked_once(
        self,
        name: str,
        how: str,
        wrong: Callable[..., Word],
        *others: S,
        exact: bool = True,
        outer: bool = True,
    ) -> Premise[S]:
        """Whether something wrong is possible.

        Args:
            wrong: the condition (width 1), of S, P and the other states.
            exact: what is found refutes; otherwise more than the premise asks was assumed, and it is replayed.
            outer: S and P are ok together; otherwise `wrong` says what is assumed of P.
        """
        given = self.okay if outer else [self.machine.invariant(self.private)]
        question = Question(
            f"{self.machine.name}: {name} fails under {self.technique.name}",
            [*given, wrong(self.guest, self.private, *others)],
        )
        asked = question.put(self.effort)
        answer, evidence = asked.answer, Evidence(question, asked.answer, (asked,))
        if answer is not Answer.SAT:
            truth = Truth.YES if answer is Answer.UNSAT else Truth.UNKNOWN
            return Premise(
                name, "", truth, "" if truth is Truth.YES else "no answer within the bounds", evidence
            )
        if name in (A4, A5) and self._asked != set(self.machine.instructions):
            how = f"it was not found whether {how}: some forms were not explored, so what never changes is not known"
            return Premise(name, "", Truth.UNKNOWN, how, evidence)
        states = plainest(self.machine, question, (self.guest, self.private, *others), self.effort)
        if not states:
            return Premise(name, "", Truth.UNKNOWN, how, evidence)
        if not exact:
            guest, private, other = states
            images = [self.technique.map(one, private) for one in (guest, other)]
            seen = [d for d in differences(images[0], images[1]) if d.name not in self.clocks]
            if seen or not differences(guest, other):
                return Premise(name, "", Truth.UNKNOWN, f"it was not found whether {how}", evidence)
        reset = self.machine.state.reset()
        image = self.technique.map(states[0], states[1])
        *shown, hardware = [{d.name: hex(d.after) for d in differences(reset, s)} for s in (*states, image)]
        story = {"story": how, "states": shown, "image": hardware}
        return Premise(name, "", Truth.NO, how, evidence, lambda: story)

    # -- per form -----------------------------------------------------------------------------

    def of(self, instruction: Instruction, general: Run[S]) -> list[Premise[S]]:
        """The premises of one form.

        Args:
            general: every path of it.
        """
        form = self.note(instruction, general)
        fidelity = form.read(A1)
        hybrid = attrs.evolve(fidelity, name=A10)
        if fidelity.truth is not Truth.YES:
            hybrid = form.read(A10)
        return [
            fidelity,
            hybrid,
            form.premise(A1S, form.silent()),
            form.read(A3_NEXT),
            self._if_delivered(form, A3_TRAP),
            *form.traps(),
            form.read(A8),
            form.read(A9),
            self._if_delivered(form, A9_TRAP),
            *([form.premise(A6_NOTICED, form.let_through())] if self.machine.interruptions else []),
        ]

    def _if_delivered(self, form: FormPremises[S], name: str) -> Premise[S]:
        """A premise about what a trap makes of a guest."""
        if self.machine.deliver is not None:
            return form.read(name)
        return Premise(name, form.name, Truth.NOT_ASKED, "the machine does not say how a trap is delivered")

    def delivered(
        self, before: S, conditions: Sequence[Term], trap: Trap[S]
    ) -> list[tuple[tuple[Term, ...], S | None]]:
        """The states after the guest's own hardware has delivered a trap, and when; None where it is not modelled.

        Where the hardware cannot deliver it, there is no state after it.

        Raises:
            PathBudgetError: too many ways.
        """
        found = after_a_trap(self.machine, before, conditions, trap, self.effort)
        return [
            (path.conditions, path.result.state if isinstance(path.result, Next) else None)
            for path in found
            if not isinstance(path.result, Trap)
        ]

    def note(self, instruction: Instruction, general: Run[S]) -> FormPremises[S]:
        """Keep of a form what is needed for that which is asked once."""
        self._note_changes(instruction, general)
        form = FormPremises(self, instruction, general)
        form.note_traps()
        return form

    def _note_changes(self, instruction: Instruction, general: Run[S]) -> None:
        """What the form changes, and the delivery of its traps."""
        self._asked.add(instruction.form)
        before = general.before.words()
        for path in general.paths:
            ends = []
            if isinstance(path.result, Next | Trap):
                ends.append(path.result.state)
            if isinstance(path.result, Trap):
                told = self.delivered(general.before, path.conditions, path.result)
                ends += [after for _, after in told if after is not None]
            for after in ends:
                self._changed |= {
                    name for name, word in after.words().items() if word.term is not before[name].term
                }

    def not_of_a_part(self) -> list[Premise[S]]:
        """What is asked once, where not every form was asked: it hangs on the others."""
        return [Premise(name, "", Truth.NOT_ASKED, "asked where every form is") for name in OF_THE_WHOLE]

    def unexplored(self, instruction: Instruction, why: str) -> list[Premise[S]]:
        """The premises of a form that has too many paths: unknown."""
        return [
            Premise(name, instruction.form, Truth.UNKNOWN, why)
            for name in (
                *(A1, A10, A1S, A3_NEXT, A3_TRAP, A4, A5, A8, A9, A9_TRAP),
                *([A6_NOTICED] if self.machine.interruptions else []),
            )
        ]
