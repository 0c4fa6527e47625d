"""The DMAR table of ACPI: which remapping units, reserved regions and devices the firmware reports.

Offsets are those of Intel's VT-d specification, chapter "BIOS considerations" (revisions up to 4.1).  What the table
means for a monitor is in `dmar_findings.py`; how a table is found in a text, in `dmar_text.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

HEADER, FIRST = 36, 48
KINDS = {0: "DRHD", 1: "RMRR", 2: "ATSR", 3: "RHSA", 4: "ANDD", 5: "SATC", 6: "SIDP"}
FIXED = {0: 16, 1: 24, 2: 8, 3: 20, 4: 8, 5: 8, 6: 8}
"""Bytes of a structure before its scopes."""
WITH_SCOPES = frozenset({0, 1, 2, 5, 6})
SCOPES = {
    1: "PCI endpoint",
    2: "PCI bridge and what is behind it",
    3: "I/O APIC",
    4: "HPET",
    5: "ACPI device",
}


class DmarError(ValueError):
    """What was given is no DMAR table that can be read."""


@attrs.frozen
class DeviceScope:
    """A device that a structure speaks of.

    Attributes:
        kind: the type.
        identifier: of an I/O APIC, a HPET or an ACPI device.
        bus: where the path starts.
        path: device and function, bridge by bridge.
    """

    kind: int
    identifier: int
    bus: int
    path: tuple[tuple[int, int], ...]

    @property
    def where(self) -> str:
        """Bus, device and function as lspci writes them; bridges on the way as device.function."""
        steps = [f"{device:02x}.{function:x}" for device, function in self.path]
        return f"{self.bus:02x}:" + "/".join(steps)

    @property
    def words(self) -> str:
        """For people."""
        kind = SCOPES.get(self.kind, f"type {self.kind}")
        number = f" {self.identifier}" if self.kind in (3, 4, 5) else ""
        return f"{kind}{number} at {self.where}"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": SCOPES.get(self.kind, f"type {self.kind}"), "identifier": self.identifier, "where": self.where,
        }  # fmt: skip


@attrs.frozen
class DmarStructure:
    """One remapping structure.

    Attributes:
        at: its offset in the table.
        kind: the type.
        length: as it says.
        flags, segment: 0 where it has none.
        base: of a DRHD or RHSA, the registers; of an RMRR, the region's first byte.
        limit: of an RMRR, the region's last byte.
        pages: of a DRHD, how many pages of registers.
        proximity: of an RHSA.
        name: of an ANDD.
        number: of an ANDD.
        scopes: devices.
    """

    at: int
    kind: int
    length: int
    flags: int = 0
    segment: int = 0
    base: int = 0
    limit: int = 0
    pages: int = 1
    proximity: int = 0
    name: str = ""
    number: int = 0
    scopes: tuple[DeviceScope, ...] = ()

    @property
    def title(self) -> str:
        """Its name, where there is one."""
        return KINDS.get(self.kind, f"type {self.kind}")

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": self.title,
            "at": self.at,
            "flags": self.flags,
            "segment": self.segment,
            "base": hex(self.base),
            "limit": hex(self.limit) if self.title == "RMRR" else None,
            "name": self.name or None,
            "scopes": [scope.to_json() for scope in self.scopes],
        }


@attrs.frozen
class DmarTable:
    """A table.

    Attributes:
        length: as the header says.
        given: bytes that there were.
        checksum: the sum of the bytes is 0.
        revision, oem: of the header.
        host_width: HAW in bits.
        flags: INTR_REMAP, X2APIC_OPT_OUT, DMA_CTRL_PLATFORM_OPT_IN_FLAG from bit 0 on.
        structures: in order.
        broken: what could not be read, in words.
    """

    length: int
    given: int
    checksum: bool
    revision: int
    oem: str
    host_width: int
    flags: int
    structures: tuple[DmarStructure, ...]
    broken: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """`popek/dmar/1`, without findings."""
        return {
            "schema": "popek/dmar/1",
            "length": self.length,
            "checksum": self.checksum,
            "revision": self.revision,
            "oem": self.oem,
            "host_width": self.host_width,
            "flags": self.flags,
            "structures": [one.to_json() for one in self.structures],
        }

    def of(self, title: str) -> tuple[DmarStructure, ...]:
        """The structures of a kind, by its name."""
        return tuple(one for one in self.structures if one.title == title)


def parse(data: bytes) -> DmarTable:
    """A table from its bytes; what breaks off is read as far as it goes.

    Raises:
        DmarError: it is no DMAR table, or shorter than the header.
    """
    if data[:4] != b"DMAR":
        found = data[:4].decode("latin-1")
        raise DmarError(f"expected the signature DMAR in the first four bytes; found {found!r}")
    if len(data) < FIRST:
        raise DmarError(f"expected {FIRST} bytes before the first structure; found {len(data)}")
    length = int.from_bytes(data[4:8], "little")
    body, broken = data[: max(length, FIRST)], []
    if length > len(data):
        broken.append(f"the header says {length:#x} bytes, {len(data):#x} were given: the rest was cut off")
    structures = []
    at = FIRST
    while at < len(body):
        if len(body) - at < 4:
            broken.append(f"{len(body) - at} bytes behind the last structure, at {at:#x}")
            break
        kind, size = (int.from_bytes(body[at + i : at + i + 2], "little") for i in (0, 2))
        least = FIXED.get(kind, 4)
        if size < least:
            broken.append(
                f"the {KINDS.get(kind, f'type {kind}')} at {at:#x} says {size} bytes; it has at least {least}"
            )
            break
        if at + size > len(body):
            broken.append(f"the {KINDS.get(kind, f'type {kind}')} at {at:#x} ends behind the table")
            break
        structures.append(_structure(body[at : at + size], at, kind, size, broken))
        at += size
    return DmarTable(
        length, len(data), sum(data[:length]) & 0xFF == 0 and length <= len(data), data[8],
        data[10:24].decode("latin-1").replace("\0", " ").strip(), data[36] + 1, data[37], tuple(structures),
        tuple(broken),
    )  # fmt: skip


def _structure(data: bytes, at: int, kind: int, size: int, broken: list[str]) -> DmarStructure:
    def number(first: int, length: int) -> int:
        return int.from_bytes(data[first : first + length], "little")

    found = DmarStructure(at, kind, size)
    if kind == 0:
        found = attrs.evolve(
            found, flags=data[4], pages=1 << (data[5] & 0xF), segment=number(6, 2), base=number(8, 8)
        )
    elif kind == 1:
        found = attrs.evolve(found, segment=number(6, 2), base=number(8, 8), limit=number(16, 8))
    elif kind in (2, 5, 6):
        found = attrs.evolve(found, flags=data[4] if kind != 6 else 0, segment=number(6, 2))
    elif kind == 3:
        found = attrs.evolve(found, base=number(8, 8), proximity=number(16, 4))
    elif kind == 4:
        name = data[8:].split(b"\0")[0].decode("latin-1")
        found = attrs.evolve(found, number=data[7], name=name)
    if kind in WITH_SCOPES:
        found = attrs.evolve(found, scopes=tuple(_scopes(data, FIXED[kind], at, broken)))
    return found


def _scopes(data: bytes, first: int, at: int, broken: list[str]) -> Iterator[DeviceScope]:
    place = first
    while place < len(data):
        size = data[place + 1] if place + 1 < len(data) else 0
        if size < 8 or size % 2 or place + size > len(data):
            broken.append(f"the device scope at {at + place:#x} says {size} bytes, which cannot be")
            return
        path = data[place + 6 : place + size]
        yield DeviceScope(
            data[place], data[place + 4], data[place + 5], tuple(zip(path[::2], path[1::2], strict=True))
        )
        place += size
