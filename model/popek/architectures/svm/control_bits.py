"""The bits of a VMCB's controls by name, and what VMRUN does not check: rows of the ledger without a condition."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from popek_specs.svm import rows

from .checks import CHECKS, VmcbCheck
from .vmcb import intercepts


@attrs.frozen
class ControlBits:
    """Bits high:low of a control: their name, what they are, and what they do (empty if the title says it)."""

    field: str
    high: int
    low: int
    name: str
    title: str
    effect: str
    source: str


@attrs.frozen
class UncheckedRow:
    """A row that says that VMRUN does not check some fields, or bits of them.

    Attributes:
        id: of the row.
        covers: the fields; with the highest and the lowest bit where it is not about all of them.
        statement: what it says.
        gate: when.
        confidence: ``sure`` or ``uncertain``.
        source: where the manual says so.
    """

    id: str
    covers: tuple[tuple[str, int, int], ...]
    statement: str
    gate: str
    confidence: str
    source: str


@functools.cache
def control_bits() -> tuple[ControlBits, ...]:
    """All named bits, those of the intercepts among them."""
    named = [
        ControlBits(
            r["field"], int(r["high"]), int(r["low"]), r["name"], r["title"], r["effect"], r["source"]
        )
        for r in rows("control-bits.csv")
    ]
    named += [
        ControlBits(field, bit, bit, name, f"intercept {name}", "", "AMD APM vol. 2, appendix B")
        for (field, bit), name in intercepts().items()
    ]
    return tuple(named)


_PART: Final = re.compile(r"(?P<field>\w+)(?:\[(?P<high>\d+):(?P<low>\d+)\])?")


@functools.cache
def unchecked_rows() -> Mapping[str, UncheckedRow]:
    """The rows that say that nothing is checked, by id."""
    return {
        row["id"]: UncheckedRow(
            row["id"],
            tuple(_covered(row["fields"])),
            row["statement"],
            row["gate"],
            row["confidence"],
            row["source"],
        )
        for row in rows("no-checks.csv")
    }


def _covered(text: str) -> Iterator[tuple[str, int, int]]:
    for match in _PART.finditer(text):
        yield match["field"], int(match["high"] or 63), int(match["low"] or 0)


def unchecked(field: str, bit: int | None = None) -> list[UncheckedRow]:
    """The rows about a field, or about a bit of it."""
    return [
        row
        for row in unchecked_rows().values()
        if any(name == field and (bit is None or low <= bit <= high) for name, high, low in row.covers)
    ]


def readers(field: str) -> list[VmcbCheck]:
    """The checks that look at a field."""
    return [check for check in CHECKS.values() if field in check.fields]


__all__ = ["ControlBits", "UncheckedRow", "control_bits", "readers", "unchecked", "unchecked_rows"]
