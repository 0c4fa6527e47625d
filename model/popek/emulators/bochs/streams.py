"""Disks that a ROM reads as one stream of operations, and boots that go on where the last one was lost."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import attrs

from .simulator import BochsError, BochsInterrupted, fitting, run_rom

SECTOR: Final = 512
STREAM_BYTES: Final = 0xC0_0000
"""The ROMs keep the stream between 4 and 16 MiB."""
END: Final = b"\0"
ALIVE: Final = b"."
"""Reported while the disk is read."""

ResultT = TypeVar("ResultT")


def disk(magic: bytes, stream: bytes) -> bytes:
    """The header that a ROM expects before a stream of operations, and the stream."""
    return magic + struct.pack("<I", -(-(len(stream) + 8) // SECTOR)) + stream


def pokes(memory: Iterable[tuple[int, bytes]]) -> bytes:
    """Physical addresses and bytes as the ROMs read them."""
    return b"".join(struct.pack("<II", address, len(data)) + data for address, data in memory)


def last_that_fits(encoded: Sequence[bytes], first: int, prologue: bytes, most: int) -> int:
    """The end of the cases from `first` on that one boot runs, at most so many.

    Raises:
        BochsError: not even the first has room.
    """
    last = fitting(encoded, first, STREAM_BYTES - len(prologue) - SECTOR, most)
    if last == first:
        raise BochsError(f"case {first} is too large for the harness")
    return last


@attrs.frozen
class Stream:
    """A ROM and what stands on its disk before the cases.

    Attributes:
        rom: the assembled ROM.
        magic: what its disks start with.
        prologue: the operations before the cases.
        most: how many cases one boot runs.
    """

    rom: bytes
    magic: bytes
    prologue: bytes
    most: int

    def run(
        self,
        encoded: Sequence[bytes],
        decode: Callable[[bytes, int, int], list[ResultT]],
        lost: ResultT,
        *,
        model: str,
        stall: float,
        progress: Callable[[int], None] | None = None,
    ) -> list[ResultT]:
        """Run cases and return their results in order; each without an answer costs one more boot.

        Args:
            encoded: the operations of each case.
            decode: the complete results in a report of the cases from one number to another; it may end early.
            lost: the result of a case without an answer.
            stall: how many seconds of the emulator's time an answer may take.
            progress: called with the number of cases done, after each boot.

        Raises:
            BochsError: Bochs is missing, or a case has no room.
        """
        results: list[ResultT] = []
        while len(results) < len(encoded):
            first = len(results)
            last = last_that_fits(encoded, first, self.prologue, self.most)
            written = disk(self.magic, self.prologue + b"".join(encoded[first:last]) + END)
            try:
                report = run_rom(self.rom, written, model=model, timeout=60 + last - first, stall=stall)
            except BochsInterrupted as interrupted:
                report = interrupted.partial
            found = decode(report.lstrip(ALIVE), first, last)
            results += found
            if len(found) < last - first:
                results.append(lost)
            if progress is not None:
                progress(len(results))
        return results
