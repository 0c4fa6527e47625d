"""A kind of line that dumps contain, and what reads it into a dump."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from ..fields import FIELDS
from .model import DumpBuilder

Reader = Callable[[DumpBuilder, re.Match[str], int], None]

HEX = r"(?:0[xX])?[0-9a-fA-F]+"
"""A hexadecimal number with or without its prefix."""


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@attrs.frozen
class LineKind:
    """A kind of line.

    Attributes:
        pattern: matches the line from its beginning.
        read: puts the match, found on a line with a number, into a dump.
        starts: whether such a line begins another dump when fields were read before.
        applies: a closer look, or None if the pattern decides.
        format: that nothing else has such lines of, or empty.
    """

    pattern: re.Pattern[str] = attrs.field(converter=_compiled)
    read: Reader
    starts: bool = False
    applies: Callable[[DumpBuilder, re.Match[str]], bool] | None = None
    format: str = ""


def number(text: str) -> int:
    """Return a hexadecimal number, which may be grouped by backquotes."""
    return int(text.replace("`", ""), 16)


def put(builder: DumpBuilder, field_id: str, text: str, line: int, *, high: bool = False) -> None:
    """Record a field from its hexadecimal text; `high`: the text is the upper half of a 64-bit field.

    A number that is none, that does not fit, or that may have been cut is left out, and a remark says so.
    """
    width = 32 if high else FIELDS[field_id].width
    try:
        value = number(text)
    except ValueError:
        builder.remark(line, f"{field_id}: expected a hexadecimal number, found {text[:40]!r}: not read")
        return
    if value < 0 or value >> width:
        builder.remark(line, f"{field_id}: {text[:40]} does not fit in {width} bits: not read")
        return
    digits = text.lower().removeprefix("0x").replace("`", "")
    if line in builder.doubtful and 4 * len(digits) < width:
        builder.remark(
            line, f"{field_id}: the number {text[:40]} may go on behind the end of the line: not read"
        )
        return
    if high:
        builder.upper_halves[field_id] = (value, line)
    else:
        builder.set(field_id, value, line)


def ignore(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    """Read nothing from decoration: a ruler, a table heading, a comment."""
