"""Run single instructions of an SVM guest on Bochs: run it in a complete given state, see how it left.

The ROM `guest.asm` runs the guest; the guest's whole state is the case's, and the report holds all of it after the
#VMEXIT.  A step that does not leave the guest by itself is followed by something that does: VMMCALL (`MARKER`) behind
the instruction, INT1 with its intercept elsewhere in the arena, VMMCALL again where the gates of the IDT lead.  Memory,
physical::

    00000000H  the arena of the step harness (`popek.emulators.ia32.step`)
    00040000H  page directory and two page tables: map the arena onto itself, F8000H onto the stubs, and the rest
               onto a page that nobody looks at
    00043000H  the stubs, where the gates lead: VMMCALL at every fourth byte
    00044000H  nested page tables, six pages: map the same, and the first four pages above
    0004A000H  I/O permissions map; 0004D000H MSR permissions map
    00050000H  VMCB

All of this is restored before each case, but for the page that nobody looks at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from popek.architectures.svm.vmcb import FIELDS, SIZE
from popek.emulators.bochs.simulator import BochsError, BochsInterrupted, assemble, run_rom
from popek.emulators.ia32.step import ARENA_BYTES, STUBS, TEMPLATE
from popek.emulators.vmrun.harness import DEFAULT_MODEL

REGISTERS: Final = ("ecx", "edx", "ebx", "ebp", "esi", "edi", "dr0", "dr1", "dr2", "dr3")
"""What no VMCB field holds, in the order of the record on disk."""

PAGE_DIRECTORY: Final = 0x40000
PAGE_TABLE: Final = 0x41000
IOPM: Final = 0x4A000
MSRPM: Final = 0x4D000
VMCB: Final = 0x50000
MEMORY_BYTES: Final = 0x56000
"""What is restored before each case, from address 0."""

MARKER: Final = b"\x0f\x01\xd9"
"""VMMCALL: leaves the guest at every CPL."""

_OTHER_TABLE, _STUBS_AT, _NESTED = 0x42000, 0x43000, 0x44000
_NOBODY = 0x100_0000


@attrs.frozen
class GuestStep:
    """One step of a guest.

    Attributes:
        fields: ids of VMCB fields and their values; the others are 0, but for `BASELINE`.
        registers: by the names of `REGISTERS`; 0 where not given.
        memory: (address, bytes) to write first, below `MEMORY_BYTES`.
        watch: (address, length) of the memory to report.
        pat, auxiliary: IA32_PAT of the host, which a guest without nested paging shares, and IA32_TSC_AUX.
    """

    fields: Mapping[str, int]
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    watch: tuple[tuple[int, int], ...] = ()
    pat: int = 0x0007_0406_0007_0406
    auxiliary: int = 0


@attrs.frozen
class GuestResult:
    """How a step ended.

    Attributes:
        kind: ``exit``, ``host-fault`` (VMRUN itself raised exception `vector`) or ``hang``.
        registers: by the names of `REGISTERS`, after the exit.
        fields: the VMCB's fields after the exit, by id.
        memory: the watched memory, in the case's order.
        stack: the two 32-bit words at the top of the guest's stack.
        clock: the time-stamp counter before the run and after the exit.
        pat, auxiliary, xcr0: as the host finds them.
    """

    kind: str
    vector: int = 0
    registers: Mapping[str, int] = attrs.field(factory=dict)
    fields: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[bytes, ...] = ()
    stack: tuple[int, ...] = ()
    clock: tuple[int, int] = (0, 0)
    pat: int = 0
    auxiliary: int = 0
    xcr0: int = 1


BASELINE: Final[Mapping[str, int]] = {
    "IOPM_BASE": IOPM,
    "MSRPM_BASE": MSRPM,
    "ASID": 1,
    "TLB_CONTROL": 1,
    "N_CR3": _NESTED,
    "G_PAT": 0x0007_0406_0007_0406,
}
"""What every VMCB holds."""

_MAGIC, _ALIVE, _END = b"GSVM", b".", b"\0"
_RECORD: Final = struct.Struct(f"<BIBI{len(REGISTERS)}IQQQQQ")
_CONTROL, _SAVE = (0x60, 0xE0), (0x400, 0x6A0)
_STACK: Final = struct.Struct("<2I")
_SECTOR, _STREAM_BYTES, _MOST_CASES = 512, 0xC0_0000, 3000


def _rom() -> bytes:
    return assemble(Path(__file__).with_name("guest.asm"))


def _image() -> list[tuple[int, bytes]]:
    """What memory holds before each case, as (address, bytes); the rest is zero."""
    pages = {page: page << 12 for page in range(ARENA_BYTES >> 12)} | {STUBS >> 12: _STUBS_AT}
    table = b"".join(struct.pack("<I", pages.get(page, _NOBODY) | 7) for page in range(1024))
    directory = struct.pack("<I", PAGE_TABLE | 7) + struct.pack("<I", _OTHER_TABLE | 7) * 1023
    nested = [_NESTED + 0x1000 * number for number in range(6)]
    used = 0x67  # present, writable, user, accessed, dirty
    tables = {page: page << 12 for page in range(PAGE_DIRECTORY >> 12, (_STUBS_AT >> 12) + 1)}
    nested_pages = pages | tables
    nested_table = b"".join(struct.pack("<Q", nested_pages.get(page, _NOBODY) | used) for page in range(512))
    return [
        (0, TEMPLATE),
        (PAGE_DIRECTORY, directory),
        (PAGE_TABLE, table),
        (_OTHER_TABLE, struct.pack("<I", _NOBODY | 7) * 1024),
        (_STUBS_AT, (MARKER + b"\x90") * 256),
        (nested[0], struct.pack("<Q", nested[1] | used)),
        (nested[1], struct.pack("<4Q", nested[2] | used, *[nested[4] | used] * 3)),
        (nested[2], struct.pack("<Q", nested[3] | used) + struct.pack("<Q", nested[5] | used) * 511),
        (nested[3], nested_table),
        (nested[4], struct.pack("<Q", nested[5] | used) * 512),
        (nested[5], struct.pack("<Q", _NOBODY | used) * 512),
        *((VMCB + FIELDS[name].offset, _field(name, value)) for name, value in BASELINE.items()),
    ]


def _field(name: str, value: int) -> bytes:
    return value.to_bytes(FIELDS[name].width // 8, "little")


def _pokes(memory: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("<II", address, len(data)) + data for address, data in memory)


def _encode(index: int, case: GuestStep) -> bytes:
    for address, data in case.memory:
        if not 0 <= address <= address + len(data) <= MEMORY_BYTES:
            raise BochsError(f"a case may not write memory at {address:#x}")
    unknown = set(case.registers) - set(REGISTERS)
    if unknown:
        raise BochsError(f"no such register: {', '.join(sorted(unknown))}")
    fields = [(VMCB + FIELDS[name].offset, _field(name, value)) for name, value in case.fields.items()]
    pokes = [*case.memory, *fields]
    return b"".join(
        (
            struct.pack("<BII", 6, index, len(pokes)),
            _pokes(pokes),
            struct.pack(f"<{len(REGISTERS)}I", *(case.registers.get(name, 0) for name in REGISTERS)),
            struct.pack("<QQI", case.pat, case.auxiliary, len(case.watch)),
            *(struct.pack("<II", *place) for place in case.watch),
        )
    )


def _decode(report: bytes, cases: Sequence[GuestStep]) -> list[GuestResult]:
    """The complete results of a report, which may end early."""
    results: list[GuestResult] = []
    report = report.lstrip(_ALIVE)
    at = 0
    for case in cases:
        areas = sum(end - start for start, end in (_CONTROL, _SAVE))
        size = _RECORD.size + areas + _STACK.size + sum(length for _, length in case.watch)
        if at + size > len(report):
            break
        mark, _, kind, vector, *rest = _RECORD.unpack_from(report, at)
        if mark != ord("R"):
            raise BochsError(f"the guest harness reported nonsense at byte {at}")
        place = at + _RECORD.size
        page = bytearray(SIZE)
        for start, end in (_CONTROL, _SAVE):
            page[start:end] = report[place : place + end - start]
            place += end - start
        stack = _STACK.unpack_from(report, place)
        place += _STACK.size
        memory: list[bytes] = []
        for _, length in case.watch:
            memory.append(report[place : place + length])
            place += length
        words, (before, after, pat, auxiliary, xcr0) = rest[: len(REGISTERS)], rest[len(REGISTERS) :]
        fields = {
            name: int.from_bytes(page[field.offset : field.offset + field.width // 8], "little")
            for name, field in FIELDS.items()
        }
        results.append(
            GuestResult(
                "host-fault" if kind else "exit", vector, dict(zip(REGISTERS, words, strict=True)), fields,
                tuple(memory), stack, (before, after), pat, auxiliary, xcr0,
            )
        )  # fmt: skip
        at += size
    return results


def run_guests(
    cases: Iterable[GuestStep],
    *,
    model: str = DEFAULT_MODEL,
    progress: Callable[[int], None] | None = None,
    stall: float = 1,
) -> list[GuestResult]:
    """Run the guest once for each case and return the results in order.

    A case without an answer is a ``hang``, at the cost of one more boot.

    Raises:
        BochsError: Bochs or nasm is missing, or a case does not fit the rules of this module.
    """
    todo = list(cases)
    image = _image()
    prologue = struct.pack("<BI", 2, len(image)) + _pokes(image)
    encoded = [_encode(index, case) for index, case in enumerate(todo)]
    results: list[GuestResult] = []
    while len(results) < len(todo):
        first = last = len(results)
        room = _STREAM_BYTES - len(prologue) - _SECTOR
        while last < len(todo) and last - first < _MOST_CASES and len(encoded[last]) <= room:
            room -= len(encoded[last])
            last += 1
        stream = prologue + b"".join(encoded[first:last]) + _END
        disk = _MAGIC + struct.pack("<I", -(-(len(stream) + 8) // _SECTOR)) + stream
        try:
            report = run_rom(_rom(), disk, model=model, timeout=60 + last - first, stall=stall)
        except BochsInterrupted as interrupted:
            report = interrupted.partial
        found = _decode(report, todo[first:last])
        results += found
        if len(found) < last - first:
            results.append(GuestResult("hang"))
        if progress is not None:
            progress(len(results))
    return results
