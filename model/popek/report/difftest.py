"""Differential tests as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .wording import counted

if TYPE_CHECKING:
    from popek.emulators.differential import DifftestReport
    from popek.emulators.guests.compare import GuestReport


def _set_aside(found: DifftestReport[Any] | GuestReport) -> list[RenderableType]:
    """What known deviations explain and what was drawn again, as a table where there is any."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for title, counts in (
        ("explained by a known deviation of the emulator", found.explained),
        ("drawn again: not modelled", found.not_modelled),
        ("drawn again: outside the harness", found.outside),
    ):
        for reason, count in sorted(counts.items()):
            table.add_row(str(count), title, reason)
    return [table] if table.row_count else []


def _differences(found: DifftestReport[Any] | GuestReport, level: str) -> list[RenderableType]:
    """Every unexplained difference, and how many there are."""
    parts: list[RenderableType] = []
    for difference in found.differences:
        head = f"{difference.assembly}  [{difference.case.form}, {level} {difference.case.cpl}]"
        parts += ["", Text(head, "bold red"), f"  model     {difference.expected}"]
        parts += [f"  emulator  {difference.observed}", *(f"    {line}" for line in difference.details)]
    verdict = counted(found.unexplained, "unexplained difference")
    return [*parts, "", Text(verdict, "bold red" if found.unexplained else "bold green")]


def instructions(found: DifftestReport[Any]) -> RenderableType:
    """How many cases agreed, what known deviations explain, and every unexplained difference."""
    forms = len(found.by_form)
    levels = ", ".join(f"{count} at {found.level} {level}" for level, count in sorted(found.by_level.items()))
    parts: list[RenderableType] = [
        Text(
            f"{counted(found.cases, 'case')} of {counted(forms, 'form')} against {found.against} ({levels}), "
            f"seed {found.seed}"
        ),
        Text(
            f"{sum(found.completed.values())} completed, {sum(found.trapped.values())} trapped; "
            f"{found.rate:.0f} cases a second",
            "dim",
        ),
    ]
    parts += _set_aside(found)
    return Group(*parts, *_differences(found, found.level))


def guests(found: GuestReport) -> RenderableType:
    """How the steps of the guest ended, what known deviations explain, and every unexplained difference."""
    kinds = {"exits": 0, "completed": 0, "exceptions in the guest": 0}
    for outcome, count in found.outcomes.items():
        kind = "exits" if outcome.startswith("exit") else "completed"
        kinds["exceptions in the guest" if outcome.startswith("#") else kind] += count
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    reasons = sum(outcome.startswith("exit") for outcome in found.outcomes)
    parts: list[RenderableType] = [
        Text(
            f"{counted(found.cases, 'case')} of {counted(len(found.by_form), 'form')} against Bochs, "
            f"model {found.model}, seed {found.seed}"
        ),
        Text(
            f"{told}; {reasons} exit reasons; {found.cases / max(found.seconds, 0.01):.0f} cases a second",
            "dim",
        ),
    ]
    parts += _set_aside(found)
    return Group(*parts, *_differences(found, "CPL"))


_MOST_SHOWN = 20


def entries(answer: Mapping[str, Any], kind: str) -> RenderableType:
    """Entries into a guest: how they ended, and every one that the checks and known deviations leave unexplained.

    Args:
        answer: what `popek difftest vm-entry --json` and `popek difftest vmrun --json` print.
        kind: what the entries are called, in the plural.
    """
    parts = [Text(f"{answer['cases']} {kind} against Bochs, model {answer['model']}, seed {answer['seed']}")]
    for what in ("outcomes", "modes", "origins"):
        counts = ", ".join(f"{count} {name}" for name, count in sorted(answer[what].items()))
        parts.append(Text(f"{what}: {counts}"))
    parts.append(Text(f"checks violated at least once: {len(answer['checks_violated'])}"))
    parts.append(Text(f"listed deviations of Bochs taken into account: {len(answer['deviations'])}"))
    left = answer["unexplained"]
    for item in left[:_MOST_SHOWN]:
        changes = ", ".join(f"{name} = {value}" for name, value in item["changes"].items())
        parts += [Text(), Text(f"{item['mode']}, {item['origin']}: {changes}", "bold red")]
        parts += [Text(f"  checks    {'; '.join(item['admissible'])}"), Text(f"  emulator  {item['bochs']}")]
    if len(left) > _MOST_SHOWN:
        parts += [Text(), Text(f"and {len(left) - _MOST_SHOWN} more; --json prints all")]
    parts += [
        Text(),
        Text(counted(len(left), "unexplained difference"), "bold red" if left else "bold green"),
    ]
    return Group(*parts)
