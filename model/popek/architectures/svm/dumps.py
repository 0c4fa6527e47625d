"""Reads VMCBs: the text that Linux KVM prints for a failed VMRUN, JSON, or the 4096 bytes themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from .vmcb import FIELDS, SIZE, Processor, UnknownField, Vmcb, find, from_bytes


class DumpError(ValueError):
    """An input that cannot be read; one line, with the number of the input's line in front where there is one."""


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
_SEGMENT = re.compile(
    r"\b(es|cs|ss|ds|fs|gs|gdtr|ldtr|idtr|tr):\s+s:\s*([0-9a-f]+)\s+a:\s*([0-9a-f]+)\s+l:\s*([0-9a-f]+)\s+b:\s*([0-9a-f]+)"
)
_PAIR = re.compile(r"([a-z][a-z0-9_]*(?: filter (?:count|threshold))?):\s+(?:0x)?([0-9a-f]+)(?=\s|$)")
_PAIR_OF_WORDS = re.compile(r"\bintercepts:\s+([0-9a-f]{8}) ([0-9a-f]{8})")
_NAMED = re.compile(r"^\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(0[xX][0-9a-fA-F]+|\d+)\s*$")
_PROCESSOR = ("maxphyaddr", "flush_by_asid", "long_mode", "cet", "host_paging", "vnmi", "efer", "cr4")


def read_vmcb(data: bytes, name: str) -> tuple[Vmcb, Processor]:
    """A VMCB, and what the input says of the processor.

    Raises:
        DumpError: the input is none of the formats, or contradicts itself.
    """
    if len(data) == SIZE and b"\0" in data:
        return from_bytes(data, name), Processor()
    text = data.decode("utf-8", errors="replace")
    if text.lstrip()[:1] == "{":
        return _json(text, name)
    fields: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for field_id, shift, value in _on_line(line.lower() if "=" not in line else line):
            _put(fields, field_id, shift, value, number)
    if not fields:
        raise DumpError(
            "no VMCB field: expected a dump by KVM (dump_invalid_vmcb=1), NAME = value lines or JSON"
        )
    return Vmcb(name, fields), Processor()


def _on_line(line: str) -> list[tuple[str, int, int]]:
    """Field id, shift and value of each item on a line."""
    if named := _NAMED.match(line):
        try:
            return [(find(named[1]).id, 0, int(named[2], 0))]
        except UnknownField:
            return []
    if segment := _SEGMENT.search(line):
        names = ("SELECTOR", "ATTRIBUTES", "LIMIT", "BASE")
        prefix = segment[1].upper()
        return [(f"{prefix}_{part}", 0, int(segment[2 + i], 16)) for i, part in enumerate(names)]
    found = [
        (f"INTERCEPTS_{3 + i}", 0, int(word, 16))
        for match in _PAIR_OF_WORDS.finditer(line)
        for i, word in enumerate(match.groups())
    ]
    for key, digits in _PAIR.findall(line):
        if key in _CONTROL:
            field_id, base, shift = _CONTROL[key]
            if base == 16 or digits.isdigit():
                found.append((field_id, shift, int(digits, base)))
        elif key == "cpl" or key in _SAVE or key in _SAVED:
            found.append((_SAVED.get(key, key.upper()), 0, int(digits, 16)))
    return found


def _put(fields: dict[str, int], field_id: str, shift: int, value: int, line: int) -> None:
    half = field_id in ("CR_INTERCEPTS", "DR_INTERCEPTS") and value <= 0xFFFF
    if value << shift > FIELDS[field_id].mask:
        raise DumpError(f"{line}: {field_id}: {value:#x} does not fit in {FIELDS[field_id].width} bits")
    if half:
        fields[field_id] = fields.get(field_id, 0) | value << shift
        return
    if fields.setdefault(field_id, value) != value:
        raise DumpError(f"{line}: {field_id} is {value:#x} here but {fields[field_id]:#x} before")


def _json(text: str, name: str) -> tuple[Vmcb, Processor]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DumpError(f"not JSON: {str(error)[:80]}") from None
    given = value.get("fields")
    if not isinstance(given, dict):
        raise DumpError('no object "fields": expected {"fields": {"ASID": "0x1", ...}}')
    fields: dict[str, int] = {}
    for key, raw in given.items():
        try:
            field = find(key)
        except UnknownField as error:
            raise DumpError(str(error)) from None
        fields[field.id] = _number(raw, field.id, field.mask)
    memory = _memory(value.get("memory"))
    return Vmcb(str(value.get("name") or name), fields, memory), _processor(value.get("capabilities"))


def _memory(given: Any) -> dict[int, int]:
    if given is None:
        return {}
    if not isinstance(given, list) or any(not isinstance(row, list) or len(row) != 3 for row in given):
        raise DumpError('memory: expected [["0x25000", 8, "0x1"], ...]: address, bytes and value')
    whole = (1 << 64) - 1
    found: dict[int, int] = {}
    for address, size, content in given:
        if size != 8:
            raise DumpError(f"memory: {json.dumps(size)[:20]} bytes: expected 8, a table entry")
        found[_number(address, "memory address", whole)] = _number(content, "memory", whole)
    return found


def _number(raw: Any, key: str, mask: int) -> int:
    try:
        number = int(raw, 16) if isinstance(raw, str) and raw[:2].lower() == "0x" else raw
    except ValueError:
        number = None
    if type(number) is not int or not 0 <= number <= mask:
        shown = json.dumps(raw)[:40]
        raise DumpError(
            f"{key}: {shown}: expected a hexadecimal string of {mask.bit_length()} bits, such as 0x1"
        )
    return number


def _processor(given: Any) -> Processor:
    if given is None:
        return Processor()
    if not isinstance(given, dict) or set(given) - set(_PROCESSOR):
        raise DumpError(f"capabilities: expected an object with keys among {', '.join(_PROCESSOR)}")
    width = given.get("maxphyaddr")
    if width is not None and (type(width) is not int or not 32 <= width <= 52):
        raise DumpError("maxphyaddr: expected a number from 32 to 52")
    masks = {name: _number(given[name], name, (1 << 64) - 1) for name in ("efer", "cr4") if name in given}
    for key, value in given.items():
        if key != "maxphyaddr" and key not in masks and not isinstance(value, bool):
            raise DumpError(f"{key}: expected true or false")
    return Processor(**{**given, **masks})
