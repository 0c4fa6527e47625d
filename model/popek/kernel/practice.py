"""How a machine is used: what the literature names first, what its kernels do, and where a witness is easy to run.

A package of a machine says so of itself, so that questions about any machine name no instruction and no register.
Whether something is so never depends on it: examples decide where a search begins, code what is counted along it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from .words import TRUE, Word

Step: TypeAlias = tuple[str, Mapping[str, int]]
"""A form with its operands, a number per operand part; parts that are missing are the smallest."""


@attrs.frozen
class Reloading:
    """A program that shows a hidden part of a register: load it, change what it was loaded from, use it.

    Who saves and loads the register in between, with what instructions can save, uses something else.

    Attributes:
        load, change, use: the steps, run in this order.
        place: the operand part of `change` that the solver chooses: where the source lies.
        shown: the leaf in which the use shows.
        easy: ends, undisturbed and disturbed, of which a witness is easiest to set up (conditions of width 1).
    """

    load: Step
    change: Step
    use: Step
    place: str
    shown: str
    easy: Callable[[Any, Any], Sequence[Word]] = lambda undisturbed, disturbed: ()


@attrs.frozen
class Practice:
    """What is known of a machine besides its semantics.

    Attributes:
        examples: forms to look at first, by the name of a question: those that the literature names.
        code: pieces of kernel code, by what they do.
        reloading: how a program shows a hidden part of a register, where there is one.
        easy_end: states (width 1) in which a witness that transfers control is easy to run on an emulator.
    """

    examples: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    code: Mapping[str, tuple[Step, ...]] = attrs.field(factory=dict)
    reloading: Reloading | None = None
    easy_end: Callable[[Any], Word] = lambda state: TRUE
