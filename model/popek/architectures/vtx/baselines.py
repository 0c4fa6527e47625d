"""VMCSs that enter: one for each operating mode of the guest, as plain as the processor allows.

They are where tests, generators and users start from, and change a field to see what happens.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from .capabilities import Capabilities, CapabilityView
from .fields import FIELDS
from .vmcs import Launch, Vmcs

Mode = Literal["64-bit", "pae", "32-bit", "v8086", "real"]
"""Operating mode of the guest; ``pae`` and ``32-bit`` are protected mode with PAE and with 32-bit paging."""

MODES: Final[tuple[Mode, ...]] = get_args(Mode)

_PAGE = 0x1000
_FIRST_PAGE = 0x3_0000
_CODE, _STACK = 0x2_0000, 0x2_1800
_EPT_CONTROLS = 1 << 1
_UNRESTRICTED = 1 << 7
_PAGES = (
    "IO_BITMAP_A",
    "IO_BITMAP_B",
    "MSR_BITMAP",
    "PML_ADDRESS",
    "VIRTUAL_APIC_ADDR",
    "APIC_ACCESS_ADDR",
    "POSTED_INTR_DESC_ADDR",
    "EPTP_LIST_ADDR",
    "VMREAD_BITMAP",
    "VMWRITE_BITMAP",
    "VE_INFO_ADDR",
    "SPPTP",
    "HLATP",
    "PID_POINTER_TABLE",
    "ENTRY_MSR_LOAD_ADDR",
    "EXIT_MSR_STORE_ADDR",
    "EXIT_MSR_LOAD_ADDR",
)


def has_mode(mode: Mode, capabilities: Capabilities) -> bool:
    """Whether the processor can run a guest in this mode; only ``real`` needs more than VMX itself."""
    if mode != "real":
        return mode != "64-bit" or capabilities.has("INTEL64") is not False
    secondary = capabilities.msrs.get(0x48B, 0) >> 32
    return secondary & (_EPT_CONTROLS | _UNRESTRICTED) == _EPT_CONTROLS | _UNRESTRICTED


def baseline(mode: Mode, capabilities: Capabilities, *, ept: bool | None = None) -> Vmcs:
    """A VMCS with every field given that enters on the processor.

    Args:
        mode: operating mode of the guest.
        capabilities: of the processor; the VMX capability MSRs must be known.
        ept: whether to use EPT; by default where the mode needs it, that is for ``real`` only, and for
            ``pae``, whose page-directory-pointer-table entries are then in the VMCS.

    Raises:
        ValueError: the processor cannot run a guest in this mode.
    """
    if not has_mode(mode, capabilities):
        raise ValueError(f"{capabilities.name} cannot run a guest in mode {mode!r}")
    cap = CapabilityView(capabilities)
    long_mode = mode == "64-bit"
    secondary = 0
    if mode == "real":
        secondary = _EPT_CONTROLS | _UNRESTRICTED
    elif ept or (ept is None and mode == "pae" and cap.sec_may & _EPT_CONTROLS):
        secondary = _EPT_CONTROLS
    wanted_entry = (1 << 9 if long_mode else 0) | (1 << 14 | 1 << 15) & cap.entry_may
    wanted_exit = (1 << 9 if capabilities.has("INTEL64") is not False else 0) | (0xF << 18) & cap.exit_may
    fields = dict.fromkeys((name for name, f in FIELDS.items() if f.area != "exit-information"), 0)
    fields.update({name: _FIRST_PAGE + _PAGE * number for number, name in enumerate(_PAGES)})
    fields.update(
        PIN_CONTROLS=cap.pin_must | 1 << 0 | 1 << 3,
        PRIMARY_PROC_CONTROLS=cap.pri_must | 1 << 7 | 1 << 24 | (1 << 31 if secondary else 0),
        SECONDARY_PROC_CONTROLS=secondary,
        EXIT_CONTROLS=cap.exit_must | wanted_exit,
        ENTRY_CONTROLS=cap.entry_must | wanted_entry,
        EXCEPTION_BITMAP=0xFFFF_FFFF,
        VPID=1,
        POSTED_INTR_NOTIFY_VECTOR=0xF2,
        TSC_MULTIPLIER=1 << 48,
        EPTP=(_FIRST_PAGE + _PAGE * len(_PAGES)) | 3 << 3 | 6,
        PML_INDEX=511,
        VIRTUAL_TIMER_VECTOR=0xEF,
        ENTRY_INSTRUCTION_LENGTH=1,
    )
    fields.update(_host(cap, bool(wanted_exit & 1 << 9)))
    fields.update(_guest(mode, cap))
    fields.update(_segments(mode))
    return Vmcs(name=f"baseline {mode}", fields=fields, launch=Launch(current_vmcs=0x1_1000, x2apic=False))


def _host(cap: CapabilityView, wide: bool) -> dict[str, int]:
    return {
        "HOST_CR0": (cap.cr0_must | 0x8001_0033) & cap.cr0_may,
        "HOST_CR3": 0x1000,
        "HOST_CR4": cap.cr4_must | 0x20,
        "HOST_RIP": 0x10_0000,
        "HOST_RSP": 0x10_8000,
        "HOST_IA32_PAT": 0x0007_0406_0007_0406,
        "HOST_IA32_EFER": 0x500 if wide else 0,
        "HOST_CS_SELECTOR": 0x18 if wide else 8,
        "HOST_TR_SELECTOR": 0x20,
        **{f"HOST_{segment}_SELECTOR": 0x10 for segment in ("SS", "DS", "ES", "FS", "GS")},
    }


def _guest(mode: Mode, cap: CapabilityView) -> dict[str, int]:
    long_mode, low = mode == "64-bit", mode in ("v8086", "real")
    cr0 = (cap.cr0_must | 0x8001_0031) & cap.cr0_may
    if mode == "real":
        cr0 &= ~0x8000_0001
    return {
        "VMCS_LINK_POINTER": 0xFFFF_FFFF_FFFF_FFFF,
        "GUEST_CR0": cr0,
        "GUEST_CR3": 0x2_5000 if long_mode else 0x2_9000,
        "GUEST_CR4": cap.cr4_must | (0x20 if mode in ("64-bit", "pae") else 0),
        "GUEST_IA32_PAT": 0x0007_0406_0007_0406,
        "GUEST_IA32_EFER": 0x500 if long_mode else 0,
        "GUEST_PDPTE0": 0x2_7001,
        "GUEST_DR7": 0x400,
        "GUEST_RSP": _STACK - _CODE if low else _STACK,
        "GUEST_RIP": 0 if low else _CODE,
        "GUEST_RFLAGS": 0x2_0002 if mode == "v8086" else 2,
    }


def _segments(mode: Mode) -> dict[str, int]:
    low = mode in ("v8086", "real")
    fields: dict[str, int] = {}
    for segment in ("CS", "SS", "DS", "ES", "FS", "GS"):
        code = segment == "CS"
        selector, base, limit, rights = 0x10, 0, 0xFFFF_FFFF, 0xC093
        if low:
            selector, base, limit = _CODE >> 4, _CODE, 0xFFFF
            rights = 0xF3 if mode == "v8086" else 0x9B if code else 0x93
        elif code:
            selector, rights = (0x18, 0xA09B) if mode == "64-bit" else (8, 0xC09B)
        fields[f"GUEST_{segment}_SELECTOR"] = selector
        fields[f"GUEST_{segment}_BASE"] = base
        fields[f"GUEST_{segment}_LIMIT"] = limit
        fields[f"GUEST_{segment}_ACCESS_RIGHTS"] = rights
    return fields | {
        "GUEST_LDTR_SELECTOR": 0x30,
        "GUEST_LDTR_BASE": 0x2_2C00,
        "GUEST_LDTR_LIMIT": 0xFF,
        "GUEST_LDTR_ACCESS_RIGHTS": 0x82,
        "GUEST_TR_SELECTOR": 0x20,
        "GUEST_TR_BASE": 0x2_2800,
        "GUEST_TR_LIMIT": 0x67,
        "GUEST_TR_ACCESS_RIGHTS": 0x8B,
        "GUEST_GDTR_BASE": 0x2_2000,
        "GUEST_GDTR_LIMIT": 0x3F,
        "GUEST_IDTR_BASE": 0x2_3000,
        "GUEST_IDTR_LIMIT": 0xFFF,
    }
