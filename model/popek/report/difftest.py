"""Differential tests as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from popek.emulators import ia32_compare, x64_compare
    from popek.emulators.vmx_guest_compare import Report


def instructions(found: ia32_compare.DifftestReport | x64_compare.DifftestReport) -> RenderableType:
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


def vtx(found: Report) -> RenderableType:
    """How the steps of the guest ended, what known deviations explain, and every unexplained difference."""
    kinds = {"exits": 0, "completed": 0, "exceptions in the guest": 0}
    for outcome, count in found.outcomes.items():
        kind = "exits" if outcome.startswith("exit") else "completed"
        kinds["exceptions in the guest" if outcome.startswith("#") else kind] += count
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    reasons = sum(outcome.startswith("exit") for outcome in found.outcomes)
    parts: list[RenderableType] = [
        Text(
            f"{found.cases} cases of {len(found.by_form)} forms against Bochs, model {found.model}, seed {found.seed}"
        ),
        Text(
            f"{told}; {reasons} exit reasons; {found.cases / max(found.seconds, 0.01):.0f} cases a second",
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
        guest = difference.case.guest
        parts += ["", Text(f"{difference.assembly}  [{guest.form}, CPL {guest.cpl}]", "bold red")]
        parts += [f"  model     {difference.expected}", f"  emulator  {difference.observed}"]
        parts += [f"    {line}" for line in difference.details]
    verdict = f"{found.unexplained} unexplained differences"
    parts += ["", Text(verdict, "bold red" if found.unexplained else "bold green")]
    return Group(*parts)
