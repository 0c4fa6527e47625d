"""The atlas as a table in a terminal, and as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.verdict import Status
from popek_proofs.atlas import Atlas, AtlasEntry, Efficiency, Verdict
from popek_proofs.atlas.entries import KINDS
from popek_proofs.devices import WithDevices

from .svg import LINE, MARGIN, SIZE, Figure, box, text, width_of

MANY = 24  # critical mnemonics that are spelled out
BAR = 20
STYLES = {Status.HOLDS: "green", Status.REFUTED: "red", Status.UNKNOWN: "yellow", Status.NOT_ASKED: "dim"}
VERDICTS = {
    Verdict.VIRTUALIZABLE: "bold green",
    Verdict.HYBRID: "bold cyan",
    Verdict.NEITHER: "bold red",
    Verdict.UNDECIDED: "bold yellow",
}
COLORS = {"direct": "green", "needless": "yellow", "emulated": "cyan", "critical": "red", "undecided": "dim"}
BY_CLASSES = (
    "by classes: a critical form refutes that every sensitive instruction is privileged.  It may be faithful all the "
    "same: `popek prove` asks what the theorems rest on"
)
GLYPHS = {"direct": "█", "needless": "▓", "emulated": "▒", "critical": "×", "undecided": "?"}


def atlas(found: Atlas) -> RenderableType:
    """One row per machine, technique and configuration."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("machine", "technique", "configuration", "Theorem 1", "Theorem 3", "virtualizable"):
        table.add_column(title)
    table.add_column("needless traps", justify="right")
    table.add_column("forms")
    table.add_column("critical instructions", overflow="fold")
    last = ""
    for entry in found.entries:
        place = entry.place
        table.add_row(
            Text(place.name if place.name != last else "", "bold"),
            place.technique,
            place.label,
            _status(entry, 1),
            _status(entry, 3),
            Text(_short(entry), VERDICTS[entry.verdict]),
            needless(entry.efficiency),
            bar(entry.efficiency),
            critical(entry),
        )
        last = place.name
    legend = Text.assemble(
        "forms: ", *((f"{GLYPHS[kind]} {told}   ", COLORS[kind]) for kind, told in KINDS.items())
    )
    parts: list[RenderableType] = [table, "", legend]
    if any(entry.by_classes for entry in found.entries):
        parts.append(BY_CLASSES)
    parts += [
        Text(f"a witness does not replay, a defect of popek: {defect}", "red") for defect in found.defects
    ]
    return Group(*parts)


def with_devices(found: Atlas, beside: Sequence[WithDevices]) -> RenderableType:
    """Beside what the processor's instructions say, what a guest's own device does."""
    if not beside:
        return Text("\nno device is known of these machines")
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for title in (
        "machine",
        "processor only",
        "with a device as it is",
        "with it confined",
        "the driver sees its own",
    ):
        table.add_column(title)
    for row in beside:
        said = dict.fromkeys(_short(entry) for entry in found.entries if entry.place.name == row.machine)
        ways = [
            Text.assemble(f"{way}: safety ", (status.value, STYLES[status]))
            for way, status in (row.alone, row.confined)
        ]
        fidelity = Text(row.fidelity.value, STYLES[row.fidelity])
        table.add_row(Text(row.machine, "bold"), "; ".join(said), *ways, fidelity)
    return Group("", table)


def _status(entry: AtlasEntry, theorem: int) -> Text:
    status = entry.theorem1 if theorem == 1 else entry.theorem3
    how = " by classes" if theorem in entry.by_classes else ""
    return Text(f"{status.value}{how}", STYLES[status])


def _short(entry: AtlasEntry) -> str:
    return {Verdict.VIRTUALIZABLE: "yes", Verdict.HYBRID: "hybrid", Verdict.NEITHER: "neither theorem"}.get(
        entry.verdict, "undecided"
    )


def needless(efficiency: Efficiency) -> str:
    """How many innocuous forms can trap for nothing, and their share."""
    if efficiency.share is None:
        return "none innocuous"
    return f"{efficiency.needless} of {efficiency.innocuous}, {efficiency.share:.0%}"


def bar(efficiency: Efficiency) -> Text:
    """The shares of what becomes of the forms, about `BAR` characters wide; what there is is seen."""
    total, drawn = sum(efficiency.counts.values()), Text()
    for kind, count in efficiency.counts.items():
        if count:
            drawn.append(GLYPHS[kind] * max(1, round(count * BAR / total)), COLORS[kind])
    return drawn


def critical(entry: AtlasEntry) -> str:
    """The critical mnemonics, the first of many."""
    names = entry.critical
    more = f", … ({len(names)})" if len(names) > MANY else ""
    return ", ".join(names[:MANY]) + more


# -- as a figure ----------------------------------------------------------------------------------

DRAWN = {"direct": "green", "needless": "yellow", "emulated": "blue", "critical": "red", "undecided": ""}
WIDTH = 360.0  # of a bar, in pixels


def figure(found: Atlas) -> Figure:
    """A bar per row: what becomes of the instruction forms, with the verdict."""
    names = [f"{e.place.name}  {e.place.technique}, {e.place.label}" for e in found.entries]
    figures = [
        f"{entry.verdict.value}; needless traps {needless(entry.efficiency)}" for entry in found.entries
    ]
    left = MARGIN + width_of(names) + 14
    parts, words = [], []
    y = MARGIN
    for name, entry, figures_of in zip(names, found.entries, figures, strict=True):
        parts.append(text(MARGIN, y + LINE, name))
        counts, x = entry.efficiency.counts, left
        for kind, count in counts.items():
            width = WIDTH * count / (sum(counts.values()) or 1)
            if count:
                shown = [str(count)] if width_of([str(count)]) < width - 4 else []
                parts.append(box(x, y + 2, width, LINE + 2, shown, DRAWN[kind], f"{count} {KINDS[kind]}"))
            x += width
        parts.append(text(left + WIDTH + 14, y + LINE, figures_of))
        words.append(f"{name}: {', '.join(f'{n} {kind}' for kind, n in counts.items() if n)}; {figures_of}")
        y += LINE + 10
    y += 6
    for kind, told in KINDS.items():
        parts.append(box(left, y, SIZE, SIZE, [], DRAWN[kind]))
        parts.append(text(left + SIZE + 8, y + SIZE - 1, told))
        y += LINE + 2
    return Figure(
        "".join(parts), left + WIDTH + 14 + width_of(figures) + MARGIN, y + MARGIN, "\n".join(words)
    )
