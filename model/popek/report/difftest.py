"""Differential tests as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from popek.emulators.ia32_compare import DifftestReport


def ia32(found: DifftestReport) -> RenderableType:
    """How many cases agreed, what known deviations explain, and every unexplained difference."""
    forms = len(found.by_form)
    levels = ", ".join(f"{count} at CPL {level}" for level, count in sorted(found.by_level.items()))
    parts: list[RenderableType] = [
        Text(f"{found.cases} cases of {forms} forms against {found.against} ({levels}), seed {found.seed}"),
        Text(
            f"{sum(found.completed.values())} completed, {sum(found.trapped.values())} trapped; "
            f"{found.rate:.0f} cases a second",
            "dim",
        ),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    for title, counts in (
        ("explained by a known deviation of the emulator", found.explained),
        ("drawn again: not modelled", found.not_modelled),
        ("drawn again: outside the harness", found.outside),
    ):
        for reason, count in sorted(counts.items()):
            table.add_row(str(count), title, reason)
    if table.row_count:
        parts.append(table)
    for difference in found.differences:
        head = f"{difference.assembly}  [{difference.case.form}, CPL {difference.case.cpl}]"
        parts += ["", Text(head, "bold red"), f"  model     {difference.expected}"]
        parts += [f"  emulator  {difference.observed}", *(f"    {line}" for line in difference.details)]
    verdict = f"{found.unexplained} unexplained differences"
    parts += ["", Text(verdict, "bold red" if found.unexplained else "bold green")]
    return Group(*parts)
