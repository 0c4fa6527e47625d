"""What fidelity and safety ask of the VPD's control bits: derived, with witnesses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from popek.architectures.ia64.vti.arrangement import OWNABLE, VtiProfile
from popek.architectures.ia64.vti.assistance import VT_I
from popek.assistance.desk import Duty, desk_of
from popek.assistance.requirements import Requirement, disjunction
from popek.assistance.synthesis import Synthesis, processor_of, synthesize
from popek.assistance.witness import witness
from popek.checks.counterexample import ReplayError

DESK = desk_of(VT_I)


def derived(form: str, profile: VtiProfile | None = None) -> Requirement:
    return DESK.required(form, profile or VtiProfile())


def conditions(form: str, **profile: Any) -> tuple[str, str]:
    found = derived(form, VtiProfile(**profile))
    assert not found.undecided
    return found.condition(found.faithful), found.condition(found.safe)


@pytest.mark.parametrize(
    ("form", "faithful", "safe"),
    [
        ("vmsw.0", "d_vmsw = 1 or promotion_pages = 0", "d_vmsw = 1 or promotion_pages = 0"),
        ("vmsw.1", "d_vmsw = 1 or promotion_pages = 0", "always"),
        ("mov r = cr.ivr", "d_extint = 0", "d_extint = 0"),
        ("mov cr.eoi = r", "d_extint = 0", "d_extint = 0"),
        ("mov cr.tpr = r", "a_int = 1 or d_extint = 0", "a_int = 1 or d_extint = 0"),
        ("mov cr.itm = r", "d_itm = 0", "d_itm = 0"),
        ("mov r = cr.itm", "d_itm = 0", "always"),
        ("mov ibr[r] = r", "d_ibr_dbr = 0", "d_ibr_dbr = 0"),
        ("mov r = dbr[r]", "d_ibr_dbr = 0", "always"),
        ("mov pmc[r] = r", "d_pmc = 0", "d_pmc = 0"),
        ("mov pmd[r] = r", "d_to_pmd = 0", "d_to_pmd = 0"),
        ("rsm imm24", "d_psr_i = 0", "d_psr_i = 0"),
        ("tf r = imm8", "a_tf = 1", "always"),
        ("mov r = ar.itc", "si = 1", "always"),
    ],
)
def test_the_weakest_condition(form, faithful, safe) -> None:
    assert conditions(form) == (faithful, safe)


@pytest.mark.parametrize(
    "form",
    ["mov r = psr", "cover", "bsw.0", "bsw.1", "mov r = cpuid[r]", "mov r = cr(interruption)", "ssm imm24"],
)
def test_an_acceleration_keeps_fidelity_and_safety_and_saves_intercepts(form) -> None:
    found = derived(form)
    on = [values for values in found.sound if any(values)]
    assert on
    assert any(values in found.completes for values in on)
    assert (0,) * len(found.knobs) not in found.completes


@pytest.mark.parametrize(
    "form", ["thash r = r", "epc", "br.ret b", "ld8 r = [r]", "fc r", "probe.w gr = gr, imm2", "rfi"]
)
def test_most_instructions_ask_nothing(form) -> None:
    assert conditions(form) == ("always", "always")


def test_reading_pmd_is_faithful_only_with_switched_counters() -> None:
    assert conditions("mov r = pmd[r]") == ("never", "always")
    assert conditions("mov r = pmd[r]", grants=frozenset({"counters"})) == ("always", "always")


def test_kernel_registers_must_be_switched() -> None:
    assert conditions("mov r = ar.k", grants=frozenset())[0] == "never"
    assert conditions("mov ar.k = r", grants=frozenset()) == ("never", "never")
    assert conditions("mov ar.k = r") == ("always", "always")


def test_dcr_must_be_mirrored_for_speculative_loads() -> None:
    assert conditions("ld8.s r = [r]")[0] == "always"
    assert conditions("ld8.s r = [r]", grants=frozenset())[0] == "never"


def test_a_speculative_load_shows_the_withheld_address_bit_unless_the_guest_is_told() -> None:
    assert conditions("ld8.s r = [r]", narrow=False)[0] == "never"
    assert conditions("ld8 r = [r]", narrow=False) == ("always", "always")


def test_cover_relies_on_collection_above_cpl_0() -> None:
    assert conditions("cover", orderly=False)[0] == "never"


def test_accelerated_cpuid_relies_on_five_registers() -> None:
    assert conditions("mov r = cpuid[r]", small_cpuid=False)[0] == "a_from_cpuid = 0"


def test_dedicated_resources_lift_the_disable_bits() -> None:
    assert conditions("mov cr.itm = r", grants=frozenset({"timer"})) == ("always", "always")
    assert conditions("mov ibr[r] = r", grants=frozenset({"debug"})) == ("always", "always")


@pytest.mark.parametrize(
    ("form", "reading", "expected"),
    [
        ("mov r = cr(interruption)", "cr_any_ic", "a_from_int_cr = 0"),
        ("mov cr(interruption) = r", "cr_any_ic", "a_to_int_cr = 0"),
        ("mov r = pmc[r]", "pmc_reads_trap", "always"),
        ("mov cr.tpr = r", "tpr_traps", "d_extint = 0"),
    ],
)
def test_open_points_change_the_verdict_where_they_matter(form, reading, expected) -> None:
    assert conditions(form, assumed={reading: 1})[0] == expected
    assert conditions(form)[0] != expected


FORMS = (
    "ssm imm24", "rsm imm24", "mov r = psr", "bsw.0", "bsw.1", "mov cr(interruption) = r",
    "mov r = cr(interruption)", "mov r = cr(external)", "mov r = cr.ivr", "mov cr.tpr = r", "mov cr.eoi = r",
    "mov cr.itm = r", "mov ibr[r] = r", "mov pmc[r] = r", "mov pmd[r] = r", "mov r = pmd[r]",
    "mov r = cpuid[r]", "cover", "vmsw.0", "vmsw.1", "tf r = imm8",
)  # fmt: skip


def best(forms: Sequence[str], processor: str | None = None, *owns: str, **forced: int) -> Synthesis:
    """The best bits for these forms, with some of them forced."""
    chosen = processor_of(DESK, processor)
    rules = {**chosen.rules, **{name: chosen.controls[name] == value for name, value in forced.items()}}
    return synthesize(DESK, attrs.evolve(chosen, rules=rules), owns or None, forms=forms)


def test_synthesis_finds_what_xen_and_kvm_set() -> None:
    found = best(FORMS)
    assert set(found.on) == {
        "a_int", "a_from_int_cr", "a_to_int_cr", "a_from_psr", "a_from_cpuid", "a_cover", "a_bsw", "d_vmsw",
    }  # fmt: skip
    assert found.open == ("mov r = pmd[r]", "tf r = imm8")
    assert "cover" in found.completes


def test_synthesis_uses_later_bits_when_asked() -> None:
    found = best(FORMS, "later")
    assert found.controls["a_tf"] == 1
    assert found.controls["d_psr_i"] == 0
    assert found.open == ("mov r = pmd[r]",)


def test_synthesis_never_chooses_a_pair_that_pal_refuses() -> None:
    # Interrupts dedicated to the guest make d_extint harmless, and it would save the most intercepts.
    forms, owns = ("mov r = cr.ivr", "mov cr.eoi = r"), sorted(set(OWNABLE) - {"external-interrupts"})
    assert best(forms, None, *owns).controls["d_extint"] == 1
    assert best(forms, None, *owns, a_int=1).controls["d_extint"] == 0


def test_conditions_are_as_short_as_can_be() -> None:
    every = frozenset((a, b) for a in (0, 1) for b in (0, 1))
    assert disjunction(("x", "y"), every) == "always"
    assert disjunction(("x", "y"), frozenset()) == "never"
    assert disjunction(("x", "y"), every - {(1, 0)}) == "x = 0 or y = 1"
    assert disjunction(("x", "y"), frozenset({(1, 0), (0, 1)})) == "x = 0 and y = 1 or x = 1 and y = 0"


def test_a_witness_that_does_not_fail_on_numbers_is_not_shown() -> None:
    setting = {"d_vmsw": 0, "promotion_pages": 1}
    due = DESK.duty("vmsw.0", VtiProfile())
    assert "psr.vm 1 → 0" in witness(due, setting, ("unsafe",)).virtualized

    class NativeOnly(Duty):
        def image(self, guest, private, setting):
            return guest

    native_only = NativeOnly(*(getattr(due, field.name) for field in attrs.fields(Duty)))
    with pytest.raises(ReplayError, match="'unsafe' does not replay"):
        witness(native_only, setting, ("unsafe",))
    with pytest.raises(ReplayError, match="no failure under"):
        witness(due, {**setting, "d_vmsw": 1}, ("unsafe",))
