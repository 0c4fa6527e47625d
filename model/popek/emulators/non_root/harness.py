"""Run single instructions of a guest on Bochs: enter it in a complete given state, step once, see how it left.

The VM-entry harness (`popek.emulators.vm_entry.harness`) does the entry; here the guest's whole state is the case's,
and the report holds all of it after the exit.  A step that does not leave the guest by itself is to be followed
by something that does: VMCALL (`MARKER`) behind the instruction, INT1 with bit 1 of the exception bitmap
elsewhere in the arena, VMCALL again where the gates of the IDT lead.  Memory is as `popek.emulators.guests.memory`
has it, with EPT as the second translation, and from 0004A000H on `GUEST_PAGES`: I/O bitmaps, MSR bitmap, virtual-APIC
page, ...
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from popek.emulators.bochs.simulator import BochsError, assemble
from popek.emulators.bochs.streams import Stream, pokes
from popek.emulators.guests import memory
from popek.emulators.guests.memory import (
    MEMORY_BYTES,
    PAGE_DIRECTORY,
    SECOND_TRANSLATION,
    assert_fits,
    watched_bytes,
)
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

MARKER: Final = b"\x0f\x01\xc1"
"""VMCALL: leaves the guest at every CPL."""


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
class VmxGuestStep:
    """One step of a guest.

    Attributes:
        fields: VMCS encodings and values that replace those of `baseline`.
        registers: by the names of `REGISTERS`; 0 where not given.
        memory: (address, bytes) to write first, below `memory.MEMORY_BYTES`.
        watch: (address, length) of the memory to report.
    """

    fields: Mapping[int, int] = attrs.field(factory=dict)
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    watch: tuple[tuple[int, int], ...] = ()


@attrs.frozen
class VmxGuestResult:
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
    return [
        *memory.image(MARKER, (7, 0x37)),
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
        0x201A: SECOND_TRANSLATION | 3 << 3 | 6,
        0x2024: pages.io_bitmap_a,
        0x2026: pages.vmread_bitmap,
        0x2028: pages.vmwrite_bitmap,
        0x202A: pages.ve_information,
        0x4000: vmx_entry.allowed_controls(msrs, 0x481, 1 << 0 | 1 << 3 | 1 << 6),  # interrupts, NMI, timer
        0x4002: vmx_entry.allowed_controls(msrs, 0x482, 0),
        0x400C: vmx_entry.allowed_controls(msrs, 0x483, 1 << 2 | 1 << 9 | 0xF << 18),
        0x4012: vmx_entry.allowed_controls(msrs, 0x484, 1 << 2 | 1 << 14 | 1 << 15),
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
    information = [0x4408, 0x440A, 0x440C, 0x440E, 0x4402, 0x4404, 0x4406, 0x6400, 0x640A, 0x2400]
    injection = [0x4016]
    return (*state, *information, *injection)


@attrs.frozen(eq=False)
class GuestWorld:
    """What a guest finds: memory, and a VMCS that enters it.

    Attributes:
        image: what memory holds before each case, as (address, bytes), given the VMCS revision; the rest is zero.
        baseline: encoding -> value, given the Bochs processor.
        register_mask: the bits of a general register that its mode has.
    """

    image: Callable[[int], list[tuple[int, bytes]]]
    baseline: Callable[[str], Mapping[int, int]]
    register_mask: int = 0xFFFF_FFFF_FFFF_FFFF


PROTECTED: Final = GuestWorld(_image, baseline, 0xFFFF_FFFF)
"""A guest in protected mode."""


def _prologue(model: str, world: GuestWorld) -> bytes:
    image = world.image(vmx_entry.capabilities(model)[0x480] & 0x7FFF_FFFF)
    fields = world.baseline(model)
    reported = _reported(model)
    return (
        struct.pack("<BI", 3, len(image))
        + pokes(image)
        + struct.pack("<BBI", 4, 0, len(fields))
        + vmx_entry.field_list(fields.items())
        + struct.pack(f"<BI{len(reported)}I", 7, len(reported), *reported)
    )


def _encode(index: int, case: VmxGuestStep) -> bytes:
    assert_fits(case.memory, case.registers, REGISTERS)
    return b"".join(
        (
            struct.pack("<BIBBII", 6, index, 0, 0, len(case.fields), len(case.memory)),
            vmx_entry.field_list(case.fields.items()),
            pokes(case.memory),
            struct.pack(f"<{len(REGISTERS)}Q", *(case.registers.get(name, 0) for name in REGISTERS)),
            struct.pack("<I", len(case.watch)),
            *(struct.pack("<II", *place) for place in case.watch),
        )
    )


def _decode(report: bytes, cases: Sequence[VmxGuestStep], model: str, mask: int) -> list[VmxGuestResult]:
    """The complete results of a report, which may end early."""
    reported = _reported(model)
    record = 1 + vmx_entry.RESULT.size
    results: list[VmxGuestResult] = []
    at = 0
    for case in cases:
        size = record + 1 + _EXTRA.size + 8 * len(reported) + sum(length for _, length in case.watch)
        if at + size > len(report):
            break
        if report[at + record : at + record + 1] != b"G":
            raise BochsError(f"the guest harness reported nonsense at byte {at}")
        (entry,) = vmx_entry.decode(report[at : at + record]).values()
        *words, before, after = _EXTRA.unpack_from(report, at + record + 1)[: len(REGISTERS) + 2]
        stack = _EXTRA.unpack_from(report, at + record + 1)[len(REGISTERS) + 2 :]
        place = at + record + 1 + _EXTRA.size
        values = struct.unpack_from(f"<{len(reported)}Q", report, place)
        place += 8 * len(reported)
        results.append(
            VmxGuestResult(
                entry,
                {name: word & mask for name, word in zip(REGISTERS, words, strict=True)},
                dict(zip(reported, values, strict=True)),
                watched_bytes(report, place, case.watch),
                stack,
                (before, after),
            )
        )
        at += size
    return results


def run_guests(
    cases: Iterable[VmxGuestStep],
    *,
    model: str = DEFAULT_MODEL,
    progress: Callable[[int], None] | None = None,
    stall: float = 1,
    world: GuestWorld = PROTECTED,
) -> list[VmxGuestResult]:
    """Enter the guest once for each case and return the results in order.

    A case without an answer is a ``hang``, at the cost of one more boot.

    Raises:
        BochsError: Bochs or nasm is missing, or a case does not fit the rules of this module.
    """
    todo = list(cases)
    prologue = _prologue(model, world) if todo else b""
    encoded = [_encode(index, case) for index, case in enumerate(todo)]

    def decode(report: bytes, first: int, last: int) -> list[VmxGuestResult]:
        return _decode(report, todo[first:last], model, world.register_mask)

    stream = Stream(_rom(), vmx_entry.MAGIC, prologue, _MOST_CASES)
    lost = VmxGuestResult(EntryResult(kind="hang"))
    return stream.run(encoded, decode, lost, model=model, stall=stall, progress=progress)
