"""The memory of a 64-bit guest on Bochs, physical.

::

    00000000H  the arena (`popek.emulators.x86_64.step`)
    00040000H  PML4 table, page-directory-pointer table, page directory, two page tables
    00045000H  the stubs, where the gates of the IDT lead (F8000H for the guest): the marker at every fourth byte
    00046000H  the interrupt stack of these gates (01025000H for the guest)

The guest sees pages as on the step harness: users' from `USER_BASE` on, one of them read-only, supervisors' below.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from popek.emulators.x86_64.step import (
    ARENA_BYTES,
    CR3,
    IST_TOPS,
    READ_ONLY_BASE,
    TEMPLATE,
    USER_BASE,
    X64StepCase,
    initial_memory,
    plain_state,
)

PML4: Final = 0x40000
STUBS: Final = 0xF8000
"""Where the guest sees the stubs."""
FRAME: Final = 0x47000 - 48
"""Physical address of what the delivery of an exception with an error code leaves."""
STACK_TOP: Final = IST_TOPS[0]

_STUB_PAGE, _STACK_PAGE = 0x45000, 0x46000
_SUPERVISOR, _USER, _READ_ONLY = 0x63, 0x67, 0x65  # present, writable, user; accessed and dirty
_PAGE = 0x7FFF_FFFF_FFFF_F000


def _page(number: int) -> int:
    address = number << 12
    kind = _SUPERVISOR if address < USER_BASE else _READ_ONLY if address == READ_ONLY_BASE else _USER
    return address | kind


def image(marker: bytes) -> list[tuple[int, bytes]]:
    """What memory holds before each case, as (address, bytes); `marker` leaves the guest at every privilege level."""
    low = {number: _page(number) for number in range(ARENA_BYTES >> 12)} | {
        STUBS >> 12: _STUB_PAGE | _SUPERVISOR
    }
    directory = {0: 0x43000 | _USER, STACK_TOP >> 21: 0x44000 | _USER}
    high = {(STACK_TOP - 1 >> 12) & 511: _STACK_PAGE | _SUPERVISOR}
    return [
        (0, TEMPLATE),
        (PML4, struct.pack("<Q", 0x41000 | _USER)),
        (0x41000, struct.pack("<Q", 0x42000 | _USER)),
        (0x42000, _table(directory)),
        (0x43000, _table(low)),
        (0x44000, _table(high)),
        (_STUB_PAGE, (marker + b"\x90") * 256),
    ]


def _table(entries: Mapping[int, int]) -> bytes:
    return b"".join(struct.pack("<Q", entries.get(number, 0)) for number in range(512))


def arena_of(step: X64StepCase, marker: bytes) -> bytes:
    """The arena when the guest starts, with what leaves it behind the instruction."""
    arena = bytearray(initial_memory(step))
    end = step.start + len(step.code)
    arena[end : end + len(marker)] = marker
    return bytes(arena)


def patches(arena: bytes) -> tuple[tuple[int, bytes], ...]:
    """Where the arena differs from what a plain step has there."""
    plain = initial_memory(X64StepCase(b"", plain_state(0)))
    return tuple(
        (at, arena[at : at + 16])
        for at in range(0, ARENA_BYTES, 16)
        if arena[at : at + 16] != plain[at : at + 16]
    )


def moved_table(value: int) -> int:
    """A value of CR3 with the guest's page tables where it has the step harness's."""
    return PML4 | value & ~_PAGE if value & _PAGE == CR3 else value
