"""Guest control registers, debug registers and MSRs (E.3.1.1)."""

from __future__ import annotations

from popek.architectures.vtx.capabilities import ONES64
from popek.architectures.vtx.view import (
    Decision,
    View,
    both,
    canonical,
    either,
    extended,
    fixed,
    implies,
    memory_types,
    off,
    on,
)

from .faulty_bits import fixed_bits, free_cr0, reserved_bits
from .host_state import CANONICAL, FIXED
from .registry import IA32E, INTEL64, NOT_IA32E, CheckGroup, Condition, checker, control, no_check, refuses

check = checker(
    CheckGroup("guest-control-registers", "Guest control registers and MSRs", refuses(0), stage=2)
)

_NW_CD = 3 << 29
_PG_PE = 1 << 31 | 1


def _cr0_fixed(v: View) -> Decision:
    """CR0 against the fixed bits; NW and CD are free, PE and PG too for an unrestricted guest."""
    strict = fixed(v.GUEST_CR0, v.cap.cr0_must & ~_NW_CD, v.cap.cr0_may | _NW_CD)
    free = _NW_CD | _PG_PE
    # The secondary controls, which may be unknown, matter only where PE and PG alone make the difference.
    return either(
        strict,
        lambda: both(fixed(v.GUEST_CR0, v.cap.cr0_must & ~free, v.cap.cr0_may | free), lambda: v.ug),
    )


check(
    "GUEST-CR-01",
    (),
    _cr0_fixed,
    FIXED.format("GUEST_CR0", "cr0"),
    note=fixed_bits("GUEST_CR0", "cr0_must", "cr0_may", free_cr0),
)
check(
    "GUEST-CR-02",
    (),
    lambda v: v.GUEST_CR0 & 0x8000_0001 != 0x8000_0000,
    "{GUEST_CR0}: PG (bit 31) needs PE (bit 0)",
)
check(
    "GUEST-CR-03",
    (),
    lambda v: fixed(v.GUEST_CR4, v.cap.cr4_must, v.cap.guest_cr4_may),
    FIXED.format("GUEST_CR4", "cr4"),
    note=fixed_bits("GUEST_CR4", "cr4_must", "guest_cr4_may"),
)
check(
    "GUEST-CR-04",
    (),
    lambda v: implies(on(v.GUEST_CR4, 23), on(v.GUEST_CR0, 16)),
    "CR4.CET (bit 23) needs CR0.WP (bit 16): {GUEST_CR4}, {GUEST_CR0}",
)
LOAD_DEBUG = control("entry", 2)
check(
    "GUEST-CR-05",
    (LOAD_DEBUG,),
    lambda v: v.GUEST_IA32_DEBUGCTL & v.cap.debugctl_reserved == 0,
    "{GUEST_IA32_DEBUGCTL} has reserved bits ({debugctl_reserved})",
    note=reserved_bits("GUEST_IA32_DEBUGCTL", "debugctl_reserved"),
)
check(
    "GUEST-CR-06",
    (IA32E,),
    lambda v: on(v.GUEST_CR0, 31) & on(v.GUEST_CR4, 5),
    "an IA-32e mode guest needs CR0.PG (bit 31) and CR4.PAE (bit 5): {GUEST_CR0}, {GUEST_CR4}",
)
check(
    "GUEST-CR-07",
    (NOT_IA32E,),
    lambda v: off(v.GUEST_CR4, 17),
    "{GUEST_CR4}: PCIDE (bit 17) needs an IA-32e mode guest",
)
check(
    "GUEST-CR-08",
    (NOT_IA32E,),
    lambda v: off(v.GUEST_CR4, 32),
    "{GUEST_CR4}: FRED (bit 32) needs an IA-32e mode guest",
)
check(
    "GUEST-CR-09",
    (INTEL64,),
    lambda v: v.GUEST_CR3 & v.cap.cr3_reserved == 0,
    "{GUEST_CR3} has bits at or above the physical-address width ({maxphyaddr}); bit 63 (no flush) does not "
    "belong in this field",
)
check(
    "GUEST-CR-10",
    (LOAD_DEBUG, INTEL64),
    lambda v: v.GUEST_DR7 >> 32 == 0,
    "{GUEST_DR7} must have bits 63:32 clear",
)


def _canonical(check_id: str, gate: Condition, field: str) -> None:
    check(check_id, (gate,), lambda v: canonical(v, getattr(v, field)), CANONICAL.format(field))


_canonical("GUEST-CR-11", INTEL64, "GUEST_IA32_SYSENTER_ESP")
_canonical("GUEST-CR-12", INTEL64, "GUEST_IA32_SYSENTER_EIP")
no_check("GUEST-CR-13", "any value of these fields is accepted")

# -- MSRs --------------------------------------------------------------------------------

check(
    "GUEST-MSR-01",
    (
        control("entry", 13),
        Condition("GUEST_IA32_PERF_GLOBAL_CTRL is not 0", lambda v: v.GUEST_IA32_PERF_GLOBAL_CTRL != 0),
    ),
    lambda v: v.GUEST_IA32_PERF_GLOBAL_CTRL & v.cap.perf_global_ctrl_reserved == 0,
    "{GUEST_IA32_PERF_GLOBAL_CTRL} has reserved bits ({perf_global_ctrl_reserved})",
    note=reserved_bits("GUEST_IA32_PERF_GLOBAL_CTRL", "perf_global_ctrl_reserved"),
)
check(
    "GUEST-MSR-02",
    (control("entry", 14),),
    lambda v: memory_types(v.GUEST_IA32_PAT),
    "{GUEST_IA32_PAT}: each byte must be a memory type (0, 1, 4, 5, 6 or 7)",
)
LOAD_EFER = control("entry", 15)
check(
    "GUEST-MSR-03",
    (LOAD_EFER,),
    lambda v: v.GUEST_IA32_EFER & v.cap.efer_reserved == 0,
    "{GUEST_IA32_EFER} has reserved bits ({efer_reserved})",
    note=reserved_bits("GUEST_IA32_EFER", "efer_reserved"),
)
check(
    "GUEST-MSR-04",
    (LOAD_EFER,),
    lambda v: (v.GUEST_IA32_EFER >> 10 ^ v.ENTRY_CONTROLS >> 9) & 1 == 0,
    "{GUEST_IA32_EFER}: LMA (bit 10) must equal 'IA-32e mode guest' (bit 9) of {ENTRY_CONTROLS}",
)
check(
    "GUEST-MSR-05",
    (LOAD_EFER, Condition("guest CR0.PG = 1", lambda v: v.GUEST_CR0 & 1 << 31 != 0)),
    lambda v: (v.GUEST_IA32_EFER >> 10 ^ v.GUEST_IA32_EFER >> 8) & 1 == 0,
    "{GUEST_IA32_EFER}: LMA (bit 10) must equal LME (bit 8) while paging is on",
)
check(
    "GUEST-MSR-06",
    (control("entry", 16),),
    lambda v: (v.GUEST_IA32_BNDCFGS & 0xFFC == 0) & canonical(v, v.GUEST_IA32_BNDCFGS),
    "{GUEST_IA32_BNDCFGS} must have bits 11:2 clear and a canonical bound-directory address",
)
check(
    "GUEST-MSR-07",
    (
        control("entry", 18),
        Condition("GUEST_IA32_RTIT_CTL is not 0", lambda v: v.GUEST_IA32_RTIT_CTL != 0),
    ),
    lambda v: v.GUEST_IA32_RTIT_CTL & v.cap.rtit_ctl_reserved == 0,
    "{GUEST_IA32_RTIT_CTL} has reserved bits ({rtit_ctl_reserved})",
    note=reserved_bits("GUEST_IA32_RTIT_CTL", "rtit_ctl_reserved"),
)
LOAD_CET = control("entry", 20)
check(
    "GUEST-MSR-08",
    (LOAD_CET,),
    lambda v: (
        (v.GUEST_IA32_S_CET & 0x3C0 == 0)
        & (v.GUEST_IA32_S_CET & 0xC00 != 0xC00)
        & canonical(v, v.GUEST_IA32_S_CET)
    ),
    "{GUEST_IA32_S_CET} must have bits 9:6 clear, not both bits 10 and 11 set, and a canonical address",
)
check("GUEST-MSR-09", (LOAD_CET,), lambda v: v.GUEST_SSP & 3 == 0, "{GUEST_SSP} must have bits 1:0 clear")
check(
    "GUEST-MSR-10",
    (LOAD_CET,),
    lambda v: extended(v, v.GUEST_SSP) & (v.ia32e | (v.GUEST_SSP >> 32 == 0)),
    "{GUEST_SSP} must have equal bits above the linear-address width ({linear_address_width}), and bits "
    "63:32 clear outside IA-32e mode",
)
_canonical("GUEST-MSR-11", LOAD_CET, "GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR")
check(
    "GUEST-MSR-12",
    (control("entry", 21),),
    lambda v: v.GUEST_IA32_LBR_CTL & (ONES64 & -(1 << 23) | 0xFFF0) == 0,
    "{GUEST_IA32_LBR_CTL} must have bits 63:23 and 15:4 clear",
)
check(
    "GUEST-MSR-13",
    (control("entry", 22),),
    lambda v: v.GUEST_IA32_PKRS >> 32 == 0,
    "{GUEST_IA32_PKRS} must have bits 63:32 clear",
)
check(
    "GUEST-MSR-14",
    (control("entry", 19),),
    lambda v: v.GUEST_UINV & 0xFF00 == 0,
    "{GUEST_UINV} must have bits 15:8 clear",
)
LOAD_FRED = control("entry", 23)
check(
    "GUEST-MSR-15",
    (LOAD_FRED,),
    lambda v: (v.GUEST_IA32_FRED_CONFIG & 0x834 == 0) & canonical(v, v.GUEST_IA32_FRED_CONFIG),
    "{GUEST_IA32_FRED_CONFIG} must have bits 2, 5:4 and 11 clear and a canonical handler address",
)
check(
    "GUEST-MSR-16",
    (LOAD_FRED,),
    lambda v: (
        ((v.GUEST_IA32_FRED_RSP1 | v.GUEST_IA32_FRED_RSP2 | v.GUEST_IA32_FRED_RSP3) & 0x3F == 0)
        & canonical(v, v.GUEST_IA32_FRED_RSP1)
        & canonical(v, v.GUEST_IA32_FRED_RSP2)
        & canonical(v, v.GUEST_IA32_FRED_RSP3)
    ),
    "FRED stack pointers must be canonical with bits 5:0 clear: {GUEST_IA32_FRED_RSP1}, "
    "{GUEST_IA32_FRED_RSP2}, {GUEST_IA32_FRED_RSP3}",
)
check(
    "GUEST-MSR-17",
    (LOAD_FRED,),
    lambda v: (
        ((v.GUEST_IA32_FRED_SSP1 | v.GUEST_IA32_FRED_SSP2 | v.GUEST_IA32_FRED_SSP3) & 7 == 0)
        & canonical(v, v.GUEST_IA32_FRED_SSP1)
        & canonical(v, v.GUEST_IA32_FRED_SSP2)
        & canonical(v, v.GUEST_IA32_FRED_SSP3)
    ),
    "FRED shadow-stack pointers must be canonical with bits 2:0 clear: {GUEST_IA32_FRED_SSP1}, "
    "{GUEST_IA32_FRED_SSP2}, {GUEST_IA32_FRED_SSP3}",
)
check(
    "GUEST-MSR-18",
    (control("entry", 24),),
    lambda v: v.GUEST_IA32_SPEC_CTRL & v.cap.spec_ctrl_reserved == 0,
    "{GUEST_IA32_SPEC_CTRL} has reserved bits ({spec_ctrl_reserved})",
    note=reserved_bits("GUEST_IA32_SPEC_CTRL", "spec_ctrl_reserved"),
)
check(
    "GUEST-MSR-19",
    (LOAD_CET,),
    lambda v: v.ia32e | (v.GUEST_IA32_S_CET >> 32 == 0),
    "{GUEST_IA32_S_CET} must have bits 63:32 clear outside IA-32e mode ({ENTRY_CONTROLS})",
    certainty="may",
)
