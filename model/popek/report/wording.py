"""Small words of reports."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as `1 form` and `2 forms`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
