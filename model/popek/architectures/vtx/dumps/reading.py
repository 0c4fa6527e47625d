"""Reads dumps from text or JSON, whichever an input turns out to be."""

from __future__ import annotations

import re

import attrs

from popek.architectures.enclosures import decoded, looks_like_json, unpacked
from popek.architectures.logs import LogLine, unwrap

from ...x86.next_steps import what_next
from . import headers, listings, registers
from .kinds import LineKind
from .kvm_registers import REMARK, kvm_fields, kvm_text
from .listings import unknown_name
from .model import Dump, DumpBuilder, DumpError, Remark
from .scanner import Scanner

_INTELS = ("Linux KVM", "Xen", "HAXM", "bhyve", "NoirVisor", "Jailhouse", "VirtualBox")
"""Formats that only a VMCS has."""

_MAX_BYTES = 64 << 20
_LONGEST_LINE = 2000
_KINDS = headers.KINDS + registers.KINDS + listings.KINDS
_FIRST_KINDS = tuple(kind for kind in _KINDS if kind.starts)
_OPEN_NAME = re.compile(r"[A-Z][A-Z0-9_]+\s*[=:]$")
_OPEN_HEADER = re.compile(
    r".{0,80}?(?:vmentry(?: failure(?:.*[^)])?)?|Failed vm(?: entry(?:.*[^).])?)?"
    r"|(?:VMLAUNCH|VMRESUME)(?: error:?)?|KVM: entry(?: failed,?(?: hardware(?: error)?)?)?"
    r"|VMCS \S+,(?: last(?: .*\D)?)?)$"
)
"""The first part of a header that a mailer broke."""


def read_dumps(data: bytes, name: str) -> list[Dump]:
    """Read every dump in an input; `name` is used to tell the dumps apart.

    Text in any of the formats of this package and JSON are told apart by their first character.

    Raises:
        DumpError: the input is binary, too large or damaged, or holds no VMCS field.
    """
    text = decode(data)
    if (log := unpacked(text)) is not None:
        text = log
    elif looks_like_json(text):
        from .json_input import read_json

        return read_json(text, name)
    if (printed := kvm_text(text)) is not None and (registers := kvm_fields(printed)) is not None:
        return [
            Dump(name, "KVM registers", 1, registers[0], reported=registers[1], remarks=(Remark(1, REMARK),))
        ]
    return read_text(text, name)


def decode(data: bytes) -> str:
    """Return the text of an input.

    Raises:
        DumpError: the input is empty, binary or larger than 64 MiB.
    """
    if len(data) > _MAX_BYTES:
        raise DumpError(
            f"{len(data) >> 20} MiB is too large for a dump (the limit is {_MAX_BYTES >> 20} MiB)"
        )
    text = decoded(data)
    if not text.strip():
        raise DumpError("the input is empty")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DumpError("this is a binary file: expected the text of a dump, or JSON", line)
    return text


def read_text(text: str, name: str) -> list[Dump]:
    """Read every dump in a text (not JSON).

    Raises:
        DumpError: a value is damaged or contradicts another one, or there is no VMCS field at all.
    """
    builders: list[DumpBuilder] = []
    for lines in unwrap(text):
        builders += _read_lines(lines)
    amd = next((builder.amd for builder in builders if builder.amd), 0)
    if amd and not any(builder.format in _INTELS for builder in builders):
        raise DumpError("this is an AMD VMCB, not a VMCS: give it to `popek vmcb check`", amd)
    filled = [builder for builder in builders if not builder.empty]
    if not filled:
        raise _nothing(builders, text)
    for builder in builders:
        if builder not in filled:
            _merge(filled[0], builder)
    for builder in filled:
        # The debug key prints one VMCS after the other.
        builder.entered = builder.entered or (filled[0].entered and builder.format == "Xen")
    names = [name if len(filled) == 1 else f"{name}#{number}" for number in range(1, len(filled) + 1)]
    return [builder.build(dump_name) for builder, dump_name in zip(filled, names, strict=True)]


def _merge(into: DumpBuilder, other: DumpBuilder) -> None:
    into.unrecognised += other.unrecognised
    into.remarks += other.remarks
    into.capabilities |= other.capabilities
    into.entered = into.entered or other.entered
    into.implied = other.implied | into.implied
    for key, value in other.reported.items():
        into.report(key, value)


def _nothing(builders: list[DumpBuilder], text: str) -> DumpError:
    if any(builder.capabilities for builder in builders):
        return DumpError("holds capability MSRs but no VMCS field: give it to --capabilities")
    for builder in builders:
        for remark in builder.remarks:
            return DumpError(remark.text, remark.line)
    if (found := what_next(text)) is not None:
        return DumpError(f"no VMCS field here: {found.who}: {found.step}")
    count = text.count("\n") + 1
    return DumpError(
        f"no VMCS field in {count} line{'s' * (count != 1)}: expected a Linux KVM or Xen dump, "
        "NAME = value lines, or JSON"
    )


def _starts(text: str) -> bool:
    """Whether a line is the first of a dump."""
    return len(text) <= _LONGEST_LINE and any(kind.pattern.match(text) for kind in _FIRST_KINDS)


def _claimed(builder: DumpBuilder, text: str) -> tuple[LineKind, re.Match[str]] | None:
    """Return the kind of a line; None leaves it to the `dump_vmcs` scanner."""
    if len(text) > _LONGEST_LINE:
        return None
    for kind in _KINDS:
        match = kind.pattern.match(text)
        if match is not None and (kind.applies is None or kind.applies(builder, match)):
            return kind, match
    return None


def _read_lines(lines: list[LogLine]) -> list[DumpBuilder]:
    builders = [DumpBuilder()]

    def next_dump() -> DumpBuilder:
        builders.append(DumpBuilder())
        return builders[-1]

    scanner = Scanner(builders[0], next_dump)
    run: list[LogLine] = []
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        while position < len(lines) and _continues(line.text, lines[position].text):
            line = attrs.evolve(line, text=f"{line.text} {lines[position].text}")
            position += 1
        if _starts(line.text):
            scanner.scan(run, at_end=True)
            run = []
            if scanner.builder.fields or scanner.builder.upper_halves:
                scanner.finish()
                scanner.reset(next_dump())
        claimed = _claimed(scanner.builder, line.text)
        if claimed is None:
            run.append(line)
            continue
        if run and line.text and line.text[0] not in "#*":
            scanner.scan(run, at_end=False)
            run = []
        kind, match = claimed
        kind.read(scanner.builder, match, line.number)
    scanner.scan(run, at_end=True)
    scanner.finish()
    return [_explained(builder) for builder in builders]


def _continues(text: str, following: str) -> bool:
    """Whether a mailer broke a header, or `NAME = value`, before the following line."""
    if len(text) > _LONGEST_LINE or not following:
        return False
    if _OPEN_NAME.match(text):
        return re.fullmatch(r"(?:0x)?[0-9a-fA-F]+", following) is not None
    return following[0] not in "*#" and _OPEN_HEADER.match(text) is not None


def _explained(builder: DumpBuilder) -> DumpBuilder:
    """Say of lines that look like `FIELD = value` why they are none."""
    for item in builder.unrecognised:
        if text := unknown_name(item.text):
            builder.remark(item.line, text)
    return builder
