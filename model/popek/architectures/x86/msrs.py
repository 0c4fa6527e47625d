"""Model-specific registers by number, and what they may hold in every mode (SDM vol. 4, "Architectural MSRs")."""

from __future__ import annotations

from typing import Final

from popek.kernel.words import Word, all_of

IA32_TIME_STAMP_COUNTER: Final = 0x10
IA32_APIC_BASE: Final = 0x1B
IA32_FEATURE_CONTROL: Final = 0x3A
IA32_SYSENTER_CS: Final = 0x174
IA32_SYSENTER_ESP: Final = 0x175
IA32_SYSENTER_EIP: Final = 0x176
IA32_MISC_ENABLE: Final = 0x1A0
IA32_PAT: Final = 0x277
IA32_EFER: Final = 0xC0000080
IA32_TSC_AUX: Final = 0xC0000103

GENERAL_COUNTERS, FIXED_COUNTERS = 8, 3  # RDPMC: ECX 0..7 and 40000000H..40000002H
MEMORY_TYPES: Final = (0, 1, 4, 5, 6, 7)


def are_memory_types(value: Word) -> Word:
    """Whether every byte of IA32_PAT (64 bits) is a memory type; width 1."""
    return all_of(value[low + 7 : low].isin(MEMORY_TYPES) for low in range(0, 64, 8))


def is_counter(number: Word) -> Word:
    """Whether ECX names a performance counter; width 1."""
    fixed = (number >= 0x40000000) & (number < 0x40000000 + FIXED_COUNTERS)
    return (number < GENERAL_COUNTERS) | fixed
