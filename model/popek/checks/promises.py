"""What a technique promises, per instruction: fidelity, safety, efficiency.

With G any guest state, P whatever the VMM keeps for itself, and f the technique's map, the hardware is in
f(G, P).  There, a run that traps reaches the VMM (unless the technique has the trap go to the guest), and so does one
that goes in at an entry of the VMM's, as the technique declares them.  Any other run must keep these promises:

* *Fidelity* is broken when it ends elsewhere than in f(i(G), P); or i changes natively what the VMM keeps for
  the guest in its own memory; or the instruction would have trapped on the guest's own machine; or it ends in a
  trap that goes to the guest, and the guest's own machine does not trap so.
* *Safety* is broken when it changes something that the VMM owns, or ends in a supervisor mode; or when, with another
  P and the same G, its result is another.

A run that traps must leave alone what the VMM owns, too (safety).  What else it changed before it trapped must be what
the guest's own machine changes with the same trap, or the VMM must be able to tell where the guest was (fidelity).
Time is left out, as in the paper: the guest's clock is the real one, unless time is state.

Efficiency is another kind of promise: it lists the *needless traps*, runs of an innocuous instruction
that complete natively and trap on the hardware for another reason than a storage reference.

Settings of a configuration speak of the hardware.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.configuration import Configuration
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.program import Line
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.technique import Technique
from popek.kernel.terms import Term
from popek.kernel.words import FALSE, TRUE, Word, all_of, any_of, symbol
from popek.solving.asking import Asker
from popek.solving.solver import Answer, Effort

from .counterexample import (
    Counterexample,
    Executed,
    ReplayError,
    assert_replay,
    assert_within,
    differences,
    execute,
)
from .obligation import Breach, Kind, Obligation, arranged, private_of
from .runs import (
    PROBE,
    Completion,
    Run,
    conjunction,
    differing,
    explore_instruction,
    handed_over,
    probe,
    together,
)
from .verdict import Evidence, Question, Status, Truth, evidence_of
from .witness import find_minimal

S = TypeVar("S", bound=State)

# Solver resources for one way to break a promise.
BREACH = 4_000_000

OF_THE_VMM = "@vmm"
ANOTHER = "@vmm'"
ANOTHER_GUEST = "'"


@attrs.frozen(eq=False, slots=False)
class Promise(Generic[S]):
    """Whether one promise is kept.

    Attributes:
        status: holds, refuted or unknown.
        evidence: what was asked and answered.
        how: where it is refuted, the way in which it is broken.
    """

    status: Status
    evidence: Evidence
    how: str = ""
    _make_witness: Callable[[], Counterexample[S] | None] | None = None

    @cached_property
    def witness(self) -> Counterexample[S] | None:
        """The counterexample, where it is refuted: found, made minimal and replayed when asked for.

        None too where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        return None if self._make_witness is None else self._make_witness()

    @property
    def kept(self) -> Truth:
        """As an answer to "is it kept?"."""
        return {Status.HOLDS: Truth.YES, Status.REFUTED: Truth.NO, Status.UNKNOWN: Truth.UNKNOWN}[self.status]


@attrs.frozen(eq=False)
class Promises(Generic[S]):
    """The promises about one instruction form.

    Attributes:
        instruction: the form.
        fidelity, safety: kept or not.
        needless_trap: it can complete natively and trap on the hardware.
        needless: what was asked and answered about that.
    """

    instruction: Instruction
    fidelity: Promise[S]
    safety: Promise[S]
    needless_trap: Truth
    needless: Evidence


class Keeper(Generic[S]):
    """Asks whether a technique keeps its promises on a machine under a configuration.

    Args:
        machine: what is virtualized.
        technique: how.
        configuration: the hardware's settings.
        effort: bounds, and the tally of solver time.
        time_is_state: clocks count.
    """

    def __init__(
        self,
        machine: Machine[S],
        technique: Technique[S],
        configuration: Configuration,
        *,
        effort: Effort | None = None,
        time_is_state: bool = False,
    ) -> None:
        self.machine, self.technique, self.configuration = machine, technique, configuration
        self.effort, self.time_is_state = effort or Effort(), time_is_state

    def keeps(self, instruction: Instruction, run: Run[S] | None = None) -> Promises[S]:
        """Whether the promises are kept for one form.

        Raises:
            PathBudgetError: too many paths.
        """
        general = run
        if general is None:
            general = explore_instruction(
                self.machine, instruction, self.effort, configuration=self.configuration
            )
        questions = _Promises(self, instruction, general)
        return Promises(
            instruction,
            questions.promise("fidelity", questions.fidelity()),
            questions.promise("safety", questions.safety()),
            *questions.needless_trap(),
        )

    def needless_trap(self, instruction: Instruction, run: Run[S] | None = None) -> Truth:
        """Whether a form can complete natively and trap on the hardware, storage references aside.

        Raises:
            PathBudgetError: too many paths.
        """
        general = run
        if general is None:
            general = explore_instruction(
                self.machine, instruction, self.effort, configuration=self.configuration
            )
        return _Promises(self, instruction, general).needless_trap()[0]

    def safety(self, instruction: Instruction, run: Run[S]) -> Promise[S]:
        """Whether safety is kept for one form."""
        questions = _Promises(self, instruction, run)
        return questions.promise("safety", questions.safety())

    def traps(self, instruction: Instruction, run: Run[S]) -> tuple[Promise[S], Promise[S]]:
        """Whether traps of one form leave the VMM able to tell where the guest was; and the form what it owns alone."""
        questions = _Promises(self, instruction, run)
        return (
            questions.promise("what a trap tells", questions.lost_before_a_trap()),
            questions.promise("what it leaves alone", questions.changes()),
        )

    def secrecy(self, instruction: Instruction, run: Run[S]) -> Promise[S]:
        """Whether the result of one form depends on nothing that the VMM keeps: one half of safety."""
        questions = _Promises(self, instruction, run)
        return questions.promise("secrecy", questions.shows())


class _Promises(Generic[S]):
    """The questions about one form."""

    def __init__(self, keeper: Keeper[S], instruction: Instruction, general: Run[S]) -> None:
        self._machine, self._technique = keeper.machine, keeper.technique
        self._instruction, self._general, self._keeper = instruction, general, keeper
        self._guest = general.before
        self._native = general
        private = private_of(self._machine, self._technique, keeper.configuration)
        self._time, clocks = keeper.time_is_state, leaves_with(self._machine.state, [Role.TIME])
        shared = {} if self._time else {leaf.name: self._guest[leaf.name] for leaf in clocks}
        self._private = private.with_changes(shared)
        self._hardware, assumed = self._arranged(self._private)
        self._assumed = [
            self._technique.guest(self._guest),
            self._machine.invariant(self._guest),
            instruction.valid(general.operands),
            *assumed,
        ]
        self._due = Obligation(
            self._machine,
            self._technique,
            instruction,
            self._native,
            self._hardware,
            self._private,
            time_is_state=self._time,
        )
        self._ruled_out: list[Word] = []  # ways on the hardware that cannot be taken: part of what was asked
        self._ask = Asker(keeper.effort, self._assumed)

    def _arranged(self, private: S) -> tuple[Run[S], list[Word]]:
        """The run on the hardware with what the VMM keeps for itself, and what is known about it."""
        configuration = self._keeper.configuration
        return arranged(self._machine, self._technique, configuration, self._general, self._guest, private)

    def _another_private(self) -> S:
        """The VMM may keep other values everywhere, but for settings."""
        private = self._private
        leaves = [
            leaf
            for leaf in private.leaves
            if not private[leaf.name].concrete and (self._time or leaf.role is not Role.TIME)
        ]
        changed = private.with_changes(
            {leaf.name: symbol(leaf.name + ANOTHER, leaf.width) for leaf in leaves}
        )
        return changed.with_contents({name: name + ANOTHER for name in private.memories()})

    @cached_property
    def _silent_ends(self) -> list[Completion[S]]:
        """Of the run on the hardware, asked once for all promises."""
        return self._untrapped(self._hardware, self._private)

    def _untrapped(self, run: Run[S], private: S) -> list[Completion[S]]:
        """The runs on the hardware that complete and do not reach the VMM."""
        found = []
        for conditions, after in run.completions():
            over = handed_over(self._machine, self._technique, run.before, after, private)
            given = (*conditions, (~over).term)
            # Most of the ways through a far transfer cannot be taken from where the technique puts the guest.
            shown = Breach(Kind.UNLIKE, "", given, TRUE).conditions
            if shown and self._ask.first([shown], rlimit=BREACH) is not Answer.UNSAT:
                found.append((given, after))
            else:
                self._ruled_out.append(conjunction(given))
        return found

    # -- the ways to break a promise ----------------------------------------------------------

    def fidelity(self) -> Iterator[Breach]:
        """Silent where the guest expects a trap; another result; a change the VMM never learns of."""
        yield from self._due.unlike(self._silent_ends)
        yield from self._due.faults()
        yield from self.lost_before_a_trap()

    def lost_before_a_trap(self) -> Iterator[Breach]:
        """What a run changed before it trapped: the guest's own machine does not, and the VMM cannot tell what was."""
        for conditions, trap, changed in self._dirty_traps:
            if self._due.elsewhere(trap) or not changed:
                continue
            another = self._another_guest(changed)
            there = self._general.at(self._technique.map(another, self._private))
            assumed = [
                *self._cells_that_are_there(changed),
                self._technique.guest(another),
                self._machine.invariant(another),
                self._technique.private(another, self._private),
                self._machine.invariant(there.before),
                self._keeper.configuration.holds(
                    self._machine, there.before, mentioned=self._general.mentioned
                ),
            ]
            reflected = FALSE  # the guest's own machine traps so, and leaves just this
            for path in self._native.paths:
                native = path.result
                if isinstance(native, Trap) and native.vector == trap.vector:
                    mapped = self._technique.map(native.state, self._private)
                    apart = any_of(self._apart(trap.state, mapped, look="on the hardware"))
                    same = path.condition & _same_code(trap, native)
                    together = [Word(1, conjunction(conditions).term), same, apart]
                    if self._ask.first([together], rlimit=BREACH) is not Answer.UNSAT:
                        same = same & ~apart
                    reflected = reflected | same
            alone = [conjunction(conditions), ~reflected]
            if self._ask.first([alone], rlimit=BREACH) is Answer.UNSAT:
                self._ruled_out.append(alone[0] & alone[1])
                continue
            apart = self._unlike_natively(self._general.at(another))
            for path in there.paths:
                other = path.result
                if isinstance(other, Trap) and (other.vector, other.level) == (trap.vector, trap.level):
                    alike = ~any_of(self._apart(trap.state, other.state, everywhere=True))
                    yield Breach(
                        Kind.LOSES,
                        f"raises {trap.vector} and has changed what the VMM needs to go on with the guest",
                        (*conditions, *path.conditions, *(a.term for a in assumed)),
                        alike & _same_code(trap, other) & ~reflected & apart,
                        other=another,
                    )

    def _unlike_natively(self, other: Run[S]) -> Word:
        """The guest's own machine does something else from another guest (width 1); storage traps are left aside."""
        unlike = []
        for mine, theirs in itertools.product(self._native.paths, other.paths):
            a, b = mine.result, theirs.result
            differ = TRUE
            if any(isinstance(one, Trap) and one.memory for one in (a, b)):
                continue
            if isinstance(a, Next) and isinstance(b, Next):
                differ = any_of(self._apart(a.state, b.state, look="natively", there=True))
            elif isinstance(a, Trap) and isinstance(b, Trap) and a.vector == b.vector:
                apart = self._apart(a.state, b.state, look="natively", there=True)
                differ = ~_same_code(a, b) | any_of(apart)
            elif isinstance(a, NotModelled) or isinstance(b, NotModelled):
                continue
            unlike.append(mine.condition & theirs.condition & differ)
        return any_of(unlike)

    @cached_property
    def _dirty_traps(self) -> list[tuple[tuple[Term, ...], Trap[S], tuple[str, ...]]]:
        """Traps on the hardware that leave other than the state before: conditions, trap, and what may be lost."""
        found = []
        before = self._hardware.before
        for path in self._hardware.paths:
            trap = path.result
            if not isinstance(trap, Trap) or trap.state is before:
                continue
            shown = Breach(Kind.UNLIKE, "", path.conditions, TRUE).conditions
            if shown and self._ask.first([shown], rlimit=BREACH) is not Answer.UNSAT:
                found.append((path.conditions, trap, _overwritten(before, trap.state)))
        return found

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
                guest[name] = self._guest[name]
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

    def safety(self) -> Iterator[Breach]:
        """The VMM's components or storage change; or they show in the result."""
        yield from self.changes()
        yield from self.shows()

    def changes(self) -> Iterator[Breach]:
        """The VMM's components or storage change."""
        before = self._hardware.before
        yield from self._due.changes(self._silent_ends)
        for conditions, after in self._silent_ends:
            yield Breach(
                Kind.CHANGES,
                "leaves the deprivileged mode, and not for an entry of the VMM's",
                conditions,
                self._machine.supervisor(after) & ~self._machine.supervisor(before),
            )
        yield from self.changed_before_a_trap()

    def changed_before_a_trap(self) -> Iterator[Breach]:
        """A run that traps has changed the VMM's components or storage."""
        before = self._hardware.before
        owned = frozenset(self._technique.owned) - frozenset(self._technique.delivered)
        for conditions, trap, _ in self._dirty_traps:
            how = f"raises {trap.vector} and has changed what the VMM owns"
            yield Breach(Kind.CHANGES, how, conditions, self._due.changed(before, trap.state, owned))
            for changed in self._due.own_cells(before, trap.state):
                yield Breach(Kind.CHANGES, how, conditions, changed)

    def shows(self) -> Iterator[Breach]:
        """With another P the result is another."""
        another = self._another_private()
        other, assumed = self._arranged(another)
        ours = [(c, self._due.seen(after, [self._private, another])) for c, after in self._silent_ends]
        theirs = [
            (c, self._due.seen(after, [another, self._private]))
            for c, after in self._untrapped(other, another)
        ]
        ignoring = self._private_parts
        for case in differing(together(ours, theirs), ignoring=ignoring, time_is_state=self._time):
            yield Breach(
                Kind.SHOWS,
                "its result shows what the VMM owns",
                (*case.given, *(a.term for a in assumed)),
                any_of(case.unlike.values()),
                tuple(case.unlike.values()),
                another,
            )

    @cached_property
    def _private_parts(self) -> frozenset[str]:
        """What the VMM owns or arranges: leaves of the hardware's state that do not come from the guest."""
        hardware = self._hardware.before
        arranged = {
            leaf.name
            for leaf in hardware.leaves
            if any(name.endswith(OF_THE_VMM) for name in terms.variables_of([hardware[leaf.name].term]))
        }
        return frozenset(arranged | set(self._technique.owned))

    def needless_trap(self) -> tuple[Truth, Evidence]:
        """Whether it can complete natively and trap on the hardware, storage references aside."""
        alternatives = [
            (conjunction(path.conditions), conjunction(conditions))
            for path in self._hardware.paths
            if isinstance(path.result, Trap) and not path.result.memory
            for conditions, _ in self._native.completions()
        ]
        answer = self._ask.first(alternatives)
        title = (
            f"{self._machine.name}: {self._instruction.form} traps needlessly under {self._technique.name}"
        )
        question = Question(title, lambda: [*self._assumed, any_of(map(all_of, alternatives))])
        truth = {Answer.SAT: Truth.YES, Answer.UNSAT: Truth.NO, Answer.UNKNOWN: Truth.UNKNOWN}[answer]
        return truth, evidence_of(question, answer)

    # -- verdicts -----------------------------------------------------------------------------

    def promise(self, name: str, breaches: Iterator[Breach]) -> Promise[S]:
        """Look for a breach; the question that is recorded is that of the breach, or of all of them."""
        title = f"{self._machine.name}: {self._instruction.form} breaks {name} under {self._technique.name}"
        asked: list[Word] = []
        unknown = False
        for breach in breaches:
            answer = self._possible(breach)
            if answer is Answer.UNKNOWN and breach.parts:
                pieces = [attrs.evolve(breach, also=part, parts=()) for part in breach.parts]
                answers = {piece: self._possible(piece) for piece in pieces}
                answer = Answer.UNKNOWN if Answer.UNKNOWN in answers.values() else Answer.UNSAT
                found = [piece for piece in pieces if answers[piece] is Answer.SAT]
                breach, answer = (found[0], Answer.SAT) if found else (breach, answer)
            if answer is Answer.SAT:
                question = Question(title, [*self._assumed, *self._within(breach), *breach.conditions])
                witness = partial(self._witness, breach, question)
                return Promise(Status.REFUTED, evidence_of(question, answer), breach.how, witness)
            unknown = unknown or answer is Answer.UNKNOWN
            if breach.conditions:
                asked.append(conjunction(condition.term for condition in breach.conditions))
        question = Question(title, [*self._assumed, any_of([*asked, *self._ruled_out])])
        answer = Answer.UNKNOWN if unknown else Answer.UNSAT
        silent = [(self._hardware.not_modelled,), (self._native.not_modelled, self._silent())]
        gap = self._ask.first(silent)
        if unknown or gap is not Answer.UNSAT:
            return Promise(Status.UNKNOWN, evidence_of(question, answer), "" if unknown else "not modelled")
        open_ones = Question(
            f"{title}, where it is not modelled", [*self._assumed, any_of(map(all_of, silent))]
        )
        return Promise(Status.HOLDS, evidence_of(question, answer, [open_ones]))

    def _possible(self, breach: Breach) -> Answer:
        return self._ask.first([breach.conditions] if breach.conditions else [], rlimit=BREACH)

    def _within(self, breach: Breach) -> list[Word]:
        """The settings that the runs do not depend on: a witness has them all the same."""
        images = [self._hardware.before]
        if breach.kind is Kind.SHOWS:
            images.append(self._technique.map(self._guest, breach.other))
        elif breach.kind is Kind.LOSES:
            images.append(self._technique.map(breach.other, self._private))
        return [self._keeper.configuration.holds(self._machine, image) for image in images]

    def _assert_within(self, breach: Breach, guest: S, private: S) -> None:
        image = self._technique.map(guest, private)
        assert_within(
            self._machine,
            self._instruction,
            breach.how,
            the_invariant=self._machine.invariant(guest) & self._machine.invariant(image),
            what_is_a_guest=self._technique.guest(guest),
            what_the_VMM_promises=self._technique.private(guest, private),
            the_configuration=self._keeper.configuration.holds(self._machine, image),
        )

    def _silent(self) -> Word:
        """It does not reach the VMM (width 1)."""
        faults = [
            path.condition
            for path in self._hardware.paths
            if isinstance(path.result, Trap) and self._due.elsewhere(path.result)
        ]
        return any_of([*(conjunction(conditions) for conditions, _ in self._silent_ends), *faults])

    def _witness(self, breach: Breach, question: Question) -> Counterexample[S] | None:
        answer, model, solver = question.ask(self._keeper.effort)
        if answer is Answer.UNKNOWN:  # there is one, and no time to find it again
            return None
        if model is None or solver is None:
            raise ReplayError(f"{question.name}: was satisfiable and is no more")
        machine, instruction, technique = self._machine, self._instruction, self._technique
        two = breach.kind in (Kind.SHOWS, Kind.LOSES)
        symbolic = [self._guest, self._private, *([breach.other] if two else [])]
        probes = {n: probe(c, f"{PROBE} in {n}").term for n, c in self._guest.memories().items()}
        found = find_minimal(machine, instruction, question, solver, model, symbolic, probes)
        guest, private, *others = found.states
        self._assert_within(breach, guest, private)
        if breach.kind in (Kind.SHOWS, Kind.LOSES):
            self._assert_within(
                breach, *((guest, others[0]) if breach.kind is Kind.SHOWS else (others[0], private))
            )
        on_hardware = execute(
            machine, instruction, "on the hardware", technique.map(guest, private), found.operands
        )
        if breach.kind is Kind.SHOWS:
            second = execute(
                machine,
                instruction,
                "with another VMM state",
                technique.map(guest, others[0]),
                found.operands,
            )
            runs: tuple[Executed[S], Executed[S] | None] = (on_hardware, second)
            mine, theirs = _after(on_hardware, breach.how), _after(second, breach.how)
            differ = tuple(
                d
                for d in differences(
                    self._due.seen(mine, [private, others[0]], guest),
                    self._due.seen(theirs, [others[0], private], guest),
                    found.addresses,
                )
                if d.name not in self._private_parts
            )
        elif breach.kind is Kind.LOSES:
            second = execute(
                machine, instruction, "with another guest", technique.map(others[0], private), found.operands
            )
            runs = (on_hardware, second)
            natives = [
                machine.step(instruction, one, Line(instruction, found.operands).words)
                for one in (guest, others[0])
            ]
            differ = differences(guest, others[0], found.addresses)
            ends = [run.outcome.state for run in runs if isinstance(run.outcome, Trap)]
            alike = _same_trap(on_hardware.outcome, second.outcome) and not differences(
                ends[0], ends[1], found.addresses
            )
            if not alike or _same_outcome(*natives):
                differ = ()
        elif breach.kind is Kind.CHANGES:
            runs = (on_hardware, None)
            after = _ended(on_hardware, breach.how)
            differ = differences(on_hardware.before, after, found.addresses)
        elif breach.kind is Kind.FAULTS:
            native = execute(machine, instruction, "on the guest's own machine", guest, found.operands)
            runs, differ = (native, on_hardware), native.changes
        else:
            native = execute(machine, instruction, "on the guest's own machine", guest, found.operands)
            runs = (native, on_hardware)
            after = _after(on_hardware, breach.how)
            differ = ()
            if isinstance(native.outcome, Next):
                expected = self._due.expected(native.outcome.state, private, guest)
                seen = self._due.seen(after, [private], guest)
                if technique.settled:
                    expected, seen = technique.map(native.outcome.state, after), after
                differ = differences(expected, seen, found.addresses)
                differ = tuple(d for d in differ if d.name not in (technique.uncompared or ()))
                differ = differ or native.changes
        shown = bool(differ) or (breach.kind is Kind.UNLIKE and isinstance(runs[0].outcome, Trap))
        if breach.kind is Kind.FAULTS:
            same = self._due.same_trap(native.outcome, on_hardware.outcome)
            shown = isinstance(on_hardware.outcome, Trap) and not same
        assert_replay(shown, instruction, breach.how, [run.describe() for run in runs if run is not None])
        return Counterexample(
            breach.how,
            breach.how[0].upper() + breach.how[1:] + ".",
            instruction,
            instruction.assembly(found.operands),
            differences(machine.state.reset(), guest),
            *runs,
            differ,
        )


CELLS = 3


def _places(name: str, content: Memory) -> Iterator[Word]:
    """The addresses at which another guest's memory may differ; the first is where all questions look."""
    for place in range(CELLS):
        yield probe(content, f"{PROBE} in {name}" + (f" ({place})" if place else ""))


def _same_code(a: Trap[S], b: Trap[S]) -> Word:
    """Two traps have the same error code, where both have one (width 1)."""
    return TRUE if a.error_code is None or b.error_code is None else a.error_code == b.error_code


def _overwritten(before: S, after: S) -> tuple[str, ...]:
    """Components and memories of the guest that a run may have lost; none where the old can be told from the new."""
    old, new = before.words(), after.words()
    changed = [name for name in old if old[name].term is not new[name].term]
    stored = [name for name, content in before.memories().items() if content is not after.memories()[name]]
    held = {*terms.variables_of([old[name].term for name in changed]), *stored}
    if not stored and all(_told(old[name].term, new[name].term, held) for name in changed):
        return ()
    return tuple(name for name in (*old, *before.memories()) if name in held)


def _told(old: Term, new: Term, lost: set[str]) -> bool:
    """The new value is the old one and something that depends on nothing that may be lost."""
    added = [terms.arithmetic("sub", new, old)]
    read = {*terms.variables_of(added), *(str(cell.data) for cell in terms.applications_of(added))}
    return lost.isdisjoint(read)


def _same_outcome(a: Outcome[S], b: Outcome[S]) -> bool:
    """Two runs on numbers ended alike."""
    if isinstance(a, NotModelled) or isinstance(b, NotModelled):
        return True
    return (
        type(a) is type(b) and (isinstance(a, Next) or _same_trap(a, b)) and not differences(a.state, b.state)
    )


def _same_trap(a: Outcome[S], b: Outcome[S]) -> bool:
    """Whether both are traps of one vector with one error code, if both have one."""
    if not isinstance(a, Trap) or not isinstance(b, Trap) or (a.vector, a.level) != (b.vector, b.level):
        return False
    return a.error_code is None or b.error_code is None or a.error_code.value == b.error_code.value


def _ended(executed: Executed[S], claim: str) -> S:
    """Where a run ended, by a trap or without one."""
    if isinstance(executed.outcome, Trap):
        return executed.outcome.state
    return _after(executed, claim)


def _after(executed: Executed[S], claim: str) -> S:
    if not isinstance(executed.outcome, Next):
        raise ReplayError(f"the witness for {claim!r} {executed.describe()}")
    return executed.outcome.state
