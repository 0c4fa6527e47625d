"""The eight problems of ring deprivileging (Uhlig et al. 2005), as questions to a machine under a technique.

Each problem is one or more questions of which a witness makes it present: a run, or a pair of runs, of one
instruction (of three, for hidden state).  A question names no instruction: it looks through all of them, or
through those it is given.  It speaks of the machine and the technique alone, so the same eight can be asked of a
processor with hardware support.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import attrs

from popek.checks.promises import Keeper
from popek.checks.runs import Run
from popek.checks.situation import Situation, holds_together
from popek.checks.verdict import Status, Truth, either
from popek.kernel import terms
from popek.kernel.machine import UnknownNameError
from popek.kernel.outcome import Trap
from popek.kernel.state import Role, State
from popek.kernel.words import TRUE, Word, all_of, any_of
from popek.solving.solver import Answer

from .hidden_state import hidden_state
from .search import Answered, Asking, Way, changes, mode_leaves, search
from .traces import costs

SOURCE = "Uhlig et al., Intel Virtualization Technology, IEEE Computer 38(5), 2005"


Question = Callable[[Asking, bool], Answered]
"""A question: what is asked about, and whether every form that has the problem is wanted."""


@attrs.frozen(eq=False)
class Problem:
    """One of the eight.

    Attributes:
        name: stable, as the command line spells it.
        questions: any of which makes it present.
    """

    name: str
    title: str
    statement: str
    questions: tuple[Question, ...]
    source: str = SOURCE


@attrs.frozen(eq=False)
class Found:
    """What became of a problem under a technique."""

    problem: Problem
    answers: tuple[Answered, ...]

    @property
    def present(self) -> Truth:
        """Whether one of its questions has a witness."""
        return reduce(either, (answer.present for answer in self.answers))

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        return any(answer.present is Truth.UNKNOWN for answer in self.answers)

    def to_json(self) -> dict[str, object]:
        """An entry of `popek/problems/1`."""
        return {
            "name": self.problem.name,
            "title": self.problem.title,
            "statement": self.problem.statement,
            "source": self.problem.source,
            "present": self.present.value,
            "questions": [answer.to_json() for answer in self.answers],
        }


# -- 1. ring aliasing -----------------------------------------------------------------------------


def ring_aliasing(asking: Asking, every: bool) -> Answered:
    """The guest's kernel reads off the level at which it really runs."""

    def ways(s: Situation[Any]) -> Iterator[Way]:
        real = s.hardware.before
        other = s.guest.with_changes({name: real[name] for name in mode_leaves(s.machine)})
        run = s.general.at(other)
        given = [
            s.machine.supervisor(s.guest),
            s.technique.guest(s.guest),
            s.technique.deprivileged(other),
            *(s.machine.invariant(state) for state in (s.guest, other)),
            *(s.subject.holds(state, mentioned=s.general.mentioned) for state in (s.guest, other)),
            s.instruction.valid(s.general.operands),
        ]
        for conditions, a, b in s.pairs(list(s.native.completions()), s.kept(run)):
            for _, differs in s.visible(a, b):
                yield Way(
                    [*given, *holds_together(conditions), differs],
                    (s.guest, other),
                    ("at the level it was written for", "at the level it runs at"),
                    False,
                )

    return search(
        asking,
        every,
        "the guest's kernel sees the level at which it really runs",
        "The two states differ only in the level, neither run traps, and the program sees the difference.",
        lambda run: True,
        ways,
        "ring-aliasing",
    )


# -- 2. address-space compression -----------------------------------------------------------------


def taken_addresses(asking: Asking, every: bool) -> Answered:
    """A reference that the guest's own machine completes traps, because the VMM lives there."""

    def ways(s: Situation[Any]) -> Iterator[Way]:
        kernel = s.machine.supervisor(s.guest)
        for conditions, _ in s.native.completions():
            for others in s.storage_traps(s.hardware):
                yield Way(
                    [kernel, *holds_together(others, conditions)],
                    (s.guest, s.private),
                )

    return search(
        asking,
        every,
        "storage of the guest's is not there: the VMM lives at its addresses",
        "The guest's own machine completes the reference; on the hardware the address is the VMM's, and it traps.",
        _loads_or_stores,
        ways,
        "taken-addresses",
    )


def seen_storage(asking: Asking, every: bool) -> Answered:
    """What the VMM keeps in storage for the processor shows without a trap: its tables, where the guest has its own.

    The VMM's tables are what the processor finds through a register that the technique replaces.
    """
    machine, technique = asking.subject.machine, asking.subject.technique
    tables = {
        machine.state.leaf(name).component
        for name in technique.replaced
        if name not in machine.state.reset().memories()
    }
    keeper = Keeper(asking.subject)
    found: list[str] = []
    witness = None
    unknown = False
    for s in asking.situations(lambda run: _looks_through(run, tables), "seen-storage"):
        if s is None:
            unknown = True
            continue
        secrecy = keeper.secrecy(s.instruction, s.general)
        unknown = unknown or secrecy.status is Status.UNKNOWN
        if secrecy.status is Status.REFUTED:
            found.append(s.instruction.form)
            witness = witness or secrecy.witness
            if not every:
                break
    present = Truth.YES if found else (Truth.UNKNOWN if unknown else Truth.NO)
    return Answered("what the VMM keeps in its tables shows", present, witness, tuple(found))


def _loads_or_stores(run: Run[Any]) -> bool:
    return any(isinstance(path.result, Trap) and path.result.memory for path in run.paths)


def _looks_through(run: Run[Any], tables: set[str]) -> bool:
    """It reads storage at an address that one of these components decides, and changes no resource."""
    if any(
        after[leaf.name].term is not run.before[leaf.name].term
        for _, after in run.completions()
        for leaf in run.before.leaves
        if leaf.role in (Role.RESOURCE, Role.MODE)
    ):
        return False
    roots = [condition for path in run.paths for condition in path.conditions]
    roots += [term for _, after in run.completions() for term in _results(run.before, after)]
    storage = {slot.name for slot in run.before.layout if slot.address and slot.role is Role.MEMORY}
    places = [cell.args[0] for cell in terms.applications_of(roots) if cell.data in storage]
    return not tables.isdisjoint(terms.variables_of(places))


# -- 3. non-faulting access to privileged state ---------------------------------------------------


def silent_reads(asking: Asking, every: bool) -> Answered:
    """A register that the VMM holds for itself shows without a trap."""
    machine, technique = asking.subject.machine, asking.subject.technique
    memories = {slot.name for slot in machine.state.layout if slot.address}
    replaced = tuple(
        name
        for name in technique.replaced
        if name not in memories and machine.state.leaf(name).role is not Role.TIME
    )

    def wanted(run: Run[Any]) -> bool:
        read = {machine.state.leaf(name).component for name in replaced}
        return any(
            not read.isdisjoint(terms.variables_of(_results(run.before, after)))
            for _, after in run.completions()
        )

    def ways(s: Situation[Any]) -> Iterator[Way]:
        fixed = {
            setting.leaf for setting in machine.settings if setting.name in s.subject.configuration.settings
        }
        other = s.with_fresh(s.guest, [name for name in replaced if name not in fixed])
        run = s.general.at(other)
        given = [
            s.instruction.valid(s.general.operands),
            *(
                condition
                for state in (s.guest, other)
                for condition in (
                    technique.deprivileged(state),
                    machine.invariant(state),
                    s.subject.holds(state, mentioned=s.general.mentioned),
                )
            ),
        ]
        for conditions, a, b in s.pairs(s.kept(s.native), s.kept(run)):
            for _, differs in s.visible(a, b):
                yield Way(
                    [*given, *holds_together(conditions), differs],
                    (s.guest, other),
                    ("one value of the VMM's", "another one"),
                    False,
                )

    return search(
        asking,
        every,
        "privileged state can be read without a fault",
        "The two states differ only in what the VMM holds for itself, neither run traps, and the program sees it.",
        wanted,
        ways,
        "silent-reads",
    )


def _results(before: State, after: State) -> list[terms.Term]:
    """The terms that a program can see, where a run changed them."""
    found = [
        after[leaf.name].term
        for leaf in after.leaves
        if leaf.role is Role.GENERAL and after[leaf.name].term is not before[leaf.name].term
    ]
    for slot in after.layout:
        if slot.address and slot.role is Role.MEMORY:
            for entry in after.memories()[slot.name].stores:
                if isinstance(entry, tuple):
                    found.append(entry[1].term)
    return found


# -- 4. guest system calls ------------------------------------------------------------------------


def _transition(asking: Asking, every: bool, question: str, story: str, leaves_user: bool) -> Answered:
    machine = asking.subject.machine
    transfers = changes(mode_leaves(machine))

    def ways(s: Situation[Any]) -> Iterator[Way]:
        start, end = (machine.user, machine.supervisor) if leaves_user else (machine.supervisor, machine.user)
        for conditions, after in s.native.completions():
            arrives = end(after)
            if arrives.value == 0:
                continue
            for others in s.reaching(s.hardware):
                yield Way(
                    [start(s.guest), arrives, *holds_together(others, conditions)],
                    (s.guest, s.private),
                    nicer=[machine.practice.easy_end(after)],
                )
        if leaves_user and _calls_by_trapping(s.native):
            # Where the guest's own machine traps, its trap enters its kernel.
            for path in s.native.paths:
                for others in s.reaching(s.hardware):
                    yield Way(
                        [start(s.guest), *holds_together(others, path.conditions)], (s.guest, s.private)
                    )

    def wanted(run: Run[Any]) -> bool:
        return transfers(run) or (leaves_user and _calls_by_trapping(run))

    return search(asking, every, question, story, wanted, ways, "transitions")


def _calls_by_trapping(run: Run[Any]) -> bool:
    """It does nothing but trap, in every mode and with one vector: a supervisor call (SVC, EMT, ECALL)."""
    outcomes = [path.result for path in run.paths]
    vectors = {outcome.vector for outcome in outcomes if isinstance(outcome, Trap) and not outcome.memory}
    return len(vectors) == 1 and all(isinstance(o, Trap) and not o.memory for o in outcomes)


def system_calls(asking: Asking, every: bool) -> Answered:
    """A way from the guest's programs into its kernel leads into the VMM."""
    return _transition(
        asking,
        every,
        "a system call of the guest's goes to the VMM, not to the guest's kernel",
        "On the guest's own machine this enters its kernel; on the hardware it reaches the VMM.",
        True,
    )


def system_returns(asking: Asking, every: bool) -> Answered:
    """The way back from the guest's kernel leads into the VMM."""
    return _transition(
        asking,
        every,
        "the return from a system call of the guest's traps",
        "On the guest's own machine this returns to a program; on the hardware it reaches the VMM.",
        False,
    )


def bypassed_kernel(asking: Asking, every: bool) -> Answered:
    """A transfer at the level of the guest's kernel ends in the VMM, and no trap tells it why."""

    def ways(s: Situation[Any]) -> Iterator[Way]:
        kernel = s.machine.supervisor(s.guest)
        arrivals = [
            ((*conditions, s.over(s.hardware, after).term), after)
            for conditions, after in s.hardware.completions()
        ]
        for conditions, after in s.native.completions():
            for others, arrived in arrivals:
                yield Way(
                    [kernel, s.machine.supervisor(after), *holds_together(others, conditions)],
                    (s.guest, s.private),
                    nicer=[s.machine.practice.easy_end(after), s.machine.practice.easy_end(arrived)],
                )

    return search(
        asking,
        every,
        "a transfer of the guest's kernel goes past it, into the VMM",
        "On the guest's own machine this enters its kernel anew; the hardware is in the VMM, without any trap.",
        changes(mode_leaves(asking.subject.machine)),
        ways,
        "bypassed-kernel",
    )


# -- 5. interrupt virtualization ------------------------------------------------------------------


def lost_interrupt_flag(asking: Asking, every: bool) -> Answered:
    """The guest changes what masks its interrupts and the VMM never learns of it."""
    masks = asking.subject.machine.interrupt_masks

    def ways(s: Situation[Any]) -> Iterator[Way]:
        kernel = s.machine.supervisor(s.guest)
        for conditions, a, b in s.pairs(list(s.native.completions()), s.kept(s.hardware)):
            lost = any_of(
                (a[mask] != s.guest[mask]) & (TRUE if mask in s.technique.shadowed else a[mask] != b[mask])
                for mask in masks
            )
            if lost.value != 0:
                yield Way(
                    [kernel, *holds_together(conditions), lost],
                    (s.guest, s.private),
                )

    if not masks:
        return Answered("a change of the interrupt flag is lost", Truth.NOT_ASKED)
    return search(
        asking,
        every,
        "a change of the interrupt flag is lost",
        "The guest's own machine changes the interrupt flag; on the hardware nothing happens, and nobody learns.",
        changes(masks),
        ways,
        "lost-interrupt-mask",
    )


def trapping_interrupt_flag(asking: Asking, every: bool) -> Answered:
    """Masking and unmasking interrupts costs a trap each time."""
    masks = asking.subject.machine.interrupt_masks

    def ways(s: Situation[Any]) -> Iterator[Way]:
        kernel = s.machine.supervisor(s.guest)
        stays = s.machine.supervisor
        for conditions, after in s.native.completions():
            changed = any_of(after[mask] != s.guest[mask] for mask in masks)
            if changed.value == 0:
                continue
            for others in s.reaching(s.hardware):
                yield Way(
                    [kernel, stays(after), changed, *holds_together(others, conditions)],
                    (s.guest, s.private),
                )

    question = "masking interrupts traps each time"
    if not masks:
        return Answered(question, Truth.NOT_ASKED)
    found = search(
        asking,
        every,
        question,
        "The guest's own machine masks or unmasks interrupts; on the hardware this traps each time.",
        changes(masks),
        ways,
        "trapping-interrupt-mask",
    )
    counted = costs(asking.subject, ("critical section",))
    return attrs.evolve(found, costs=counted)


# -- 6. ring compression --------------------------------------------------------------------------


def _shared_level(s: Situation[Any]) -> tuple[Word, ...]:
    """A program of the guest's, and a kernel of the guest's that the technique puts at the same real level."""
    modes = mode_leaves(s.machine)
    kernel = s.with_fresh(s.guest, modes, " of the kernel")
    mapped = s.technique.map(kernel, s.private)
    return (
        s.machine.user(s.guest),
        s.machine.supervisor(kernel),
        s.machine.invariant(kernel),
        s.technique.guest(kernel),
        all_of(mapped[name] == s.hardware.before[name] for name in modes),
    )


def one_ring_for_two(asking: Asking, every: bool) -> Answered:
    """What the guest's own machine denies its programs, the hardware lets them do."""
    question = "the guest's kernel is not protected from its programs"
    some = next((s for s in asking.situations(lambda run: True, "shared-level") if s is not None), None)
    if some is not None and some.first(iter([_shared_level(some)]))[0] is Answer.UNSAT:
        return Answered(question, Truth.NO)

    def ways(s: Situation[Any]) -> Iterator[Way]:
        given = _shared_level(s)
        denied = [p.conditions for p in s.native.paths if isinstance(p.result, Trap)]
        for others, _ in s.kept(s.hardware):
            for conditions in denied:
                yield Way(
                    [*given, *holds_together(others, conditions)],
                    (s.guest, s.private),
                )

    return search(
        asking,
        every,
        question,
        "The guest's own machine denies this to a program; on the hardware programs run at the level of the "
        "guest's kernel, and it completes.",
        lambda run: any(isinstance(path.result, Trap) for path in run.paths),
        ways,
        "ring-compression",
    )


# -- 8. frequent access to privileged resources ---------------------------------------------------


def frequent_traps(asking: Asking, every: bool) -> Answered:
    """An instruction of the guest's kernel traps, wrong or not: what matters is how often."""

    def ways(s: Situation[Any]) -> Iterator[Way]:
        kernel = s.machine.supervisor(s.guest)
        for conditions, after in s.native.completions():
            for others in s.reaching(s.hardware):
                yield Way(
                    [kernel, s.machine.supervisor(after), *holds_together(others, conditions)],
                    (s.guest, s.private),
                )

    found = search(
        asking,
        every,
        "what the guest's kernel does all the time traps",
        "The guest's own machine completes this in its kernel; on the hardware it traps each time.",
        lambda run: any(isinstance(path.result, Trap) and not path.result.memory for path in run.paths),
        ways,
        "frequent-traps",
    )
    return attrs.evolve(found, costs=costs(asking.subject))


def no_way_back(asking: Asking, every: bool) -> Answered:
    """A hidden part of a register is lost when the VMM takes over and gives back."""
    present, witness, forms = hidden_state(asking.subject)
    return Answered("hidden state does not survive a switch to the VMM", present, witness, forms)


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem(
            "ring-aliasing",
            "Ring aliasing",
            "software can find out that it does not run at the level it was written for",
            (ring_aliasing,),
        ),
        Problem(
            "address-space-compression",
            "Address-space compression",
            "the VMM needs a part of the guest's address space, which the guest can run into or look at",
            (taken_addresses, seen_storage),
        ),
        Problem(
            "non-faulting-access",
            "Non-faulting access to privileged state",
            "an instruction shows privileged state without a fault that the VMM could step in at",
            (silent_reads,),
        ),
        Problem(
            "system-calls",
            "Adverse impact on guest transitions",
            "entering and leaving the guest's kernel goes through the VMM",
            (system_calls, bypassed_kernel, system_returns),
        ),
        Problem(
            "interrupt-virtualization",
            "Interrupt virtualization",
            "the guest's interrupt flag is either lost or costs a trap each time",
            (lost_interrupt_flag, trapping_interrupt_flag),
        ),
        Problem(
            "ring-compression",
            "Ring compression",
            "the guest's kernel and its programs share one real level, so nothing keeps them apart",
            (one_ring_for_two,),
        ),
        Problem(
            "hidden-state",
            "Access to hidden state",
            "hidden parts of registers cannot be saved and loaded when the VMM takes over and gives back",
            (no_way_back,),
        ),
        Problem(
            "frequent-access",
            "Frequent access to privileged resources",
            "what the guest's kernel does all the time costs a trap each time",
            (frequent_traps,),
        ),
    )
}
"""The eight problems by name, in the order of the paper."""


def find(names: Sequence[str]) -> list[Problem]:
    """Problems by name; all of them when none is named.

    Raises:
        UnknownNameError: with near matches.
    """
    for name in names:
        if name not in PROBLEMS:
            raise UnknownNameError("problem", name, PROBLEMS)
    return [PROBLEMS[name] for name in names] or list(PROBLEMS.values())


def ask(
    problems: Sequence[Problem],
    asking: Asking,
    *,
    every: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Found]:
    """Ask about problems.

    Args:
        every: find every form that has a problem, not only the first.
        progress: called with the number of questions that are done and of all.

    Raises:
        ReplayError: a defect of popek.
    """
    total = sum(len(problem.questions) for problem in problems)
    done = 0
    found = []
    for problem in problems:
        answers = []
        for question in problem.questions:
            answers.append(question(asking, every))
            done += 1
            if progress is not None:
                progress(done, total)
        found.append(Found(problem, tuple(answers)))
    return found
