"""The model-specific registers that system instructions reach (SDM vol. 4, "Architectural MSRs")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from popek.architectures.x86.msrs import (
    IA32_APIC_BASE,
    IA32_EFER,
    IA32_FEATURE_CONTROL,
    IA32_MISC_ENABLE,
    IA32_PAT,
    IA32_SYSENTER_CS,
    IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP,
    IA32_TSC_AUX,
    are_memory_types,
)
from popek.kernel.words import TRUE, Word, any_of, ite

APIC_BSP, APIC_X2, APIC_ENABLED = 1 << 8, 1 << 10, 1 << 11
EFER_NXE: Final = 1 << 11
# Fast strings, thermal control, performance monitoring, BTS and PEBS missing, SpeedStep, MONITOR, CPUID leaf
# limit, xTPR.
MISC_ENABLE_DEFINED: Final = 0x00000000_00C51889
MISC_ENABLE_READ_ONLY: Final = 1 << 7 | 1 << 11 | 1 << 12
FEATURE_CONTROL_LOCK: Final = 1


@attrs.frozen
class Ia32Msr:
    """One register.

    Attributes:
        number: as RDMSR and WRMSR take it in ECX.
        accepts: whether WRMSR takes a value (64 bits), given what is there; #GP(0) where not.  Width 1.
        kept: the bits that the register has; what is written to others, and accepted, is dropped.
        read_only: bits that stay as they are, whatever is written to them.
    """

    number: int
    accepts: Callable[[Word, Word], Word]
    kept: int = (1 << 64) - 1
    read_only: int = 0


def _only(bits: int) -> Callable[[Word, Word], Word]:
    """Every other bit is reserved."""
    return lambda value, old: (value & (bits ^ ((1 << 64) - 1))) == 0


def _memory_types(value: Word, old: Word) -> Word:
    return are_memory_types(value)


def _apic_base(value: Word, old: Word) -> Word:
    """32 address bits; x2APIC mode only of an enabled APIC and never from it back to xAPIC mode."""
    enabled, x2 = value[11], value[10]
    was_x2 = old[11] & old[10]
    from_disabled = ~old[11] & x2 & enabled  # first to xAPIC mode
    back = was_x2 & enabled & ~x2
    defined = _only(0xFFFFF000 | APIC_BSP | APIC_X2 | APIC_ENABLED)(value, old)
    return defined & ~(x2 & ~enabled) & ~from_disabled & ~back


STORED: Final = (
    Ia32Msr(IA32_APIC_BASE, _apic_base),
    Ia32Msr(IA32_FEATURE_CONTROL, lambda value, old: ~old[0] & _only(0xFF07)(value, old)),
    # A processor without Intel 64 keeps 32 bits of the SYSENTER registers.
    *(
        Ia32Msr(number, lambda value, old: TRUE, 0xFFFFFFFF)
        for number in (IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP)
    ),
    Ia32Msr(IA32_MISC_ENABLE, _only(MISC_ENABLE_DEFINED), read_only=MISC_ENABLE_READ_ONLY),
    Ia32Msr(IA32_PAT, _memory_types),
    # Without Intel 64 there are neither SCE nor LME and LMA.
    Ia32Msr(IA32_EFER, _only(EFER_NXE)),
    Ia32Msr(IA32_TSC_AUX, _only(0xFFFFFFFF)),
)
"""Every register but the time-stamp counter, which is a component of its own."""


def exists(number: Word) -> Word:
    """Whether ECX names a stored register (width 1)."""
    return number.isin(tuple(msr.number for msr in STORED))


def accepted(number: Word, value: Word, old: Word) -> Word:
    """Whether the register takes the value (width 1)."""
    return ~any_of((number == msr.number) & ~msr.accepts(value, old) for msr in STORED)


def kept(number: Word, value: Word, old: Word) -> Word:
    """What the register holds after an accepted write of a value, given what was there (64 bits)."""
    for msr in STORED:
        if msr.kept != (1 << 64) - 1 or msr.read_only:
            held = value & (msr.kept & ~msr.read_only) | old & msr.read_only
            value = ite(number == msr.number, held, value)
    return value
