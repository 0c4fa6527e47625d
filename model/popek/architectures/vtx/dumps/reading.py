"""Reads dumps from text or JSON, whichever an input turns out to be."""

from __future__ import annotations

import bisect
import itertools
import re

import attrs

from popek.architectures.cuts import open_end
from popek.architectures.enclosures import decoded, is_json, looks_like_json, unpacked
from popek.architectures.logs import LogLine, unwrap

from ...x86.next_steps import what_next
from . import headers, listings, registers
from .kinds import LineKind
from .kvm_registers import Printed, printed
from .letter_case import in_its_case
from .listings import unknown_name
from .model import Dump, DumpBuilder, DumpError
from .scanner import Scanner
from .surroundings import surroundings

_INTELS = ("Linux KVM", "Xen", "HAXM", "bhyve", "NoirVisor", "Jailhouse", "VirtualBox")
"""Formats that only a VMCS has."""

_WRAPPED = 3
_VALUE_AT_END = re.compile(r"[=:]\s*(?:0x)?[0-9a-fA-F]+$")
_BEGINS = re.compile(r"(?i)haxm_\w*|Guest \w+ ")
_MAX_BYTES = 64 << 20
_LONGEST_LINE = 2000
_KINDS = headers.KINDS + registers.KINDS + listings.KINDS
_ANY = DumpBuilder()
"""For a look at the lines before any is read."""
_FIRST_KINDS = tuple(kind for kind in _KINDS if kind.starts)
_OPEN_NAME = re.compile(r"[A-Z][A-Z0-9_]+\s*[=:]$")
_OPEN_HEADER = re.compile(
    r".{0,80}?(?:vmentry(?: failure(?:.*[^)])?)?|Failed vm(?: entry(?:.*[^).])?)?"
    r"|(?:VMLAUNCH|VMRESUME)(?: error:?)?|KVM: entry(?: failed,?(?: hardware(?: error)?)?)?"
    r"|VMCS \S+,(?: last(?: .*\D)?)?)$"
)
"""The first part of a header that a mailer broke."""
_OF_A_VMCS = re.compile(
    r"\W*(?:Guest|Host|Control) State\b|\*+ VMCS Area|.{0,80}?(?:VMCS \S+, last attempted|vmentry failure|KVM: entry)"
    r"|(?:VMLAUNCH|VMRESUME) error|VCPU \d|haxm_|(?:GUEST|HOST)_[A-Z0-9_]+ ?[=:]|[RE]AX=",
    re.IGNORECASE,
)
"""What ends a VMCB that stands in front of a VMCS."""


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
        return _read_json(text, name)
    return read_text(text, name)


def _read_json(text: str, name: str) -> list[Dump]:
    """Read JSON, or a text whose first line only looks like it.

    Raises:
        DumpError: as `read_dumps`.
    """
    from .json_input import read_json

    try:
        return read_json(text, name)
    except DumpError as error:
        if is_json(text):
            raise
        try:
            return read_text(text, name)
        except DumpError:
            raise error from None


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
    groups = unwrap(in_its_case(text))
    last, end = open_end(text, groups), open_end(text, groups, least=1)
    for lines in groups:
        builders += _read_lines(lines, last, end)
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
    dumps = [builder.build(dump_name) for builder, dump_name in zip(filled, names, strict=True)]
    if not any(dump.fields for dump in dumps):
        raise _nothing(builders, text)
    return [dump for dump in dumps if dump.fields]


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


def _kind_of(text: str) -> re.Match[str] | str | None:
    """The match of a line `NAME = value`, or the name of the format that has a line."""
    for kind in _KINDS:
        match = kind.pattern.match(text)
        if match is None or not (kind.applies is None or kind.applies(_ANY, match)):
            continue
        return match if kind is listings.PLAIN else kind.format
    return None


def _read_lines(lines: list[LogLine], last: int, end: int) -> list[DumpBuilder]:
    structures = printed("\n".join(line.text for line in lines))
    lines = _rejoined(lines)
    around = surroundings(lines, _kind_of, last, others=structures is not None)

    def fresh() -> DumpBuilder:
        return DumpBuilder(
            doubtful=around.doubtful, unended=around.unended, styles=around.styles, open_line=end
        )

    builders = [fresh()]

    def next_dump() -> DumpBuilder:
        builders.append(fresh())
        return builders[-1]

    scanner = Scanner(builders[0], next_dump, foreign=around.foreign_words)
    if structures is not None:
        lines = _without_structures(lines, structures, builders[0])
    run: list[LogLine] = []
    position, in_vmcb = 0, False
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
        in_vmcb = (in_vmcb and not _OF_A_VMCS.match(line.text)) or (
            claimed is not None and claimed[0] is headers.SVM
        )
        if in_vmcb and (claimed is None or claimed[0] is not headers.SVM):
            if line.text:
                scanner.builder.unrecognise(line.number, line.text)
            continue
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


def _rejoined(lines: list[LogLine]) -> list[LogLine]:
    """Bring together lines of names and numbers that a terminal broke at its last column."""
    longest = max((line.width for line in lines), default=0)
    if sum(line.width == longest for line in lines) < _WRAPPED:
        return lines
    found: list[LogLine] = []
    for line in lines:
        before = found[-1] if found else None
        anew = _BEGINS.match(line.text) is not None
        if (
            before is not None
            and before.width == longest
            and line.text
            and not anew
            and _kind_of(line.text) is None
        ):
            whole = next(
                (
                    text
                    for text in (before.text + line.text, f"{before.text} {line.text}")
                    if any(kind.pattern.match(text) for kind in listings.BROKEN)
                    or (_VALUE_AT_END.search(text) and isinstance(_kind_of(text), re.Match))
                ),
                None,
            )
            if whole is not None:
                found[-1] = attrs.evolve(before, text=whole, width=line.width)
                continue
        found.append(line)
    return found


def _without_structures(lines: list[LogLine], found: Printed, builder: DumpBuilder) -> list[LogLine]:
    """Read KVM's structures as Rust and C print them, and take their lines out."""
    starts = list(itertools.accumulate((len(line.text) + 1 for line in lines), initial=0))

    def place(offset: int) -> int:
        return bisect.bisect_right(starts, offset) - 1

    for field, (value, offset) in found.fields.items():
        registers.from_view(builder, field, value, lines[place(offset)].number, "KVM")
    for key, shown in found.viewed.items():
        builder.report(key, shown)
    for offset, remark in found.dropped:
        builder.remark(lines[place(offset)].number, remark)
    taken = {number for low, high in found.spans for number in range(place(low), place(high) + 1)}
    return [attrs.evolve(line, text="") if at in taken else line for at, line in enumerate(lines)]


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
