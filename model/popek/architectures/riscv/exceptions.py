"""Exceptions: their codes, and those that bring an address (privileged manual, "Machine Cause Register")."""

from __future__ import annotations

from typing import Final

from popek.kernel.outcome import Vector

FETCH_MISALIGNED: Final = Vector("instruction address misaligned", 0, 64)
ILLEGAL: Final = Vector("illegal instruction", 2)
BREAKPOINT: Final = Vector("breakpoint", 3, 64)
LOAD_MISALIGNED: Final = Vector("load address misaligned", 4, 64)
LOAD_ACCESS: Final = Vector("load access fault", 5, 64)
STORE_MISALIGNED: Final = Vector("store address misaligned", 6, 64)
STORE_ACCESS: Final = Vector("store access fault", 7, 64)
ECALL_U: Final = Vector("environment call from U or VU", 8)
ECALL_S: Final = Vector("environment call from S", 9)
ECALL_VS: Final = Vector("environment call from VS", 10)
ECALL_M: Final = Vector("environment call from M", 11)
LOAD_PAGE: Final = Vector("load page fault", 13, 64)
STORE_PAGE: Final = Vector("store page fault", 15, 64)
VIRTUAL: Final = Vector("virtual instruction", 22)

# With them come xtinst, xtval2 and xtval, 64 bits each.
LOAD_GUEST_PAGE: Final = Vector("load guest-page fault", 21, 192)
STORE_GUEST_PAGE: Final = Vector("store guest-page fault", 23, 192)

# HLV and HSV refer to guest virtual addresses with V = 0: their exceptions set GVA.
GUEST_LOAD_MISALIGNED: Final = Vector("load address misaligned, guest address", 4, 64)
GUEST_LOAD_ACCESS: Final = Vector("load access fault, guest address", 5, 64)
GUEST_STORE_MISALIGNED: Final = Vector("store address misaligned, guest address", 6, 64)
GUEST_STORE_ACCESS: Final = Vector("store access fault, guest address", 7, 64)
GUEST_LOAD_PAGE: Final = Vector("load page fault, guest address", 13, 64)
GUEST_STORE_PAGE: Final = Vector("store page fault, guest address", 15, 64)

OF_A_GUEST: Final = (
    GUEST_LOAD_MISALIGNED, GUEST_LOAD_ACCESS, GUEST_STORE_MISALIGNED, GUEST_STORE_ACCESS, GUEST_LOAD_PAGE,
    GUEST_STORE_PAGE,
)  # fmt: skip
GUEST_PAGE_FAULTS: Final = (LOAD_GUEST_PAGE.number, STORE_GUEST_PAGE.number)
"""Their xtval is a guest's address in any case."""
ON_STORAGE: Final = (4, 5, 6, 7, 13, 15)
"""The codes of loads and stores, which MPRV has a say in."""

# Which bits of the delegation registers exist is the implementation's choice, within what the manual demands.
MEDELEG_BITS: Final = 0xFCB7FE
"""Without C bit 0, too."""
WITH_H_ALONE: Final = 0xF00400
"""What there is with H alone: calls from VS, guest-page faults, virtual instructions."""
HEDELEG_BITS: Final = 0x0CB1FF
