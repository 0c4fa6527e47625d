"""Which row of the ledger has which predicate."""

from __future__ import annotations

from typing import Literal

import attrs

from .entry_checks import CHECKS, NOT_CHECKED, NOT_MODELLED, ledger
from .evaluation import reads

State = Literal["predicate", "no check", "not modelled"]


@attrs.frozen
class LedgerRow:
    """A row of the ledger, and what became of it.

    Attributes:
        id: of the row.
        state: whether it has a predicate.
        detail: the fields that the predicate reads, or why there is none.
    """

    id: str
    state: State
    detail: str


def coverage() -> list[LedgerRow]:
    """All rows in the order of the ledger."""
    found: list[LedgerRow] = []
    for row_id in ledger():
        if row_id in CHECKS:
            check = CHECKS[row_id]
            found.append(LedgerRow(row_id, "predicate", ", ".join(reads(check)) or "the launch"))
        elif row_id in NOT_CHECKED:
            found.append(LedgerRow(row_id, "no check", NOT_CHECKED[row_id]))
        else:
            found.append(LedgerRow(row_id, "not modelled", NOT_MODELLED[row_id]))
    return found


def table() -> str:
    """The coverage as a Markdown table."""
    lines = ["", "| row | section | state | reads, or why not |", "|---|---|---|---|"]
    for row in coverage():
        lines.append(f"| {row.id} | {ledger()[row.id]['section']} | {row.state} | {row.detail} |")
    return "\n".join(lines) + "\n"
