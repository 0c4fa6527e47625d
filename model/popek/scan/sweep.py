"""Linear sweep over a program: which forms occur, where, and what is none of the machine's."""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterator

import attrs

from popek.kernel.code import MachineCode

from .programs import Program, Stretch


@attrs.frozen
class Occurrence:
    """One instruction at its place.

    Attributes:
        function: in which it lies; empty where no symbol says so.
        offset: where it begins in the file; None where the file does not hold it.
    """

    section: str
    address: int
    function: str
    raw: bytes
    form: str
    text: str
    offset: int | None = None


@attrs.frozen
class Swept:
    """What a sweep found.

    Attributes:
        program, code, mode: what was read, and how.
        starts: per form where it begins: the number of the stretch in the upper bits, the offset in the lower.
        lacking: what the machine has no form for, counted by mnemonic.
        undecoded: bytes where no instruction begins.
        instructions: how many were read.
        size: bytes that were read.
    """

    program: Program = attrs.field(repr=False)
    code: MachineCode
    mode: int
    starts: dict[str, array[int]]
    lacking: Counter[str]
    undecoded: int
    instructions: int
    size: int

    @property
    def counts(self) -> dict[str, int]:
        """How often each form occurs."""
        return {form: len(starts) for form, starts in self.starts.items()}

    def places(self, form: str) -> Iterator[Occurrence]:
        """Where a form occurs; each is read once more for its text."""
        for packed in self.starts.get(form, ()):
            stretch, offset = self.program.stretches[packed >> SHIFT], packed & (1 << SHIFT) - 1
            one = next(self.code.sweep(stretch.data, offset, offset + 1, self.mode))
            raw, address = stretch.data[offset : offset + one.size], stretch.base + offset
            function = _function(stretch, offset)
            inside = None if stretch.offset is None else stretch.offset + offset
            yield Occurrence(stretch.name, address, function, raw, form, one.text, inside)


SHIFT = 40


def sweep(
    program: Program, code: MachineCode, mode: int, *, progress: Callable[[int, int], None] | None = None
) -> Swept:
    """Read every stretch from its start, and anew from each function."""
    starts: dict[str, array[int]] = {}
    lacking: Counter[str] = Counter()
    size = sum(len(one.data) for one in program.stretches)
    undecoded = instructions = done = 0
    for number, stretch in enumerate(program.stretches):
        inside = {address - stretch.base for address, _ in stretch.functions}
        begins = sorted({0, *(offset for offset in inside if 0 < offset < len(stretch.data))})
        for start, end in itertools.pairwise([*begins, len(stretch.data)]):
            for one in code.sweep(stretch.data, start, end, mode):
                if not one.text:
                    undecoded += 1
                    continue
                instructions += 1
                if one.form:
                    starts.setdefault(one.form, array("Q")).append(number << SHIFT | one.offset)
                else:
                    lacking[_mnemonic(one.text)] += 1
                if progress is not None and instructions % 10_000 == 0:
                    progress(done + one.offset, size)
        done += len(stretch.data)
    return Swept(program, code, mode, starts, lacking, undecoded, instructions, size)


def _function(stretch: Stretch, offset: int) -> str:
    """The function that begins last before an offset."""
    index = bisect.bisect_right(stretch.functions, stretch.base + offset, key=lambda one: one[0]) - 1
    return stretch.functions[index][1] if index >= 0 else ""


def _mnemonic(text: str) -> str:
    """The first word, with a prefix that repeats or locks."""
    words = text.split()
    prefixed = words[0] in ("rep", "repe", "repne", "lock", "bnd", "notrack") and len(words) > 1
    return " ".join(words[:2] if prefixed else words[:1])
