"""What an induction over traces needs to know of how interrupts reach a guest.

A *world* is what decides delivery at an instruction boundary of the guest: the guest's side, the controls, and the
VMM's bookkeeping.  The declaration states what holds of each step; who asks, and who looks for a shortest trace, is
the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from .exploration import Path
from .instruction import Instruction
from .machine import Machine
from .words import Word

Claim = tuple[str, Word, Word]
"""A promise, an assumption and a conclusion (width 1)."""


@attrs.frozen(eq=False)
class TraceStep:
    """One step of a trace.

    Attributes:
        event: what happens, in words.
        before, after: the worlds, of numbers.
        injected: what the VMM gave the guest when it entered again, where it was left; 0 for nothing.
        given: what the guest was given: ``interrupt``, ``NMI`` or nothing.
        broken: the promises that this step breaks, and why where more can be said.
    """

    event: str
    before: Any
    after: Any
    injected: int | None
    given: str
    broken: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class Interrupts:
    """How interrupts reach a guest.

    Attributes:
        promises: what is proved of every trace, by name, with a statement each; `invariant` among them.
        controls, duties: what the promises rest on, by name, with a summary: the processor's, and the VMM's.
        choices: what the manual leaves open, by name, with a summary; 1 where nobody says.
        mnemonics: instructions that touch what decides delivery.
        machine: makes the machine whose instructions the guest executes.
        setup: what is in place, given what is dropped and the choices.
        steps: the claims of each step that is no instruction, by its name; given the setup.
        instruction: the claims of an instruction's paths, given the setup, the instruction, and its run.
        start: the first world.
        successors: every step from a world of numbers.
        described: a world of numbers by the names of its parts.
        words: the guest's side of a world in a few words.
    """

    promises: Mapping[str, str]
    controls: Mapping[str, str]
    duties: Mapping[str, str]
    choices: Mapping[str, str]
    mnemonics: tuple[str, ...]
    machine: Callable[[], Machine[Any]]
    setup: Callable[[frozenset[str], Mapping[str, int]], Any]
    steps: Callable[[Any], Iterator[tuple[str, Sequence[Claim]]]]
    instruction: Callable[[Any, Instruction, Any, Sequence[Path[Any]]], Sequence[Claim]]
    start: Callable[[], Any]
    successors: Callable[[Any, Any], Iterator[TraceStep]]
    described: Callable[[Any], Mapping[str, int]]
    words: Callable[[Any], str]
