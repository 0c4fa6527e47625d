"""What is said of an unknown processor holds for every known one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popek.architectures.vtx.baselines import baseline, has_mode
from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.dumps.processors import ReportedProcessor, judge_any
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.verdict import judge
from popek.architectures.vtx.vmcs import Vmcs
from popek_specs.vtx import presets

NEEDED = {0x480, *range(0x485, 0x48A), 0x48B, 0x48C, *range(0x48D, 0x491)}
PROCESSORS = [known for known in map(load_capabilities, presets()) if known.msrs.keys() >= NEEDED]
MODES = ("64-bit", "pae", "32-bit", "v8086", "real")
STARTS = [
    baseline(mode, processor) for processor in PROCESSORS for mode in MODES if has_mode(mode, processor)
]
FLIPS = st.lists(st.tuples(st.sampled_from(list(FIELDS)), st.integers(0, 63)), min_size=1, max_size=3)


def test_there_are_processors_to_compare_with() -> None:
    assert len(PROCESSORS) >= 3
    assert len(STARTS) >= 10


def flipped(start: Vmcs, flips: list[tuple[str, int]]) -> Vmcs:
    changes: dict[str, int] = {}
    for name, bit in flips:
        value = changes.get(name, start.get(name) or 0)
        changes[name] = value ^ 1 << bit % FIELDS[name].width
    return start.with_fields(**changes)


def failed(vmcs: Vmcs, known: Capabilities) -> set[str]:
    return {item.id for item in judge(vmcs, known).failed}


@settings(deadline=None, max_examples=250)
@given(start=st.sampled_from(STARTS), flips=FLIPS, processor=st.sampled_from(PROCESSORS))
def test_what_fails_on_an_unknown_processor_fails_on_each_known_one(
    start: Vmcs, flips: list[tuple[str, int]], processor: Capabilities
) -> None:
    vmcs = flipped(start, flips)
    judgement = judge_any(vmcs, ReportedProcessor(UNKNOWN))
    unknown = {item.id for item in judgement.verdict.failed}
    assert unknown <= failed(vmcs, processor)
    assert not unknown & {item.id for item in judgement.verdict.undecided}


@settings(deadline=None, max_examples=100)
@given(start=st.sampled_from(STARTS), flips=FLIPS, processor=st.sampled_from(PROCESSORS), data=st.data())
def test_knowing_less_never_adds_a_failure(
    start: Vmcs, flips: list[tuple[str, int]], processor: Capabilities, data: st.DataObject
) -> None:
    kept = data.draw(st.sets(st.sampled_from(sorted(processor.msrs))))
    less = Capabilities(name="less", msrs={number: processor.msrs[number] for number in kept})
    vmcs = flipped(start, flips)
    assert {item.id for item in judge_any(vmcs, ReportedProcessor(less)).verdict.failed} <= failed(
        vmcs, processor
    )


@pytest.mark.parametrize("start", STARTS, ids=lambda vmcs: vmcs.name)
def test_what_enters_somewhere_fails_nowhere_for_certain(start: Vmcs) -> None:
    judgement = judge_any(start, ReportedProcessor(UNKNOWN))
    assert judgement.verdict.failed == ()
    assert judgement.verdict.outcome.kind == "undecided"


def test_mistakes_that_fail_everywhere_are_found_without_a_processor() -> None:
    start = baseline("64-bit", load_capabilities("bochs-corei7-skylake-x"))
    for changes, check in (
        ({"GUEST_CR4": (start.get("GUEST_CR4") or 0) & ~0x2000}, "GUEST-CR-03"),  # VMXE
        ({"HOST_CR0": (start.get("HOST_CR0") or 0) & ~0x20}, "HOST-CR-01"),  # NE
        ({"MSR_BITMAP": 1 << 60, "PRIMARY_PROC_CONTROLS": 0x9401E172}, "CTL-MSRBM-01"),
        ({"HOST_RIP": 1 << 62}, "HOST-ASZ-09"),
    ):
        judgement = judge_any(start.with_fields(**changes), ReportedProcessor(UNKNOWN))
        assert check in [item.id for item in judgement.verdict.failed]


def test_a_many_times_used_processor_judges_as_a_fresh_one() -> None:
    processor = ReportedProcessor(UNKNOWN)
    for start in STARTS:
        vmcs = start.with_fields(GUEST_RFLAGS=0, GUEST_CR3=1 << 63)
        assert judge_any(vmcs, processor) == judge_any(vmcs, ReportedProcessor(UNKNOWN))


@pytest.mark.parametrize(
    ("changes", "check", "is_suspect"),
    [
        ({"PIN_CONTROLS": 0}, "CTL-CAP-01", True),  # bits 1, 2 and 4 are fixed to 1 on all processors so far
        ({"HOST_RIP": 1 << 50}, "HOST-ASZ-09", True),  # canonical only with 57-bit linear addresses
        ({"GUEST_CR3": 1 << 61}, "GUEST-CR-09", True),  # fine only with linear-address masking
        ({"ENTRY_INTR_INFO": 0x8000030D}, "INJ-08", True),  # fine only with IA32_VMX_BASIC[56] = 1
        (
            {"ENTRY_INTR_INFO": 0x80000403, "ENTRY_INSTRUCTION_LENGTH": 0},
            "INJ-12",
            True,
        ),  # a length of 0 needs IA32_VMX_MISC[30] = 1
        ({"GUEST_CR3": 1 << 45}, "GUEST-CR-09", False),  # fine with 46 or more physical-address bits
        ({"PRIMARY_PROC_CONTROLS": 0x94006172}, "CTL-CAP-02", False),  # TRUE capability MSRs allow it
    ],
)
def test_what_depends_on_the_processor_stays_undecided(
    changes: dict[str, int], check: str, is_suspect: bool
) -> None:
    start = baseline("64-bit", load_capabilities("bochs-corei7-skylake-x"))
    judgement = judge_any(start.with_fields(**changes), ReportedProcessor(UNKNOWN))
    assert check not in [item.id for item in judgement.verdict.failed]
    assert check in [item.id for item in judgement.verdict.undecided]
    assert (check in [item.id for item in judgement.suspects]) == is_suspect
    assert (check in [item.id for item in judgement.complete.warnings]) == is_suspect


@pytest.mark.parametrize("start", STARTS, ids=lambda vmcs: vmcs.name)
def test_what_enters_is_no_suspect(start: Vmcs) -> None:
    assert judge_any(start, ReportedProcessor(UNKNOWN)).suspects == ()


def test_failures_that_need_no_processor_stay_beside_those_that_fail_on_all() -> None:
    start = baseline("64-bit", load_capabilities("bochs-corei7-skylake-x"))
    vmcs = start.with_fields(HOST_CS_SELECTOR=3, HOST_CR0=(start.get("HOST_CR0") or 0) & ~0x20)
    verdict = judge_any(vmcs, ReportedProcessor(UNKNOWN)).verdict
    assert [item.id for item in verdict.failed] == ["HOST-CR-01", "HOST-SEG-01"]


def test_a_revision_identifier_is_not_guessed() -> None:
    start = baseline("64-bit", load_capabilities("bochs-corei7-skylake-x"))
    linked = Vmcs(fields={**start.fields, "VMCS_LINK_POINTER": 0x5000}, memory=((0x5000, 4, 0x4),))
    verdict = judge_any(linked, ReportedProcessor(UNKNOWN)).verdict
    assert "GUEST-LINK-04" not in [item.id for item in verdict.failed]
    assert "GUEST-LINK-04" in [item.id for item in verdict.undecided]
    assert "GUEST-LINK-04" not in [item.id for item in judge_any(linked, ReportedProcessor(UNKNOWN)).suspects]
