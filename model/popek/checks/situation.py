"""One instruction form under a technique, ready to be asked about.

The guest is in any state G, the VMM keeps any P that it promises to keep, and the hardware is in f(G, P).  A
situation has the runs of the form on the guest's own machine and on the hardware, and makes minimal, replayed
counterexamples of what a question finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Generic, TypeVar

from popek.kernel import terms
from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Target, Trap
from popek.kernel.state import Role, State
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, any_of, symbol
from popek.solving.asking import Asker
from popek.solving.solver import Answer

from .counterexample import Counterexample, ReplayError, StateDifference, assert_within, differences, execute
from .obligation import OF_THE_VMM, changed_cells, private_of, simplified
from .runs import (
    PROBE,
    Completion,
    Run,
    conjunction,
    handed_over,
    kept_by_the_guest,
    probe,
)
from .subject import Subject
from .verdict import Question
from .witness import find_minimal

S = TypeVar("S", bound=State)

# Solver resources for one alternative of a question.
ALTERNATIVE = 4_000_000


class Situation(Generic[S]):
    """One form under a technique.

    Args:
        instruction: the form.
        run: the form explored from any state, where that is known already.
        near: a guest's kernel and a VMM on numbers; then what the VMM keeps in registers is as in these, and so is
            what the guest believes of it: fewer states, of which questions are answered sooner.

    Attributes:
        guest, private: the symbolic states G and P.
        native, hardware: the runs from G and from f(G, P).
        assumed: conditions (width 1) under which everything is asked.
    """

    def __init__(
        self,
        subject: Subject[S],
        instruction: Instruction,
        run: Run[S] | None = None,
        near: tuple[S, S] | None = None,
    ) -> None:
        self.subject, self.instruction = subject, instruction
        self.machine, self.technique, self.effort = subject.machine, subject.technique, subject.effort
        if run is None:
            run = subject.explore(instruction)
        self.general = self.native = run
        self.guest = run.before
        if near is not None:
            self.guest, self.private = self._near(*near)
            self.native = run.at(self.guest)
            return
        self.private = private_of(subject)

    def _near(self, guest: S, private: S) -> tuple[S, S]:
        memories = set(self.guest.memories())
        owned = [name for name in self.technique.owned if name not in memories]
        # Of a register that guest and VMM share, the VMM's bits stay open.
        whole = {
            c for c, leaves in self.guest.leaves_of.items() if {leaf.name for leaf in leaves} <= set(owned)
        }
        kept = [name for name in owned if self.guest.leaf(name).component in whole]
        open_leaves = [
            setting.leaf
            for setting in self.machine.settings
            if setting.leaf is not None and setting.name not in self.subject.configuration.settings
        ]
        nearby = self.guest.with_changes({name: guest[name] for name in kept if name not in open_leaves})
        beside = private.with_contents({name: name + OF_THE_VMM for name in memories})
        return nearby, self.with_fresh(
            beside, [name for name in open_leaves if name in owned], OF_THE_VMM, always=True
        )

    @cached_property
    def hardware(self) -> Run[S]:
        """The run from f(G, P)."""
        return self.general.at(self.technique.map(self.guest, self.private))

    @cached_property
    def assumed(self) -> list[Word]:
        """What is known of G, P, f(G, P) and the operands."""
        before = self.hardware.before
        return [
            self.technique.guest(self.guest),
            self.machine.invariant(self.guest),
            self.instruction.valid(self.general.operands),
            self.technique.private(self.guest, self.private),
            self.machine.invariant(before),
            self.subject.holds(before, mentioned=self.general.mentioned),
        ]

    @cached_property
    def ask(self) -> Asker:
        """Questions under what is assumed."""
        return Asker(self.effort, self.assumed)

    def over(self, run: Run[S], after: S) -> Word:
        """Whether a run that completes has handed control to the VMM (width 1)."""
        return handed_over(self.machine, self.technique, run.before, after, self.private)

    def kept(self, run: Run[S]) -> list[Completion[S]]:
        """The ways in which a run completes without having handed control to the VMM."""
        return kept_by_the_guest(run, self.over)

    def reaching(self, run: Run[S]) -> Iterator[tuple[Term, ...]]:
        """The ways in which a run reaches the VMM: traps, those on storage and the guest's own aside, and entries."""
        for path in run.paths:
            if isinstance(path.result, Trap) and not path.result.memory:
                if self.technique.goes_to(path.result) is not Target.VMM:
                    continue
                yield path.conditions
        for conditions, after in run.completions():
            over = self.over(run, after)
            if over.value != 0:
                yield (*conditions, over.term)

    def storage_traps(self, run: Run[S]) -> Iterator[tuple[Term, ...]]:
        """The ways in which a run traps on a storage reference."""
        for path in run.paths:
            if isinstance(path.result, Trap) and path.result.memory:
                yield path.conditions

    def changed(self, before: S, after: S, names: Sequence[str]) -> Iterator[Word]:
        """Per leaf or memory of these: the condition that it changed."""
        for name in names:
            if name in before.memories():
                old, new = before.memories()[name], after.memories()[name]
                where = probe(old, f"{PROBE} in {name}")
                condition = old.load(where) != new.load(where)
            else:
                condition = before[name] != after[name]
            if condition.value != 0:
                yield condition

    def stored(self, before: S, after: S) -> Iterator[tuple[Word, Word]]:
        """The address of each store to storage, and whether it changed the cell (width 1)."""
        return changed_cells(before, after)

    def with_fresh(self, state: S, names: Sequence[str], suffix: str = "'", *, always: bool = False) -> S:
        """A state with fresh symbols for these leaves, or for those of them that are symbols already."""
        fresh = {
            name: symbol(name + suffix, state.leaf(name).width)
            for name in names
            if always or not state[name].concrete
        }
        return state.with_changes(dict(fresh))

    def visible(self, a: S, b: S) -> Iterator[tuple[str, Word]]:
        """Per general leaf and storage: the condition that the program sees a difference there."""
        for leaf in a.leaves:
            if leaf.role is Role.GENERAL and a[leaf.name].term is not b[leaf.name].term:
                yield leaf.name, a[leaf.name] != b[leaf.name]
        for slot in a.layout:
            if slot.address and slot.role is Role.MEMORY:
                left, right = a.memories()[slot.name], b.memories()[slot.name]
                where = probe(left, f"{PROBE} in {slot.name}")
                condition = left.load(where) != right.load(where)
                if left is not right and condition.value != 0:
                    yield slot.name, condition

    @staticmethod
    def pairs(a: Sequence[Completion[S]], b: Sequence[Completion[S]]) -> Iterator[tuple[list[Term], S, S]]:
        """Ways of two runs that do not exclude one another, few conditions first: conditions and both ends."""
        found = []
        for conditions, first in a:
            known = set(conditions)
            for others, second in b:
                if not any(terms.invert(other) in known for other in others):
                    found.append((list(dict.fromkeys((*conditions, *others))), first, second))
        yield from sorted(found, key=lambda pair: len(pair[0]))

    # -- asking -------------------------------------------------------------------------------

    def first(self, alternatives: Iterator[Sequence[Word]]) -> tuple[Answer, Sequence[Word] | None]:
        """The first alternative that is possible; UNKNOWN where none is and one could not be decided."""
        total = Answer.UNSAT
        for conditions in alternatives:
            shown = simplified(conditions)
            answer = Answer.UNSAT if shown is None else self.ask.first([shown], rlimit=ALTERNATIVE)
            if answer is Answer.SAT:
                return answer, conditions
            if answer is Answer.UNKNOWN:
                total = answer
        return total, None

    def witness(
        self,
        claim: str,
        story: str,
        conditions: Sequence[Word],
        labels: Sequence[str],
        starts: Sequence[S],
        *,
        mapped: bool = True,
        assumed: Sequence[Word] | None = None,
    ) -> Counterexample[S] | None:
        """The minimal counterexample of a question that was found possible; None where time ran out.

        Args:
            labels: of the runs.
            starts: with `mapped`, G and P, whose runs are G's and f(G, P)'s, or with one label the latter alone;
                otherwise the states of the runs.
            assumed: conditions besides, those of the situation by default.

        Raises:
            ReplayError: a defect of popek.
        """
        question = Question(
            f"{self.machine.name}: {claim} ({self.instruction.form}; {self.technique.name})",
            [
                *(self.assumed if assumed is None else assumed),
                self.subject.holds(self.hardware.before) if assumed is None else TRUE,
                *conditions,
            ],
        )
        answer, model, solver = question.ask(self.effort)
        if answer is Answer.UNKNOWN:
            return None
        if model is None or solver is None:
            raise ReplayError(f"{question.name}: was satisfiable and is no more")
        probes = {n: probe(c, f"{PROBE} in {n}").term for n, c in self.guest.memories().items()}
        found = find_minimal(self.machine, self.instruction, question, solver, model, starts, probes)
        states = list(found.states)
        if mapped:
            guest, private = states
            image = self.technique.map(guest, private)
            assert_within(
                self.machine,
                self.instruction,
                claim,
                the_invariant=self.machine.invariant(guest) & self.machine.invariant(image),
                what_is_a_guest=self.technique.guest(guest),
                what_the_VMM_promises=self.technique.private(guest, private),
                the_configuration=self.subject.holds(image) if assumed is None else TRUE,
            )
            states = [guest, self.technique.map(guest, private)][-len(labels) :]
        runs = [
            execute(self.machine, self.instruction, label, state, found.operands)
            for label, state in zip(labels, states, strict=True)
        ]
        differ: tuple[StateDifference, ...] = ()
        if len(runs) == 2 and all(run.changes or not isinstance(run.outcome, Trap) for run in runs):
            first, second = (getattr(run.outcome, "state", run.before) for run in runs)
            changed = {d.name for run in runs for d in run.changes}
            general = {leaf.name for leaf in first.leaves if leaf.role is Role.GENERAL}
            differ = tuple(
                d
                for d in differences(first, second, found.addresses)
                if d.name in changed or d.name in general or "[" in d.name
            )
        elif len(runs) == 1:
            differ = runs[0].changes
        return Counterexample(
            claim,
            story,
            self.instruction,
            self.instruction.assembly(found.operands),
            differences(self.machine.state.reset(), states[0]),
            runs[0],
            runs[1] if len(runs) == 2 else None,
            differ,
        )


def holds_together(*conditions: Word | Sequence[Term]) -> list[Word]:
    """Conditions of different kinds as words, one by one."""
    found: list[Word] = []
    for condition in conditions:
        found += [condition] if isinstance(condition, Word) else [Word(1, term) for term in condition]
    return found


def plainest(
    subject: Subject[S],
    instruction: Instruction,
    fixed: Mapping[str, int] | None = None,
) -> tuple[S, S] | None:
    """The plainest guest's kernel that completes an instruction, and the plainest VMM beside it, on numbers.

    The VMM leaves alone what the instruction refers to.

    Args:
        fixed: operands of the instruction.
    """
    s = Situation(subject, instruction)
    reachable = ~any_of(conjunction(way) for way in s.storage_traps(s.hardware))
    operands = [s.general.operands[name] == value for name, value in (fixed or {}).items()]
    question = Question(
        f"{subject.machine.name}: a guest's kernel under {subject.technique.name}",
        [
            *s.assumed,
            s.machine.supervisor(s.guest),
            s.native.completes,
            reachable,
            subject.holds(s.hardware.before),
            *operands,
        ],
    )
    _, model, solver = question.ask(s.effort)
    if model is None or solver is None:
        return None
    found = find_minimal(s.machine, instruction, question, solver, model, (s.guest, s.private), {})
    guest, private = found.states
    return guest, private
