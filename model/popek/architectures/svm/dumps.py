"""Reads VMCBs: the text that Linux KVM or Xen prints for a failed VMRUN, JSON, or the 4096 bytes themselves.

A part of a VMCB is known by its heading. Registers that stand elsewhere in a log (QEMU's, those of a kernel's
oops) are not the VMCB's, whatever they are called.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from popek.architectures.cuts import cut_lines, open_end, unended_lines
from popek.architectures.dump import DumpError, Remark
from popek.architectures.enclosures import decoded, is_json, looks_like_json, unpacked
from popek.architectures.logs import LogLine, rejoined, unwrap

from ..x86.next_steps import KVM_AMD, what_next
from .dumps_json import from_json
from .layouts import CONTROL, DISTINCT, PADDED, SAVE, XEN, XEN_HALVES, XEN_PADDED, XEN_WORDS, straddles
from .named import is_listing, named_field, style_of, styles
from .vmcb import FIELDS, SIZE, SvmProcessor, Vmcb, VmcbDump, from_bytes

_FIRST = re.compile(r"(?i).{0,80}?VMCB \S+, last attempted VMRUN on CPU \d+")
_CONTROL_AREA = re.compile(r"(?i).{0,80}?VMCB Control Area:$")
_SAVE_AREA = re.compile(r"(?i).{0,80}?VMCB State Save Area:$")
_XEN_LISTING = re.compile(r"(?i).{0,80}?(?:Dumping guest's current state at|Size of VMCB = )")
_ENTRY_FAILED = re.compile(r"(?i).{0,80}?KVM: entry failed, hardware error (0x[0-9a-f]+)")
_PARAMETER = re.compile(r".*set kvm_amd\.dump_invalid_vmcb=1")
_SEGMENT = re.compile(
    r"(?<!\w)(es|cs|ss|ds|fs|gs|gdtr|ldtr|idtr|tr):\s+s:\s*([0-9a-fA-F]{4})\s+a:\s*([0-9a-fA-F]{4})"
    r"\s+l:\s*([0-9a-fA-F]{8})\s+b:\s*([0-9a-fA-F]{16})(?!\w)"
)
_XEN_SEGMENT = re.compile(
    r"(ES|CS|SS|DS|FS|GS|GDTR|LDTR|IDTR|TR):\s+(?:sel=0x)?([0-9a-f]{4}),?\s+(?:attr=0x)?([0-9a-f]{4}),?"
    r"\s+(?:limit=0x)?([0-9a-f]{8}),?\s+(?:base=0x)?([0-9a-f]{16})$",
    re.IGNORECASE,
)
_PAIR = re.compile(
    r"(?<![\w.])([a-z][a-z0-9_]*(?:\s+filter\s+(?:count|threshold))?):(?:\s+|(?<=old:)|(?<=features:))"
    r"(?:0x)?([0-9a-fA-F]+)(?![\w>]|\.\.)"
)
"""A name and its number, which nothing cut; KVM leaves no blank behind the names that fill their column."""
_PAIR_OF_WORDS = re.compile(r"(?<!\w)intercepts:\s+([0-9a-fA-F]{8})\s+([0-9a-fA-F]{8})(?!\w)")
_GOES_ON = re.compile(r"\n\d+(?:\n|\Z)")
_REST_OF_NUMBER = re.compile(r"x?[0-9a-f]+(?!\w)")
_XEN_PAIR = re.compile(
    r"(?<!\w)([A-Za-z_0-9]+)\s*=\s*(?:0x)?([0-9a-fA-F]+)(?![\w>]|\.\.)|(event_?inj) ([0-9a-f]{16}),"
)
_XEN_NUMBER = re.compile(r"=\s*(?:0x[0-9a-f]+|0)$", re.IGNORECASE)
_TAIL = re.compile(r"(?<![?\w])[A-Za-z_]+$")
_OF_INTEL = re.compile(r"(?i)\*\*\* (?:Guest|Host|Control) State \*\*\*|hardware error 0x80000[0-9a-f]{3}\b")
_VMCS = re.compile(r"(?i)\*{3,} VMCS Area|VMCS \S+, last attempted|vmentry failure \(reason")
_INVALID: Final = (1 << 64) - 1


def read_vmcb(data: bytes, name: str) -> tuple[Vmcb, SvmProcessor]:
    """The first VMCB of an input, and what the input says of the processor; see `read_vmcbs`."""
    first = read_vmcbs(data, name)[0]
    return first.vmcb, first.processor


def read_vmcbs(data: bytes, name: str) -> list[VmcbDump]:
    """Every VMCB of an input.

    Raises:
        DumpError: the input is none of the formats, or a value of it is damaged.
    """
    if len(data) == SIZE and b"\0" in data:
        return [VmcbDump(from_bytes(data, name))]
    text = decoded(data)
    if (log := unpacked(text)) is not None:
        text = log
    elif looks_like_json(text):
        try:
            return from_json(text, name)
        except DumpError:
            if is_json(text):
                raise
            try:
                return _read_text(text, name)
            except DumpError:
                pass
            raise
    return _read_text(text, name)


def _read_text(text: str, name: str) -> list[VmcbDump]:
    groups = unwrap(text.lower() if text.isupper() else text)
    last = open_end(text, groups)
    readers = [_Reader(last).read(lines) for lines in groups]
    dumps = [dump for reader in readers for dump in reader.dumps if dump.fields]
    if not dumps:
        hints = [hint for reader in readers for hint in reader.hints]
        hints += [item for reader in readers for part in reader.dumps for item in part.remarks]
        if hints:
            raise DumpError(hints[0].text, hints[0].line)
        if (place := _OF_INTEL.search(text)) is not None:
            line = text.count("\n", 0, place.start()) + 1
            raise DumpError("this is a VMCS, not an AMD VMCB: give it to `popek vmcs check`", line)
        if (found := what_next(text)) is not None:
            raise DumpError(f"no VMCB field here: {found.who}: {found.step}")
        raise DumpError(
            "no VMCB field: expected a dump by KVM (dump_invalid_vmcb=1), NAME = value lines or JSON"
        )
    aside = [
        item for reader in readers for dump in reader.dumps if not dump.fields for item in dump.unrecognised
    ]
    dumps[0].unrecognised[:0] = aside
    for reader in readers:
        # What the text says of the failed entry is of the dump beside it, unless that says more.
        if reader.exit_code is not None and len(dumps) == 1:
            dumps[0].fields.setdefault("EXITCODE", reader.exit_code)
    for dump in dumps:
        dump.drop_halves()
    several = len(dumps) > 1
    return [
        VmcbDump(
            Vmcb(f"{name}#{number}" if several else name, dump.fields),
            SvmProcessor(),
            dump.lines,
            dump.remarks,
            sorted(dump.unrecognised, key=lambda item: item.line),
        )
        for number, dump in enumerate(dumps, 1)
    ]


@attrs.define
class _Part:
    """One VMCB while it is read."""

    fields: dict[str, int] = attrs.field(factory=dict)
    lines: dict[str, int] = attrs.field(factory=dict)
    remarks: list[Remark] = attrs.field(factory=list)
    unrecognised: list[Remark] = attrs.field(factory=list)
    dropped: set[str] = attrs.field(factory=set)
    halves: dict[tuple[str, int], int] = attrs.field(factory=dict)
    halved: set[str] = attrs.field(factory=set)

    def put(self, field_id: str, shift: int, value: int, line: int) -> None:
        """Record a value; of two different ones neither is taken."""
        if value << shift > FIELDS[field_id].mask:
            why = f"{field_id}: {value:#x} does not fit in {FIELDS[field_id].width} bits: not read"
            self.remarks.append(Remark(line, why))
            return
        if field_id in self.dropped:
            return
        before = self.halves.get((field_id, shift))
        if before is not None and before != value:
            self.remarks.append(
                Remark(
                    line,
                    f"{field_id} is {value:#x} here but {before:#x} on line {self.lines[field_id]}: neither is taken",
                )
            )
            self.dropped.add(field_id)
            self.fields.pop(field_id, None)
            return
        self.halves[field_id, shift] = value
        self.lines.setdefault(field_id, line)
        self.fields[field_id] = self.fields.get(field_id, 0) | value << shift

    def drop_halves(self) -> None:
        """A word that KVM prints as two halves is not known from one of them."""
        for field_id in self.halved:
            if field_id in self.fields and not {(field_id, 0), (field_id, 16)} <= self.halves.keys():
                del self.fields[field_id]
                self.remarks.append(Remark(self.lines[field_id], f"{field_id}: only one half is printed"))


def _has_pair(text: str) -> bool:
    """Whether a line has something of a VMCB's, to its end."""
    if named_field(text) is not None or _SEGMENT.search(text) or _XEN_SEGMENT.match(text):
        return True
    ends = [match.end() for pattern in (_PAIR, _PAIR_OF_WORDS, _XEN_PAIR) for match in pattern.finditer(text)]
    return bool(ends) and max(ends) == len(text)


class _Reader:
    """Reads the lines of one log."""

    def __init__(self, last: int) -> None:
        self._open_end, self._doubtful = last, frozenset[int]()
        self._styles: frozenset[tuple[bool, bool]] | None = None
        self.dumps = [_Part()]
        self.exit_code: int | None = None
        self.hints: list[Remark] = []
        self._section = ""
        self._headless = ""
        self._takes_registers = False
        self._last = False
        self._run: list[LogLine] = []

    def read(self, lines: list[LogLine]) -> _Reader:
        """Read all lines."""
        headed = any(_CONTROL_AREA.match(line.text) or _SAVE_AREA.match(line.text) for line in lines)
        self._takes_registers = not headed and is_listing(lines)
        unknown = [not _has_pair(line.text) for line in lines]
        self._doubtful = unended_lines(lines, unknown, self._open_end) | cut_lines(lines, unknown)
        self._styles = styles(lines, headed=headed or any(_XEN_LISTING.match(line.text) for line in lines))
        if not headed:
            names = {match[1] for line in lines for match in _PAIR.finditer(line.text)}
            self._headless = self._section = "control" if len(names & DISTINCT) >= 3 else ""
        for line in lines:
            if not self._heading(line):
                self._run.append(line)
        self._last = True
        self._finish()
        return self

    def _heading(self, line: LogLine) -> bool:
        text = line.text
        if _FIRST.match(text):
            self._enter(self._headless, new=bool(self.dumps[-1].fields))
        elif _CONTROL_AREA.match(text):
            self._enter("control", new=any(FIELDS[name].area == "control" for name in self.dumps[-1].fields))
        elif _SAVE_AREA.match(text):
            self._enter("save")
        elif _XEN_LISTING.match(text):
            self._enter("xen", new=bool(self.dumps[-1].fields) and self._section != "xen")
        elif match := _ENTRY_FAILED.match(text):
            if int(match[1], 16) in (0xFFFF_FFFF, _INVALID):
                self.exit_code = _INVALID
                self.hints.append(Remark(line.number, NO_DUMP))
            self._enter("")
        elif _OF_INTEL.search(text) or _VMCS.search(text):
            self._enter("vmcs")
        elif _PARAMETER.match(text):
            self.hints.append(Remark(line.number, NO_DUMP))
        else:
            return False
        return True

    def _enter(self, section: str, *, new: bool = False) -> None:
        self._finish()
        self._section = section
        if new:
            self.dumps.append(_Part())

    def _finish(self) -> None:
        part, run = self.dumps[-1], self._run
        self._run = []
        if self._section in ("control", "save"):
            run = rejoined(run, straddles)
        if self._section not in ("xen", "vmcs"):
            for place, line in enumerate(run):
                following = run[place + 1].text if place + 1 < len(run) else ""
                tail = _TAIL.search(run[place - 1].text) if place else None
                if tail is not None and named_field(tail[0] + line.text) is not None:
                    continue  # the line before ends in the beginning of the name
                if line.text and not _REST_OF_NUMBER.match(following) and self._named(part, line):
                    run[place] = attrs.evolve(line, text="")
        if self._section in ("control", "save"):
            self._pairs(part, run)
        elif self._section == "xen":
            self._xen(part, run)
        else:
            for line in run:
                self._aside(part, line.number, line.text)

    def _named(self, part: _Part, line: LogLine) -> bool:
        """Read a line `NAME = value`; a number of a register text, with leading zeros, is none."""
        found = named_field(line.text)
        if found is None:
            return False
        field, digits = found
        if field.area == "save" and not self._takes_registers:
            return False  # a register of this name may be anybody's
        name = line.text.partition("=")[0].strip()
        if (self._styles is not None and style_of(line.text) not in self._styles) or (
            (self._section or self._headless) and name != field.id
        ):
            return False  # the dump's own lines are written otherwise
        if line.number in self._doubtful and 4 * len(digits.lower().removeprefix("0x")) < field.width:
            part.remarks.append(Remark(line.number, f"{field.id}: the number {digits} may go on: not read"))
            return True
        if digits[:1] == "0" and len(digits) > 1 and digits[:2].lower() != "0x":
            if len(digits) >= 8:
                return False  # QEMU's registers are padded
            why = (
                f"{field.id}: {digits}: write {'0x' + (digits.lstrip('0') or '0')} if it is hexadecimal, or "
            )
            part.remarks.append(
                Remark(line.number, why + "the decimal number without leading zeros: not read")
            )
            return True
        part.put(field.id, 0, int(digits, 0), line.number)
        return True

    @staticmethod
    def _aside(part: _Part, number: int, text: str) -> None:
        text = text.strip(" \t,;|")
        if re.search(r"\w", text):
            part.unrecognised.append(
                Remark(number, "".join(c if c.isprintable() else "\ufffd" for c in text))
            )

    def _pairs(self, part: _Part, run: list[LogLine]) -> None:
        """Read KVM's areas, wherever their lines are broken."""
        text = "\n".join(line.text for line in run)
        starts, offset = [], 0
        for line in run:
            starts.append(offset)
            offset += len(line.text) + 1
        found: list[tuple[int, int]] = []

        def line_of(place: int) -> int:
            return run[max(index for index, start in enumerate(starts) if start <= place)].number

        for match in _SEGMENT.finditer(text):
            found.append(match.span())
            for index, suffix in enumerate(("SELECTOR", "ATTRIBUTES", "LIMIT", "BASE"), 2):
                part.put(f"{match[1].upper()}_{suffix}", 0, int(match[index], 16), line_of(match.start()))
        for match in _PAIR_OF_WORDS.finditer(text):
            found.append(match.span())
            for index in (1, 2):
                part.put(f"INTERCEPTS_{2 + index}", 0, int(match[index], 16), line_of(match.start()))
        for match in _PAIR.finditer(text):
            if any(low <= match.start() < high for low, high in found):
                continue
            key, ends = " ".join(match[1].split()), self._last and match.end() == len(text)
            ends = ends or (
                text[match.end() : match.end() + 1] in ("", "\n") and line_of(match.start()) in self._doubtful
            )
            if CONTROL.get(key, ("", 16, 0))[1] == 10 and (ends or _GOES_ON.match(text, match.end())):
                # Nothing tells whether a decimal number goes on behind the end of the text, or of the line.
                why = (
                    "the text, or the line, is cut in this number"
                    if ends
                    else "the number may go on in the next line"
                )
                part.remarks.append(Remark(line_of(match.start()), f"{key}: {why}"))
                found.append(match.span())
                continue
            if item := self._pair(key, match[2]):
                found.append(match.span())
                if item[0] in ("CR_INTERCEPTS", "DR_INTERCEPTS"):
                    part.halved.add(item[0])
                part.put(*item, line_of(match.start()))
        position = 0
        for low, high in sorted((*found, (len(text), len(text)))):
            for piece in re.finditer(r"[^\n]+", text[position:low]):
                self._aside(part, line_of(position + piece.start()), piece[0])
            position = max(position, high)

    def _pair(self, key: str, digits: str) -> tuple[str, int, int] | None:
        """Field id, shift and value of a pair, by the width that KVM pads it to."""
        if key in CONTROL:
            field_id, base, shift = CONTROL[key]
            if (base == 16 or digits.isdigit()) and len(digits) >= PADDED.get(key, 1):
                return field_id, shift, int(digits, base)
        elif self._section == "save" or self.dumps[-1].fields:
            if key == "cpl" and digits in ("0", "1", "2", "3"):
                return "CPL", 0, int(digits)
            if key in SAVE and len(digits) == 16:
                return SAVE[key], 0, int(digits, 16)
        return None

    def _xen(self, part: _Part, run: list[LogLine]) -> None:
        for place, line in enumerate(run):
            following = run[place + 1].text if place + 1 < len(run) else None
            if match := _XEN_SEGMENT.match(line.text):
                for index, suffix in enumerate(("SELECTOR", "ATTRIBUTES", "LIMIT", "BASE"), 2):
                    part.put(f"{match[1].upper()}_{suffix}", 0, int(match[index], 16), line.number)
                continue
            known, rest = False, line.text
            tail = _TAIL.search(run[place - 1].text) if place else None
            for match in _XEN_PAIR.finditer(line.text):
                key, digits = (match[1] or match[3]).lower(), match[2] or match[4]
                if match[2] and XEN.get(key, ("", 10))[1] == 16 and not _XEN_NUMBER.search(match[0]):
                    continue  # as another program writes it
                if tail is not None and match.start() == 0:
                    # Perhaps the line before ends in the beginning of the name.
                    joined = tail[0].lower() + key
                    key = joined if joined in XEN or joined in XEN_HALVES else key
                if key in XEN or key in XEN_HALVES:
                    rest = rest.replace(match[0], " ", 1)
                if (key in XEN or key in XEN_HALVES) and self._is_broken(line, match, key, following):
                    part.remarks.append(
                        Remark(line.number, f"{match[1]}: the number may go on behind the line")
                    )
                    known = True
                    continue
                if key in XEN_HALVES:
                    whole, low = int(digits, 16), FIELDS[XEN_HALVES[key][0]].width
                    for field_id, value in zip(
                        XEN_HALVES[key], (whole & (1 << low) - 1, whole >> low), strict=True
                    ):
                        part.put(field_id, 0, value & FIELDS[field_id].mask, line.number)
                elif key in XEN:
                    field_id, base = XEN[key]
                    part.put(field_id, 0, int(digits, base), line.number)
                else:
                    continue
                known = True
            if re.fullmatch(r"\s*sel\s+attr\s+limit\s+base", line.text):
                continue
            if not known or {word.lower() for word in re.findall("[A-Za-z_]\\w*", rest)} - XEN_WORDS:
                self._aside(part, line.number, rest if known else line.text)

    def _is_broken(self, line: LogLine, match: re.Match[str], key: str, following: str | None) -> bool:
        """Whether a number of Xen's is none of those it prints: too short, or at an end that is no line's."""
        if len(match[2] or match[4]) < XEN_PADDED.get(key, 1):
            return True
        if match.end() < len(line.text):
            return False
        if line.number in self._doubtful and key not in XEN_PADDED:
            return True
        return (self._last if following is None else _REST_OF_NUMBER.match(following) is not None) and (
            key not in XEN_PADDED
        )


NO_DUMP: Final = f"VMRUN ended in VMEXIT_INVALID, and there is no VMCB: {KVM_AMD}"
