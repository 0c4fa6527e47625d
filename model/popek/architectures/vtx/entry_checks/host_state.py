"""Host state: control registers and MSRs, segments and tables, address-space size (E.2.2 to E.2.4)."""

from __future__ import annotations

from popek.architectures.vtx.view import canonical, either, fixed, implies, memory_types, off, on, one_of

from .faulty_bits import fixed_bits, reserved_bits
from .registry import INTEL64, CheckGroup, Condition, Outcome, checker, control, fails, no_check

check = checker(CheckGroup("host-state", "Host-state area", fails(8), stage=1))

CANONICAL = "{{{0}}} must be canonical ({{linear_address_width}} linear-address bits)"
"""The message of a check for a canonical address."""

FIXED = "{{{0}}} breaks the fixed bits (must be 1: {{{1}_must}}, may be 1: {{{1}_may}})"
"""The message of a check of CR0 or CR4 against the capability MSRs."""

# -- control registers and MSRs ----------------------------------------------------------

check(
    "HOST-CR-01",
    (),
    lambda v: fixed(v.HOST_CR0, v.cap.cr0_must, v.cap.cr0_may),
    FIXED.format("HOST_CR0", "cr0"),
    note=fixed_bits("HOST_CR0", "cr0_must", "cr0_may"),
)
check(
    "HOST-CR-02",
    (),
    lambda v: fixed(v.HOST_CR4, v.cap.cr4_must, v.cap.cr4_may),
    FIXED.format("HOST_CR4", "cr4"),
    note=fixed_bits("HOST_CR4", "cr4_must", "cr4_may"),
)
check(
    "HOST-CR-03",
    (),
    lambda v: implies(on(v.HOST_CR4, 23), on(v.HOST_CR0, 16)),
    "CR4.CET (bit 23) needs CR0.WP (bit 16): {HOST_CR4}, {HOST_CR0}",
)
check(
    "HOST-CR-04",
    (INTEL64,),
    lambda v: v.HOST_CR3 & v.cap.host_cr3_reserved == 0,
    "{HOST_CR3} has bits at or above the physical-address width ({maxphyaddr})",
)


def _canonical(check_id: str, gate: Condition, field: str) -> None:
    check(check_id, (gate,), lambda v: canonical(v, getattr(v, field)), CANONICAL.format(field))


_canonical("HOST-CR-05", INTEL64, "HOST_IA32_SYSENTER_ESP")
_canonical("HOST-CR-06", INTEL64, "HOST_IA32_SYSENTER_EIP")
no_check("HOST-CR-07", "any value of HOST_IA32_SYSENTER_CS is accepted")
check(
    "HOST-MSR-01",
    (
        control("exit", 12),
        Condition("HOST_IA32_PERF_GLOBAL_CTRL is not 0", lambda v: v.HOST_IA32_PERF_GLOBAL_CTRL != 0),
    ),
    lambda v: v.HOST_IA32_PERF_GLOBAL_CTRL & v.cap.perf_global_ctrl_reserved == 0,
    "{HOST_IA32_PERF_GLOBAL_CTRL} has reserved bits ({perf_global_ctrl_reserved})",
    note=reserved_bits("HOST_IA32_PERF_GLOBAL_CTRL", "perf_global_ctrl_reserved"),
)
check(
    "HOST-MSR-02",
    (control("exit", 19),),
    lambda v: memory_types(v.HOST_IA32_PAT),
    "{HOST_IA32_PAT}: each byte must be a memory type (0, 1, 4, 5, 6 or 7)",
)
no_check("HOST-MSR-18", "any value of HOST_IA32_FRED_STKLVLS is accepted")
LOAD_EFER = control("exit", 21)
check(
    "HOST-MSR-03",
    (LOAD_EFER,),
    lambda v: v.HOST_IA32_EFER & v.cap.efer_reserved == 0,
    "{HOST_IA32_EFER} has reserved bits ({efer_reserved})",
    note=reserved_bits("HOST_IA32_EFER", "efer_reserved"),
)
check(
    "HOST-MSR-04",
    (LOAD_EFER,),
    lambda v: (v.HOST_IA32_EFER >> 10 ^ v.EXIT_CONTROLS >> 9) & 1 == 0,
    "{HOST_IA32_EFER}: LMA (bit 10) must equal 'host address-space size' (bit 9) of {EXIT_CONTROLS}",
)
check(
    "HOST-MSR-05",
    (LOAD_EFER,),
    lambda v: (v.HOST_IA32_EFER >> 8 ^ v.EXIT_CONTROLS >> 9) & 1 == 0,
    "{HOST_IA32_EFER}: LME (bit 8) must equal 'host address-space size' (bit 9) of {EXIT_CONTROLS}",
)
LOAD_CET = control("exit", 28)
check(
    "HOST-MSR-06",
    (LOAD_CET,),
    lambda v: (v.HOST_IA32_S_CET & 0x3C0 == 0) & (v.HOST_IA32_S_CET & 0xC00 != 0xC00),
    "{HOST_IA32_S_CET} must have bits 9:6 clear, and not both bits 10 and 11 set",
)
_canonical("HOST-MSR-07", LOAD_CET, "HOST_IA32_S_CET")
check(
    "HOST-MSR-08",
    (LOAD_CET,),
    lambda v: v.HOST_SSP & 3 == 0,
    "{HOST_SSP} must have bits 1:0 clear",
)
_canonical("HOST-MSR-09", LOAD_CET, "HOST_SSP")
_canonical("HOST-MSR-10", LOAD_CET, "HOST_IA32_INTERRUPT_SSP_TABLE_ADDR")
HOST_32 = control("exit", 9, 0)
HOST_64 = control("exit", 9)
check(
    "HOST-MSR-11",
    (LOAD_CET, HOST_32),
    lambda v: (v.HOST_IA32_S_CET >> 32 == 0) & (v.HOST_SSP >> 32 == 0),
    "{HOST_IA32_S_CET} and {HOST_SSP} must have bits 63:32 clear for a 32-bit host",
)
check(
    "HOST-MSR-12",
    (control("exit", 29),),
    lambda v: v.HOST_IA32_PKRS >> 32 == 0,
    "{HOST_IA32_PKRS} must have bits 63:32 clear",
)
LOAD_FRED = control("exit2", 1)
check(
    "HOST-MSR-13",
    (LOAD_FRED,),
    lambda v: (v.HOST_IA32_FRED_CONFIG & 0x834 == 0) & canonical(v, v.HOST_IA32_FRED_CONFIG),
    "{HOST_IA32_FRED_CONFIG} must have bits 2, 5:4 and 11 clear and a canonical handler address",
)
check(
    "HOST-MSR-14",
    (LOAD_FRED,),
    lambda v: (
        ((v.HOST_IA32_FRED_RSP1 | v.HOST_IA32_FRED_RSP2 | v.HOST_IA32_FRED_RSP3) & 0x3F == 0)
        & canonical(v, v.HOST_IA32_FRED_RSP1)
        & canonical(v, v.HOST_IA32_FRED_RSP2)
        & canonical(v, v.HOST_IA32_FRED_RSP3)
    ),
    "FRED stack pointers must be canonical with bits 5:0 clear: {HOST_IA32_FRED_RSP1}, "
    "{HOST_IA32_FRED_RSP2}, {HOST_IA32_FRED_RSP3}",
)
check(
    "HOST-MSR-15",
    (LOAD_FRED,),
    lambda v: (
        ((v.HOST_IA32_FRED_SSP1 | v.HOST_IA32_FRED_SSP2 | v.HOST_IA32_FRED_SSP3) & 7 == 0)
        & canonical(v, v.HOST_IA32_FRED_SSP1)
        & canonical(v, v.HOST_IA32_FRED_SSP2)
        & canonical(v, v.HOST_IA32_FRED_SSP3)
    ),
    "FRED shadow-stack pointers must be canonical with bits 2:0 clear: {HOST_IA32_FRED_SSP1}, "
    "{HOST_IA32_FRED_SSP2}, {HOST_IA32_FRED_SSP3}",
)
check(
    "HOST-MSR-16",
    (control("exit2", 2),),
    lambda v: v.HOST_IA32_SPEC_CTRL & v.cap.spec_ctrl_reserved == 0,
    "{HOST_IA32_SPEC_CTRL} has reserved bits ({spec_ctrl_reserved})",
    note=reserved_bits("HOST_IA32_SPEC_CTRL", "spec_ctrl_reserved"),
)
no_check("HOST-MSR-17", "there is no host field; the control only clears the MSR")

# -- segments and descriptor tables ------------------------------------------------------

for _number, _segment in enumerate(("CS", "SS", "DS", "ES", "FS", "GS", "TR"), 1):
    check(
        f"HOST-SEG-{_number:02}",
        (),
        lambda v, field=f"HOST_{_segment}_SELECTOR": getattr(v, field) & 7 == 0,
        f"{{HOST_{_segment}_SELECTOR}} must have RPL (bits 1:0) and TI (bit 2) clear",
    )
check("HOST-SEG-08", (), lambda v: v.HOST_CS_SELECTOR != 0, "{HOST_CS_SELECTOR} must not be 0")
check("HOST-SEG-09", (), lambda v: v.HOST_TR_SELECTOR != 0, "{HOST_TR_SELECTOR} must not be 0")
check(
    "HOST-SEG-10",
    (HOST_32,),
    lambda v: v.HOST_SS_SELECTOR != 0,
    "{HOST_SS_SELECTOR} must not be 0 for a 32-bit host",
)
for _number, _base in enumerate(("FS", "GS", "TR", "GDTR", "IDTR"), 11):
    _canonical(f"HOST-SEG-{_number}", INTEL64, f"HOST_{_base}_BASE")

# -- address-space size ------------------------------------------------------------------

IN_32 = Condition("the instruction runs with IA32_EFER.LMA = 0", lambda v: not v.efer_lma)
IN_64 = Condition("the instruction runs with IA32_EFER.LMA = 1", lambda v: v.efer_lma)

check(
    "HOST-ASZ-01",
    (IN_32,),
    lambda v: off(v.ENTRY_CONTROLS, 9),
    "{ENTRY_CONTROLS}: 'IA-32e mode guest' (bit 9) from outside IA-32e mode",
)
check(
    "HOST-ASZ-02",
    (IN_32,),
    lambda v: off(v.EXIT_CONTROLS, 9),
    "{EXIT_CONTROLS}: 'host address-space size' (bit 9) from outside IA-32e mode",
)
check(
    "HOST-ASZ-03",
    (IN_64,),
    lambda v: on(v.EXIT_CONTROLS, 9),
    "{EXIT_CONTROLS}: 'host address-space size' (bit 9) must be 1 in IA-32e mode",
)
check(
    "HOST-ASZ-04",
    (HOST_32,),
    lambda v: off(v.ENTRY_CONTROLS, 9),
    "{ENTRY_CONTROLS}: 'IA-32e mode guest' (bit 9) needs a 64-bit host ({EXIT_CONTROLS})",
)
check(
    "HOST-ASZ-05",
    (HOST_32,),
    lambda v: off(v.HOST_CR4, 17),
    "{HOST_CR4}: PCIDE (bit 17) needs a 64-bit host",
)
check(
    "HOST-ASZ-06",
    (HOST_32,),
    lambda v: v.HOST_RIP >> 32 == 0,
    "{HOST_RIP} must have bits 63:32 clear for a 32-bit host",
)
check(
    "HOST-ASZ-07",
    (HOST_32,),
    lambda v: off(v.HOST_CR4, 32),
    "{HOST_CR4}: FRED (bit 32) needs a 64-bit host",
)
check(
    "HOST-ASZ-08",
    (HOST_64,),
    lambda v: on(v.HOST_CR4, 5),
    "{HOST_CR4}: PAE (bit 5) must be 1 for a 64-bit host",
)
check(
    "HOST-ASZ-09",
    (HOST_64,),
    lambda v: canonical(v, v.HOST_RIP),
    CANONICAL.format("HOST_RIP") + " and, on some processors, with those that HOST_CR4.LA57 (bit 12) gives",
    # Canonical with 57 bits and not with 48: processors differ on whether CR4.LA57 of the host has a say.
    doubt=lambda v: either(one_of(v.HOST_RIP >> 47, (0, 0x1_FFFF)), lambda: on(v.HOST_CR4, 12)),
)
no_check("HOST-ASZ-10", "any value of HOST_RSP is accepted")
check(
    "HOST-ASZ-11",
    (Condition("the processor does not support Intel 64", lambda v: not v.cap.intel64),),
    lambda v: off(v.ENTRY_CONTROLS, 9) & off(v.EXIT_CONTROLS, 9),
    "64-bit controls on a processor without Intel 64: {ENTRY_CONTROLS}, {EXIT_CONTROLS}",
    outcome=Outcome("vmfail-valid", errors=(7, 8)),
)
