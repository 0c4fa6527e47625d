"""What a VMCS shows of its processor: the host it describes runs there, with the control registers that it gives.

Only the host-state area is taken for evidence, for a guest may ask for what the processor does not have. What is
known of the processor by other means takes precedence, and the rows that check the host's control registers
themselves gain nothing from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from .capabilities import Capabilities
from .capability_limits import EVERY_CR4, NARROW
from .vmcs import Vmcs

_LA57: Final = 1 << 12
_FEATURES: Final = {1 << 23: "CET", 1 << 24: "PKS", 1 << 25: "UINTR", 1 << 28: "LAM", 1 << 32: "FRED"}
_NAMES: Final = {_LA57: "LA57", **_FEATURES, 1 << 28: "LAM_SUP"}
_SHOWS: Final = {
    _LA57: "linear addresses have 57 bits",
    1 << 23: "the processor has CET",
    1 << 24: "the processor has protection keys for supervisor pages",
    1 << 25: "the processor has user interrupts",
    1 << 28: "the processor has linear-address masking",
    1 << 32: "the processor has FRED",
}
_TELLING: Final = sum(_SHOWS)
_ADDRESS: Final = (1 << 52) - 1
_LMA: Final = 1 << 10
_HOST_64: Final = 1 << 9  # of the VM-exit controls: host address-space size
_GUEST_64: Final = 1 << 9  # of the VM-entry controls: IA-32e mode guest
_PAE, _PCIDE = 1 << 5, 1 << 17  # of CR4: IA-32e mode needs PAE, and only there PCIDE can be set
_ADDRESSES: Final = (
    *("HOST_RIP", "HOST_RSP", "HOST_IA32_SYSENTER_ESP", "HOST_IA32_SYSENTER_EIP"),
    *(f"HOST_{name}_BASE" for name in ("FS", "GS", "TR", "GDTR", "IDTR")),
)
"""Linear addresses of the host, which have 32 bits outside IA-32e mode."""

Evidence = tuple[int, int, int, bool]
"""Bits of the host's CR4 that show features; others that the guest's CR4 has, too; the width that the host's CR3
needs, if that is more than the least; whether the host is in IA-32e mode."""

NOTHING: Final[Evidence] = (0, 0, 0, False)


def evidence(vmcs: Vmcs) -> Evidence:
    """What of the host-state area shows something of the processor."""
    host = vmcs.fields.get("HOST_CR4", 0)
    shared = host & vmcs.fields.get("GUEST_CR4", 0) & ~EVERY_CR4
    width = (vmcs.fields.get("HOST_CR3", 0) & _ADDRESS).bit_length()
    long_mode = vmcs.fields.get("HOST_IA32_EFER", 0) & _LMA != 0
    return host & _TELLING, shared, width if width > NARROW else 0, long_mode


def in_ia32e_mode(fields: Mapping[str, int]) -> bool | None:
    """Whether the VMM that runs the entry is in IA-32e mode, by what its VMCS says; None if it does not show.

    A host of 64 bits, or a guest in IA-32e mode, is taken for one of a VMM in IA-32e mode. A VMCS that does not
    ask for a host of 64 bits may be that of a 32-bit VMM, unless something in it is of 64 bits.
    """
    controls = fields.get("EXIT_CONTROLS")
    if controls is None or controls & _HOST_64:
        return True
    if fields.get("ENTRY_CONTROLS", 0) & _GUEST_64 or fields.get("HOST_IA32_EFER", 0) & _LMA:
        return True
    cr4 = fields.get("HOST_CR4", _PAE)
    if cr4 & _PCIDE or any(fields.get(name, 0) >> 32 for name in _ADDRESSES):
        return True
    return None if cr4 & _PAE else False


def with_evidence(known: Capabilities, seen: Evidence) -> tuple[Capabilities, tuple[str, ...]]:
    """A processor with what the host shows of it, and each inference in words.

    Args:
        known: what is known by other means.
        seen: as `evidence` says.
    """
    bits, shared, width, long_mode = seen
    changes: dict[str, Any] = {"features": dict(known.features), "shown": dict(known.shown)}
    shown = [
        *_features(known, bits, changes),
        *_fixed_bits(known, shared, changes),
        *_long_mode(known, long_mode, changes),
        *_width(known, width, changes),
    ]
    return (attrs.evolve(known, **changes), tuple(shown)) if shown else (known, ())


def _features(known: Capabilities, bits: int, changes: dict[str, Any]) -> Iterator[str]:
    for bit, words in _SHOWS.items():
        if not bits & bit:
            continue
        if bit == _LA57:
            if _addresses_known(known, known.linear_address_width):
                continue
            changes["linear_address_width"] = 57
        elif bit == 1 << 23:
            if known.has("CET_SS") is not None or known.has("CET_IBT") is not None:
                continue
            changes["features"]["CET"] = True
        else:
            if known.has(_FEATURES[bit]) is not None:
                continue
            changes["features"][_FEATURES[bit]] = True
        yield f"HOST_CR4.{_NAMES[bit]} (bit {bit.bit_length() - 1}) = 1: {words}"


def _fixed_bits(known: Capabilities, shared: int, changes: dict[str, Any]) -> Iterator[str]:
    """IA32_VMX_CR4_FIXED1 has the bits that the host's CR4 has, so the guest's may have them."""
    if shared and 0x489 not in known.msrs:
        changes["shown"]["cr4"] = shared
        yield f"HOST_CR4 has bits {shared:#x}: CR4 may have them (IA32_VMX_CR4_FIXED1)"


def _long_mode(known: Capabilities, long_mode: bool, changes: dict[str, Any]) -> Iterator[str]:
    """A processor in IA-32e mode supports it; unless told otherwise, it is taken for one that does."""
    if long_mode and "INTEL64" not in known.features and 0x480 not in known.msrs:
        if "0x80000001.0.edx" in known.cpuid:
            return
        changes["features"]["INTEL64"] = True
        yield "HOST_IA32_EFER.LMA (bit 10) = 1: the processor has Intel 64"


def _width(known: Capabilities, width: int, changes: dict[str, Any]) -> Iterator[str]:
    if width and not _addresses_known(known, known.maxphyaddr):
        changes["shown"]["width"] = width
        yield f"HOST_CR3 has bit {width - 1}: physical addresses have {width} bits at least"


def _addresses_known(known: Capabilities, width: int | None) -> bool:
    return width is not None or "0x80000008.0.eax" in known.cpuid


__all__ = ["NOTHING", "Evidence", "evidence", "in_ia32e_mode", "with_evidence"]
