"""Red pills: the shortest guest program that finds out that it runs in a virtual machine.

Where the premise of a theorem fails, its construction breaks, and a program can show it.  The search runs the
same program on the bare machine and under the monitor, compares what the program can see after each
instruction, and tries all programs of one length before any longer one; so a shorter one does not exist among
the instructions, operands and start states that were tried, and the result says how many programs that were.

A program has an instruction wherever the program counter arrives, so a jump costs nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from popek.kernel.machine import Machine
from popek.kernel.program import Line
from popek.kernel.state import State
from popek.kernel.words import Word

from .monitor import Monitor, StoppedError, bare_step, shown

S = TypeVar("S", bound=State)


@attrs.frozen(eq=False)
class RedPill(Generic[S]):
    """A program that tells a virtual machine from the bare one, or gets out of it.

    Attributes:
        program: its instructions, in the order they are executed.
        start: the guest state it starts in.
        bare, virtual: what it sees in the end, where the two differ.
        escape: what it did to the monitor's resources, where that is how it was found.
    """

    program: tuple[Line, ...]
    start: S
    bare: Mapping[str, int]
    virtual: Mapping[str, int]
    escape: str

    @property
    def breaks(self) -> str:
        """Which property of a virtual machine monitor does not hold."""
        return "resource control" if self.escape else "equivalence"

    def __str__(self) -> str:
        lines = "; ".join(map(str, self.program))
        if self.escape:
            return f"{lines}: {self.escape}"
        differ = ", ".join(f"{n} is {self.bare[n]:#x}, here {self.virtual[n]:#x}" for n in self.bare)
        return f"{lines}: on the bare machine {differ}"

    def to_json(self) -> dict[str, object]:
        """The program as assembly, and what it sees."""
        return {
            "program": [str(line) for line in self.program],
            "start": {
                leaf.name: hex(int(self.start[leaf.name]))
                for leaf in self.start.leaves
                if int(self.start[leaf.name]) != leaf.reset
            },
            "bare": {name: hex(value) for name, value in self.bare.items()},
            "virtual": {name: hex(value) for name, value in self.virtual.items()},
            "breaks": self.breaks,
            "escape": self.escape or None,
        }


@attrs.frozen(eq=False)
class Search(Generic[S]):
    """What a search found.

    Attributes:
        pill: the shortest program, None where none of the tried length tells.
        tried: per length, how many programs were run that do not tell; those that lead two of them into the
            same pair
            of states are counted once from there on.
    """

    pill: RedPill[S] | None
    tried: tuple[int, ...]


def lines(machine: Machine[S], values: Sequence[int]) -> tuple[Line, ...]:
    """Every instruction with every choice of these values for its operand parts."""
    return tuple(_lines(machine, values))


def _lines(machine: Machine[S], values: Sequence[int]) -> Iterator[Line]:
    for instruction in machine.instructions.values():
        widths = instruction.widths
        for chosen in itertools.product(
            *([v for v in values if not v >> width] for width in widths.values())
        ):
            operands = dict(zip(widths, chosen, strict=True))
            if bool(instruction.valid(instruction.words(operands))):
                yield Line(instruction, operands)


@attrs.frozen(eq=False)
class _Pair(Generic[S]):
    program: tuple[Line, ...]
    start: S
    bare: S
    guest: S


def shortest_red_pill(
    monitor: Monitor[S], starts: Sequence[S], program_lines: Sequence[Line], longest: int
) -> Search[S]:
    """The shortest program that tells, by trying all shorter ones first.

    Args:
        monitor: under which the guest runs.
        starts: guest states to start in.
        program_lines: what a program may consist of.
        longest: the greatest length to try.
    """
    pairs = [_Pair((), start, start, start) for start in starts]
    seen = {_key(pair, monitor.cells) for pair in pairs}
    tried: list[int] = []
    for _ in range(longest):
        following: list[_Pair[S]] = []
        count = 0
        for pair in pairs:
            for line in program_lines:
                try:
                    bare = bare_step(monitor.machine, pair.bare, line.instruction, line.words)
                    step = monitor.step(pair.guest, line.instruction, line.words)
                except StoppedError:
                    continue
                after = _Pair((*pair.program, line), pair.start, bare, step.guest)
                left, right = (shown(monitor.machine, s, monitor.cells) for s in (bare, step.guest))
                differ = [name for name in left if left[name] != right[name]]
                if differ or step.escape:
                    pill = RedPill(
                        after.program,
                        pair.start,
                        {name: left[name] for name in differ},
                        {name: right[name] for name in differ},
                        step.escape,
                    )
                    return Search(pill, tuple(tried))
                count += 1
                key = _key(after, monitor.cells)
                if key not in seen:
                    seen.add(key)
                    following.append(after)
        tried.append(count)
        pairs = following
    return Search(None, tuple(tried))


def _key(pair: _Pair[S], cells: Mapping[str, int]) -> tuple[int, ...]:
    """Both states, all of them."""
    found: list[int] = []
    for state in (pair.bare, pair.guest):
        found += [int(word) for word in state.words().values()]
        for name, size in cells.items():
            content = state.memories()[name]
            found += [int(content.load(Word(content.address_width, a))) for a in range(size)]
    return tuple(found)
