"""Linear addresses of IA-32e mode (SDM vol. 1, "Canonical Addressing")."""

from __future__ import annotations

from popek.kernel.words import Word

LINEAR_BITS = 48
"""Linear-address bits that are implemented: 4-level paging."""


def is_canonical(address: Word) -> Word:
    """Whether bits 63:47 of an address are all alike (width 1)."""
    top = address[63 : LINEAR_BITS - 1]
    return (top == 0) | (top == (1 << top.width) - 1)


def all_canonical(address: Word, size: int) -> Word:
    """Whether every byte of an access is at a canonical address; width 1."""
    first = is_canonical(address)
    return first if size == 1 else first & is_canonical(address + (size - 1))


def low_half(value: Word) -> Word:
    """Bits 31:0, zero-extended to 64."""
    return value.truncate(32).zero_extend(64)
