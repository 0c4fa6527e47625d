"""Problems 4 to 8: transitions, interrupts, levels and hidden state, and what traps all the time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from popek.checks.runs import Run
from popek.checks.situation import Situation, holds_together
from popek.checks.verdict import Truth
from popek.kernel.outcome import Trap
from popek.kernel.words import TRUE, Word, all_of, any_of
from popek.solving.solver import Answer

from .hidden_state import hidden_state
from .search import Answered, Asking, Way, changes, mode_leaves, search
from .traces import costs

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
