"""Text for the terminal: verdicts on VMCSs, decoded fields, explanations and differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from popek.architectures.vtx.controls import Bit
    from popek.architectures.vtx.dumps.comparison import Comparison, FieldChange
    from popek.architectures.vtx.dumps.diagnosis import Diagnosis
    from popek.architectures.vtx.dumps.explanation import Explanation
    from popek.architectures.vtx.dumps.model import Dump, Remark
    from popek.architectures.vtx.fields import Field

_MOST_NAMED = 6
_STYLES = {"enters": "bold green", "undecided": "bold yellow"}
_KINDS = {
    "enters": "ENTERS",
    "undecided": "UNDECIDED",
    "vmfail-invalid": "FAILS",
    "vmfail-valid": "FAILS",
    "entry-failure": "FAILS",
    "fault": "FAILS",
}


def _indented(console: Console, text: Text | Table, indent: int) -> None:
    console.print(Padding(text, (0, 0, 0, indent)))


def _heading(console: Console, text: str, style: str = "bold") -> None:
    console.print()
    console.print(Text(text, style=style))


def print_check(console: Console, diagnosis: Diagnosis, summary: str) -> None:
    """Print a verdict: failed checks, warnings, what the dump says, and what is missing."""
    _title(console, diagnosis.dump, diagnosis.capabilities.name)
    kind = diagnosis.verdict.outcome.kind
    line = Text(f"{_KINDS[kind]}  ", style=_STYLES.get(kind, "bold red"))
    console.print(line.append(Text(summary, style="default")))
    _failed(console, diagnosis)
    _warnings(console, diagnosis)
    _happened(console, diagnosis)
    _undecided(console, diagnosis)
    print_remarks(console, diagnosis.dump)


def _title(console: Console, dump: Dump, processor: str = "") -> None:
    text = Text(dump.name, style="bold")
    parts = [dump.format, f"{len(dump.fields)} field{'s' * (len(dump.fields) != 1)}"]
    if processor:
        parts.append(f"processor: {processor}")
    console.print(text.append(Text(f" · {' · '.join(parts)}", style="dim not bold")))


def _failed(console: Console, diagnosis: Diagnosis) -> None:
    failed = diagnosis.verdict.failed
    if not failed:
        return
    _heading(console, f"{len(failed)} check{'s fail' if len(failed) > 1 else ' fails'}", "bold red")
    shown: set[str] = set()
    for failure in failed:
        console.print(
            Text(f"  {failure.id}", style="bold").append(
                Text(f"  SDM {failure.section}", style="dim not bold")
            )
        )
        _indented(console, Text(failure.message), 4)
        for field_id, value in failure.fields.items():
            if field_id not in shown:
                shown.add(field_id)
                _value(console, diagnosis.dump, field_id, value)


def _value(console: Console, dump: Dump, field_id: str, value: int) -> None:
    from popek.architectures.vtx.controls import decode

    line = dump.lines.get(field_id)
    text = Text(f"{field_id} = {value:#x}", style="cyan")
    if line is not None:
        text.append(Text(f"  line {line}", style="dim not cyan"))
    _indented(console, text, 6)
    if bits := decode(field_id, value):
        _indented(console, _in_a_row(bits), 8)


def _in_a_row(bits: Sequence[Bit]) -> Text:
    """All bits of a small field, or the ones that are set in a large one."""
    chosen = bits if len(bits) <= 12 else [bit for bit in bits if bit.value]
    words = [_bit(bit) for bit in chosen] or ["no bit is set"]
    return Text("  ".join(words), style="dim")


def _bit(bit: Bit) -> str:
    place = f"[{bit.high}:{bit.low}]" if bit.high != bit.low else f"[{bit.high}]"
    number = f"{bit.value:#x}" if bit.value > 9 else str(bit.value)
    meaning = f" ({bit.meaning})" if bit.meaning and bit.high != bit.low else ""
    return f"{bit.name}{place}={number}{meaning}".replace(" ", "\u00a0")


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
        _indented(console, Text(f"- {sentence}"), 2)
    if diagnosis.agreement:
        _indented(console, Text(diagnosis.agreement, style="italic"), 2)


def _undecided(console: Console, diagnosis: Diagnosis) -> None:
    count = len(diagnosis.verdict.undecided)
    if not count:
        return
    _heading(console, f"{count} check{'s are' if count > 1 else ' is'} not decidable from this dump", "bold")
    if diagnosis.fields_asked:
        _indented(console, Text(f"add the fields: {_names(diagnosis.fields_asked)}"), 2)
    if diagnosis.others_asked:
        text = f"add with --capabilities, or in JSON ({diagnosis.waiting_for_others} checks): "
        _indented(console, Text(f"{text}{_names(diagnosis.others_asked)}"), 2)


def _names(asked: Sequence[tuple[str, int]]) -> str:
    words = [f"{what} ({count})" for what, count in asked[:_MOST_NAMED]]
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
        digits = field.width // 4
        console.print(
            Text(f"  {field.id}", style="cyan").append(
                Text(f"  0x{value:0{digits}x}", style="bold not cyan").append(
                    Text(f"  {field.title}", style="dim not bold")
                )
            )
        )
        if bits:
            _indented(console, _bit_table(bits), 4)
    if dump.reported:
        _heading(console, "Said beside the fields")
        for key, said in dump.reported.items():
            _indented(console, Text(f"{key}: {said}"), 2)
    print_remarks(console, dump)


def _bit_table(bits: Sequence[Bit]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for bit in bits:
        place = f"{bit.high}:{bit.low}" if bit.high != bit.low else f"{bit.high}"
        number = f"{bit.value:#x}" if bit.value > 9 else str(bit.value)
        style = "default" if bit.value else "dim"
        table.add_row(place, Text(bit.name, style=style), Text(number, style=style), bit.meaning)
    return table


def print_explanation(console: Console, explanation: Explanation) -> None:
    """Print what is known of a check, a field or a bit."""
    console.print(
        Text(explanation.name, style="bold").append(Text(f"  {explanation.kind}", style="dim not bold"))
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column()
    for label, text in explanation.rows:
        table.add_row(label, text)
    _indented(console, table, 2)
    if explanation.bits:
        console.print()
        bits = Table.grid(padding=(0, 2))
        bits.add_column(justify="right", no_wrap=True, style="dim")
        bits.add_column(no_wrap=True)
        bits.add_column(style="dim")
        for row in explanation.bits:
            bits.add_row(*row)
        _indented(console, bits, 2)


def print_comparison(console: Console, comparison: Comparison) -> None:
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
        place = f"[{before.high}:{before.low}]" if before.high != before.low else f"[{before.high}]"
        meaning = ""
        if before.meaning != after.meaning:
            meaning = f"  ({before.meaning or '-'} → {after.meaning or '-'})"
        _indented(
            console,
            Text(f"{before.name}{place}  {before.value:#x} → {after.value:#x}{meaning}", style="dim"),
            6,
        )
