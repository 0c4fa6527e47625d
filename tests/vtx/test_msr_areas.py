"""The MSR areas of VM entry and VM exit: what each entry does, what fails, and that Bochs does the same.

Expected values are the manual's (SDM vol. 3C, 27.4, 28.4, 28.6, 28.7).
"""

from __future__ import annotations

import random

import pytest

from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.msr_areas import MOST_ENTRIES, MsrArea, MsrAreas, load_msrs, store_msrs
from popek.architectures.vtx.operation.state import VmxIa32
from popek.architectures.vtx.operation.transitions import (
    VMX_ABORT,
    Area,
    Host,
    after_failed_entry,
    save_guest,
    vm_entry,
    vm_exit,
)
from popek.emulators.non_root import msr_areas as vmx_msr_areas
from popek.emulators.non_root.msr_areas import AreaCase, AreaOutcome, expected, observed, random_area_case
from popek.kernel.exploration import explore
from popek.kernel.outcome import Next, NotModelled, NotModelledError, Outcome, Trap
from popek.kernel.words import Word, any_of, ite, symbol
from popek.solving.pruning import Pruner
from popek.solving.solver import Answer, holds

AREA = 0x6000
TSC, APIC_BASE, SYSENTER_CS, PAT, TSC_AUX = 0x10, 0x1B, 0x174, 0x277, 0xC0000103
WRITE_BACK = 0x0606060606060606


def with_entries(*entries: tuple[int, int, int], **changes: int) -> tuple[VmxIa32, MsrArea]:
    """A state with an area of (index, bits 63:32, value)."""
    state = VmxIa32.reset(cr0=0x80000031, cr4=0x2000).with_changes(changes)
    for number, (index, reserved, value) in enumerate(entries):
        content = Word(128, value << 64 | reserved << 32 | index)
        state.memory = state.memory.store_little_endian(Word(32, AREA + 16 * number), content)
    return state, MsrArea(Word(32, AREA), len(entries))


def host() -> Host:
    zero = Word(32, 0)
    return Host(
        Word(32, 0x80000031), Word(32, 0x7000), Word(32, 0x2000), Word(32, 0xC0000000), zero,
        dict.fromkeys(("es", "cs", "ss", "ds", "fs", "gs", "tr"), Word(16, 8)),
        dict.fromkeys(("fs", "gs", "tr", "gdtr", "idtr"), zero),
        {SYSENTER_CS: Word(64, 0x10)},
    )  # fmt: skip


def msr(state: VmxIa32, number: int) -> int:
    return int(state.msr.load(Word(32, number)))


# -- loading ---------------------------------------------------------------------------------------


def test_entries_are_loaded_in_order_as_wrmsr_would() -> None:
    state, area = with_entries(
        (TSC_AUX, 0, 1),
        (PAT, 0, WRITE_BACK),
        (TSC, 0, 1 << 40),
        (SYSENTER_CS, 0, 1 << 40 | 8),
        (TSC_AUX, 0, 2),
    )
    assert load_msrs(state, area) == 0
    assert (msr(state, TSC_AUX), msr(state, PAT), msr(state, SYSENTER_CS)) == (2, WRITE_BACK, 8)
    assert int(state.tsc) == 1 << 40


@pytest.mark.parametrize(
    "entry",
    [
        (0xC0000100, 0, 0), (0xC0000101, 0, 0), (0x800, 0, 0), (0x808, 0, 0), (0x8FF, 0, 0), (0x9B, 0, 0), (0x79, 0, 0),
        (0x8B, 0, 0), (TSC_AUX, 1, 0), (TSC_AUX, 1 << 31, 0), (TSC_AUX, 0, 1 << 32), (PAT, 0, 2),
        (0x480, 0, 0), (0xFE, 0, 0), (0xC0000080, 0, 1), (APIC_BASE, 0, 0x400), (0x6E1, 0, 1 << 32), (0x2FF, 0, 0x99),
    ],
)  # fmt: skip
def test_an_entry_that_fails_ends_the_area_and_the_ones_before_it_stand(entry: tuple[int, int, int]) -> None:
    state, area = with_entries((TSC_AUX, 0, 7), entry, (TSC_AUX, 0, 9))
    assert load_msrs(state, area) == 2
    assert msr(state, TSC_AUX) == 7


def test_no_more_entries_than_every_processor_takes() -> None:
    assert MsrArea(Word(32, 0), MOST_ENTRIES).count == 512
    for count in (-1, 513):
        with pytest.raises(ValueError, match=f"area of {count} entries: expected 0 to 512"):
            MsrArea(Word(32, 0), count)


# -- storing ---------------------------------------------------------------------------------------


def test_entries_are_stored_as_rdmsr_would_and_the_clock_without_its_offset() -> None:
    state, area = with_entries((TSC_AUX, 0, 0xAA), (TSC, 0, 0xBB), tsc=1000, tsc_offset=5)
    state = state.with_changes({"non_root": 1, "primary.use_tsc_offsetting": 1})
    state.msr = state.msr.store(Word(32, TSC_AUX), Word(64, 3))
    assert store_msrs(state, area) == 0
    stored = [int(state.memory.load_little_endian(Word(32, AREA + 16 * n), 16)) for n in (0, 1)]
    assert stored == [3 << 64 | TSC_AUX, 1000 << 64 | TSC]


@pytest.mark.parametrize("entry", [(0x808, 0, 0), (0x9E, 0, 0), (TSC_AUX, 1, 0), (0x10B, 0, 0)])
def test_an_msr_that_cannot_be_read_is_not_stored(entry: tuple[int, int, int]) -> None:
    state, area = with_entries((TSC_AUX, 0, 0xAA), entry)
    assert store_msrs(state, area) == 2
    assert int(state.memory.load(Word(32, AREA + 8))) == 0


@pytest.mark.parametrize("index", [0xDEAD, 0x48, 0x6E1])
def test_an_entry_whose_msr_is_up_to_the_processor_decides_nothing(index: int) -> None:
    state, area = with_entries((TSC_AUX, 0, 7), (index, 0, 0))
    for ask in (load_msrs, store_msrs):
        with pytest.raises(NotModelledError, match=f"{index:X}H"):
            ask(state, area)
    for areas in (MsrAreas(entry_load=area), MsrAreas(exit_store=area), MsrAreas(exit_load=area)):
        if areas.entry_load.count:
            outcome = vm_entry(state, save_guest(state), areas=areas)
        else:
            _, outcome = vm_exit(state, host(), areas)
        assert isinstance(outcome, NotModelled)


# -- VM entry and VM exit ------------------------------------------------------------------------------


def exploded(outcome: Outcome[VmxIa32]) -> Trap[VmxIa32]:
    assert isinstance(outcome, Trap)
    return outcome


def test_an_entry_that_cannot_load_an_msr_fails_with_its_number() -> None:
    state, area = with_entries((TSC_AUX, 0, 7), (0x808, 0, 0), nmi_blocked=1, exit_interruption_info=0x1234)
    words = {**save_guest(state).words, "nmi_blocked": Word(1, 0)}
    trap = exploded(vm_entry(state, Area(words, {}), 1 << 31 | 0x30, areas=MsrAreas(entry_load=area)))
    assert (trap.vector, int(trap.error_code or 0)) == (VM_EXIT, 34)
    failed = trap.state
    assert (int(failed.exit_reason), int(failed.exit_qualification)) == (0x80000022, 2)
    assert int(failed.exit_interruption_info) == 0x1234  # other information is left alone
    assert int(failed.nmi_blocked) == 1  # as before the entry
    after = after_failed_entry(failed, host())
    assert isinstance(after, Next)
    assert (int(after.state.non_root), int(after.state.eip)) == (0, 0xC0000000)
    assert msr(after.state, TSC_AUX) == 7  # what was loaded before stays loaded


def test_a_vm_exit_stores_the_guests_msrs_and_then_loads_the_hosts() -> None:
    state, store = with_entries((SYSENTER_CS, 0, 0xFF))
    state.msr = state.msr.store(Word(32, SYSENTER_CS), Word(64, 0x20))
    load = Word(128, 0x30 << 64 | SYSENTER_CS)
    state.memory = state.memory.store_little_endian(Word(32, 0x9000), load)
    areas = MsrAreas(exit_store=store, exit_load=MsrArea(Word(32, 0x9000), 1))
    _, outcome = vm_exit(state, host(), areas)
    assert isinstance(outcome, Next)
    assert (
        int(outcome.state.memory.load(Word(32, AREA + 8))) == 0x20
    )  # the guest's, before host state is loaded
    assert msr(outcome.state, SYSENTER_CS) == 0x30  # the area's, after the host-state area's 10H


@pytest.mark.parametrize(("part", "indicator"), [("exit_store", 1), ("exit_load", 4)])
def test_an_exit_that_cannot_switch_an_msr_aborts(part: str, indicator: int) -> None:
    state, area = with_entries((0x808, 0, 0))
    areas = MsrAreas(**{part: area})
    _, outcome = vm_exit(state, host(), areas)
    trap = exploded(outcome)
    assert (trap.vector, int(trap.error_code or 0)) == (VMX_ABORT, indicator)
    failed = after_failed_entry(state, host(), areas)
    assert isinstance(failed, Trap if part == "exit_load" else Next)  # a failed entry stores nothing


def test_every_area_has_one_outcome_and_what_is_stored_is_what_the_register_holds() -> None:
    """On symbols: whatever an entry that is loaded and one that is stored hold, and wherever they lie."""
    before = VmxIa32.symbolic()
    load, store = MsrArea(symbol("load", 32), 1), MsrArea(symbol("store", 32), 1)

    def run() -> tuple[int, int, VmxIa32]:
        cpu = before.copy()
        loaded = load_msrs(cpu, load)
        return loaded, 0 if loaded else store_msrs(cpu, store), cpu

    paths = explore(run, Pruner())
    assert {path.result[:2] for path in paths} == {(0, 0), (0, 1), (1, 0)}
    assert holds(any_of(path.condition for path in paths)) is Answer.UNSAT
    for number, path in enumerate(paths):
        for other in paths[:number]:
            assert holds(~(path.condition & other.condition)) is Answer.UNSAT
        if path.result[:2] == (0, 0):
            after = path.result[2]
            index = before.memory.load_little_endian(store.address, 4)
            register = ite(index == TSC, after.tsc, after.msr.load(index))
            stored = after.memory.load_little_endian(store.address + 8, 8)
            assert holds(stored == register, [path.condition]) is Answer.UNSAT


# -- Bochs ---------------------------------------------------------------------------------------------


@pytest.mark.emulator
def test_bochs_loads_and_stores_and_fails_as_the_model_does() -> None:
    rng = random.Random(1)
    cases = [random_area_case(rng) for _ in range(1500)]
    # An abort ends Bochs, so there are few of them.
    aux = (TSC_AUX, 0, 5)
    cases += [
        AreaCase(exit_store=(aux, (0x808, 0, 0))),
        AreaCase(entry_load=(aux,), exit_load=((0xC0000100, 0, 0),)),
        AreaCase(exit_load=((TSC_AUX, 1, 0),)),
        AreaCase(entry_load=((0x808, 0, 0),), exit_load=((0xC0000100, 0, 0),)),
    ]
    wanted, seen = expected(cases), observed(cases, stall=0.3)
    assert [(case, a, b) for case, a, b in zip(cases, wanted, seen, strict=True) if a != b] == []
    kinds = [outcome.kind for outcome in wanted]
    assert min(kinds.count("exit"), kinds.count("entry-failure")) > 500
    assert kinds[-4:] == ["abort"] * 4
    assert {outcome.failing for outcome in wanted} == {0, 1, 2, 3, 4, 5}


@pytest.mark.emulator
def test_bochs_differs_for_tsc_aux_as_listed() -> None:
    from popek_specs.vtx import table

    case = [AreaCase(entry_load=((TSC_AUX, 0, 1 << 32),))]
    assert expected(case) == [AreaOutcome("entry-failure", 1)]
    assert observed(case) == [AreaOutcome("exit")]
    assert "IA32_TSC_AUX: bits 63:32 are not refused." in str(table("bochs-deviations.toml"))


@pytest.mark.emulator
def test_an_area_that_is_not_loaded_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    cases = [random_area_case(rng) for _ in range(40)]
    seen = observed(cases)
    assert expected(cases) == seen
    monkeypatch.setattr("popek.architectures.vtx.operation.transitions.load_msrs", lambda cpu, area: 0)
    assert vmx_msr_areas.expected(cases) != seen
