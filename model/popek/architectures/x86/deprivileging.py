"""Ring deprivileging as every mode has it: rings, what the VMM owns, and where it has its tables.

`popek.architectures.ia32.deprivileging` says what such a VMM does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from popek.kernel.state import Role
from popek.kernel.words import Word, concat, ite

from .registers import SEGMENT_NAMES
from .state import X86

Ring = Callable[[Word], Word]
"""The level that a level of the guest's runs at (2 bits)."""

# Where things are in the VMM's storage, which begins at a multiple of its size.
RESERVED: Final = 0x20000
IDT_AT: Final = 0x10000
TSS_AT: Final = 0x18000
ENTRY_AT: Final = 0x1C000


def ring_1(level: Word) -> Word:
    """0 becomes 1; the others stay."""
    return ite(level == 0, Word(2, 1), level)


def ring_3(level: Word) -> Word:
    """Every level becomes 3."""
    return Word(2, 3)


def owned_leaves(state: type[X86]) -> tuple[str, ...]:
    """What belongs to the VMM: every resource but the segment registers, which are the guest's."""
    guest = tuple(f"{name}." for name in SEGMENT_NAMES)
    roles = (Role.RESOURCE, Role.TIME)
    words = [leaf.name for leaf in state.leaves if leaf.role in roles and not leaf.name.startswith(guest)]
    return (*words, *(slot.name for slot in state.layout if slot.address and slot.role is Role.RESOURCE))


def start_of(private: X86) -> Word:
    """Where the VMM's storage begins."""
    return private.reserved.base.replace(RESERVED.bit_length() - 2, 0, 0)


def entry_of(private: X86) -> Word:
    """Where the gates of the VMM's IDT lead."""
    return start_of(private) + ENTRY_AT


def select(number: Word, choices: tuple[Word, ...]) -> Word:
    """The choice of this number; the last for every number above."""
    result = choices[-1]
    for index in range(len(choices) - 2, -1, -1):
        result = ite(number == index, choices[index], result)
    return result


def compressed(ring: Ring, rights: Word, *, gates: bool = False) -> Word:
    """Byte 5 of a descriptor: P DPL S type; with `gates`, those of the guest work."""
    loadable = rights[4] & rights[0]  # code or data, accessed
    if gates:
        loadable = loadable | ~rights[4]
    return concat(rights[7] & loadable, ring(rights[6:5]), rights[4:0])
