"""Small words of reports."""

from __future__ import annotations

from rich.text import Text

from popek.checks.ladder import Ladder


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as `1 form` and `2 forms`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def evidence(found: Ladder) -> Text:
    """How far the evidence of some answers goes, in a line."""
    return Text(f"evidence of {counted(found.questions, 'answer')}: {found}", "dim")
