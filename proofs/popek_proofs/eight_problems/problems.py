"""The eight problems of ring deprivileging (Uhlig et al. 2005), as questions to a machine under a technique.

Each problem is one or more questions of which a witness makes it present: a run, or a pair of runs, of one
instruction (of three, for hidden state).  A question names no instruction: it looks through all of them, or
through those it is given.  It speaks of the machine and the technique alone, so the same eight can be asked of a
processor with hardware support.

One module, though long: the eight problems one after the other, as the paper has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import attrs

from popek.checks.carrying import packing, unpacked
from popek.checks.subject import Subject
from popek.checks.verdict import Truth, either
from popek.kernel.machine import UnknownNameError
from popek.work import results

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
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[FoundProblem]:
    """Ask about problems.

    Args:
        every: find every form that has a problem, not only the first.
        jobs: processes; 0 for one per processor.
        progress: called with the number of questions that are done and of all.

    Raises:
        ReplayError: a defect of popek.
    """
    subject = asking.subject
    pieces = [(problem.name, place) for problem in problems for place in range(len(problem.questions))]
    forms = tuple(instruction.form for instruction in asking.forms)
    if subject.found_as is None or any(PROBLEMS.get(problem.name) is not problem for problem in problems):
        own = {problem.name: problem for problem in problems}
        found: Iterator[Answered] = map(_answering(asking, every, own), pieces)
    else:
        sent = results(_asking, (subject, forms, every), pieces, jobs=jobs)
        found = unpacked(subject, pieces, sent, lambda: _answering(asking, every, PROBLEMS))
    answers: dict[str, list[Answered]] = {problem.name: [] for problem in problems}
    for number, ((name, _), answer) in enumerate(zip(pieces, found, strict=True), 1):
        answers[name].append(answer)
        if progress is not None:
            progress(number, len(pieces))
    return [FoundProblem(problem, tuple(answers[problem.name])) for problem in problems]


_Piece = tuple[str, int]
"""A problem, and which of its questions."""


def _asking(subject: Subject[Any], forms: Sequence[str], every: bool) -> Callable[[_Piece], bytes | None]:
    known = subject.machine.instructions
    asking = Asking(subject, tuple(known[form] for form in forms))
    return packing(subject, _answering(asking, every, PROBLEMS))


def _answering(asking: Asking, every: bool, known: Mapping[str, Problem]) -> Callable[[_Piece], Answered]:
    """What answers a question."""

    def answer(piece: _Piece) -> Answered:
        name, place = piece
        return known[name].questions[place](asking, every)

    return answer


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
