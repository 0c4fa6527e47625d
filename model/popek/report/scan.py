"""A scanned program as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.scan.judging import Counts, Scan, ScanDifference
from popek.scan.occurrences import ExplainedOccurrence

from . import classification

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


def witnesses(found: Iterable[ExplainedOccurrence]) -> RenderableType:
    """Why each instruction breaks: one witness, of a broken promise where there is one."""
    parts: list[RenderableType] = []
    for one in found:
        where = ", ".join(f"{place.address:#x}" for place in one.places)
        parts += ["", Text.assemble((one.places[0].text, "bold"), f" ({one.form}) at {where}")]
        shown = next((name for name in ("fidelity", "safety", *one.witnesses) if name in one.witnesses), None)
        if shown is not None:
            parts.append(classification.counterexample(one.witnesses[shown]))
        else:
            parts.append(Text(f"  {_nothing(one)}"))
    return Group(*parts)


def plan(found: Iterable[ExplainedOccurrence]) -> RenderableType:
    """What would have to replace each instruction that breaks."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (
        "address",
        "size",
        "instruction",
        "from the guest's own state",
        "may change",
        "may raise",
    ):
        table.add_column(column)
    pairs = [(place, one) for one in found for place in one.places]
    for place, one in sorted(pairs, key=lambda pair: (pair[0].section, pair[0].address)):
        told = [f"{place.address:#x}", str(len(place.raw)), place.text]
        if one.replacement is None:
            table.add_row(*told, "unknown: it has too many paths")
        elif not one.breaks:
            table.add_row(*told, _nothing(one) if one.unknown else f"may stay: {_nothing(one)}")
        else:
            wanted = (one.replacement.own, one.replacement.writes, one.replacement.traps)
            table.add_row(*told, *(", ".join(names) or "-" for names in wanted))
    return Group("", Text("to be replaced by calls into the VMM, which preserve all else", "bold"), table)


def _nothing(one: ExplainedOccurrence) -> str:
    if one.breaks:
        return f"{', '.join(one.breaks)}; no witness was found"
    return "unknown" if one.unknown else "with these operands it breaks nothing"


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
