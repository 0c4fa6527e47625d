"""What the verdict says of hand-written VMCSs, boundary by boundary, and how it treats what is not known."""

from __future__ import annotations

import json
import random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popek.architectures.vtx.baselines import MODES, Mode, baseline
from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.entry_checks import CHECKS, Check, Outcome
from popek.architectures.vtx.evaluation import Evaluator, reads, violated
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.verdict import judge, verdict_of_many
from popek.architectures.vtx.view import field_symbol, symbolic_view, view_of
from popek.architectures.vtx.vmcs import Launch, MissingField, Vmcs
from popek.kernel.evaluation import evaluate
from popek.kernel.exploration import explore
from popek.kernel.words import SymbolicConditionError, Word
from popek.solving.pruning import Pruner

TIGER = load_capabilities("bochs-tigerlake")
HASWELL = load_capabilities("intel-haswell")
PENRYN = load_capabilities("bochs-core2-penryn-t9600")
EPT = {"PRIMARY_PROC_CONTROLS": 1 << 31, "SECONDARY_PROC_CONTROLS": 1 << 1}
PAT = 0x0007_0406_0007_0406
NONCANONICAL = 1 << 47


def build(mode: Mode, changes: dict[str, int], capabilities: Capabilities = TIGER) -> Vmcs:
    """The baseline with control words or-ed, other fields replaced."""
    base = baseline(mode, capabilities)
    fields = dict(base.fields)
    for name, value in changes.items():
        fields[name] = fields[name] | value if name.endswith("_CONTROLS") else value
    link, table = fields["VMCS_LINK_POINTER"], fields["GUEST_CR3"] & 0xFFFF_FFE0
    memory = ((link, 4, 4), *((table + 8 * n, 8, 0) for n in range(4)))
    return attrs.evolve(base, fields=fields, memory=memory)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(("CS", "SS", "DS", "ES", "FS", "GS")), st.integers(0, 2**17 - 1))
def test_virtual_8086_mode_has_rows_of_its_own(segment: str, rights: int) -> None:
    """The rows of protected mode stay silent: a checker once applied both."""
    failed = judge(build("v8086", {f"GUEST_{segment}_ACCESS_RIGHTS": rights}), TIGER).failed
    rows = {item.id for item in failed}
    number = ("CS", "SS", "DS", "ES", "FS", "GS").index(segment) + 1
    assert rows == (set() if rights == 0xF3 else {f"GUEST-AR-V86-{number:02}"})


def test_error_codes_follow_the_vector_where_the_processor_fixes_them() -> None:
    """INJ-08 and INJ-09 for each vector, on a processor without CET."""
    with_code = {8, 10, 11, 12, 13, 14, 17}
    for vector in range(32):
        for delivers in (0, 1):
            changes = {"ENTRY_INTR_INFO": 0x8000_0300 | delivers << 11 | vector}
            failed = {item.id for item in judge(build("64-bit", changes, HASWELL), HASWELL).failed}
            wanted = set()
            if vector in with_code and not delivers:
                wanted = {"INJ-08"}
            elif vector not in with_code and delivers:
                wanted = {"INJ-09"}
            assert failed == wanted, (vector, delivers)


# -- the launch, and MSR-load areas ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("launch", "row", "outcome"),
    [
        (Launch(vmx_root=False), "PRE-01", Outcome("fault")),
        (Launch(legal_mode=False), "PRE-01", Outcome("fault")),
        (Launch(cpl=3), "PRE-02", Outcome("fault")),
        (Launch(has_current_vmcs=False), "PRE-03", Outcome("vmfail-invalid")),
        (Launch(shadow_vmcs=True), "PRE-04", Outcome("vmfail-invalid")),
        (Launch(mov_ss_blocking=True), "PRE-05", Outcome("vmfail-valid", errors=(26,))),
        (Launch(launch_state="launched"), "PRE-06", Outcome("vmfail-valid", errors=(4,))),
        (
            Launch(instruction="VMRESUME", launch_state="clear"),
            "PRE-07",
            Outcome("vmfail-valid", errors=(5,)),
        ),
    ],
)
def test_the_basic_checks_decide_before_the_fields(launch: Launch, row: str, outcome: Outcome) -> None:
    vmcs = attrs.evolve(build("64-bit", {"GUEST_RFLAGS": 0, "VPID": 1}), launch=launch)
    verdict = judge(vmcs, TIGER)
    assert verdict.failed[0].id == row
    assert verdict.outcome == outcome


def test_the_basic_checks_are_in_order() -> None:
    launch = Launch(instruction="VMRESUME", launch_state="clear", mov_ss_blocking=True)
    verdict = judge(attrs.evolve(build("64-bit", {}), launch=launch), TIGER)
    assert verdict.outcome.errors == (26,)


def test_vmresume_after_vmxoff_fails_on_some_processors() -> None:
    launch = Launch(instruction="VMRESUME", launch_state="launched", vmxoff_since_launch=True)
    verdict = judge(attrs.evolve(build("64-bit", {}), launch=launch), TIGER)
    assert verdict.outcome.kind == "enters"
    assert Outcome("vmfail-valid", errors=(6,)) in verdict.admissible


def loads(*entries: tuple[int, int, int], **launch: Any) -> Vmcs:
    """A VMCS whose MSR-load area has these entries: index, bits 63:32, value."""
    vmcs = build("64-bit", {"ENTRY_MSR_LOAD_COUNT": len(entries)})
    address = vmcs.fields["ENTRY_MSR_LOAD_ADDR"]
    memory = []
    for number, (index, high, value) in enumerate(entries):
        place = address + 16 * number
        memory += [(place, 4, index), (place + 4, 4, high), (place + 8, 8, value)]
    return attrs.evolve(vmcs, memory=tuple(memory), launch=Launch(**{"x2apic": False, **launch}))


STAR = (0xC000_0081, 0, 5)


@pytest.mark.parametrize(
    ("row", "entry", "launch", "passes"),
    [
        ("LOAD-01", (0xC000_0100, 0, 0), {}, False),
        ("LOAD-01", (0xC000_0101, 0, 0), {}, False),
        ("LOAD-01", (0xC000_0102, 0, 0), {}, True),
        ("LOAD-02", (0x808, 0, 0), {"x2apic": True}, False),
        ("LOAD-02", (0x8FF, 0, 0), {"x2apic": True}, False),
        ("LOAD-02", (0x900, 0, 0), {"x2apic": True}, True),
        ("LOAD-02", (0x808, 0, 0), {"x2apic": False}, False),
        ("LOAD-02", (0x808, 0, 0), {"x2apic": None}, False),
        ("LOAD-06", (0x808, 0, 0), {"x2apic": True}, True),
        ("LOAD-06", (0xC000_0103, 0, 1 << 32), {}, False),
        ("LOAD-03", (0x9B, 0, 0), {}, False),
        ("LOAD-03", (0x9B, 0, 0), {"in_smm": True}, True),
        ("LOAD-04", (0x174, 1, 0), {}, False),
        ("LOAD-05", (0x79, 0, 0), {}, False),
        ("LOAD-05", (0x8B, 0, 0), {}, False),
        ("LOAD-06", (0x277, 0, 2), {}, False),
        ("LOAD-06", (0x277, 0, 6), {}, True),
        ("LOAD-06", (0x6A8, 0, 0x0000_8000_0000_0000), {}, False),
        ("LOAD-06", (0xC000_0082, 0, NONCANONICAL), {}, False),
        ("LOAD-06", (0xC000_0080, 0, 0x502), {}, False),
        ("LOAD-07", (0xC000_0080, 0, 0x0), {}, False),
        ("LOAD-07", (0xC000_0080, 0, 0x500), {}, True),
    ],
)
def test_msr_load_entries(
    row: str, entry: tuple[int, int, int], launch: dict[str, Any], passes: bool
) -> None:
    verdict = judge(loads(STAR, STAR, entry, **launch), TIGER)
    assert (row in [item.id for item in verdict.failed]) != passes
    if not passes:
        assert verdict.outcome == Outcome("entry-failure", reason=34, qualification=3)


def test_the_first_bad_entry_counts() -> None:
    verdict = judge(loads(STAR, (0x79, 0, 0), (0xC000_0100, 0, 0)), TIGER)
    assert [item.id for item in verdict.failed] == ["LOAD-01", "LOAD-05"]
    assert verdict.outcome.qualification == 2
    assert verdict.admissible == (verdict.outcome,)


def test_entries_that_nobody_gave_are_undecided() -> None:
    vmcs = build("64-bit", {"ENTRY_MSR_LOAD_COUNT": 1})
    verdict = judge(vmcs, TIGER)
    assert verdict.outcome.kind == "undecided"
    assert {item.id for item in verdict.undecided} == {f"LOAD-0{n}" for n in range(1, 8)}
    assert "memory" in verdict.undecided[0].missing[0]


# -- sets, unknowns, reports ------------------------------------------------------------------------


def test_control_and_host_failures_together_admit_both_errors() -> None:
    verdict = judge(build("64-bit", {"CR3_TARGET_COUNT": 9, "HOST_TR_SELECTOR": 0}), TIGER)
    assert verdict.outcome == Outcome("vmfail-valid", errors=(7, 8))
    assert set(verdict.admissible) == {
        Outcome("vmfail-valid", errors=(7,)),
        Outcome("vmfail-valid", errors=(8,)),
    }


def test_guest_failures_come_after_control_failures() -> None:
    verdict = judge(build("64-bit", {"CR3_TARGET_COUNT": 9, "GUEST_RFLAGS": 0}), TIGER)
    assert verdict.outcome == Outcome("vmfail-valid", errors=(7,))
    assert [item.id for item in verdict.failed] == ["CTL-CR3T-01", "GUEST-RFL-02"]


def test_several_qualifications_are_admissible() -> None:
    verdict = judge(build("pae", {"VMCS_LINK_POINTER": 0x5008, "GUEST_RFLAGS": 0, "GUEST_PDPTE0": 7}), TIGER)
    assert {outcome.qualification for outcome in verdict.admissible} == {0, 2, 4}


def test_an_nmi_behind_sti_may_fail() -> None:
    changes = {"ENTRY_INTR_INFO": 0x8000_0202, "GUEST_INTERRUPTIBILITY": 1, "GUEST_RFLAGS": 0x202}
    verdict = judge(build("64-bit", changes), TIGER)
    assert verdict.outcome.kind == "enters"
    assert [item.id for item in verdict.warnings] == ["GUEST-INT-06"]
    assert verdict.admissible == (Outcome("enters"), Outcome("entry-failure", reason=33, qualification=3))


def test_pdptes_in_memory_fail_on_most_processors() -> None:
    vmcs = baseline("pae", TIGER, ept=False)
    table = vmcs.fields["GUEST_CR3"]
    memory = ((table, 8, 7), *((table + 8 * n, 8, 0) for n in (1, 2, 3)))
    verdict = judge(attrs.evolve(vmcs, memory=memory), TIGER)
    assert verdict.outcome == Outcome("entry-failure", reason=33, qualification=2)
    assert Outcome("enters") in verdict.admissible
    assert judge(vmcs, TIGER).outcome.kind == "undecided"


def test_bit_15_of_an_error_code_depends_on_the_processor() -> None:
    changes = {"ENTRY_INTR_INFO": 0x8000_0B0E, "ENTRY_EXCEPTION_ERROR_CODE": 0x8000}
    verdict = judge(build("64-bit", changes), TIGER)
    assert verdict.outcome.kind == "enters"
    assert [item.id for item in verdict.warnings] == ["INJ-11"]
    changes["ENTRY_EXCEPTION_ERROR_CODE"] = 0x1_0000
    assert [item.id for item in judge(build("64-bit", changes), TIGER).failed] == ["INJ-11"]


def test_too_many_msrs_are_a_suspect_only() -> None:
    vmcs = build("64-bit", {"EXIT_MSR_LOAD_COUNT": 513})
    verdict = judge(vmcs, TIGER)
    assert (verdict.outcome.kind, [item.id for item in verdict.warnings]) == ("enters", ["EXIT-06"])
    assert verdict.admissible == (Outcome("enters"),)


def test_missing_fields_are_unknown_not_zero() -> None:
    full = build("64-bit", {})
    without = attrs.evolve(full, fields={k: v for k, v in full.fields.items() if k != "GUEST_RFLAGS"})
    verdict = judge(without, TIGER)
    assert verdict.outcome.kind == "undecided"
    assert all(item.missing == ("GUEST_RFLAGS",) for item in verdict.undecided)
    assert "GUEST-RFL-02" in {item.id for item in verdict.undecided}
    zero = attrs.evolve(without, default=0)
    assert [item.id for item in judge(zero, TIGER).failed] == ["GUEST-RFL-02"]


def test_a_gate_that_is_known_not_to_hold_decides() -> None:
    """Nobody needs the I/O bitmaps to know that a VMCS that does not use them is fine."""
    full = build("64-bit", {})
    partial = {k: v for k, v in full.fields.items() if k not in ("IO_BITMAP_A", "SECONDARY_PROC_CONTROLS")}
    verdict = judge(attrs.evolve(full, fields=partial), TIGER)
    assert verdict.undecided == ()
    assert verdict.outcome.kind == "enters"


def test_a_decided_failure_beats_what_is_undecided() -> None:
    verdict = judge(Vmcs(fields={"GUEST_RFLAGS": 0}))
    assert verdict.outcome == Outcome("entry-failure", reason=33, qualification=0)
    assert len(verdict.undecided) > 100


def test_nothing_known_is_undecided_everywhere() -> None:
    verdict = judge(Vmcs(), UNKNOWN)
    assert verdict.outcome.kind == "undecided"
    assert verdict.failed == verdict.warnings == ()
    assert all(item.missing for item in verdict.undecided)


@pytest.mark.parametrize(
    ("changes", "report", "explains"),
    [
        ({"GUEST_RFLAGS": 0}, {"EXIT_REASON": 0x8000_0021, "EXIT_QUALIFICATION": 0}, "yes"),
        ({"GUEST_RFLAGS": 0}, {"EXIT_REASON": 0x8000_0021}, "yes"),
        ({"GUEST_RFLAGS": 0}, {"EXIT_REASON": 0x8000_0021, "EXIT_QUALIFICATION": 4}, "no"),
        ({}, {"EXIT_REASON": 0x8000_0021, "EXIT_QUALIFICATION": 0}, "no"),
        ({"CR3_TARGET_COUNT": 9}, {"VM_INSTRUCTION_ERROR": 7}, "yes"),
        ({"CR3_TARGET_COUNT": 9}, {"VM_INSTRUCTION_ERROR": 8}, "no"),
        ({}, {"EXIT_REASON": 10}, "yes"),
        ({}, {"EXIT_REASON": 10, "VM_INSTRUCTION_ERROR": 12}, "yes"),  # left from a VMREAD
        ({"GUEST_RFLAGS": 0}, {"EXIT_REASON": 10}, "no"),
        ({}, {}, "unknown"),
    ],
)
def test_whether_the_verdict_explains_the_report(
    changes: dict[str, int], report: dict[str, int], explains: str
) -> None:
    verdict = judge(build("64-bit", {**changes, **report}), TIGER)
    assert verdict.explains_report == explains
    assert verdict.reported == report


def test_the_json_form() -> None:
    verdict = judge(build("64-bit", {"PRIMARY_PROC_CONTROLS": 1 << 25, "IO_BITMAP_A": 0x1001}), TIGER)
    shown = json.loads(json.dumps(verdict.to_json()))
    assert shown["schema"] == "popek/vmcs-verdict/1"
    assert shown["outcome"] == {"kind": "vmfail-valid", "errors": [7]}
    (failed,) = shown["failed"]
    assert failed["id"] == "CTL-IOBM-01"
    assert failed["fields"] == {"IO_BITMAP_A": "0x1001"}
    assert "IO_BITMAP_A = 0x1001" in failed["message"]
    assert failed["section"] == "E.2.1.1"
    assert set(shown) >= {"undecided", "warnings", "reported", "explains_report"}


# -- laws ---------------------------------------------------------------------------------------------


def near(mode: Mode, seed: int) -> dict[str, int]:
    """A baseline's fields with a few bits turned."""
    rnd = random.Random(seed)
    fields = dict(baseline(mode, TIGER).fields)
    for _ in range(rnd.randrange(1, 6)):
        name = rnd.choice(list(fields))
        fields[name] ^= 1 << rnd.randrange(FIELDS[name].width)
    return fields


LAUNCH = Launch(current_vmcs=0x1_1000, vmxon_pointer=0x1_2000, x2apic=False)
DECIDABLE = [check for check in CHECKS.values() if check.group.name != "msr-load-area"]


def explored(check: Check, names: tuple[str, ...], fixed: Vmcs) -> list[tuple[Word, Word]]:
    """The check on symbols: per path its condition, and whether the state violates it."""
    symbols = {name: field_symbol(name) for name in names}

    def run() -> Word:
        view = symbolic_view(fixed, TIGER, symbols)
        for gate in check.gates:
            value = gate.test(view)
            if not value:  # forks
                return Word(1, 0)
        holds = check.holds(view)
        return Word(1, 0) if holds else Word(1, 1)

    return [(path.condition, path.result) for path in explore(run, Pruner())]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DECIDABLE), st.sampled_from(MODES), st.integers(0, 2**32))
def test_integers_and_symbols_agree(check: Check, mode: Mode, seed: int) -> None:
    """Exactly one path's condition holds of the integers, and it gives their answer."""
    fields = near(mode, seed)
    names = reads(check)
    fixed = Vmcs(fields={k: v for k, v in fields.items() if k not in names}, launch=LAUNCH)
    # Memory holds zeros, on both sides.
    places = (
        *((((fields["GUEST_CR3"] & 0xFFFF_FFE0) + 8 * number), 8) for number in range(4)),
        (fields["VIRTUAL_APIC_ADDR"] + 0x80, 1),
        (fields["VMCS_LINK_POINTER"], 4),
        (fields["EXECUTIVE_VMCS_PTR"], 4),
    )
    memory = tuple((address, size, 0) for address, size in places)
    zeros = dict.fromkeys(("memory8", "memory32", "memory64"), lambda *address: 0)
    actual = violated(check, view_of(Vmcs(fields=fields, memory=memory, launch=LAUNCH), TIGER))
    assert actual is not None
    paths = explored(check, names, attrs.evolve(fixed, memory=memory))
    values = {name: fields[name] for name in names}
    taken = [result for condition, result in paths if evaluate([condition.term], values, zeros)[0]]
    assert [int(result) for result in taken] == [int(actual)]


def branch_free(check: Check, names: tuple[str, ...]) -> tuple[list[Any], Any] | None:
    view = symbolic_view(Vmcs(launch=LAUNCH), TIGER, {name: field_symbol(name) for name in names})
    try:
        return [gate.test(view) for gate in check.gates], check.holds(view)
    except (MissingField, SymbolicConditionError):
        return None


def test_most_predicates_do_not_branch() -> None:
    """So that a solver sees one formula for each, and a stream of VMCSs gets a compiled sieve."""
    branching = {check.id for check in CHECKS.values() if branch_free(check, reads(check)) is None}
    assert branching <= {"SMM-01", "EXIT-08", "EXIT-09", *(f"LOAD-0{n}" for n in range(1, 8))}


@pytest.mark.parametrize(
    "left_out", [(), ("HOST", "BITMAP"), ("SECONDARY", "PDPTE", "RFLAGS"), ("CONTROLS", "CR0")]
)
@pytest.mark.parametrize("capabilities", [TIGER, UNKNOWN])
def test_the_compiled_sieve_changes_no_verdict(left_out: tuple[str, ...], capabilities: Capabilities) -> None:
    rnd = random.Random(5)
    vmcss = []
    for seed in range(150):
        fields = near(rnd.choice(MODES), seed)
        fields = {k: v for k, v in fields.items() if not any(part in k for part in left_out)}
        vmcss.append(Vmcs(fields=fields, launch=LAUNCH))
    one_by_one = [judge(vmcs, capabilities) for vmcs in vmcss]
    assert list(verdict_of_many(vmcss, capabilities)) == one_by_one
    assert len({item.id for verdict in one_by_one for item in verdict.failed}) > 20


def test_the_sieve_is_really_used() -> None:
    evaluator = Evaluator(TIGER)
    vmcs = build("64-bit", {})
    for _ in range(40):
        evaluator.run(vmcs)
    assert len(evaluator._sieves) == 1
    found = evaluator._sieve_of(vmcs.fields, vmcs.launch)
    assert found is not None
    assert found.scan(vmcs.fields) == ([], 0, [])


def test_other_processors_other_verdicts() -> None:
    """Unrestricted guests need a processor that has them; nothing else changes."""
    vmcs = build("real", {})
    assert judge(vmcs, TIGER).outcome.kind == "enters"
    failed = [item.id for item in judge(vmcs, PENRYN).failed]
    assert "CTL-CAP-03" in failed or "CTL-CAP-02" in failed


# -- processors that are not fully known ----------------------------------------------------------------

FULL = [
    TIGER,
    PENRYN,
    HASWELL,
    load_capabilities("bochs-corei7-skylake-x"),
    load_capabilities("intel-skylake"),
]


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(FULL), st.sampled_from(MODES), st.integers(0, 2**32))
def test_knowing_less_never_changes_an_answer(full: Capabilities, mode: Mode, seed: int) -> None:
    """What is decided for a partly known processor is what the whole processor says."""
    rnd = random.Random(seed)
    share = rnd.random()
    partial = attrs.evolve(
        full,
        msrs={number: value for number, value in full.msrs.items() if rnd.random() > share},
        cpuid={name: value for name, value in full.cpuid.items() if rnd.random() > share},
        features={name: value for name, value in full.features.items() if rnd.random() > share},
        maxphyaddr=rnd.choice((None, full.maxphyaddr)),
        linear_address_width=rnd.choice((None, full.linear_address_width)),
    )
    vmcs = Vmcs(fields=near(mode, seed), launch=LAUNCH)
    known, less = judge(vmcs, full), judge(vmcs, partial)
    failed = {item.id for item in known.failed}
    open_rows = {item.id for item in less.undecided}
    assert {item.id for item in less.failed} | open_rows >= failed
    assert {item.id for item in less.failed} <= failed | {item.id for item in known.undecided}


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        ("GUEST-CR-09", "GUEST_CR3", 1 << 63 | 0x1000),  # seen in a real report
        ("GUEST-DT-01", "GUEST_GDTR_BASE", 1 << 60),
        ("HOST-CR-01", "HOST_CR0", 0x8000_0001),
        ("HOST-CR-02", "HOST_CR4", 0x20),
        ("HOST-SEG-13", "HOST_TR_BASE", 0x7FFF_0000_0000_0000),
        ("GUEST-ACT-01", "GUEST_ACTIVITY_STATE", 4),
    ],
)
def test_what_fails_on_every_processor_needs_no_capabilities(row: str, field: str, value: int) -> None:
    assert row in [item.id for item in judge(Vmcs(fields={field: value})).failed]


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        ("GUEST-CR-09", "GUEST_CR3", 0x1_2345_6000),  # fits 36 bits, and no processor has fewer
        ("GUEST-DT-01", "GUEST_GDTR_BASE", 0xFFFF_8000_0000_0000),
        ("CTL-CR3T-01", "CR3_TARGET_COUNT", 0),
        ("HOST-CR-01", "HOST_CR0", 0x8005_0033),
    ],
)
def test_what_passes_on_every_processor_needs_no_capabilities(row: str, field: str, value: int) -> None:
    verdict = judge(Vmcs(fields={field: value}))
    assert row not in [item.id for item in (*verdict.failed, *verdict.undecided)]


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        ("GUEST-CR-09", "GUEST_CR3", 1 << 45),
        ("GUEST-DT-01", "GUEST_GDTR_BASE", 1 << 50),
        ("CTL-CR3T-01", "CR3_TARGET_COUNT", 4),
        ("CTL-CAP-05", "EXIT_CONTROLS", 0x0003_6FFF),
    ],
)
def test_what_depends_on_the_processor_is_undecided_without_it(row: str, field: str, value: int) -> None:
    (item,) = (item for item in judge(Vmcs(fields={field: value})).undecided if item.id == row)
    assert any("CPUID" in what or "MSR" in what for what in item.missing)
