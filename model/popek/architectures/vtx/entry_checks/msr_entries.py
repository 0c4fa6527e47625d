"""The entries of MSR areas: as memory has them, or as a dump lists them."""

from __future__ import annotations

from popek.architectures.vtx.capabilities import ONES64
from popek.architectures.vtx.view import View
from popek.architectures.vtx.vmcs import MissingField

Entry = tuple[int, int, int]
"""Index, bits 63:32 of the entry, value."""


class _Unprinted(int):
    """Bits 63:32 of an entry that a dump lists without them: whoever looks at them learns that they are missing."""

    def __eq__(self, other: object) -> bool:
        raise MissingField("memory: bits 63:32 of the entries of the MSR area")

    def __bool__(self) -> bool:
        raise MissingField("memory: bits 63:32 of the entries of the MSR area")

    __hash__ = int.__hash__


def entry(v: View, number: int, area: str = "ENTRY_MSR_LOAD") -> Entry:
    """An entry of an MSR area, by default of the VM-entry MSR-load area, counted from 0."""
    listed = v.areas.get(area, ())
    if number < len(listed):
        return listed[number][0], _Unprinted(), listed[number][1]
    address = getattr(v, f"{area}_ADDR") + 16 * number & ONES64
    return v.read(address, 4), v.read(address + 4, 4), v.read(address + 8, 8)
