"""Lines `NAME = value` of a VMCB: which are some, and in which style they are written."""

from __future__ import annotations

import re
from collections import Counter

from popek.architectures.logs import LogLine

from .vmcb import UnknownVmcbField, VmcbField, find

_NAMED = re.compile(r"#?\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(0[xX][0-9a-fA-F]+|\d+)\s*$")


def named_field(text: str) -> tuple[VmcbField, str] | None:
    """The field and the digits of a line `NAME = value`."""
    match = _NAMED.match(text)
    if match is None:
        return None
    try:
        return find(match[1]), match[2]
    except UnknownVmcbField:
        return None


def is_listing(lines: list[LogLine]) -> bool:
    """Whether registers in lines `NAME = value` are a VMCB's: one names a control, or there is nothing else."""
    found = [named_field(line.text) for line in lines]
    if any(item is not None and item[0].area != "save" for item in found):
        return True
    return all(
        item is not None or not line.text or line.text[0] == "#"
        for item, line in zip(found, lines, strict=True)
    )


def style_of(text: str) -> tuple[bool, bool]:
    """How a line `NAME = value` is written: behind `#`, with blanks around the sign."""
    return text.startswith("#"), " =" in text


def styles(lines: list[LogLine], *, headed: bool) -> frozenset[tuple[bool, bool]] | None:
    """The styles of the lines `NAME = value` that are read, of which most are; None: all."""
    found = Counter(style_of(line.text) for line in lines if named_field(line.text) is not None)
    if headed or not found or found.most_common(1)[0][1] < 3:
        return None
    return frozenset((found.most_common(1)[0][0],))


__all__ = ["is_listing", "named_field", "style_of", "styles"]
