"""One form of a guest's on its own machine and on the hardware, with what is asked about both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Generic, TypeVar

from popek.kernel import terms
from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next, Trap
from popek.kernel.state import UNDEFINED, Role, State, leaves_with
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word, symbol
from popek.solving.asking import Asker, SolverQuery
from popek.solving.solver import Answer, QuestionKind

from .obligation import OF_THE_VMM, Breach, BreachKind, Obligation, private_of
from .passed_on import PassedOn
from .runs import (
    Completion,
    Run,
    conjunction,
    handed_over,
    probe,
)
from .subject import Subject

S = TypeVar("S", bound=State)


# Solver resources for one way to break a promise.
BREACH = 4_000_000

ANOTHER, ANOTHER_GUEST = "@vmm'", "'"
# What is made once of symbols from which many forms start.
_PRIVATE, _ANOTHER, _IMAGE, _PARTS = "P", "another P", "f(G, P)", "the VMM's in f(G, P)"
_GUEST, _KEPT, _EXISTS, _OTHER, _SET = "guest", "kept", "exists", "another G", "set up"


class Hosted(Generic[S]):
    """One form as a guest runs it: on the guest's own machine from G, and on the hardware from f(G, P).

    Attributes:
        general: every path of the form from any state.
        guest, private: G and P, symbolic.
        native, hardware: the runs from G and from f(G, P).
        assumed: conditions (width 1) under which everything is asked.
        due: what the run on the hardware owes to that on the guest's own machine.
        passed_on: traps on the hardware that are not the VMM's, with their delivery.
        ruled_out: ways on the hardware that were found impossible, with what was asked for that.
    """

    def __init__(self, subject: Subject[S], instruction: Instruction, run: Run[S] | None) -> None:
        general = run or subject.explore(instruction)
        self.subject, self.machine, self.technique = subject, subject.machine, subject.technique
        self.instruction, self.general = instruction, general
        self.guest = general.before
        self.native = general
        self.time = subject.time_is_state
        self.private = subject.once(_PRIVATE, self._private, self.guest)
        self.hardware, assumed = self.arranged(self.private)
        self.assumed = [
            *self.is_guest(self.guest),
            instruction.valid(general.operands),
            *assumed,
        ]
        self.due = Obligation(
            self.machine,
            self.technique,
            instruction,
            self.native,
            self.hardware,
            self.private,
            time_is_state=self.time,
        )
        self.passed_on = PassedOn(self.due, subject.effort)
        self.ruled_out: list[tuple[Word, list[SolverQuery]]] = []
        self._impossible: set[int] = set()
        self.ask = Asker(subject.effort, self.assumed, kind=QuestionKind.HARD)

    def arranged(self, private: S) -> tuple[Run[S], list[Word]]:
        """The run on the hardware with what the VMM keeps for itself, and what is known about it."""
        subject, technique = self.subject, self.technique
        hardware = subject.once(_IMAGE, technique.map, self.guest, private)
        assumed = [
            subject.once(_KEPT, technique.private, self.guest, private),
            *self.can_be_kept(private),
            *self._on_hardware(hardware),
        ]
        return self.general.at(hardware), assumed

    def is_guest(self, guest: S) -> list[Word]:
        """What is known of a guest: its own machine is set up as the settings say of it (each of width 1)."""
        subject, machine = self.subject, self.machine
        return [
            subject.once(_GUEST, self.technique.guest, guest),
            subject.once(_EXISTS, machine.invariant, guest),
            subject.once(_SET, lambda guest: subject.of_the_guest.holds(machine, guest), guest),
        ]

    def can_be_kept(self, private: S) -> list[Word]:
        """What is known of what a VMM has, whatever its guest: it is a state of the machine (each of width 1)."""
        return [
            self.subject.once(_EXISTS, self.machine.invariant, private),
            self.subject.holds(private),
        ]

    def _on_hardware(self, image: S) -> list[Word]:
        """What is known of the hardware's state: but for what the guest may set up in any way (each of width 1)."""
        return [
            self.subject.once(_EXISTS, self.machine.invariant, image),
            self.subject.holds_of_the_image(image, mentioned=self.general.mentioned),
        ]

    @cached_property
    def other_guest(self) -> S:
        """Any other guest, at the same time."""
        return self.subject.once(_OTHER, self._other, self.guest)

    def _other(self, guest: S) -> S:
        clocks = () if self.time else [leaf.name for leaf in leaves_with(self.machine.state, [Role.TIME])]
        words = guest.words()
        shared = {name: words[name] for name in words if words[name].concrete}
        shared |= {name: guest[name] for name in clocks}
        return self.machine.state.symbolic(ANOTHER_GUEST).with_changes(dict(shared))

    def beside(self, another: S, *, again: bool = False) -> tuple[Run[S], list[Word]]:
        """The run on the hardware of another guest of the same VMM, and what is known about it.

        Args:
            again: undefined results may be others.
        """
        technique = self.technique
        undefined = self.general.undefined_again if again else {}
        run = self.general.at(technique.map(another, self.private), undefined)
        assumed = [
            *self.is_guest(another),
            technique.private(another, self.private),
            *self._on_hardware(run.before),
        ]
        return run, assumed

    def _private(self, guest: S) -> S:
        clocks = leaves_with(self.machine.state, [Role.TIME])
        shared = {} if self.time else {leaf.name: guest[leaf.name] for leaf in clocks}
        return private_of(self.subject).with_changes(shared)

    def another_private(self) -> S:
        """The VMM may keep other values everywhere, but for settings."""
        return self.subject.once(_ANOTHER, self._another, self.private)

    def _another(self, private: S) -> S:
        leaves = [
            leaf
            for leaf in private.leaves
            if not private[leaf.name].concrete and (self.time or leaf.role is not Role.TIME)
        ]
        changed = private.with_changes(
            {leaf.name: symbol(leaf.name + ANOTHER, leaf.width) for leaf in leaves}
        )
        return changed.with_contents({name: name + ANOTHER for name in private.memories()})

    @cached_property
    def silent_ends(self) -> list[Completion[S]]:
        """Of the run on the hardware, asked once for all promises."""
        return self.untrapped(self.hardware, self.private)

    def untrapped(self, run: Run[S], private: S) -> list[Completion[S]]:
        """The runs on the hardware that complete and do not reach the VMM.

        A run with another P takes no way that is impossible with P, which may be anything: of those nothing is asked.
        """
        mine = private is self.private
        impossible = set() if mine else self._impossible
        found = []
        for number, path in zip(run.origins or range(len(run.paths)), run.paths, strict=True):
            if not isinstance(path.result, Next) or number in impossible:
                continue
            over = handed_over(self.machine, self.technique, run.before, path.result.state, private)
            given = (*path.conditions, (~over).term)
            # Most of the ways through a far transfer cannot be taken from where the technique puts the guest.
            shown = Breach(BreachKind.UNLIKE, "", given, TRUE).conditions
            asked: list[SolverQuery] = []
            if shown and not (mine and self._ruled_out(shown, asked)):
                found.append((given, path.result.state))
            elif mine:
                self.ruled_out.append((conjunction(given), asked))
                self._impossible.add(number)
        return found

    def _ruled_out(self, shown: Sequence[Word], asked: list[SolverQuery]) -> bool:
        return self.ask.first([shown], rlimit=BREACH, asked=asked) is Answer.UNSAT

    @cached_property
    def dirty_traps(self) -> list[tuple[tuple[Term, ...], Trap[S], tuple[str, ...]]]:
        """Traps on the hardware that leave other than the state before: conditions, trap, and what may be lost."""
        found = []
        before = self.hardware.before
        for path in self.hardware.paths:
            trap = path.result
            if not isinstance(trap, Trap) or trap.state is before:
                continue
            shown = Breach(BreachKind.UNLIKE, "", path.conditions, TRUE).conditions
            if shown and self.ask.first([shown], rlimit=BREACH) is not Answer.UNSAT:
                found.append((path.conditions, trap, overwritten(before, trap.state)))
        return found

    @cached_property
    def private_parts(self) -> frozenset[str]:
        """What the VMM owns or arranges: leaves of the hardware's state that do not come from the guest."""
        return self.subject.once(_PARTS, self._parts, self.hardware.before)

    def _parts(self, hardware: S) -> frozenset[str]:
        arranged = {
            leaf.name
            for leaf in hardware.leaves
            if any(name.endswith(OF_THE_VMM) for name in terms.variables_of([hardware[leaf.name].term]))
        }
        for slot in hardware.layout:
            if slot.address and slot.role is not Role.MEMORY:
                content = hardware.memories()[slot.name]
                read = terms.applications_of([content.load(probe(content)).term])
                if any(str(cell.data).endswith(OF_THE_VMM) for cell in read):
                    arranged.add(slot.name)
        return frozenset(arranged | set(self.technique.owned))

    def possible(self, breach: Breach, asked: list[SolverQuery]) -> Answer:
        """Whether a promise can be broken in this way, within bounds; what is asked for that is added."""
        return self.ask.first([breach.conditions] if breach.conditions else [], rlimit=BREACH, asked=asked)


def overwritten(before: S, after: S) -> tuple[str, ...]:
    """Components and memories of the guest that a run may have lost; none where the old can be told from the new."""
    old, new = before.words(), after.words()
    changed = [name for name in old if old[name].term is not new[name].term]
    stored = [name for name, content in before.memories().items() if content is not after.memories()[name]]
    held = {*terms.variables_of([old[name].term for name in changed]), *stored}
    if not stored and all(_told(old[name].term, new[name].term, held) for name in changed):
        return ()
    return tuple(name for name in (*old, *before.memories()) if name in held)


def _told(old: Term, new: Term, lost: set[str]) -> bool:
    """The new value is the old one and something that depends on nothing that may be lost; case by case, if need be."""
    if new.op == "ite" and _independent(new.args[0], lost):
        condition, *branches = new.args
        return all(
            _told(old, _given(case, branch), lost)
            for case, branch in zip((condition, terms.invert(condition)), branches, strict=True)
        )
    return _independent(terms.arithmetic("sub", new, old), lost)


def _independent(term: Term, lost: set[str]) -> bool:
    read = {*terms.variables_of([term]), *(str(cell.data) for cell in terms.applications_of([term]))}
    return lost.isdisjoint(read) and not any(name.startswith(UNDEFINED) for name in read)


def _given(condition: Term, term: Term) -> Term:
    """The term where the condition holds: a bank's register where its number is one."""
    known = terms.literals([condition])
    known |= {
        fact.args[0]: fact.args[1]
        for fact, truth in known.items()
        if truth is terms.ONE and fact.op == "eq" and fact.args[1].op == "const"
    }
    return terms.Substitution(known=known)(term)
