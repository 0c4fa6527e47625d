"""Claims and what became of them, as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from popek.checks.ladder import ladder
from popek.checks.verdict import Status

from .classification import witness_line
from .wording import counted, evidence

if TYPE_CHECKING:
    from popek_proofs.claims import ClaimVerdict, RowVerdict

STYLES = {Status.HOLDS: "green", Status.REFUTED: "red", Status.UNKNOWN: "yellow", Status.NOT_ASKED: "dim"}


def claims(found: Iterable[ClaimVerdict]) -> RenderableType:
    """Every claim with its rows, and a last line that counts."""
    found = list(found)
    parts: list[RenderableType] = []
    for claim in found:
        parts += [_claim(claim), ""]
    rows = sum(len(claim.rows) for claim in found)
    otherwise = sum(claim.unexpected for claim in found)
    unknown = sum(claim.unknown for claim in found)
    last = f"{len(found)} claims with {rows} rows checked"
    last += f"; {otherwise} turned out otherwise" if otherwise else "; all as expected"
    last += f"; {unknown} could not be decided altogether" if unknown else ""
    parts.append(Text(last, "bold red" if otherwise else "bold green"))
    parts.append(evidence(ladder(steps for claim in found for steps in claim.ladder.steps)))
    return Group(*parts)


def _claim(found: ClaimVerdict) -> RenderableType:
    claim = found.claim
    settings = ", ".join(f"{k}={v}" for k, v in claim.configuration.items())
    where = claim.machine_name + (f", {claim.technique}" if claim.technique else "")
    head = Text.assemble((claim.id, "bold"), "  ", claim.title)
    body: list[RenderableType] = [
        Text(f"{claim.source}  [{where}{', ' + settings if settings else ''}]", "dim"),
        Text.assemble(_verdict(found.verdict, claim.expected), "  ", claim.statement),
    ]
    if claim.note:
        body.append(Text(claim.note, "dim"))
    if found.rows:
        body.append(_rows(found.rows))
    if found.critical:
        text = f"derived: {counted(found.critical, 'critical instruction')} in {counted(found.forms, 'form')}"
        if found.others:
            text += f"; not named above: {', '.join(found.others)}"
        body.append(Text(text))
    return Group(head, Padding(Group(*body), (0, 0, 0, 2)))


def _rows(rows: Iterable[RowVerdict]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(4):
        table.add_column(overflow="fold")
    for row in rows:
        remark = row.claim.note
        if row.witness is not None and row.claim.statement.endswith("critical"):
            remark = f"{row.witness['assembly']}: {witness_line(row.witness)}"
        elif row.breach:
            remark = row.breach
        verdict = _verdict(row.verdict, row.claim.expected)
        table.add_row(verdict, Text(row.claim.subject, "bold"), row.claim.statement, Text(remark, "dim"))
    return table


def _verdict(verdict: Status, expected: Status) -> Text:
    text = Text(verdict.value, STYLES[verdict])
    if verdict is not expected and verdict is not Status.UNKNOWN:
        text.append(f" (expected {expected.value})", "bold red")
    return text
