"""Kinds of hardware assistance side by side, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from popek_proofs.assistance.comparison import Table


def table(found: Table) -> RichTable:
    """One row for each question, one column for each kind of assistance."""
    drawn = RichTable(title=" beside ".join(item.title for item in found.assistances), show_lines=True)
    drawn.add_column("", style="bold")
    for item in found.assistances:
        drawn.add_column(item.title)
    for query, cells in found.rows:
        drawn.add_row(Text(query.title), *(Text(cell.text) for cell in cells))
    return drawn
