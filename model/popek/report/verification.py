"""What became of questions that were verified, as text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek_proofs.verification import Verification

from .wording import counted

MANY = 12


def verification(found: Verification, folder: Path | None = None) -> RenderableType:
    """Figures, what is not certified and why, and what is wrong."""
    total = len(found.questions)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("questions without an answer", str(total), f"{counted(found.distinct, 'text')}")
    for what, number in (
        ("a second solver says so", sum(one.found.confirmed for one in found.questions)),
        ("a third solver says so", sum(one.found.confirmed_twice for one in found.questions)),
        ("certified", sum(one.found.certified for one in found.questions)),
    ):
        style = "bold green" if number == total else "yellow"
        table.add_row(what, Text(str(number), style), _share(number, total))
    if found.by_drat_trim:
        table.add_row("  its long proof by drat-trim", str(found.by_drat_trim))
    parts: list[RenderableType] = [table]
    reasons = Counter(one.found.why for one in found.not_certified if not one.found.wrong)
    for why, number in reasons.most_common():
        named = [one.id for one in found.not_certified if one.found.why == why]
        more = f" and {len(named) - MANY} more" if len(named) > MANY else ""
        parts += ["", Text(f"not certified ({number}): {why}", "yellow")]
        parts.append(Text("  " + "; ".join(named[:MANY]) + more, "dim"))
    for one in found.wrong:
        parts.append(Text(f"wrong  {one.id}: {one.found.why}", "bold red"))
    if found.unexplored:
        parts += ["", Text(f"too many paths, nothing asked: {', '.join(found.unexplored)}", "yellow")]
    by_solver = Counter(
        f"{name} {answer}" for one in found.questions for name, answer in one.found.solvers.items()
    )
    told = ", ".join(f"{name} ({number})" for name, number in by_solver.items())
    parts += ["", Text(f"{told}; {found.processor_seconds:.0f} s of processor time", "dim")]
    if folder is not None:
        parts.append(Text(f"questions, clauses, proofs and how to check them: {folder / 'README.md'}"))
    return Group(*parts)


def _share(number: int, total: int) -> str:
    return f"{100 * number / total:.1f} %" if total else ""


__all__ = ["verification"]
