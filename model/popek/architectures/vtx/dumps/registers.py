"""Register text that is no VMCS, but shows part of the guest's state: QEMU's, VirtualBox' and Jailhouse's."""

from __future__ import annotations

import re

from ..fields import FIELDS
from .kinds import HEX, LineKind, put
from .layouts import SEGMENT_REGISTERS
from .model import DumpBuilder

_UNUSABLE = 1 << 16
_PRESENT = 1 << 7
_ENTRY_FAILURE = 1 << 31


def _jailhouse_launch(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "Jailhouse"
    builder.report("instruction", match["instruction"].upper())
    if not builder.may_go_on(match["error"], line):
        builder.imply("VM_INSTRUCTION_ERROR", int(match["error"]), line)


_FAILURES = (33, 34, 41)
"""The basic exit reasons of entries that failed."""


def _jailhouse_failure(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "Jailhouse"
    if rest := match.string[match.end() :].strip():
        builder.unrecognise(line, rest)
    if int(match["reason"]) not in _FAILURES:
        builder.remark(line, f"exit reason {match['reason']} is of no entry that failed: not read")
    elif not builder.may_go_on(match["reason"], line):
        builder.imply("EXIT_REASON", _ENTRY_FAILURE | int(match["reason"]), line)


def _is_jailhouse(builder: DumpBuilder, match: re.Match[str]) -> bool:
    return builder.format == "Jailhouse"


_JAILHOUSE_PAIR = re.compile(rf"([A-Za-z][A-Za-z0-9. -]*?):?\s+({HEX})(?=\s|$)")


def _jailhouse_line(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    fields = {
        "qualification": "EXIT_QUALIFICATION",
        "vectoring info": "IDT_VECTORING_INFO",
        "interrupt info": "EXIT_INTR_INFO",
        "RIP": "GUEST_RIP",
        "RSP": "GUEST_RSP",
        "FLAGS": "GUEST_RFLAGS",
        "CS": "GUEST_CS_SELECTOR",
        "BASE": "GUEST_CS_BASE",
        "AR-BYTES": "GUEST_CS_ACCESS_RIGHTS",
        "CR0": "GUEST_CR0",
        "CR3": "GUEST_CR3",
        "CR4": "GUEST_CR4",
        "EFER": "GUEST_IA32_EFER",
    }
    rest = _JAILHOUSE_PAIR.sub(" ", match.string).strip()
    if re.search(r"\w", rest):
        builder.unrecognise(line, rest)
    for word, value in _JAILHOUSE_PAIR.findall(match.string):
        if word in fields:
            put(builder, fields[word], value, line)
        else:
            builder.report(f"guest_{word.lower().replace('.', '_')}", value)


_QEMU_WORDS = {
    **dict.fromkeys(("RIP", "EIP"), "GUEST_RIP"),
    **dict.fromkeys(("RFL", "EFL"), "GUEST_RFLAGS"),
    **dict.fromkeys(("RSP", "ESP"), "GUEST_RSP"),
}


def _qemu_registers(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    for name, value in re.findall(r"(\w+) ?=\s*([0-9a-fA-F]+)(?!\w)", match[0]):
        name = name.upper()
        digits = 16 if name in ("RIP", "RSP") else 8
        if name in _QEMU_WORDS and len(value) != digits:
            builder.remark(line, f"{name}={value}: expected {digits} hexadecimal digits: not read")
            continue
        builder.report(f"qemu_{name.lower()}", value)
        if name in _QEMU_WORDS:
            from_view(builder, _QEMU_WORDS[name], int(value, 16), line)


def _qemu_segment(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    shown = match["register"].upper()
    register = {"LDT": "LDTR"}.get(shown, shown)
    sel, base, limit, flags = (int(part, 16) for part in match["values"].split())
    rights = flags >> 8 & 0xF0FF
    builder.report(f"qemu_{match['register'].lower()}", " ".join(match["values"].split()))
    from_view(builder, f"GUEST_{register}_SELECTOR", sel, line)
    from_view(builder, f"GUEST_{register}_BASE", base, line)
    from_view(builder, f"GUEST_{register}_LIMIT", limit, line)
    from_view(
        builder, f"GUEST_{register}_ACCESS_RIGHTS", rights if rights & _PRESENT else rights | _UNUSABLE, line
    )


def _qemu_table(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.report(f"qemu_{match['table'].lower()}", f"{match['base']} {match['limit']}")
    from_view(builder, f"GUEST_{match['table'].upper()}R_BASE", int(match["base"], 16), line)
    from_view(builder, f"GUEST_{match['table'].upper()}R_LIMIT", int(match["limit"], 16), line)


def from_view(builder: DumpBuilder, field: str, value: int, line: int, whose: str = "QEMU") -> None:
    """The guest's own view: it fills gaps, and never overrules a printed VMCS field."""
    if value >> FIELDS[field].width:
        builder.remark(line, f"{field}: {value:#x} does not fit in {FIELDS[field].width} bits: not read")
        return
    builder.view(field, value, line)
    if not builder.format:
        builder.format = f"{whose} registers"
        builder.remark(
            line, f"read from {whose}'s registers, which show the guest's view: the VMCS may differ"
        )


# -- VirtualBox' guru meditation ------------------------------------------------------------------

_GURU_SEGMENT = re.compile(
    r"(?<![\w.*])(?P<register>[cdefgs]s|ldtr|tr)\s*=\s*\{(?P<sel>[0-9a-f]{4}) base=(?P<base>[0-9a-f`]+) "
    r"limit=(?P<limit>[0-9a-f]+) flags=(?P<flags>[0-9a-f]+)\}"
)
_LONG, _SHORT = r"(?:[0-9a-f]{16}|[0-9a-f]{8}`[0-9a-f]{8})(?![\w`])", r"[0-9a-f]{8}(?![\w`])"
_GURU_TABLE = re.compile(
    rf"(?<![\w.*])(?P<table>[gi]dtr)=(?P<base>{_LONG}|{_SHORT}):(?P<limit>[0-9a-f]{{4}})(?!\w)"
)
_GURU_WORD = re.compile(
    rf"(?<![\w.*])(?P<name>r(?:ip|sp|flags)|cr[034]|dr7|efer)\s?=(?P<value>{_LONG})"
    rf"|(?<![\w.*])(?P<short>e(?:ip|sp|flags)|cr[034]|dr7)\s?=(?P<digits>{_SHORT})"
)
_GURU_WORDS = {"ip": "RIP", "sp": "RSP", "flags": "RFLAGS"}
"""What the VMCS has as the guest does; of CR0, CR4 and EFER the hypervisor owns bits."""


def _guru(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    """The registers of VirtualBox' context, several on a line."""
    found: list[tuple[str, str]] = []
    for segment in _GURU_SEGMENT.finditer(match.string):
        register = f"GUEST_{segment['register'].upper()}"
        found += [(f"{register}_SELECTOR", segment["sel"]), (f"{register}_BASE", segment["base"])]
        found += [(f"{register}_LIMIT", segment["limit"]), (f"{register}_ACCESS_RIGHTS", segment["flags"])]
    for table in _GURU_TABLE.finditer(match.string):
        found.append((f"GUEST_{table['table'].upper()}_BASE", table["base"]))
        found.append((f"GUEST_{table['table'].upper()}_LIMIT", table["limit"]))
    for word in _GURU_WORD.finditer(match.string):
        shown, value = word["name"] or word["short"], word["value"] or word["digits"]
        if name := _GURU_WORDS.get(shown[1:]):
            found.append((f"GUEST_{name}", value))
        else:
            builder.report(f"virtualbox_{shown}", value)
    for field, value in found:
        from_view(builder, field, int(value.replace("`", ""), 16), line, "VirtualBox")


_QEMU_REGISTER = "|".join((*SEGMENT_REGISTERS, "LDT"))
_OF_ANOTHER = re.compile(r"[.*](?:[re]?[ac]x|[re]ip|[cdefgs]s|[gi]dtr|cr0)\s?=")
"""VirtualBox shows the registers of its own context and of the host with a sign before each."""


def _is_guests(builder: DumpBuilder, match: re.Match[str]) -> bool:
    return builder.shows_guest and _OF_ANOTHER.search(match.string) is None


def _context(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    """VirtualBox says whose registers follow."""
    builder.shows_guest = (match["whose"] or match["of"]).lower() == "guest"


KINDS = (
    LineKind(
        r"FATAL: (?P<instruction>vmlaunch|vmresume) failed, error (?P<error>\d+)",
        _jailhouse_launch,
        starts=True,
        format="Jailhouse",
    ),
    LineKind(
        r"FATAL: VM-Entry failure, reason (?P<reason>\d+)",
        _jailhouse_failure,
        starts=True,
        format="Jailhouse",
    ),
    LineKind(
        r"(?:qualification [0-9a-f]+|vectoring info: |R[A-D]X: |RIP: |R[SD]I: |CS: |CR0: 0x|EFER: )",
        _jailhouse_line,
        applies=_is_jailhouse,
    ),
    LineKind(r"[RE](?:AX|SI|IP)=[0-9a-f]+ .*|R(?:8 |12) ?=[0-9a-f]+ .*", _qemu_registers, format="QEMU"),
    LineKind(r"CR0=[0-9a-f]+ CR2=.*|DR[06]=[0-9a-f]+ .*|EFER=[0-9a-f]{16}$", _qemu_registers, format=""),
    LineKind(
        rf"(?P<register>{_QEMU_REGISTER}) ?= ?"
        r"(?P<values>[0-9a-f]{4} (?:[0-9a-f]{16}|[0-9a-f]{8}) [0-9a-f]{8} [0-9a-f]{8})(?: .*)?$",
        _qemu_segment,
        format="QEMU",
    ),
    LineKind(
        r"(?i).{0,40}?\{?(?:cpum(?P<of>guest|hyper|host)|(?P<whose>guest|hypervisor|host) CPUM)\b", _context
    ),
    LineKind(
        r"(?:.*\s)?(?:[cdefgs]s|ldtr|tr)\s*=\s*\{[0-9a-f]{4} base=",
        _guru,
        applies=_is_guests,
        format="VirtualBox",
    ),
    LineKind(r"(?:gdtr=|.*\bcr0=[0-9a-f`]{8}).*", _guru, applies=_is_guests, format="VirtualBox"),
    LineKind(r"[re]ip=[0-9a-f`]{8,17} [re]sp=.*", _guru, applies=_is_guests, format="VirtualBox"),
    LineKind(
        r"(?P<table>GDT|IDT) ?= +(?P<base>[0-9a-f]{16}|[0-9a-f]{8}) (?P<limit>[0-9a-f]{8})$",
        _qemu_table,
        format="QEMU",
    ),
)
