"""The classes by the letter of 1974, beside the answers that are given here, as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.letter import CRITICAL, USER_CRITICAL
from popek.checks.survey import Survey, SurveyRow
from popek.checks.verdict import Truth

from .classification import folded, heading, premise, witness_line
from .wording import counted

COLUMNS = (
    ("privileged", "priv."),
    ("control_sensitive", "control"),
    ("behavior_sensitive", "behavior"),
    ("user_sensitive", "user"),
    ("critical", "critical"),
)
REST = ("sensitive", "innocuous", "user_critical")  # follow from the others


def survey(found: Survey) -> RenderableType:
    """The table of a machine, folded per mnemonic, the witnesses where an answer is another, and what follows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("instruction")
    table.add_column("forms", justify="right")
    for _, title in COLUMNS:
        table.add_column(title)
    table.add_column("here", overflow="fold")
    for mnemonic, rows in found.by_mnemonic().items():
        letters = [row.letter for row in rows if row.letter is not None]
        critical = any(one.classes[CRITICAL] is Truth.YES for one in letters)
        cells: list[RenderableType] = [Text(mnemonic, "bold red" if critical else ""), str(len(rows))]
        cells += [folded(one.classes[name] for one in letters) for name, _ in COLUMNS]
        table.add_row(*cells, Text(", ".join(others(rows))))
    parts: list[RenderableType] = [heading(found).append(", by the letter of 1974"), "", table, ""]
    shown = _witnesses(found)
    if shown is not None:
        parts += [Text("Witnesses of another answer (states in any modes and places)", "bold"), shown, ""]
    return Group(*parts, _verdict(found))


def others(rows: Sequence[SurveyRow]) -> list[str]:
    """The classes of which some form has another answer as they are asked here, and which answer."""
    told: dict[str, list[Truth]] = {}
    for row in rows:
        if row.letter is not None:
            for name in row.letter.differs:
                if name not in REST:
                    told.setdefault(name, []).append(row.letter.here[name])
    return [
        f"{title.rstrip('.')} {' or '.join(dict.fromkeys(t.value for t in told[name]))}"
        for name, title in COLUMNS
        if name in told
    ]


def _witnesses(found: Survey) -> Table | None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    for rows in found.by_mnemonic().values():
        for row in rows:
            letter = row.letter
            if letter is None or letter.witness is None or CRITICAL not in letter.differs:
                continue
            witness = letter.witness
            trap = witness["native"].get("trap")
            line = f"traps: {trap}" if witness["virtualized"] is None and trap else witness_line(witness)
            table.add_row(witness["assembly"], witness["claim"].partition(",")[0], line)
            break
    return table if table.row_count else None


def _verdict(found: Survey) -> RenderableType:
    critical = found.by_the_letter(CRITICAL)
    here = found.mnemonics(CRITICAL)
    title = "premise of Theorem 1, by the letter: every sensitive instruction is privileged"
    lines = [premise(title, found.premise_by_the_letter(CRITICAL))]
    if critical:
        lines.append(Text(f"  {counted(len(critical), 'critical instruction')}: {', '.join(critical)}"))
    for words, names in (
        ("by the letter alone", [m for m in critical if m not in here]),
        ("here alone", [m for m in here if m not in critical]),
    ):
        if names:
            lines.append(Text(f"  {words}: {', '.join(names)}"))
    title = "premise of Theorem 3, by the letter: every user-sensitive instruction is privileged"
    lines.append(premise(title, found.premise_by_the_letter(USER_CRITICAL)))
    if found.partial:
        lines.append(Text("  only some of the instructions were asked about", "dim"))
    return Group(*lines)
