"""Try VM entries on the Bochs emulator: what happens to a VMCS, by a witness that shares no code with us.

`run_cases` takes VMCSs as differences from a baseline that enters, and says for each one how the VM entry
ended. `capabilities`, `cpuid` and `writable_fields` describe the emulated processor in the same words the
model uses. The guest does next to nothing: its only code is CPUID, which leaves it at once in every mode.

Memory as the guest and the cases see it (physical addresses)::

    00020000H  code page, all CPUID
    00021000H  stack, grows down from 00021800H
    00022000H  GDT, 00022800H TSS, 00022C00H LDT
    00023000H  64-bit IDT, 00024000H 32-bit IDT, 0002C000H real-mode vectors
    00025000H  paging: PML4, PDPT, PD; 00028000H PT (64-bit and PAE), 00029000H PAE PDPT, 0002A000H
               32-bit PD, 0002B000H 32-bit PT; they map 00020000H-0002FFFFH onto itself, user and writable
    00030000H  `CONTROL_PAGES`: bitmaps, virtual-APIC page, MSR areas, EPT, ...
    01000000H  16 MiB that hold zeros

All of this is restored before each case. Everything else below 01000000H belongs to the harness. An MSR that
a case loads through its VM-entry MSR-load area is restored if it is IA32_APIC_BASE, IA32_EFER, IA32_PAT,
IA32_S_CET or part of the host-state area; any other one keeps its value for the cases that follow.

Two things a case must not do, because the harness then loses control; such a case is reported as ``hang``:

* set a field of `FIXED_FIELDS` to another value that the processor accepts (an illegal one is welcome). The
  other host-state fields are free: the exit handler trusts none of them;
* let the processor write over the harness at a VM exit (MSR-store area, page-modification log, ... outside
  the memory above), or use a VM-exit MSR area with an entry that cannot be stored or loaded (a VMX abort;
  the baseline's areas hold entries that can, 64 of them and more).

A guest that stays silent for good, as after an entry to the wait-for-SIPI state, is a ``hang`` too. A failed
entry never is one, so a ``hang`` of a case that respects the rules means that the entry succeeded.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import attrs

from popek.emulators.bochs.simulator import BochsError, BochsInterrupted, assemble, run_rom

Mode = Literal["64-bit", "pae", "32-bit", "v8086", "real"]
"""Operating mode of the guest; ``pae`` and ``32-bit`` are protected mode with PAE and with 32-bit paging."""

Kind = Literal[
    "enters", "vmfail-invalid", "vmfail-valid", "entry-failure", "vmwrite-failed", "host-fault", "hang"
]
"""How a case ended; see `EntryResult`."""

DEFAULT_MODEL = "tigerlake"
"""The Bochs model with the largest set of VMX features."""

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

FIXED_FIELDS = frozenset({HOST_CR3, HOST_RIP})
"""Encodings that a case may not set to another *legal* value; see the notes of this module."""


@attrs.frozen
class EntryCase:
    """One VM entry to try.

    `fields` maps VMCS encodings to values that replace those of the baseline of `mode`. `memory` lists
    (physical address, bytes) to write before the entry, inside `ARENA` or `SCRATCH`. `resume` uses VMRESUME
    instead of VMLAUNCH. `launched` says whether the baseline is entered once beforehand, so that the launch
    state is "launched"; by default that is so for `resume` only. `current` = False makes no VMCS the current
    one. `mov_ss` puts blocking by MOV SS around the instruction.
    """

    fields: Mapping[int, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()
    resume: bool = False
    mode: Mode = "64-bit"
    launched: bool | None = None
    current: bool = True
    mov_ss: bool = False


@attrs.frozen
class EntryResult:
    """How a VM entry ended.

    `kind` is one of

    * ``enters``: the guest ran, or an event came first; `exit_reason` and the rest tell why it left;
    * ``vmfail-invalid``: no current VMCS;
    * ``vmfail-valid``: `error` is the VM-instruction error;
    * ``entry-failure``: bit 31 of `exit_reason` is set, `qualification` says more;
    * ``vmwrite-failed``: the processor refused to write field `encoding` (with error `error`), and the VM
      entry was not tried;
    * ``host-fault``: the monitor took exception `error` (a vector) after the exit;
    * ``hang``: no answer; see the notes of this module.

    Fields that do not apply are None. `exit_reason` is the whole 32-bit field. `complaints` is what Bochs
    says about a refusal, if `run_cases` was asked to explain; it stops at the first check that fails.
    """

    kind: Kind
    error: int | None = None
    exit_reason: int | None = None
    qualification: int | None = None
    interruption_info: int | None = None
    interruption_error: int | None = None
    instruction_length: int | None = None
    idt_vectoring_info: int | None = None
    guest_rip: int | None = None
    encoding: int | None = None
    complaints: tuple[str, ...] = ()

    @property
    def basic_reason(self) -> int | None:
        """Bits 15:0 of the exit reason."""
        return None if self.exit_reason is None else self.exit_reason & 0xFFFF


@attrs.frozen
class HostState:
    """Registers of the monitor while it runs; `rip` is its exit handler."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    pat: int
    rip: int


@attrs.frozen
class _Machine:
    msrs: Mapping[int, int]
    cpuid: Mapping[tuple[int, int], tuple[int, int, int, int]]
    host: HostState
    writable: frozenset[int]


# --- what the ROM reads and writes --------------------------------------------------------------------------

_MAGIC = b"PVMX"
_SECTOR = 512
_STREAM_BYTES = 0xC0_0000  # the ROM keeps the stream between 4 and 16 MiB
_CASES_PER_RUN = 4096

_USE_VMRESUME, _LAUNCHED, _NO_CURRENT, _MOV_SS, _MARK = 1, 2, 4, 8, 16
_MARK_LINE = "VMWRITE: not supported field 0x00007ffe"  # what Bochs logs at a mark

_RESULT = struct.Struct("<IBIIIQIIIIQ")
_KINDS: tuple[Kind, ...] = (
    "vmfail-invalid",
    "vmfail-valid",
    "enters",
    "vmwrite-failed",
    "host-fault",
    "hang",  # the ROM calls this "setup failed"; `run_cases` raises before it gets here
)
_SETUP_FAILED = 5


def _rom() -> bytes:
    return assemble(Path(__file__).with_name("entry.asm"))


def _disk(stream: bytes) -> bytes:
    """Put the header of the ROM before a stream of operations."""
    sectors = -(-(len(stream) + 8) // _SECTOR)
    return _MAGIC + struct.pack("<I", sectors) + stream


def _pokes(memory: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("<II", address, len(data)) + data for address, data in memory)


def _fields(fields: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(struct.pack("<IQ", encoding, value) for encoding, value in fields)


_END = b"\0"
_ALIVE = b"."  # reported while the disk is read


def _describe(model: str) -> _Machine:
    # All full-width encodings with an index below 64: width, type, index (bit 0 selects the high half).
    encodings = [
        width << 13 | kind << 10 | index << 1
        for width in range(4)
        for kind in range(4)
        for index in range(64)
    ]
    probe = struct.pack(f"<BI{len(encodings)}I", 2, len(encodings), *encodings)
    report = run_rom(_rom(), _disk(b"\1" + probe + _END), model=model, timeout=60, stall=1)
    msrs: dict[int, int] = {}
    leaves: dict[tuple[int, int], tuple[int, int, int, int]] = {}
    writable: set[int] = set()
    host: HostState | None = None
    report = report.lstrip(_ALIVE)
    at = 0
    while at < len(report):
        mark = report[at : at + 1]
        at += 1
        if mark == b"C":
            index, value = struct.unpack_from("<IQ", report, at)
            msrs[index] = value
            at += 12
        elif mark == b"P":
            leaf, subleaf, eax, ebx, ecx, edx = struct.unpack_from("<6I", report, at)
            leaves[leaf, subleaf] = (eax, ebx, ecx, edx)
            at += 24
        elif mark == b"H":
            host = HostState(*struct.unpack_from("<6Q", report, at))
            at += 48
        elif mark == b"F":
            encoding, ok = struct.unpack_from("<IB", report, at)
            if ok:
                writable.add(encoding)
            at += 5
        elif mark == b"E":
            break
        else:
            raise BochsError(f"the harness reported nonsense at byte {at - 1}")
    if host is None:
        raise BochsError(f"Bochs model {model!r} did not describe itself; does it have VMX?")
    return _Machine(MappingProxyType(msrs), MappingProxyType(leaves), host, frozenset(writable))


@functools.cache
def _machine(model: str) -> _Machine:
    try:
        return _describe(model)
    except BochsInterrupted as error:
        raise BochsError(f"Bochs model {model!r} cannot run the VM-entry harness: {error}") from error


def capabilities(model: str = DEFAULT_MODEL) -> Mapping[int, int]:
    """Return MSR -> value of the VMX capability MSRs that the model has, 480H-493H, and of 1BH and 3AH.

    Raises `BochsError` if the model has no VMX, or if Bochs or nasm is missing.
    """
    return _machine(model).msrs


def cpuid(model: str = DEFAULT_MODEL) -> Mapping[tuple[int, int], tuple[int, int, int, int]]:
    """Return (leaf, subleaf) -> (EAX, EBX, ECX, EDX) as VMX root operation sees it, for the usual leaves."""
    return _machine(model).cpuid


def physical_address_bits(model: str = DEFAULT_MODEL) -> int:
    """Return MAXPHYADDR, in bits."""
    return cpuid(model)[0x8000_0008, 0][0] & 0xFF


def linear_address_bits(model: str = DEFAULT_MODEL) -> int:
    """Return the width of linear addresses, in bits."""
    return cpuid(model)[0x8000_0008, 0][0] >> 8 & 0xFF


def writable_fields(model: str = DEFAULT_MODEL) -> frozenset[int]:
    """Return the encodings (full access) that VMWRITE accepts."""
    return _machine(model).writable


def host_state(model: str = DEFAULT_MODEL) -> HostState:
    """Return the registers of the monitor, as the baseline's host-state area has them."""
    return _machine(model).host


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


def _image(revision: int) -> list[tuple[int, bytes]]:
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


def _controls(msrs: Mapping[int, int], plain: int, wanted: int) -> int:
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
        0x4000: _controls(msrs, 0x481, 1 << 0 | 1 << 3 | 1 << 6),  # interrupts, NMI, preemption timer
        0x4002: _controls(msrs, 0x482, 1 << 7 | 1 << 24),  # HLT, I/O
        0x400C: _controls(msrs, 0x483, 1 << 9 | 0xF << 18),  # 64-bit host; save and load PAT and EFER
        0x4012: _controls(msrs, 0x484, 1 << 14 | 1 << 15 | (1 << 9 if mode == "64-bit" else 0)),
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


# --- running ------------------------------------------------------------------------------------------------


def _check(case: EntryCase) -> None:
    for encoding, value in case.fields.items():
        if not 0 <= encoding < 1 << 32 or not 0 <= value < 1 << 64:
            raise BochsError(f"field {encoding:#x} = {value:#x} does not fit VMWRITE")
    for address, data in case.memory:
        last = address + max(len(data), 1) - 1
        if not any(address in area and last in area for area in (ARENA, SCRATCH)):
            raise BochsError(f"a case may not write memory at {address:#x}: outside ARENA and SCRATCH")


def _encode(index: int, case: EntryCase, baseline_id: int, mark: bool) -> bytes:
    launched = case.resume if case.launched is None else case.launched
    flags = (
        (_USE_VMRESUME if case.resume else 0)
        | (_LAUNCHED if launched else 0)
        | (0 if case.current else _NO_CURRENT)
        | (_MOV_SS if case.mov_ss else 0)
        | (_MARK if mark else 0)
    )
    header = struct.pack("<BIBBII", 5, index, baseline_id, flags, len(case.fields), len(case.memory))
    return header + _fields(case.fields.items()) + _pokes(case.memory)


def _prologue(model: str) -> tuple[bytes, dict[Mode, int]]:
    """Return the operations that come before the cases, and the number of each mode's baseline."""
    revision = capabilities(model)[0x480] & 0x7FFF_FFFF
    image = [(address, data) for address, data in _image(revision) if data]
    stream = struct.pack("<BI", 3, len(image)) + _pokes(image)
    numbers: dict[Mode, int] = {}
    for mode in get_args(Mode):
        if has_mode(model, mode):
            numbers[mode] = len(numbers)
            fields = baseline(model, mode)
            stream += struct.pack("<BBI", 4, numbers[mode], len(fields)) + _fields(fields.items())
    return stream, numbers


def _decode(report: bytes) -> dict[int, EntryResult]:
    """Return the results in a report, by index; a record that is cut off is left out."""
    results: dict[int, EntryResult] = {}
    size = 1 + _RESULT.size
    report = report.lstrip(_ALIVE)
    for at in range(0, len(report) - size + 1, size):
        if report[at : at + 1] != b"R":
            break
        index, kind, error, encoding, reason, qualification, info, code, length, vectoring, rip = (
            _RESULT.unpack_from(report, at + 1)
        )
        name = _KINDS[kind]
        if kind == _SETUP_FAILED:
            raise BochsError(f"the baseline did not enter: error {error}, field {encoding:#x}")
        if name == "enters":
            results[index] = EntryResult(
                kind="entry-failure" if reason >> 31 else "enters",
                exit_reason=reason,
                qualification=qualification,
                interruption_info=info,
                interruption_error=code,
                instruction_length=length,
                idt_vectoring_info=vectoring,
                guest_rip=rip,
            )
        else:
            results[index] = EntryResult(
                kind=name,
                error=None if name == "vmfail-invalid" else error,
                encoding=encoding if name == "vmwrite-failed" else None,
            )
    return results


def _run_chunk(
    prologue: bytes, cases: Sequence[bytes], model: str, stall: float, explain: bool
) -> tuple[dict[int, EntryResult], list[tuple[str, ...]]]:
    """Run cases until the end, or until one hangs; return the results there are, and complaints in order."""
    disk = _disk(prologue + b"".join(cases) + _END)
    log: list[str] = []
    try:
        report = run_rom(
            _rom(),
            disk,
            model=model,
            timeout=60 + len(cases),
            stall=stall,
            complaints=log.append if explain else None,
        )
    except BochsInterrupted as interrupted:
        report = interrupted.partial
    complaints: list[tuple[str, ...]] = []
    for line in log:
        if line == _MARK_LINE:
            complaints.append(())
        elif complaints:
            complaints[-1] += (line,)
    return _decode(report), complaints


def run_cases(
    cases: Iterable[EntryCase],
    *,
    model: str = DEFAULT_MODEL,
    progress: Callable[[int, int], None] | None = None,
    stall: float = 0.3,
    explain: bool = False,
) -> list[EntryResult]:
    """Try each VM entry and return the results in order.

    Each case starts from the same memory and the same monitor, so the order does not matter. `progress` is
    called with the number of cases done and the total, now and then. A case without an answer for `stall`
    seconds of the emulator's processor time, a hundred times what a case needs, is called a ``hang``.
    `explain` fills in `EntryResult.complaints`, at some cost of speed.

    Raises `BochsError` if Bochs or nasm is missing, if the model cannot run a case's mode, if a case does
    not fit the rules of this module, or if the harness itself fails.
    """
    todo = list(cases)
    if not todo:
        return []
    prologue, numbers = _prologue(model)
    encoded: list[bytes] = []
    for index, case in enumerate(todo):
        _check(case)
        if case.mode not in numbers:
            raise BochsError(f"Bochs model {model!r} cannot run a guest in mode {case.mode!r}")
        encoded.append(_encode(index, case, numbers[case.mode], explain))
    results: list[EntryResult] = []
    while len(results) < len(todo):
        first = last = len(results)
        room = _STREAM_BYTES - len(prologue) - _SECTOR
        while last < len(todo) and last - first < _CASES_PER_RUN and len(encoded[last]) <= room:
            room -= len(encoded[last])
            last += 1
        if last == first:
            raise BochsError(f"case {first} is too large for the harness")
        found, complaints = _run_chunk(prologue, encoded[first:last], model, stall, explain)
        done = first
        while done < last and done in found:
            results.append(found[done])
            done += 1
        if done < last:
            results.append(EntryResult(kind="hang"))
        for number, lines in enumerate(complaints):
            results[first + number] = attrs.evolve(results[first + number], complaints=lines)
        if progress is not None:
            progress(len(results), len(todo))
    return results
