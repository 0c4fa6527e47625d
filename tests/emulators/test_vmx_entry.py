"""The VM-entry harness on Bochs: the baselines enter, and single violations end as the manual says."""

from __future__ import annotations

import functools
from typing import get_args

import pytest

from popek.emulators.bochs.simulator import BochsCrash, BochsError, BochsTimeout, run_rom
from popek.emulators.vm_entry.harness import (
    CONTROL_PAGES,
    CURRENT_VMCS,
    HOST_CR3,
    SCRATCH,
    SPARE_VMCS,
    EntryCase,
    EntryResult,
    Mode,
    baseline,
    capabilities,
    linear_address_bits,
    physical_address_bits,
    run_cases,
    writable_fields,
)

pytestmark = pytest.mark.emulator

CPUID = 10
PREEMPTION_TIMER = 52

# Encodings, by the names of the field list.
VMCS_LINK_POINTER = 0x2800
GUEST_PDPTE0 = 0x280A
PIN_CONTROLS = 0x4000
PRIMARY_PROC_CONTROLS = 0x4002
CR3_TARGET_COUNT = 0x400A
EXIT_CONTROLS = 0x400C
EXIT_MSR_STORE_COUNT = 0x400E
EXIT_MSR_LOAD_COUNT = 0x4010
ENTRY_MSR_LOAD_COUNT = 0x4014
ENTRY_INTR_INFO = 0x4016
ENTRY_EXCEPTION_ERROR_CODE = 0x4018
SECONDARY_PROC_CONTROLS = 0x401E
GUEST_TR_ACCESS_RIGHTS = 0x4822
GUEST_INTERRUPTIBILITY = 0x4824
GUEST_ACTIVITY_STATE = 0x4826
PREEMPTION_TIMER_VALUE = 0x482E
GUEST_CR0 = 0x6800
GUEST_CR3 = 0x6802
GUEST_GDTR_BASE = 0x6816
GUEST_RFLAGS = 0x6820
HOST_CS_SELECTOR = 0x0C02
HOST_TR_SELECTOR = 0x0C0C
HOST_IA32_PAT = 0x2C00
HOST_CR0 = 0x6C00
HOST_CR4 = 0x6C04
HOST_GDTR_BASE = 0x6C0C
HOST_RSP = 0x6C14
HOST_RIP = 0x6C16

NONCANONICAL = 1 << 63

CONTROL = "control field"
HOST = "host state"


@functools.cache
def base(mode: Mode = "64-bit") -> dict[int, int]:
    return baseline("tigerlake", mode)


def one(case: EntryCase) -> EntryResult:
    (result,) = run_cases([case])
    return result


def outcome(result: EntryResult) -> tuple[object, ...]:
    """Return what the manual prescribes of a result."""
    if result.kind == "entry-failure":
        return (result.kind, result.basic_reason, result.qualification)
    return (result.kind, result.error)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_each_baseline_enters(mode: Mode) -> None:
    result = one(EntryCase(mode=mode))
    assert (result.kind, result.exit_reason) == ("enters", CPUID)
    assert result.guest_rip == base(mode)[0x681E]
    assert result.instruction_length == 2


@pytest.mark.parametrize("mode", ["64-bit", "pae", "32-bit", "v8086"])
def test_ept_can_be_switched_on_alone(mode: Mode) -> None:
    fields = {
        PRIMARY_PROC_CONTROLS: base(mode)[PRIMARY_PROC_CONTROLS] | 1 << 31,
        SECONDARY_PROC_CONTROLS: 1 << 1,
    }
    assert one(EntryCase(fields, mode=mode)).exit_reason == CPUID


def test_single_violations_end_as_the_manual_says() -> None:
    fail7, fail8 = ("vmfail-valid", 7), ("vmfail-valid", 8)
    pin = base()[PIN_CONTROLS]
    msr_area = CONTROL_PAGES.msr_areas
    fs_base_entry = (0xC000_0100).to_bytes(4, "little") + bytes(12)
    expected: list[tuple[str, EntryCase, tuple[object, ...]]] = [
        ("CTL-CAP-01", EntryCase({PIN_CONTROLS: 0}), fail7),
        ("CTL-CR3T-01", EntryCase({CR3_TARGET_COUNT: 5}), fail7),
        ("CTL-NMI-01", EntryCase({PIN_CONTROLS: pin & ~(1 << 3) | 1 << 5}), fail7),
        ("INJ-01", EntryCase({ENTRY_INTR_INFO: 0x8000_0100}), fail7),
        ("HOST-SEG-08", EntryCase({HOST_CS_SELECTOR: 0}), fail8),
        ("HOST-SEG-07", EntryCase({HOST_TR_SELECTOR: 0x23}), fail8),
        ("HOST-CR-02", EntryCase({HOST_CR4: 0x20}), fail8),
        ("HOST-CR-04", EntryCase({HOST_CR3: 1 << physical_address_bits()}), fail8),
        ("HOST-MSR-02", EntryCase({HOST_IA32_PAT: 2}), fail8),
        ("HOST-SEG-14", EntryCase({HOST_GDTR_BASE: NONCANONICAL}), fail8),
        ("HOST-ASZ-09", EntryCase({HOST_RIP: NONCANONICAL}), fail8),
        ("GUEST-CR-01", EntryCase({GUEST_CR0: base()[GUEST_CR0] & ~1}), ("entry-failure", 33, 0)),
        ("GUEST-CR-09", EntryCase({GUEST_CR3: base()[GUEST_CR3] | 1 << 63}), ("entry-failure", 33, 0)),
        ("GUEST-AR-TR-07", EntryCase({GUEST_TR_ACCESS_RIGHTS: 1 << 16}), ("entry-failure", 33, 0)),
        ("GUEST-DT-01", EntryCase({GUEST_GDTR_BASE: NONCANONICAL}), ("entry-failure", 33, 0)),
        ("GUEST-RFL-02", EntryCase({GUEST_RFLAGS: 0}), ("entry-failure", 33, 0)),
        ("GUEST-RFL-05", EntryCase({ENTRY_INTR_INFO: 0x8000_0030}), ("entry-failure", 33, 0)),
        ("GUEST-LINK-02", EntryCase({VMCS_LINK_POINTER: SPARE_VMCS + 8}), ("entry-failure", 33, 4)),
        ("GUEST-LINK-04", EntryCase({VMCS_LINK_POINTER: SCRATCH.start}), ("entry-failure", 33, 4)),
        ("GUEST-LINK-06", EntryCase({VMCS_LINK_POINTER: CURRENT_VMCS}), ("entry-failure", 33, 4)),
        (
            "GUEST-PDPTE-01",
            EntryCase(
                {
                    PRIMARY_PROC_CONTROLS: base("pae")[PRIMARY_PROC_CONTROLS] | 1 << 31,
                    SECONDARY_PROC_CONTROLS: 1 << 1,
                    GUEST_PDPTE0: base("pae")[GUEST_PDPTE0] | 2,
                },
                mode="pae",
            ),
            ("entry-failure", 33, 2),
        ),
        (
            "LOAD-01",
            EntryCase({ENTRY_MSR_LOAD_COUNT: 3}, memory=((msr_area + 16, fs_base_entry),)),
            ("entry-failure", 34, 2),
        ),
    ]
    results = run_cases(case for _, case, _ in expected)
    got = {name: outcome(result) for (name, _, _), result in zip(expected, results, strict=True)}
    assert got == {name: wanted for name, _, wanted in expected}


def test_launch_state_and_current_vmcs_decide_before_the_fields() -> None:
    results = run_cases(
        [
            EntryCase(resume=True),
            EntryCase(launched=True),
            EntryCase(resume=True, launched=False),
            EntryCase(current=False),
            EntryCase(mov_ss=True),
            EntryCase(resume=True, mov_ss=True),
        ]
    )
    assert [outcome(result) for result in results] == [
        ("enters", None),
        ("vmfail-valid", 4),
        ("vmfail-valid", 5),
        ("vmfail-invalid", None),
        ("vmfail-valid", 26),
        ("vmfail-valid", 26),
    ]


def test_a_field_the_model_lacks_cannot_be_written() -> None:
    missing = 0x2040  # HLATP: this model has no HLAT
    assert missing not in writable_fields()
    result = one(EntryCase({missing: 0}))
    assert (result.kind, result.encoding, result.error) == ("vmwrite-failed", missing, 12)


def test_the_monitor_survives_any_legal_host_state() -> None:
    odd = {
        0x0C00: 0x1000,  # ES
        HOST_CS_SELECTOR: 0xFF8,
        0x0C04: 0,  # SS
        HOST_TR_SELECTOR: 0xFFF8,
        HOST_IA32_PAT: 0,
        HOST_CR0: base()[HOST_CR0] | 1 << 16 | 1 << 3,  # WP, TS
        HOST_CR4: base()[HOST_CR4] | 1 << 23 | 1 << 21 | 1 << 2,  # CET, SMAP, TSD
        HOST_GDTR_BASE: 0,
        0x6C0E: 0,  # IDTR
        HOST_RSP: NONCANONICAL,
        # Load CET state: indirect branches are tracked and one is due.
        EXIT_CONTROLS: base()[EXIT_CONTROLS] | 1 << 28,
        0x6C18: 1 << 2 | 1 << 11,
    }
    results = run_cases([EntryCase(odd), EntryCase()])
    assert [result.exit_reason for result in results] == [CPUID, CPUID]


def test_an_injected_event_reaches_the_guest() -> None:
    page_fault = {ENTRY_INTR_INFO: 0x8000_0B0E, ENTRY_EXCEPTION_ERROR_CODE: 0}
    results = run_cases(
        [
            EntryCase({ENTRY_INTR_INFO: 0x8000_0202}),  # NMI
            EntryCase(page_fault),
            EntryCase(page_fault, mode="v8086"),
            EntryCase({ENTRY_INTR_INFO: 0x8000_0030, GUEST_RFLAGS: 0x202}, mode="real"),
        ]
    )
    assert [result.exit_reason for result in results] == [CPUID] * 4


def test_exit_msr_areas_can_be_used() -> None:
    assert one(EntryCase({EXIT_MSR_STORE_COUNT: 4, EXIT_MSR_LOAD_COUNT: 4})).exit_reason == CPUID


def test_guests_that_do_nothing_leave_by_the_preemption_timer() -> None:
    results = run_cases(
        [
            EntryCase({PREEMPTION_TIMER_VALUE: 0}),
            EntryCase({GUEST_ACTIVITY_STATE: 1}),
            EntryCase({GUEST_ACTIVITY_STATE: 2}),
        ]
    )
    assert [result.exit_reason for result in results] == [PREEMPTION_TIMER] * 3


def test_a_case_that_hangs_does_not_take_the_others_with_it() -> None:
    waits_for_sipi = EntryCase({GUEST_ACTIVITY_STATE: 3})
    calls: list[tuple[int, int]] = []
    results = run_cases(
        [EntryCase(), waits_for_sipi, EntryCase(), EntryCase({GUEST_RFLAGS: 0})],
        progress=lambda done, total: calls.append((done, total)),
    )
    assert [result.kind for result in results] == ["enters", "hang", "enters", "entry-failure"]
    assert calls[-1] == (4, 4)


def test_the_order_of_cases_does_not_matter() -> None:
    cases = [
        EntryCase({encoding: value ^ 1 << bit}, mode=mode)
        for mode in get_args(Mode)
        for bit in (0, 3, 12, 15)
        for encoding, value in base(mode).items()
        # Not those that hang: other host addresses, and counts that lead past the MSR areas.
        if encoding not in (HOST_CR3, HOST_RIP, EXIT_MSR_STORE_COUNT, EXIT_MSR_LOAD_COUNT)
        and (bit < 15 or encoding >> 13 or encoding < 0x1000)
    ]
    forwards = run_cases(cases)
    backwards = run_cases(reversed(cases))
    assert forwards == backwards[::-1]
    assert "host-fault" not in {result.kind for result in forwards}


def test_more_cases_than_one_run_holds() -> None:
    cases = [EntryCase({GUEST_RFLAGS: 2 if index % 3 else 0}) for index in range(4200)]
    results = run_cases(cases)
    assert [result.kind == "enters" for result in results] == [index % 3 != 0 for index in range(4200)]


def test_bochs_explains_a_refusal_on_request() -> None:
    cases = [EntryCase({GUEST_RFLAGS: 0}), EntryCase(), EntryCase({HOST_CS_SELECTOR: 0}, resume=True)]
    bad_rflags, good, bad_selector = run_cases(cases, explain=True)
    assert "RFLAGS" in bad_rflags.complaints[0]
    assert good.complaints == ()
    assert "host CS" in bad_selector.complaints[0]
    assert all(result.complaints == () for result in run_cases(cases))


def test_the_model_describes_itself() -> None:
    msrs = capabilities()
    assert msrs[0x480] & 0x7FFF_FFFF == 4
    assert (physical_address_bits(), linear_address_bits()) == (40, 48)
    # TRUE controls may be looser than the plain ones, never stricter.
    for plain, true in ((0x481, 0x48D), (0x482, 0x48E), (0x483, 0x48F), (0x484, 0x490)):
        assert msrs[true] & 0xFFFF_FFFF & ~msrs[plain] == 0


def test_an_older_model_works_too() -> None:
    (result,) = run_cases([EntryCase()], model="core2_penryn_t9600")
    assert result.exit_reason == CPUID
    with pytest.raises(BochsError, match="unrestricted guest"):
        baseline("core2_penryn_t9600", "real")


def test_a_model_without_vmx_is_refused() -> None:
    with pytest.raises(BochsError, match="pentium"):
        capabilities("pentium")


@pytest.mark.parametrize("memory", [((CURRENT_VMCS, b"\0"),), ((SCRATCH.stop - 1, b"\0\0"),)])
def test_a_case_may_not_write_over_the_harness(memory: tuple[tuple[int, bytes], ...]) -> None:
    with pytest.raises(BochsError, match="may not write memory"):
        run_cases([EntryCase(memory=memory)])


def _rom(code: bytes) -> bytes:
    """Return a ROM whose reset vector jumps to 16-bit code at its start."""
    return code.ljust(0xFFF0, b"\xf4") + b"\xea\x00\x00\x00\xf0".ljust(16, b"\xf4")


def test_a_rom_that_does_not_end_is_killed() -> None:
    with pytest.raises(BochsTimeout) as caught:
        run_rom(_rom(b"\xeb\xfe"), b"", timeout=1)
    assert caught.value.partial == b""


def test_a_triple_fault_is_told_from_a_proper_end() -> None:
    # LIDT of an empty table, then an exception.
    code = b"\x2e\x0f\x01\x1e\x08\x00\xcc\xf4" + bytes(6)
    with pytest.raises(BochsCrash, match="exception"):
        run_rom(_rom(code), b"", timeout=10)
