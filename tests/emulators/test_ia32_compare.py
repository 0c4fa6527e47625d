"""The IA-32 model and Bochs agree on random instructions, and a wrong model is found out."""

from __future__ import annotations

import json
import random
import tomllib
from importlib import resources
from typing import Any

import attrs
import pytest

from popek.architectures import ia32
from popek.architectures.ia32 import segmentation, stacks
from popek.architectures.ia32.instructions import (
    far_transfers,
    flags,
    interrupts,
    port_io,
    protection,
)
from popek.architectures.ia32.state import Ia32
from popek.architectures.x86 import descriptors, machine_status
from popek.architectures.x86.exceptions import GP, NP
from popek.architectures.x86.flags import IF
from popek.emulators.ia32.assembly import assemble_all, assembly_text
from popek.emulators.ia32.cases import CaseMode, Ia32Case, random_case
from popek.emulators.ia32.compare import BOCHS, DifftestReport, compare, difftest
from popek.emulators.ia32.deviations import deviations, recognised
from popek.emulators.ia32.step import CODE_SELECTORS, FREE_SELECTOR, GDT_BASE, STACK_TOPS, segment_descriptor
from popek.emulators.x86.expectation import OutsideError, StepResult
from popek.kernel.machine import UnknownNameError
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

pytestmark = pytest.mark.emulator

MACHINE = ia32.MACHINES["ia32"]()
CASES = 3000


@pytest.fixture(scope="module")
def report() -> DifftestReport:
    return difftest(CASES, seed=20000)


def _story(report: DifftestReport) -> str:
    return "\n".join(
        f"{d.assembly} at CPL {d.case.cpl}: {d.expected}; Bochs: {d.observed}; {d.details}; {d.case}"
        for d in report.differences
    )


def test_the_model_and_bochs_agree(report: DifftestReport) -> None:
    assert report.cases == CASES
    assert report.unexplained == 0, _story(report)


def test_every_form_is_compared_and_both_ends_are_reached(report: DifftestReport) -> None:
    assert set(report.by_form) == set(MACHINE.instructions)
    assert set(report.by_level) == {0, 1, 2, 3}
    assert set(report.by_mode) == {mode.value for mode in CaseMode}
    assert min(report.by_mode.values()) > CASES // 8
    assert min(report.by_form.values()) >= 3
    assert sum(report.completed.values()) > CASES // 3
    assert sum(report.trapped.values()) > CASES // 5
    # Nothing is passed over in silence: what was drawn in vain is small, and has its reason.
    assert sum(report.not_modelled.values()) < CASES // 20
    assert sum(report.outside.values()) < CASES // 5
    assert sum(report.explained.values()) < CASES // 20


def test_explanations_are_in_the_list_and_the_list_has_its_evidence(report: DifftestReport) -> None:
    assert set(deviations()) == recognised()
    assert set(report.explained) <= set(deviations())
    text = resources.files("popek_specs.ia32").joinpath("bochs-deviations.toml").read_text(encoding="utf-8")
    for name, entry in tomllib.loads(text)["deviation"].items():
        assert set(entry) == {"kind", "summary", "evidence"}, name
        assert entry["kind"] in ("emulator", "latitude", "processor"), name
        assert entry["evidence"].startswith("SDM vol."), name


def test_the_report_is_plain_data(report: DifftestReport) -> None:
    data = json.loads(json.dumps(report.to_json()))
    assert data["cases"] == CASES
    assert data["unexplained"] == report.unexplained
    assert data["by_cpl"]["3"] == report.by_level[3]
    assert data["cases_per_second"] > 0


def test_one_seed_draws_one_set_of_cases_in_each_mode() -> None:
    def drawn(seed: int) -> list[Ia32Case]:
        return [
            random_case(instruction, level, random.Random(f"{seed}:{instruction.form}"), mode)
            for instruction in MACHINE.instructions.values()
            for level, mode in (
                (0, CaseMode.PROTECTED),
                (3, CaseMode.PROTECTED),
                (0, CaseMode.REAL),
                (3, CaseMode.VIRTUAL_8086),
            )
        ]

    assert {case.mode for case in drawn(1)} == set(CaseMode)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_an_unknown_form_is_refused_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="POPF"):
        difftest(1, forms=["POPFF"])


def test_forms_assemble_to_the_encodings_of_the_manual() -> None:
    def code(form: str, **operands: int) -> bytes:
        parts = {f"operand {name.replace('_', '.')}": value for name, value in operands.items()}
        text = assembly_text(MACHINE.instructions[form], parts)
        return assemble_all([text])[text]

    assert code("SGDT m", m_segment=3, m_offset=0x1234) == bytes.fromhex("0f010534120000")
    assert code("MOV Sreg, r16", Sreg=7, r16=1) == bytes.fromhex("8ef9")
    assert code("MOV m16, Sreg", m16_segment=0, m16_offset=8, Sreg=6) == bytes.fromhex("268c3508000000")
    assert code("PUSHF") == bytes.fromhex("669c")
    assert code("IRET") == bytes.fromhex("66cf")
    assert code("JO rel8", rel8=0xFE) == bytes.fromhex("70fe")
    assert code("CALL rel32", rel32=0xFFFFFFFB) == bytes.fromhex("e8fbffffff")
    call = {"operand ptr16:16.selector": 8, "operand ptr16:16.offset": 0x1234}
    text = assembly_text(MACHINE.instructions["CALL ptr16:16"], call)
    assert assemble_all([text])[text] == bytes.fromhex("669a34120800")


def test_what_the_model_leaves_out_is_not_compared_in_silence() -> None:
    nested = Ia32Case("IRETD", {}, 0, {"eflags": 0x4002})
    with pytest.raises(OutsideError, match="task switch"):
        compare([nested])


# -- the list explains what it says and nothing else -----------------------------------------------------

AM_AC = {"cr0": 0x11 | 1 << 18, "eflags": 2 | 1 << 18}
NARROW = ((GDT_BASE + FREE_SELECTOR, segment_descriptor(0x20000, 0xFFFF, 0xF300)),)
SHORT = ((GDT_BASE + FREE_SELECTOR, segment_descriptor(0, 0xFFF, 0xFB00 | 0x40 << 16)),)
TO_SHORT = {"operand ptr16:32.selector": FREE_SELECTOR | 3, "operand ptr16:32.offset": 0x1000}
DS_AT = {"operand r32": 0, "operand m32.segment": 3}
VIRTUAL_8086 = {"eflags": 2 | 1 << 17, "cs": 0x2000, "ds": 0x3000, "ss": 0x2000}


@pytest.mark.parametrize(
    ("case", "ends", "explained"),
    [
        (Ia32Case("PUSH r32", {"operand r32": 0}, 3, {"esp": 2}), (None, None), "access-wraps-at-4-gib"),
        (Ia32Case("PUSH r32", {"operand r32": 0}, 3, {"esp": 0x30002, **AM_AC}), (None, None), None),
        (Ia32Case("JMP ptr16:32", TO_SHORT, 3, {"esp": 4}, SHORT), (None, None), None),
        (Ia32Case("POPAD", {}, 3, {"esp": 0x28002, **AM_AC}), (13, 0), None),
        (
            Ia32Case("RETF", {}, 3, {"ss": FREE_SELECTOR | 3, "esp": 0xFFFC}, NARROW),
            (12, 0),
            "return-frame-does-not-wrap",
        ),
        (Ia32Case("RETF", {}, 3, {"ss": FREE_SELECTOR | 3, "esp": 0xFFF0}, NARROW), (12, 0), None),
        (
            Ia32Case("MOV r32, m32", {**DS_AT, "operand m32.offset": 0xFFFD}, 3, VIRTUAL_8086),
            (None, None),
            None,
        ),
    ],
)
def test_a_deviation_explains_what_it_says_and_nothing_else(
    case: Ia32Case, ends: tuple[int | None, int | None], explained: str | None
) -> None:
    """`ends` is what an emulator is made to say: vector and error code, or None where it completes."""
    result = StepResult("next" if ends[0] is None else "trap", *ends)
    found = compare([case], against=attrs.evolve(BOCHS, run=lambda cases: [result] * len(cases)))[0]
    assert found is not None
    assert found.deviation == explained, (found.expected, found.observed)


# -- a wrong model is found out -------------------------------------------------------------------


def _found(form: str, cases: int = 150, mode: CaseMode = CaseMode.PROTECTED) -> Any:
    report = difftest(cases, seed=7, forms=[form], against=attrs.evolve(BOCHS, modes=(mode,)))
    assert report.unexplained > 0
    return report.differences[0]


def test_a_dropped_cpl_check_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_status, "privileged", lambda cpu: None)
    difference = _found("CLTS", 40)
    assert difference.case.cpl > 0
    assert (difference.expected, difference.observed) == ("completes", "#GP(0x0)")
    assert (difference.case.registers, difference.case.memory) == ({}, ())


def test_a_widened_mask_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "STATUS_AND_PROGRAM", flags.STATUS_AND_PROGRAM | IF)
    difference = _found("POPFD", 60)
    assert [line.split(":")[0] for line in difference.details] == ["eflags"]


def test_swapped_fault_priorities_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = descriptors.fetch_descriptor

    def present_first(cpu: Ia32, selector: Word, vector: Any = GP) -> Any:
        found = right(cpu, selector, vector)
        if not found.p:
            raise Fault(NP, descriptors.error_code(selector))
        return found

    monkeypatch.setattr(descriptors, "fetch_descriptor", present_first)
    difference = _found("MOV Sreg, r16", 400)
    assert difference.expected.startswith("#NP")
    assert difference.observed.startswith(("#GP", "#SS"))


def test_a_table_limit_one_byte_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = descriptors.in_table

    def one_more(cpu: Ia32, selector: Word) -> Word:
        longer = cpu.copy()
        longer.gdtr.limit = cpu.gdtr.limit + 1
        return right(longer, selector)

    monkeypatch.setattr(protection, "in_table", one_more)
    _found("LAR r32, r16", 2500)


def test_a_forgotten_unusable_register_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_transfers, "null_if_outranked", lambda segment, level: None)
    difference = _found("RETF", 200)
    assert any(line.split(":")[0] in ("ds", "es", "fs", "gs") for line in difference.details)


def test_a_stack_of_the_wrong_level_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = stacks.inner_stack
    monkeypatch.setattr(interrupts, "inner_stack", lambda cpu, level: right(cpu, Word(2, 0)))
    _found("INT imm8", 300)


def test_a_gate_without_dpl_check_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = interrupts.deliver_software_interrupt

    def unchecked(cpu: Ia32, vector: Word, *, check_dpl: bool) -> None:
        right(cpu, vector, check_dpl=False)

    monkeypatch.setattr(interrupts, "deliver_software_interrupt", unchecked)
    difference = _found("INT3", 100)
    assert difference.observed == "#GP(0x1a)"


def test_a_permission_map_read_one_byte_at_a_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = port_io.supervisor_load

    def one_byte(cpu: Ia32, address: Word, size: int) -> Word:
        value = right(cpu, address, size)
        return value & 0xFF if address != cpu.tr.base + 0x66 else value

    monkeypatch.setattr(port_io, "supervisor_load", one_byte)
    _found("IN EAX, DX", 400)


def test_a_limit_check_that_forgets_the_size_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = segmentation.within
    monkeypatch.setattr(segmentation, "within", lambda segment, offset, length: right(segment, offset, 1))
    _found("MOV r32, m32", 300)


def test_a_segment_load_that_checks_descriptors_in_real_address_mode_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ia32, "protected", Ia32.real)
    _found("MOV Sreg, r16", 60, CaseMode.REAL)


def test_an_alignment_flag_that_int_leaves_in_real_address_mode_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interrupts, "TF_IF_RF_AC", interrupts.TF_RF)
    difference = _found("INT imm8", 60, CaseMode.REAL)
    assert [line.split(":")[0] for line in difference.details] == ["eflags"]


def test_flags_instructions_that_ignore_vme_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "_has_virtual_interrupt_flag", lambda cpu: cpu.cr4.pvi)
    _found("CLI", 120, CaseMode.VIRTUAL_8086)


def test_a_redirection_map_in_the_wrong_place_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = interrupts._redirected
    monkeypatch.setattr(interrupts, "_redirected", lambda cpu, vector: right(cpu, vector ^ 8))
    _found("INT imm8", 400, CaseMode.VIRTUAL_8086)


def test_segments_left_on_leaving_virtual_8086_mode_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "load_null", lambda segment, selector: None)
    difference = _found("INT3", 200, CaseMode.VIRTUAL_8086)
    assert {line.split(":")[0].split(".")[0] for line in difference.details} <= {"ds", "es", "fs", "gs"}


def test_a_near_call_to_a_stack_that_is_read_back() -> None:
    """A case written by hand: CALL and RETF between the rings as the manual has them."""
    frame = (0x38000).to_bytes(4, "little") + CODE_SELECTORS[3].to_bytes(4, "little")
    outer = (0x28000).to_bytes(4, "little") + (0x43).to_bytes(4, "little")
    back = Ia32Case("RETF", {}, 0, memory=((STACK_TOPS[0], frame + outer),))
    call = Ia32Case("CALL rel32", {"operand rel32": 0x38000 - 0x20005}, 3)
    assert compare([back, call]) == [None, None]
