"""A hypervisor inside a hypervisor: the merge of two VMMs' controls, one by one, and the ways to do it wrongly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from popek.architectures.vtx.operation import nesting
from popek.architectures.vtx.operation.assistance import VT_X_64, machine_64
from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.nesting import EITHER, MISTAKES, Mistake, alone, merged, offered
from popek.architectures.vtx.operation.state import VmxX64
from popek.assistance.desk import desk_of
from popek.checks.verdict import Status
from popek.kernel.words import Word
from popek_proofs.assistance.nesting import PROMISES, Nesting, ask

Merge = Callable[[VmxX64, VmxX64], VmxX64]


def nested(merge: Merge = merged) -> Nesting[VmxX64]:
    plain = VT_X_64.plain
    assert plain is not None
    return Nesting(
        machine_64(),
        merge,
        alone,
        offered,
        is_exit=lambda trap: trap.vector is VM_EXIT,
        plain=lambda: (plain()[1], plain()[1]),
        owned=nesting.OWNED,
        start=lambda state: state.with_changes({"non_root": 1}),
    )


def test_what_is_merged_keeps_every_promise_of_every_instruction_that_vmx_has_a_say_in() -> None:
    """One form of each mnemonic, and every form of MOV to and from control registers."""
    for form in desk_of(VT_X_64).representatives():
        found = {promise: one.status for promise, one in ask(nested(), form).items()}
        assert found == dict.fromkeys(PROMISES, Status.HOLDS), form


def wrong(mistake: Mistake, inner: VmxX64, outer: VmxX64) -> VmxX64:
    hardware = merged(inner, outer)
    mistake.change(hardware, inner, outer)
    return hardware


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_breaks_its_promise_with_a_case_that_runs(name: str) -> None:
    mistake = MISTAKES[name]
    found = ask(nested(partial(wrong, mistake)), mistake.example, [mistake.breaks])[mistake.breaks]
    assert found.status is Status.REFUTED
    assert len(found.runs) == 3


def test_two_of_them_are_public_vulnerabilities() -> None:
    assert {m.known for m in MISTAKES.values() if m.known} == {"CVE-2017-12154", "CVE-2019-3887"}
    shown = MISTAKES["cr8-without-shadow"]
    found = ask(nested(partial(wrong, shown)), shown.example, ["owned"])["owned"]
    assert "cr8 0x1" in found.runs[2]  # the hardware's own task priority changes
    assert "primary.use_tpr_shadow" not in found.inner


EXAMPLES = {
    "primary.hlt_exiting": "HLT",
    "primary.invlpg_exiting": "INVLPG m",
    "primary.mwait_exiting": "MWAIT",
    "primary.rdpmc_exiting": "RDPMC",
    "primary.rdtsc_exiting": "RDTSC",
    "primary.cr3_load_exiting": "MOV CR3, r64",
    "primary.cr3_store_exiting": "MOV r64, CR3",
    "primary.mov_dr_exiting": "MOV DR7, r64",
    "primary.monitor_exiting": "MONITOR",
    "primary.pause_exiting": "PAUSE",
    "secondary.descriptor_table_exiting": "SGDT m",
    "secondary.wbinvd_exiting": "WBINVD",
}
"""A form for each control of `EITHER` that decides about an instruction of the model."""


@pytest.mark.parametrize(("control", "form"), EXAMPLES.items())
def test_a_control_must_be_either_vmms(control: str, form: str) -> None:
    """With L1's control alone L0 loses an exit, with L0's alone L1 does: OR is the least that keeps both."""
    assert control in EITHER
    for side, broken in (("inner", "outer"), ("outer", "inner")):

        def one(inner: VmxX64, outer: VmxX64, side: str = side) -> VmxX64:
            hardware = merged(inner, outer)
            hardware[control] = (inner if side == "inner" else outer)[control]
            return hardware

        assert ask(nested(one), form, [broken])[broken].status is Status.REFUTED


def test_an_l0_that_decides_without_l1s_bitmaps_keeps_exits_to_itself() -> None:
    """CVE-2020-2732: L0 emulates an instruction of L2's although L1 wants it."""
    machine = machine_64()
    state = VmxX64.reset(cr0__ne=1, cr4__vmxe=1, non_root=1, primary=0, primary__use_io_bitmaps=1)
    state.io_bitmap = state.io_bitmap.store(Word(16, 0x80), Word(1, 1))
    parts = {"operand imm8": Word(8, 0x80), "operand length": Word(4, 2)}
    form = machine.instructions["OUT imm8, AL"]
    wants = machine.step(form, state, parts)
    decides = machine.step(form, nesting.reflected_without_bitmaps(state), parts)
    assert getattr(wants, "vector", None) is VM_EXIT
    assert getattr(decides, "vector", None) is None


def test_vmx_instructions_leave_at_every_level_so_that_the_vmm_must_look_at_it() -> None:
    """CVE-2018-12904: the exit comes before #GP by CPL, and an L0 that does not ask for CPL lets users do VMX."""
    machine = machine_64()
    user = VmxX64.reset(cr0__ne=1, cr4__vmxe=1, non_root=1).with_changes(
        {"cs.selector": 0x3B, "ss.selector": 0x43, "cs.rights": 0xA0FB, "ss.rights": 0xC0F3}
    )
    for form in ("VMLAUNCH", "VMXOFF"):
        outcome = machine.step(machine.instructions[form], user, {"operand length": Word(4, 3)})
        assert getattr(outcome, "vector", None) is VM_EXIT
