"""Non-root operation of 64-bit guests against Bochs: exits with what they tell, and state; each control alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.operation import exits, non_root, virtual_apic
from popek.architectures.vtx.operation.settings import FIELDS as WORDS
from popek.architectures.vtx.operation.settings import bit_numbers
from popek.architectures.vtx.operation.state import VmxX64
from popek.emulators.guests.compare import difftest
from popek.emulators.non_root import long_compare, long_deviations
from popek.emulators.non_root.long_cases import VmxLongCase, random_long_case
from popek.emulators.non_root.long_compare import LONG_GUESTS
from popek.emulators.x86.expectation import OutsideError
from popek.kernel.outcome import NotModelled
from popek.kernel.words import Word

pytestmark = pytest.mark.emulator

VMX = {"VMCLEAR", "VMLAUNCH", "VMPTRLD", "VMPTRST", "VMREAD", "VMRESUME", "VMWRITE", "VMXOFF", "VMXON"}


def test_nothing_is_left_to_explain() -> None:
    report = difftest(LONG_GUESTS, 700, seed=11).to_json()
    assert report["differences"] == []
    assert report["unexplained"] == 0
    reasons = {int(name.split()[1]) for name in report["outcomes"] if name.startswith("exit")}
    assert len(reasons) >= 25
    assert report["outcomes"]["next"] > 200


def test_the_virtual_apic_page_changes_as_the_model_says() -> None:
    forms = ["WRMSR", "MOV CR8, r64"]
    report = difftest(LONG_GUESTS, 500, seed=5, forms=forms).to_json()
    assert report["unexplained"] == 0
    assert {"exit 43", "exit 45", "exit 56"} <= set(report["outcomes"])


# -- each control alone ---------------------------------------------------------------------------------

DECIDES = {
    "primary.use_tsc_offsetting": "RDTSC",
    "primary.hlt_exiting": "HLT",
    "primary.invlpg_exiting": "INVLPG m",
    "primary.mwait_exiting": "MWAIT",
    "primary.rdpmc_exiting": "RDPMC",
    "primary.rdtsc_exiting": "RDTSCP",
    "primary.cr3_load_exiting": "MOV CR3, r64",
    "primary.cr3_store_exiting": "MOV r64, CR3",
    "primary.cr8_load_exiting": "MOV CR8, r64",
    "primary.cr8_store_exiting": "MOV r64, CR8",
    "primary.use_tpr_shadow": "MOV r64, CR8",
    "primary.mov_dr_exiting": "MOV r64, DR1",
    "primary.unconditional_io_exiting": "IN AL, DX",
    "primary.use_io_bitmaps": "OUT imm8, AL",
    "primary.use_msr_bitmaps": "RDMSR",
    "primary.monitor_exiting": "MONITOR",
    "primary.pause_exiting": "PAUSE",
    "primary.activate_secondary_controls": "WBINVD",
    "secondary.descriptor_table_exiting": "LGDT m16&64",
    "secondary.enable_rdtscp": "RDPID r64",
    "secondary.virtualize_x2apic_mode": "WRMSR",
    "secondary.wbinvd_exiting": "WBINVD",
    "secondary.apic_register_virtualization": "RDMSR",
    "secondary.virtual_interrupt_delivery": "WRMSR",
    "secondary.enable_invpcid": "INVPCID r64, m128",
    "secondary.enable_xsaves_xrstors": "XSAVES m",
}
"""A form about which each control decides; what TSC scaling gives is compared by the time that is read."""


def flipped(case: VmxLongCase, control: str) -> VmxLongCase:
    field, bit = WORDS[control.partition(".")[0]], bit_numbers()[control]
    return attrs.evolve(case, controls={**case.controls, field: case.controls.get(field, 0) ^ 1 << bit})


def pair(control: str, form: str) -> list[Any]:
    """Two cases that differ in one control, and in what the model says of them."""
    machine = LONG_GUESTS.steps.machine()
    instruction = machine.instructions[form]
    for attempt in range(400):
        rng = random.Random(f"{control} {attempt}")
        case = random_long_case(instruction, 0, rng, long=True)
        ready = []
        for one in (case, flipped(case, control)):
            key = LONG_GUESTS.text(instruction, one)
            try:
                found = LONG_GUESTS.prepare(machine, one, key, LONG_GUESTS.assemble([key])[key], "tigerlake")
            except OutsideError:
                break
            if isinstance(found, NotModelled):
                break
            ready.append(found)
        if len(ready) == 2 and _shown(ready[0]) != _shown(ready[1]):
            return ready
    raise AssertionError(f"no pair of states for {control}")


def _shown(ready: Any) -> tuple[Any, ...]:
    predicted = ready.predicted
    reason = predicted.information.get("exit_reason")
    words = {
        n: int(w) for n, w in predicted.state.words().items() if not n.startswith(("exit_", "p", "s", "t"))
    }
    return predicted.kind, predicted.vector, reason, words


def test_each_control_alone_decides_for_a_pair_of_states_on_bochs_too() -> None:
    """Every control of the model that decides about a single instruction; the others decide at boundaries alone."""
    pairs = {control: pair(control, form) for control, form in DECIDES.items()}
    ready = [item for both in pairs.values() for item in both]
    results = LONG_GUESTS.run([item.run for item in ready], "tigerlake")
    assert all(result.entry.kind == "enters" for result in results)
    found = [LONG_GUESTS.steps.difference(item, result) for item, result in zip(ready, results, strict=True)]
    assert [one for one in found if one is not None and one.deviation is None] == []
    assert set(FIELDS) >= set(WORDS.values())


# -- that a wrong model is noticed ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forms", "place", "name", "wrong"),
    [
        (("IN", "OUT"), non_root, "_io_access", lambda access: Word(64, 0)),
        (("MOV from CR", "MOV to CR"), non_root, "_cr_access", lambda number, kind, register: Word(64, 0)),
        (("UD2", "INT3"), exits, "exception_exits", lambda cpu, vector, code: cpu.non_root),
        (("INVLPG", "LMSW"), VmxX64, "linear", lambda cpu, memory: memory.offset),
        (("VMCLEAR", "LGDT"), VmxX64, "displacement", lambda cpu, memory: memory.offset & 0xFFFFFFFF),
        (("STR", "LTR"), non_root, "_WITH_IDENTITY", {"STR": 0, "LTR": 1}),
        (("WRMSR",), virtual_apic, "processor_priority", lambda task, service: task),
    ],
    ids=[
        *("io-qualification", "cr-qualification", "exception-bitmap", "linear-address", "displacement"),
        *("information", "priority-without-service"),
    ],
)
def test_a_wrong_detail_is_noticed(
    forms: tuple[str, ...], place: Any, name: str, wrong: Callable[..., Word], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, wrong)
    assert difftest(LONG_GUESTS, 150, seed=2, forms=forms).unexplained > 0


def test_an_exit_before_the_check_of_privilege_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of an exit and #GP: the model asks whether RDMSR exits before it looks at CPL."""
    from popek.architectures.x86_64.instructions import msrs

    asked = non_root.NonRoot().msr

    def late(cpu: Any) -> None:
        asked(cpu, write=False)
        assert cpu.cpl == 0 or msrs.privileged is late

    monkeypatch.setattr(msrs, "privileged", late)
    assert difftest(LONG_GUESTS, 60, seed=4, forms=["RDMSR"]).unexplained > 0


def test_the_deviations_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_deviations, "_RECOGNISED", {})
    forms = ["SGDT", "XSETBV", "SMSW", "XSAVES"]
    assert difftest(LONG_GUESTS, 150, seed=4, forms=forms).unexplained > 0


def test_rip_relative_operands_are_among_the_cases() -> None:
    machine = LONG_GUESTS.steps.machine()
    instruction = machine.instructions["VMCLEAR m64"]
    drawn = [LONG_GUESTS.draw(instruction, 0, random.Random(n), "tigerlake") for n in range(60)]
    texts = [long_compare.key_of(instruction, case)[1] for case in drawn]
    assert sum("rel" in text for text in texts) > 5
