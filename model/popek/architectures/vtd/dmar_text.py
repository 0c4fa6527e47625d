"""A DMAR table in a file or a paste: binary, `acpidump`, `xxd`, `hexdump -C`, or what `iasl -d` makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from popek.architectures.enclosures import decoded
from popek.architectures.logs import unwrap

from .dmar import DmarError

_HEX = re.compile(
    r"^\W*(?:0x)?(?P<at>[0-9a-fA-F]{4,8}):?\s+(?P<bytes>(?:(?:[0-9a-fA-F]{2}){1,2}(?:\s+|$)){1,16})"
)
_FIELD = re.compile(
    r"\[(?P<at>[0-9A-Fa-f]{3,4})h\s+\d+\s+(?P<length>[0-9A-Fa-f]+)(?P<hex>h?)\]\s*(?P<name>[^:]+?)\s*:\s*(?P<value>.*)$"
)
_SIGNATURE = b"DMAR"


def table_bytes(data: bytes) -> bytes:
    """The table's bytes.

    Raises:
        DmarError: there is none, or it has gaps.
    """
    if data[:4] == _SIGNATURE and b"\0" in data[:64]:  # no text has that
        return data
    lines = [line.text for part in unwrap(decoded(data)) for line in part]
    dumped = next((one for one in _dumps(lines) if one[:4] == _SIGNATURE), None)
    if dumped is not None:
        return dumped
    fields = _fields(lines)
    if fields[:4] == _SIGNATURE:
        return fields
    raise DmarError(
        "expected a DMAR table: /sys/firmware/acpi/tables/DMAR itself, or text of acpidump, xxd, hexdump -C, iasl -d"
    )


def _dumps(lines: list[str]) -> Iterator[bytes]:
    """Each dump in hexadecimal: it starts where the offset is 0."""
    found: dict[int, int] = {}
    for line in lines:
        match = _HEX.search(line)
        if match is None:
            continue
        at, values = int(match["at"], 16), bytes.fromhex("".join(match["bytes"].split()))[:16]
        if at == 0 and found:
            yield _joined(found)
            found = {}
        found |= dict(enumerate(values, at))
    if found:
        yield _joined(found)


def _joined(found: dict[int, int]) -> bytes:
    """Bytes by their offsets.

    Raises:
        DmarError: of a DMAR table bytes are missing in between.
    """
    whole = bytes(found.get(at, 0) for at in range(max(found) + 1))
    missing = next((at for at in range(len(whole)) if at not in found), None)
    if missing is not None and whole[:4] == _SIGNATURE:
        raise DmarError(f"expected the bytes at offset {missing:#x}; the dump leaves them out")
    return whole


def _fields(lines: list[str]) -> bytes:
    """From the fields of a disassembled table."""
    found: dict[int, int] = {}
    for line in lines:
        match = _FIELD.search(line)
        if match is None:
            continue
        at, length = int(match["at"], 16), int(match["length"], 16 if match["hex"] else 10)
        value = _value(match["value"], length)
        if value is None:
            raise DmarError(
                f"offset {at:#x}, {match['name']}: expected {length} bytes, found {match['value']!r}"
            )
        found |= dict(enumerate(value, at))
    return _joined(found) if found else b""


def _value(text: str, length: int) -> bytes | None:
    """What a field holds; None where it makes no sense."""
    if quoted := re.match(r'"([^"]*)"', text):
        return quoted[1].encode("latin-1").ljust(length, b" " if length > 1 else b"\0")[:length]
    words = re.match(r"(?:0x)?([0-9A-Fa-f]{2}(?:[ ,][0-9A-Fa-f]{2})+)(?![0-9A-Fa-f])", text)
    if words is not None and len(re.split("[ ,]", words[1])) == length:
        return bytes.fromhex("".join(re.split("[ ,]", words[1])))
    number = re.match(r"(?:0x)?([0-9A-Fa-f]+)\b", text)
    if number is None or int(number[1], 16) >> 8 * length:
        return None
    return int(number[1], 16).to_bytes(length, "little")
