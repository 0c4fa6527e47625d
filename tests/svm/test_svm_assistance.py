"""AMD-V as a declared assistance: what instructions ask of the intercepts, who is harmed, and what there is to choose.

The conditions are those of AMD64 APM vol. 2, 15.8 to 15.11, written down here again.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import pytest

from popek.architectures.svm.operation.assistance import SVM, SVM_64, governed_forms, name_of
from popek.architectures.svm.operation.exits import VM_EXIT
from popek.architectures.svm.operation.settings import bits, hypervisors, hypervisors_64, of_vmcb_fields
from popek.architectures.vtx.operation.assistance import VT_X
from popek.assistance.desk import Desk, desk_of
from popek.assistance.exits import governs
from popek.assistance.needs import derive
from popek.assistance.requirements import Requirement
from popek.kernel.assistance import Assistance, AssistanceError
from popek_specs.svm import rows

DESK: Final = desk_of(SVM)


@cache
def requirement(form: str, *owns: str) -> Requirement:
    owner = SVM.owner(owns or None)
    (found,) = derive(DESK, [form], owner)
    return found.requirement


def faithful(form: str, *owns: str) -> str:
    found = requirement(form, *owns)
    return found.condition(found.faithful)


def safe(form: str, *owns: str) -> str:
    found = requirement(form, *owns)
    return found.condition(found.safe)


GP: Final = "exceptions.gp = 1"


@pytest.mark.parametrize(
    ("form", "expected_faithful", "expected_safe"),
    [
        ("CPUID", "vector3.cpuid = 1", "always"),
        ("HLT", "vector3.hlt = 1", "vector3.hlt = 1"),
        ("RDMSR", "msrpm_read = 1 and vector3.msr_prot = 1", "always"),
        ("WRMSR", "msrpm_write = 1 and vector3.msr_prot = 1", "msrpm_write = 1 and vector3.msr_prot = 1"),
        ("IN AL, DX", "iopm = 1 and vector3.ioio_prot = 1", "always"),
        ("PUSHFD", "always", "always"),
        ("SGDT m", "always", "always"),
        ("RDTSC", "always", "always"),
        ("VMMCALL", "always", "always"),
        # In a guest EFER.SVME is 1, and so #GP comes where the guest expects #UD.
        ("INVLPGA", f"{GP} and vector3.invlpga = 1", "always"),
        ("CLGI", f"{GP} and vector4.clgi = 1", "enables.vgif = 1 or vector4.clgi = 1"),
        ("VMSAVE", f"{GP} and vector4.vmsave = 1", "enables.virtual_vmload_vmsave = 1 or vector4.vmsave = 1"),
        ("SMSW r32", "cr_read.cr0 = 1", "always"),  # CD and NW are the VMM's, and there is no read shadow
        ("SMSW r16", "always", "always"),
    ],
)
def test_what_an_instruction_asks(form: str, expected_faithful: str, expected_safe: str) -> None:
    def ordered(condition: str) -> list[list[str]]:
        return sorted(sorted(part.split(" and ")) for part in condition.split(" or "))

    assert ordered(faithful(form)) == ordered(expected_faithful)
    assert ordered(safe(form)) == ordered(expected_safe)


def test_debug_registers_ask_for_the_debug_exception_where_the_vmm_detects_accesses() -> None:
    """VT-x's exit comes before the #DB of DR7.GD; AMD's intercept comes after it."""
    found = faithful("MOV r32, DR0")
    assert "dr_read.dr0 = 1" in found
    assert "exceptions.db = 1 and dr7.gd = 1" in found or "dr7.gd = 1 and exceptions.db = 1" in found


def test_the_selective_intercept_is_not_enough_for_shadow_paging() -> None:
    owns = ("cr3",)
    assert safe("MOV CR0, r32", *owns) == "cr_write.cr0 = 1 or vector3.cr0_sel_write = 1"
    assert faithful("MOV CR0, r32", *owns) == "cr_write.cr0 = 1"


def test_a_vmm_without_vmload_cannot_keep_fs() -> None:
    """No intercept is about loading a segment register."""
    assert safe("MOV Sreg, r16", "vmload") == "never"
    assert safe("MOV Sreg, r16") == "always"


def test_exit_codes_are_those_of_the_appendix() -> None:
    found = [governs(DESK, form) for form in ("RDTSC", "LMSW r16", "WRMSR", "MOV r32, DR7", "VMMCALL")]
    codes = {item.form: {row.reason for row in group} for group in found for item in group}
    assert codes == {
        "RDTSC": {0x6E},
        "LMSW r16": {0x10, 0x65},
        "WRMSR": {0x7C},
        "MOV r32, DR7": {0x27, 0x41, 0x4D},
        "VMMCALL": {0x81},
    }
    assert all(name_of(int(row["exit_code"], 16)) for row in rows("intercepts.csv"))


def test_the_forms_are_those_with_an_intercept() -> None:
    forms = set(governed_forms())
    assert {"RDTSC", "PUSHFD", "IRETD", "INT imm8", "VMRUN", "MOV r32, DR7", "OUTSB seg", "XSETBV"} <= forms
    assert not {"LAR r32, r16", "SYSENTER", "MOV Sreg, r16", "CLI", "NOP"} & forms


def test_fields_give_the_settings() -> None:
    found = of_vmcb_fields({"INTERCEPTS_3": "0x18040000", "INTERCEPTS_4": "0x1", "NP_CONTROL": "1"})
    assert {name for name in bits() if found.controls[name]} == {
        "vector3.cpuid", "vector3.ioio_prot", "vector3.msr_prot", "vector4.vmrun", "enables.nested_paging",
    }  # fmt: skip
    with pytest.raises(AssistanceError, match="no VMCB field"):
        of_vmcb_fields({"INTERCEPTS_9": "1"})
    with pytest.raises(AssistanceError, match="expected a number"):
        of_vmcb_fields({"INTERCEPTS_3": "one"})
    with pytest.raises(AssistanceError, match="32 bits"):
        of_vmcb_fields({"INTERCEPTS_3": "0x100000000"})


def test_processors_have_what_they_have() -> None:
    assert SVM.processor is not None
    barcelona, first = SVM.processor("barcelona"), SVM.processor("k8-revision-f")
    assert first.missing("enables.nested_paging") == "CPUID"
    assert not barcelona.missing("enables.nested_paging")
    assert barcelona.missing("vector5.invpcid") == "CPUID"
    assert "check SVM-CTL-01" in barcelona.rules  # VMRUN must be intercepted
    with pytest.raises(AssistanceError, match="barcelona"):
        SVM.processor("barcelone")


@pytest.mark.parametrize(
    ("name", "form", "sound"),
    [
        ("KVM", "CLGI", "unfaithful"),  # #GP is not intercepted
        ("KVM-vgif", "CLGI", "unfaithful"),  # and CLGI works
        ("Jailhouse", "VMSAVE", "unsafe"),
        ("SimpleSvm", "HLT", "unsafe"),
        ("bhyve", "HLT", ""),
        ("NVMM", "RDMSR", "unfaithful"),
        ("KVM", "RDPMC", ""),
    ],
)
def test_what_hypervisors_set(name: str, form: str, sound: str) -> None:
    settings = hypervisors()[name]
    found = requirement(form)
    at = found.at(settings.controls)
    assert ("" if at in found.sound else "unsafe" if at not in found.safe else "unfaithful") == sound


def test_a_lost_exit_is_noticed() -> None:
    """Without its #VMEXIT no setting makes CPUID faithful."""
    import attrs

    machine = DESK.machine
    instruction = machine.instructions["CPUID"]

    def silent(cpu: object) -> None:
        cpu.gpr[0] = cpu.cpuid.load(cpu.gpr[0].zero_extend(64))[31:0]  # type: ignore[attr-defined]

    lost = {**machine.instructions, "CPUID": attrs.evolve(instruction, semantics=silent)}
    other = attrs.evolve(SVM, machine=lambda: attrs.evolve(machine, instructions=lost))
    (found,) = derive(Desk(other), ["CPUID"], other.owner())
    assert found.requirement.condition(found.requirement.faithful) == "never"
    assert VM_EXIT.number == 256


def _intercepted(assistance: Assistance[Any], form: str) -> bool:
    return any(row.reason is not None for row in governs(desk_of(assistance), form))


@pytest.mark.parametrize(
    ("form", "intel", "amd"),
    [
        *((form, False, True) for form in ("PUSHFD", "POPFD", "SMSW r32", "VMMCALL", "RSM")),
        *((form, True, False) for form in ("RDRAND r32", "RDSEED r32", "XSAVES m")),
        *((form, True, True) for form in ("SGDT m", "STR r32", "RDTSC", "CPUID", "XSETBV", "INVLPG m")),
        *((form, False, False) for form in ("LAR r32, r16", "VERR r16", "SYSENTER", "CLI", "MOV Sreg, r16")),
    ],
)
def test_which_of_the_two_can_intercept_what(form: str, intel: bool, amd: bool) -> None:
    """After the manuals' tables."""
    assert (_intercepted(VT_X, form), _intercepted(SVM, form)) == (intel, amd)


def test_intel_intercepts_iret_of_a_task_alone() -> None:
    assert len(governs(desk_of(VT_X), "IRETD")) == 1
    assert {row.reason for row in governs(desk_of(SVM), "IRETD")} == {0x74, 0x7D}


def test_one_bit_of_intel_s_is_four_of_amd_s() -> None:
    tables = ("SGDT m", "SIDT m", "SLDT r32", "STR r32")
    intel = {control for form in tables for row in governs(desk_of(VT_X), form) for control in row.controls}
    amd = {control for form in tables for row in governs(desk_of(SVM), form) for control in row.controls}
    assert intel == {"secondary.descriptor_table_exiting"}
    assert amd == {"vector3.gdtr_read", "vector3.idtr_read", "vector3.ldtr_read", "vector3.tr_read"}


def test_a_control_that_the_processor_lacks_cannot_be_chosen() -> None:
    assert SVM.processor is not None
    first = SVM.processor("k8-revision-f")
    rule = first.rules["enables.nested_paging is there"]
    assert str(rule.term) != str(first.controls["enables.nested_paging"].term)
    assert "enables.nested_paging is there" not in SVM.processor("zen").rules


def test_a_guest_whose_tpr_is_virtual_leaves_cr8_to_the_vmm() -> None:
    assert hypervisors_64()["KVM"].assume == {"v_tpr": 1}
    assert hypervisors_64()["SimpleSvm"].assume == {}
    assert "tpr" in SVM_64.owner((), assume={"v_tpr": 1}).owns
