"""Run single instructions of a guest on Bochs: enter it in a complete given state, step once, see how it left.

The VM-entry harness (`popek.emulators.vm_entry.harness`) does the entry; here the guest's whole state is the case's,
and the report holds all of it after the exit.  A step that does not leave the guest by itself is to be followed
by something that does: VMCALL (`MARKER`) behind the instruction, INT1 with bit 1 of the exception bitmap
elsewhere in the arena, VMCALL again where the gates of the IDT lead.  Memory, physical::

    00000000H  the arena of the step harness (`popek.emulators.ia32.step`)
    00040000H  page directory and two page tables: map the arena onto itself, F8000H onto the stubs, and the rest
               onto a page that nobody looks at
    00043000H  the stubs, where the gates lead: VMCALL at every fourth byte
    00044000H  EPT, six pages: map the same
    0004A000H  `GUEST_PAGES`: I/O bitmaps, MSR bitmap, virtual-APIC page, ...

All of this is restored before each case, but for the page that nobody looks at.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from popek.emulators.bochs.simulator import BochsError, BochsInterrupted, assemble, run_rom
from popek.emulators.ia32.step import ARENA_BYTES, STUBS, TEMPLATE
from popek.emulators.vm_entry import harness as vmx_entry
from popek.emulators.vm_entry.harness import DEFAULT_MODEL, EntryResult

REGISTERS: Final = (
    *("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi"),
    *(f"r{number}" for number in range(8, 16)),
    *("cr2", "dr0", "dr1", "dr2", "dr3", "dr6", "cr8"),
)
"""What no VMCS field holds, in the order of the record on disk; 64 bits each."""

ONLY_64_BIT: Final = (*(f"r{number}" for number in range(8, 16)), "cr8")
"""Those of them that a 32-bit guest does not have."""

STACK_WORDS: Final = 10

PAGE_DIRECTORY: Final = 0x40000
PAGE_TABLE: Final = 0x41000
MEMORY_BYTES: Final = 0x56000
"""What is restored before each case, from address 0."""

MARKER: Final = b"\x0f\x01\xc1"
"""VMCALL: leaves the guest at every CPL."""

_OTHER_TABLE, _STUBS_AT, _EPT = 0x42000, 0x43000, 0x44000
_NOBODY = 0x100_0000


@attrs.frozen
class GuestPages:
    """Physical addresses of what VM-execution controls refer to; all zero but the MSR areas."""

    io_bitmap_a: int = 0x4A000
    io_bitmap_b: int = 0x4B000
    msr_bitmap: int = 0x4C000
    virtual_apic: int = 0x4D000
    apic_access: int = 0x4E000
    msr_areas: int = 0x4F000
    spare_vmcs: int = 0x50000
    page_modification_log: int = 0x51000
    posted_interrupts: int = 0x52000
    vmread_bitmap: int = 0x53000
    vmwrite_bitmap: int = 0x54000
    ve_information: int = 0x55000


GUEST_PAGES: Final = GuestPages()
"""Where the baseline's address fields point."""

TSC_AUX: Final = 0xC000_0103
"""An MSR without a VMCS field: the first entry of the VM-entry MSR-load and the VM-exit MSR-store area."""

TSC_AUX_AT_ENTRY: Final = GUEST_PAGES.msr_areas + 8
TSC_AUX_AT_EXIT: Final = GUEST_PAGES.msr_areas + 0x408
"""Where its value lies in the two."""


@attrs.frozen
class GuestStep:
    """One step of a guest.

    Attributes:
        fields: VMCS encodings and values that replace those of `baseline`.
        registers: by the names of `REGISTERS`; 0 where not given.
        memory: (address, bytes) to write first, below `MEMORY_BYTES`.
        watch: (address, length) of the memory to report.
    """

    fields: Mapping[int, int] = attrs.field(factory=dict)
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    watch: tuple[tuple[int, int], ...] = ()


@attrs.frozen
class GuestResult:
    """How a step ended.

    Attributes:
        entry: as for any VM entry.
        registers: by the names of `REGISTERS`, after the exit.
        fields: the reported VMCS fields after the exit, by encoding.
        memory: the watched memory, in the case's order.
        stack: the 32-bit words at the top of the guest's stack.
        clock: the time-stamp counter before the entry and after the exit.
    """

    entry: EntryResult
    registers: Mapping[str, int] = attrs.field(factory=dict)
    fields: Mapping[int, int] = attrs.field(factory=dict)
    memory: tuple[bytes, ...] = ()
    stack: tuple[int, ...] = ()
    clock: tuple[int, int] = (0, 0)


_EXTRA: Final = struct.Struct(f"<{len(REGISTERS)}QQQ{STACK_WORDS}I")
_MOST_CASES: Final = 3000


def _rom() -> bytes:
    source = Path(vmx_entry.__file__).with_name("entry.asm")
    return assemble(source, defines={"ARENA": 0, "ARENA_BYTES": MEMORY_BYTES})


def _image(revision: int) -> list[tuple[int, bytes]]:
    """What memory holds before each case, as (address, bytes); the rest is zero."""
    pages = {page: page << 12 for page in range(ARENA_BYTES >> 12)} | {STUBS >> 12: _STUBS_AT}
    table = b"".join(struct.pack("<I", pages.get(page, _NOBODY) | 7) for page in range(1024))
    directory = struct.pack("<I", PAGE_TABLE | 7) + struct.pack("<I", _OTHER_TABLE | 7) * 1023
    ept = [_EPT + 0x1000 * number for number in range(6)]
    ept_table = b"".join(struct.pack("<Q", pages.get(page, _NOBODY) | 0x37) for page in range(512))
    ept_directory = struct.pack("<Q", ept[3] | 7) + struct.pack("<Q", ept[5] | 7) * 511
    return [
        (0, TEMPLATE),
        (PAGE_DIRECTORY, directory),
        (PAGE_TABLE, table),
        (_OTHER_TABLE, struct.pack("<I", _NOBODY | 7) * 1024),
        (_STUBS_AT, (MARKER + b"\x90") * 256),
        (ept[0], struct.pack("<Q", ept[1] | 7)),
        (ept[1], struct.pack("<4Q", ept[2] | 7, *[ept[4] | 7] * 3)),
        (ept[2], ept_directory),
        (ept[3], ept_table),
        (ept[4], struct.pack("<Q", ept[5] | 7) * 512),
        (ept[5], struct.pack("<Q", _NOBODY | 0x37) * 512),
        (GUEST_PAGES.msr_areas, struct.pack("<IIQ", TSC_AUX, 0, 0) * 256),
        (GUEST_PAGES.spare_vmcs, struct.pack("<I", revision)),
    ]


@functools.cache
def baseline(model: str = DEFAULT_MODEL) -> Mapping[int, int]:
    """A VMCS that enters a guest in protected mode without EPT: encoding -> value."""
    msrs = vmx_entry.capabilities(model)
    pages = GUEST_PAGES
    fields = dict(vmx_entry.baseline(model, "32-bit"))
    known = {
        0x2000: pages.io_bitmap_a,
        0x2002: pages.io_bitmap_b,
        0x2004: pages.msr_bitmap,
        0x2006: pages.msr_areas + 0x400,
        0x2008: pages.msr_areas + 0x800,
        0x200A: pages.msr_areas,
        0x200E: pages.page_modification_log,
        0x2012: pages.virtual_apic,
        0x2014: pages.apic_access,
        0x2016: pages.posted_interrupts,
        0x201A: _EPT | 3 << 3 | 6,
        0x2024: pages.io_bitmap_a,
        0x2026: pages.vmread_bitmap,
        0x2028: pages.vmwrite_bitmap,
        0x202A: pages.ve_information,
        0x4000: vmx_entry._controls(msrs, 0x481, 1 << 0 | 1 << 3 | 1 << 6),  # interrupts, NMI, timer
        0x4002: vmx_entry._controls(msrs, 0x482, 0),
        0x400C: vmx_entry._controls(msrs, 0x483, 1 << 2 | 1 << 9 | 0xF << 18),
        0x4012: vmx_entry._controls(msrs, 0x484, 1 << 2 | 1 << 14 | 1 << 15),
        0x400E: 1,
        0x4014: 1,
        0x6802: PAGE_DIRECTORY,
    }
    # The default1 settings of the plain capability MSR are taken back where the TRUE one allows it.
    for encoding, true in ((0x4002, 0x48E), (0x4000, 0x48D)):
        optional = msrs[{0x4002: 0x482, 0x4000: 0x481}[encoding]] & ~msrs.get(true, 0xFFFF_FFFF) & 0xFFFF_FFFF
        known[encoding] &= ~optional
    fields.update((encoding, value) for encoding, value in known.items() if encoding in fields)
    return fields


@functools.cache
def _reported(model: str) -> tuple[int, ...]:
    """The guest-state area and the exit information."""
    state = [encoding for encoding in baseline(model) if encoding >> 10 & 3 == 2]
    information = [0x4408, 0x440A, 0x440C, 0x440E, 0x4402, 0x4404, 0x4406, 0x6400, 0x640A]
    injection = [0x4016]
    return (*state, *information, *injection)


@attrs.frozen(eq=False)
class World:
    """What a guest finds: memory, and a VMCS that enters it.

    Attributes:
        image: what memory holds before each case, as (address, bytes), given the VMCS revision; the rest is zero.
        baseline: encoding -> value, given the Bochs processor.
        register_mask: the bits of a general register that its mode has.
    """

    image: Callable[[int], list[tuple[int, bytes]]]
    baseline: Callable[[str], Mapping[int, int]]
    register_mask: int = 0xFFFF_FFFF_FFFF_FFFF


PROTECTED: Final = World(_image, baseline, 0xFFFF_FFFF)
"""A guest in protected mode."""


def _prologue(model: str, world: World) -> bytes:
    image = world.image(vmx_entry.capabilities(model)[0x480] & 0x7FFF_FFFF)
    fields = world.baseline(model)
    reported = _reported(model)
    return (
        struct.pack("<BI", 3, len(image))
        + vmx_entry._pokes(image)
        + struct.pack("<BBI", 4, 0, len(fields))
        + vmx_entry._fields(fields.items())
        + struct.pack(f"<BI{len(reported)}I", 7, len(reported), *reported)
    )


def _encode(index: int, case: GuestStep) -> bytes:
    for address, data in case.memory:
        if not 0 <= address <= address + len(data) <= MEMORY_BYTES:
            raise BochsError(f"a case may not write memory at {address:#x}")
    unknown = set(case.registers) - set(REGISTERS)
    if unknown:
        raise BochsError(f"no such register: {', '.join(sorted(unknown))}")
    return b"".join(
        (
            struct.pack("<BIBBII", 6, index, 0, 0, len(case.fields), len(case.memory)),
            vmx_entry._fields(case.fields.items()),
            vmx_entry._pokes(case.memory),
            struct.pack(f"<{len(REGISTERS)}Q", *(case.registers.get(name, 0) for name in REGISTERS)),
            struct.pack("<I", len(case.watch)),
            *(struct.pack("<II", *place) for place in case.watch),
        )
    )


def _decode(report: bytes, cases: Sequence[GuestStep], model: str, mask: int) -> list[GuestResult]:
    """The complete results of a report, which may end early."""
    reported = _reported(model)
    record = 1 + vmx_entry._RESULT.size
    results: list[GuestResult] = []
    report = report.lstrip(vmx_entry._ALIVE)
    at = 0
    for case in cases:
        size = record + 1 + _EXTRA.size + 8 * len(reported) + sum(length for _, length in case.watch)
        if at + size > len(report):
            break
        if report[at + record : at + record + 1] != b"G":
            raise BochsError(f"the guest harness reported nonsense at byte {at}")
        (entry,) = vmx_entry._decode(report[at : at + record]).values()
        *words, before, after = _EXTRA.unpack_from(report, at + record + 1)[: len(REGISTERS) + 2]
        stack = _EXTRA.unpack_from(report, at + record + 1)[len(REGISTERS) + 2 :]
        place = at + record + 1 + _EXTRA.size
        values = struct.unpack_from(f"<{len(reported)}Q", report, place)
        place += 8 * len(reported)
        memory: list[bytes] = []
        for _, length in case.watch:
            memory.append(report[place : place + length])
            place += length
        results.append(
            GuestResult(
                entry,
                {name: word & mask for name, word in zip(REGISTERS, words, strict=True)},
                dict(zip(reported, values, strict=True)),
                tuple(memory),
                stack,
                (before, after),
            )
        )
        at += size
    return results


def run_guests(
    cases: Iterable[GuestStep],
    *,
    model: str = DEFAULT_MODEL,
    progress: Callable[[int], None] | None = None,
    stall: float = 1,
    world: World = PROTECTED,
) -> list[GuestResult]:
    """Enter the guest once for each case and return the results in order.

    A case without an answer is a ``hang``, at the cost of one more boot.

    Raises:
        BochsError: Bochs or nasm is missing, or a case does not fit the rules of this module.
    """
    todo = list(cases)
    prologue = _prologue(model, world) if todo else b""
    encoded = [_encode(index, case) for index, case in enumerate(todo)]
    results: list[GuestResult] = []
    while len(results) < len(todo):
        first = last = len(results)
        room = vmx_entry._STREAM_BYTES - len(prologue) - 512
        while last < len(todo) and last - first < _MOST_CASES and len(encoded[last]) <= room:
            room -= len(encoded[last])
            last += 1
        disk = vmx_entry._disk(prologue + b"".join(encoded[first:last]) + b"\0")
        try:
            report = run_rom(_rom(), disk, model=model, timeout=60 + last - first, stall=stall)
        except BochsInterrupted as interrupted:
            report = interrupted.partial
        found = _decode(report, todo[first:last], model, world.register_mask)
        results += found
        if len(found) < last - first:
            results.append(GuestResult(EntryResult(kind="hang")))
        if progress is not None:
            progress(len(results))
    return results
