"""What is known of a check, a field, a bit or an exit reason, looked up by any of its names."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping

import attrs

from popek.architectures.vtx.entry_checks import CHECKS, NOT_CHECKED, NOT_MODELLED, ledger
from popek.errors import PopekError
from popek_specs.vtx import rows as table_rows

from .. import processor_names
from ..capability_files import load_capabilities, presets
from ..controls import INSTRUCTION_ERRORS, NamedBits, exit_reasons, find_bit
from ..evaluation import reads
from ..fields import FIELDS, Field, UnknownField, find
from .bits import bits_of
from .names import field_named


class UnknownSubject(PopekError):  # noqa: N818 -- named for what it says to the user
    """Nothing has this name; the message is one line with near matches."""


@attrs.frozen
class DumpExplanation:
    """What is known of one thing: labelled rows, and for a field its bits (place, name, meaning)."""

    name: str
    kind: str
    rows: tuple[tuple[str, str], ...]
    bits: tuple[tuple[str, str, str], ...] = ()


def explain(subject: str) -> list[DumpExplanation]:
    """Return what is known of a check id, field name or encoding, bit name, exit reason, or processor.

    Raises:
        UnknownSubject: nothing has this name.
    """
    subject = subject.strip()
    wanted = subject.upper()
    found = (
        _check(wanted)
        or (_field(subject) + _numbered(wanted))
        or _bits(subject)
        or _exit_reason(wanted)
        or _processor(subject)
    )
    if found:
        return found
    names = [*CHECKS, *NOT_CHECKED, *NOT_MODELLED, *FIELDS, *exit_reasons().values(), *_bit_names()]
    near = list(dict.fromkeys(difflib.get_close_matches(wanted, names, n=4, cutoff=0.6)))
    beginning = [name for name in names if wanted and name.startswith(wanted)][:4]
    hint = f": did you mean {', '.join(near or beginning)}?" if near or beginning else ""
    raise UnknownSubject(f"no check, field or bit is called {subject[:60]!r}{hint}")


def _processor(subject: str) -> list[DumpExplanation]:
    """A preset of capabilities, or a processor by the name that people use."""
    named = processor_names.find(subject)
    if compare := processor_names.compared(subject):
        nothing = (("known", "no public values of its VMX capabilities"), ("nearest", compare))
        return [DumpExplanation(subject, "processor", nothing)]
    if named is None and subject not in presets():
        return []
    known = load_capabilities(subject)
    rows = [("capabilities", named.preset.removeprefix("partial/") if named else subject)]
    rows += [("because", named.why)] if named else []
    rows += [("source", known.source)]
    if known.partial:
        rows.append(("known", "what it has at least: what it may lack or have besides stays undecided"))
    if known.unsure:
        rows.append(("unsure", ", ".join(known.unsure)))
    return [DumpExplanation(subject, "processor", tuple(row for row in rows if row[1]))]


def _numbered(wanted: str) -> list[DumpExplanation]:
    """What a number means beside the encoding of a field."""
    return _exit_reason(wanted) if wanted[:1].isdigit() or wanted.startswith("FFFFFFFF") else []


def _check(wanted: str) -> list[DumpExplanation]:
    if check := CHECKS.get(wanted):
        rows = [
            ("must hold", check.statement),
            ("when", check.gate_text),
            ("section", f"SDM vol. 3, {check.section} (E is the chapter on VM entries)"),
        ]
        rows.append(("otherwise", _outcome(check.outcome)))
        if check.certainty != "must":
            rows.append(("certainty", check.certainty))
        if check.confidence != "sure":
            rows.append(("confidence", check.confidence))
        rows.append(("looks at", ", ".join(reads(check))))
        return [
            DumpExplanation(check.id, f"check: {check.group.title}", tuple(row for row in rows if row[1]))
        ]
    for table, kind in ((NOT_CHECKED, "not checked by the processor"), (NOT_MODELLED, "not modelled here")):
        if wanted in table:
            row = ledger()[wanted]
            rows = [("because", table[wanted]), ("about", row["statement"]), ("when", row["gate"])]
            return [DumpExplanation(wanted, kind, tuple(item for item in rows if item[1]))]
    return []


def _outcome(outcome: object) -> str:
    kind = getattr(outcome, "kind", "")
    errors = getattr(outcome, "errors", ())
    reason, qualification = getattr(outcome, "reason", None), getattr(outcome, "qualification", None)
    if errors:
        return f"VMfailValid, VM-instruction error {' or '.join(map(str, errors))}"
    if reason is not None:
        at = f", qualification {qualification}" if qualification is not None else ""
        return f"VM-entry failure, exit reason {reason & 0xFFFF}{at}"
    return str(kind)


def _field(subject: str) -> list[DumpExplanation]:
    try:
        field = find(subject)
    except UnknownField:
        field_id = field_named(subject)
        if field_id is None:
            return []
        field = FIELDS[field_id]
    width = "natural width (64 bits)" if field.natural else f"{field.width} bits"
    rows = [
        ("title", field.title),
        ("encoding", f"{field.encoding:#06x}, {width}, {field.area}, {field.access}"),
        ("exists if", field.exists_if),
        ("checks", ", ".join(_readers(field))),
        *_unchecked(re.escape(field.id)),
    ]
    if field.area == "exit-information":
        rows.append(("no check", "VM exits write this field; VM entry does not look at it"))
    rows.append(("source", field.source))
    bits = tuple(
        (_place(bits), bits.name, bits.title if bits.title != bits.name else "") for bits in bits_of(field.id)
    )
    return [DumpExplanation(field.id, "field", tuple(row for row in rows if row[1]), bits)]


def _readers(field: Field) -> list[str]:
    return [check.id for check in CHECKS.values() if field.id in reads(check)]


def _bits(subject: str) -> list[DumpExplanation]:
    return [_bit(field_id, bits) for field_id, bits in find_bit(subject)]


def _bit(field_id: str, bits: NamedBits) -> DumpExplanation:
    rows = [("title", bits.title), ("field", f"{field_id} ({FIELDS[field_id].title})")]
    rows += [("checks", ", ".join(_mentioning(field_id, bits)))]
    if (short := _SHORT.get(field_id)) is not None:
        rows += _unchecked(rf"(?:{short})\[{bits.low}\]")
    rows.append(("source", bits.source))
    kind = f"bit{'s' * (bits.high != bits.low)} {_place(bits)} of {field_id}"
    return DumpExplanation(bits.name, kind, tuple(row for row in rows if row[1]))


def _unchecked(pattern: str) -> list[tuple[str, str]]:
    """The rows of the ledger that say that nothing is checked of what has this name, or that have no predicate."""
    word = re.compile(rf"\b{pattern}(?!\w)")
    return [
        (what, f"{row_id}: {why}")
        for what, table in (("no check", NOT_CHECKED), ("not modelled", NOT_MODELLED))
        for row_id, why in table.items()
        if word.search(f"{ledger()[row_id]['statement']} {ledger()[row_id]['gate']}")
    ]


_SHORT = {
    "PIN_CONTROLS": "pin",
    "PRIMARY_PROC_CONTROLS": "pri|primary",
    "SECONDARY_PROC_CONTROLS": "sec|secondary",
    "TERTIARY_PROC_CONTROLS": "ter|tertiary",
    "EXIT_CONTROLS": "exit",
    "SECONDARY_EXIT_CONTROLS": "exit2",
    "ENTRY_CONTROLS": "entry",
}


def _mentioning(field_id: str, bits: NamedBits) -> list[str]:
    """Checks of the field that name the bits: ``sec[1]`` for a control, ``PCIDE`` for another field."""
    short = _SHORT.get(field_id)
    named = rf"\b{re.escape(bits.name)}\b|\b{re.escape(field_id)}\[{_place(bits)}\]"
    pattern = named if short is None else rf"\b(?:{short})\[{bits.low}\]"
    word = re.compile(pattern)
    return [
        check.id
        for check in CHECKS.values()
        if word.search(f"{check.statement} {check.gate_text}") and (short or field_id in reads(check))
    ]


@functools.cache
def _causes() -> Mapping[tuple[str, int], str]:
    return {(row["kind"], int(row["number"])): row["cause"] for row in table_rows("causes.csv")}


@functools.cache
def _triggers() -> Mapping[int, str]:
    return {int(row["number"]): row["trigger"] for row in table_rows("exit-reasons.csv")}


def _exit_reason(wanted: str) -> list[DumpExplanation]:
    """An exit reason by name or number, with bit 31 or without; and the VM-instruction error of the same number."""
    for number, name in exit_reasons().items():
        if wanted in {name, f"EXIT_REASON_{name}", f"REASON {number}"}:
            return [_reason(number, name)]
    # Nobody writes an exit reason of eight digits but in hexadecimal, as Linux and Xen print it.
    hexadecimal = (
        wanted.startswith("0X") or re.fullmatch(r"(?:F{8})?[08]00000[0-9A-F]{2}", wanted) is not None
    )
    try:
        number = int(wanted, 16 if hexadecimal else 10)
    except ValueError:
        return []
    if number >> 31 == (1 << 33) - 1 and number & 0xFFFF_FFFF < 0x8000_0100:
        number &= 0xFFFF_FFFF  # extended by its sign
    found: list[DumpExplanation] = []
    failed = bool(number >> 31 & 1)
    basic = number & 0xFFFF if failed else number
    if basic in exit_reasons():
        found.append(_reason(basic, exit_reasons()[basic], failed=failed))
    if not failed and number in INSTRUCTION_ERRORS:
        rows = [("means", INSTRUCTION_ERRORS[number]), ("number", str(number))]
        rows.append(("usual causes", _causes()["VM-instruction error", number]))
        found.append(DumpExplanation(f"VM-instruction error {number}", "VMfailValid", tuple(rows)))
    if number in (0xFFFF_FFFF, (1 << 64) - 1):
        row = ("next", "this is AMD's: ask `popek vmcb explain -- -1`")
        return [DumpExplanation("VMEXIT_INVALID", "exit code of AMD's VMRUN", (row,))]
    return found


def _reason(number: int, name: str, *, failed: bool = False) -> DumpExplanation:
    rows = [("number", f"{number} ({number:#x})")]
    if failed:
        rows.append(("bit 31", "the VM entry failed: guest state, or what is loaded with it"))
    if trigger := _triggers().get(number):
        rows.append(("when", trigger))
    rows.append(("usual causes", _causes()["exit reason", number]))
    kind = "VM-entry failure" if name.startswith("ENTRY_FAIL_") else "basic exit reason"
    return DumpExplanation(name, kind, tuple(rows))


def _bit_names() -> list[str]:
    return [bits.name for field_id in FIELDS for bits in bits_of(field_id)]


def _place(bits: NamedBits) -> str:
    return f"{bits.high}:{bits.low}" if bits.high != bits.low else str(bits.high)
