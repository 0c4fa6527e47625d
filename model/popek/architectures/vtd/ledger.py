"""The ledger of a remapping unit's rules: `specs/popek_specs/vtd/rules.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import attrs


@attrs.frozen
class RemappingRule:
    """One rule.

    Attributes:
        id: as `--drop` and the checks name it.
        reason: the fault reason; 0 where a breach of it is no fault of the unit.
        kind: ``dma``, ``interrupt``, or ``first-stage`` (scalable mode).
        qualified: of a DMA rule, that a context entry with FPD set silences its fault (likely; QEMU does so).
        rule: what must hold, in one sentence.
        linux: the words of Linux for the reason.
        source: document and section.
        confidence: ``sure``, ``likely``, ``unsure``.
    """

    id: str
    reason: int
    kind: str
    qualified: bool
    rule: str
    linux: str
    source: str
    confidence: str


@cache
def rules() -> Mapping[str, RemappingRule]:
    """Every rule, by id, in the order in which a unit checks them."""
    text = files("popek_specs").joinpath("vtd", "rules.csv").read_text(encoding="utf-8")
    return {
        row["id"]: RemappingRule(
            row["id"],
            int(row["reason"], 16),
            row["kind"],
            row["qualified"] == "yes",
            row["rule"],
            row["linux"],
            row["source"],
            row["confidence"],
        )
        for row in csv.DictReader(text.splitlines())
    }


def reason_of(rule: str) -> int:
    """The fault reason of a rule."""
    return rules()[rule].reason
