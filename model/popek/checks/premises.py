"""The premises of the theorems, asked of one machine under one technique.

S is a guest's state, P what the control program keeps, f(S, P) the state of the hardware, n(S) what the control
program notes of the guest (the technique's `shadowed` leaves and cells).  S and P range over

    ok(S, P)   both fulfil the invariant and the configuration, S is a guest, and P is what the technique promises

Names are those of the theorems' hypotheses.  Per instruction form i:

| name | must be impossible |
|---|---|
| A1_fidelity | i completes on f(S, P) and not in f(i(S), P), or not on S; or i changes n(S) natively |
| A1s_model_speaks | where i completes, the model is silent: then nothing is known |
| A3_closure_next, A3_closure_trap | what i, or its trap, makes of a guest is none any more |
| A4_entry_tells_apart | i traps and leaves two guests alike that go on differently |
| A5_control | i traps and has changed what the control program owns |
| A8_efficiency | i completes on S and not on f(S, P) |
| A9_no_clock | states equal but for clocks, and i does something else |
| A10_hybrid | as A1, of guests in user mode |

Once per machine and technique: A0_image (f(S, P) is deprivileged and exists), A4_entry_tells_apart, A5_control (what
is owned in f(S, P) follows from P and n(S)), A5_vector (an entry lies in the control program's storage), A7_nesting
(f(S, P) is a guest).  A2_fetch is taken for granted: operands come with the instruction.

Time is outside, as in the paper: P's clocks are S's, and clocks are not compared; A9 is about them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final, Generic, TypeVar

import attrs

from popek.kernel.configuration import Configuration
from popek.kernel.exploration import explore
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault, Next, NotModelledError, Trap
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.technique import Technique
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, all_of, any_of, ite, symbol
from popek.solving.asking import Asker
from popek.solving.pruning import Pruner
from popek.solving.solver import Answer, Effort

from .counterexample import Counterexample, Executed, assert_replay, assert_within, differences, execute
from .presence import plainest
from .promises import OF_THE_VMM, Keeper
from .runs import PROBE, Run, conjunction, differing, handed_over, operating_mode, probe, together
from .verdict import Evidence, Question, Status, Truth, evidence_of
from .witness import find_minimal

S = TypeVar("S", bound=State)

A0, A1, A1S, A2 = "A0_image", "A1_fidelity", "A1s_model_speaks", "A2_fetch"
A3_NEXT, A3_TRAP, A4 = "A3_closure_next", "A3_closure_trap", "A4_entry_tells_apart"
A5, A5_VECTOR = "A5_control", "A5_vector"
A6_TELLS, A6_CLOSURE, A7 = "A6_interrupt_tells", "A6_interrupt_closure", "A7_nesting"
A8, A9, A10 = "A8_efficiency", "A9_no_clock", "A10_hybrid"

TITLES: Final[Mapping[str, str]] = {
    A0: "the image of a guest is a deprivileged state of the hardware",
    A1: "what completes on f(S) completes on S, and ends in the image of that",
    A1S: "where it completes, the model says what it does",
    A2: "what is fetched from f(S) is what is fetched from S",
    A3_NEXT: "a guest that completes an instruction is a guest still",
    A3_TRAP: "a guest that takes a trap is a guest still",
    A4: "where the hardware stops it can be told which guest it was",
    A5: "what the control program owns follows from what it keeps and notes, and no trap changes it",
    A5_VECTOR: "entries lie in the control program's storage",
    A6_TELLS: "an interrupt finds the guest",
    A6_CLOSURE: "a guest that is given an interrupt is a guest still",
    A7: "the image of a guest is a guest",
    A8: "what completes on S completes on f(S)",
    A9: "no clock is read",
    A10: "as A1, where S is in user mode",
}
THEOREM1: Final = (A0, A1, A1S, A4, A5, A5_VECTOR)
THEOREM2: Final = (*THEOREM1, A7, A9)
THEOREM3: Final = (A0, A10, A1S, A4, A5, A5_VECTOR)
CLOSURE: Final = (A3_NEXT, A3_TRAP)
TAKEN_FOR_GRANTED: Final = (A2,)

# Solver resources for one way in which a premise can fail.
WAY = 8_000_000


@attrs.frozen(eq=False, slots=False)
class Premise(Generic[S]):
    """One premise, of one form or (`form` empty) of the machine.

    Attributes:
        truth: whether it holds.
        how: in what way it fails, or why it was not asked.
        evidence: what was asked and answered; None where nothing was.
    """

    name: str
    form: str
    truth: Truth
    how: str = ""
    evidence: Evidence | None = None
    _make_witness: Callable[[], dict[str, Any] | None] | None = None

    @cached_property
    def witness(self) -> dict[str, Any] | None:
        """What refutes it, minimal and replayed; None too where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        return None if self._make_witness is None else self._make_witness()

    def to_json(self, *, witness: bool = True) -> dict[str, object]:
        """By name and form."""
        return {
            "id": self.name,
            "form": self.form or None,
            "verdict": Status.of(self.truth).value,
            "how": self.how or None,
            "evidence": None if self.evidence is None else self.evidence.to_json(),
            "witness": self.witness if witness and self.truth is Truth.NO else None,
        }


@attrs.frozen(eq=False)
class _Way:
    """A way in which a premise can fail: words for it, and conditions that must hold together."""

    how: str
    given: tuple[Term, ...]
    also: Word
    hardware: bool = True  # whether the run on the hardware is part of it
    states: tuple[Any, ...] = ()  # further symbolic states
    silent: bool = False  # if it is possible, nothing is known

    @property
    def conditions(self) -> list[Word]:
        return [*(Word(1, term) for term in self.given), self.also]


class Premises(Generic[S]):
    """Asks the premises of a machine under a technique.

    Args:
        machine, technique, configuration: of what.
        effort: bounds, and the tally of solver time.
    """

    def __init__(
        self, machine: Machine[S], technique: Technique[S], configuration: Configuration, effort: Effort | None = None
    ) -> None:
        self.machine, self.technique, self.configuration = machine, technique, configuration
        self.effort = effort or Effort()
        mode = operating_mode(machine, configuration)
        self.guest = machine.state.symbolic().with_changes(mode)
        self.clocks = frozenset(leaf.name for leaf in leaves_with(machine.state, [Role.TIME]))
        private = machine.state.symbolic(OF_THE_VMM).with_changes(mode)
        self.private = private.with_changes({name: self.guest[name] for name in self.clocks})
        self.image = technique.map(self.guest, self.private)
        self.keeper = Keeper(machine, technique, configuration, effort=self.effort)
        self._changed: set[str] = set()  # components that some form changes
        self._asked: set[str] = set()  # forms

    def ok(self, guest: S, private: S) -> list[Word]:
        """S is a guest of a control program that keeps P (each of width 1)."""
        return [
            self.technique.guest(guest),
            self.technique.private(guest, private),
            *(self.machine.invariant(state) for state in (guest, private)),
            *(self.configuration.holds(self.machine, state) for state in (guest, private)),
        ]

    @property
    def constant(self) -> tuple[str, ...]:
        """Leaves that nothing in the machine changes; to be asked for when every form was explored."""
        if self._asked != set(self.machine.instructions):
            return ()
        roles = (Role.HIDDEN, Role.RESOURCE)
        return tuple(x.name for x in leaves_with(self.machine.state, roles) if x.component not in self._changed)

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
            name: guest[name]
            for name in (*technique.shadowed, *self.constant, *self.clocks)
            if name not in guest.memories()
        }
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
            self._image(),
            Premise(A2, "", Truth.NOT_ASKED, "taken for granted: an instruction comes with its operands"),
            self._tells_apart(),
            self._control(),
            self._vector(),
            Premise(A6_TELLS, "", Truth.NOT_ASKED, "the machine does not say what an interrupt does"),
            Premise(A6_CLOSURE, "", Truth.NOT_ASKED, "the machine does not say what an interrupt does"),
            self._nesting(),
        ]

    def _image(self) -> Premise[S]:
        def wrong(guest: S, private: S) -> Word:
            image = self.technique.map(guest, private)
            outside = ~self.configuration.holds(self.machine, image)
            return outside | ~self.machine.invariant(image) | self.machine.supervisor(image)

        how = "the image of a guest is no state of the hardware, or a supervisor's"
        return self._once(A0, how, wrong)

    def _nesting(self) -> Premise[S]:
        def wrong(guest: S, private: S, inner: S) -> Word:
            image = self.technique.map(guest, inner)
            given = [*self.ok(guest, inner), self.technique.private(image, private)]
            return all_of(given) & ~self.technique.guest(image)

        inner = self.machine.state.symbolic(OF_THE_VMM + " inside")
        how = "the image of a guest is no guest of another control program"
        return self._once(A7, how, wrong, inner, outer=False)

    def _tells_apart(self) -> Premise[S]:
        other = self.noted(self.guest, "'")
        probes = [
            (slot.name, probe(self.guest.memories()[slot.name], f"{PROBE} in {slot.name}"))
            for slot in self.machine.state.layout
            if slot.address
        ]

        owns = self.technique.owns_address

        def wrong(guest: S, private: S, other: S) -> Word:
            mine, theirs = self.technique.map(guest, private), self.technique.map(other, private)
            alike = [mine.words()[n] == theirs.words()[n] for n in mine.words() if n not in self.clocks]
            storage = {slot.name for slot in guest.layout if slot.address and slot.role is Role.MEMORY}
            apart = [guest[n] != other[n] for n in guest.words()]
            for name, where in probes:
                a, b = mine.memories()[name], theirs.memories()[name]
                home = self.technique.guest_address if name in storage else partial(self._home, name)
                places = [where, home(private, where)]
                alike += [a.load(place) == b.load(place) for place in places]
                differ = guest.memories()[name].load(where) != other.memories()[name].load(where)
                if name in storage and owns is not None:  # a cell that is there
                    differ = differ & ~owns(guest, private, self.technique.guest_address(private, where))
                apart.append(differ & self.technique.has_cell(guest, name, where))
            return all_of([*self.ok(other, private), *alike]) & any_of(apart)

        return self._once(A4, "two guests of which the same is noted have one image", wrong, other, exact=False)

    def _home(self, name: str, private: S, cell: Word) -> Word:
        return self.technique.guest_cell(private, name, cell)

    def _control(self) -> Premise[S]:
        other = self.noted(self.guest, "'")
        guests = [
            name
            for name in self.technique.owned
            if name not in self.guest.memories() and self.image[name].term is self.guest[name].term
        ]

        def wrong(guest: S, private: S, other: S) -> Word:
            mine, theirs = self.technique.map(guest, private), self.technique.map(other, private)
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
                    apart.append(owns(guest, private, where) & (a.load(where) != b.load(where)))
            return all_of(self.ok(other, private)) & any_of(apart)

        how = "what the control program owns depends on more of the guest than it notes"
        return self._once(A5, how, wrong, other)

    def _vector(self) -> Premise[S]:
        technique = self.technique
        owns, entered, address = technique.owns_address, technique.entered, technique.entry_address
        if owns is None or entered is None or address is None:
            return Premise(A5_VECTOR, "", Truth.NOT_ASKED, "traps only: where they go the machine does not say")
        after = self.machine.state.symbolic(" after")

        def wrong(guest: S, private: S, after: S) -> Word:
            here = self.machine.supervisor(after) & self.machine.invariant(after) & entered(private, after)
            flat = after["cs.base"] == 0 if "cs.base" in after.words() else TRUE
            return here & flat & ~owns(guest, private, address(after))

        return self._once(A5_VECTOR, "an entry lies in storage that is not the control program's", wrong, after)

    def _once(
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
        answer, _, _ = question.ask(self.effort)
        evidence = evidence_of(question, answer)
        if answer is not Answer.SAT:
            truth = Truth.YES if answer is Answer.UNSAT else Truth.UNKNOWN
            return Premise(name, "", truth, "" if truth is Truth.YES else "no answer within the bounds", evidence)
        states = plainest(self.machine, question, (self.guest, self.private, *others), self.effort)
        if not states:
            return Premise(name, "", Truth.UNKNOWN, how, evidence)
        if not exact:
            guest, private, other = states
            images = [self.technique.map(one, private) for one in (guest, other)]
            seen = [d for d in differences(*images) if d.name not in self.clocks]
            if seen or not differences(guest, other):
                return Premise(name, "", Truth.UNKNOWN, f"it was not found whether {how}", evidence)
        reset = self.machine.state.reset()
        shown = [{d.name: hex(d.after) for d in differences(reset, state)} for state in states]
        return Premise(name, "", Truth.NO, how, evidence, lambda: {"story": how, "states": shown})

    # -- per form -----------------------------------------------------------------------------

    def of(self, instruction: Instruction, general: Run[S]) -> list[Premise[S]]:
        """The premises of one form.

        Args:
            general: every path of it.
        """
        self._note(instruction, general)
        form = _Form(self, instruction, general)
        fidelity = form.premise(A1, form.unfaithful())
        hybrid = attrs.evolve(fidelity, name=A10)
        if fidelity.truth is not Truth.YES:
            user = self.machine.user(self.guest)
            hybrid = form.premise(A10, (attrs.evolve(way, also=way.also & user) for way in form.unfaithful()))
        return [
            fidelity,
            hybrid,
            form.premise(A1S, form.silent()),
            form.premise(A3_NEXT, form.no_guest_next()),
            form.premise(A3_TRAP, form.no_guest_trapped())
            if self.machine.deliver is not None
            else Premise(A3_TRAP, instruction.form, Truth.NOT_ASKED, "the machine does not say how a trap is delivered"),
            *form.traps(),
            form.premise(A8, form.needless()),
            form.premise(A9, form.reads_a_clock()),
        ]

    def delivered(
        self, before: S, conditions: Sequence[Term], trap: Trap[S]
    ) -> list[tuple[tuple[Term, ...], S | None]]:
        """The states after the guest's own hardware has delivered a trap, and when; None where it is not modelled.

        Where the hardware cannot deliver it, there is no state after it.

        Raises:
            PathBudgetError: too many ways.
        """
        deliver = self.machine.deliver
        if deliver is None:
            return []

        def run() -> tuple[S | None, bool]:
            try:
                return deliver(before, trap), True
            except Fault:  # a trap while a trap is delivered: the machine stops
                return None, False
            except NotModelledError:
                return None, True

        paths = explore(run, Pruner(self.effort), assume=[Word(1, term) for term in conditions], budget=200)
        return [((*conditions, *path.conditions), path.result[0]) for path in paths if path.result[1]]

    def _note(self, instruction: Instruction, general: Run[S]) -> None:
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
                self._changed |= {name for name, word in after.words().items() if word.term is not before[name].term}

    def unexplored(self, instruction: Instruction, why: str) -> list[Premise[S]]:
        """The premises of a form that has too many paths: unknown."""
        return [
            Premise(name, instruction.form, Truth.UNKNOWN, why)
            for name in (A1, A10, A1S, A3_NEXT, A3_TRAP, A4, A5, A8, A9)
        ]


class _Form(Generic[S]):
    """One form on S and on f(S, P)."""

    def __init__(self, premises: Premises[S], instruction: Instruction, general: Run[S]) -> None:
        self._p, self._instruction, self._general = premises, instruction, general
        self._native = general.at(premises.guest)
        self._hardware = general.at(premises.image)
        self._valid = instruction.valid(general.operands)
        self._ask = Asker(premises.effort, [*premises.okay, self._valid])

    @cached_property
    def _ends(self) -> list[tuple[tuple[Term, ...], S]]:
        """How the run on the hardware completes: not where it goes in at an entry of the control program's."""
        p, found = self._p, []
        for conditions, after in self._hardware.completions():
            over = handed_over(p.machine, p.technique, self._hardware.before, after, p.private)
            given = (*conditions, (~over).term)
            if all(Word(1, term).value != 0 for term in given) and self._possible(given) is not Answer.UNSAT:
                found.append((given, after))
        return found

    def _possible(self, given: Sequence[Term], *also: Word) -> Answer:
        return self._ask.first([[conjunction(given), *also]], rlimit=WAY)

    def unfaithful(self) -> Iterator[_Way]:
        p = self._p
        expected = [(c, p.technique.map(after, p.private)) for c, after in self._native.completions()]
        for case in differing(together(self._ends, expected), ignoring=frozenset(), time_is_state=False):
            how = "completes on the hardware elsewhere than in the image of where the guest's own machine completes"
            yield _Way(how, case.given, any_of(case.unlike.values()))
        for conditions, after in self._native.completions():
            changed = any_of((*self._changed(p.guest, after, p.technique.shadowed), *self._shadowed_cells(after)))
            if changed.value != 0:
                for others, _ in self._ends:
                    how = "completes on the hardware, and changes natively what the control program notes"
                    yield _Way(how, (*others, *conditions), changed)
        for path in self._native.paths:
            if isinstance(path.result, Trap):
                for others, _ in self._ends:
                    how = f"completes on the hardware where the guest's own machine raises {path.result.vector}"
                    yield _Way(how, (*others, *path.conditions), TRUE)

    def _changed(self, before: S, after: S, names: Sequence[str]) -> Iterator[Word]:
        for name in names:
            if name in self._p.clocks:
                continue
            if name in before.memories():
                old, new = before.memories()[name], after.memories()[name]
                if old is not new:
                    where = probe(old, f"{PROBE} in {name}")
                    yield old.load(where) != new.load(where)
            elif before[name].term is not after[name].term:
                yield before[name] != after[name]

    def _shadowed_cells(self, after: S) -> Iterator[Word]:
        shadows, guest = self._p.technique.shadows_address, self._p.guest
        for slot in guest.layout if shadows is not None else ():
            if shadows is not None and slot.address and slot.role is Role.MEMORY:
                old, new = guest.memories()[slot.name], after.memories()[slot.name]
                if old is not new:
                    where = probe(old, f"{PROBE} in {slot.name}")
                    yield shadows(guest, where) & (old.load(where) != new.load(where))

    def silent(self) -> Iterator[_Way]:
        how = "the model does not say what it does on the hardware"
        yield _Way(how, (), self._hardware.not_modelled, silent=True)
        ends = any_of(conjunction(given) for given, _ in self._ends)
        how = "completes where the model does not say what it does natively"
        yield _Way(how, (), ends & self._native.not_modelled, silent=True)

    def no_guest_next(self) -> Iterator[_Way]:
        p = self._p
        for conditions, after in self._native.completions():
            if after is not p.guest:
                how = "what it makes of a guest is no guest any more"
                yield _Way(how, conditions, ~all_of(p.ok(after, p.private)), hardware=False)

    def no_guest_trapped(self) -> Iterator[_Way]:
        p = self._p
        for path in self._native.paths:
            if isinstance(path.result, Trap):
                how = f"what {path.result.vector} makes of a guest is no guest any more"
                for conditions, after in p.delivered(p.guest, path.conditions, path.result):
                    if after is None:
                        yield _Way(f"the delivery of {path.result.vector} is not modelled", conditions, TRUE, silent=True)
                    else:
                        yield _Way(how, conditions, ~all_of(p.ok(after, p.private)), hardware=False)

    def needless(self) -> Iterator[_Way]:
        p, image = self._p, self._hardware.before
        stops = [path.conditions for path in self._hardware.paths if isinstance(path.result, Trap)]
        for conditions, after in self._hardware.completions():
            over = handed_over(p.machine, p.technique, image, after, p.private)
            if over.value != 0:
                stops.append((*conditions, over.term))
        for (conditions, _), others in itertools.product(self._native.completions(), stops):
            yield _Way("completes natively and traps on the hardware", (*others, *conditions), TRUE)

    def reads_a_clock(self) -> Iterator[_Way]:
        p = self._p
        fresh = {n: symbol(n + "'", p.guest[n].width) for n in p.clocks if not p.guest[n].concrete}
        if not fresh:
            return
        other = self._general.at(p.guest.with_changes(dict(fresh)))
        pairs = together(list(self._native.completions()), list(other.completions()))
        for case in differing(pairs, ignoring=p.clocks, time_is_state=True):
            how = "does something else where a clock shows another time"
            yield _Way(how, case.given, any_of(case.unlike.values()), hardware=False, states=(other.before,))
        for conditions, _ in self._native.completions():
            how = "completes or not as a clock says"
            yield _Way(how, conditions, other.traps, hardware=False, states=(other.before,))

    def traps(self) -> list[Premise[S]]:
        """What a trap leaves: nothing that hides the guest (A4), nothing of the control program's (A5)."""
        found = []
        lost, taken = self._p.keeper.traps(self._instruction, self._general)
        for name, promise in ((A4, lost), (A5, taken)):
            truth = promise.kept
            made = None
            if truth is Truth.NO:
                made = lambda promise=promise: None if promise.witness is None else promise.witness.to_json()  # noqa: E731
            found.append(Premise(name, self._instruction.form, truth, promise.how, promise.evidence, made))
        return found

    # -- asking -------------------------------------------------------------------------------

    def premise(self, name: str, ways: Iterator[_Way]) -> Premise[S]:
        """The premise holds where no way is possible."""
        p, form = self._p, self._instruction.form
        title = f"{p.machine.name}: {form} violates {name} under {p.technique.name}"
        asked: list[Word] = []
        unknown = ""
        for way in ways:
            if way.also.value == 0 or any(Word(1, term).value == 0 for term in way.given):
                continue
            answer = self._possible(way.given, way.also)
            question = Question(title, [*p.okay, self._valid, *way.conditions])
            if answer is Answer.SAT and way.silent:
                unknown = unknown or way.how
                continue
            if answer is Answer.SAT:
                make = lambda way=way, question=question: self._witness(name, way, question)  # noqa: E731
                return Premise(name, form, Truth.NO, way.how, evidence_of(question, answer), make)
            unknown = unknown or (way.how if answer is Answer.UNKNOWN else "")
            asked.append(conjunction(way.given) & way.also)
        question = Question(title, [*p.okay, self._valid, any_of(asked)])
        answer = Answer.UNKNOWN if unknown else Answer.UNSAT
        truth = Truth.UNKNOWN if unknown else Truth.YES
        return Premise(name, form, truth, unknown, evidence_of(question, answer))

    def _witness(self, name: str, way: _Way, question: Question) -> dict[str, Any] | None:
        p, instruction = self._p, self._instruction
        answer, model, solver = question.ask(p.effort)
        if answer is not Answer.SAT or model is None or solver is None:
            return None
        starts = [p.guest, p.private, *way.states]
        probes = {n: probe(c, f"{PROBE} in {n}").term for n, c in p.guest.memories().items()}
        found = find_minimal(p.machine, instruction, question, solver, model, starts, probes)
        guest, private, *others = found.states
        assert_within(p.machine, instruction, name, what_is_a_guest=all_of(p.ok(guest, private)))
        native = execute(p.machine, instruction, "on the guest's own machine", guest, found.operands)
        second: Executed[S] | None = None
        if way.hardware:
            image = p.technique.map(guest, private)
            second = execute(p.machine, instruction, "on the hardware", image, found.operands)
            differ = differences(image, second.outcome.state, found.addresses) if isinstance(second.outcome, Next) else ()
            if isinstance(native.outcome, Next) and isinstance(second.outcome, Next):
                expected = p.technique.map(native.outcome.state, private)
                unlike = differences(expected, second.outcome.state, found.addresses)
                differ = tuple(d for d in unlike if d.name not in p.clocks) or native.changes
            fails = isinstance(second.outcome, Next) and (isinstance(native.outcome, Trap) or bool(differ))
            if name == A8:
                fails = isinstance(native.outcome, Next) and not isinstance(second.outcome, Next)
                fails = fails or isinstance(second.outcome, Next)  # it went in at an entry
        elif others:
            second = execute(p.machine, instruction, "at another time", others[0], found.operands)
            ends = [run.outcome.state for run in (native, second) if isinstance(run.outcome, Next)]
            differ = differences(*ends, found.addresses) if len(ends) == 2 else ()
            differ = tuple(d for d in differ if d.name not in p.clocks)
            fails = len(ends) < 2 or bool(differ)
        else:
            outcome = native.outcome
            after = getattr(outcome, "state", guest)
            if isinstance(outcome, Trap) and p.machine.deliver is not None:
                after = p.machine.deliver(guest, outcome)
            differ = differences(guest, after, found.addresses)
            fails = all_of(p.ok(after, private)).value == 0
        assert_replay(fails, instruction, name, [r.describe() for r in (native, second) if r is not None])
        return Counterexample(
            name,
            way.how[0].upper() + way.how[1:] + ".",
            instruction,
            instruction.assembly(found.operands),
            differences(p.machine.state.reset(), guest),
            native,
            second,
            differ,
        ).to_json()


def holds_all(premises: Sequence[Premise[Any]], names: Sequence[str]) -> Truth:
    """Whether the premises of these names hold, of those that were asked."""
    answers = [p.truth for p in premises if p.name in names and p.truth is not Truth.NOT_ASKED]
    if Truth.NO in answers:
        return Truth.NO
    return Truth.UNKNOWN if Truth.UNKNOWN in answers else Truth.YES


__all__ = ["THEOREM1", "THEOREM2", "THEOREM3", "TITLES", "Premise", "Premises", "holds_all"]
