"""Non-root operation against Bochs: nothing that a guest's instruction does there is left to explain."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from popek.architectures.vtx.operation import exits, non_root, virtual_apic
from popek.architectures.vtx.operation.state import VmxIa32
from popek.cli.difftest import guests_command
from popek.cli.errors import UserError
from popek.emulators import declared_guests
from popek.emulators.guests.compare import difftest
from popek.emulators.non_root import compare as vmx_guest_compare
from popek.emulators.non_root import deviations as vmx_guest_deviations
from popek.emulators.non_root import long_deviations
from popek.emulators.non_root.compare import GUESTS
from popek.emulators.non_root.harness import VmxGuestStep, baseline, run_guests
from popek.kernel.words import Word

pytestmark = pytest.mark.emulator

difftest_non_root = guests_command("non-root", declared_guests()["non-root"])


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return difftest(GUESTS, 5000, seed=1).to_json()


def test_nothing_is_left_to_explain(report: dict[str, Any]) -> None:
    assert report["differences"] == []
    assert report["unexplained"] == 0
    assert report["cases"] >= 4950  # some are drawn in vain thirty times


def test_every_form_and_every_kind_of_end_comes_up(report: dict[str, Any]) -> None:
    forms = set(GUESTS.steps.machine().instructions)
    assert len(forms - set(report["by_form"])) <= len(forms) // 50
    reasons = {int(name.split()[1]) for name in report["outcomes"] if name.startswith("exit")}
    conditional = {0, 12, 14, 15, 16, 28, 29, 30, 31, 32, 36, 39, 40, 46, 47, 51, 54, 57, 58, 61}
    assert conditional | {10, 13, 18, 19, 20, 21, 22, 24, 26, 27, 50, 53} <= reasons
    assert report["outcomes"]["next"] > 1500
    assert sum(count for name, count in report["outcomes"].items() if name.startswith("#")) > 300


def test_a_task_priority_below_the_threshold_comes_up() -> None:
    """Exit reason 43 is rare: WRMSR of 808H at CPL 0, with the threshold above what is written."""
    found = difftest(GUESTS, 300, seed=1, forms=["WRMSR"]).to_json()
    assert found["unexplained"] == 0
    assert sum(count for name, count in found["outcomes"].items() if name.startswith("exit 43")) > 0


def test_what_is_explained_is_little_and_listed(report: dict[str, Any]) -> None:
    from popek.emulators.ia32.deviations import deviations as of_ia32

    listed = set(vmx_guest_deviations.deviations()) | set(of_ia32())
    assert set(report["explained"]) <= listed
    recognised = vmx_guest_deviations.recognised() | long_deviations.recognised()
    assert recognised == set(vmx_guest_deviations.deviations())
    assert sum(report["explained"].values()) < report["cases"] // 20


# -- that a wrong model is noticed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forms", "place", "name", "wrong"),
    [
        (("IN", "OUT"), non_root, "_io_access", lambda access: Word(64, 0)),
        (("MOV from CR", "MOV to CR"), non_root, "_cr_access", lambda number, kind, register: Word(64, 0)),
        (("UD2", "INT3"), exits, "exception_exits", lambda cpu, vector, code: cpu.non_root),
        (("INVLPG", "LMSW"), VmxIa32, "linear", lambda cpu, memory: Word(64, 1)),
        (("WRMSR",), virtual_apic, "below_threshold", lambda cpu: Word(1, 0)),
        (("RDMSR",), virtual_apic, "virtualizes", lambda cpu, write: Word(1, 0)),
    ],
    ids=[
        "io-qualification",
        "cr-qualification",
        "exception-bitmap",
        "linear-address",
        "tpr-threshold",
        "virtual-apic",
    ],
)
def test_a_wrong_detail_is_noticed(
    forms: tuple[str, ...], place: Any, name: str, wrong: Callable[..., Word], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, wrong)
    assert difftest(GUESTS, 150, seed=2, forms=forms).unexplained > 0


@pytest.mark.parametrize(
    ("form", "control"),
    [
        ("HLT", "hlt_exiting"), ("INVLPG m", "invlpg_exiting"), ("RDTSC", "rdtsc_exiting"),
        ("RDPMC", "rdpmc_exiting"), ("PAUSE", "pause_exiting"), ("MWAIT", "mwait_exiting"),
        ("MONITOR", "monitor_exiting"), ("MOV r32, CR3", "cr3_store_exiting"), ("MOV CR3, r32", "cr3_load_exiting"),
        ("MOV r32, DR0", "mov_dr_exiting"), ("OUT DX, AL", "use_io_bitmaps"), ("RDMSR", "use_msr_bitmaps"),
    ],
)  # fmt: skip
def test_a_control_that_is_overlooked_is_noticed(
    form: str, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is run with one control inverted, Bochs with the case's own."""
    original = vmx_guest_compare.predict

    def predict(machine: Any, instruction: Any, operands: Any, state: VmxIa32) -> Any:
        other = state.copy()
        other[f"primary.{control}"] = ~state[f"primary.{control}"]
        return original(machine, instruction, operands, other)

    monkeypatch.setattr(vmx_guest_compare, "predict", predict)
    assert difftest(GUESTS, 40, seed=3, forms=[form]).unexplained > 0


def test_the_deviations_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmx_guest_deviations, "_RECOGNISED", {})
    forms = ["LGDT", "XSETBV", "MOV CR0, r32", "XSAVES"]
    assert difftest(GUESTS, 200, seed=4, forms=forms).unexplained > 0


# -- the command and the harness ----------------------------------------------------------------------


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert difftest_non_root("CPUID", "LMSW", cases=30, seed=5, json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["unexplained"]) == ("popek/vtx-difftest/1", 0)
    assert answer["cases"] == 30
    assert difftest_non_root(instruction=("SMSW",), cases=30, seed=5) == 0
    assert "0 unexplained differences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": 0}, "--cases"),
        ({"against": "qemu"}, "--against"),
        ({"instruction": ("MOV CR9",)}, "MOV CR9"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        difftest_non_root(**arguments)
    assert "\n" not in str(error.value)


def test_a_guest_that_does_not_answer_costs_itself_only() -> None:
    code = 0x20000
    fields = {
        0x681E: code,
        0x681C: 0x25000,
        0x6816: 0x10000,
        0x4810: 0xFFF,
        0x6818: 0x12000,
        0x4812: 0x7FF,
        0x4004: 2,
    }
    endless = {**fields, 0x4000: baseline()[0x4000] & ~(1 << 6), 0x400C: baseline()[0x400C]}
    steps = [
        VmxGuestStep(fields, {"eax": 5}, ((code, b"\x40\x0f\x01\xc1"),)),  # INC EAX; VMCALL
        VmxGuestStep(endless, {}, ((code, b"\xeb\xfe"),)),  # JMP to itself, and no timer
        VmxGuestStep(fields, {"eax": 7}, ((code, b"\x48\x0f\x01\xc1"),)),  # DEC EAX; VMCALL
    ]
    first, second, third = run_guests(steps, stall=0.3)
    assert (first.registers["eax"], first.entry.basic_reason) == (6, 18)
    assert second.entry.kind == "hang"
    assert (third.registers["eax"], third.entry.basic_reason) == (6, 18)
