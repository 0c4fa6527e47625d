"""The memory of a 32-bit guest on Bochs, physical.

::

    00000000H  the arena of the step harness (`popek.emulators.ia32.step`)
    00040000H  page directory and two page tables: map the arena onto itself, F8000H onto the stubs, and the rest
               onto a page that nobody looks at
    00043000H  the stubs, where the gates lead: what leaves the guest (the marker) at every fourth byte
    00044000H  the tables of the second translation, six pages: map the same
    0004A000H  what the controls refer to

All of this is restored before each case, but for the page that nobody looks at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from popek.emulators.bochs.simulator import BochsError
from popek.emulators.ia32.step import ARENA_BYTES, STUBS, TEMPLATE, Ia32StepCase
from popek.emulators.ia32.step import prepare as prepare_step
from popek.kernel.words import Word

PAGE_DIRECTORY: Final = 0x40000
PAGE_TABLE: Final = 0x41000
_OTHER_TABLE: Final = 0x42000
STUBS_AT: Final = 0x43000
SECOND_TRANSLATION: Final = 0x44000
MEMORY_BYTES: Final = 0x56000
"""What is restored before each case, from address 0."""

NOBODY: Final = 0x100_0000
"""The page that nobody looks at."""

PAGES: Final[Mapping[int, int]] = {page: page << 12 for page in range(ARENA_BYTES >> 12)} | {
    STUBS >> 12: STUBS_AT
}
"""Where the guest's pages lie, by number; the others lead to `NOBODY`."""


def image(marker: bytes, second: Sequence[int], also: Sequence[int] = ()) -> list[tuple[int, bytes]]:
    """What memory holds before each case, as (address, bytes); the rest is zero.

    Args:
        marker: three bytes that leave the guest at every privilege level.
        second: the flags of an entry of the second translation that refers to a table, and of one that maps a page.
        also: pages that the second translation maps besides those of `PAGES`.
    """
    table = b"".join(struct.pack("<I", PAGES.get(page, NOBODY) | 7) for page in range(1024))
    directory = struct.pack("<I", PAGE_TABLE | 7) + struct.pack("<I", _OTHER_TABLE | 7) * 1023
    refers, maps = second
    pages = {**PAGES, **{page: page << 12 for page in also}}
    tables = [SECOND_TRANSLATION + 0x1000 * number for number in range(6)]
    low = b"".join(struct.pack("<Q", pages.get(page, NOBODY) | maps) for page in range(512))
    return [
        (0, TEMPLATE),
        (PAGE_DIRECTORY, directory),
        (PAGE_TABLE, table),
        (_OTHER_TABLE, struct.pack("<I", NOBODY | 7) * 1024),
        (STUBS_AT, (marker + b"\x90") * 256),
        (tables[0], struct.pack("<Q", tables[1] | refers)),
        (tables[1], struct.pack("<4Q", tables[2] | refers, *[tables[4] | refers] * 3)),
        (tables[2], struct.pack("<Q", tables[3] | refers) + struct.pack("<Q", tables[5] | refers) * 511),
        (tables[3], low),
        (tables[4], struct.pack("<Q", tables[5] | refers) * 512),
        (tables[5], struct.pack("<Q", NOBODY | maps) * 512),
    ]


def page_entries(barred: Mapping[int, int]) -> list[tuple[int, bytes]]:
    """The page-table entries of pages that lack bits (1 present, 2 writable, 4 user), as (address, bytes)."""
    return [
        (PAGE_TABLE + 4 * page, struct.pack("<I", page << 12 | 7 & ~lacking))
        for page, lacking in barred.items()
    ]


def arena_of(step: Ia32StepCase, marker: bytes) -> bytes:
    """The arena when the guest starts, with what leaves it behind the instruction."""
    prepared = prepare_step(step)
    arena = bytearray(prepared.arena)
    arena[prepared.end : prepared.end + len(marker)] = marker
    return bytes(arena)


def patches(arena: bytes) -> Iterator[tuple[int, bytes]]:
    """Where the arena differs from what the harness puts there."""
    for at in range(0, ARENA_BYTES, 1024):
        if arena[at : at + 1024] == TEMPLATE[at : at + 1024]:
            continue
        for small in range(at, at + 1024, 16):
            if arena[small : small + 16] != TEMPLATE[small : small + 16]:
                yield small, arena[small : small + 16]


def written(patches: Sequence[tuple[int, bytes]]) -> dict[int, int]:
    """Bytes by address."""
    found: dict[int, int] = {}
    for address, data in patches:
        found.update(enumerate(data, address))
    return found


def bits(cells: Mapping[int, int], base: int) -> Callable[[Word], Word]:
    """The bits of a map that lies at `base`, one a cell."""

    def cell(index: Word) -> Word:
        number = int(index)
        return Word(1, cells.get(base + number // 8, 0) >> number % 8 & 1)

    return cell


def assert_fits(
    memory: Sequence[tuple[int, bytes]], registers: Mapping[str, int], known: Sequence[str]
) -> None:
    """What a case may write, and which registers there are.

    Raises:
        BochsError: it does not fit.
    """
    for address, data in memory:
        if not 0 <= address <= address + len(data) <= MEMORY_BYTES:
            raise BochsError(f"a case may not write memory at {address:#x}")
    unknown = set(registers) - set(known)
    if unknown:
        raise BochsError(f"no such register: {', '.join(sorted(unknown))}")


def watched_bytes(report: bytes, place: int, watch: Sequence[tuple[int, int]]) -> tuple[bytes, ...]:
    """The watched memory in a report, from `place` on."""
    found = []
    for _, length in watch:
        found.append(report[place : place + length])
        place += length
    return tuple(found)
