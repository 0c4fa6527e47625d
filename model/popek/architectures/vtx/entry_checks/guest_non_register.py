"""Guest non-register state: activity, interruptibility, pending debug exceptions, link pointer (E.3.1.5)."""

from __future__ import annotations

from popek.architectures.vtx.view import Decision, View, either, off, on

from .registry import FRED, INJECTION, CheckGroup, Condition, checker, control, no_check, refuses

check = checker(CheckGroup("guest-non-register", "Guest non-register state", refuses(0), stage=2))

HLT = Condition("activity state = HLT", lambda v: v.GUEST_ACTIVITY_STATE == 1)
SHUTDOWN = Condition("activity state = shutdown", lambda v: v.GUEST_ACTIVITY_STATE == 2)
WAIT_FOR_SIPI = Condition("activity state = wait-for-SIPI", lambda v: v.GUEST_ACTIVITY_STATE == 3)
SHADOW = Condition("blocking by STI or by MOV SS", lambda v: v.GUEST_INTERRUPTIBILITY & 3 != 0)
INTERRUPT = Condition("an external interrupt is injected", lambda v: v.injects_interrupt)
NMI = Condition("an NMI is injected", lambda v: v.injects_nmi)
TO_SMM = control("entry", 10)


def _activity_supported(v: View) -> Decision:
    """Whether the state is active, or one that IA32_VMX_MISC lists."""
    state = v.GUEST_ACTIVITY_STATE

    def listed() -> Decision:
        return (
            ((state == 1) & on(v.cap.misc, 6))
            | ((state == 2) & on(v.cap.misc, 7))
            | ((state == 3) & on(v.cap.misc, 8))
        )

    return either(state == 0, listed)


check(
    "GUEST-ACT-01",
    (),
    _activity_supported,
    "{GUEST_ACTIVITY_STATE} must be 0 to 3 and supported (1, 2, 3: bits 6, 7, 8 of {misc})",
)
check(
    "GUEST-ACT-02",
    (HLT,),
    lambda v: v.ss_dpl == 0,
    "{GUEST_ACTIVITY_STATE} (HLT) needs DPL 0 in {GUEST_SS_ACCESS_RIGHTS} (bits 6:5)",
)
check(
    "GUEST-ACT-03",
    (SHADOW,),
    lambda v: v.GUEST_ACTIVITY_STATE == 0,
    "{GUEST_ACTIVITY_STATE} must be 0 (active) with blocking by STI or MOV SS ({GUEST_INTERRUPTIBILITY})",
)
check(
    "GUEST-ACT-04",
    (HLT, INJECTION),
    lambda v: (
        v.injects_interrupt
        | v.injects_nmi
        | (v.injects_exception & ((v.vector == 1) | (v.vector == 18)))
        | (v.injects_other & (v.vector == 0))
    ),
    "{ENTRY_INTR_INFO}: in HLT only an interrupt, an NMI, #DB, #MC or a pending MTF can be injected",
)
check(
    "GUEST-ACT-05",
    (SHUTDOWN, INJECTION),
    lambda v: (v.injects_nmi & (v.vector == 2)) | (v.injects_exception & (v.vector == 18)),
    "{ENTRY_INTR_INFO}: in the shutdown state only an NMI or #MC can be injected",
)
check(
    "GUEST-ACT-06",
    (WAIT_FOR_SIPI,),
    lambda v: off(v.ENTRY_INTR_INFO, 31),
    "{ENTRY_INTR_INFO}: nothing can be injected in the wait-for-SIPI state",
)
check(
    "GUEST-ACT-07",
    (TO_SMM,),
    lambda v: v.GUEST_ACTIVITY_STATE != 3,
    "{GUEST_ACTIVITY_STATE} (wait-for-SIPI) excludes 'entry to SMM'",
)

# -- interruptibility --------------------------------------------------------------------

ENCLAVE = Condition("enclave interruption (bit 4) = 1", lambda v: v.GUEST_INTERRUPTIBILITY & 0x10 != 0)

check(
    "GUEST-INT-01",
    (),
    lambda v: v.GUEST_INTERRUPTIBILITY & 0xFFFF_FFE0 == 0,
    "{GUEST_INTERRUPTIBILITY} must have bits 31:5 clear",
)
check(
    "GUEST-INT-02",
    (),
    lambda v: v.GUEST_INTERRUPTIBILITY & 3 != 3,
    "{GUEST_INTERRUPTIBILITY}: blocking by STI (bit 0) and by MOV SS (bit 1) exclude each other",
)
check(
    "GUEST-INT-03",
    (Condition("RFLAGS.IF = 0", lambda v: v.GUEST_RFLAGS & 0x200 == 0),),
    lambda v: off(v.GUEST_INTERRUPTIBILITY, 0),
    "{GUEST_INTERRUPTIBILITY}: blocking by STI (bit 0) needs RFLAGS.IF (bit 9): {GUEST_RFLAGS}",
)
check(
    "GUEST-INT-04",
    (INTERRUPT,),
    lambda v: v.GUEST_INTERRUPTIBILITY & 3 == 0,
    "{GUEST_INTERRUPTIBILITY}: an interrupt is injected while blocked by STI or MOV SS ({ENTRY_INTR_INFO})",
)
check(
    "GUEST-INT-05",
    (NMI,),
    lambda v: off(v.GUEST_INTERRUPTIBILITY, 1),
    "{GUEST_INTERRUPTIBILITY}: an NMI is injected while blocked by MOV SS (bit 1)",
)
check(
    "GUEST-INT-06",
    (NMI,),
    lambda v: off(v.GUEST_INTERRUPTIBILITY, 0),
    "{GUEST_INTERRUPTIBILITY}: an NMI is injected while blocked by STI (bit 0); some processors refuse this",
    outcome=refuses(3),
    certainty="may",
)
check(
    "GUEST-INT-07",
    (Condition("the processor is not in SMM", lambda v: not v.launch.in_smm),),
    lambda v: off(v.GUEST_INTERRUPTIBILITY, 2),
    "{GUEST_INTERRUPTIBILITY}: blocking by SMI (bit 2) outside SMM",
)
check(
    "GUEST-INT-08",
    (TO_SMM,),
    lambda v: on(v.GUEST_INTERRUPTIBILITY, 2),
    "{GUEST_INTERRUPTIBILITY}: 'entry to SMM' needs blocking by SMI (bit 2)",
)
check(
    "GUEST-INT-09",
    (control("pin", 5), NMI),
    lambda v: off(v.GUEST_INTERRUPTIBILITY, 3),
    "{GUEST_INTERRUPTIBILITY}: an NMI is injected while virtual NMIs are blocked (bit 3)",
)
check(
    "GUEST-INT-10",
    (ENCLAVE,),
    lambda v: off(v.GUEST_INTERRUPTIBILITY, 1),
    "{GUEST_INTERRUPTIBILITY}: enclave interruption (bit 4) excludes blocking by MOV SS (bit 1)",
)
check(
    "GUEST-INT-11",
    (ENCLAVE,),
    lambda v: v.cap.sgx,
    "{GUEST_INTERRUPTIBILITY}: enclave interruption (bit 4) on a processor without SGX",
)
check(
    "GUEST-INT-12",
    (FRED, Condition("SS.DPL = 3", lambda v: v.ss_dpl == 3)),
    lambda v: off(v.GUEST_INTERRUPTIBILITY, 0),
    "{GUEST_INTERRUPTIBILITY}: blocking by STI (bit 0) in ring 3 with CR4.FRED ({GUEST_SS_ACCESS_RIGHTS})",
)

# -- pending debug exceptions ------------------------------------------------------------

_BUS_LOCK = 1 << 11
_RESERVED = 0xFFFF_FFFF_FFFE_A7F0  # bits 63:17, 15, 13 and 10:4
SINGLE_STEP_GATE = Condition(
    "blocking by STI or MOV SS, or activity state = HLT",
    lambda v: (v.GUEST_INTERRUPTIBILITY & 3 != 0) | (v.GUEST_ACTIVITY_STATE == 1),
)
RTM = Condition("pending RTM (bit 16) = 1", lambda v: v.GUEST_PENDING_DEBUG_EXCEPTIONS & 0x1_0000 != 0)


def _bus_lock_legal(v: View) -> Decision:
    pending = v.GUEST_PENDING_DEBUG_EXCEPTIONS
    return either(pending & _BUS_LOCK == 0, lambda: v.cap.bus_lock_detect)


def _single_steps(v: View) -> Decision:
    """Whether the guest single-steps by instructions: RFLAGS.TF = 1 and IA32_DEBUGCTL.BTF = 0."""
    return (v.GUEST_RFLAGS & 0x100 != 0) & (v.GUEST_IA32_DEBUGCTL & 2 == 0)


check(
    "GUEST-DBG-01",
    (),
    lambda v: (v.GUEST_PENDING_DEBUG_EXCEPTIONS & _RESERVED == 0) & _bus_lock_legal(v),
    "{GUEST_PENDING_DEBUG_EXCEPTIONS} must have bits 63:17, 15, 13 and 11:4 clear (bit 11 may be a bus lock)",
)
check(
    "GUEST-DBG-02",
    (SINGLE_STEP_GATE, Condition("RFLAGS.TF = 1 and IA32_DEBUGCTL.BTF = 0", _single_steps)),
    lambda v: on(v.GUEST_PENDING_DEBUG_EXCEPTIONS, 14),
    "{GUEST_PENDING_DEBUG_EXCEPTIONS}: BS (bit 14) must be 1 while single-stepping with "
    "{GUEST_INTERRUPTIBILITY}, {GUEST_ACTIVITY_STATE} ({GUEST_RFLAGS}, {GUEST_IA32_DEBUGCTL})",
)
check(
    "GUEST-DBG-03",
    (
        SINGLE_STEP_GATE,
        Condition(
            "RFLAGS.TF = 0 or IA32_DEBUGCTL.BTF = 1",
            lambda v: (v.GUEST_RFLAGS & 0x100 == 0) | (v.GUEST_IA32_DEBUGCTL & 2 != 0),
        ),
    ),
    lambda v: off(v.GUEST_PENDING_DEBUG_EXCEPTIONS, 14),
    "{GUEST_PENDING_DEBUG_EXCEPTIONS}: BS (bit 14) must be 0 without single-stepping ({GUEST_RFLAGS}, "
    "{GUEST_IA32_DEBUGCTL}) with {GUEST_INTERRUPTIBILITY}, {GUEST_ACTIVITY_STATE}",
)
check(
    "GUEST-DBG-04",
    (RTM,),
    lambda v: v.GUEST_PENDING_DEBUG_EXCEPTIONS == 0x1_1000,
    "{GUEST_PENDING_DEBUG_EXCEPTIONS}: with RTM (bit 16) bit 12 must be 1 and all others 0",
)
check(
    "GUEST-DBG-05",
    (RTM,),
    lambda v: v.cap.rtm,
    "{GUEST_PENDING_DEBUG_EXCEPTIONS}: RTM (bit 16) on a processor without RTM",
)
check(
    "GUEST-DBG-06",
    (RTM,),
    lambda v: off(v.GUEST_INTERRUPTIBILITY, 1),
    "{GUEST_PENDING_DEBUG_EXCEPTIONS}: RTM (bit 16) excludes blocking by MOV SS ({GUEST_INTERRUPTIBILITY})",
)

# -- VMCS link pointer -------------------------------------------------------------------

LINKED = Condition(
    "VMCS_LINK_POINTER is not all ones", lambda v: v.VMCS_LINK_POINTER != 0xFFFF_FFFF_FFFF_FFFF
)
_LINK = refuses(4)

no_check("GUEST-LINK-01", "says when the rows 02 to 06 apply")
check(
    "GUEST-LINK-02",
    (LINKED,),
    lambda v: v.VMCS_LINK_POINTER & 0xFFF == 0,
    "{VMCS_LINK_POINTER} must have bits 11:0 clear, or be all ones",
    outcome=_LINK,
)
check(
    "GUEST-LINK-03",
    (LINKED,),
    lambda v: v.VMCS_LINK_POINTER & v.cap.beyond == 0,
    "{VMCS_LINK_POINTER} must fit the processor's physical-address width ({maxphyaddr})",
    outcome=_LINK,
)
check(
    "GUEST-LINK-04",
    (LINKED,),
    lambda v: v.read(v.VMCS_LINK_POINTER, 4) & 0x7FFF_FFFF == v.cap.revision,
    "{VMCS_LINK_POINTER} names memory without this processor's VMCS revision identifier ({revision})",
    outcome=_LINK,
)
check(
    "GUEST-LINK-05",
    (LINKED,),
    lambda v: (v.read(v.VMCS_LINK_POINTER, 4) >> 31 ^ v.sec >> 14) & 1 == 0,
    "{VMCS_LINK_POINTER}: bit 31 of the memory it names must equal 'VMCS shadowing' (secondary[14])",
    outcome=_LINK,
)


def _other_vmcs(v: View) -> Decision:
    if not v.launch.in_smm:
        return v.current_vmcs != v.VMCS_LINK_POINTER
    into_smm = on(v.ENTRY_CONTROLS, 10)
    return (into_smm & (v.current_vmcs != v.VMCS_LINK_POINTER)) | (
        (into_smm == False) & (v.VMCS_LINK_POINTER != v.EXECUTIVE_VMCS_PTR)  # noqa: E712
    )


check(
    "GUEST-LINK-06",
    (LINKED,),
    _other_vmcs,
    "{VMCS_LINK_POINTER} must not be the current VMCS (in SMM: the executive VMCS)",
    outcome=_LINK,
)
