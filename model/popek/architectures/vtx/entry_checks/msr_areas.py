"""Loading MSRs from the VM-entry MSR-load area (E.4).

LOAD-06 asks whether WRMSR would fault; it knows the architectural MSRs that hypervisors load, and takes other
MSRs to accept any value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from popek.architectures.vtx.capabilities import ONES64
from popek.architectures.vtx.view import Decision, View, memory_types
from popek.kernel.words import Word

from .registry import Condition, Group, checker, refuses

check = checker(Group("msr-load-area", "VM-entry MSR-load area", refuses(None, 34), stage=3))

LOADS = (Condition("ENTRY_MSR_LOAD_COUNT > 0", lambda v: v.ENTRY_MSR_LOAD_COUNT != 0),)

Entry = tuple[int, int, int]
"""Index, bits 63:32 of the entry, value."""

IA32_EFER: Final = 0xC000_0080
_FS_BASE, _GS_BASE = 0xC000_0100, 0xC000_0101


def _canonical(v: View, value: int) -> bool:
    high = value >> v.cap.linear_shift
    return high == 0 or bool(high == v.cap.linear_ones)


def _high_half_clear(v: View, value: int) -> bool:
    return value >> 32 == 0


# MSR index -> whether WRMSR takes a value.
_WRITABLE: Final[dict[int, Callable[[View, int], bool]]] = {
    0x175: _canonical,  # IA32_SYSENTER_ESP
    0x176: _canonical,  # IA32_SYSENTER_EIP
    0x1D9: lambda v, value: value & v.cap.debugctl_reserved == 0,  # IA32_DEBUGCTL
    0x1DD: _canonical,  # MSR_LER_FROM_LIP
    0x1DE: _canonical,  # MSR_LER_TO_LIP
    0x277: lambda v, value: bool(memory_types(value)),  # IA32_PAT
    0x38F: lambda v, value: value == 0 or value & v.cap.perf_global_ctrl_reserved == 0,
    0x6A2: lambda v, value: value & 0x3C0 == 0 and value & 0xC00 != 0xC00 and _canonical(v, value),  # S_CET
    0x6A4: lambda v, value: value & 3 == 0 and _canonical(v, value),  # IA32_PL0_SSP
    0x6A8: _canonical,  # IA32_INTERRUPT_SSP_TABLE_ADDR
    IA32_EFER: lambda v, value: value & v.cap.efer_reserved & ~(1 << 10) == 0,
    0xC000_0082: _canonical,  # IA32_LSTAR
    0xC000_0083: _canonical,  # IA32_CSTAR
    0xC000_0084: _high_half_clear,  # IA32_FMASK
    0xC000_0102: _canonical,  # IA32_KERNEL_GS_BASE
    0xC000_0103: _high_half_clear,  # IA32_TSC_AUX
}


def entry(v: View, number: int) -> Entry:
    """An entry of the VM-entry MSR-load area, counted from 0."""
    address = v.ENTRY_MSR_LOAD_ADDR + 16 * number & ONES64
    return v.read(address, 4), v.read(address + 4, 4), v.read(address + 8, 8)


def first_bad(v: View, legal: Callable[[View, Entry], Decision]) -> int:
    """The number, counted from 1, of the first entry that is not legal; 0 if there is none."""
    count = v.ENTRY_MSR_LOAD_COUNT
    if isinstance(count, Word):
        count = int(count)
    for number in range(count):
        if not legal(v, entry(v, number)):
            return number + 1
    return 0


def _check(check_id: str, legal: Callable[[View, Entry], Decision], message: str) -> None:
    check(
        check_id,
        LOADS,
        lambda v: first_bad(v, legal) == 0,
        message + " (in the {ENTRY_MSR_LOAD_COUNT} entries at {ENTRY_MSR_LOAD_ADDR})",
        first_bad=lambda v: first_bad(v, legal),
    )


def _wrmsr(v: View, item: Entry) -> bool:
    index, _, value = item
    if index >> 8 == 8:
        return bool(v.x2apic)  # the x2APIC MSRs exist in x2APIC mode only
    rule = _WRITABLE.get(index)
    return rule is None or rule(v, value)


_check(
    "LOAD-01",
    lambda v, item: item[0] not in (_FS_BASE, _GS_BASE),
    "IA32_FS_BASE and IA32_GS_BASE cannot be loaded by the MSR-load area",
)
_check(
    "LOAD-02",
    lambda v, item: item[0] >> 8 != 8 or not v.x2apic,
    "an x2APIC MSR cannot be loaded by the MSR-load area in x2APIC mode",
)
_check(
    "LOAD-03",
    lambda v, item: item[0] not in (0x9B, 0x9E) or v.launch.in_smm,
    "IA32_SMM_MONITOR_CTL and IA32_SMBASE are for SMM only",
)
_check("LOAD-04", lambda v, item: item[1] == 0, "bits 63:32 of each MSR-load entry must be 0")
_check("LOAD-05", lambda v, item: item[0] not in (0x79, 0x8B), "microcode-update MSRs cannot be loaded")
_check("LOAD-06", _wrmsr, "WRMSR would not accept the value of an MSR-load entry")
_check(
    "LOAD-07",
    lambda v, item: (
        item[0] != IA32_EFER or v.GUEST_CR0 & 1 << 31 == 0 or (item[2] >> 8 ^ v.ENTRY_CONTROLS >> 9) & 1 == 0
    ),
    "IA32_EFER.LME cannot change while the guest has paging on",
)
