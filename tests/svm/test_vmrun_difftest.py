"""VMRUN on Bochs: the harness, the listed deviations, and that nothing else is left to explain."""

from __future__ import annotations

import json

import pytest

from popek.architectures.svm.bochs import bochs_checks, deviations, oddity
from popek.architectures.svm.checks import CHECKS
from popek.architectures.svm.verdict import judge
from popek.cli.difftest_vmrun import difftest_vmrun
from popek.cli.errors import UserError
from popek.emulators.bochs.simulator import BochsError
from popek.emulators.vm_entry.harness import CODE_PAGE
from popek.emulators.vmrun import compare as svm_compare
from popek.emulators.vmrun.compare import compare, make_cases, outcome_of, unexplained, vmcb_of
from popek.emulators.vmrun.harness import (
    MODELS,
    MODES,
    VMEXIT_INVALID,
    RunCase,
    RunResult,
    baseline,
    processor,
    run_cases,
)

pytestmark = pytest.mark.emulator

CPUID, VMMCALL = 0x72, 0x81


def test_the_baselines_enter_and_leave_by_their_first_instruction() -> None:
    cases = [
        RunCase(mode, nested, host_paging=host)
        for mode in MODES
        for nested, host in ((True, True), (False, True), (False, False))
        if not (mode == "v8086" and host)
    ]
    assert run_cases(cases) == [RunResult("exit", CPUID, 0, 0, 0)] * len(cases)
    for case in cases:
        verdict = judge(vmcb_of(case), processor(host_paging=case.host_paging))
        assert (verdict.outcome, verdict.failed, verdict.warnings) == ("enters", (), ())


def test_how_a_guest_can_leave() -> None:
    silent = RunCase(memory=((CODE_PAGE, b"\xeb\xfe"),))  # jmp $
    cases = [
        RunCase(fields={"INTERCEPTS_3": 0xFFFF_FFFF & ~(1 << 18)}),
        silent,
        RunCase(fields={"RIP": 1 << 63}),
        RunCase(fields={"ASID": 0}),
    ]
    after_cpuid, silence, noncanonical, refused = run_cases(cases)
    assert after_cpuid.exit_code == VMMCALL
    assert silence.kind == "hang"
    assert noncanonical.exit_code not in (VMEXIT_INVALID, CPUID)
    assert refused.exit_code == VMEXIT_INVALID
    assert [outcome_of(result) for result in (after_cpuid, silence, noncanonical)] == ["enters"] * 3


# What no model has: CET, SEV, AVIC.
NOT_IN_BOCHS = {"SVM-CR-16", *(f"SVM-CTL-{number}" for number in range(14, 20))}


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        (RunCase(memory=((0x10_0000, b"x"),)), "outside the arena"),
        (RunCase(fields={"ASID": 1 << 32}), "32 bits"),
    ],
)
def test_the_harness_protects_itself(case: RunCase, complaint: str) -> None:
    with pytest.raises(BochsError, match=complaint):
        run_cases([case])


def test_a_model_without_svm_is_named() -> None:
    with pytest.raises(BochsError, match="'tigerlake' cannot run"):
        run_cases([RunCase()], model="tigerlake")


@pytest.mark.parametrize("model", MODELS)
def test_cpuid_tells_which_bits_of_cr4_and_efer_there_are(model: str) -> None:
    """Bit by bit; LMSLE and TCE are listed deviations.  Bit 8 of EFER, LME, is not reserved; bit 9 is."""
    known = processor(model)
    base = baseline("32-bit")
    bits = [number for number in range(64) if number not in (13, 15)]
    cases = [RunCase("32-bit", fields={"EFER": base["EFER"] | 1 << number}) for number in bits]
    cases += [RunCase("32-bit", fields={"CR4": 1 << number}) for number in range(64)]
    entered = [result.exit_code != VMEXIT_INVALID for result in run_cases(cases, model=model)]
    # CR4.PAE without page-directory pointers in memory is no concern of nested paging.
    assert entered[len(bits) :] == [bool((known.cr4 or 0) >> number & 1) for number in range(64)]
    efer = dict(zip(bits, entered, strict=False))
    # Long mode needs PAE: with LME the baseline's paging is refused for another reason.
    assert [number for number in bits if efer[number]] == [
        number for number in bits if (known.efer or 0) >> number & 1 and number != 8
    ]
    long_mode, bit_9 = (
        RunCase("64-bit", fields={"EFER": 0x1000 | bits}) for bits in (1 << 8, 1 << 8 | 1 << 9)
    )
    assert [outcome_of(result) for result in run_cases([long_mode, bit_9], model=model)] == [
        "enters",
        "vmexit-invalid",
    ]


# -- deviations ------------------------------------------------------------------------------------------------


def test_every_deviation_shows_itself() -> None:
    for item in deviations():
        base = baseline(item.mode, item.nested)  # type: ignore[arg-type]
        case = RunCase(item.mode, item.nested, item.changed(base))  # type: ignore[arg-type]
        assert set(item.rows) <= set(CHECKS), item.id
        assert item.section, item.id
        assert item.applies(processor()), item.id
        (result,) = run_cases([case])
        assert outcome_of(result) == item.bochs, item.id
        assert judge(vmcb_of(case), processor()).outcome == item.manual, item.id


def test_a_guest_that_cannot_be_fetched_does_not_trap() -> None:
    """Single-stepping faults in Bochs's host behind the guest's first instruction, if there is one."""
    base = {**baseline("pae", False), "RFLAGS": 0x102}
    place = base["CR3"] & 0xFFFF_FFE0
    for entry, outcome in ((None, "host-fault"), (b"\0" * 8, "enters")):
        memory = () if entry is None else ((place, entry),)
        case = RunCase("pae", False, {"RFLAGS": 0x102}, memory)
        (result,) = run_cases([case])
        assert outcome_of(result) == outcome
        assert oddity(vmcb_of(case), processor(), ()) == (outcome if entry is None else None)


def test_deviations_are_limited_to_the_models_they_name() -> None:
    (tce,) = (item for item in deviations() if item.models == "tce")
    assert [model for model in MODELS if tce.applies(processor(model))] == ["ryzen", "trinity_apu"]


# -- the differential test -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["ryzen", "phenom_8650_toliman"])
def test_nothing_is_left_to_explain(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert difftest_vmrun(cases=2000, seed=11, model=model, json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["unexplained"] == []
    assert answer["cases"] == 2000
    assert set(answer["modes"]) == set(MODES)
    assert min(answer["origins"][kind] for kind in ("one check", "two checks", "random bits")) > 300
    assert min(answer["outcomes"][kind] for kind in ("enters", "vmexit-invalid")) > 400
    # No model has CET or virtual NMI, or lacks long mode.
    assert set(CHECKS) - set(answer["checks_violated"]) == {
        "SVM-CR-03",
        "SVM-CR-14",
        "SVM-CTL-09",
        *NOT_IN_BOCHS,
        *(check.id for check in CHECKS.values() if check.certainty == "unsure"),
    }


def test_the_seed_decides() -> None:
    assert make_cases(200, 5) == make_cases(200, 5)
    assert make_cases(200, 5) != make_cases(200, 6)


@pytest.mark.parametrize("missing", ["SVM-CTL-02", "SVM-CTL-08", "SVM-INJ-02", "SVM-CR-04", "SVM-CR-15"])
def test_a_check_that_is_missing_is_noticed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {name: check for name, check in bochs_checks().items() if name != missing}
    monkeypatch.setattr(svm_compare, "bochs_checks", lambda: rest)
    left = unexplained(compare(make_cases(1000, 11)))
    assert left
    assert {item.outcome for item in left} == {"vmexit-invalid"}


def test_the_deviations_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm_compare, "bochs_checks", lambda: CHECKS)
    monkeypatch.setattr(svm_compare, "oddity", lambda *_: None)
    left = unexplained(compare(make_cases(1000, 11)))
    assert {item.outcome for item in left} >= {"enters", "vmexit-invalid", "crash"}


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UserError, match="--cases"):
        difftest_vmrun(cases=0)
    with pytest.raises(UserError, match=r"expected one of .*ryzen"):
        difftest_vmrun(model="tigerlake")
