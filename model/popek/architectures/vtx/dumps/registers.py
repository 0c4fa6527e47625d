"""Register text that is no VMCS, but shows part of the guest's state: QEMU's, VirtualBox' and Jailhouse's."""

from __future__ import annotations

import re

from ..fields import FIELDS
from .kinds import HEX, LineKind, put
from .layouts import SEGMENT_REGISTERS
from .model import DumpBuilder, DumpError

_UNUSABLE = 1 << 16
_PRESENT = 1 << 7
_ENTRY_FAILURE = 1 << 31


def _jailhouse_launch(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "Jailhouse"
    builder.report("instruction", match["instruction"].upper())
    builder.imply("VM_INSTRUCTION_ERROR", int(match["error"]), line)


def _jailhouse_failure(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "Jailhouse"
    builder.imply("EXIT_REASON", _ENTRY_FAILURE | int(match["reason"]), line)


def _is_jailhouse(builder: DumpBuilder, match: re.Match[str]) -> bool:
    return builder.format == "Jailhouse"


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
    for word, value in re.findall(rf"([A-Za-z][A-Za-z0-9. -]*?):?\s+({HEX})(?=\s|$)", match.string):
        if word in fields:
            put(builder, fields[word], value, line)
        else:
            builder.report(f"guest_{word.lower().replace('.', '_')}", value)


def _qemu_registers(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    for name, value in re.findall(r"(\w+) ?=\s*([0-9a-fA-F]+)", match[0]):
        builder.report(f"qemu_{name.lower()}", value)
        field = {"RIP": "GUEST_RIP", "EIP": "GUEST_RIP", "RFL": "GUEST_RFLAGS", "EFL": "GUEST_RFLAGS"}.get(
            name
        )
        field = field or {"RSP": "GUEST_RSP", "ESP": "GUEST_RSP"}.get(name)
        if field:
            _from_qemu(builder, field, int(value, 16), line)


def _qemu_segment(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    register = {"LDT": "LDTR"}.get(match["register"], match["register"])
    sel, base, limit, flags = (int(part, 16) for part in match["values"].split())
    rights = flags >> 8 & 0xF0FF
    builder.report(f"qemu_{match['register'].lower()}", " ".join(match["values"].split()))
    _from_qemu(builder, f"GUEST_{register}_SELECTOR", sel, line)
    _from_qemu(builder, f"GUEST_{register}_BASE", base, line)
    _from_qemu(builder, f"GUEST_{register}_LIMIT", limit, line)
    _from_qemu(
        builder, f"GUEST_{register}_ACCESS_RIGHTS", rights if rights & _PRESENT else rights | _UNUSABLE, line
    )


def _qemu_table(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.report(f"qemu_{match['table'].lower()}", f"{match['base']} {match['limit']}")
    _from_qemu(builder, f"GUEST_{match['table']}R_BASE", int(match["base"], 16), line)
    _from_qemu(builder, f"GUEST_{match['table']}R_LIMIT", int(match["limit"], 16), line)


def _from_qemu(builder: DumpBuilder, field: str, value: int, line: int, whose: str = "QEMU") -> None:
    """The guest's own view: it fills gaps, and never overrules a printed VMCS field."""
    if value >> FIELDS[field].width:
        raise DumpError(f"{field}: {value:#x} does not fit in {FIELDS[field].width} bits", line)
    builder.imply(field, value, line)
    if not builder.format:
        builder.format = f"{whose} registers"
        builder.remark(
            line, f"read from {whose}'s registers, which show the guest's view: the VMCS may differ"
        )


# -- VirtualBox' guru meditation ------------------------------------------------------------------

_GURU_SEGMENT = re.compile(
    r"\b(?P<register>[cdefgs]s|ldtr|tr)\s*=\s*\{(?P<sel>[0-9a-f]{4}) base=(?P<base>[0-9a-f`]+) "
    r"limit=(?P<limit>[0-9a-f]+) flags=(?P<flags>[0-9a-f]+)\}"
)
_GURU_TABLE = re.compile(r"\b(?P<table>[gi]dtr)=(?P<base>[0-9a-f`]{8,17}):(?P<limit>[0-9a-f]{4})\b")
_GURU_WORD = re.compile(r"\b(?P<name>[re](?:ip|sp|flags)|cr[034]|dr7|efer)\s?=(?P<value>[0-9a-f`]{8,17})\b")
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
        if name := _GURU_WORDS.get(word["name"][1:]):
            found.append((f"GUEST_{name}", word["value"]))
        else:
            builder.report(f"virtualbox_{word['name']}", word["value"])
    for field, value in found:
        _from_qemu(builder, field, int(value.replace("`", ""), 16), line, "VirtualBox")


KINDS = (
    LineKind(
        r"FATAL: (?P<instruction>vmlaunch|vmresume) failed, error (?P<error>\d+)",
        _jailhouse_launch,
        starts=True,
    ),
    LineKind(r"FATAL: VM-Entry failure, reason (?P<reason>\d+)", _jailhouse_failure, starts=True),
    LineKind(
        r"(?:qualification [0-9a-f]+|vectoring info: |R[A-D]X: |RIP: |R[SD]I: |CS: |CR0: 0x|EFER: )",
        _jailhouse_line,
        applies=_is_jailhouse,
    ),
    LineKind(r"[RE](?:AX|SI|IP)=[0-9a-f]+ .*|R(?:8 |12) ?=[0-9a-f]+ .*", _qemu_registers),
    LineKind(r"CR0=[0-9a-f]+ CR2=.*|DR[06]=[0-9a-f]+ .*|EFER=[0-9a-f]{16}$", _qemu_registers),
    LineKind(
        rf"(?P<register>{'|'.join((*SEGMENT_REGISTERS, 'LDT'))}) ?= ?"
        r"(?P<values>[0-9a-f]{4} [0-9a-f]{8,16} [0-9a-f]{8} [0-9a-f]{8})(?: .*)?$",
        _qemu_segment,
    ),
    LineKind(r"(?:.*\s)?(?:[cdefgs]s|ldtr|tr)\s*=\s*\{[0-9a-f]{4} base=", _guru),
    LineKind(r"(?:gdtr=|.*\bcr0=[0-9a-f`]{8}).*", _guru),
    LineKind(r"[re]ip=[0-9a-f`]{8,17} [re]sp=.*", _guru),
    LineKind(r"(?P<table>GDT|IDT) ?= +(?P<base>[0-9a-f]{8,16}) (?P<limit>[0-9a-f]{8})$", _qemu_table),
)
