"""The words of the `dump_vmcs` family of dumps (Linux KVM and Xen) and the fields they stand for.

Sources: the printing routines of Linux 4.4 to 6.18 (arch/x86/kvm/vmx/vmx.c) and Xen 4.7 to 4.20
(xen/arch/x86/hvm/vmx/vmcs.c). `digits` is the width the routine pads to: fewer digits mean a cut line.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs


@attrs.frozen
class Word:
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

GUEST: Mapping[str, Word] = MappingProxyType(
    {key: Word(f"GUEST_{name}", 16) for key, name in _BOTH.items()}
    | {f"{word}{n}": Word(f"GUEST_PDPTE{n}", 16) for word in ("PDPTR", "PDPTE") for n in range(4)}
    | {
        "RFLAGS": Word("GUEST_RFLAGS", 8),
        "DR7": Word("GUEST_DR7", 16),
        "EFER(VMCS)": Word("GUEST_IA32_EFER", 16),
        "DebugCtl": Word("GUEST_IA32_DEBUGCTL", 16),
        "DebugExceptions": Word("GUEST_PENDING_DEBUG_EXCEPTIONS", 16),
        "BndCfgS": Word("GUEST_IA32_BNDCFGS", 16),
        "Interruptibility": Word("GUEST_INTERRUPTIBILITY", 8),
        "ActivityState": Word("GUEST_ACTIVITY_STATE", 8),
        "InterruptStatus": Word("GUEST_INTERRUPT_STATUS", 4),
        "PreemptionTimer": Word("PREEMPTION_TIMER_VALUE", 8),
        "SM Base": Word("GUEST_SMBASE", 8),
    }
)

HOST: Mapping[str, Word] = MappingProxyType(
    {key: Word(f"HOST_{name}", 16) for key, name in _BOTH.items()}
    | {
        register: Word(f"HOST_{register}_SELECTOR", 4)
        for register in ("CS", "SS", "DS", "ES", "FS", "GS", "TR")
    }
    | {f"{table}Base": Word(f"HOST_{table}_BASE", 16) for table in ("FS", "GS", "TR")}
    | {f"{table}Base": Word(f"HOST_{table}R_BASE", 16) for table in ("GDT", "IDT")}
    | {register: Word(f"HOST_{register}", 16) for register in ("CR0", "CR4")}
)

CONTROL: Mapping[str, Word] = MappingProxyType(
    {
        "PinBased": Word("PIN_CONTROLS", 8),
        "CPUBased": Word("PRIMARY_PROC_CONTROLS", 8),
        "SecondaryExec": Word("SECONDARY_PROC_CONTROLS", 8),
        "TertiaryExec": Word("TERTIARY_PROC_CONTROLS", 16),
        "EntryControls": Word("ENTRY_CONTROLS", 8),
        "ExitControls": Word("EXIT_CONTROLS", 8),
        "ExceptionBitmap": Word("EXCEPTION_BITMAP", 8),
        "PFECmask": Word("PF_ERROR_CODE_MASK", 8),
        "PFECmatch": Word("PF_ERROR_CODE_MATCH", 8),
        "TSC Offset": Word("TSC_OFFSET", 16),
        "TSC Multiplier": Word("TSC_MULTIPLIER", 16),
        "TPR Threshold": Word("TPR_THRESHOLD", 2),
        "APIC-access addr": Word("APIC_ACCESS_ADDR", 16),
        "virt-APIC addr": Word("VIRTUAL_APIC_ADDR", 16),
        "PostedIntrVec": Word("POSTED_INTR_NOTIFY_VECTOR", 2),
        "EPT pointer": Word("EPTP", 16),
        "EPTP index": Word("EPTP_INDEX", 4),
        "Virtual processor ID": Word("VPID", 4),
        "VMfunc controls": Word("VMFUNC_CONTROLS", 16),
        "VE info address": Word("VE_INFO_ADDR", 16),
        "reason": Word("EXIT_REASON", 8),
        "qualification": Word("EXIT_QUALIFICATION", 16),
    }
    | {f"{word}{n}": Word(f"CR3_TARGET_VALUE{n}", 16) for word in ("CR3 target", "target") for n in range(4)}
)

SECTIONS: Mapping[str, Mapping[str, Word]] = MappingProxyType(
    {"guest": GUEST, "host": HOST, "control": CONTROL}
)

GROUPS: Mapping[str, tuple[str, Mapping[str, Word]]] = MappingProxyType(
    {
        "CR0:": (
            "guest",
            {
                "actual": Word("GUEST_CR0", 16),
                "shadow": Word("CR0_READ_SHADOW", 16),
                "gh_mask": Word("CR0_GUEST_HOST_MASK", 16),
            },
        ),
        "CR4:": (
            "guest",
            {
                "actual": Word("GUEST_CR4", 16),
                "shadow": Word("CR4_READ_SHADOW", 16),
                "gh_mask": Word("CR4_GUEST_HOST_MASK", 16),
            },
        ),
        "VMEntry:": (
            "control",
            {
                "intr_info": Word("ENTRY_INTR_INFO", 8),
                "errcode": Word("ENTRY_EXCEPTION_ERROR_CODE", 8),
                "ilen": Word("ENTRY_INSTRUCTION_LENGTH", 8),
            },
        ),
        "VMExit:": (
            "control",
            {
                "intr_info": Word("EXIT_INTR_INFO", 8),
                "errcode": Word("EXIT_INTR_ERROR_CODE", 8),
                "ilen": Word("EXIT_INSTRUCTION_LENGTH", 8),
            },
        ),
        "IDTVectoring:": (
            "control",
            {"info": Word("IDT_VECTORING_INFO", 8), "errcode": Word("IDT_VECTORING_ERROR_CODE", 8)},
        ),
        "PLE": ("control", {"Gap": Word("PLE_GAP", 8), "Window": Word("PLE_WINDOW", 8)}),
        "SPEC_CTRL": (
            "control",
            {"mask": Word("SPEC_CTRL_MASK", 16), "shadow": Word("SPEC_CTRL_SHADOW", 16)},
        ),
    }
)
"""Words that mean a field only behind a heading: heading -> (section, words)."""

SEGMENT_REGISTERS = ("CS", "DS", "SS", "ES", "FS", "GS", "LDTR", "TR")
TABLE_REGISTERS = ("GDTR", "IDTR")


def segment_words(register: str) -> dict[str, Word]:
    """Return the words of a KVM segment line (`sel`, `attr`, `limit`, `base`) for one register."""
    words = {"limit": Word(f"GUEST_{register}_LIMIT", 8), "base": Word(f"GUEST_{register}_BASE", 16)}
    if register in SEGMENT_REGISTERS:
        words |= {
            "sel": Word(f"GUEST_{register}_SELECTOR", 4),
            "attr": Word(f"GUEST_{register}_ACCESS_RIGHTS", 5),
        }
    return words


def sysenter_words(section: str) -> dict[str, Word]:
    """Return the words of a `Sysenter` line: `RSP`, and the two halves of `CS:RIP`."""
    prefix = section.upper()
    return {
        "RSP": Word(f"{prefix}_IA32_SYSENTER_ESP", 16),
        "CS": Word(f"{prefix}_IA32_SYSENTER_CS", 4),
        "RIP": Word(f"{prefix}_IA32_SYSENTER_EIP", 16),
    }


AMBIGUOUS = frozenset(GUEST.keys() & HOST.keys())
MSR_LISTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "guest autoload": ("ENTRY_MSR_LOAD_COUNT", "msr_guest_autoload"),
        "autostore": ("EXIT_MSR_STORE_COUNT", "msr_autostore"),
        "host autoload": ("EXIT_MSR_LOAD_COUNT", "msr_host_autoload"),
    }
)
"""KVM's MSR lists: the count field that their number of lines implies, and the name they are reported by."""
