"""What VMRUN asks of a processor, from its CPUID (APM vol. 3, appendix E; vol. 2, 3.1.3 and 3.1.7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from .vmcb import SvmProcessor

Leaves = Mapping[tuple[int, int], tuple[int, int, int, int]]
"""(leaf, subleaf) -> (EAX, EBX, ECX, EDX)."""

_EAX, _EBX, _ECX, _EDX = range(4)
_BASIC, _STRUCTURED, _EXTENDED, _SIZES, _SVM, _EXTENDED_2 = (
    1,
    7,
    0x8000_0001,
    0x8000_0008,
    0x8000_000A,
    0x8000_0021,
)

# Bit of the register -> leaf, register of CPUID and bit that announce it.
_CR4: Final = {
    0: (_BASIC, _EDX, 1),  # VME
    1: (_BASIC, _EDX, 1),  # PVI
    2: (_BASIC, _EDX, 4),  # TSD
    3: (_BASIC, _EDX, 2),  # DE
    4: (_BASIC, _EDX, 3),  # PSE
    5: (_BASIC, _EDX, 6),  # PAE
    6: (_BASIC, _EDX, 7),  # MCE
    7: (_BASIC, _EDX, 13),  # PGE
    9: (_BASIC, _EDX, 24),  # OSFXSR
    10: (_BASIC, _EDX, 25),  # OSXMMEXCPT
    11: (_STRUCTURED, _ECX, 2),  # UMIP
    12: (_STRUCTURED, _ECX, 16),  # LA57
    16: (_STRUCTURED, _EBX, 0),  # FSGSBASE
    17: (_BASIC, _ECX, 17),  # PCIDE
    18: (_BASIC, _ECX, 26),  # OSXSAVE
    20: (_STRUCTURED, _EBX, 7),  # SMEP
    21: (_STRUCTURED, _EBX, 20),  # SMAP
    22: (_STRUCTURED, _ECX, 3),  # PKE
    23: (_STRUCTURED, _ECX, 7),  # CET
}
_CR4_ALWAYS: Final = 1 << 8  # PCE
_EFER: Final = {
    0: (_EXTENDED, _EDX, 11),  # SCE
    8: (_EXTENDED, _EDX, 29),  # LME
    10: (_EXTENDED, _EDX, 29),  # LMA
    11: (_EXTENDED, _EDX, 20),  # NXE
    12: (_EXTENDED, _ECX, 2),  # SVME
    13: (_EXTENDED, _EDX, 29),  # LMSLE; CPUID can only deny it
    14: (_EXTENDED, _EDX, 25),  # FFXSR
    15: (_EXTENDED, _ECX, 17),  # TCE
    17: (_SIZES, _EBX, 8),  # MCOMMIT
    18: (_SIZES, _EBX, 13),  # INTWB
    20: (_EXTENDED_2, _EAX, 7),  # UAIE
    21: (_EXTENDED_2, _EAX, 8),  # AIBRSE
}
_ENCRYPTION: Final = 0x8000_001F
_NO_LMSLE: Final = (_SIZES, _EBX, 20)


def processor_of(leaves: Leaves, *, host_paging: bool = True) -> SvmProcessor:
    """The processor that reports these leaves; a leaf that is not given counts as zeros."""

    def has(leaf: int, register: int, bit: int) -> bool:
        return bool(leaves.get((leaf, 0), (0, 0, 0, 0))[register] >> bit & 1)

    cr4 = sum(1 << number for number, flag in _CR4.items() if has(*flag))
    efer = sum(1 << number for number, flag in _EFER.items() if has(*flag))
    return SvmProcessor(
        maxphyaddr=leaves.get((_SIZES, 0), (0, 0, 0, 0))[_EAX] & 0xFF or None,
        flush_by_asid=has(_SVM, _EDX, 6),
        long_mode=has(_EXTENDED, _EDX, 29),
        cet=has(_STRUCTURED, _ECX, 7),
        host_paging=host_paging,
        vnmi=has(_SVM, _EDX, 25),
        sev=has(_ENCRYPTION, _EAX, 1),
        ibt=has(_STRUCTURED, _EDX, 20),
        gmet=has(_SVM, _EDX, 17),
        sss=has(_SVM, _EDX, 19),
        bus_lock_threshold=has(_SVM, _EDX, 29),
        efer=efer & ~(has(*_NO_LMSLE) << 13),
        cr4=cr4 | _CR4_ALWAYS,
    )


_BY_CPUID: Final = {"efer": 0x36_8000, "cr4": 0xC2_1000}
"""Bits that only some generations have: TCE, MCOMMIT, INTWB, UAIE, AIBRS; LA57, PCIDE, PKE, CET."""


def by_cpuid(register: Literal["efer", "cr4"], processor: SvmProcessor) -> int:
    """The bits of a register of which only CPUID tells whether a processor has them; CET's may be known.

    >>> hex(by_cpuid("cr4", SvmProcessor())), hex(by_cpuid("cr4", SvmProcessor(cet=True)))
    ('0xc21000', '0x421000')
    """
    known = 1 << 23 if register == "cr4" and processor.cet else 0
    return _BY_CPUID[register] & ~known
