"""Linear sweep over a program: which forms occur, where, and what is none of the machine's."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Callable

import attrs

from popek.kernel.code import MachineCode

from .files import Program, Stretch


@attrs.frozen
class Occurrence:
    """One instruction at its place.

    Attributes:
        function: in which it lies; empty where no symbol says so.
    """

    section: str
    address: int
    function: str
    raw: bytes
    form: str
    text: str


@attrs.frozen
class Swept:
    """What a sweep found.

    Attributes:
        places: the occurrences of each form.
        lacking: what the machine has no form for, counted by mnemonic.
        undecoded: bytes where no instruction begins.
        instructions: how many were read.
        size: bytes that were read.
    """

    places: dict[str, list[Occurrence]]
    lacking: Counter[str]
    undecoded: int
    instructions: int
    size: int


def sweep(
    program: Program, code: MachineCode, mode: int, *, progress: Callable[[int, int], None] | None = None
) -> Swept:
    """Read every stretch from its start, and anew from each function."""
    found = Swept({}, Counter(), 0, 0, sum(len(one.data) for one in program.stretches))
    undecoded = instructions = done = 0
    for stretch in program.stretches:
        starts = [max(address - stretch.base, 0) for address, _ in stretch.functions]
        ends = sorted({0, len(stretch.data), *(start for start in starts if start < len(stretch.data))})
        for start, end in itertools.pairwise(ends):
            name = _function(stretch, start)
            for one in code.sweep(stretch.data, start, end, mode):
                if not one.text:
                    undecoded += 1
                    continue
                instructions += 1
                if not one.form:
                    found.lacking[_mnemonic(one.text)] += 1
                    continue
                raw = stretch.data[one.offset : one.offset + one.size]
                place = Occurrence(stretch.name, stretch.base + one.offset, name, raw, one.form, one.text)
                found.places.setdefault(one.form, []).append(place)
            if progress is not None:
                progress(done + end, found.size)
        done += len(stretch.data)
    return attrs.evolve(found, undecoded=undecoded, instructions=instructions)


def _function(stretch: Stretch, offset: int) -> str:
    """The function that begins last before an offset."""
    addresses = [address for address, _ in stretch.functions]
    index = bisect.bisect_right(addresses, stretch.base + offset) - 1
    return stretch.functions[index][1] if index >= 0 else ""


def _mnemonic(text: str) -> str:
    """The first word, with a prefix that repeats or locks."""
    words = text.split()
    prefixed = words[0] in ("rep", "repe", "repne", "lock", "bnd", "notrack") and len(words) > 1
    return " ".join(words[:2] if prefixed else words[:1])
