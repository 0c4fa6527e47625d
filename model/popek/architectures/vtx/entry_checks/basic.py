"""Conditions on executing VMLAUNCH and VMRESUME, before any field is looked at (E.1), and SMM's own rules."""

from __future__ import annotations

from .registry import FAULT, INVALID, CheckGroup, Condition, checker, fails, no_check, not_modelled

check = checker(CheckGroup("basic", "Basic VM-entry checks", INVALID, stage=0))

VMLAUNCH = Condition("VMLAUNCH", lambda v: v.launch.instruction == "VMLAUNCH")
VMRESUME = Condition("VMRESUME", lambda v: v.launch.instruction == "VMRESUME")
SMM = Condition("the processor is in SMM", lambda v: v.launch.in_smm)

check(
    "PRE-01",
    (),
    lambda v: v.launch.vmx_root and v.launch.legal_mode,
    "VM entry needs VMX root operation, and neither compatibility, virtual-8086 nor real mode: #UD",
    outcome=FAULT,
)
check(
    "PRE-02",
    (),
    lambda v: v.launch.cpl == 0,
    "VM entry needs CPL 0: #GP(0)",
    outcome=FAULT,
)
check("PRE-03", (), lambda v: v.launch.has_current_vmcs, "there is no current VMCS")
check("PRE-04", (), lambda v: not v.launch.shadow_vmcs, "the current VMCS is a shadow VMCS")
check(
    "PRE-05",
    (),
    lambda v: not v.launch.mov_ss_blocking,
    "VM entry in the shadow of MOV SS or POP SS",
    outcome=fails(26),
)
check(
    "PRE-06",
    (VMLAUNCH,),
    lambda v: v.launch.launch_state != "launched",
    "VMLAUNCH needs the launch state clear, and it is launched",
    outcome=fails(4),
)
check(
    "PRE-07",
    (VMRESUME,),
    lambda v: v.launch.launch_state != "clear",
    "VMRESUME needs the launch state launched, and it is clear",
    outcome=fails(5),
)
check(
    "PRE-08",
    (VMRESUME,),
    lambda v: not v.launch.vmxoff_since_launch,
    "VMRESUME of a VMCS that was launched before the latest VMXOFF",
    outcome=fails(6),
    certainty="may",
)
not_modelled("PRE-09", "a condition of VMXON, not of VM entry: an entry that is tried has passed it")
no_check("LATE-02", "a preemption timer of 0 does not fail the entry; VM exit 52 follows at once")
no_check("LATE-03", "the entry succeeds; VM exit 43 follows")
no_check("LATE-04", "the entry succeeds; the event follows")
not_modelled("LATE-01", "a machine check is an event, not a property of the VMCS")

check(
    "SMM-01",
    (SMM, Condition("entry[10] = 0", lambda v: v.ENTRY_CONTROLS & 0x400 == 0)),
    lambda v: (
        (v.EXECUTIVE_VMCS_PTR & (v.cap.beyond | 0xFFF) == 0)
        and v.read(v.EXECUTIVE_VMCS_PTR, 4) & 0x7FFF_FFFF == v.cap.revision
    ),
    "return from SMM: {EXECUTIVE_VMCS_PTR} is misaligned, too wide or names no VMCS of this processor",
    outcome=fails(16),
)
not_modelled("SMM-02", "the launch state of the executive VMCS is hidden from software")
check(
    "SMM-03",
    (SMM, Condition("entry[11] = 1", lambda v: v.ENTRY_CONTROLS & 0x800 != 0)),
    lambda v: v.vmxon_pointer == v.EXECUTIVE_VMCS_PTR,
    "deactivating the dual-monitor treatment needs {EXECUTIVE_VMCS_PTR} to be the VMXON pointer",
    outcome=fails(18),
)
not_modelled("SMM-04", "looks at another VMCS, the executive one; judge that one by itself")
