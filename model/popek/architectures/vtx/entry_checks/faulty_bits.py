"""Which bits make a field fail a check against masks of the processor: each by its number and its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from popek.architectures.vtx.capabilities import CapabilityView
from popek.architectures.vtx.capability_limits import extremes
from popek.architectures.vtx.controls import bits_of
from popek.architectures.vtx.view import View
from popek.architectures.vtx.vmcs import MissingField

Note = Callable[[View], str]
"""What a message goes on with."""

_NW_CD, _PG_PE = 3 << 29, 1 << 31 | 1


def fixed_bits(field: str, must: str, may: str, free: Callable[[View], int] = lambda _: 0) -> Note:
    """The bits that must be 1 and are not, and those that may not be 1 and are.

    Args:
        field: its id.
        must: the answer of a `CapabilityView` that has the bits that must be 1; empty if there is none.
        may: that with the bits that may be 1.
        free: bits that are at fault in no case.
    """

    def note(v: View) -> str:
        value, fine = getattr(v, field), free(v)
        lacks = _answer(v, must) & ~value & ~fine if must else 0
        return _words(field, lacks, value & ~_answer(v, may) & ~fine)

    return note


def reserved_bits(field: str, mask: str) -> Note:
    """The bits that are 1 and reserved, by the answer of a `CapabilityView`."""
    return lambda v: _words(field, 0, getattr(v, field) & _answer(v, mask))


def free_cr0(v: View) -> int:
    """Bits of the guest's CR0 that are never at fault: NW and CD; PE and PG of a guest that may be unrestricted."""
    try:
        return _NW_CD | _PG_PE if v.ug else _NW_CD
    except MissingField:
        return _NW_CD | _PG_PE


def _answer(v: View, name: str) -> Any:
    """A mask of the processor; of one that is not known, the mask that fails the least."""
    try:
        return getattr(v.cap, name)
    except MissingField:
        return getattr(CapabilityView(extremes(v.cap.capabilities)[0]), name)


def _words(field: str, lacks: int, has: int) -> str:
    """The bits at fault, low ones first."""
    wrong = [(bit, "must be 1") for bit in _bits(lacks)] + [(bit, "may not be 1") for bit in _bits(has)]
    return ", ".join(f"bit {bit} ({_title(field, bit)}) {what}" for bit, what in sorted(wrong))


def _title(field: str, bit: int) -> str:
    for named in bits_of(field):
        if named.low <= bit <= named.high and not named.name.startswith("RESERVED"):
            return f"{named.name}, {named.title}" if len(named.name) <= 8 else f"'{named.title}'"
    return "reserved"


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


__all__ = ["fixed_bits", "free_cr0", "reserved_bits"]
