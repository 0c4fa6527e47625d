"""The ledger of what EPT and nested paging check: `specs/popek_specs/second_stage/rules.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import attrs


@attrs.frozen
class SecondStageRule:
    """One rule.

    Attributes:
        id: as `--drop` and the checks name it.
        format: of the tables: ``ept`` or ``nested``.
        outcome: what a breach is: ``violation``, ``misconfiguration`` (VM exits), ``fault`` (#VMEXIT(NPF)); ``none``
            where another translation is made.
        rule: what must hold, in one sentence.
        source: document and section.
        confidence: ``sure``, ``likely``, ``unsure``.
    """

    id: str
    format: str
    outcome: str
    rule: str
    source: str
    confidence: str


@cache
def second_stage_rules() -> Mapping[str, SecondStageRule]:
    """Every rule, by id, those of one format in the order in which a processor checks them."""
    text = files("popek_specs").joinpath("second_stage", "rules.csv").read_text(encoding="utf-8")
    return {row["id"]: SecondStageRule(**row) for row in csv.DictReader(text.splitlines())}
