"""Run single instructions of an SVM guest on Bochs: run it in a complete given state, see how it left.

The ROM `guest.asm` runs the guest; the guest's whole state is the case's, and the report holds all of it after the
#VMEXIT.  A step that does not leave the guest by itself is followed by something that does: VMMCALL (`MARKER`) behind
the instruction, INT1 with its intercept elsewhere in the arena, VMMCALL again where the gates of the IDT lead.
Memory is as `popek.emulators.guests.memory` has it, and::

    0004A000H  I/O permissions map; 0004D000H MSR permissions map
    00050000H  VMCB
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from popek.architectures.svm.vmcb import FIELDS, SIZE
from popek.emulators.bochs.simulator import BochsError, assemble
from popek.emulators.bochs.streams import Stream, pokes
from popek.emulators.guests import memory
from popek.emulators.guests.memory import (
    PAGE_DIRECTORY,
    SECOND_TRANSLATION,
    STUBS_AT,
    assert_fits,
    watched_bytes,
)
from popek.emulators.vmrun.harness import DEFAULT_MODEL

REGISTERS: Final = (
    *("rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("dr0", "dr1", "dr2", "dr3"),
)
"""What no VMCB field holds, in the order of the record on disk."""

IOPM: Final = 0x4A000
MSRPM: Final = 0x4D000
VMCB: Final = 0x50000

MARKER: Final = b"\x0f\x01\xd9"
"""VMMCALL: leaves the guest at every CPL."""


@attrs.frozen
class SvmGuestStep:
    """One step of a guest.

    Attributes:
        fields: ids of VMCB fields and their values; the others are 0, but for `BASELINE`.
        registers: by the names of `REGISTERS`; 0 where not given.
        memory: (address, bytes) to write first, below `memory.MEMORY_BYTES`.
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
class SvmGuestResult:
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
    "N_CR3": SECOND_TRANSLATION,
    "G_PAT": 0x0007_0406_0007_0406,
}
"""What every VMCB holds."""

_RECORD: Final = struct.Struct(f"<BIBI{len(REGISTERS)}QQQQQQ")
_CONTROL, _SAVE = (0x60, 0xE0), (0x400, 0x6A0)
_STACK: Final = struct.Struct("<2I")
_MOST_CASES: Final = 3000
_TABLE: Final = 0x67  # present, writable, user, accessed, dirty


def _rom() -> bytes:
    return assemble(Path(__file__).with_name("guest.asm"))


def _protected() -> list[tuple[int, bytes]]:
    """What a 32-bit guest finds in memory before each case, as (address, bytes); the rest is zero."""
    tables = range(PAGE_DIRECTORY >> 12, (STUBS_AT >> 12) + 1)
    return memory.image(MARKER, (_TABLE, _TABLE), tables)


@attrs.frozen
class SvmWorld:
    """What surrounds a kind of guest.

    Attributes:
        image: what memory holds before each case, as (address, bytes); the rest is zero.
        baseline: what every VMCB holds, by field.
    """

    image: Callable[[], list[tuple[int, bytes]]]
    baseline: Mapping[str, int]


PROTECTED: Final = SvmWorld(_protected, BASELINE)
"""A 32-bit guest."""


def _field(name: str, value: int) -> bytes:
    return value.to_bytes(FIELDS[name].width // 8, "little")


def _encode(index: int, case: SvmGuestStep) -> bytes:
    assert_fits(case.memory, case.registers, REGISTERS)
    fields = [(VMCB + FIELDS[name].offset, _field(name, value)) for name, value in case.fields.items()]
    written = [*case.memory, *fields]
    return b"".join(
        (
            struct.pack("<BII", 6, index, len(written)),
            pokes(written),
            struct.pack(f"<{len(REGISTERS)}Q", *(case.registers.get(name, 0) for name in REGISTERS)),
            struct.pack("<QQI", case.pat, case.auxiliary, len(case.watch)),
            *(struct.pack("<II", *place) for place in case.watch),
        )
    )


def _decode(report: bytes, cases: Sequence[SvmGuestStep]) -> list[SvmGuestResult]:
    """The complete results of a report, which may end early."""
    results: list[SvmGuestResult] = []
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
        words, (before, after, pat, auxiliary, xcr0) = rest[: len(REGISTERS)], rest[len(REGISTERS) :]
        fields = {
            name: int.from_bytes(page[field.offset : field.offset + field.width // 8], "little")
            for name, field in FIELDS.items()
        }
        results.append(
            SvmGuestResult(
                "host-fault" if kind else "exit", vector, dict(zip(REGISTERS, words, strict=True)), fields,
                watched_bytes(report, place, case.watch), stack, (before, after), pat, auxiliary, xcr0,
            )
        )  # fmt: skip
        at += size
    return results


def run_guests(
    cases: Iterable[SvmGuestStep],
    *,
    model: str = DEFAULT_MODEL,
    progress: Callable[[int], None] | None = None,
    stall: float = 1,
    world: SvmWorld = PROTECTED,
) -> list[SvmGuestResult]:
    """Run the guest once for each case and return the results in order.

    A case without an answer is a ``hang``, at the cost of one more boot.

    Raises:
        BochsError: Bochs or nasm is missing, or a case does not fit the rules of this module.
    """
    todo = list(cases)
    fields = ((VMCB + FIELDS[name].offset, _field(name, value)) for name, value in world.baseline.items())
    image = [*world.image(), *fields]
    prologue = struct.pack("<BI", 2, len(image)) + pokes(image)
    encoded = [_encode(index, case) for index, case in enumerate(todo)]

    def decode(report: bytes, first: int, last: int) -> list[SvmGuestResult]:
        return _decode(report, todo[first:last])

    stream = Stream(_rom(), b"GSVM", prologue, _MOST_CASES)
    return stream.run(encoded, decode, SvmGuestResult("hang"), model=model, stall=stall, progress=progress)
