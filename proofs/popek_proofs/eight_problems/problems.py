"""The eight problems of ring deprivileging (Uhlig et al. 2005), as questions to a machine under a technique.

Each problem is one or more questions of which a witness makes it present: a run, or a pair of runs, of one
instruction (of three, for hidden state).  A question names no instruction: it looks through all of them, or
through those it is given.  It speaks of the machine and the technique alone, so the same eight can be asked of a
processor with hardware support.

One module, though long: the eight problems one after the other, as the paper has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import attrs

from popek.checks.verdict import Truth, either
from popek.kernel.machine import UnknownNameError

from .search import Answered, Asking
from .what_shows import ring_aliasing, seen_storage, silent_reads, taken_addresses
from .what_traps import (
    bypassed_kernel,
    frequent_traps,
    lost_interrupt_flag,
    no_way_back,
    one_ring_for_two,
    system_calls,
    system_returns,
    trapping_interrupt_flag,
)

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
class FoundProblem:
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
) -> list[FoundProblem]:
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
        found.append(FoundProblem(problem, tuple(answers)))
    return found


__all__ = [
    "PROBLEMS",
    "SOURCE",
    "FoundProblem",
    "Problem",
    "Question",
    "ask",
    "bypassed_kernel",
    "find",
    "frequent_traps",
    "lost_interrupt_flag",
    "no_way_back",
    "one_ring_for_two",
    "ring_aliasing",
    "seen_storage",
    "silent_reads",
    "system_calls",
    "system_returns",
    "taken_addresses",
    "trapping_interrupt_flag",
]
