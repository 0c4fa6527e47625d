"""Reads VMCBs: the text that Linux KVM or Xen prints for a failed VMRUN, JSON, or the 4096 bytes themselves.

A part of a VMCB is known by its heading. Registers that stand elsewhere in a log (QEMU's, those of a kernel's
oops) are not the VMCB's, whatever they are called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from popek.architectures.logs import LogLine, decoded, unwrap

from .dumps_json import VmcbDumpError, from_json
from .vmcb import FIELDS, SIZE, SvmProcessor, UnknownVmcbField, Vmcb, find, from_bytes

# Name in the dump -> field id (the second one takes the upper half) and base of the number.
_CONTROL: Final[Mapping[str, tuple[str, int, int]]] = {
    "cr_read": ("CR_INTERCEPTS", 16, 0),
    "cr_write": ("CR_INTERCEPTS", 16, 16),
    "dr_read": ("DR_INTERCEPTS", 16, 0),
    "dr_write": ("DR_INTERCEPTS", 16, 16),
    "exceptions": ("EXCEPTION_INTERCEPTS", 16, 0),
    "pause filter count": ("PAUSE_FILTER_COUNT", 10, 0),
    "pause filter threshold": ("PAUSE_FILTER_THRESHOLD", 10, 0),
    "iopm_base_pa": ("IOPM_BASE", 16, 0),
    "msrpm_base_pa": ("MSRPM_BASE", 16, 0),
    "tsc_offset": ("TSC_OFFSET", 16, 0),
    "asid": ("ASID", 10, 0),
    "tlb_ctl": ("TLB_CONTROL", 10, 0),
    "int_ctl": ("VINTR_CONTROL", 16, 0),
    "int_vector": ("V_INTR_VECTOR", 16, 0),
    "int_state": ("INTERRUPT_SHADOW", 16, 0),
    "exit_code": ("EXITCODE", 16, 0),
    "exit_info1": ("EXITINFO1", 16, 0),
    "exit_info2": ("EXITINFO2", 16, 0),
    "exit_int_info": ("EXITINTINFO", 16, 0),
    "exit_int_info_err": ("EXITINTINFO_ERROR", 16, 0),
    "nested_ctl": ("NP_CONTROL", 10, 0),
    "nested_cr3": ("N_CR3", 16, 0),
    "avic_vapic_bar": ("AVIC_APIC_BAR", 16, 0),
    "ghcb": ("GHCB", 16, 0),
    "event_inj": ("EVENTINJ", 16, 0),
    "event_inj_err": ("EVENTINJ_ERROR", 16, 0),
    "virt_ext": ("VIRT_EXT", 10, 0),
    "next_rip": ("NEXT_RIP", 16, 0),
    "avic_backing_page": ("AVIC_BACKING_PAGE", 16, 0),
    "avic_logical_id": ("AVIC_LOGICAL_TABLE", 16, 0),
    "avic_physical_id": ("AVIC_PHYSICAL_TABLE", 16, 0),
    "vmsa_pa": ("VMSA", 16, 0),
}
_SAVE: Final = frozenset(field.id.lower() for field in FIELDS.values() if field.area == "save")
_SAVED: Final = {"gpat": "G_PAT"}
_XEN: Final[Mapping[str, str]] = {
    "cr_intercepts": "CR_INTERCEPTS",
    "dr_intercepts": "DR_INTERCEPTS",
    "exception_intercepts": "EXCEPTION_INTERCEPTS",
    "general1_intercepts": "INTERCEPTS_3",
    "general2_intercepts": "INTERCEPTS_4",
    "iopm_base_pa": "IOPM_BASE",
    "msrpm_base_pa": "MSRPM_BASE",
    "tsc_offset": "TSC_OFFSET",
    "tlb_control": "TLB_CONTROL",
    "exitcode": "EXITCODE",
    "exitinfo1": "EXITINFO1",
    "exitinfo2": "EXITINFO2",
    "guest_asid": "ASID",
    "virt_ext": "VIRT_EXT",
    "h_cr3": "N_CR3",
    "cpl": "CPL",
    "efer": "EFER",
    "star": "STAR",
    "lstar": "LSTAR",
    **{
        name: name.upper()
        for name in ("cr0", "cr2", "cr3", "cr4", "rsp", "rip", "rax", "rflags", "dr6", "dr7")
    },
}
"""Names of Xen's listing (svm_vmcb_dump); one source only, so other names of it are left alone."""

_FIRST = re.compile(r".{0,80}?VMCB \S+, last attempted VMRUN on CPU \d+")
_CONTROL_AREA = re.compile(r".{0,80}?VMCB Control Area:$")
_SAVE_AREA = re.compile(r".{0,80}?VMCB State Save Area:$")
_XEN_LISTING = re.compile(r".{0,80}?(?:Dumping guest's current state at|Size of VMCB = )")
_ENTRY_FAILED = re.compile(r".{0,80}?KVM: entry failed, hardware error (0x[0-9a-f]+)")
_PARAMETER = re.compile(r".*set kvm_amd\.dump_invalid_vmcb=1")
_SEGMENT = re.compile(
    r"(?<!\w)(es|cs|ss|ds|fs|gs|gdtr|ldtr|idtr|tr):\s+s:\s*([0-9a-f]{4})\s+a:\s*([0-9a-f]{4})"
    r"\s+l:\s*([0-9a-f]{8})\s+b:\s*([0-9a-f]{16})(?!\w)"
)
_XEN_SEGMENT = re.compile(
    r"(ES|CS|SS|DS|FS|GS|GDTR|LDTR|IDTR|TR): ([0-9a-f]{4}) ([0-9a-f]{4}) ([0-9a-f]{8}) ([0-9a-f]{16})$"
)
_PAIR = re.compile(r"(?<![\w.])([a-z][a-z0-9_]*(?: filter (?:count|threshold))?):\s+(?:0x)?([0-9a-f]+)(?!\w)")
_PAIR_OF_WORDS = re.compile(r"(?<!\w)intercepts:\s+([0-9a-f]{8})\s+([0-9a-f]{8})(?!\w)")
_XEN_PAIR = re.compile(r"(?<!\w)([A-Za-z_0-9]+) = (?:0x)?([0-9a-f]+)(?!\w)")
_NAMED = re.compile(r"#?\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(0[xX][0-9a-fA-F]+|\d+)\s*$")
_DISTINCT: Final = frozenset(name for name in _CONTROL if "_" in name)
"""Names that nothing but a VMCB's control area has: three of them stand for a heading that was cut off."""

_INVALID: Final = (1 << 64) - 1


@attrs.frozen
class VmcbRemark:
    """Something the reader of a dump should know about one line of it."""

    line: int
    text: str


@attrs.define
class VmcbDump:
    """One VMCB as a text gave it.

    Attributes:
        vmcb: the fields that are known.
        processor: what the input says of the processor.
        lines: the line that each field was read from.
        remarks: what was dropped, and why.
        unrecognised: pieces of text that mean nothing here.
    """

    vmcb: Vmcb
    processor: SvmProcessor = attrs.field(factory=SvmProcessor)
    lines: dict[str, int] = attrs.field(factory=dict)
    remarks: list[VmcbRemark] = attrs.field(factory=list)
    unrecognised: list[VmcbRemark] = attrs.field(factory=list)


def read_vmcb(data: bytes, name: str) -> tuple[Vmcb, SvmProcessor]:
    """The first VMCB of an input, and what the input says of the processor; see `read_vmcbs`."""
    first = read_vmcbs(data, name)[0]
    return first.vmcb, first.processor


def read_vmcbs(data: bytes, name: str) -> list[VmcbDump]:
    """Every VMCB of an input.

    Raises:
        VmcbDumpError: the input is none of the formats, or a value of it is damaged.
    """
    if len(data) == SIZE and b"\0" in data:
        return [VmcbDump(from_bytes(data, name))]
    text = decoded(data)
    if text.lstrip("\ufeff \t\r\n")[:1] == "{":
        return [VmcbDump(*from_json(text, name))]
    readers = [_Reader().read(lines) for lines in unwrap(text)]
    dumps = [dump for reader in readers for dump in reader.dumps if dump.fields]
    if not dumps:
        hints = [hint for reader in readers for hint in reader.hints]
        hints += [
            f"{item.line}: {item.text}"
            for reader in readers
            for part in reader.dumps
            for item in part.remarks
        ]
        if hints:
            raise VmcbDumpError(hints[0])
        raise VmcbDumpError(
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
    remarks: list[VmcbRemark] = attrs.field(factory=list)
    unrecognised: list[VmcbRemark] = attrs.field(factory=list)
    dropped: set[str] = attrs.field(factory=set)
    halves: dict[tuple[str, int], int] = attrs.field(factory=dict)
    halved: set[str] = attrs.field(factory=set)

    def put(self, field_id: str, shift: int, value: int, line: int) -> None:
        """Record a value; of two different ones neither is taken."""
        if value << shift > FIELDS[field_id].mask:
            raise VmcbDumpError(
                f"{line}: {field_id}: {value:#x} does not fit in {FIELDS[field_id].width} bits"
            )
        if field_id in self.dropped:
            return
        before = self.halves.get((field_id, shift))
        if before is not None and before != value:
            self.remarks.append(
                VmcbRemark(
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
                self.remarks.append(VmcbRemark(self.lines[field_id], f"{field_id}: only one half is printed"))


class _Reader:
    """Reads the lines of one log."""

    def __init__(self) -> None:
        self.dumps = [_Part()]
        self.exit_code: int | None = None
        self.hints: list[str] = []
        self._section = ""
        self._last = False
        self._run: list[LogLine] = []

    def read(self, lines: list[LogLine]) -> _Reader:
        """Read all lines."""
        if not any(_CONTROL_AREA.match(line.text) or _SAVE_AREA.match(line.text) for line in lines):
            names = {match[1] for line in lines for match in _PAIR.finditer(line.text)}
            self._section = "control" if len(names & _DISTINCT) >= 3 else ""
        for line in lines:
            if not self._heading(line):
                self._run.append(line)
        self._last = True
        self._finish()
        return self

    def _heading(self, line: LogLine) -> bool:
        text = line.text
        if _FIRST.match(text):
            self._enter("", new=bool(self.dumps[-1].fields))
        elif _CONTROL_AREA.match(text):
            self._enter("control", new=any(FIELDS[name].area == "control" for name in self.dumps[-1].fields))
        elif _SAVE_AREA.match(text):
            self._enter("save")
        elif _XEN_LISTING.match(text):
            self._enter("xen", new=bool(self.dumps[-1].fields) and self._section != "xen")
        elif match := _ENTRY_FAILED.match(text):
            if int(match[1], 16) in (0xFFFF_FFFF, _INVALID):
                self.exit_code = _INVALID
                self.hints.append(f"{line.number}: {NO_DUMP}")
            self._enter("")
        elif _PARAMETER.match(text):
            self.hints.append(f"{line.number}: {NO_DUMP}")
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
        for line in run:
            if line.text and self._named(part, line):
                run[run.index(line)] = attrs.evolve(line, text="")
        if self._section in ("control", "save"):
            self._pairs(part, run)
        elif self._section == "xen":
            self._xen(part, run)
        else:
            for line in run:
                self._aside(part, line.number, line.text)

    def _named(self, part: _Part, line: LogLine) -> bool:
        """Read a line `NAME = value`; a number of a register text, with leading zeros, is none."""
        match = _NAMED.match(line.text)
        if match is None:
            return False
        try:
            field = find(match[1])
        except UnknownVmcbField:
            return False
        digits = match[2]
        if digits[:1] == "0" and len(digits) > 1 and digits[:2].lower() != "0x":
            if len(digits) >= 8:
                return False  # QEMU's registers are padded
            raise VmcbDumpError(
                f"{line.number}: {field.id}: {digits}: write {'0x' + digits.lstrip('0')} if it is hexadecimal, or "
                "the decimal number without leading zeros"
            )
        part.put(field.id, 0, int(digits, 0), line.number)
        return True

    @staticmethod
    def _aside(part: _Part, number: int, text: str) -> None:
        text = text.strip(" \t,;|")
        if re.search(r"\w", text):
            part.unrecognised.append(
                VmcbRemark(number, "".join(c if c.isprintable() else "\ufffd" for c in text))
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
            if self._last and match.end() == len(text) and _CONTROL.get(match[1], ("", 16, 0))[1] == 10:
                # Nothing tells whether a decimal number goes on behind the end of the text.
                part.remarks.append(
                    VmcbRemark(line_of(match.start()), f"{match[1]}: the text ends in this number")
                )
                found.append(match.span())
                continue
            if item := self._pair(match[1], match[2]):
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
        if key in _CONTROL:
            field_id, base, shift = _CONTROL[key]
            wanted = _PADDED.get(key, 4 if key[:3] in ("cr_", "dr_") else 1)
            if (base == 16 or digits.isdigit()) and len(digits) >= wanted:
                return field_id, shift, int(digits, base)
        elif self._section == "save" or self.dumps[-1].fields:
            if key == "cpl" and digits in ("0", "1", "2", "3"):
                return "CPL", 0, int(digits)
            if (key in _SAVE or key in _SAVED) and len(digits) == 16:
                return _SAVED.get(key, key.upper()), 0, int(digits, 16)
        return None

    def _xen(self, part: _Part, run: list[LogLine]) -> None:
        for line in run:
            if match := _XEN_SEGMENT.match(line.text):
                for index, suffix in enumerate(("SELECTOR", "ATTRIBUTES", "LIMIT", "BASE"), 2):
                    part.put(f"{match[1]}_{suffix}", 0, int(match[index], 16), line.number)
                continue
            known = [match for match in _XEN_PAIR.finditer(line.text) if match[1].lower() in _XEN]
            for match in known:
                part.put(_XEN[match[1].lower()], 0, int(match[2], 16), line.number)
            if not known and not re.fullmatch(r"\s*sel\s+attr\s+limit\s+base", line.text):
                self._aside(part, line.number, line.text)


_QUADWORDS = (
    "iopm_base_pa",
    "msrpm_base_pa",
    "tsc_offset",
    "exit_info1",
    "exit_info2",
    "nested_cr3",
    "next_rip",
    "avic_vapic_bar",
    "ghcb",
    "avic_backing_page",
    "avic_logical_id",
    "avic_physical_id",
    "vmsa_pa",
)
_DOUBLEWORDS = (
    "exceptions",
    "int_ctl",
    "int_vector",
    "int_state",
    "exit_code",
    "exit_int_info",
    "exit_int_info_err",
    "event_inj",
    "event_inj_err",
)
_PADDED: Final = dict.fromkeys(_QUADWORDS, 16) | dict.fromkeys(_DOUBLEWORDS, 8)
"""Digits that KVM pads a number to; fewer are a number that was cut, or none of its numbers."""

NO_DUMP: Final = (
    "VMRUN ended in VMEXIT_INVALID, and there is no VMCB: load kvm_amd with dump_invalid_vmcb=1, fail again and give "
    "what dmesg prints"
)
