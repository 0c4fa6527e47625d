"""What a technique promises, per instruction: fidelity, safety, efficiency.

With G any guest state, P whatever the VMM keeps for itself, and f the technique's map, the hardware is in
f(G, P).  There, a run that traps reaches the VMM (unless the technique has the trap go to the guest), and so does one
that ends in a supervisor mode, for the VMM owns every way there.  Any other run must keep these promises:

* *Fidelity* is broken when it ends elsewhere than in f(i(G), P); or i changes natively what the VMM keeps for
  the guest in its own memory; or the instruction would have trapped on the guest's own machine; or it ends in a
  trap that goes to the guest, and the guest's own machine does not trap so.
* *Safety* is broken when it changes something that the VMM owns; or when, with another P and the same G, its
  result is another.

Efficiency is another kind of promise: it lists the *needless traps*, runs of an innocuous instruction
that complete natively and trap on the hardware for another reason than a storage reference.

Settings of a configuration speak of the hardware.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.configuration import Configuration
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, Outcome, Target, Trap, Vector
from popek.kernel.state import Role, State
from popek.kernel.technique import Technique
from popek.kernel.terms import Term
from popek.kernel.words import FALSE, TRUE, Word, any_of, ite, symbol
from popek.solving.asking import Asker
from popek.solving.solver import Answer, Effort

from .counterexample import Counterexample, Executed, ReplayError, assert_replay, differences, execute
from .runs import (
    PROBE,
    Completion,
    Run,
    conjunction,
    differing,
    explore_instruction,
    handed_over,
    operating_mode,
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
    """

    instruction: Instruction
    fidelity: Promise[S]
    safety: Promise[S]
    needless_trap: Truth


class _Kind(enum.Enum):
    """What a breach is about."""

    UNLIKE = "the guest's own machine does something else"
    FAULTS = "the guest's own machine does not fault so"
    CHANGES = "the VMM's things change"
    SHOWS = "the VMM's things show"


@attrs.frozen(slots=False, eq=False)
class _Breach:
    """A way to break a promise: words for it, and conditions that must hold together.

    Attributes:
        parts: where `also` is any of several, each of them: where the whole is too hard, they are asked one by one.
    """

    kind: _Kind
    how: str
    given: tuple[Term, ...]
    also: Word
    parts: tuple[Word, ...] = ()

    @cached_property
    def conditions(self) -> tuple[Word, ...]:
        """The conditions, each simplified by what the earlier ones say; none if they exclude one another."""
        known: dict[Term, Term] = {}
        kept: list[Word] = []
        for condition in (*self.given, self.also.term):
            simple = Word(1, terms.Substitution(known=known)(condition))
            if simple.value == 0:
                return ()
            if not simple.concrete:
                kept.append(simple)
                known |= terms.literals([simple.term])
        return tuple(kept) or (TRUE,)


class Keeper(Generic[S]):
    """Asks whether a technique keeps its promises on a machine under a configuration.

    Args:
        machine: what is virtualized.
        technique: how.
        configuration: the hardware's settings.
        effort: bounds, and the tally of solver time.
    """

    def __init__(
        self,
        machine: Machine[S],
        technique: Technique[S],
        configuration: Configuration,
        *,
        effort: Effort | None = None,
    ) -> None:
        self.machine, self.technique, self.configuration = machine, technique, configuration
        self.effort = effort or Effort()

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
            questions.needless_trap(),
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
        return _Promises(self, instruction, general).needless_trap()

    def safety(self, instruction: Instruction, run: Run[S]) -> Promise[S]:
        """Whether safety is kept for one form."""
        questions = _Promises(self, instruction, run)
        return questions.promise("safety", questions.safety())

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
        private = self._machine.state.symbolic(OF_THE_VMM)
        settings, owned = keeper.configuration.settings, set(self._technique.owned)
        fixed = {
            a.leaf: settings[a.name] for a in self._machine.settings if a.name in settings and a.leaf in owned
        }
        mode = operating_mode(self._machine, keeper.configuration)
        fixed |= {leaf: value for leaf, value in mode.items() if leaf in owned}
        self._private = private.with_changes({str(leaf): value for leaf, value in fixed.items()})
        self._hardware, assumed = self._arranged(self._private)
        self._assumed = [
            self._technique.guest(self._guest),
            self._machine.invariant(self._guest),
            instruction.valid(general.operands),
            *assumed,
        ]
        self._other = self._private  # another P, for the second run of safety
        self._ruled_out: list[Word] = []  # ways on the hardware that cannot be taken: part of what was asked
        self._ask = Asker(keeper.effort, self._assumed)

    def _arranged(self, private: S) -> tuple[Run[S], list[Word]]:
        """The run on the hardware with what the VMM keeps for itself, and what is known about it."""
        hardware = self._technique.map(self._guest, private)
        assumed = [
            self._technique.private(self._guest, private),
            self._machine.invariant(hardware),
            self._keeper.configuration.holds(self._machine, hardware, mentioned=self._general.mentioned),
        ]
        return self._general.at(hardware), assumed

    def _another_private(self) -> S:
        """The VMM may keep other values everywhere, but for settings."""
        private = self._private
        leaves = [leaf for leaf in private.leaves if not private[leaf.name].concrete]
        changed = private.with_changes(
            {leaf.name: symbol(leaf.name + ANOTHER, leaf.width) for leaf in leaves}
        )
        return changed.with_contents({name: name + ANOTHER for name in private.memories()})

    @cached_property
    def _silent_ends(self) -> list[Completion[S]]:
        """Of the run on the hardware, asked once for all promises."""
        return self._untrapped(self._hardware)

    def _untrapped(self, run: Run[S]) -> list[Completion[S]]:
        """The runs on the hardware that complete and do not reach the VMM."""
        found = []
        for conditions, after in run.completions():
            given = (*conditions, (~handed_over(self._machine, self._technique, after)).term)
            # Most of the ways through a far transfer cannot be taken from where the technique puts the guest.
            shown = _Breach(_Kind.UNLIKE, "", given, TRUE).conditions
            if shown and self._ask.first([shown], rlimit=BREACH) is not Answer.UNSAT:
                found.append((given, after))
            else:
                self._ruled_out.append(conjunction(given))
        return found

    # -- the ways to break a promise ----------------------------------------------------------

    def fidelity(self) -> Iterator[_Breach]:
        """Silent where the guest expects a trap; another result; a change the VMM never learns of."""
        expected = [(c, self._expected(after)) for c, after in self._native.completions()]
        ours = [(c, self._seen(after, self._private)) for c, after in self._silent_ends]
        # The hardware's conditions come first: they say most about what the other run sees.
        for case in differing(together(ours, expected), ignoring=frozenset(), time_is_state=False):
            yield _Breach(
                _Kind.UNLIKE,
                "another result than on the guest's own machine",
                case.given,
                any_of(case.unlike.values()),
                tuple(case.unlike.values()),
            )
        kept = frozenset(self._technique.shadowed)
        for conditions, after in self._native.completions():
            for changed in (self._changed(self._guest, after, kept), *self._shadowed_cells(after)):
                for other, _ in self._silent_ends:
                    yield _Breach(
                        _Kind.UNLIKE,
                        "changes on the guest's own machine what the VMM keeps for the guest",
                        (*other, *conditions),
                        changed,
                    )
        for path in self._native.paths:
            if isinstance(path.result, Trap):
                for conditions, _ in self._silent_ends:
                    yield _Breach(
                        _Kind.UNLIKE,
                        f"silent where the guest's own machine raises {path.result.vector}",
                        (*conditions, *path.conditions),
                        TRUE,
                    )
        yield from self._faults_of_the_guest()

    def _faults_of_the_guest(self) -> Iterator[_Breach]:
        """Per vector that goes to the guest: the guest's own machine does not raise it, or with another error code."""
        known = self._technique.guest_level
        raised = {
            (path.result.vector, path.result.level): self._technique.target(path.result)
            for path in self._hardware.paths
            if isinstance(path.result, Trap) and self._technique.target(path.result) is not Target.VMM
        }
        for (vector, level), target in raised.items():
            here, code = _raised(self._hardware, vector, level)
            there, native_code = _raised(self._native, vector, known(level))
            same = there if code is None or native_code is None else there & (code == native_code)
            yield _Breach(
                _Kind.FAULTS,
                f"raises {vector}{_whose(target)} where the guest's own machine does not",
                (here.term,),
                ~same & ~self._native.not_modelled,
            )

    def safety(self) -> Iterator[_Breach]:
        """The VMM's components or storage change; or they show in the result."""
        yield from self.changes()
        yield from self.shows()

    def changes(self) -> Iterator[_Breach]:
        """The VMM's components or storage change."""
        before = self._hardware.before
        for conditions, after in self._silent_ends:
            yield _Breach(
                _Kind.CHANGES,
                "changes what the VMM owns",
                conditions,
                self._changed(before, after, frozenset(self._technique.owned)),
            )
            for changed in self._own_cells(before, after):
                yield _Breach(_Kind.CHANGES, "changes the VMM's storage", conditions, changed)

    def shows(self) -> Iterator[_Breach]:
        """With another P the result is another."""
        self._other = self._another_private()
        other, assumed = self._arranged(self._other)
        ours = [(c, self._seen(after, self._private, beside=self._other)) for c, after in self._silent_ends]
        theirs = [
            (c, self._seen(after, self._other, beside=self._private)) for c, after in self._untrapped(other)
        ]
        ignoring = self._private_parts
        for case in differing(together(ours, theirs), ignoring=ignoring, time_is_state=False):
            yield _Breach(
                _Kind.SHOWS,
                "its result shows what the VMM owns",
                (*case.given, *(a.term for a in assumed)),
                any_of(case.unlike.values()),
                tuple(case.unlike.values()),
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

    def _changed(self, before: S, after: S, names: frozenset[str]) -> Word:
        """Whether one of these leaves or memories changed (width 1)."""
        everything = {leaf.name for leaf in before.leaves} | set(before.memories())
        cases = differing(
            [((), (), before, after)], ignoring=frozenset(everything - names), time_is_state=False
        )
        return any_of(condition for case in cases for condition in case.unlike.values())

    def _storages(self, state: S) -> Iterator[tuple[str, Memory]]:
        for slot in state.layout:
            if slot.address and slot.role is Role.MEMORY:
                yield slot.name, state.memories()[slot.name]

    def _own_cells(self, before: S, after: S) -> Iterator[Word]:
        """Per changed cell: it is the VMM's."""
        owns = self._technique.owns_address
        if owns is not None:
            for where, changed in self._changed_cells(before, after):
                yield owns(self._guest, self._private, where) & changed

    def _shadowed_cells(self, after: S) -> Iterator[Word]:
        """Per cell that changes natively: the VMM keeps a shadow of it."""
        shadows = self._technique.shadows_address
        if shadows is not None:
            for where, changed in self._changed_cells(self._guest, after):
                yield shadows(self._guest, where) & changed

    def _changed_cells(self, before: S, after: S) -> Iterator[tuple[Word, Word]]:
        """The address of each store, and whether it changed the cell."""
        for name, old in self._storages(before):
            new = after.memories()[name]
            for entry in new.stores[len(old.stores) :]:
                if isinstance(entry, Block):
                    step = probe(old, f"{PROBE} of a copy in {name}")
                    where, inside = entry.destination + step, step < entry.cells
                else:
                    where, inside = entry[0], TRUE
                yield where, inside & (old.load(where) != new.load(where))

    def _seen(self, after: S, private: S, guest: S | None = None, beside: S | None = None) -> S:
        """A hardware state with storage as the guest addresses it, and nothing where it is the VMM's.

        Args:
            beside: what the VMM keeps in another run, whose storage is left out too.
        """
        privates = [private] if beside is None else [private, beside]
        return self._view(after, after, guest or self._guest, privates, self._technique.guest_address)

    def _expected(self, after: S, private: S | None = None, guest: S | None = None) -> S:
        """What should be seen of the hardware when the guest's own machine is in `after`."""
        private = private or self._private
        mapped = self._technique.map(after, private)
        return self._view(mapped, after, guest or self._guest, [private], lambda private, address: address)

    def _view(self, state: S, storage: S, guest: S, privates: list[S], place: Callable[[S, Word], Word]) -> S:
        owns, home = self._technique.owns_address, self._technique.guest_address
        state = state.copy()
        for name, content in self._storages(storage):

            def view(address: Word, content: Memory = content) -> Word:
                cell = content.load(place(privates[0], address))
                if owns is None:
                    return cell
                hidden = any_of(owns(guest, private, home(private, address)) for private in privates)
                return ite(hidden, Word(cell.width, 0), cell)

            state._memories[name] = Memory(content.address_width, content.cell_width, view)
        return state

    def needless_trap(self) -> Truth:
        """Whether it can complete natively and trap on the hardware, storage references aside."""
        alternatives = [
            (conjunction(path.conditions), conjunction(conditions))
            for path in self._hardware.paths
            if isinstance(path.result, Trap) and not path.result.memory
            for conditions, _ in self._native.completions()
        ]
        answer = self._ask.first(alternatives)
        return {Answer.SAT: Truth.YES, Answer.UNSAT: Truth.NO, Answer.UNKNOWN: Truth.UNKNOWN}[answer]

    # -- verdicts -----------------------------------------------------------------------------

    def promise(self, name: str, breaches: Iterator[_Breach]) -> Promise[S]:
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
                question = Question(title, [*self._assumed, *breach.conditions])
                witness = partial(self._witness, breach, question)
                return Promise(Status.REFUTED, evidence_of(question, answer), breach.how, witness)
            unknown = unknown or answer is Answer.UNKNOWN
            if breach.conditions:
                asked.append(conjunction(condition.term for condition in breach.conditions))
        question = Question(title, [*self._assumed, any_of([*asked, *self._ruled_out])])
        answer = Answer.UNKNOWN if unknown else Answer.UNSAT
        gap = self._ask.first([(self._hardware.not_modelled,), (self._native.not_modelled, self._silent())])
        if unknown or gap is not Answer.UNSAT:
            return Promise(Status.UNKNOWN, evidence_of(question, answer), "" if unknown else "not modelled")
        return Promise(Status.HOLDS, evidence_of(question, answer))

    def _possible(self, breach: _Breach) -> Answer:
        return self._ask.first([breach.conditions] if breach.conditions else [], rlimit=BREACH)

    def _silent(self) -> Word:
        """It does not reach the VMM (width 1)."""
        faults = [
            path.condition
            for path in self._hardware.paths
            if isinstance(path.result, Trap) and self._technique.target(path.result) is not Target.VMM
        ]
        return any_of([*(conjunction(conditions) for conditions, _ in self._silent_ends), *faults])

    def _witness(self, breach: _Breach, question: Question) -> Counterexample[S] | None:
        answer, model, solver = question.ask(self._keeper.effort)
        if answer is Answer.UNKNOWN:  # there is one, and no time to find it again
            return None
        if model is None or solver is None:
            raise ReplayError(f"{question.name}: was satisfiable and is no more")
        machine, instruction, technique = self._machine, self._instruction, self._technique
        symbolic = [self._guest, self._private, *([self._other] if breach.kind is _Kind.SHOWS else [])]
        probes = {n: probe(c, f"{PROBE} in {n}").term for n, c in self._guest.memories().items()}
        found = find_minimal(machine, instruction, question, solver, model, symbolic, probes)
        guest, private, *others = found.states
        on_hardware = execute(
            machine, instruction, "on the hardware", technique.map(guest, private), found.operands
        )
        if breach.kind is _Kind.SHOWS:
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
                    self._seen(mine, private, guest, others[0]),
                    self._seen(theirs, others[0], guest, private),
                    found.addresses,
                )
                if d.name not in self._private_parts
            )
        elif breach.kind is _Kind.CHANGES:
            runs = (on_hardware, None)
            after = _after(on_hardware, breach.how)
            differ = differences(on_hardware.before, after, found.addresses)
        elif breach.kind is _Kind.FAULTS:
            native = execute(machine, instruction, "on the guest's own machine", guest, found.operands)
            runs, differ = (native, on_hardware), native.changes
        else:
            native = execute(machine, instruction, "on the guest's own machine", guest, found.operands)
            runs = (native, on_hardware)
            after = _after(on_hardware, breach.how)
            differ = ()
            if isinstance(native.outcome, Next):
                expected = self._expected(native.outcome.state, private, guest)
                differ = differences(expected, self._seen(after, private, guest), found.addresses)
                differ = differ or native.changes
        shown = bool(differ) or isinstance(runs[0].outcome, Trap)
        if breach.kind is _Kind.FAULTS:
            known = technique.guest_level
            shown = isinstance(on_hardware.outcome, Trap) and not _same_trap(
                native.outcome, on_hardware.outcome, known
            )
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


def _whose(target: Target) -> str:
    return "" if target is Target.GUEST else f" to {target.value}"


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


def _same_trap(a: Outcome[S], b: Outcome[S], known: Callable[[str], str]) -> bool:
    """Whether both are traps of one vector to one level (of the guest's) with one error code, if both have one."""
    if not isinstance(a, Trap) or not isinstance(b, Trap) or a.vector != b.vector:
        return False
    if a.level != known(b.level):
        return False
    return a.error_code is None or b.error_code is None or a.error_code.value == b.error_code.value


def _after(executed: Executed[S], claim: str) -> S:
    if not isinstance(executed.outcome, Next):
        raise ReplayError(f"the witness for {claim!r} {executed.describe()}")
    return executed.outcome.state
