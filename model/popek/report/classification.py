"""Surveys, single classifications and counterexamples as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from popek.checks.definitions_in_words import COLUMNS
from popek.checks.names import shortened
from popek.checks.scope_words import scope_line
from popek.checks.survey import Survey, SurveyRow
from popek.checks.verdict import Status, Truth

from .wording import counted, evidence

STYLES = {Truth.YES: "bold", Truth.NO: "dim", Truth.UNKNOWN: "yellow", Truth.NOT_ASKED: "dim"}
MANY_CHANGES = 8
SHORT = {Truth.NOT_ASKED: "–"}


def survey(found: Survey) -> RenderableType:
    """The table of a machine, folded per mnemonic, the witnesses of critical ones, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("instruction")
    table.add_column("forms", justify="right")
    for _, title in COLUMNS:
        table.add_column(title)
    promises = any(row.faithful is not None for row in found.rows)
    for title in ("faithful", "safe") if promises else ():
        table.add_column(title)
    table.add_column("what leaks or changes", overflow="fold")
    for mnemonic, rows in found.by_mnemonic().items():
        critical = any(row.classes["critical"] is Truth.YES for row in rows)
        cells: list[RenderableType] = [Text(mnemonic, "bold red" if critical else ""), str(len(rows))]
        cells += [folded(row.classes[name] for row in rows) for name, _ in COLUMNS]
        if promises:
            cells += [folded(Truth.UNKNOWN if row.faithful is None else row.faithful for row in rows)]
            cells += [folded(Truth.UNKNOWN if row.safe is None else row.safe for row in rows)]
        names = dict.fromkeys(name for row in rows for name in row.components)
        cells.append(Text(shortened(names), "dim"))
        table.add_row(*cells)
    parts: list[RenderableType] = [heading(found), "", table, ""]
    shown = witnesses(found)
    if shown is not None:
        parts += [
            Text("Witnesses (two states that differ only as shown; neither run traps)", "bold"),
            shown,
            "",
        ]
    parts.append(verdict(found))
    if found.ladder.questions:
        parts.append(evidence(found.ladder))
    return Group(*parts)


def heading(found: Survey, *, under: str = "") -> Text:
    """What was asked about.

    Args:
        under: instead of the technique.
    """
    settings = ", ".join(f"{k}={v}" for k, v in found.configuration.settings.items())
    text = Text.assemble((found.machine, "bold"), " under ", (under or found.technique, "bold"))
    return text.append(f" with {settings}" if settings else "")


def folded(answers: Iterable[Truth]) -> Text:
    """One answer for several forms: all of them, none, some, or unknown."""
    known = set(answers)
    if Truth.UNKNOWN in known:
        return Text("unknown", "yellow")
    if len(known) == 1:
        only = known.pop()
        return Text(only.value if only is Truth.YES else SHORT.get(only, "·"), STYLES[only])
    return Text("some", "bold")


def witnesses(found: Survey) -> Table | None:
    """A line for one form of each instruction that has a witness; None where there is none."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    for rows in found.by_mnemonic().values():
        for row in rows:
            if row.witness is not None:
                table.add_row(row.witness["assembly"], row.witness["claim"], witness_line(row.witness))
                break
    return table if table.row_count else None


def witness_line(witness: Mapping[str, Any]) -> str:
    """A witness in a line: in what the states differ, and in what the results do."""
    second = witness["virtualized"]
    results = ", ".join(
        f"{name} {a} / {b}" for name, (a, b) in list(witness["differ"].items())[:MANY_CHANGES]
    )
    if second is None:
        return f"changes {results.replace(' / ', ' → ')}"
    apart = ", ".join(f"{name} {a} / {b}" for name, (a, b) in list(witness["apart"].items())[:MANY_CHANGES])
    return f"with {apart}: {results}"


def verdict(found: Survey) -> RenderableType:
    """What follows for Theorems 1 and 3."""
    critical, user = found.mnemonics("critical"), found.mnemonics("user_critical")
    forms = sum(1 for row in found.rows if row.classes["critical"] is Truth.YES)
    lines = [premise("premise of Theorem 1: every sensitive instruction is privileged", found.theorem1)]
    if critical:
        lines.append(
            Text(
                f"  {counted(len(critical), 'critical instruction')} in {counted(forms, 'form')}: {', '.join(critical)}"
            )
        )
    lines.append(
        premise("premise of Theorem 3: every user-sensitive instruction is privileged", found.theorem3)
    )
    if user and user != critical:
        lines.append(Text(f"  {len(user)} of them user-sensitive: {', '.join(user)}"))
    elif user:
        lines.append(Text("  the same"))
    if found.scope is not None:
        lines.append(Text(f"  {scope_line(found.scope)}", "dim"))
    reasons = {
        (name, why)
        for row in found.rows
        for name, why in row.not_asked.items()
        if not name.startswith("user_")
    }
    for name, why in sorted(reasons):
        lines.append(Text(f"  –  {name.replace('_', '-')}: not asked, {why}", "dim"))
    if found.partial:
        lines.append(Text("  only some of the instructions were asked about", "dim"))
    return Group(*lines)


def premise(statement: str, status: Status) -> Text:
    """A statement and what became of it."""
    style = {
        Status.HOLDS: "bold green",
        Status.REFUTED: "bold red",
        Status.UNKNOWN: "yellow",
        Status.NOT_ASKED: "dim",
    }[status]
    return Text.assemble((status.value, style), "  ", statement)


# -- one instruction ------------------------------------------------------------------------------


def counterexample(witness: Mapping[str, Any], indent: int = 2) -> RenderableType:
    """Two runs side by side, fields by name."""
    second = witness["virtualized"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column(witness["labels"][0])
    if second is not None:
        table.add_column(witness["labels"][1])
    apart = witness["apart"]
    for name in dict.fromkeys((*witness["before"], *apart)):
        left = apart[name][0] if name in apart else witness["before"][name]
        right = apart[name][1] if name in apart else left
        style = "bold" if name in apart else ""
        table.add_row(Text(name, style), left, *([] if second is None else [Text(right, style)]))
    table.add_row(Text(witness["assembly"], "bold cyan"))
    results = [_outcome(witness["native"]), *([] if second is None else [_outcome(second)])]
    if not any(results):
        table.add_row("→ nothing changes")
    for name in dict.fromkeys(name for result in results for name in result):
        cells = [result.get(name, "unchanged") for result in results]
        style = "bold red" if name.removeprefix("→ ") in witness["differ"] else ""
        table.add_row(Text(name, style), *(Text(cell, style) for cell in cells))
    return Padding(Group(Text(witness["story"], "italic"), table), (0, 0, 0, indent))


def _outcome(run: Mapping[str, Any]) -> dict[str, str]:
    if "trap" in run:
        code = run["error_code"]
        return {"→ traps": run["trap"] + ("" if code is None else f"({code})")}
    if "not_modelled" in run:
        return {"→ not modelled": run["not_modelled"]}
    return {f"→ {name}": value for name, value in run["changes"].items()}


def row(found: SurveyRow) -> RenderableType:
    """Everything about one form."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    for name, answer in found.classes.items():
        table.add_row(name.replace("_", "-"), Text(answer.value, STYLES[answer]))
    for name, truth in (
        ("faithful", found.faithful),
        ("safe", found.safe),
        ("needless trap", found.needless_trap),
    ):
        if truth is not None:
            key = {"faithful": "fidelity", "safe": "safety"}.get(name, "")
            why = found.breaches.get(key, "")
            table.add_row(name, Text.assemble((truth.value, STYLES[truth]), f"  {why}" if why else ""))
    if found.components:
        table.add_row("leaks or changes", shortened(found.components))
    if found.undecided:
        table.add_row("may, too", shortened(found.undecided))
    if found.remark:
        table.add_row("remark", found.remark)
    return Group(Text.assemble((found.form, "bold"), f"   {found.source}"), Padding(table, (0, 0, 0, 2)))
