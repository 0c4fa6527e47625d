"""What is scanned: stretches of code with the names of functions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from popek.errors import PopekError
from popek.kernel.code import MachineCode


class ScanError(PopekError):
    """A file that cannot be scanned: one line with its name and what is wrong."""


@attrs.frozen
class Stretch:
    """Code that lies together.

    Attributes:
        name: of the section, or how the code was given.
        base: address of the first byte.
        data: the bytes.
        functions: the address where each begins and its name, by address.
        offset: where the first byte lies in the file; None where the file does not hold these bytes.
    """

    name: str
    base: int
    data: bytes = attrs.field(repr=False)
    functions: tuple[tuple[int, str], ...] = ()
    offset: int | None = None


@attrs.frozen
class Program:
    """What a file holds.

    Attributes:
        source: its name.
        code: how its code is read, where the file says so.
        remarks: what is odd about it, a line each.
        path: where it lies; None where it is no file.
    """

    source: str
    stretches: tuple[Stretch, ...]
    code: MachineCode | None = None
    remarks: tuple[str, ...] = ()
    path: Path | None = None


def part(data: bytes, offset: int, size: int, name: str, remarks: list[str]) -> bytes:
    """Bytes of a file; what lies beyond its end becomes a remark."""
    found = data[offset : offset + size]
    if len(found) < size:
        remarks.append(f"{name}: {size - len(found)} of {size} bytes lie beyond the end of the file")
    return found


def overlaps(stretches: Sequence[Stretch]) -> Iterator[str]:
    """Sections that claim the same addresses."""
    by_address = sorted(stretches, key=lambda one: one.base)
    for one, other in itertools.pairwise(by_address):
        if one.base + len(one.data) > other.base:
            yield f"{one.name} and {other.name} overlap; each was scanned"
