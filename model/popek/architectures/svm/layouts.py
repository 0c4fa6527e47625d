"""How Linux KVM and Xen print a VMCB: names, fields, bases and widths of numbers, and where a terminal broke them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .vmcb import FIELDS

# Name in the dump -> field id (the second one takes the upper half) and base of the number.
CONTROL: Final[Mapping[str, tuple[str, int, int]]] = {
    "cr_read": ("CR_INTERCEPTS", 16, 0),
    "cr_write": ("CR_INTERCEPTS", 16, 16),
    "dr_read": ("DR_INTERCEPTS", 16, 0),
    "dr_write": ("DR_INTERCEPTS", 16, 16),
    "exceptions": ("EXCEPTION_INTERCEPTS", 16, 0),
    "pause filter count": ("PAUSE_FILTER_COUNT", 10, 0),
    "pause filter threshold": ("PAUSE_FILTER_THRESHOLD", 10, 0),
    "iopm_base_pa": ("IOPM_BASE", 16, 0),
    "msrpm_base_pa": ("MSRPM_BASE", 16, 0),
    "tsc_offset": ("TSC_OFFSET", 16, 0),
    "asid": ("ASID", 10, 0),
    "tlb_ctl": ("TLB_CONTROL", 10, 0),
    "int_ctl": ("VINTR_CONTROL", 16, 0),
    "int_vector": ("V_INTR_VECTOR", 16, 0),
    "int_state": ("INTERRUPT_SHADOW", 16, 0),
    "exit_code": ("EXITCODE", 16, 0),
    "exit_info1": ("EXITINFO1", 16, 0),
    "exit_info2": ("EXITINFO2", 16, 0),
    "exit_int_info": ("EXITINTINFO", 16, 0),
    "exit_int_info_err": ("EXITINTINFO_ERROR", 16, 0),
    "nested_ctl": ("NP_CONTROL", 10, 0),
    "nested_cr3": ("N_CR3", 16, 0),
    "avic_vapic_bar": ("AVIC_APIC_BAR", 16, 0),
    "ghcb": ("GHCB", 16, 0),
    "event_inj": ("EVENTINJ", 16, 0),
    "event_inj_err": ("EVENTINJ_ERROR", 16, 0),
    "virt_ext": ("VIRT_EXT", 10, 0),
    "next_rip": ("NEXT_RIP", 16, 0),
    "avic_backing_page": ("AVIC_BACKING_PAGE", 16, 0),
    "avic_logical_id": ("AVIC_LOGICAL_TABLE", 16, 0),
    "avic_physical_id": ("AVIC_PHYSICAL_TABLE", 16, 0),
    "vmsa_pa": ("VMSA", 16, 0),
    "allowed_sev_features": ("ALLOWED_SEV_FEATURES", 16, 0),
    "guest_sev_features": ("GUEST_SEV_FEATURES", 16, 0),
    "misc_ctl": ("NP_CONTROL", 10, 0),
    "misc_ctl2": ("VIRT_EXT", 10, 0),
}
SAVE: Final[Mapping[str, str]] = {
    **{field.id.lower(): field.id for field in FIELDS.values() if field.area == "save"},
    "gpat": "G_PAT",
    "isst_addr": "ISST",
}
"""Names in the state-save area -> field id."""
XEN: Final[Mapping[str, tuple[str, int]]] = {
    "cr_intercepts": ("CR_INTERCEPTS", 16),
    "dr_intercepts": ("DR_INTERCEPTS", 16),
    "exception_intercepts": ("EXCEPTION_INTERCEPTS", 16),
    "general1_intercepts": ("INTERCEPTS_3", 16),
    "general2_intercepts": ("INTERCEPTS_4", 16),
    "pause_filter_threshold": ("PAUSE_FILTER_THRESHOLD", 10),
    "pause_filter_count": ("PAUSE_FILTER_COUNT", 10),
    "iopm_base_pa": ("IOPM_BASE", 16),
    "msrpm_base_pa": ("MSRPM_BASE", 16),
    "tsc_offset": ("TSC_OFFSET", 16),
    "tlb_control": ("TLB_CONTROL", 16),
    "exitcode": ("EXITCODE", 16),
    "exitinfo1": ("EXITINFO1", 16),
    "exitinfo2": ("EXITINFO2", 16),
    "guest_asid": ("ASID", 16),
    "asid": ("ASID", 16),
    "np_ctrl": ("NP_CONTROL", 16),
    "np_enable": ("NP_CONTROL", 16),
    "vmsa_pa": ("VMSA", 16),
    "ghcb_msr": ("GHCB", 16),
    "virt_ext": ("VIRT_EXT", 16),
    "h_cr3": ("N_CR3", 16),
    "cleanbits": ("CLEAN", 16),
    "cpl": ("CPL", 10),
    "kerngsbase": ("KERNEL_GS_BASE", 16),
    "pat": ("G_PAT", 16),
    "spec_ctrl": ("SPEC_CTRL", 16),
    **{
        name: (name.upper(), 16)
        for name in (
            *("cr0", "cr2", "cr3", "cr4", "dr6", "dr7", "rsp", "rip", "rax", "rflags", "efer"),
            *("star", "lstar", "cstar", "sfmask", "ssp", "s_cet", "isst"),
        )
    },
}
"""Names of Xen's listing (svm_vmcb_dump) -> field id and base."""
XEN_PADDED: Final[Mapping[str, int]] = dict.fromkeys(
    (
        *("cr0", "cr2", "cr3", "cr4", "dr6", "dr7", "rsp", "rip", "rax", "rflags", "cstar", "sfmask"),
        *("kerngsbase", "pat", "ssp", "s_cet", "isst", "h_cr3"),
    ),
    16,
)
"""Digits that Xen pads a number to."""
XEN_HALVES: Final[Mapping[str, tuple[str, str]]] = {
    "vintr": ("VINTR_CONTROL", "V_INTR_VECTOR"),
    "exit_int_info": ("EXITINTINFO", "EXITINTINFO_ERROR"),
    "event_inj": ("EVENTINJ", "EVENTINJ_ERROR"),
    "eventinj": ("EVENTINJ", "EVENTINJ_ERROR"),
}
"""Quadwords of Xen's listing that hold two fields, the lower one first."""

XEN_WORDS: Final = frozenset(
    (
        *("valid", "ec", "type", "vector", "virtual", "vmload", "vmsave", "np", "paddr", "vaddr", "int_stat"),
        *("sev", "es", "nmi", "irq", "shadow", "masking", "gif", "avic"),
    )
)
"""What Xen's listing says beside its numbers."""

DISTINCT: Final = frozenset(name for name in CONTROL if "_" in name)
"""Names that nothing but a VMCB's control area has: three of them stand for a heading that was cut off."""

_QUADWORDS: Final = (
    "iopm_base_pa",
    "msrpm_base_pa",
    "tsc_offset",
    "exit_info1",
    "exit_info2",
    "nested_cr3",
    "next_rip",
    "avic_vapic_bar",
    "ghcb",
    "avic_backing_page",
    "avic_logical_id",
    "avic_physical_id",
    "vmsa_pa",
    "allowed_sev_features",
    "guest_sev_features",
)
_DOUBLEWORDS: Final = (
    "exceptions",
    "int_ctl",
    "int_vector",
    "int_state",
    "exit_code",
    "exit_int_info",
    "exit_int_info_err",
    "event_inj",
    "event_inj_err",
)
_WORDS: Final = ("cr_read", "cr_write", "dr_read", "dr_write")
PADDED: Final = {
    **dict.fromkeys(_QUADWORDS, 16),
    **dict.fromkeys(_DOUBLEWORDS, 8),
    **dict.fromkeys(_WORDS, 4),
}
"""Digits that KVM pads a number to; fewer are a number that was cut, or none of its numbers."""

_WIDTHS: Final = {
    **PADDED,
    **{name: 16 for name in SAVE if name != "cpl"},
    **dict(zip(("s", "a", "l", "b"), (4, 4, 8, 16), strict=True)),
}
_NAMES: Final = frozenset((*CONTROL, *SAVE, "intercepts", "vmpl"))
_CUT_PAIR = re.compile(
    r"(?<![\w.])(?:(?P<name>[a-z][a-z0-9_]*):\s*|intercepts:\s+(?:[0-9a-fA-F]{8}\s+)?)(?P<digits>[0-9a-fA-F]*)\Z"
)
_CUT_NAME = re.compile(r"(?<!\w)[a-z][a-z0-9_]*\Z")
_HEAD = re.compile(r"[0-9a-fA-F]+(?!\w)")
_HEAD_NAME = re.compile(r"([a-z0-9_]*):")


def straddles(before: str, after: str) -> bool:
    """Whether the end of a line of KVM's and the beginning of the next are one number or one name."""
    if not before or not after:
        return False
    head = _HEAD.match(after)
    if head and (cut := _CUT_PAIR.search(before)) and cut["digits"]:
        wanted = 8 if cut["name"] in (None, "intercepts") else _WIDTHS.get(cut["name"], 0)
        return len(cut["digits"]) < wanted == len(cut["digits"]) + len(head[0])
    tail, name = _CUT_NAME.search(before), _HEAD_NAME.match(after)
    return bool(tail and name and name[1] and tail[0] + name[1] in _NAMES and name[1] not in _NAMES)
