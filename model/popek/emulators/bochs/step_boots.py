"""Thousands of single steps in one boot of Bochs, and the next boot from the case that ended one.

A ROM (`ia32/step.asm`, `x86_64/step.asm`) reads the disk: ``STEP``, the number of sectors, the number of cases, the
memory that every case starts from, as patches, and a record for each case.  It reports the cases in order on the
port that `popek.emulators.bochs.simulator` listens to.  A case that brings the processor down costs one more boot.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

import attrs

from popek.emulators.bochs import simulator as bochs

CaseT = TypeVar("CaseT")
ResultT = TypeVar("ResultT")
Ended = Literal["hang", "triple-fault"]
Patch = tuple[int, bytes]
"""A linear address and the bytes that lie there."""

_MOST_DISK: Final = 8 << 20
_STALL: Final = 2.0
_MOST_CASES: Final = 2000


@attrs.frozen
class StepRom(Generic[CaseT, ResultT]):
    """A ROM that runs steps, and how to talk to it.

    Attributes:
        source: its assembly.
        defaults: the memory that every case starts from.
        record: a case as the ROM reads it.
        decode: the complete results in a report of these cases, which may end early.
        ended: the result of a case that brought the processor down.
    """

    source: Path
    defaults: tuple[Patch, ...]
    record: Callable[[CaseT], bytes]
    decode: Callable[[Sequence[CaseT], bytes], list[ResultT]]
    ended: Callable[[Ended], ResultT]

    def run(
        self,
        cases: Iterable[CaseT],
        *,
        model: str = "tigerlake",
        progress: Callable[[int], None] | None = None,
        chunk: int = _MOST_CASES,
    ) -> list[ResultT]:
        """Run cases on Bochs and return their results, in order.

        Args:
            model: a processor of Bochs.
            progress: called with the number of cases done, after each boot.
            chunk: the most cases that one boot runs.

        Raises:
            BochsError: Bochs or nasm is missing.
        """
        image = bochs.assemble(self.source)
        results: list[ResultT] = []
        batch: list[CaseT] = []
        size = 0
        for case in cases:
            more = len(self.record(case))
            if len(batch) == chunk or size + more > _MOST_DISK:
                _run_batch(self, image, batch, model, progress, results)
                batch, size = [], 0
            batch.append(case)
            size += more
        _run_batch(self, image, batch, model, progress, results)
        return results


def _run_batch(
    rom: StepRom[CaseT, ResultT],
    image: bytes,
    batch: Sequence[CaseT],
    model: str,
    progress: Callable[[int], None] | None,
    results: list[ResultT],
) -> None:
    done = 0
    most = len(batch)
    while done < len(batch):
        rest = batch[done : done + most]
        end: Ended | None = None
        try:
            report = bochs.run_rom(image, _disk(rom, rest), model=model, timeout=60 + len(rest), stall=_STALL)
        except bochs.BochsTimeout as stopped:
            report, end = stopped.partial, "hang"
        except bochs.BochsCrash as stopped:
            if not stopped.partial:
                raise
            report, end = stopped.partial, "triple-fault"
        decoded = rom.decode(rest, report)
        results.extend(decoded)
        done += len(decoded)
        if end is None and len(decoded) < len(rest):
            raise bochs.BochsError(f"the guest reported {len(decoded)} of {len(rest)} cases")
        if end == "triple-fault" or (end == "hang" and len(rest) == 1):
            results.append(rom.ended(end))
            done += 1
        # A guest that was killed may have finished more than it could report: close in on the case.
        most = max(1, len(rest) // 8) if end == "hang" else min(8 * most, len(batch))
        if progress is not None:
            progress(len(results))


def patch_list(patches: Iterable[Patch]) -> bytes:
    """Patches as the ROMs read them: address, length, and the bytes up to a multiple of four."""
    return b"".join(
        struct.pack("<II", address, len(data)) + data + bytes(-len(data) % 4) for address, data in patches
    )


def _disk(rom: StepRom[CaseT, ResultT], batch: Sequence[CaseT]) -> bytes:
    records = b"".join(rom.record(case) for case in batch)
    body = struct.pack("<II", len(batch), len(rom.defaults)) + patch_list(rom.defaults) + records
    sectors = -(-(8 + len(body)) // 512)
    return (b"STEP" + struct.pack("<I", sectors) + body).ljust(512 * sectors, b"\0")
