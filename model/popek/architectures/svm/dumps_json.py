"""Reads VMCBs as JSON."""

from __future__ import annotations

from typing import Any

from popek.architectures.dump import DumpError, printable
from popek.architectures.json_text import JsonError, decode, documents, show, unknown_key, without_fields

from .capabilities import from_mapping, hexadecimal
from .vmcb import FIELDS, UnknownVmcbField, Vmcb, VmcbDump, find

_KEYS = ("name", "fields", "memory", "capabilities")
_OF_OURS = ("violates", "check", "flip", "schema")
"""Keys that `popek vmcb generate` adds."""


def from_json(text: str, name: str) -> list[VmcbDump]:
    """Every VMCB of a JSON text, with what it says of the processor.

    Raises:
        DumpError: it is no JSON of this form, or a value of it is damaged.
    """
    try:
        found = documents(text)
    except JsonError as error:
        raise DumpError(error.message, error.line) from None
    by_lines, dumps = found[-1][0] > 1, []
    for number, (line, item) in enumerate(found, 1):
        place = f"{name}:{line}" if by_lines else f"{name}#{number}" if len(found) > 1 else name
        try:
            dumps.append(_dump(item, place))
        except DumpError as error:
            raise DumpError(error.message, line if by_lines else 0) from None
    return dumps


def from_line(text: str, name: str) -> VmcbDump:
    """The VMCB on one line of JSON Lines.

    Raises:
        DumpError: as `from_json`.
    """
    try:
        value = decode(text)
    except JsonError as error:
        raise DumpError(error.message) from None
    return _dump(value, name)


def _dump(value: object, name: str) -> VmcbDump:
    if not isinstance(value, dict):
        raise DumpError(f"expected a JSON object with the key 'fields', found {show(value)}")
    given = value.get("fields")
    if given is None:
        raise DumpError(without_fields(value, (*_KEYS, *_OF_OURS), FIELDS, '{"ASID": "0x1"}'))
    for key in value:
        if key not in _KEYS and key not in _OF_OURS:
            raise DumpError(unknown_key(key, "", _KEYS))
    if not isinstance(given, dict):
        raise DumpError(f'\'fields\' is {show(given)}: expected an object such as {{"ASID": "0x1"}}')
    fields: dict[str, int] = {}
    for key, raw in given.items():
        try:
            field = find(key)
        except UnknownVmcbField as error:
            raise DumpError(str(error)) from None
        number = hexadecimal(raw, field.id, field.mask)
        if fields.setdefault(field.id, number) != number:
            raise DumpError(f"{field.id} is given twice, as {fields[field.id]:#x} and as {number:#x}")
    own = value.get("name")
    if own is not None and not isinstance(own, str):
        raise DumpError(f"'name' is {show(own)}: expected a string")
    return VmcbDump(
        Vmcb(printable(own) if own else name, fields, _memory(value.get("memory"))),
        from_mapping(value.get("capabilities")),
    )


def _memory(given: Any) -> dict[int, int]:
    if given is None:
        return {}
    if not isinstance(given, list) or any(not isinstance(row, list) or len(row) != 3 for row in given):
        raise DumpError('memory: expected [["0x25000", 8, "0x1"], ...]: address, bytes and value')
    whole = (1 << 64) - 1
    found: dict[int, int] = {}
    for address, size, content in given:
        if size != 8:
            raise DumpError(f"memory: {show(size)} bytes: expected 8, a table entry")
        found[hexadecimal(address, "memory address", whole)] = hexadecimal(content, "memory", whole)
    return found
