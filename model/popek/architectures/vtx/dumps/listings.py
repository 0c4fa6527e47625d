"""Formats with a named field (or a register) on each line: plain, HAXM, bhyve, NoirVisor and VirtualBox."""

from __future__ import annotations

import re

from ..capabilities import MSR_NAMES
from .kinds import HEX, LineKind, ignore, put
from .layouts import CONTROL, GUEST, HOST
from .model import DumpBuilder
from .names import field_encoded, field_named, normal_form, suggestion
from .surroundings import Style

_LAYOUT_WORDS = frozenset(GUEST) | frozenset(HOST) | frozenset(CONTROL)
_MSR_NUMBERS = {name: number for number, name in MSR_NAMES.items()}
_TRIPLE_FAULT = 2
_ADDRESS = r"(?:0x)?[0-9a-fA-F]{16}(?!\w)"
"""An address, which is printed with all its digits."""


def _haxm(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    found = field_encoded(match["encoding"])
    if found is None:
        builder.unrecognise(line, match[0])
        return
    builder.format = builder.format or "HAXM"
    put(builder, found[0], match["value"], line, high=found[1])


def _haxm_event(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "HAXM"
    text, sign, rest = match["text"].partition("haxm_")
    if sign:
        builder.unrecognise(line, sign + rest)
    builder.report("event", text.strip())
    if "triple fault" in text.lower():
        builder.imply("EXIT_REASON", _TRIPLE_FAULT, line)
        builder.entered = True


def _plain_field(name: str) -> tuple[str, bool] | None:
    if name[:2].lower() == "0x":
        return field_encoded(name)
    field_id = field_named(name) if name not in _LAYOUT_WORDS else None
    return (field_id, False) if field_id else None


def _is_plain(builder: DumpBuilder, match: re.Match[str]) -> bool:
    """Whether the name is a field; a title in prose ('Exit reason: unknown') is not taken for one."""
    if builder.styles is not None and Style.of(match) not in builder.styles:
        return False
    if " " in match["name"] and not match["value"].lower().startswith("0x"):
        return False
    return _plain_field(match["name"]) is not None


def _plain(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    name, value = match["name"], match["value"].strip()
    found = _plain_field(name)
    assert found is not None
    if value.upper() == "INVALID_VALUE" or "failed" in value:
        builder.remark(line, f"{found[0]} could not be read")
        return
    digits = value.split()[0]
    if digits.isdigit() and int(digits) > 9:
        builder.remark(line, f"{found[0]}: {digits} is read as hexadecimal")
    builder.format = builder.format or ("bhyve" if name.startswith("VMCS_") else "NAME = value")
    put(builder, found[0], digits, line, high=found[1])


def _virtualbox_segment(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "VirtualBox"
    register = f"GUEST_{match['register'].upper()}"
    if match["sel"]:
        put(builder, f"{register}_SELECTOR", match["sel"], line)
        put(builder, f"{register}_ACCESS_RIGHTS", match["flags"], line)
    put(builder, f"{register}_BASE", match["base"], line)
    put(builder, f"{register}_LIMIT", match["limit"], line)


def _noirvisor_segment(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "NoirVisor"
    register = match["register"].upper()
    register = {"TASK": "TR", "LDT": "LDTR"}.get(register, register)
    put(builder, f"GUEST_{register}_SELECTOR", match["sel"], line)
    put(builder, f"GUEST_{register}_ACCESS_RIGHTS", match["rights"], line)
    put(builder, f"GUEST_{register}_LIMIT", match["limit"], line)
    put(builder, f"GUEST_{register}_BASE", match["base"], line)


def _noirvisor_tables(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    tables = rf"(?i)Guest (GDTR|IDTR) Limit: ({HEX})\s+Base: ({_ADDRESS})"
    for found in re.finditer(tables, match.string):
        put(builder, f"GUEST_{found[1].upper()}_LIMIT", found[2], line)
        put(builder, f"GUEST_{found[1].upper()}_BASE", found[3], line)
    if rest := re.sub(tables, "", match.string).strip():
        builder.unrecognise(line, rest)


def _noirvisor_failure(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.format = builder.format or "NoirVisor"
    builder.imply("VM_INSTRUCTION_ERROR", int(match["code"]), line)
    builder.report("failure", match["text"].strip())


def _noirvisor_status(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    builder.report("vmx_status", int(match["status"]))


def _capability(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    number = _MSR_NUMBERS.get(match["name"].removeprefix("MSR_"))
    if number is None:
        builder.report(match["name"].lower(), match["value"])
    else:
        builder.capabilities[f"{number:#x}"] = match["value"]


def _numbered_capability(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    """A capability MSR by its number, as debuggers and `rdmsr` print it."""
    value = int(match["value"].replace("`", ""), 16)
    if value >> 64:
        builder.unrecognise(line, match[0])
    else:
        builder.capabilities[f"{int(match['number'], 16):#x}"] = f"{value:#x}"


def _virtualbox_detail(builder: DumpBuilder, match: re.Match[str], line: int) -> None:
    """What VirtualBox says about the host and the capability MSRs beside their values."""
    name, _, value = match["text"].partition("=")
    builder.report(f"virtualbox_{normal_form(name).lower()}", value.strip() or "-")


def unknown_name(text: str) -> str:
    """Return a remark on a `NAME = value` line whose name is no field, or an empty string."""
    match = re.match(rf"(?:# ?)?\s*([A-Z][A-Z0-9_]+)\s*[=:]\s*{HEX}$", text)
    return suggestion(match[1]) if match else ""


PLAIN = LineKind(
    r"(?:# ?)?\s*(?P<name>[A-Za-z][\w/.-]*(?: [\w/.-]+)*|0[xX][0-9a-fA-F]{1,4})\s*[=:]\s*"
    r"(?P<value>[^\s=:][^=]*)$",
    _plain,
    applies=_is_plain,
)
KINDS = (
    LineKind(
        r"(?i)haxm_\w+: ?(?P<encoding>[0-9a-f]{4}) (?!haxm_)\w+: ?(?P<value>[0-9a-z]+)$", _haxm, format="HAXM"
    ),
    LineKind(r"(?i)haxm_(?:panic|error): ?(?P<text>.*)", _haxm_event, starts=True, format="HAXM"),
    LineKind(
        rf"(?i)Guest (?P<register>CS|DS|ES|FS|GS|SS|Task|LDT) (?:Segment|Register) - Selector: (?P<sel>{HEX})"
        rf"\s+Access-Rights: (?P<rights>{HEX})\s+Limit: (?P<limit>{HEX})\s+Base: (?P<base>{_ADDRESS})",
        _noirvisor_segment,
        format="NoirVisor",
    ),
    LineKind(r"(?i)Guest (?:GDTR|IDTR) Limit: ", _noirvisor_tables, format="NoirVisor"),
    LineKind(
        r"(?i)Failed at VM-Entry, Code=(?P<code>\d+)\s+Reason: (?P<text>.*)",
        _noirvisor_failure,
        format="NoirVisor",
    ),
    LineKind(r"(?i).*VMX Status: (?P<status>\d+)$", _noirvisor_status, format="NoirVisor"),
    LineKind(r"-{4,}$|Dumping VMCS .* Area\.\.\.$", ignore),
    LineKind(r"\s*(?:HM: )?\s*(?P<name>MSR_IA32_\w+)\s*=\s*(?P<value>0x[0-9a-f]+)", _capability),
    LineKind(r"msr\[(?P<number>4[89][0-9a-f])\]\s*=\s*(?P<value>[0-9a-f`]+)$", _numbered_capability),
    LineKind(
        r"(?:MSR_)?IA32_VMX_\w+\s*\((?:0x)?(?P<number>4[89][0-9a-f])[hH]?\)\s*[:=]?\s*(?:0x)?(?P<value>[0-9a-fA-F]+)[hH]?$",
        _numbered_capability,
    ),
    LineKind(
        r"rdmsr\s+(?:0x)?(?P<number>4[89][0-9a-f])\s*[:=]\s*(?:0x)?(?P<value>[0-9a-f]+)$",
        _numbered_capability,
    ),
    LineKind(r"HM:\s+(?P<text>\S.*)", _virtualbox_detail),
    LineKind(
        r"\s*(?!\w*(?i:host|hyp))\w*?(?P<register>[CDEFGS]S|LDTR|TR|GDTR|IDTR)\s*=\s*\{(?:(?P<sel>[0-9a-f]+) )?"
        r"base=(?P<base>[0-9a-f`]+) limit=(?P<limit>[0-9a-f]+)(?: flags=(?P<flags>[0-9a-f]+))?\s*\}",
        _virtualbox_segment,
        format="VirtualBox",
    ),
    PLAIN,
    LineKind(r"#(?!\s*\w+\s*[=:]\s*(?:0x)?[0-9a-f]+$)|$", ignore),
)
BROKEN = tuple(kind for kind in KINDS if kind.read in (_haxm, _noirvisor_segment))
"""Lines that are whole or nothing, so that one that a terminal broke can be known."""
