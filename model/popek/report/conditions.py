"""Under which settings instructions are critical, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.conditions import Conditions, Weakest


def conditions(found: Conditions) -> RenderableType:
    """One line per mnemonic whose forms agree, one per form where they do not."""
    table = Table("instruction", "critical when", box=None, pad_edge=False, header_style="bold")
    folded: dict[str, dict[str, list[Weakest]]] = {}
    for row in found.rows:
        folded.setdefault(row.mnemonic, {}).setdefault(condition(row), []).append(row)
    for mnemonic, answers in folded.items():
        for text, rows in answers.items():
            name = mnemonic if len(answers) == 1 else ", ".join(row.form for row in rows)
            style = {"always": "bold red", "never": "dim"}.get(text, "bold")
            table.add_row(Text(name), Text(text, style))
    fixed = ", ".join(f"{k}={v}" for k, v in found.configuration.settings.items())
    heading = Text.assemble((found.machine, "bold"), " under ", (found.technique, "bold"))
    heading.append(f", with {', '.join(found.open)} left open" + (f" and {fixed}" if fixed else ""))
    return Group(heading, "", table)


def condition(row: Weakest) -> str:
    """A condition in words."""
    text = _either(row.when) if row.when else "never"
    return text + (f"; unknown when {_either(row.unknown)}" if row.unknown else "")


def _either(alternatives: tuple[Mapping[str, tuple[int, ...]], ...]) -> str:
    if any(not alternative for alternative in alternatives):
        return "always"
    return " or ".join(_all(alternative) for alternative in alternatives)


def _all(alternative: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name}={'|'.join(map(str, values))}" for name, values in sorted(alternative.items()))
