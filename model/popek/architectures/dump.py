"""What readers of dumps have in common: mistakes with their line, and remarks beside what was read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from popek.errors import PopekError


class DumpError(PopekError):
    """An input that cannot be read: `message` is one line, `line` counts from 1 (0: the file as a whole)."""

    def __init__(self, message: str, line: int = 0) -> None:
        """Say in one line what is wrong, and on which line."""
        super().__init__(message)
        self.message = message
        self.line = line


def printable(text: str) -> str:
    """Return a text without what a terminal or an encoder would choke on.

    >>> printable("a\\x1b[2Jb")
    'a\ufffd[2Jb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text.replace("\t", " "))


@attrs.frozen
class Remark:
    """Something the reader of a dump should know about one line of it."""

    line: int
    text: str


def beside(dump: Any) -> dict[str, Any]:
    """What was not read of a dump, and what was dropped, as JSON has it."""
    found: dict[str, Sequence[Remark]] = {"unrecognised": dump.unrecognised, "remarks": dump.remarks}
    return {
        key: [{"line": item.line, "text": item.text} for item in items]
        for key, items in found.items()
        if items
    }


__all__ = ["DumpError", "Remark", "beside", "printable"]
