"""Reads VMCSs from JSON: one object, an array of them, or one object a line (JSON Lines)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from popek.architectures.json_text import JsonError, decode, documents, unknown_key, without_fields
from popek.architectures.json_text import show as _show

from ..fields import ALIASES, FIELDS, UnknownField, by_encoding, find
from ..vmcs import Launch
from .kvm_registers import REMARK, kvm_fields
from .model import Dump, DumpError, Remark, printable

_KEYS = ("name", "fields", "capabilities", "default", "memory", "launch")
_OF_OURS = ("violates", "check", "flip", "schema")
"""Keys that `popek vmcs generate` adds; they are kept beside the verdict."""
_MASKS: dict[str, tuple[str, int]] = {id_: (id_, field.mask) for id_, field in FIELDS.items()}
_U64 = (1 << 64) - 1


def read_json(text: str, name: str) -> list[Dump]:
    """Read every VMCS of a JSON text.

    Raises:
        DumpError: the text is not JSON, or not a VMCS.
    """
    try:
        found = documents(text)
    except JsonError as error:
        raise DumpError(error.message, error.line) from None
    if len(found) == 1:
        return [read_object(found[0][1], name, 1)]
    by_lines = found[-1][0] > 1
    return [
        read_object(item, f"{name}:{line}" if by_lines else f"{name}#{number}", line)
        for number, (line, item) in enumerate(found, 1)
    ]


def read_line(text: str, number: int, name: str) -> Dump:
    """Read the VMCS on one line of JSON Lines; `number` is the line's.

    Raises:
        DumpError: the line is not JSON, or not a VMCS.
    """
    value = _quickly(text)
    if value is None:
        try:
            value = decode(text)
        except JsonError as error:
            raise DumpError(error.message, number) from None
    return read_object(value, f"{name}:{number}", number)


_FLAT_ITEM = re.compile(r'\s*"([0-9A-Za-z_]+)"\s*:\s*"(0[xX][0-9a-fA-F]{1,16})"\s*')
_OPENING = re.compile(r'"fields"\s*:\s*\{')


class _Items(dict[str, tuple[str, int]]):
    """Fields by the text of an item, such as ``"VPID": "0x1"``; a stream repeats most of them."""

    def __missing__(self, text: str) -> tuple[str, int]:
        match = _FLAT_ITEM.fullmatch(text)
        if match is None or match[1] not in _MASKS:
            raise KeyError(text)
        id_, mask = _MASKS[match[1]]
        value = int(match[2], 16)
        if value > mask:
            raise KeyError(text)
        if len(self) >= _MOST_ITEMS:
            self.clear()
        self[text] = id_, value
        return id_, value


_MOST_ITEMS = 1 << 16
_ITEMS = _Items()


def _quickly(text: str) -> dict[str, Any] | None:
    """Decode a line whose fields are all ids with hexadecimal strings; None leaves it to the full reader."""
    opening = _OPENING.search(text)
    if opening is None or "\\" in text or text.count('"fields"') != 1:
        return None
    end = text.find("}", opening.end())
    items = text[opening.end() : end].split(",")
    try:
        fields = dict(map(_ITEMS.__getitem__, items))
        value = decode(text[: opening.end()] + text[end:])
    except (KeyError, JsonError):
        return None
    if len(fields) != len(items) or not isinstance(value, dict) or value.get("fields") != {}:
        return None
    value["fields"] = _Checked(fields)
    return value


class _Checked(dict[str, int]):
    """Fields that are known to be right: ids of fields, and values that fit."""


def read_object(value: object, name: str, line: int) -> Dump:
    """Read one VMCS from a decoded JSON object.

    Raises:
        DumpError: something in it is not as documented.
    """
    if not isinstance(value, dict):
        raise DumpError(f"expected a JSON object with the key 'fields', found {_show(value)}", line)
    given = value.get("fields")
    if given is None and (registers := kvm_fields(value)) is not None:
        fields, viewed = registers
        return Dump(name, "KVM registers", line, fields, reported=viewed, remarks=(Remark(line, REMARK),))
    example = '{"GUEST_CR0": "0x80000031"}'
    if given is None:
        raise DumpError(without_fields(value, (*_KEYS, *_OF_OURS), (*FIELDS, *ALIASES), example), line)
    if not isinstance(given, dict):
        raise DumpError(f"'fields' is {_show(given)}: expected an object such as {example}", line)
    for key in value:
        if key not in _KEYS and key not in _OF_OURS:
            raise DumpError(unknown_key(key, "", _KEYS), line)
    fields = given if isinstance(given, _Checked) else _fields(given, line)
    default = value.get("default")
    own = value.get("name")
    if own is not None and not isinstance(own, str):
        raise DumpError(f"'name' is {_show(own)}: expected a string", line)
    return Dump(
        name=printable(own) if own else name,
        format="JSON",
        line=line,
        fields=fields,
        reported=_reported(value, line),
        capabilities=_capabilities(value.get("capabilities"), line),
        default=None if default is None else _word(default, "default", _U64, line),
        memory=_memory(value.get("memory"), line),
        launch=_launch(value.get("launch"), line),
    )


_INSTRUCTIONS = ("VMLAUNCH", "VMRESUME")
_STATES = ("clear", "launched")
_NO_VMCS = (1 << 64) - 1
_FLAGS = {
    "mov_ss_blocking": "mov_ss_blocking",
    "smm": "in_smm",
    "efer_lma": "efer_lma",
    "x2apic": "x2apic",
    "vmx_root": "vmx_root",
    "shadow_vmcs": "shadow_vmcs",
    "trace_enabled": "trace_enabled",
    "vmxoff_since_launch": "vmxoff_since_launch",
}
_LAUNCH_KEYS = ("instruction", "state", "current_vmcs", "vmxon_pointer", "cpl", *_FLAGS)


def _launch(value: object, line: int) -> Launch | None:
    """What the processor does: ``{"instruction": "VMRESUME", "state": "launched", "current_vmcs": "0x5000"}``.

    A current VMCS of all ones is none.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DumpError(
            f'\'launch\' is {_show(value)}: expected an object such as {{"instruction": "VMRESUME"}}', line
        )
    given: dict[str, Any] = {}
    for key, item in value.items():
        if key in ("instruction", "state"):
            allowed = _INSTRUCTIONS if key == "instruction" else _STATES
            if item not in allowed:
                raise DumpError(f"launch: {key}: expected {' or '.join(allowed)}, found {_show(item)}", line)
            given["launch_state" if key == "state" else key] = item
        elif key in ("current_vmcs", "vmxon_pointer"):
            address = _word(item, f"launch: {key}", _U64, line)
            if key == "current_vmcs" and address == _NO_VMCS:
                given["has_current_vmcs"] = False
            else:
                given[key] = address
        elif key == "cpl":
            given[key] = _word(item, "launch: cpl", 3, line)
        elif key in _FLAGS:
            if item not in (0, 1):
                raise DumpError(f"launch: {key}: expected 0 or 1, found {_show(item)}", line)
            given[_FLAGS[key]] = bool(item)
        else:
            raise DumpError(unknown_key(key, "launch: ", _LAUNCH_KEYS), line)
    return Launch(**given)


def _fields(given: Mapping[str, Any], line: int) -> dict[str, int]:
    fields: dict[str, int] = {}
    halves: dict[str, int] = {}
    for key, raw in given.items():
        known = _MASKS.get(key)
        if known is None:
            id_, high = _field(key, line)
            if high:
                halves[id_] = _word(raw, f"{id_} (upper half)", 0xFFFF_FFFF, line)
                continue
            known = _MASKS[id_]
        id_, mask = known
        number = _word(raw, id_, mask, line)
        if id_ in fields and fields[id_] != number:
            raise DumpError(f"{id_} is given twice, as {fields[id_]:#x} and as {number:#x}", line)
        fields[id_] = number
    for id_, upper in halves.items():
        _join_halves(fields, id_, upper, line)
    return fields


def _reported(value: Mapping[str, Any], line: int) -> dict[str, str]:
    """Keep what `popek vmcs generate` says beside a VMCS."""
    others = {key: item for key, item in value.items() if key in _OF_OURS}
    return {f"input_{printable(key)}": json.dumps(item)[:200] for key, item in others.items()}


def _field(key: str, line: int) -> tuple[str, bool]:
    if key[:2].lower() == "0x":
        try:
            field, high = by_encoding(int(key, 16))
        except (KeyError, ValueError):
            raise DumpError(f"no VMCS field has the encoding {key[:40]!r}", line) from None
        return field.id, high
    try:
        return find(key[:80]).id, False
    except UnknownField as error:
        raise DumpError(str(error), line) from None


def _join_halves(fields: dict[str, int], id_: str, upper: int, line: int) -> None:
    lower = fields.get(id_)
    if lower is None:
        raise DumpError(f"{id_}: the upper half is given without the field itself", line)
    if lower >> 32 not in {0, upper}:
        raise DumpError(f"{id_}: {lower:#x} and an upper half of {upper:#x} contradict each other", line)
    fields[id_] = upper << 32 | lower & 0xFFFF_FFFF


def _word(raw: object, key: str, mask: int, line: int) -> int:
    if type(raw) is str:
        try:
            if raw[:2] not in {"0x", "0X"}:
                raise ValueError(raw)
            number = int(raw, 16)
        except ValueError:
            raise DumpError(
                f'{key}: expected a hexadecimal string such as "0x2b", found {_show(raw)}', line
            ) from None
    elif type(raw) is int:
        number = raw
    else:
        raise DumpError(f'{key}: expected a hexadecimal string such as "0x2b", found {_show(raw)}', line)
    if number & mask != number:
        raise DumpError(f"{key}: {_show(raw)} does not fit in {mask.bit_length()} bits", line)
    return number


def _capabilities(value: object, line: int) -> str | Mapping[str, object] | None:
    if value is None or isinstance(value, str | dict):
        return value
    raise DumpError(f"'capabilities' is {_show(value)}: expected a preset's name or an object", line)


def _memory(value: object, line: int) -> tuple[tuple[int, int, int], ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise DumpError(f"'memory' is {_show(value)}: expected [[address, bytes, value], ...]", line)
    entries = []
    for entry in value:
        if (
            not isinstance(entry, list)
            or len(entry) != 3
            or type(entry[1]) is not int
            or not 0 < entry[1] <= 4096
        ):
            raise DumpError(f'memory entry {_show(entry)}: expected ["0x45080", 4, "0x30"]', line)
        address = _word(entry[0], "memory address", _U64, line)
        entries.append((address, entry[1], _word(entry[2], "memory value", (1 << 8 * entry[1]) - 1, line)))
    return tuple(entries)
