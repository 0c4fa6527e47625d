"""Laws that the capability MSRs obey, and the extremes of what an unknown processor may report."""

from __future__ import annotations

from typing import Final

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
_PERMISSIVE: Final = {
    0x480: 1 << 56 | 1 << 55,
    **{number: default | 0xFFFF_FFFF << 32 for number, default in _DEFAULT1.items()},
    **dict.fromkeys(_TRUE_OF, 4294967295 << 32),
    0x485: ONES64 & ~(0x1FF << 16) | 256 << 16,
    **_CR,
    0x489: (1 << 33) - 1,
    0x48B: 0xFFFF_FFFF << 32,
    **dict.fromkeys((0x48C, 0x491, 0x492, 0x493), ONES64),
}
_RESTRICTIVE: Final = {
    0x480: 0,
    **{number: default | default << 32 for number, default in _DEFAULT1.items()},
    **{number: _DEFAULT1[plain] | _DEFAULT1[plain] << 32 for number, plain in _TRUE_OF.items()},
    **_CR,
    0x489: 0x27FF,
    **dict.fromkeys((0x485, 0x48B, 0x48C, 0x491, 0x492, 0x493), 0),
}


def extremes(capabilities: Capabilities) -> tuple[Capabilities, Capabilities]:
    """The most permissive and the most restrictive processor that fit what is known.

    A check that both pass, or both fail, is decided although a capability is unknown. Physical addresses have
    36 to 52 bits, linear ones 48 or 57. (The VMCS revision identifier has no extremes; a check that asks for
    it stays undecided.)
    """
    cpuid = dict(capabilities.cpuid)
    width, linear = capabilities.maxphyaddr, capabilities.linear_address_width
    addresses_known = "0x80000008.0.eax" in cpuid
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
                msrs={**msrs, 0x345: 1 << 15 if permissive else 0, **capabilities.msrs},
                cpuid={**registers, **cpuid},
                features={name: permissive if value is None else value for name, value in known.items()},
                maxphyaddr=width if width is not None or addresses_known else 52 if permissive else 36,
                linear_address_width=linear
                if linear is not None or addresses_known
                else 57
                if permissive
                else 48,
            )
        )
    return found[0], found[1]
