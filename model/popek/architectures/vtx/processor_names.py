"""Processors by the names that people use: of a microarchitecture (``coffee-lake``) or on the box (``i7-8700``)."""

from __future__ import annotations

import functools
import re
from typing import Any

import attrs

from popek_specs.vtx import table

_TABLE = "capabilities/partial/names.toml"

_BARE = re.compile(r"1[0-4]\d{3}[a-z]{0,2}|[2-9]\d{3}(?:k|kf|ks|hq|s|t)")
"""A number without ``i7-`` in front; of four digits only with a letter that AMD's numbers do not have."""


@attrs.frozen
class NamedProcessor:
    """A processor that is known under a name.

    Attributes:
        preset: the file of its capabilities.
        title: the name that was asked for, and whose capabilities these are.
        why: why these are the capabilities of a processor of that name.
    """

    preset: str
    title: str
    why: str


def find(name: str) -> NamedProcessor | None:
    """The processor that people call so; None if nothing is known of such a name.

    >>> find("Coffee Lake").title
    'Coffee Lake (intel-skylake)'
    >>> find("i7-8700").preset
    'intel-skylake'
    """
    row = _row("processor", name)
    if row is None:
        return None
    return NamedProcessor(row["preset"], f"{name} ({row['preset'].removeprefix('partial/')})", row["why"])


def compared(name: str) -> str | None:
    """For a processor of which no values are known: the nearest one of which there are some."""
    row = _row("unknown", name)
    return None if row is None else str(row["compare"])


def names() -> list[str]:
    """Every name of a microarchitecture that leads to capabilities."""
    return [name for row in _rows("processor") for name in row["names"]]


@functools.cache
def _rows(kind: str) -> list[dict[str, Any]]:
    return list(table(_TABLE)[kind])


def _row(kind: str, name: str) -> dict[str, Any] | None:
    words = re.sub(r"\((?:r|tm)\)|@.*", "", name.lower())
    words = re.sub(r"\b(?:intel|core|cpu|processor|\d+th gen)\b", "", words)
    words = re.sub(r"\bi([3579])[\s_]+(?=\d)", r"i\1-", words)
    if _BARE.fullmatch(words.strip()):
        words = f"i7-{words.strip()}"
    plain, model = re.sub(r"[\s_-]+", "", words), re.sub(r"[\s_]+", "", words)
    for row in _rows(kind):
        if plain in row["names"] or (row["models"] and re.fullmatch(row["models"], model)):
            return row
    return None


__all__ = ["NamedProcessor", "compared", "find", "names"]
