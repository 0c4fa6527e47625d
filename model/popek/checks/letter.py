"""The classes by the letter of Popek and Goldberg (1974), where `classify` asks something else.

S = <E|R, M, P, R>: what a program is, is the storage in its reach, the mode, the program counter and R.  Only a trap on
a storage reference is left aside.

| class | question |
|---|---|
| privileged | for *every* two states that differ only in mode: it traps in user mode, and not in supervisor mode |
| control-sensitive | it traps, for a trap loads another M and R; or it completes and changes a mode or resource leaf |
| behavior-sensitive | two states in *any* modes and places, with the same storage in reach: both complete and keep M \
and R, and what is in reach, or P, differs |
| user-sensitive | control- or behavior-sensitive with every state in user mode |

R is what the machine moves by its `relocate`, and, as in the resource-sensitive class, what the technique replaces: in
the second state it may be another, together with the mode.  What is in reach is what the machine's `reaches` says; a
machine without one has all of its storage in reach.  User mode is the one in which the technique runs the guest, and
going in at an entry of the VMM's is a trap, as in `classify`.

One module, though long: one reading of one text, and each question is told from the others by a line of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Generic, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.program import Line
from popek.kernel.state import Role, State, leaves_with
from popek.kernel.terms import Term
from popek.kernel.words import Word, all_of, any_of, ite, symbol
from popek.solving.asking import Asker, SolverQuery
from popek.solving.solver import Answer

from .counterexample import Counterexample, ReplayError, assert_replay, assert_within, differences, execute
from .definitions import configured
from .runs import PROBE, Completion, Run, compared, conjunction, handed_over, probe, together
from .subject import Subject
from .verdict import Evidence, Question, Truth, any_asked, both, either, negate
from .witness import find_minimal

S = TypeVar("S", bound=State)

PRIVILEGED, CONTROL, BEHAVIOR, USER = (
    "privileged",
    "control_sensitive",
    "behavior_sensitive",
    "user_sensitive",
)
SENSITIVE, INNOCUOUS = "sensitive", "innocuous"
CRITICAL, USER_CRITICAL = "critical", "user_critical"
LETTER = (PRIVILEGED, CONTROL, BEHAVIOR, USER, SENSITIVE, INNOCUOUS, CRITICAL, USER_CRITICAL)

STORIES = {
    PRIVILEGED: "The two states differ only in mode, and it does not trap in user mode alone.",
    CONTROL: "It completes and changes a mode or resource, or it traps, which loads others.",
    BEHAVIOR: "Mode and place may both differ, the storage in reach is the same, and the results differ.",
}


@attrs.frozen(eq=False, slots=False)
class LetterAnswer(Generic[S]):
    """The answer about one class.

    Attributes:
        truth: whether the form is in the class.
        evidence: what was asked and answered; None where nothing was.
        why: why it was not asked.
    """

    truth: Truth
    evidence: Evidence | None = None
    why: str = ""
    _make_witness: Callable[[], Counterexample[S] | None] | None = None

    @cached_property
    def witness(self) -> Counterexample[S] | None:
        """The counterexample: of a sensitive class where it is yes, of *privileged* where it is no.

        None too where a time limit was in the way.

        Raises:
            ReplayError: a defect of popek.
        """
        return None if self._make_witness is None else self._make_witness()


@attrs.frozen(eq=False)
class ByTheLetter(Generic[S]):
    """The classes of one form by the letter."""

    instruction: Instruction
    answers: Mapping[str, LetterAnswer[S]]

    @cached_property
    def truths(self) -> Mapping[str, Truth]:
        """The answer per class of `LETTER`."""
        found = {name: one.truth for name, one in self.answers.items() if not name.startswith("user ")}
        found[USER] = either(self.answers["user " + CONTROL].truth, self.answers["user " + BEHAVIOR].truth)
        found[SENSITIVE] = either(found[CONTROL], found[BEHAVIOR])
        found[INNOCUOUS] = negate(found[SENSITIVE])
        found[CRITICAL] = both(found[SENSITIVE], negate(found[PRIVILEGED]))
        found[USER_CRITICAL] = both(found[USER], negate(found[PRIVILEGED]))
        return {name: found[name] for name in LETTER}

    @property
    def witness(self) -> Counterexample[S] | None:
        """The most telling counterexample of a sensitive class; where there is none, that it is not privileged."""
        for name in (BEHAVIOR, CONTROL):
            if self.answers[name].truth is Truth.YES:
                return self.answers[name].witness
        return self.answers[PRIVILEGED].witness


def as_asked_here(classes: Mapping[str, Truth]) -> dict[str, Truth]:
    """The answers of `classify`, by the names of `LETTER`."""
    behavior = any_asked(
        classes[name] for name in ("location_sensitive", "mode_sensitive", "resource_sensitive")
    )
    return {name: behavior if name == BEHAVIOR else classes[name] for name in LETTER}


@attrs.frozen(eq=False)
class _Way(Generic[S]):
    """Conditions that must hold together, the runs they are about, and the offset between these."""

    conditions: tuple[Word, ...]
    runs: tuple[Run[S], ...]


def storage_of(machine: Machine[S]) -> tuple[str, ...]:
    """The memories that are storage."""
    return tuple(s.name for s in machine.state.layout if s.address and s.role is Role.MEMORY)


@attrs.frozen(eq=False, slots=False)
class Pair(Generic[S]):
    """Two states with the same storage in reach, at two places.

    Attributes:
        first: one state.
        beside: what else the other has, and what it has out of reach.
        offset: how far on the other lies; None where the machine does not say what moving is.
    """

    machine: Machine[S]
    first: S
    beside: S
    offset: Word | None

    def moved(self, state: S) -> S:
        """A state as far on as the other lies."""
        relocate = self.machine.relocate
        return state if relocate is None or self.offset is None else relocate(state, self.offset)

    @cached_property
    def _whole(self) -> S:
        """The other, with all of the first's storage."""
        if self.machine.reaches is None:
            return self.moved(self.beside)
        state = self.beside.copy()
        for name in storage_of(self.machine):
            state._memories[name] = self.first.memories()[name]
        return self.moved(state)

    @cached_property
    def _marked(self) -> S:
        """The first, moved, with 1 in the cells that are in its reach and 0 in the others."""
        reaches, state = self.machine.reaches, self.first.copy()
        for name in storage_of(self.machine):
            old = self.first.memories()[name]

            def mark(address: Word, width: int = old.cell_width) -> Word:
                assert reaches is not None
                return reaches(self.first, address).zero_extend(width)

            state._memories[name] = Memory(old.address_width, old.cell_width, mark)
        return self.moved(state)

    def _in_reach(self, name: str, content: Memory, otherwise: Memory | None) -> Memory:
        """A content where it is in reach of both, and another, or nothing, where it is not."""
        reaches, marks = self.machine.reaches, self._marked.memories()[name]
        assert reaches is not None

        def cell(address: Word) -> Word:
            outside = Word(content.cell_width, 0) if otherwise is None else otherwise.load(address)
            inside = reaches(self._whole, address) & (marks.load(address) != 0)
            return ite(inside, content.load(address), outside)

        return Memory(content.address_width, content.cell_width, cell)

    @cached_property
    def second(self) -> S:
        """The other: what is in reach is the first's, moved; what is not is as it is beside."""
        if self.machine.reaches is None:
            return self._whole
        state = self._whole.copy()
        for name in storage_of(self.machine):
            state._memories[name] = self._in_reach(
                name, self._whole.memories()[name], self.beside.memories()[name]
            )
        return state

    def seen(self, after: S) -> S:
        """A result at the other's place, with nothing where it is not in reach of both."""
        if self.machine.reaches is None:
            return after
        state = after.copy()
        for name in storage_of(self.machine):
            state._memories[name] = self._in_reach(name, after.memories()[name], None)
        return state


class Letter(Generic[S]):
    """Asks for the classes by the letter; the technique says what user mode is, and what it replaces."""

    def __init__(self, subject: Subject[S]) -> None:
        self.subject, self.machine, self.technique = subject, subject.machine, subject.technique
        machine, technique, self.effort = subject.machine, subject.technique, subject.effort
        self.state = configured(subject)
        modes = leaves_with(machine.state, [Role.MODE])
        self.twin = self._beside([leaf.name for leaf in modes])
        replaced = [name for name in technique.replaced if name not in self.state.memories()]
        timeless = [name for name in replaced if machine.state.leaf(name).role is not Role.TIME]
        self.beside = self._beside([*(leaf.name for leaf in modes), *timeless], contents=True)
        self.offset = symbol("relocation", machine.relocation_width) if machine.relocate else None
        self.pair = Pair(machine, self.state, self.beside, self.offset)

    def _beside(self, names: Sequence[str], *, contents: bool = False) -> S:
        """Another state, that differs in these leaves, and in what is not in reach."""
        fresh = {
            name: symbol(name + "'", self.state[name].width)
            for name in names
            if not self.state[name].concrete
        }
        other = self.state.with_changes(dict(fresh))
        if not contents:
            return other
        stored = {name: name + "'" for name in self.technique.replaced if name in other.memories()}
        if self.machine.reaches is not None:
            stored |= {name: name + "'" for name in storage_of(self.machine)}
        return other.with_contents(stored)

    @cached_property
    def uncompared(self) -> frozenset[str]:
        """Mode and resources, and what the technique replaces: a program has the same storage and P without them."""
        roles = (Role.MODE, Role.RESOURCE)
        names = {leaf.name for leaf in leaves_with(self.machine.state, roles)} | set(self.technique.replaced)
        return frozenset(names | {slot.name for slot in self.machine.state.layout if slot.role in roles})

    def of(self, instruction: Instruction, general: Run[S]) -> ByTheLetter[S]:
        """The classes of one form.

        Args:
            general: every path of it.
        """
        return _Questions(self, instruction, general).answer()


class _Questions(Generic[S]):
    """The questions about one form."""

    def __init__(self, letter: Letter[S], instruction: Instruction, general: Run[S]) -> None:
        self._l, self._instruction, self._general = letter, instruction, general
        self._machine, self._technique = letter.machine, letter.technique
        self._run, self._twin = general.at(letter.state), general.at(letter.twin)
        self._other = general.at(letter.pair.second)
        exists = self._exists(self._run)
        self._ask = Asker(letter.effort, [*exists, instruction.valid(general.operands)], general.translated)

    def answer(self) -> ByTheLetter[S]:
        in_user = [self._technique.deprivileged(self._run.before)]
        both_in_user = [*in_user, self._technique.deprivileged(self._other.before)]
        control, behavior = (list(ways()) for ways in (self._control, self._behavior))
        found = {
            PRIVILEGED: self._privileged(),
            "user " + CONTROL: self._answered(CONTROL, control, in_user),
            "user " + BEHAVIOR: self._answered(BEHAVIOR, behavior, both_in_user),
        }
        for name, ways in ((CONTROL, control), (BEHAVIOR, behavior)):
            user = found["user " + name]
            found[name] = user if user.truth is Truth.YES else self._answered(name, ways, [])
        return ByTheLetter(self._instruction, found)

    def _exists(self, run: Run[S]) -> list[Word]:
        """A state of the configuration, in user or supervisor mode (each of width 1)."""
        state, machine = run.before, self._machine
        held = self._l.subject.holds(state, mentioned=self._general.mentioned)
        modes = self._technique.deprivileged(state) | machine.supervisor(state)
        return [held, machine.invariant(state), modes]

    # -- the ways to be in a class ------------------------------------------------------------

    def _completions(self, run: Run[S]) -> Iterator[Completion[S]]:
        """The ways in which it completes and does not go in at an entry of the VMM's from user mode."""
        user = self._technique.deprivileged(run.before)
        for conditions, after in run.completions():
            kept = ~(user & handed_over(self._machine, self._technique, run.before, after))
            if kept.value != 0:
                yield (*conditions, kept.term), after

    def _entries(self, run: Run[S]) -> Iterator[tuple[Term, ...]]:
        user = self._technique.deprivileged(run.before)
        for conditions, after in run.completions():
            over = user & handed_over(self._machine, self._technique, run.before, after)
            if over.value != 0:
                yield (*conditions, over.term)

    @staticmethod
    def _trapping(run: Run[S]) -> Iterator[tuple[Term, ...]]:
        """The ways in which it traps, but on storage."""
        for path in run.paths:
            if isinstance(path.result, Trap) and not path.result.memory:
                yield path.conditions

    def _as_it_was(self, run: Run[S], after: S) -> Word:
        """Mode and resources are those of before (width 1)."""
        before, roles = run.before, (Role.MODE, Role.RESOURCE)
        same = [before[leaf.name] == after[leaf.name] for leaf in leaves_with(self._machine.state, roles)]
        for slot in self._machine.state.layout:
            if slot.address and slot.role in roles:
                old, new = before.memories()[slot.name], after.memories()[slot.name]
                for entry in new.stores[len(old.stores) :]:
                    where = entry.destination if isinstance(entry, Block) else entry[0]
                    same.append(old.load(where) == new.load(where))
        return all_of(same)

    def _control(self) -> Iterator[_Way[S]]:
        run = self._run
        for conditions in (*self._trapping(run), *self._entries(run)):
            yield _Way((conjunction(conditions),), (run,))
        for conditions, after in self._completions(run):
            yield _Way((conjunction(conditions), ~self._as_it_was(run, after)), (run,))

    def _behavior(self) -> Iterator[_Way[S]]:
        """Both complete, M and R as before; what is in reach, P or what else a program has is not the same."""
        mine, theirs = self._run, self._other
        exists = self._exists(theirs)
        first = [
            ((*conditions, self._as_it_was(mine, after).term), self._l.pair.seen(self._l.pair.moved(after)))
            for conditions, after in self._completions(mine)
        ]
        second = [
            ((*conditions, self._as_it_was(theirs, after).term), self._l.pair.seen(after))
            for conditions, after in self._completions(theirs)
        ]
        for case in compared(together(first, second), ignoring=self._l.uncompared, time_is_state=False):
            if case.differs.value != 0:
                yield _Way((*exists, case.differs), (mine, theirs))

    def _privileged(self) -> LetterAnswer[S]:
        """No two states that differ only in mode, without a trap on storage, are as it should not be."""
        user, twin = self._run, self._twin
        pair = (
            *self._exists(twin),
            self._technique.deprivileged(user.before),
            self._machine.supervisor(twin.before),
            *(~self._storage_trap(run) for run in (user, twin)),
        )
        there = self._ask.first([pair])
        if there is Answer.UNSAT:
            return LetterAnswer(
                Truth.NOT_ASKED, why="no two states that differ only in mode run without a storage trap"
            )
        ways = [_Way((*pair, conjunction(c)), (user, twin)) for c, _ in self._completions(user)]
        ways += [_Way((*pair, conjunction(c)), (user, twin)) for c in self._trapping(twin)]
        found = self._answered(PRIVILEGED, ways, [])
        if found.truth is Truth.NO and there is Answer.UNKNOWN:
            return LetterAnswer(Truth.UNKNOWN, found.evidence)
        return attrs.evolve(found, truth=negate(found.truth))

    @staticmethod
    def _storage_trap(run: Run[S]) -> Word:
        return run.traps & ~run.traps_not_on_memory

    # -- asking -------------------------------------------------------------------------------

    def _answered(self, name: str, ways: Sequence[_Way[S]], also: Sequence[Word]) -> LetterAnswer[S]:
        """Whether one of the ways is possible."""
        title = (
            f"{self._machine.name}: {self._instruction.form}: {name}, by the letter ({self._technique.name})"
        )
        assumed = [*self._ask.assumed, *also]
        unknown, asked = False, list[SolverQuery]()
        for way in ways:
            answer = self._ask.first([(*also, *way.conditions)], asked=asked)
            unknown = unknown or answer is Answer.UNKNOWN
            if answer is Answer.SAT:
                question = Question(title, [*assumed, *way.conditions])
                make = partial(self._witness, name, way, question)
                return LetterAnswer(Truth.YES, Evidence(question, answer, (asked[-1],)), make_witness=make)
        runs = {id(run): run for way in ways for run in way.runs} or {0: self._run}
        silent = any_of(run.not_modelled for run in runs.values())
        told = (*also, silent, *(~self._storage_trap(run) for run in runs.values()))
        question = Question(
            title, lambda: [*assumed, any_of([silent, *(all_of(way.conditions) for way in ways)])]
        )
        if unknown or self._ask.first([told], asked=asked) is not Answer.UNSAT:
            return LetterAnswer(Truth.UNKNOWN, Evidence(question, Answer.UNKNOWN, tuple(asked)))
        return LetterAnswer(Truth.NO, Evidence(question, Answer.UNSAT, tuple(asked)))

    def _witness(self, name: str, way: _Way[S], question: Question) -> Counterexample[S] | None:
        machine, instruction, letter = self._machine, self._instruction, self._l
        within = [letter.subject.holds(run.before) for run in way.runs]
        narrow = Question(question.name, [*question.conditions, *within])
        answer, model, solver = narrow.ask(letter.effort)
        if answer is Answer.UNKNOWN:  # there is one, and no time to find it again
            return None
        if model is None or solver is None:
            raise ReplayError(f"{instruction.form}: {name} was satisfiable and is no more")
        probes = {n: probe(c, f"{PROBE} in {n}").term for n, c in letter.state.memories().items()}
        starts = [letter.state, letter.beside if name == BEHAVIOR else letter.twin][: len(way.runs)]
        found = find_minimal(machine, instruction, narrow, solver, model, starts, probes)
        states = list(found.states)
        pair: Pair[S] | None = None
        if name == BEHAVIOR:
            far = letter.offset
            offset = None if far is None else Word(far.width, found.model(far.term))
            pair = Pair(machine, states[0], states[1], offset)
            states[1] = _written_out(letter, Line(instruction, found.operands), pair.second, found.addresses)
        for state in states:
            assert_within(
                machine,
                instruction,
                name,
                the_invariant=machine.invariant(state),
                the_configuration=letter.subject.holds(state),
            )
        labels = LABELS[name]
        runs = [
            execute(machine, instruction, label, state, found.operands)
            for label, state in zip(labels, states, strict=False)
        ]
        ends = [run.outcome.state if isinstance(run.outcome, Next) else None for run in runs]
        differ = runs[0].changes
        fails = bool(differ) or isinstance(runs[0].outcome, Trap)
        if pair is not None:
            differ = ()
            if ends[0] is not None and ends[1] is not None:
                results = pair.seen(pair.moved(ends[0])), pair.seen(ends[1])
                ignored = letter.uncompared
                differ = tuple(
                    d
                    for d in differences(*results, found.addresses)
                    if d.name.partition("[")[0] not in ignored and d.name not in ignored
                )
            fails = bool(differ)
        elif name == PRIVILEGED:
            fails = isinstance(runs[0].outcome, Next) or isinstance(runs[1].outcome, Trap)
        assert_replay(fails, instruction, name, lambda: [run.describe() for run in runs])
        return Counterexample(
            f"{name.replace('_', '-')}, by the letter",
            STORIES[name],
            instruction,
            instruction.assembly(found.operands),
            differences(machine.state.reset(), states[0]),
            runs[0],
            runs[1] if len(runs) == 2 else None,
            differ,
        )


def _written_out(letter: Letter[S], line: Line, state: S, addresses: Mapping[str, Sequence[int]]) -> S:
    """A state of numbers with the cells that a run reads, and those at some addresses, as contents to be shown."""
    read: dict[str, set[int]] = {name: set(addresses.get(name, ())) for name in state.memories()}
    watched = state.copy()
    for name, content in state.memories().items():

        def cell(address: Word, name: str = name, content: Memory = content) -> Word:
            read[name].add(int(address))
            return content.load(address)

        watched._memories[name] = Memory(content.address_width, content.cell_width, cell)
    letter.machine.step(line.instruction, watched, line.words)
    letter.machine.invariant(watched)
    letter.subject.holds(watched)
    written = state.copy()
    for name, content in state.memories().items():
        width = content.address_width
        cells = {address: int(content.load(Word(width, address))) for address in sorted(read[name])}
        written._memories[name] = Memory(width, content.cell_width, cells)
    return written


LABELS = {
    CONTROL: ("run",),
    BEHAVIOR: ("one mode and place", "another"),
    PRIVILEGED: ("user mode", "supervisor mode"),
}

__all__ = ["LETTER", "ByTheLetter", "Letter", "LetterAnswer"]
