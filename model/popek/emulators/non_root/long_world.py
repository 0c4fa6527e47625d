"""What a 64-bit guest finds on the harness: the arena of the x86-64 step harness, page tables, gates that lead out.

Physical memory beside that of `popek.emulators.guests.long_memory`::

    00047000H  EPT: the first 2 MiB map onto themselves, by entries at 00055000H
    0004A000H  `GUEST_PAGES`: I/O bitmaps, MSR bitmap, virtual-APIC page, ...
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Final

from popek.emulators.guests import long_memory
from popek.emulators.guests.long_memory import PML4
from popek.emulators.vm_entry import harness as vmx_entry
from popek.emulators.vm_entry.harness import DEFAULT_MODEL

from .harness import GUEST_PAGES, MARKER, GuestWorld
from .harness import baseline as protected_baseline

MSRS: Final[Mapping[str, int]] = {
    "msr.tsc_aux": 0xC0000103,
    "msr.star": 0xC0000081,
    "msr.lstar": 0xC0000082,
    "msr.cstar": 0xC0000083,
    "msr.fmask": 0xC0000084,
    "msr.kernel_gs_base": 0xC0000102,
    "xss": 0xDA0,
}
"""MSRs without a VMCS field: the VM-entry MSR-load and the VM-exit MSR-store area, in this order."""

EPT_TABLE: Final = GUEST_PAGES.ve_information
"""No guest here has #VE."""

LOADED_AT, STORED_AT = GUEST_PAGES.msr_areas, GUEST_PAGES.msr_areas + 0x400
_EPT = 0x47000


def ept_entry(page: int, rights: int = 7) -> int:
    """The entry that maps a page onto itself, write-back, with rights to read (1), write (2) and execute (4)."""
    return page << 12 | 0x30 | rights if rights else 0


def _image(revision: int) -> list[tuple[int, bytes]]:
    areas = b"".join(struct.pack("<IIQ", number, 0, 0) for number in MSRS.values())
    return [
        *long_memory.image(MARKER),
        (_EPT, struct.pack("<Q", _EPT + 0x1000 | 7)),
        (_EPT + 0x1000, struct.pack("<Q", _EPT + 0x2000 | 7)),
        (_EPT + 0x2000, struct.pack("<Q", EPT_TABLE | 7)),
        (EPT_TABLE, b"".join(struct.pack("<Q", ept_entry(page)) for page in range(512))),
        (LOADED_AT, areas),
        (STORED_AT, areas),
        (GUEST_PAGES.spare_vmcs, struct.pack("<I", revision)),
    ]


@functools.cache
def baseline(model: str = DEFAULT_MODEL) -> Mapping[int, int]:
    """A VMCS that enters a guest in 64-bit mode without EPT: encoding -> value."""
    msrs = vmx_entry.capabilities(model)
    plain = protected_baseline(model)
    fields = vmx_entry.baseline(model, "64-bit")
    fields.update((encoding, value) for encoding, value in plain.items() if encoding >> 10 & 3 == 0)
    known = {
        0x201A: _EPT | 3 << 3 | 6,
        0x400E: len(MSRS),
        0x4014: len(MSRS),
        0x4012: vmx_entry.allowed_controls(msrs, 0x484, 1 << 2 | 1 << 9 | 1 << 14 | 1 << 15),
        0x482E: plain[0x482E],
        0x6802: PML4,
    }
    fields.update((encoding, value) for encoding, value in known.items() if encoding in fields)
    return fields


LONG: Final = GuestWorld(_image, baseline)
"""A guest in IA-32e mode."""
