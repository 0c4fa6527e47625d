"""A hypervisor inside a hypervisor: the controls under which a guest's guest runs, made from two VMMs' controls.

L0 is the VMM on the hardware, L1 the one that is its guest, L2 the guest of L1.  L1 believes in a VMCS of its own;
L2 runs on the hardware with what L0 makes of it and of its own wishes: `merged`.  What L1 is offered is what the model
of it here assumes: no VMCS shadowing, VM functions, virtual-interrupt delivery, virtual x2APIC or TSC scaling.

`MISTAKES` are ways to make it wrongly, several of which were made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.kernel.memory import Memory
from popek.kernel.words import TRUE, Word, all_of, ite

from .arrangement import exists_in_cr0
from .state import VmxX64

EITHER: Final = (
    *("pin.external_interrupt_exiting", "pin.nmi_exiting", "primary.interrupt_window_exiting"),
    *("primary.hlt_exiting", "primary.invlpg_exiting", "primary.mwait_exiting", "primary.rdpmc_exiting"),
    *("primary.rdtsc_exiting", "primary.cr3_load_exiting", "primary.cr3_store_exiting"),
    *(
        "primary.nmi_window_exiting",
        "primary.mov_dr_exiting",
        "primary.monitor_exiting",
        "primary.pause_exiting",
    ),
    *("secondary.descriptor_table_exiting", "secondary.wbinvd_exiting", "secondary.rdrand_exiting"),
    *("secondary.rdseed_exiting", "secondary.pause_loop_exiting"),
)
"""Controls that make something exit: it exits if either VMM wants it."""

OFFERED: Final = (
    *("secondary.enable_rdtscp", "secondary.enable_invpcid", "secondary.enable_xsaves_xrstors"),
    *("secondary.enable_user_wait_pause", "secondary.unrestricted_guest"),
)
"""Controls that give the guest something, which L1 can give only if L0 has offered it."""

_ABSENT = (
    *("secondary.vmcs_shadowing", "secondary.enable_vm_functions", "secondary.virtual_interrupt_delivery"),
    *("secondary.virtualize_x2apic_mode", "secondary.use_tsc_scaling"),
)
TSC: Final = 0x10
OWNED: Final = ("cr8",)
"""Leaves that are L0's while L2 runs: the hardware's task priority."""


def offered(inner: VmxX64, outer: VmxX64) -> Word:
    """What is assumed of L2 under L1's controls and of L0's (width 1)."""
    conditions = [
        inner.primary.activate_secondary_controls == 1,
        outer.primary.activate_secondary_controls == 1,
    ]
    conditions += [cpu[name] == 0 for cpu in (inner, outer) for name in _ABSENT]
    conditions += [~inner[name] | outer[name] for name in OFFERED]
    conditions += [cpu.tpr_threshold == 0 for cpu in (inner, outer)]
    conditions += [outer.primary.use_tpr_shadow == 1, outer.primary.use_tsc_offsetting == 1]
    # L0 keeps the clock: L2's writes to it exit.
    conditions += [~outer.primary.use_msr_bitmaps | outer.msr_bitmap.load(Word(15, 1 << 14 | TSC))]
    conditions += [(outer.primary.cr8_load_exiting | outer.primary.cr8_store_exiting) == 0]
    conditions += [exists_in_cr0(inner.cr0.value), inner.exception_bitmap == 0]
    return all_of(conditions)


def alone(inner: VmxX64, outer: VmxX64) -> VmxX64:
    """L2's state under L0's controls alone: what L0 would have of it if it were L1."""
    hardware = outer.copy()
    for slot in VmxX64.processor.layout:
        if slot.address:
            hardware._memories[slot.name] = inner.memories()[slot.name]
        else:
            hardware[slot.name] = inner[slot.name]
    hardware.non_root, hardware.xss = Word(1, 1), inner.xss
    for name in OFFERED:
        hardware[name] = inner[name]
    for name in ("cr0", "cr4"):
        hardware[f"{name}_shadow"] = seen(inner, name)
    return hardware


def seen(inner: VmxX64, name: str) -> Word:
    """What L2 sees of CR0 or CR4 (64 bits)."""
    mask = inner[f"{name}_mask"]
    return (inner[f"{name}_shadow"] & mask) | (inner[name].zero_extend(64) & ~mask)


def merged(inner: VmxX64, outer: VmxX64) -> VmxX64:
    """The hardware's state in which L2 runs; `inner` is what L1 believes of it, with L1's controls."""
    hardware = inner.copy()
    for name in EITHER:
        hardware[name] = inner[name] | outer[name]
    for name in ("cr0", "cr4"):
        mask = inner[f"{name}_mask"] | outer[f"{name}_mask"]
        hardware[f"{name}_mask"], hardware[f"{name}_shadow"] = mask, seen(inner, name) & mask
    # L0 loads CR3 itself where it wants to know; else L1's targets hold.
    hardware.cr3_target_count = ite(outer.primary.cr3_load_exiting, Word(32, 0), inner.cr3_target_count)
    hardware.primary.use_io_bitmaps = 1
    hardware.io_bitmap = Memory(16, 1, lambda port: port_exits(inner, port) | port_exits(outer, port))
    hardware.primary.use_msr_bitmaps = inner.primary.use_msr_bitmaps & outer.primary.use_msr_bitmaps
    hardware.msr_bitmap = _union(inner.msr_bitmap, outer.msr_bitmap)
    hardware.xss_exiting_bitmap = inner.xss_exiting_bitmap | outer.xss_exiting_bitmap
    # Without a TPR shadow of L1's, CR8 is L1's, and L0 has it.
    hardware.primary.cr8_load_exiting = inner.primary.cr8_load_exiting | ~inner.primary.use_tpr_shadow
    hardware.primary.cr8_store_exiting = inner.primary.cr8_store_exiting | ~inner.primary.use_tpr_shadow
    hardware.cr8 = outer.cr8
    hardware.tsc = inner.tsc - outer.tsc_offset
    hardware.primary.use_tsc_offsetting = 1
    own = ite(inner.primary.use_tsc_offsetting, inner.tsc_offset, Word(64, 0))
    hardware.tsc_offset = outer.tsc_offset + own
    return hardware


def port_exits(cpu: VmxX64, port: Word) -> Word:
    """Whether one VMM wants to know of a port (width 1)."""
    return ite(cpu.primary.use_io_bitmaps, cpu.io_bitmap.load(port), cpu.primary.unconditional_io_exiting)


def _union(first: Memory, second: Memory) -> Memory:
    return Memory(first.address_width, 1, lambda place: first.load(place) | second.load(place))


# -- ways to make it wrongly ------------------------------------------------------------------------------

Change = Callable[[VmxX64, VmxX64, VmxX64], None]
"""What a mistake makes of the hardware's state, given L1's and L0's."""


@attrs.frozen(eq=False)
class Mistake:
    """A wrong way to merge.

    Attributes:
        summary: one line.
        breaks: the promise that it breaks: `outer`, `inner`, `result` or `owned`.
        example: a form that shows it.
        change: what it does.
        known: where it was made, in public.
    """

    summary: str
    breaks: str
    example: str
    change: Change
    known: str = ""


def _copy(*names: str) -> Change:
    """L1's own, as they are."""

    def change(hardware: VmxX64, inner: VmxX64, outer: VmxX64) -> None:
        for name in names:
            if name in inner.memories():
                hardware._memories[name] = inner.memories()[name]
            else:
                hardware[name] = inner[name]

    return change


def _both(hardware: VmxX64, inner: VmxX64, outer: VmxX64) -> None:
    for name in EITHER:
        hardware[name] = inner[name] & outer[name]


def _reads_of_the_x2apic(hardware: VmxX64, inner: VmxX64, outer: VmxX64) -> None:
    every = hardware.msr_bitmap

    def cell(place: Word) -> Word:
        reads = place[14:8] == 8  # reads of MSRs 800H to 8FFH
        return ite(reads, inner.msr_bitmap.load(place), every.load(place))

    hardware.msr_bitmap = Memory(15, 1, cell)


def _outer_shadow(hardware: VmxX64, inner: VmxX64, outer: VmxX64) -> None:
    hardware.cr4_shadow = inner.cr4_shadow


def _always_bitmaps(hardware: VmxX64, inner: VmxX64, outer: VmxX64) -> None:
    hardware.primary.use_msr_bitmaps = TRUE


MISTAKES: Final[Mapping[str, Mistake]] = {
    "io-bitmaps-of-l1": Mistake(
        "the I/O bitmaps are L1's alone: a port that L1 passes through reaches the hardware",
        "outer", "OUT DX, AL", _copy("primary.use_io_bitmaps", "primary.unconditional_io_exiting", "io_bitmap"),
    ),
    "msr-bitmaps-of-l1": Mistake(
        "the MSR bitmaps are L1's alone", "outer", "WRMSR", _copy("primary.use_msr_bitmaps", "msr_bitmap"),
    ),
    "x2apic-msrs-of-l1": Mistake(
        "for reads of the x2APIC's MSRs the bitmap is L1's alone: L2 reads the hardware's local APIC",
        "outer", "RDMSR", _reads_of_the_x2apic, "CVE-2019-3887",
    ),
    "msr-bitmaps-always-used": Mistake(
        "MSR bitmaps are used although L1 uses none, and so every MSR exits to it",
        "inner", "RDMSR", _always_bitmaps,
    ),
    "cr8-without-shadow": Mistake(
        "where L1 uses no TPR shadow MOV CR8 is left alone: L2 has the hardware's CR8",
        "owned", "MOV CR8, r64", _copy("primary.cr8_load_exiting", "primary.cr8_store_exiting"), "CVE-2017-12154",
    ),
    "cr8-is-shown": Mistake(
        "the same of reads", "result", "MOV r64, CR8",
        _copy("primary.cr8_load_exiting", "primary.cr8_store_exiting"), "CVE-2017-12154",
    ),
    "exits-that-both-want": Mistake("an exit needs both VMMs", "outer", "HLT", _both),
    "exits-that-both-want-of-l1": Mistake("the same, seen from L1", "inner", "MOV r64, DR0", _both),
    "cr0-mask-of-l1": Mistake("the guest/host mask of CR0 is L1's alone", "outer", "MOV CR0, r64", _copy("cr0_mask")),
    "cr4-shadow-of-l1": Mistake(
        "the read shadow of CR4 is L1's as it is: bits that L0 alone masks show what L1 wrote for itself",
        "result", "MOV r64, CR4", _outer_shadow,
    ),
    "tsc-offset-of-l1": Mistake("the TSC offset is L1's alone", "result", "RDTSC", _copy("tsc_offset")),
}  # fmt: skip
