"""The words of the `dump_vmcs` family of dumps (Linux KVM and Xen) and the fields they stand for.

Sources: the printing routines of Linux 4.4 to 6.18 (arch/x86/kvm/vmx/vmx.c) and Xen 4.7 to 4.20
(xen/arch/x86/hvm/vmx/vmcs.c). `digits` is the width the routine pads to: fewer digits mean a cut line.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs


@attrs.frozen
class LayoutWord:
    """A printed value: the field it is, and the number of hexadecimal digits it is padded to."""

    field: str
    digits: int


_BOTH = {
    "CR3": "CR3",
    "RSP": "RSP",
    "RIP": "RIP",
    "EFER": "IA32_EFER",
    "PAT": "IA32_PAT",
    "PerfGlobCtl": "IA32_PERF_GLOBAL_CTRL",
    "S_CET": "IA32_S_CET",
    "SSP": "SSP",
    "SSP TABLE": "IA32_INTERRUPT_SSP_TABLE_ADDR",
}
"""Words that the guest part and the host part share; the section decides."""

GUEST: Mapping[str, LayoutWord] = MappingProxyType(
    {key: LayoutWord(f"GUEST_{name}", 16) for key, name in _BOTH.items()}
    | {f"{word}{n}": LayoutWord(f"GUEST_PDPTE{n}", 16) for word in ("PDPTR", "PDPTE") for n in range(4)}
    | {
        "RFLAGS": LayoutWord("GUEST_RFLAGS", 8),
        "DR7": LayoutWord("GUEST_DR7", 16),
        "EFER(VMCS)": LayoutWord("GUEST_IA32_EFER", 16),
        "DebugCtl": LayoutWord("GUEST_IA32_DEBUGCTL", 16),
        "DebugExceptions": LayoutWord("GUEST_PENDING_DEBUG_EXCEPTIONS", 16),
        "BndCfgS": LayoutWord("GUEST_IA32_BNDCFGS", 16),
        "Interruptibility": LayoutWord("GUEST_INTERRUPTIBILITY", 8),
        "ActivityState": LayoutWord("GUEST_ACTIVITY_STATE", 8),
        "InterruptStatus": LayoutWord("GUEST_INTERRUPT_STATUS", 4),
        "PreemptionTimer": LayoutWord("PREEMPTION_TIMER_VALUE", 8),
        "SM Base": LayoutWord("GUEST_SMBASE", 8),
    }
)

HOST: Mapping[str, LayoutWord] = MappingProxyType(
    {key: LayoutWord(f"HOST_{name}", 16) for key, name in _BOTH.items()}
    | {
        register: LayoutWord(f"HOST_{register}_SELECTOR", 4)
        for register in ("CS", "SS", "DS", "ES", "FS", "GS", "TR")
    }
    | {f"{table}Base": LayoutWord(f"HOST_{table}_BASE", 16) for table in ("FS", "GS", "TR")}
    | {f"{table}Base": LayoutWord(f"HOST_{table}R_BASE", 16) for table in ("GDT", "IDT")}
    | {register: LayoutWord(f"HOST_{register}", 16) for register in ("CR0", "CR4")}
)

CONTROL: Mapping[str, LayoutWord] = MappingProxyType(
    {
        "PinBased": LayoutWord("PIN_CONTROLS", 8),
        "CPUBased": LayoutWord("PRIMARY_PROC_CONTROLS", 8),
        "SecondaryExec": LayoutWord("SECONDARY_PROC_CONTROLS", 8),
        "TertiaryExec": LayoutWord("TERTIARY_PROC_CONTROLS", 16),
        "EntryControls": LayoutWord("ENTRY_CONTROLS", 8),
        "ExitControls": LayoutWord("EXIT_CONTROLS", 8),
        "ExceptionBitmap": LayoutWord("EXCEPTION_BITMAP", 8),
        "PFECmask": LayoutWord("PF_ERROR_CODE_MASK", 8),
        "PFECmatch": LayoutWord("PF_ERROR_CODE_MATCH", 8),
        "TSC Offset": LayoutWord("TSC_OFFSET", 16),
        "TSC Multiplier": LayoutWord("TSC_MULTIPLIER", 16),
        "TPR Threshold": LayoutWord("TPR_THRESHOLD", 2),
        "APIC-access addr": LayoutWord("APIC_ACCESS_ADDR", 16),
        "virt-APIC addr": LayoutWord("VIRTUAL_APIC_ADDR", 16),
        "PostedIntrVec": LayoutWord("POSTED_INTR_NOTIFY_VECTOR", 2),
        "EPT pointer": LayoutWord("EPTP", 16),
        "EPTP index": LayoutWord("EPTP_INDEX", 4),
        "Virtual processor ID": LayoutWord("VPID", 4),
        "VMfunc controls": LayoutWord("VMFUNC_CONTROLS", 16),
        "VE info address": LayoutWord("VE_INFO_ADDR", 16),
        "reason": LayoutWord("EXIT_REASON", 8),
        "qualification": LayoutWord("EXIT_QUALIFICATION", 16),
    }
    | {
        f"{word}{n}": LayoutWord(f"CR3_TARGET_VALUE{n}", 16)
        for word in ("CR3 target", "target")
        for n in range(4)
    }
)

SECTIONS: Mapping[str, Mapping[str, LayoutWord]] = MappingProxyType(
    {"guest": GUEST, "host": HOST, "control": CONTROL}
)

GROUPS: Mapping[str, tuple[str, Mapping[str, LayoutWord]]] = MappingProxyType(
    {
        "CR0:": (
            "guest",
            {
                "actual": LayoutWord("GUEST_CR0", 16),
                "shadow": LayoutWord("CR0_READ_SHADOW", 16),
                "gh_mask": LayoutWord("CR0_GUEST_HOST_MASK", 16),
            },
        ),
        "CR4:": (
            "guest",
            {
                "actual": LayoutWord("GUEST_CR4", 16),
                "shadow": LayoutWord("CR4_READ_SHADOW", 16),
                "gh_mask": LayoutWord("CR4_GUEST_HOST_MASK", 16),
            },
        ),
        "VMEntry:": (
            "control",
            {
                "intr_info": LayoutWord("ENTRY_INTR_INFO", 8),
                "errcode": LayoutWord("ENTRY_EXCEPTION_ERROR_CODE", 8),
                "ilen": LayoutWord("ENTRY_INSTRUCTION_LENGTH", 8),
            },
        ),
        "VMExit:": (
            "control",
            {
                "intr_info": LayoutWord("EXIT_INTR_INFO", 8),
                "errcode": LayoutWord("EXIT_INTR_ERROR_CODE", 8),
                "ilen": LayoutWord("EXIT_INSTRUCTION_LENGTH", 8),
            },
        ),
        "IDTVectoring:": (
            "control",
            {
                "info": LayoutWord("IDT_VECTORING_INFO", 8),
                "errcode": LayoutWord("IDT_VECTORING_ERROR_CODE", 8),
            },
        ),
        "PLE": ("control", {"Gap": LayoutWord("PLE_GAP", 8), "Window": LayoutWord("PLE_WINDOW", 8)}),
        "SPEC_CTRL": (
            "control",
            {"mask": LayoutWord("SPEC_CTRL_MASK", 16), "shadow": LayoutWord("SPEC_CTRL_SHADOW", 16)},
        ),
    }
)
"""Words that mean a field only behind a heading: heading -> (section, words)."""

SEGMENT_REGISTERS = ("CS", "DS", "SS", "ES", "FS", "GS", "LDTR", "TR")
TABLE_REGISTERS = ("GDTR", "IDTR")


def segment_words(register: str) -> dict[str, LayoutWord]:
    """Return the words of a KVM segment line (`sel`, `attr`, `limit`, `base`) for one register."""
    words = {
        "limit": LayoutWord(f"GUEST_{register}_LIMIT", 8),
        "base": LayoutWord(f"GUEST_{register}_BASE", 16),
    }
    if register in SEGMENT_REGISTERS:
        words |= {
            "sel": LayoutWord(f"GUEST_{register}_SELECTOR", 4),
            "attr": LayoutWord(f"GUEST_{register}_ACCESS_RIGHTS", 5),
        }
    return words


def sysenter_words(section: str) -> dict[str, LayoutWord]:
    """Return the words of a `Sysenter` line: `RSP`, and the two halves of `CS:RIP`."""
    prefix = section.upper()
    return {
        "RSP": LayoutWord(f"{prefix}_IA32_SYSENTER_ESP", 16),
        "CS": LayoutWord(f"{prefix}_IA32_SYSENTER_CS", 4),
        "RIP": LayoutWord(f"{prefix}_IA32_SYSENTER_EIP", 16),
    }


WITH_0X = (frozenset(GUEST) | {"EFER", "PAT"}) - {
    *("CR3", "Interruptibility", "ActivityState", "InterruptStatus")
}
"""Words whose number has `0x` in every version: the same word without it is printed by something else."""

AMBIGUOUS = frozenset(GUEST.keys() & HOST.keys())
MSR_LISTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "guest autoload": ("ENTRY_MSR_LOAD_COUNT", "msr_guest_autoload"),
        "autostore": ("EXIT_MSR_STORE_COUNT", "msr_autostore"),
        "host autoload": ("EXIT_MSR_LOAD_COUNT", "msr_host_autoload"),
    }
)
"""KVM's MSR lists: the count field that their number of lines implies, and the name they are reported by."""
