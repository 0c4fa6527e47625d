"""Robin and Irvine's result, derived, on a selection of forms; `tests/claims` checks all of them.

Expected classes are those of the publications: Robin and Irvine 2000 (sensitive and unprivileged), the
manual's UMIP, IOPL, TSD and PVI.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from machine_shop import NO, YES, assert_reruns, classified, critical

from popek.architectures.ia32 import MACHINES
from popek.checks import class_witness
from popek.checks.classification import Classification
from popek.kernel.machine import Machine

RING_1, RING_3 = "ring-deprivileging-0/1/3", "ring-deprivileging-0/3/3"
UMIP_FIVE = ("SGDT m", "SIDT m", "SLDT r32", "SMSW r16", "STR r32")


@cache
def ia32() -> Machine[Any]:
    return MACHINES["ia32"]()


@cache
def default(form: str, technique: str = RING_1) -> Classification[Any]:
    return classified(ia32(), form, technique=technique, components=True)


@pytest.mark.parametrize(
    "form",
    [
        "SGDT m", "SIDT m", "SLDT r32", "SMSW r32", "PUSHFD", "POPFD", "LAR r32, r16", "LSL r32, r16", "VERR r16",
        "VERW r16", "POP DS", "PUSH CS", "MOV r32, Sreg", "RETF", "STR r32",
    ],
)  # fmt: skip
def test_what_robin_and_irvine_list_is_critical(form: str) -> None:
    assert default(form).critical is YES
    assert default(form).privileged is NO


@pytest.mark.parametrize(
    "form",
    ["LGDT m16&32", "LIDT m16&32", "LLDT r16", "LTR r16", "LMSW r16", "CLTS", "MOV CR0, r32", "MOV r32, CR3",
     "MOV DR0, r32", "HLT", "INVD", "WBINVD", "INVLPG m", "RDMSR", "WRMSR"],
)  # fmt: skip
def test_what_the_manual_calls_privileged_is_privileged(form: str) -> None:
    assert default(form).privileged is YES
    assert default(form).critical is NO


@pytest.mark.parametrize(
    "form",
    [
        "ADD r32, r32",
        "MOV r32, m32",
        "MOV m32, r32",
        "PUSH r32",
        "LAHF",
        "SAHF",
        "JZ rel8",
        "NOP",
        "LEA r32, m",
    ],
)
def test_ordinary_instructions_are_innocuous_but_for_location(form: str) -> None:
    found = default(form)
    assert found.critical is NO
    assert found.innocuous is YES
    assert found.privileged is NO


def test_umip_takes_exactly_five_mnemonics_off_the_list() -> None:
    others = (
        "PUSHFD",
        "POPFD",
        "LAR r32, r16",
        "LSL r32, r16",
        "VERR r16",
        "VERW r16",
        "PUSH CS",
        "MOV r32, Sreg",
    )
    with_umip = critical(ia32(), [*UMIP_FIVE, *others], "UMIP=1", technique=RING_1)
    assert {form for form, truth in with_umip.items() if truth is NO} == set(UMIP_FIVE)
    assert {form for form, truth in with_umip.items() if truth is YES} == set(others)
    assert all(default(form).critical is YES for form in (*UMIP_FIVE, *others))


def test_umip_makes_the_five_privileged() -> None:
    for form in UMIP_FIVE:
        assert classified(ia32(), form, "UMIP=1", technique=RING_1).privileged is YES, form


IOPL_SENSITIVE = ("CLI", "STI", "IN AL, DX", "OUT DX, AL", "INSB", "OUTSB seg")


def test_iopl_at_the_guests_ring_makes_the_iopl_sensitive_instructions_critical() -> None:
    at_0 = critical(ia32(), IOPL_SENSITIVE, "IOPL=0", technique=RING_1)
    at_1 = critical(ia32(), IOPL_SENSITIVE, "IOPL=1", technique=RING_1)
    assert set(at_0.values()) == {NO}
    assert set(at_1.values()) == {YES}


def test_under_0_3_3_only_iopl_3_makes_cli_critical() -> None:
    truths = [critical(ia32(), ["CLI"], f"IOPL={level}", technique=RING_3)["CLI"] for level in range(4)]
    assert truths == [NO, NO, NO, YES]


def test_pvi_lets_cli_through_at_ring_3_and_never_at_ring_1() -> None:
    assert classified(ia32(), "CLI", "PVI=1", technique=RING_3).privileged is NO
    assert classified(ia32(), "CLI", "PVI=1", technique=RING_1).privileged is YES


def test_tsd_makes_rdtsc_privileged() -> None:
    assert classified(ia32(), "RDTSC", "TSD=1", technique=RING_3).privileged is YES
    assert classified(ia32(), "RDTSC", "TSD=0", technique=RING_3).privileged is NO


@pytest.mark.parametrize(("pce", "expected"), [("PCE=0", YES), ("PCE=1", NO)])
def test_pce_decides_whether_rdpmc_is_privileged(pce: str, expected: object) -> None:
    assert classified(ia32(), "RDPMC", pce, technique=RING_3).privileged is expected


@pytest.mark.parametrize("form", ["STR r32", "VERR r16"])
def test_str_and_verr_are_not_forgotten_under_0_3_3(form: str) -> None:
    assert default(form, RING_3).critical is YES


# -- in what they are sensitive -------------------------------------------------------------------


def test_smsw_leaks_the_bits_of_cr0() -> None:
    components = set(default("SMSW r32").components)
    assert {"cr0.ts", "cr0.mp", "cr0.em", "cr0.ne"} <= components
    assert all(name.startswith("cr0") for name in components)


def test_the_short_smsw_leaks_the_low_half_of_cr0_alone() -> None:
    components = set(default("SMSW r16").components)
    assert "cr0.ts" in components
    assert not {"cr0.wp", "cr0.am", "cr0.nw", "cr0.cd", "cr0.pg"} & components


@pytest.mark.parametrize(("form", "register"), [("SGDT m", "gdtr"), ("SIDT m", "idtr")])
def test_sgdt_and_sidt_leak_base_and_limit_of_their_table(form: str, register: str) -> None:
    found = default(form).findings["resource_sensitive"]
    assert set(found.components) == {f"{register}.base", f"{register}.limit"}


def test_pushf_leaks_the_interrupt_flag_and_where_it_is_left_open_iopl() -> None:
    assert "eflags.if" in default("PUSHFD").components
    assert "eflags.iopl" not in default("PUSHFD").components  # the same in both runs: it is a setting
    left_open = classified(ia32(), "PUSHFD", "IOPL=?", technique=RING_1, components=True)
    assert {"eflags.if", "eflags.iopl"} <= set(left_open.components)


def test_popf_is_mode_sensitive_because_the_interrupt_flag_is_silently_kept() -> None:
    found = default("POPFD")
    assert found.truth("mode_sensitive") is YES
    witness = found.findings["mode_sensitive"].witness
    assert witness is not None
    assert {d.name.rstrip("_") for d in witness.differ} & {"eflags.if", "eflags.iopl"}


def test_str_and_sldt_leak_the_selector_they_store() -> None:
    assert all(name.startswith("tr.selector") for name in default("STR r32").components)
    assert all(name.startswith("ldtr.selector") for name in default("SLDT r32").components)
    assert default("STR r32").components
    assert default("SLDT r32").components


# -- witnesses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    ["SMSW r32", "SGDT m", "STR r32", "PUSHFD", "POPFD", "LAR r32, r16", "VERR r16", "PUSH CS", "POP DS"],
)
def test_a_published_witness_runs_again_from_its_json_on_the_concrete_semantics(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Mapping[str, int]] = []
    original = class_witness.execute

    def recording(
        machine: Any, instruction: Any, label: str, before: Any, operands: Mapping[str, int]
    ) -> Any:
        used.append(operands)
        return original(machine, instruction, label, before, operands)

    monkeypatch.setattr(class_witness, "execute", recording)
    found = classified(ia32(), form, technique=RING_1)
    witness = found.witness
    assert witness is not None
    assert_reruns(ia32(), form, witness.to_json(), used[-1])
    assert witness.differ


def test_the_two_states_of_a_resource_witness_differ_in_one_component() -> None:
    witness = default("SMSW r32").findings["resource_sensitive"].witness
    assert witness is not None
    assert len(witness.to_json()["apart"]) == 1  # type: ignore[arg-type]
