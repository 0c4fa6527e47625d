"""What System/370 segment and page tables yield (GA22-7000, "Dynamic Address Translation").

The machine's state holds the yield itself; this builds it from tables in storage, on numbers.  The
common-segment facility is taken as installed, segment protection and extended real addressing as not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from .state import BAD_FORMAT, GRANTED, OUTSIDE, PAGE_INVALID, PAGE_LENGTH, SEGMENT_INVALID, SEGMENT_LENGTH

_PAGE_BITS: Final = {0b01: 11, 0b10: 12}  # control register 0 bits 8-9
_SEGMENT_BITS: Final = {0b00: 16, 0b10: 20}  # control register 0 bits 11-12


@attrs.frozen
class Yield:
    """How a translation ended, and the real address of the operand or of the table entry that denies it."""

    status: int
    address: int


def walk(halfword: Callable[[int], int | None], cr0: int, cr1: int, address: int) -> Yield:
    """Translate a 24-bit virtual address.

    Args:
        halfword: real storage, two bytes at an even address; None where there is no storage.
        cr0, cr1: the control registers.
        address: the virtual address.
    """
    layout = cr0 >> 19 & 0x1F
    page_bits, segment_bits = _PAGE_BITS.get(layout >> 3), _SEGMENT_BITS.get(layout & 3)
    if page_bits is None or segment_bits is None or layout >> 2 & 1:
        return Yield(BAD_FORMAT, 0)
    segment = address >> segment_bits
    entry_at = (cr1 & 0x00FFFFC0) + 4 * segment & 0xFFFFFF
    if segment >> 4 > cr1 >> 24:
        return Yield(SEGMENT_LENGTH, entry_at)
    high, low = halfword(entry_at), halfword(entry_at + 2)
    if high is None or low is None:
        return Yield(OUTSIDE, 0)
    entry = high << 16 | low
    if entry & 1:
        return Yield(SEGMENT_INVALID, entry_at)
    if entry & 0x0F000004:
        return Yield(BAD_FORMAT, 0)
    index_bits = segment_bits - page_bits
    page = address >> page_bits & (1 << index_bits) - 1
    page_at = (entry & 0x00FFFFF8) + 2 * page & 0xFFFFFF
    if page >> index_bits - 4 > entry >> 28:
        return Yield(PAGE_LENGTH, page_at)
    found = halfword(page_at)
    if found is None:
        return Yield(OUTSIDE, 0)
    invalid, reserved = (0x8, 0x6) if page_bits == 12 else (0x4, 0x2)
    if found & invalid:
        return Yield(PAGE_INVALID, page_at)
    if found & reserved:
        return Yield(BAD_FORMAT, 0)
    frame = found >> 16 - (24 - page_bits)
    return Yield(GRANTED, frame << page_bits | address & (1 << page_bits) - 1)
