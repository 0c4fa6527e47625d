"""The three MSR areas: loaded by VM entry, stored by VM exit, loaded by VM exit.

SDM vol. 3C, "VM Entries", "Loading MSRs" (27.4), and "VM Exits", "Saving MSRs" (28.4) and "Loading MSRs" (28.6).
An area lies in physical memory: entries of 16 bytes with the MSR's index in bits 31:0, zeros in bits 63:32 and the
value in bits 127:64.  They are taken in order; the first that fails ends it, and what the ones before it did stands.
"""

from __future__ import annotations

from typing import Final

import attrs

from popek.architectures.x86.msrs import IA32_TIME_STAMP_COUNTER
from popek.kernel.words import Word

from ...ia32 import msrs
from .model_specific import found, taken
from .state import VmxIa32

ENTRY_BYTES: Final = 16
MOST_ENTRIES: Final = 512
"""So many entries every processor takes: 512 * (IA32_VMX_MISC[27:25] + 1); what comes of more is undefined."""

IA32_FS_BASE, IA32_GS_BASE = 0xC0000100, 0xC0000101
IA32_SMM_MONITOR_CTL, IA32_SMBASE = 0x9B, 0x9E
IA32_BIOS_UPDT_TRIG, IA32_BIOS_SIGN_ID = 0x79, 0x8B
X2APIC: Final = 0x8  # bits 31:8 of the index of an MSR of the x2APIC, whatever the local APIC's mode

NOT_LOADED: Final = (IA32_FS_BASE, IA32_GS_BASE, IA32_SMM_MONITOR_CTL, IA32_BIOS_UPDT_TRIG, IA32_BIOS_SIGN_ID)
"""The segment bases by name, an MSR that only SMM writes, and what updates microcode."""

NOT_STORED: Final = (IA32_SMBASE,)
"""An MSR that only SMM reads."""


@attrs.frozen(eq=False)
class MsrArea:
    """An area: the address and the count of a VMCS.

    Attributes:
        address: physical, 32 bits; aligned to 16 bytes, as VM entry checks.
        count: how many entries, up to `MOST_ENTRIES`.
    """

    address: Word = attrs.field(factory=lambda: Word(32, 0))
    count: int = attrs.field(default=0)

    @count.validator
    def _few_enough(self, attribute: object, count: int) -> None:
        if not 0 <= count <= MOST_ENTRIES:
            raise ValueError(f"an MSR area of {count} entries: expected 0 to {MOST_ENTRIES}")


@attrs.frozen(eq=False)
class MsrAreas:
    """The areas of a VMCS; by default they are empty."""

    entry_load: MsrArea = attrs.field(factory=MsrArea)
    exit_store: MsrArea = attrs.field(factory=MsrArea)
    exit_load: MsrArea = attrs.field(factory=MsrArea)


def load_msrs(cpu: VmxIa32, area: MsrArea) -> int:
    """Load the MSRs of a VM-entry or VM-exit MSR-load area into a working copy, as WRMSR at CPL 0 would.

    Returns:
        The number of the entry that failed, counted from 1; 0 if none did.

    Raises:
        NotModelledError: of an entry it is up to the processor whether it fails.
    """
    for number in range(area.count):
        place = area.address + ENTRY_BYTES * number
        index, reserved, value = _entry(cpu, place)
        if (reserved != 0) | (index[31:8] == X2APIC) | index.isin(NOT_LOADED):
            return number + 1
        if index == IA32_TIME_STAMP_COUNTER:
            cpu.tsc = value
            continue
        old = cpu.msr.load(index)
        if ~taken(cpu, index, value, msrs.exists(index), msrs.accepted(index, value, old)):
            return number + 1
        cpu.msr = cpu.msr.store(index, msrs.kept(index, value, old))
    return 0


def store_msrs(cpu: VmxIa32, area: MsrArea) -> int:
    """Store MSRs into the VM-exit MSR-store area of a working copy's memory, as RDMSR at CPL 0 reads them.

    The time-stamp counter is stored without the TSC offset, for that is non-root operation's.

    Returns:
        The number of the entry that failed, counted from 1; 0 if none did.

    Raises:
        NotModelledError: of an entry it is up to the processor whether it fails.
    """
    for number in range(area.count):
        place = area.address + ENTRY_BYTES * number
        index, reserved, _ = _entry(cpu, place)
        if (reserved != 0) | (index[31:8] == X2APIC) | index.isin(NOT_STORED):
            return number + 1
        if index == IA32_TIME_STAMP_COUNTER:
            value = cpu.tsc
        elif found(cpu, index, msrs.exists(index)):
            value = cpu.msr.load(index)
        else:
            return number + 1
        cpu.memory = cpu.memory.store_little_endian(place + 8, value)
    return 0


def _entry(cpu: VmxIa32, place: Word) -> tuple[Word, Word, Word]:
    """Index, bits 63:32 and value."""
    content = cpu.memory.load_little_endian(place, ENTRY_BYTES)
    return content[31:0], content[63:32], content[127:64]


__all__ = ["ENTRY_BYTES", "MOST_ENTRIES", "MsrArea", "MsrAreas", "load_msrs", "store_msrs"]
