"""Programs: instructions with their operands filled in, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import attrs

from .instruction import Instruction
from .machine import Machine
from .outcome import Next, Outcome
from .state import State
from .words import Word

S = TypeVar("S", bound=State)


@attrs.frozen(eq=False)
class Line:
    """One instruction of a program.

    Attributes:
        instruction: the form.
        operands: a number per operand part, by its name as a symbol.
    """

    instruction: Instruction
    operands: Mapping[str, int]

    @property
    def words(self) -> dict[str, Word]:
        """The operands as the semantics take them."""
        return self.instruction.words(self.operands)

    def __str__(self) -> str:
        return self.instruction.assembly(self.operands)


def line(machine: Machine[S], form: str, operands: Mapping[str, int]) -> Line:
    """A form of a machine with some of its operands; the others are the smallest."""
    instruction = machine.instructions[form]
    smallest = instruction.smallest
    unknown = sorted(operands.keys() - smallest.keys())
    if unknown:
        raise KeyError(f"{form} has no {', '.join(unknown)}; it has {', '.join(smallest)}")
    return Line(instruction, {**smallest, **operands})


def run_lines(machine: Machine[S], lines: Sequence[Line], before: S) -> tuple[Outcome[S], int]:
    """Run a program on numbers; it stops at the first instruction that does not complete.

    Returns:
        The last outcome, and the index of the instruction that it is of.
    """
    outcome: Outcome[S] = Next(before)
    for number, line in enumerate(lines):
        assert isinstance(outcome, Next)
        outcome = machine.step(line.instruction, outcome.state, line.words)
        if not isinstance(outcome, Next):
            return outcome, number
    return outcome, len(lines) - 1
