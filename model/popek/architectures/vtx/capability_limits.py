"""Laws that the capability MSRs obey, and the extremes of what an unknown processor may report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from .capabilities import FEATURES, ONES64, Capabilities

_DEFAULT1: Final = {0x481: 0x16, 0x482: 0x0401_E172, 0x483: 0x0003_6DFF, 0x484: 0x0000_11FF}
_TRUE_OF: Final = {0x48D: 0x481, 0x48E: 0x482, 0x48F: 0x483, 0x490: 0x484}


def capability_defects(capabilities: Capabilities) -> list[str]:
    """What is wrong with the capability MSRs themselves, one line each (ledger row CTL-CAP-09).

    A bit that must be 1 may be 1; the plain MSRs report the default1 class as fixed to 1, the TRUE MSRs
    fix no more than the plain ones; what CR0 and CR4 must have they may have.
    """
    found: list[str] = []
    values = capabilities.msrs
    for number in (0x481, 0x482, 0x483, 0x484, *_TRUE_OF):
        if number in values:
            must, may = values[number] & 0xFFFF_FFFF, values[number] >> 32
            if must & ~may:
                found.append(f"MSR {number:X}H: bits {must & ~may:#x} must be 1 and may not be 1")
    for number, default in _DEFAULT1.items():
        if number in values and values[number] & default != default:
            found.append(f"MSR {number:X}H: default1 bits {default & ~values[number]:#x} are not fixed to 1")
    for true, plain in _TRUE_OF.items():
        if true in values and plain in values:
            extra = values[true] & ~values[plain] & 0xFFFF_FFFF
            if extra:
                found.append(f"MSR {true:X}H: bits {extra:#x} must be 1, and need not by MSR {plain:X}H")
    for low, high in ((0x486, 0x487), (0x488, 0x489)):
        if low in values and high in values and values[low] & ~values[high]:
            found.append(f"MSR {low:X}H: bits {values[low] & ~values[high]:#x} must be 1 and may not be 1")
    return found


# What the most permissive and the most restrictive processor would report. CR0's fixed bits, and those of CR4
# that must be 1, are the same on all processors so far; the others span what is known.
_CR: Final = {0x486: 0x8000_0021, 0x487: 0xFFFF_FFFF, 0x488: 0x2000}
EVERY_CR4: Final = 0x27FF
"""The bits that CR4 may have on every processor with VMX."""
_ANY_CR4: Final = (1 << 33) - 1
"""The bits that CR4 may have on some processor; bits 63:33 are reserved on all."""

_PERMISSIVE: Final = {
    0x480: 1 << 56 | 1 << 55,
    **{number: default | 0xFFFF_FFFF << 32 for number, default in _DEFAULT1.items()},
    **dict.fromkeys(_TRUE_OF, 4294967295 << 32),
    0x485: ONES64 & ~(0x1FF << 16) | 256 << 16,
    **_CR,
    0x489: _ANY_CR4,
    0x48B: 0xFFFF_FFFF << 32,
    **dict.fromkeys((0x48C, 0x491, 0x492, 0x493), ONES64),
}
_RESTRICTIVE: Final = {
    0x480: 0,
    **{number: default | default << 32 for number, default in _DEFAULT1.items()},
    **{number: _DEFAULT1[plain] | _DEFAULT1[plain] << 32 for number, plain in _TRUE_OF.items()},
    **_CR,
    0x489: EVERY_CR4,
    **dict.fromkeys((0x485, 0x48B, 0x48C, 0x491, 0x492, 0x493), 0),
}


NARROW, _WIDE = 36, 52
_FOUR_LEVELS, _FIVE_LEVELS = 48, 57
WIDTHS: Final = {
    "maxphyaddr": f"{NARROW} to {_WIDE}",
    "linear_address_width": f"{_FOUR_LEVELS} or {_FIVE_LEVELS}",
}
"""What the widths of addresses can be."""


def _within(msrs: Mapping[int, int], known: Capabilities) -> Mapping[int, int]:
    """MSRs with the bits that are known of them."""
    bits = known.partial
    return {**msrs, **{n: (msrs[n] | ones) & ~zeros for n, (ones, zeros) in bits.items() if n in msrs}}


def extremes(capabilities: Capabilities) -> tuple[Capabilities, Capabilities]:
    """The most permissive and the most restrictive processor that fit what is known.

    A check that both pass, or both fail, is decided although a capability is unknown. Physical addresses have
    36 to 52 bits, linear ones 48 or 57. (The VMCS revision identifier has no extremes; a check that asks for
    it stays undecided.)
    """
    cpuid = dict(capabilities.cpuid)
    width, linear = capabilities.maxphyaddr, capabilities.linear_address_width
    addresses_known = "0x80000008.0.eax" in cpuid
    # Evidence is a bound for what would be the least; it does not speak for itself.
    shown = (
        {**capabilities.shown, "own width": NARROW} if "width" in capabilities.shown else capabilities.shown
    )
    narrow = max(NARROW, shown.get("width", 0))
    found: list[Capabilities] = []
    for permissive, msrs in ((True, _PERMISSIVE), (False, _RESTRICTIVE)):
        known = {name: capabilities.has(name) for name in FEATURES}
        registers = {
            "0xa.0.eax": 0x2005 if permissive else 0x0002,
            "0xa.0.ecx": 0xFFFF if permissive else 0,
            "0xa.0.edx": 16 if permissive else 0,
            "0x14.0.ebx": 0xFFFF_FFFF if permissive else 0,
            "0x14.0.ecx": 0xFFFF_FFFF if permissive else 0,
        }
        found.append(
            Capabilities(
                name=capabilities.name,
                msrs={
                    **_within(msrs, capabilities),
                    0x345: 1 << 15 if permissive else 0,
                    **capabilities.msrs,
                },
                cpuid={**registers, **cpuid},
                features={
                    **capabilities.features,
                    **{name: permissive if value is None else value for name, value in known.items()},
                },
                maxphyaddr=width if width is not None or addresses_known else _WIDE if permissive else narrow,
                shown={} if permissive else shown,
                linear_address_width=linear
                if linear is not None or addresses_known
                else _FIVE_LEVELS
                if permissive
                else _FOUR_LEVELS,
            )
        )
    return found[0], found[1]


# All optional controls, but none of the relaxations: must-be-1 bits are the default1 class less the bits that
# the TRUE capability MSRs free on real processors (CR3-load and CR3-store exiting, save and load debug
# controls); no relaxed error-code or zero-length injection, 4 CR3 targets, four-level EPT in WB or UC memory
# (Intel SDM vol. 3, appendix A.1 to A.10).
_FREED: Final = {0x48E: 3 << 15, 0x48F: 1 << 2, 0x490: 1 << 2}
_PLAIN: Final = {
    **_PERMISSIVE,
    0x480: 1 << 55,
    **{
        true: _DEFAULT1[number] & ~_FREED.get(true, 0) | 0xFFFF_FFFF << 32
        for true, number in _TRUE_OF.items()
    },
    0x485: 0x0004_01E0,
    0x489: _ANY_CR4,
    0x48C: 0x0F01_0673_4141,
}


def plain(capabilities: Capabilities) -> Capabilities:
    """A processor that fits what is known, has every optional control and relaxes nothing.

    What fails on it, and on some processors only, is a suspect. Where the widths of addresses are not known
    they are 52 and 48 bits.
    """
    addresses_known = "0x80000008.0.eax" in capabilities.cpuid
    return attrs.evolve(
        capabilities,
        msrs={**_within(_PLAIN, capabilities), **capabilities.msrs},
        features={"LAM": False, **capabilities.features},
        maxphyaddr=capabilities.maxphyaddr or (None if addresses_known else _WIDE),
        linear_address_width=capabilities.linear_address_width or (None if addresses_known else _FOUR_LEVELS),
    )
