"""What to do next where a text tells of a failed VM entry and holds no VMCS and no VMCB: in one line, by hypervisor."""

from __future__ import annotations

import re
from typing import Final

import attrs


@attrs.frozen
class NextStep:
    """How to get at the cause of a failure.

    Attributes:
        who: the hypervisor, as people call it.
        where: what a text of it has, all of them.
        step: what to do, in one line.
    """

    who: str
    where: tuple[re.Pattern[str], ...]
    step: str


def _step(who: str, *where: str, step: str) -> NextStep:
    return NextStep(who, tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in where), step)


KVM_INTEL: Final = (
    "load kvm_intel with dump_invalid_vmcs=1 (modprobe -r kvm_intel; modprobe kvm_intel dump_invalid_vmcs=1), fail "
    "again and give what dmesg prints; `rdmsr` of 480H to 493H tells of the processor"
)
KVM_AMD: Final = (
    "load kvm_amd with dump_invalid_vmcb=1 (modprobe -r kvm_amd; modprobe kvm_amd dump_invalid_vmcb=1), fail again and "
    "give `popek vmcb check` what dmesg prints; `cpuid -1 -r` tells of the processor"
)
XEN_INTEL: Final = "`xl dmesg` on the host prints the VMCS of a failed entry behind this line"
XEN_AMD: Final = (
    "`xl dmesg` on the host prints the VMCB behind this line, for `popek vmcb check`; `xl debug-keys v` prints those "
    "of all guests there"
)
VIRTUALBOX: Final = "set VBOX_LOG or look into VBox.log for the VMCS fields and the lines MSR_IA32_VMX_*"

_BHYVE: Final = (
    "`bhyvectl --vm=NAME --cpu=0 --get-all` prints the registers and the control fields of the guest that failed: give "
    "them as NAME = value lines"
)

STEPS: Final = (
    _step(
        "VirtualBox",
        r"VERR_(?:SVM_(?:NO_SVM|DISABLED|IN_USE)|VMX_(?:NO_VMX|IN_VMX_ROOT_MODE|MSR_\w+DISABLED|MSR_LOCKING_FAILED))",
        step="no entry was tried: the processor or the hypervisor below does not offer VT-x or AMD-V (NO_VMX, NO_SVM), "
        "the firmware disabled it (DISABLED), or another hypervisor uses it (IN_USE, IN_VMX_ROOT_MODE: unload KVM)",
    ),
    _step(
        "VirtualBox on AMD",
        r"VERR_SVM_|VINF_SVM_",
        step="give `popek vmcb check` the whole VBox.log of the machine (its folder Logs), with the guru meditation; "
        "under Linux, KVM with dump_invalid_vmcb=1 and the same guest prints the VMCB",
    ),
    _step(
        "VirtualBox",
        r"VERR_VMX_|VERR_HM_",
        step="give the whole VBox.log, which has the fields and the capability MSRs",
    ),
    _step(
        "bhyve on Intel",
        r"^\W*vm exit\[\d+\]",
        r"^\W*reason\s+VMX\b",
        step=f"{_BHYVE}; inst_error is VM_INSTRUCTION_ERROR",
    ),
    _step(
        "bhyve on AMD",
        r"^\W*vm exit\[\d+\]",
        r"^\W*reason\s+SVM\b",
        step=f"{_BHYVE} to `popek vmcb check`",
    ),
    _step("Xen on AMD", r"\(XEN\).*(?:VMEXIT_INVALID|\bsvm_|\bsvm\.c|vmcb)", step=XEN_AMD),
    _step("Xen", r"\(XEN\).*(?:vmx_|vmx\.c|vmcs|vmentry|vm entry)", step=XEN_INTEL),
    _step(
        "KVM in a guest of Hyper-V",
        r"hyper-?v|enlightened_vmcs",
        r"\bkvm",
        step="in that guest load kvm_intel with dump_invalid_vmcs=1 enlightened_vmcs=0 "
        "(or kvm_amd with dump_invalid_vmcb=1), fail again and give what dmesg prints; nested virtualization must be "
        "exposed to it (Set-VMProcessor -ExposeVirtualizationExtensions $true)",
    ),
    _step(
        "Hyper-V",
        r"Hyper-?V|hvix64|hvax64|\bVMWP\b|WHvRunVp|\bwhpx\b",
        step="Hyper-V prints no VMCS and no VMCB: its event log (Hyper-V-Worker, Admin) names the state that was "
        "refused; of a guest under WHPX, give its registers as QEMU's `info registers` prints them",
    ),
    _step("KVM on AMD", r"hardware error 0x(?:f{8}){1,2}\b|kvm_amd|SVM_EXIT_ERR", step=KVM_AMD),
    _step("KVM on Intel", r"kvm_intel|kvm: entry failed|hardware error 0x8000002[129]", step=KVM_INTEL),
)
"""By hypervisor; the first that fits."""


def what_next(text: str) -> NextStep | None:
    """What to do about a text that tells of a failure; None if it names no hypervisor that we know.

    >>> what_next("VERR_SVM_UNABLE_TO_START_VM").who
    'VirtualBox on AMD'
    """
    return next((step for step in STEPS if all(pattern.search(text) for pattern in step.where)), None)


__all__ = ["KVM_AMD", "KVM_INTEL", "STEPS", "VIRTUALBOX", "XEN_AMD", "XEN_INTEL", "NextStep", "what_next"]
