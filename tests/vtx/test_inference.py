"""What a dump shows of its processor is used, and said; what a guest asks for shows nothing."""

from __future__ import annotations

import json

import attrs
import pytest

from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.dumps import read_dumps
from popek.architectures.vtx.dumps.diagnosis import diagnose
from popek.architectures.vtx.dumps.processors import ReportedProcessor, judge_any
from popek.architectures.vtx.entry_checks import Outcome
from popek.architectures.vtx.inference import NOTHING, evidence, with_evidence
from popek.architectures.vtx.vmcs import Vmcs

SKYLAKE = load_capabilities("bochs-corei7-skylake-x")
START = baseline("64-bit", SKYLAKE)
LA57, CET, PKS = 1 << 12, 1 << 23, 1 << 24


LONG = "HOST_IA32_EFER.LMA (bit 10) = 1: the processor has Intel 64"


def host(bits: int, **changes: int) -> Vmcs:
    return START.with_fields(HOST_CR4=(START.get("HOST_CR4") or 0) | bits, **changes)


FAR = 1 << 50  # canonical with 57 bits alone


def test_a_host_with_five_levels_shows_57_bits() -> None:
    found = judge_any(host(LA57, HOST_GS_BASE=FAR), ReportedProcessor(UNKNOWN))
    assert "HOST-SEG-12" not in [item.id for item in (*found.suspects, *found.verdict.undecided)]
    assert found.inferred == ("HOST_CR4.LA57 (bit 12) = 1: linear addresses have 57 bits", LONG)
    found = judge_any(host(0, HOST_GS_BASE=FAR), ReportedProcessor(UNKNOWN))
    assert "HOST-SEG-12" in [item.id for item in found.suspects]
    assert found.inferred == (LONG,)


def test_a_guest_with_five_levels_shows_nothing() -> None:
    guest = START.with_fields(GUEST_CR4=(START.get("GUEST_CR4") or 0) | LA57, HOST_GS_BASE=FAR)
    assert judge_any(guest, ReportedProcessor(UNKNOWN)).inferred == (LONG,)


def test_what_is_known_takes_precedence() -> None:
    known = Capabilities(linear_address_width=48)
    assert judge_any(host(LA57, HOST_GS_BASE=FAR), ReportedProcessor(known)).verdict.failed
    long_mode = Capabilities(linear_address_width=48, features={"INTEL64": True})
    assert with_evidence(long_mode, evidence(host(LA57))) == (long_mode, ())
    told = attrs.evolve(SKYLAKE, cpuid={**SKYLAKE.cpuid, "0x7.0.ecx": 0, "0x7.0.edx": 0})
    assert with_evidence(told, evidence(host(LA57 | CET | PKS, HOST_CR3=1 << 45))) == (told, ())


@pytest.mark.parametrize(
    ("bits", "feature"), [(CET, "CET"), (PKS, "PKS"), (1 << 25, "UINTR"), (1 << 28, "LAM"), (1 << 32, "FRED")]
)
def test_each_bit_shows_its_feature(bits: int, feature: str) -> None:
    known, words = with_evidence(UNKNOWN, (bits, 0, 0, False))
    assert known.features == {feature: True}
    assert len(words) == 1


def test_lam_decides_what_cr3_may_hold() -> None:
    vmcs = host(1 << 28, GUEST_CR3=1 << 62)
    assert not judge_any(vmcs, ReportedProcessor(UNKNOWN)).suspects
    assert judge_any(host(0, GUEST_CR3=1 << 62), ReportedProcessor(UNKNOWN)).suspects


@pytest.mark.parametrize("bits", [LA57, CET | LA57])
def test_the_hosts_cr4_is_no_evidence_for_itself(bits: int) -> None:
    found = judge_any(host(bits), ReportedProcessor(UNKNOWN))
    assert "HOST-CR-02" in [item.id for item in found.verdict.undecided]


SMEP = 1 << 20


def test_what_the_hosts_cr4_has_the_guests_may_have() -> None:
    shared = host(SMEP, GUEST_CR4=(START.get("GUEST_CR4") or 0) | SMEP)
    found = judge_any(shared, ReportedProcessor(UNKNOWN))
    assert "GUEST-CR-03" not in [item.id for item in found.verdict.undecided]
    assert "HOST_CR4 has bits 0x100000: CR4 may have them (IA32_VMX_CR4_FIXED1)" in found.inferred
    alone = START.with_fields(GUEST_CR4=(START.get("GUEST_CR4") or 0) | SMEP)
    undecided = [item.id for item in judge_any(alone, ReportedProcessor(UNKNOWN)).verdict.undecided]
    assert "GUEST-CR-03" in undecided
    # A processor that says otherwise is believed.
    without = attrs.evolve(SKYLAKE, msrs={**SKYLAKE.msrs, 0x489: SKYLAKE.msrs[0x489] & ~SMEP})
    assert "GUEST-CR-03" in [item.id for item in judge_any(shared, ReportedProcessor(without)).verdict.failed]


def test_the_hosts_cr3_shows_how_wide_physical_addresses_are_but_not_for_itself() -> None:
    wide = host(0, HOST_CR3=1 << 40, GUEST_CR3=1 << 40, VMCS_LINK_POINTER=(1 << 64) - 1)
    found = judge_any(wide, ReportedProcessor(UNKNOWN))
    undecided = [item.id for item in found.verdict.undecided]
    assert "GUEST-CR-09" not in undecided
    assert "HOST-CR-04" in undecided
    assert "HOST_CR3 has bit 40: physical addresses have 41 bits at least" in found.inferred
    assert "GUEST-CR-09" in [
        item.id
        for item in judge_any(host(0, GUEST_CR3=1 << 40), ReportedProcessor(UNKNOWN)).verdict.undecided
    ]
    narrow = attrs.evolve(SKYLAKE, maxphyaddr=39)
    assert {"GUEST-CR-09", "HOST-CR-04"} & {
        item.id for item in judge_any(wide, ReportedProcessor(narrow)).verdict.failed
    }


def test_nothing_shows_nothing() -> None:
    assert evidence(Vmcs()) == NOTHING
    assert with_evidence(UNKNOWN, NOTHING) == (UNKNOWN, ())


WIDE = attrs.evolve(SKYLAKE, linear_address_width=57, maxphyaddr=46)


def test_the_hosts_rip_may_be_judged_by_the_hosts_la57() -> None:
    narrow = judge_any(START.with_fields(HOST_RIP=FAR), ReportedProcessor(WIDE)).verdict
    assert narrow.outcome.kind == "enters"
    assert [item.id for item in narrow.warnings] == ["HOST-ASZ-09"]
    assert Outcome("vmfail-valid", errors=(8,)) in narrow.admissible
    assert not judge_any(START.with_fields(HOST_RIP=1 << 46), ReportedProcessor(WIDE)).verdict.warnings
    failed = judge_any(START.with_fields(HOST_RIP=1 << 57), ReportedProcessor(WIDE)).verdict.failed
    assert [item.id for item in failed] == ["HOST-ASZ-09"]
    unknown = judge_any(START.with_fields(HOST_RIP=1 << 62), ReportedProcessor(UNKNOWN)).verdict.failed
    assert "HOST-ASZ-09" in [item.id for item in unknown]


HOST_32 = 0x0003_6DFF  # the default1 class of the VM-exit controls: bit 9, host address-space size, is 0


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ([], "undecided"),
        (["HOST_RIP = 0xc1000000", "HOST_CR4 = 0x2020"], "undecided"),
        (["HOST_CR4 = 0x2000"], "passes"),
        (["HOST_RIP = 0xffffffff81000000"], "fails"),
        (["HOST_GS_BASE = 0xffff888000000000"], "fails"),
        (["HOST_IA32_EFER = 0xd01"], "fails"),
        (["HOST_CR4 = 0x22020"], "fails"),
        (["ENTRY_CONTROLS = 0x13ff"], "fails"),
    ],
)
def test_a_32_bit_host_is_accused_only_where_the_vmm_is_in_ia32e_mode(lines: list[str], verdict: str) -> None:
    # "If IA32_EFER.LMA = 1 when VM entry is executed, host address-space size must be 1" (vol. 3, checks related
    # to address-space size). Outside IA-32e mode linear addresses have 32 bits and CR4.PCIDE is 0; in it PAE is 1.
    text = "\n".join([f"EXIT_CONTROLS = {HOST_32:#x}", *lines, ""])
    found = diagnose(read_dumps(text.encode(), "x")[0])
    failed = {item.id for item in found.verdict.failed}
    undecided = {item.id for item in found.verdict.undecided}
    assert ("HOST-ASZ-03" in failed) == (verdict == "fails")
    assert ("HOST-ASZ-03" in undecided) == (verdict == "undecided")
    if verdict == "undecided":
        near = next(near for near in found.near_misses if near.id == "HOST-ASZ-03")
        assert near.missing == ("whether the VMM runs in IA-32e mode (IA32_EFER.LMA)",)


@pytest.mark.parametrize(("lma", "fails"), [(1, True), (0, False)])
def test_who_says_the_mode_of_the_vmm_is_believed(lma: int, fails: bool) -> None:
    text = json.dumps({"fields": {"EXIT_CONTROLS": hex(HOST_32)}, "launch": {"efer_lma": lma}})
    verdict = diagnose(read_dumps(text.encode(), "x")[0]).verdict
    assert ("HOST-ASZ-03" in {item.id for item in verdict.failed}) == fails
