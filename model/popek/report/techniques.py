"""A machine under each of its techniques, as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.names import shortened
from popek.checks.survey import Survey, SurveyRow
from popek.checks.verdict import Status, Truth
from popek.kernel.machine import Machine

from .classification import heading, premise, witnesses
from .wording import counted

Alike = list[tuple[str, Survey]]
"""Surveys with the same answers: the numbers of their techniques, and one of them."""


def surveys(machine: Machine[Any], found: Sequence[Survey]) -> RenderableType:
    """Which instructions are privileged and which critical under each technique, and what follows.

    Args:
        found: of every technique of the machine, in its order.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("instruction")
    table.add_column("forms", justify="right")
    for number in range(len(found)):
        table.add_column(str(number + 1))
    table.add_column("what leaks or changes", overflow="fold")
    folded = [one.by_mnemonic() for one in found]
    for mnemonic in folded[0]:
        rows = [one[mnemonic] for one in folded]
        every = [row for each in rows for row in each]
        critical = any(row.classes["critical"] is Truth.YES for row in every)
        names = dict.fromkeys(name for row in every for name in row.components)
        table.add_row(
            Text(mnemonic, "bold red" if critical else ""),
            str(len(rows[0])),
            *map(told, rows),
            Text(shortened(names), "dim"),
        )
    alike = _alike(found)
    parts: list[RenderableType] = [_heading(machine, found), "", table, ""]
    for numbers, one in alike:
        shown = witnesses(one)
        if shown is not None:
            parts += [Text(f"Witnesses under {numbers}", "bold"), shown, ""]
    for theorem, name in ((1, "critical"), (3, "user_critical")):
        parts.append(Text(f"premise of Theorem {theorem}", "bold"))
        parts += [_premise(numbers, one, name) for numbers, one in alike]
    return Group(*parts)


def told(rows: Sequence[SurveyRow]) -> Text:
    """What becomes of an instruction: critical, privileged, sensitive and neither known, or a dot for innocuous."""
    for name, style in (("critical", "bold red"), ("privileged", "")):
        answers = {row.classes[name] for row in rows}
        if Truth.UNKNOWN in answers:
            return Text("unknown", "yellow")
        if Truth.YES in answers:
            some = "" if answers == {Truth.YES} else "some "
            return Text(some + name, style)
    return Text("·", "dim")


def _heading(machine: Machine[Any], found: Sequence[Survey]) -> RenderableType:
    names = Table(box=None, pad_edge=False, show_header=False)
    for number, one in enumerate(found):
        names.add_row(str(number + 1), Text(one.technique, "bold"), machine.techniques[one.technique].title)
    return Group(heading(found[0], under=f"{len(found)} techniques"), "", names)


def _alike(found: Sequence[Survey]) -> Alike:
    """Those with the same answers together."""
    together: list[tuple[list[int], Survey]] = []
    for number, one in enumerate(found):
        same = next((numbers for numbers, other in together if _classes(one) == _classes(other)), None)
        if same is None:
            together.append(([number + 1], one))
        else:
            same.append(number + 1)
    return [(", ".join(map(str, numbers)), one) for numbers, one in together]


def _classes(found: Survey) -> list[Any]:
    return [row.classes for row in found.rows]


def _premise(numbers: str, found: Survey, name: str) -> Text:
    status: Status = found.theorem1 if name == "critical" else found.theorem3
    mnemonics = found.mnemonics(name)
    forms = sum(1 for row in found.rows if row.classes[name] is Truth.YES)
    what = f"under {numbers}"
    if mnemonics:
        what += (
            f": {counted(len(mnemonics), 'critical instruction')} in {counted(forms, 'form')}: "
            f"{', '.join(mnemonics)}"
        )
    return premise(what, status)
