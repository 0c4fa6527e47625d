"""Guest RIP and RFLAGS (E.3.1.4)."""

from __future__ import annotations

from popek.architectures.vtx.view import extended, off, on

from .registry import IA32E, CheckGroup, Condition, checker, refuses

check = checker(CheckGroup("guest-rip-rflags", "Guest RIP and RFLAGS", refuses(0), stage=2))

_RESERVED = 0xFFFF_FFFF_FFC0_8028  # bits 63:22, 15, 5, 3

check(
    "GUEST-RIP-01",
    (
        Condition(
            "IA-32e mode guest = 0 or CS.L = 0",
            lambda v: (v.ENTRY_CONTROLS & 0x200 == 0) | (v.GUEST_CS_ACCESS_RIGHTS & 0x2000 == 0),
        ),
    ),
    lambda v: v.GUEST_RIP >> 32 == 0,
    "{GUEST_RIP} must have bits 63:32 clear outside 64-bit mode",
)
check(
    "GUEST-RIP-02",
    (IA32E, Condition("CS.L = 1", lambda v: v.GUEST_CS_ACCESS_RIGHTS & 0x2000 != 0)),
    lambda v: extended(v, v.GUEST_RIP),
    "{GUEST_RIP} must have equal bits above the linear-address width ({linear_address_width})",
)
check(
    "GUEST-RFL-01",
    (),
    lambda v: v.GUEST_RFLAGS & _RESERVED == 0,
    "{GUEST_RFLAGS} must have bits 63:22, 15, 5 and 3 clear",
)
check("GUEST-RFL-02", (), lambda v: on(v.GUEST_RFLAGS, 1), "{GUEST_RFLAGS} must have bit 1 set")
check(
    "GUEST-RFL-03",
    (IA32E,),
    lambda v: off(v.GUEST_RFLAGS, 17),
    "{GUEST_RFLAGS}: VM (bit 17) must be 0 for an IA-32e mode guest",
)
check(
    "GUEST-RFL-04",
    (Condition("guest CR0.PE = 0", lambda v: v.GUEST_CR0 & 1 == 0),),
    lambda v: off(v.GUEST_RFLAGS, 17),
    "{GUEST_RFLAGS}: VM (bit 17) must be 0 in real mode ({GUEST_CR0})",
)
check(
    "GUEST-RFL-05",
    (Condition("an external interrupt is injected", lambda v: v.injects_interrupt),),
    lambda v: on(v.GUEST_RFLAGS, 9),
    "{GUEST_RFLAGS}: IF (bit 9) must be 1 to inject an external interrupt ({ENTRY_INTR_INFO})",
)
