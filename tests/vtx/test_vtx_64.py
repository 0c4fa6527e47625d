"""VT-x of 64-bit guests as an assistance: what each form asks of the controls, choices, and public hypervisors."""

from __future__ import annotations

import json

import pytest

from popek.architectures.vtx.operation import ownership
from popek.architectures.vtx.operation.assistance import VT_X_64, governed_forms_64, machine_64
from popek.architectures.vtx.operation.non_root import NonRoot
from popek.architectures.vtx.operation.ownership import EVERYTHING_64, VmxProfile64, profile_64
from popek.architectures.vtx.operation.virtual_interrupt_claims import VIRTUAL_INTERRUPTS
from popek.assistance.desk import Desk, desk_of
from popek.assistance.judgement import judge
from popek.checks.verdict import Status
from popek.cli.assist import requirements as command
from popek.kernel.assistance import AssistanceError
from popek.kernel.words import Word
from popek.machines import assisted, makers
from popek.report import assistance as report
from popek_proofs.assistance.interrupts import InterruptResult, prover_of

DESK = desk_of(VT_X_64)
ALL = profile_64(EVERYTHING_64)
TWO_WAYS = "{0}_exiting = 1 or use_tpr_shadow = 1"


def sound(form: str, owned: VmxProfile64 = ALL, mode: str = "", desk: Desk[object] = DESK) -> str:
    """The weakest condition for fidelity and safety."""
    found = desk.required(form, owned, mode)
    return report.short(VT_X_64, found.condition(found.sound))


@pytest.mark.parametrize(
    ("form", "condition"),
    [
        ("SYSCALL", "always"),
        ("SYSRETQ", "always"),
        ("SWAPGS", "always"),
        ("WRGSBASE r64", "always"),
        ("SGDT m", "always"),
        ("CPUID", "always"),
        ("MONITOR", "monitor_exiting = 1"),
        ("MWAIT", "mwait_exiting = 1"),
        ("SMSW r64", "cr0_mask = 1"),
        ("MOV CR8, r64", TWO_WAYS.format("cr8_load")),
        ("MOV r64, CR8", TWO_WAYS.format("cr8_store")),
        ("RDPID r64", "enable_rdtscp = 1"),
        ("WRMSR", "msr_bitmap = 1 or use_msr_bitmaps = 0"),
    ],
)
def test_weakest_conditions(form: str, condition: str) -> None:
    assert sorted(sound(form).split(" or ")) == sorted(condition.split(" or "))


def test_compatibility_mode_asks_nothing_more() -> None:
    for form in ("MOV r64, CR0", "HLT", "RDTSC", "SGDT m"):
        assert sound(form, mode="compatibility") == sound(form), form


def test_nobody_can_own_what_syscall_and_swapgs_work_on() -> None:
    for owner, form in (("syscalls", "SYSCALL"), ("gs", "SWAPGS")):
        found = DESK.required(form, profile_64([owner]))
        assert not found.faithful & set(found.sound or ()), form
        assert sound(form, profile_64([owner])) == "never"


def test_a_guest_that_keeps_its_task_priority_has_no_shadow_of_it() -> None:
    without = profile_64(EVERYTHING_64 - {"tpr"})
    assert "use_tpr_shadow = 0" in sound("MOV r64, CR8", without)


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(AssistanceError, match="syscalls"):
        VT_X_64.owner(["syscall"])


def test_every_governed_form_is_one_of_the_machine() -> None:
    forms = governed_forms_64()
    assert set(forms) <= set(machine_64().instructions)
    assert {"MOV CR8, r64", "XSAVES m", "RDMSR", "INVPCID r64, m128", "VMCALL"} <= set(forms)
    assert not {"SYSCALL", "SWAPGS", "RDFSBASE r64", "PUSHFQ", "LAR r64, r16"} & set(forms)


def test_the_technique_is_found_by_the_machine_it_is_for() -> None:
    assert assisted("x86-64", "vt-x") == "x86-64-vt-x"
    assert "vt-x" in makers()["x86-64-vt-x"]().techniques


@pytest.mark.parametrize(
    ("name", "owns"),
    [("KVM", {"tpr", "ports", "halt"}), ("bhyve", {"tpr", "ports", "halt"}), ("SimpleVisor", set())],
)
def test_hypervisors_around_a_64_bit_guest(name: str, owns: set[str]) -> None:
    forms = ("MOV CR8, r64", "MOV r64, CR8", "HLT", "OUT DX, AL", "SYSCALL")
    found = judge(VT_X_64, VT_X_64.configurations()[name], forms=forms, witnesses=False)
    assert {"tpr", "ports", "halt"} & set(found.kept) == owns


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("vt-x-64", "MOV CR8, r64", own="tpr", json=True) == 0
    (row,) = json.loads(capsys.readouterr().out)["instructions"]
    assert row["form"] == "MOV CR8, r64"


def test_a_processor_that_forgets_the_shadow_of_the_tpr_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NonRoot, "read_task_priority", lambda self, cpu, register: cpu["cr8"])
    assert sound("MOV r64, CR8", desk=Desk(VT_X_64)) == "never"


def test_a_map_that_does_not_place_the_tpr_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "VTPR", 0x90)
    assert "use_tpr_shadow" not in sound("MOV r64, CR8", desk=Desk(VT_X_64))


# -- interrupts -----------------------------------------------------------------------------------------


def refuted(result: InterruptResult) -> set[str]:
    return {name for name, _, status in result.promises if status is Status.REFUTED}


def test_what_the_processor_delivers_is_as_the_guests_own_local_apic_has_it() -> None:
    result = prover_of(VIRTUAL_INTERRUPTS).prove((), ["MOV CR8, r64"])
    assert {status for _, _, status in result.promises} == {Status.HOLDS}
    assert len(result.rows) > 12


@pytest.mark.parametrize(
    ("dropped", "promise", "length"),
    [
        ("eoi-exit-bitmap", "end-told", 5),
        ("leave-windows-closed", "first-window", 4),
    ],
)
def test_each_control_and_duty_has_a_shortest_trace(dropped: str, promise: str, length: int) -> None:
    result = prover_of(VIRTUAL_INTERRUPTS).prove([dropped], ["NOP"])
    assert promise in refuted(result)
    (trace,) = [trace for trace in result.traces if trace.promise == promise]
    assert len(trace.steps) == length


def test_delivery_by_vector_and_not_by_class_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from popek.architectures.vtx.operation import virtual_interrupts

    def outranks(vector: Word, priority: Word) -> Word:
        return vector > priority

    step = virtual_interrupts.evaluated

    def evaluated(
        world: virtual_interrupts.VirtualInterruptWorld, setup: virtual_interrupts.VirtualInterruptSetup
    ) -> virtual_interrupts.VirtualInterruptWorld:
        with monkeypatch.context() as inner:
            inner.setattr(virtual_interrupts, "outranks", outranks)
            return step(world, setup)

    monkeypatch.setattr(virtual_interrupts, "evaluated", evaluated)
    result = prover_of(VIRTUAL_INTERRUPTS).prove((), ["NOP"])
    assert any(status is not Status.HOLDS for _, _, status in result.promises)
