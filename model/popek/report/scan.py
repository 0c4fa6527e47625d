"""A scanned program as text."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.scan.judging import Counts, Scan, ScanDifference

MOST_FUNCTIONS = 20


def scan(found: Scan, difference: ScanDifference | None = None, *, places: int = 0) -> RenderableType:
    """What was read, what breaks by form and by function, and where.

    Args:
        places: of each form show at most so many; 0 for all.
    """
    swept, per_thousand = found.swept, 1000 * found.found / max(found.swept.instructions, 1)
    settings = ", ".join(f"{name}={value}" for name, value in found.configuration.items())
    heading = Text.assemble((found.program.source, "bold"), f": {found.mode}-bit code of {found.machine}")
    heading.append(f" under {found.technique}" + (f" with {settings}" if settings else ""))
    parts: list[RenderableType] = [heading]
    parts += [Text(remark, "yellow") for remark in found.program.remarks]
    parts.append(
        Text(
            f"{swept.instructions} instructions in {swept.size} bytes; {found.found} break "
            f"({per_thousand:.1f} per thousand)"
        )
    )
    if swept.undecoded:
        parts.append(Text(f"{swept.undecoded} bytes begin no instruction", "yellow"))
    if found.findings:
        parts += ["", _by_form(found)]
        if any(found.by_function):
            parts += ["", _by_function(found)]
        parts += ["", _places(found, places)]
    if found.undecided:
        parts += ["", Text(f"undecided: {_counts(found.undecided)}", "yellow")]
    if swept.lacking:
        total = sum(swept.lacking.values())
        parts += ["", Text(f"not in the model, {total} instructions: {_counts(swept.lacking)}", "yellow")]
    if difference is not None:
        parts += ["", Text("since the older scan", "bold")]
        changes = [*_changed("new", difference.new), *_changed("gone", difference.gone)]
        parts += changes or [Text("  no difference")]
    return Group(*parts)


def _by_form(found: Scan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("form")
    table.add_column("count", justify="right")
    table.add_column("is")
    table.add_column("because")
    for one in sorted(found.findings, key=lambda one: -len(one.places)):
        table.add_row(one.form, str(len(one.places)), ", ".join(one.breaks), one.why)
    return table


def _by_function(found: Scan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("function")
    table.add_column("count", justify="right")
    table.add_column("forms")
    ranked = sorted(found.by_function.items(), key=lambda item: -item[1].total())
    for name, counts in ranked[:MOST_FUNCTIONS]:
        table.add_row(name or "(no symbol)", str(counts.total()), _counts(counts))
    if len(ranked) > MOST_FUNCTIONS:
        table.add_row(f"and {len(ranked) - MOST_FUNCTIONS} more", "", "")
    return table


def _places(found: Scan, most: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("address", "where", "bytes", "instruction", "form"):
        table.add_column(column)
    shown = [place for one in found.findings for place in (one.places[:most] if most else one.places)]
    for place in sorted(shown, key=lambda place: (place.section, place.address)):
        where = f"{place.section} {place.function}".strip()
        table.add_row(f"{place.address:#x}", where, place.raw.hex(" "), place.text, place.form)
    if left := found.found - len(shown):
        table.add_row(f"and {left} more", "", "", "", "")
    return table


def _counts(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ranked)


def _changed(title: str, counts: Counts) -> list[RenderableType]:
    return [
        Text(f"  {title}: {count} {form} in {section} {function}".rstrip())
        for (section, function, form), count in sorted(counts.items())
    ]
