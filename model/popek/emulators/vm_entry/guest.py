"""The guest of the VM-entry harness: its memory, and the VMCS that enters; see `popek.emulators.vm_entry.harness`."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import attrs

from popek.emulators.bochs.simulator import BochsError

from .processor import DEFAULT_MODEL, HostState, capabilities, host_state, writable_fields

Mode = Literal["64-bit", "pae", "32-bit", "v8086", "real"]
"""Operating mode of the guest; ``pae`` and ``32-bit`` are protected mode with PAE and with 32-bit paging."""

ARENA = range(0x20000, 0x40000)
"""Physical memory that holds the guest and the control structures; the same before each case."""

SCRATCH = range(0x100_0000, 0x200_0000)
"""Physical memory that holds zeros before each case and belongs to nobody."""

CURRENT_VMCS = 0x111000
"""Physical address of the VMCS that the cases use."""

SPARE_VMCS = 0x30000
"""Physical address of a page with a VMCS revision identifier, fit for a VMCS link pointer."""

CODE_PAGE = 0x20000
"""Physical, guest-physical and linear address of the guest's code."""

STACK_TOP = 0x21800
"""Address of the guest's stack pointer, physical, guest-physical and linear."""


@attrs.frozen
class ControlPages:
    """Physical addresses of what VM-execution controls refer to; all empty but EPT and MSR areas."""

    spare_vmcs: int = SPARE_VMCS
    io_bitmap_a: int = 0x31000
    io_bitmap_b: int = 0x32000
    msr_bitmap: int = 0x33000
    virtual_apic: int = 0x34000
    apic_access: int = 0x35000
    msr_areas: int = 0x36000  # entry load; exit store at +400H, exit load at +800H; 64 entries or more
    page_modification_log: int = 0x37000
    posted_interrupts: int = 0x38000
    vmread_bitmap: int = 0x39000
    vmwrite_bitmap: int = 0x3A000
    ve_information: int = 0x3B000
    ept_root: int = 0x3C000  # and the three pages behind it; maps the code, stack and table pages
    eptp_list: int = 0x31000  # shared: EPTP switching is never used


CONTROL_PAGES = ControlPages()
"""Where the baseline's address fields point."""

HOST_CR3 = 0x6C02
HOST_RIP = 0x6C16

# --- the guest's memory -------------------------------------------------------------------------------------

_PAGES = range(0x20, 0x30)  # page numbers that the guest sees
_USER_WRITABLE = 7  # present, writable, user
_EPT_RWX_WB = 0x37  # read, write, execute, write-back
_GDT, _TSS32, _TSS64, _LDT = 0x22000, 0x22800, 0x22A00, 0x22C00
_IDT64, _IDT32, _IVT = 0x23000, 0x24000, 0x2C000
_PML4, _PDPT, _PD, _PT = 0x25000, 0x26000, 0x27000, 0x28000
_PAE_PDPT, _PD32, _PT32 = 0x29000, 0x2A000, 0x2B000
_SYSENTER_CS = 0x174  # an MSR that takes any value and means nothing to the harness
_CODE32, _DATA, _CODE64, _TR, _LDTR = 0x08, 0x10, 0x18, 0x20, 0x30

GUEST_CR3: Mapping[Mode, int] = MappingProxyType(
    {"64-bit": _PML4, "pae": _PAE_PDPT, "32-bit": _PD32, "v8086": _PD32, "real": 0}
)
"""Physical address of the guest's page tables in each mode."""


def _segment_descriptor(base: int, limit: int, rights: int) -> bytes:
    """Return the 8 bytes of a descriptor; `rights` as in a VMCS, `limit` in bytes or pages as G says."""
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | rights << 8 | (limit >> 16 & 0xF) << 16 | base >> 24 << 24
    return struct.pack("<II", low, high)


def guest_image() -> list[tuple[int, bytes]]:
    """Return what the guest sees of the arena before each case, as (address, bytes); the rest is zero."""
    gate32 = struct.pack("<HHHH", CODE_PAGE & 0xFFFF, _CODE32, 0xEE00, CODE_PAGE >> 16)
    gate64 = struct.pack("<HHHHQ", CODE_PAGE & 0xFFFF, _CODE64, 0xEE00, CODE_PAGE >> 16, 0)
    gdt = (
        bytes(8)
        + _segment_descriptor(0, 0xFFFFF, 0xC09B)
        + _segment_descriptor(0, 0xFFFFF, 0xC093)
        + _segment_descriptor(0, 0xFFFFF, 0xA09B)
        + _segment_descriptor(_TSS32, 0x67, 0x8B)
        + bytes(8)
        + _segment_descriptor(_LDT, 0xFF, 0x82)
        + bytes(8)
    )
    pt = b"".join(struct.pack("<Q", page << 12 | _USER_WRITABLE) for page in _PAGES)
    pt32 = b"".join(struct.pack("<I", page << 12 | _USER_WRITABLE) for page in _PAGES)
    return [
        (CODE_PAGE, b"\x0f\xa2" * 2048),  # CPUID
        (_GDT, gdt),
        (_TSS32 + 4, struct.pack("<II", STACK_TOP, _DATA)),  # ESP0, SS0
        (_TSS32 + 0x66, b"\x68\x00"),  # no I/O bitmap
        (_TSS64 + 4, struct.pack("<Q", STACK_TOP)),  # RSP0
        (_TSS64 + 0x66, b"\x68\x00"),
        (_IDT64, gate64 * 256),
        (_IDT32, gate32 * 256),
        (_IVT, struct.pack("<HH", 0, CODE_PAGE >> 4) * 256),
        (_PML4, struct.pack("<Q", _PDPT | _USER_WRITABLE)),
        (_PDPT, struct.pack("<Q", _PD | _USER_WRITABLE)),
        (_PD, struct.pack("<Q", _PT | _USER_WRITABLE)),
        (_PT + 8 * _PAGES.start, pt),
        (_PAE_PDPT, struct.pack("<Q", _PD | 1)),
        (_PD32, struct.pack("<I", _PT32 | _USER_WRITABLE)),
        (_PT32 + 4 * _PAGES.start, pt32),
    ]


def image(revision: int) -> list[tuple[int, bytes]]:
    """Return what the arena holds before each case, as (address, bytes); the rest is zero."""
    ept_pt = b"".join(struct.pack("<Q", page << 12 | _EPT_RWX_WB) for page in _PAGES)
    ept = CONTROL_PAGES.ept_root
    return [
        *guest_image(),
        # MSR areas must not be empty: an entry that cannot be stored or loaded at a VM exit is fatal.
        (CONTROL_PAGES.msr_areas, struct.pack("<IIQ", _SYSENTER_CS, 0, 0) * 256),
        (SPARE_VMCS, struct.pack("<I", revision)),
        (ept, struct.pack("<Q", ept + 0x1000 | 7)),
        (ept + 0x1000, struct.pack("<Q", ept + 0x2000 | 7)),
        (ept + 0x2000, struct.pack("<Q", ept + 0x3000 | 7)),
        (ept + 0x3000 + 8 * _PAGES.start, ept_pt),
    ]


# --- the baseline -------------------------------------------------------------------------------------------


def allowed_controls(msrs: Mapping[int, int], plain: int, wanted: int) -> int:
    """Return a control field: its default1 class, and those of the `wanted` bits that the processor has."""
    true_index = {0x481: 0x48D, 0x482: 0x48E, 0x483: 0x48F, 0x484: 0x490}[plain]
    best = true_index if msrs[0x480] >> 55 & 1 else plain
    return (msrs[plain] & 0xFFFF_FFFF | wanted) & msrs[best] >> 32


def segments(mode: Mode) -> dict[int, int]:
    """Return selector, base, limit and access rights of the guest's segment registers and tables by encoding."""
    fields: dict[int, int] = {}
    in_real_style = mode in ("v8086", "real")
    # The encodings of ES, CS, SS, DS, FS, GS, LDTR and TR follow each other in steps of 2.
    for number in range(6):
        is_code = number == 1
        selector = _DATA
        base, limit, rights = 0, 0xFFFF_FFFF, 0xC093
        if in_real_style:
            selector, base, limit = CODE_PAGE >> 4, CODE_PAGE, 0xFFFF
            rights = 0xF3 if mode == "v8086" else 0x9B if is_code else 0x93
        elif is_code:
            selector = _CODE64 if mode == "64-bit" else _CODE32
            rights = 0xA09B if mode == "64-bit" else 0xC09B
        fields |= {
            0x0800 + 2 * number: selector,
            0x4800 + 2 * number: limit,
            0x4814 + 2 * number: rights,
            0x6806 + 2 * number: base,
        }
    idt, idt_limit = (
        (_IDT64, 0xFFF) if mode == "64-bit" else (_IVT, 0x3FF) if mode == "real" else (_IDT32, 0x7FF)
    )
    return fields | {
        0x080C: _LDTR,
        0x080E: _TR,
        0x480C: 0xFF,  # LDTR limit
        0x480E: 0x67,  # TR limit
        0x4810: 0x3F,  # GDTR limit
        0x4812: idt_limit,
        0x4820: 0x82,  # LDTR access rights: LDT, present
        0x4822: 0x8B,  # TR access rights: busy 32-bit or 64-bit TSS, present
        0x6812: _LDT,
        0x6814: _TSS64 if mode == "64-bit" else _TSS32,
        0x6816: _GDT,
        0x6818: idt,
    }


def _guest_state(mode: Mode, msrs: Mapping[int, int]) -> dict[int, int]:
    """Return the guest-state area but for the segments."""
    long_mode = mode == "64-bit"
    cr0 = (msrs[0x486] | 0x8001_0031) & msrs[0x487]  # PG, WP, NE, ET, PE
    if mode == "real":
        cr0 &= ~0x8000_0001
    cr4 = msrs[0x488] | (0x20 if mode in ("64-bit", "pae") else 0)  # PAE
    low = mode in ("v8086", "real")
    return {
        0x2800: 0xFFFF_FFFF_FFFF_FFFF,  # VMCS link pointer: none
        0x2802: 0,  # IA32_DEBUGCTL
        0x2804: 0x0007_0406_0007_0406,  # IA32_PAT, as after reset
        0x2806: 0x500 if long_mode else 0,  # IA32_EFER: LMA, LME
        0x280A: _PD | 1,  # PDPTE0; the other three are not present
        0x482E: 0x1000,  # VMX-preemption timer: ends a guest that does not end itself
        0x6800: cr0,
        0x6802: GUEST_CR3[mode],
        0x6804: cr4,
        0x681A: 0x400,  # DR7
        0x681C: STACK_TOP - CODE_PAGE if low else STACK_TOP,
        0x681E: 0 if low else CODE_PAGE,
        0x6820: 0x2_0002 if mode == "v8086" else 2,
    }


def _host_area(host: HostState) -> dict[int, int]:
    """Return the host-state area: the registers of the monitor as they are."""
    return {
        0x0C00: _DATA,
        0x0C02: _CODE64,
        0x0C04: _DATA,
        0x0C06: _DATA,
        0x0C08: _DATA,
        0x0C0A: _DATA,
        0x0C0C: _TR,  # names no descriptor: the monitor does without a TSS
        0x2C00: host.pat,
        0x2C02: host.efer,
        0x6C00: host.cr0,
        HOST_CR3: host.cr3,
        0x6C04: host.cr4,
        HOST_RIP: host.rip,
    }


def _control_area(mode: Mode, msrs: Mapping[int, int]) -> dict[int, int]:
    """Return the control fields: as few features as can be, and every way out of the guest."""
    pages = CONTROL_PAGES
    fields = {
        0x0000: 1,  # VPID
        0x0002: 0xF2,  # posted-interrupt notification vector
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
        0x201A: pages.ept_root | 3 << 3 | 6,  # four levels, write-back
        0x2024: pages.eptp_list,
        0x2026: pages.vmread_bitmap,
        0x2028: pages.vmwrite_bitmap,
        0x202A: pages.ve_information,
        0x2032: 1 << 48,  # TSC multiplier: one
        0x0812: 511,  # PML index: the log is empty
        0x4004: 0xFFFF_FFFF,  # every exception leaves the guest
        0x4000: allowed_controls(msrs, 0x481, 1 << 0 | 1 << 3 | 1 << 6),  # interrupts, NMI, preemption timer
        0x4002: allowed_controls(msrs, 0x482, 1 << 7 | 1 << 24),  # HLT, I/O
        0x400C: allowed_controls(msrs, 0x483, 1 << 9 | 0xF << 18),  # 64-bit host; save and load PAT and EFER
        0x4012: allowed_controls(msrs, 0x484, 1 << 14 | 1 << 15 | (1 << 9 if mode == "64-bit" else 0)),
    }
    if mode == "real":
        fields[0x4002] |= 1 << 31
        fields[0x401E] = 1 << 1 | 1 << 7  # EPT, unrestricted guest
    return fields


def has_mode(model: str, mode: Mode) -> bool:
    """Tell whether the model can run a guest in this mode; only ``real`` needs more than VMX itself."""
    msrs = capabilities(model)
    needed = 1 << 1 | 1 << 7  # EPT, unrestricted guest
    return mode != "real" or msrs.get(0x48B, 0) >> 32 & needed == needed


def baseline(model: str = DEFAULT_MODEL, mode: Mode = "64-bit") -> dict[int, int]:
    """Return a VMCS that enters: encoding -> value of every field that the harness writes.

    These are all fields the model has, but for the exit information. EPT and unrestricted guest are on in
    the ``real`` baseline only; EPT can be switched on in the others by its control alone. Raises
    `BochsError` if the model cannot run a guest in that mode.
    """
    if mode not in get_args(Mode):
        raise BochsError(f"unknown mode {mode!r}; known are {', '.join(get_args(Mode))}")
    if not has_mode(model, mode):
        raise BochsError(f"Bochs model {model!r} has no unrestricted guest, which mode 'real' needs")
    msrs, writable = capabilities(model), writable_fields(model)
    fields = {encoding: 0 for encoding in sorted(writable) if encoding >> 10 & 3 != 1}
    known = (
        _control_area(mode, msrs) | segments(mode) | _guest_state(mode, msrs) | _host_area(host_state(model))
    )
    fields.update((encoding, value) for encoding, value in known.items() if encoding in writable)
    return fields
