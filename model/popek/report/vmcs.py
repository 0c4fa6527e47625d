"""Text for the terminal: verdicts on VMCSs, decoded fields, explanations and differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from popek.architectures.vtx.controls import Bit
    from popek.architectures.vtx.dumps.comparison import DumpComparison, FieldChange
    from popek.architectures.vtx.dumps.diagnosis import Diagnosis
    from popek.architectures.vtx.dumps.explanation import DumpExplanation
    from popek.architectures.vtx.dumps.model import Dump, Remark
    from popek.architectures.vtx.fields import Field
    from popek.architectures.vtx.verdict import Failure

_MOST_NAMED = 6
_FEW_BITS = 12
_STYLES = {
    "ENTERS": "bold green",
    "NO ENTRY FAILURE": "bold green",
    "SUSPECT": "bold yellow",
    "UNDECIDED": "bold yellow",
}


def _indented(console: Console, text: Text, indent: int, bullet: str = "") -> None:
    margin = indent + len(bullet)
    for number, line in enumerate(text.wrap(console, max(console.width - margin, 20))):
        line.rstrip()
        lead = " " * margin if number else " " * indent + bullet
        console.print(Text(lead).append_text(line), soft_wrap=True)


def _heading(console: Console, text: str, style: str = "bold") -> None:
    console.print()
    console.print(Text(text, style=style))


_MOST_AWAY = 3


def print_check(console: Console, diagnosis: Diagnosis) -> None:
    """Print a verdict: failed checks, warnings, what the dump says, and what is missing."""
    name = diagnosis.capabilities.name
    _title(console, diagnosis.dump, f"unknown, not {name}" if diagnosis.against else name)
    style = _STYLES.get(diagnosis.label, "bold red")
    _indented(console, Text.assemble((diagnosis.label, style), "  ", diagnosis.summary), 0)
    _failed(console, diagnosis)
    _warnings(console, diagnosis)
    _happened(console, diagnosis)
    if diagnosis.near_misses:
        _heading(console, "Near misses: each fails if one thing more holds", "bold yellow")
        for near in diagnosis.near_misses[:_MOST_NAMED]:
            console.print(Text(f"  {near.id}", style="bold"))
            _indented(console, Text(near.message), 4)
            given = f", as {' and '.join(near.holds)}" if near.holds else ""
            text = f"fails if {near.condition}{given}: give {', '.join(near.missing)}"
            _indented(console, Text(text, style="cyan"), 4)
        if (rest := len(diagnosis.near_misses) - _MOST_NAMED) > 0:
            _indented(console, Text(f"and {rest} more", style="dim"), 2)
    if diagnosis.one_away:
        _heading(console, "One fact decides each of these", "bold yellow")
        for away in diagnosis.one_away[:_MOST_AWAY]:
            console.print(Text(f"  {away.id}", style="bold"))
            _indented(console, Text(f"{away.statement}, as {' and '.join(away.holds)}"), 4)
            _indented(console, Text(f"give {away.missing}", style="cyan"), 4)
        if (rest := len(diagnosis.one_away) - _MOST_AWAY) > 0:
            _indented(console, Text(f"and {rest} more", style="dim"), 2)
    if diagnosis.shown:
        _heading(console, "What the dump shows of the processor")
        for sentence in diagnosis.shown:
            _indented(console, Text(sentence), 2, "- ")
    _undecided(console, diagnosis)
    if diagnosis.next_step:
        _heading(console, "What to do next")
        _indented(console, Text(diagnosis.next_step), 2, "- ")
    print_remarks(console, diagnosis.dump)


def _title(console: Console, dump: Dump, processor: str = "") -> None:
    parts = [dump.format, f"{len(dump.fields)} field{'s' * (len(dump.fields) != 1)}"]
    if processor:
        parts.append(f"processor: {processor}")
    _indented(console, Text(dump.name, style="bold"), 0)
    _indented(console, Text(" · ".join(parts), style="dim"), 0)


def _failed(console: Console, diagnosis: Diagnosis) -> None:
    shown: set[str] = set()
    failed, suspects = diagnosis.verdict.failed, diagnosis.suspects
    if failed:
        _heading(console, f"{len(failed)} check{'s fail' if len(failed) > 1 else ' fails'}", "bold red")
        for failure in failed:
            _failure(console, diagnosis, failure, shown)
    if suspects:
        _heading(console, "Suspects: these fail, unless the processor relaxes them", "bold yellow")
        for failure in suspects:
            _failure(console, diagnosis, failure, shown)


def _failure(console: Console, diagnosis: Diagnosis, failure: Failure, shown: set[str]) -> None:
    section = Text(f"  {section_name(failure.section)}", style="dim not bold")
    console.print(Text(f"  {failure.id}", style="bold").append(section))
    _indented(console, Text(failure.message), 4)
    for field_id, value in failure.fields.items():
        if field_id not in shown:
            shown.add(field_id)
            _value(console, diagnosis.dump, field_id, value)


def section_name(section: str) -> str:
    """Return a section of the ledger, where `E` is the manual's chapter on VM entries, for a reader."""
    return f"SDM, VM entries {section}".replace(" E.", " §")


def _value(console: Console, dump: Dump, field_id: str, value: int) -> None:
    from popek.architectures.vtx.dumps.bits import decode

    line = dump.lines.get(field_id)
    text = Text(f"{field_id} = {value:#x}", style="cyan")
    if line is not None:
        text.append(Text(f"  line {line}", style="dim not cyan"))
    _indented(console, text, 6)
    bits = decode(field_id, value)
    if len(bits) <= _FEW_BITS:
        shown = [bit for bit in bits if bit.value or not bit.name.startswith("RESERVED")]
        _bits(console, "", [_bit(bit) for bit in shown])
        return
    _bits(console, "set: ", [_bit(bit) for bit in bits if bit.value])
    clear = [bit for bit in bits if not bit.value and not bit.name.startswith("RESERVED")]
    _bits(console, "clear: ", [f"{bit.name}[{_place(bit)}]" for bit in clear])


def _bits(console: Console, label: str, words: Sequence[str]) -> None:
    if words:
        _indented(
            console, Text(label + "  ".join(word.replace(" ", "\u00a0") for word in words), style="dim"), 8
        )


def _bit(bit: Bit) -> str:
    number = f"{bit.value:#x}" if bit.value > 9 else str(bit.value)
    known = _meant(bit)
    return f"{bit.name}[{_place(bit)}]={number}{f' ({known})' if known else ''}"


def _known(bit: Bit) -> str:
    """What the value means, without the title of the bits."""
    return _meant(bit) or "-"


def _meant(bit: Bit) -> str:
    title, colon, known = bit.meaning.rpartition(": ")
    # A colon inside parentheses is the title's own.
    return known if colon and title.count("(") == title.count(")") else ""


def _place(bit: Bit) -> str:
    return f"{bit.high}:{bit.low}" if bit.high != bit.low else str(bit.high)


def _warnings(console: Console, diagnosis: Diagnosis) -> None:
    if not diagnosis.verdict.warnings:
        return
    _heading(console, "Warnings (no entry failures by themselves)", "bold yellow")
    for warning in diagnosis.verdict.warnings:
        console.print(Text(f"  {warning.id}", style="bold"))
        _indented(console, Text(warning.message), 4)


def _happened(console: Console, diagnosis: Diagnosis) -> None:
    if not diagnosis.happening.sentences:
        return
    _heading(console, "What the dump says")
    for sentence in diagnosis.happening.sentences:
        _indented(console, Text(sentence), 2, "- ")
    if diagnosis.agreement:
        _indented(console, Text(diagnosis.agreement, style="italic"), 2, "→ ")


def _undecided(console: Console, diagnosis: Diagnosis) -> None:
    count = len(diagnosis.verdict.undecided)
    if not count:
        return
    _heading(console, f"{count} check{'s are' if count > 1 else ' is'} not decidable from this dump")
    if diagnosis.relevant and diagnosis.relevant < count:
        _indented(
            console,
            Text(
                f"- {diagnosis.relevant} of them could cause what is reported; "
                f"{'it asks' if diagnosis.relevant == 1 else 'they ask'} for:"
            ),
            2,
        )
    if diagnosis.fields_asked:
        _indented(console, Text(f"add fields: {_names(diagnosis.fields_asked)}"), 2, "- ")
    if diagnosis.others_asked:
        text = "name the processor with --capabilities PRESET|FILE, or give memory in JSON"
        _indented(console, Text(f"{text}: {_names(diagnosis.others_asked)}"), 2, "- ")
    if diagnosis.unsure:
        text = f"{diagnosis.capabilities.name} is not sure of these, so they decide nothing"
        _indented(console, Text(f"{text}: {', '.join(diagnosis.unsure)}"), 2, "- ")


def _names(asked: Sequence[tuple[str, int]]) -> str:
    words = [f"{what.split(' (')[0]} ({count})" for what, count in asked[:_MOST_NAMED]]
    rest = len(asked) - _MOST_NAMED
    return ", ".join(words) + (f" and {rest} more" if rest > 0 else "")


def print_remarks(console: Console, dump: Dump) -> None:
    """Print what the reader of a dump had to say about single lines."""
    if dump.remarks:
        _heading(console, "Remarks on the dump")
        _lines(console, dump.remarks)
    if dump.unrecognised:
        count = len(dump.unrecognised)
        _heading(console, f"{count} piece{'s' * (count != 1)} of text not recognised", "dim")
        _lines(console, dump.unrecognised)


def _lines(console: Console, remarks: Sequence[Remark]) -> None:
    for remark in remarks[:_MOST_NAMED]:
        _indented(console, Text(f"line {remark.line}: {remark.text[:200]}", style="dim"), 2)
    if len(remarks) > _MOST_NAMED:
        _indented(console, Text(f"and {len(remarks) - _MOST_NAMED} more", style="dim"), 2)


def print_decode(console: Console, dump: Dump, decoded: Iterable[tuple[Field, int, Sequence[Bit]]]) -> None:
    """Print every field of a dump with its bits."""
    _title(console, dump)
    area = ""
    for field, value, bits in decoded:
        if field.area != area:
            area = field.area
            _heading(console, area.replace("-", " ").capitalize())
        shown = f"0x{value:0{field.width // 4}x}"
        line = Text.assemble((field.id, "cyan"), "  ", (shown, "bold"), "  ", (field.title, "dim"))
        _indented(console, line, 2)
        _columns(console, [_bit_row(bits) for bits in _runs(bits)], 4)
    if dump.reported:
        _heading(console, "Said beside the fields")
        _columns(console, [("", key, said) for key, said in dump.reported.items()], 0)
    print_remarks(console, dump)


def _runs(bits: Sequence[Bit]) -> list[list[Bit]]:
    """Each named bit alone; neighbouring bits without a name together."""
    runs: list[list[Bit]] = []
    for bit in bits:
        nameless = bit.name.startswith("bit ")
        if nameless and runs and runs[-1][-1].name.startswith("bit ") and runs[-1][-1].high == bit.low - 1:
            runs[-1].append(bit)
        else:
            runs.append([bit])
    return runs


def _bit_row(bits: list[Bit]) -> tuple[str, str, str]:
    first, last = bits[0], bits[-1]
    if first.name.startswith("bit "):
        place = f"{last.high}:{first.low}" if len(bits) > 1 else str(first.low)
        return place, "-", "1  reserved" if len(bits) == 1 else "1  all of these are reserved"
    number = f"{first.value:#x}" if first.value > 9 else str(first.value)
    return _place(first), first.name, f"{number}  {first.meaning}"


def _columns(console: Console, rows: Sequence[tuple[str, str, str]], indent: int) -> None:
    """Print rows of three columns: right-aligned, left-aligned, wrapped."""
    if not rows:
        return
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    for left, middle, right in rows:
        lead = f"{left:>{first}}  {middle:<{second}}  "
        style = "dim" if right.startswith("0  ") else ""
        _indented(console, Text(right, style=style), indent, lead)


def print_explanation(console: Console, explanation: DumpExplanation) -> None:
    """Print what is known of a check, a field or a bit."""
    _indented(console, Text.assemble((explanation.name, "bold"), "  ", (explanation.kind, "dim")), 0)
    _columns(console, [("", label, text) for label, text in explanation.rows], 0)
    if explanation.bits:
        console.print()
        _columns(console, explanation.bits, 2)


def print_comparison(console: Console, comparison: DumpComparison) -> None:
    """Print how two dumps differ, and how their verdicts do."""
    _title(console, comparison.first)
    _title(console, comparison.second)
    if not (comparison.changes or comparison.only_first or comparison.only_second):
        console.print("The fields are the same.")
    if comparison.changes:
        count = len(comparison.changes)
        _heading(console, f"{count} field{'s differ' if count > 1 else ' differs'}")
        for change in comparison.changes:
            _change(console, change)
    for title, ids in (
        ("Only in the first", comparison.only_first),
        ("Only in the second", comparison.only_second),
    ):
        if ids:
            _heading(console, f"{title}: {len(ids)} field{'s' * (len(ids) != 1)}")
            _indented(console, Text(", ".join(ids), style="dim"), 2)
    _heading(console, "Verdicts")
    for label, summary, failed in (
        ("first", comparison.first_summary, comparison.first_failed),
        ("second", comparison.second_summary, comparison.second_failed),
    ):
        _indented(console, Text(f"{label}: {summary}"), 2)
        if failed:
            _indented(console, Text(", ".join(failed), style="red"), 4)


def _change(console: Console, change: FieldChange) -> None:
    text = Text(f"  {change.field}", style="cyan")
    console.print(text.append(Text(f"  {change.first:#x} → {change.second:#x}", style="bold not cyan")))
    for before, after in change.bits:
        meaning = ""
        if before.meaning != after.meaning:
            meaning = f"  ({_known(before)} → {_known(after)})"
        _indented(
            console,
            Text(
                f"{before.name}[{_place(before)}]  {before.value:#x} → {after.value:#x}{meaning}", style="dim"
            ),
            6,
        )
