"""`popek difftest vm-entry`: nothing that Bochs does is left to explain, and the test can tell."""

from __future__ import annotations

import json

import attrs
import pytest

from popek.architectures.vtx.bochs import bochs_checks, lacks_msr
from popek.architectures.vtx.entry_checks import CHECKS, Outcome
from popek.architectures.vtx.evaluation import Evaluator
from popek.architectures.vtx.msr_table import msrs
from popek.architectures.vtx.verdict import decide
from popek.cli.difftest_vm_entry import difftest_vm_entry, make_cases
from popek.cli.errors import UserError
from popek.emulators.vm_entry import compare as vmx_compare
from popek.emulators.vm_entry.compare import VmEntryCase, compare, modes, unexplained
from popek_specs.vtx import table

pytestmark = pytest.mark.emulator


@pytest.mark.parametrize("model", ["tigerlake", "corei7_haswell_4770"])
def test_nothing_is_left_to_explain(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert difftest_vm_entry(cases=2000, seed=11, model=model, json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["unexplained"] == []
    assert answer["cases"] == 2000
    assert set(answer["modes"]) == set(modes(model))
    assert answer["origins"]["generator"] > 300
    assert min(answer["outcomes"][kind] for kind in ("enters", "vmfail-valid", "entry-failure")) > 200
    assert len(answer["checks_violated"]) > 120


def test_nothing_is_left_to_explain_of_msr_areas(capsys: pytest.CaptureFixture[str]) -> None:
    assert difftest_vm_entry(cases=1500, seed=12, msr_areas=True, json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["cases"] == 1500
    assert set(answer["outcomes"]) == {"enters", "entry-failure"}
    assert answer["outcomes"]["enters"] > 60
    assert answer["checks_violated"] == [f"LOAD-0{number}" for number in range(1, 8)]


def test_the_registers_that_bochs_lacks_are_those_that_are_listed() -> None:
    """0 is taken by every register with a listed number on a processor that has it, and Bochs takes it of no one."""
    numbers = [number for number in msrs() if lacks_msr(number)]
    assert len(numbers) == 8 + 8 + 7 + 1 + 3 + 3
    plain = Evaluator(vmx_compare.preset())
    found = compare([VmEntryCase("64-bit", {}, loads=((number, 0, 0),)) for number in numbers])
    for item in found:
        assert item.outcome == Outcome("entry-failure", reason=34, qualification=1), item.case
        vmcs = vmx_compare.vmcs_of(item.case)
        view = plain.look(vmcs)
        by_the_manual = decide(plain.run(vmcs, view), view)[0].kind
        assert by_the_manual == "enters" or item.case.loads[0][0] in range(0x30C, 0x310), item.case


def test_an_apic_that_is_off_takes_any_base_as_listed() -> None:
    (listed,) = table("bochs-deviations.toml")["msr_sequence"]
    pairs = zip(listed["index"], listed["value"], strict=True)
    (item,) = compare([VmEntryCase("64-bit", {}, loads=tuple((int(i, 16), 0, int(v, 16)) for i, v in pairs))])
    assert item.outcome == Outcome("enters")
    assert item.admissible == (Outcome("entry-failure", reason=34, qualification=2),)


def test_the_seed_decides() -> None:
    assert make_cases(120, 5) == make_cases(120, 5)
    assert make_cases(120, 5) != make_cases(120, 6)


# Of each check a case that nothing else refuses.
DIRECTED = {
    "GUEST-ACT-01": {"GUEST_ACTIVITY_STATE": 4},
    "GUEST-CR-03": {"GUEST_CR4": 0x2000 | 0x20 | 1 << 31},
    "CTL-CAP-01": {"PIN_CONTROLS": 0x16 | 1 << 12},
    "INJ-12": {"ENTRY_INTR_INFO": 1 << 31 | 4 << 8 | 0x80, "ENTRY_INSTRUCTION_LENGTH": 16},
    "HOST-SEG-07": {"HOST_TR_SELECTOR": 12},
    "GUEST-AR-TR-04": {"GUEST_TR_ACCESS_RIGHTS": 0x18B},
}


@pytest.mark.parametrize("missing", DIRECTED)
def test_a_check_that_is_missing_is_noticed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check, Bochs refuses what the rest lets in; with it, nothing is left to explain."""
    case = VmEntryCase("64-bit", DIRECTED[missing])
    (item,) = compare([case])
    assert item.violated == (missing,)
    assert item.explained
    known = vmx_compare.preset()
    rest = tuple(check for check in bochs_checks(known) if check.id != missing)
    monkeypatch.setattr(vmx_compare, "bochs_checks", lambda capabilities: rest)
    (item,) = unexplained(compare([case]))
    assert item.outcome is not None
    assert item.outcome.kind != "enters"


def test_fred_injects_only_where_the_processor_has_it() -> None:
    """The guest's CR4 asks for it in vain: the event is checked with the controls, before CR4 is."""
    changes = {"ENTRY_INTR_INFO": 0x80000701, "GUEST_CR4": 1 << 32 | 0x2040}
    (item,) = compare([VmEntryCase("32-bit", changes)])
    assert (item.outcome, item.explained) == (Outcome("vmfail-valid", errors=(7,)), True)
    assert "INJ-05" in item.violated


def test_an_msr_that_cannot_be_loaded_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = VmEntryCase("64-bit", {}, loads=((0x174, 0, 5), (0x277, 0, 2), (0xFE, 0, 0)))
    (item,) = compare([case])
    assert (item.outcome, item.violated, item.explained) == (
        Outcome("entry-failure", reason=34, qualification=2), ("LOAD-06",), True,
    )  # fmt: skip
    rest = tuple(check for check in bochs_checks(vmx_compare.preset()) if check.id != "LOAD-06")
    monkeypatch.setattr(vmx_compare, "bochs_checks", lambda capabilities: rest)
    assert unexplained(compare([case]))


def test_a_wrong_qualification_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = vmx_compare.preset()
    wrong = tuple(
        attrs.evolve(check, outcome=attrs.evolve(check.outcome, qualification=0))
        if check.id.startswith("GUEST-LINK")
        else check
        for check in bochs_checks(known)
    )
    monkeypatch.setattr(vmx_compare, "bochs_checks", lambda capabilities: wrong)
    left = unexplained(compare(make_cases(1500, 11)))
    assert left
    assert {item.outcome.qualification for item in left if item.outcome} == {4}


def test_the_deviations_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmx_compare, "bochs_checks", lambda capabilities: tuple(CHECKS.values()))
    assert unexplained(compare(make_cases(1500, 11)))


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match="--cases"):
        difftest_vm_entry(cases=0)
    with pytest.raises(UserError, match="expected one of"):
        difftest_vm_entry(model="pentium")
