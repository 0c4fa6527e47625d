"""Where a number at the end of a line may have been cut: of no width that is known, it looks like a shorter one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .logs import LogLine

_TIED: Final = 3
"""So many longest lines of equal length are no accident, if there are other lines."""
_PASTED: Final = 2
_REST_OF_NUMBER = re.compile(r"[0-9a-fA-F]+(?!\w)")
_NUMBER_AT_END = re.compile(r"[0-9a-fA-F]$")


def open_end(text: str, groups: Sequence[Sequence[LogLine]], least: int = _PASTED) -> int:
    """The last line, if a text of `least` lines ends in a digit, else 0: a single line is often typed by hand."""
    numbers = [line.number for lines in groups for line in lines if line.text]
    return max(numbers) if len(numbers) >= least and _NUMBER_AT_END.search(text[-1:]) else 0


def cut_lines(lines: Sequence[LogLine], unknown: Sequence[bool]) -> frozenset[int]:
    """The longest lines, if they show that all are cut at a column; `unknown` says which lines are no format's."""
    longest = max((line.width for line in lines), default=0)
    cut = [place for place, line in enumerate(lines) if line.width == longest]
    shown = (len(cut) >= _TIED and 4 * len(cut) <= 3 * len(lines) and len(lines) > 2 * _TIED) or (
        len(cut) > 1 and any(unknown[place] for place in cut)
    )
    return frozenset(lines[place].number for place in cut if shown)


def unended_lines(lines: Sequence[LogLine], unknown: Sequence[bool], last: int) -> frozenset[int]:
    """The line `last` (`open_end`), and those before a line that begins with what may be the rest of a number."""
    found = {last} if last else set()
    for place, line in enumerate(lines[:-1]):
        following = lines[place + 1].text
        if unknown[place + 1] and _NUMBER_AT_END.search(line.text) and _REST_OF_NUMBER.match(following):
            found.add(line.number)
    return frozenset(found)


__all__ = ["cut_lines", "open_end", "unended_lines"]
