"""Reads VMCBs as JSON."""

from __future__ import annotations

import difflib
import json
from typing import Any

from .vmcb import SvmProcessor, UnknownVmcbField, Vmcb, find

_KEYS = ("name", "fields", "memory", "capabilities")
_PROCESSOR = (
    "maxphyaddr",
    "flush_by_asid",
    "long_mode",
    "cet",
    "host_paging",
    "vnmi",
    "sev",
    "ibt",
    "efer",
    "cr4",
)


class VmcbDumpError(ValueError):
    """An input that cannot be read; one line, with the number of the input's line in front where there is one."""


def from_json(text: str, name: str) -> tuple[Vmcb, SvmProcessor]:
    """A VMCB, and what the input says of the processor.

    Raises:
        DumpError: it is no JSON of this form, or a value of it is damaged.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VmcbDumpError(f"not JSON: {str(error)[:80]}") from None
    for key in value:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.6)
            hint = f": did you mean {near[0]!r}?" if near else f": expected {', '.join(_KEYS)}"
            raise VmcbDumpError(f"unknown key {json.dumps(key)[:40]}{hint}")
    given = value.get("fields")
    if not isinstance(given, dict):
        raise VmcbDumpError('no object "fields": expected {"fields": {"ASID": "0x1", ...}}')
    fields: dict[str, int] = {}
    for key, raw in given.items():
        try:
            field = find(key)
        except UnknownVmcbField as error:
            raise VmcbDumpError(str(error)) from None
        fields[field.id] = _number(raw, field.id, field.mask)
    memory = _memory(value.get("memory"))
    return Vmcb(str(value.get("name") or name), fields, memory), _processor(value.get("capabilities"))


def _memory(given: Any) -> dict[int, int]:
    if given is None:
        return {}
    if not isinstance(given, list) or any(not isinstance(row, list) or len(row) != 3 for row in given):
        raise VmcbDumpError('memory: expected [["0x25000", 8, "0x1"], ...]: address, bytes and value')
    whole = (1 << 64) - 1
    found: dict[int, int] = {}
    for address, size, content in given:
        if size != 8:
            raise VmcbDumpError(f"memory: {json.dumps(size)[:20]} bytes: expected 8, a table entry")
        found[_number(address, "memory address", whole)] = _number(content, "memory", whole)
    return found


def _number(raw: Any, key: str, mask: int) -> int:
    try:
        number = int(raw, 16) if isinstance(raw, str) and raw[:2].lower() == "0x" else raw
    except ValueError:
        number = None
    if type(number) is not int or not 0 <= number <= mask:
        shown = json.dumps(raw)[:40]
        raise VmcbDumpError(
            f"{key}: {shown}: expected a hexadecimal string of {mask.bit_length()} bits, such as 0x1"
        )
    return number


def _processor(given: Any) -> SvmProcessor:
    if given is None:
        return SvmProcessor()
    if not isinstance(given, dict):
        raise VmcbDumpError(f"capabilities: expected an object with keys among {', '.join(_PROCESSOR)}")
    for key in given:
        if key not in _PROCESSOR:
            near = difflib.get_close_matches(key, _PROCESSOR, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"expected keys among {', '.join(_PROCESSOR)}"
            raise VmcbDumpError(f"capabilities: unknown key {json.dumps(key)[:40]}: {hint}")
    width = given.get("maxphyaddr")
    if width is not None and (type(width) is not int or not 32 <= width <= 52):
        raise VmcbDumpError("maxphyaddr: expected a number from 32 to 52")
    masks = {name: _number(given[name], name, (1 << 64) - 1) for name in ("efer", "cr4") if name in given}
    for key, value in given.items():
        if key != "maxphyaddr" and key not in masks and not isinstance(value, bool):
            raise VmcbDumpError(f"{key}: expected true or false")
    return SvmProcessor(**{**given, **masks})
