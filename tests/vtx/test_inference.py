"""What a dump shows of its processor is used, and said; what a guest asks for shows nothing."""

from __future__ import annotations

import attrs
import pytest

from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.dumps.processors import Processor, judge_any
from popek.architectures.vtx.entry_checks import Outcome
from popek.architectures.vtx.inference import evidence, with_evidence
from popek.architectures.vtx.vmcs import Vmcs

SKYLAKE = load_capabilities("bochs-corei7-skylake-x")
START = baseline("64-bit", SKYLAKE)
LA57, CET, PKS = 1 << 12, 1 << 23, 1 << 24


def host(bits: int, **changes: int) -> Vmcs:
    return START.with_fields(HOST_CR4=(START.get("HOST_CR4") or 0) | bits, **changes)


FAR = 1 << 50  # canonical with 57 bits alone


def test_a_host_with_five_levels_shows_57_bits() -> None:
    found = judge_any(host(LA57, HOST_GS_BASE=FAR), Processor(UNKNOWN))
    assert "HOST-SEG-12" not in [item.id for item in (*found.suspects, *found.verdict.undecided)]
    assert found.inferred == ("HOST_CR4.LA57 (bit 12) = 1: linear addresses have 57 bits",)
    found = judge_any(host(0, HOST_GS_BASE=FAR), Processor(UNKNOWN))
    assert "HOST-SEG-12" in [item.id for item in found.suspects]
    assert found.inferred == ()


def test_a_guest_with_five_levels_shows_nothing() -> None:
    guest = START.with_fields(GUEST_CR4=(START.get("GUEST_CR4") or 0) | LA57, HOST_GS_BASE=FAR)
    assert judge_any(guest, Processor(UNKNOWN)).inferred == ()


def test_what_is_known_takes_precedence() -> None:
    known = Capabilities(linear_address_width=48)
    assert judge_any(host(LA57, HOST_GS_BASE=FAR), Processor(known)).verdict.failed
    assert with_evidence(known, evidence(host(LA57))) == (known, ())


@pytest.mark.parametrize(
    ("bits", "feature"), [(CET, "CET"), (PKS, "PKS"), (1 << 28, "LAM"), (1 << 32, "FRED")]
)
def test_each_bit_shows_its_feature(bits: int, feature: str) -> None:
    known, words = with_evidence(UNKNOWN, bits)
    assert known.features == {feature: True}
    assert len(words) == 1


def test_lam_decides_what_cr3_may_hold() -> None:
    vmcs = host(1 << 28, GUEST_CR3=1 << 62)
    assert not judge_any(vmcs, Processor(UNKNOWN)).suspects
    assert judge_any(host(0, GUEST_CR3=1 << 62), Processor(UNKNOWN)).suspects


@pytest.mark.parametrize("bits", [LA57, CET | LA57])
def test_the_hosts_cr4_is_no_evidence_for_itself(bits: int) -> None:
    found = judge_any(host(bits), Processor(UNKNOWN))
    assert "HOST-CR-02" in [item.id for item in found.verdict.undecided]


WIDE = attrs.evolve(SKYLAKE, linear_address_width=57, maxphyaddr=46)


def test_the_hosts_rip_may_be_judged_by_the_hosts_la57() -> None:
    narrow = judge_any(START.with_fields(HOST_RIP=FAR), Processor(WIDE)).verdict
    assert narrow.outcome.kind == "enters"
    assert [item.id for item in narrow.warnings] == ["HOST-ASZ-09"]
    assert Outcome("vmfail-valid", errors=(8,)) in narrow.admissible
    assert not judge_any(START.with_fields(HOST_RIP=1 << 46), Processor(WIDE)).verdict.warnings
    failed = judge_any(START.with_fields(HOST_RIP=1 << 57), Processor(WIDE)).verdict.failed
    assert [item.id for item in failed] == ["HOST-ASZ-09"]
    unknown = judge_any(START.with_fields(HOST_RIP=1 << 62), Processor(UNKNOWN)).verdict.failed
    assert "HOST-ASZ-09" in [item.id for item in unknown]
