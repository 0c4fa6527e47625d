"""A form of somebody's own does on numbers what was explored: tried before anything is said of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import popek
from popek.checks.presence import Present
from popek.checks.runs import Run, operating_mode
from popek.checks.subject import Subject
from popek.checks.trial_law import RandomStates, breaks_the_law
from popek.kernel.instruction import Instruction
from popek.kernel.outcome import SemanticsError
from popek.kernel.state import State

S = TypeVar("S", bound=State)

TRIED = 8  # states on numbers


def assert_one_semantics(
    subject: Subject[S], instruction: Instruction, run: Run[S], there: Callable[[], Present[S]]
) -> None:
    """A form of somebody's own does on numbers what was explored, from some states.  Those of popek are
    tested.

    Raises:
        SemanticsError: it does not.
    """
    if instruction.semantics.__module__.partition(".")[0] == popek.__name__:
        return
    start = next(iter(there().states.values()))[0]
    known = RandomStates(subject.machine, start, random.Random(instruction.form))
    fixed = operating_mode(subject.machine, subject.configuration)
    how = breaks_the_law(instruction, run, known, fixed, TRIED)
    if how:
        raise SemanticsError(f"{subject.machine.name}, {how}")
