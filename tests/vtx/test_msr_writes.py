"""Which MSRs exist and what WRMSR takes: boundary values of the manual (SDM vol. 4, table 2-2; vol. 3)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.msr_table import msrs, title
from popek.architectures.vtx.msr_writes import accepts, never, reads
from popek.architectures.vtx.verdict import judge
from popek.architectures.vtx.view import view_of
from popek.architectures.vtx.vmcs import Launch, MissingField, Vmcs
from popek.kernel.words import Word

TIGER = load_capabilities("bochs-tigerlake")
ONES = (1 << 64) - 1
TYPES = 0x0605_0401_0006_0504
RICH = attrs.evolve(
    TIGER,
    name="rich",
    maxphyaddr=46,
    linear_address_width=48,
    cpuid={
        "0x1.0.ecx": 0xFFFF_FFFF,
        "0x1.0.edx": 0xFFFF_FFFF,
        "0x6.0.eax": 0xFFFF_FFFF,
        "0x6.0.ecx": 0xFFFF_FFFF,
        "0x7.0.ebx": 0xFFFF_FFFF,
        "0x7.0.ecx": 0xFFFF_FFFF,
        "0x7.0.edx": 0xFFFF_FFFF,
        "0x7.1.eax": 0xFFFF_FFFF,
        "0xa.0.eax": 0x0030_0805,
        "0xa.0.ecx": 0xF,
        "0xa.0.edx": 0x0604,
        "0xd.1.eax": 0xFFFF_FFFF,
        "0xd.1.ecx": 0x1900,
        "0xd.1.edx": 0,
        "0x14.0.ebx": 0xF,
        "0x14.0.ecx": 0x7,
        "0x14.1.eax": 0x2,
        "0x19.0.ebx": 0xFFFF_FFFF,
        "0x80000001.0.edx": 0xFFFF_FFFF,
    },
    msrs={**TIGER.msrs, 0xFE: 0xD0A, 0x10A: ONES, 0x179: 0x0F00_0C16, 0x345: 1 << 13},
    features={},
)
POOR = attrs.evolve(
    RICH,
    name="poor",
    cpuid={
        **dict.fromkeys(RICH.cpuid, 0),
        "0xa.0.eax": 0x0030_0401,
        "0x80000001.0.edx": 1 << 29 | 1 << 20 | 1 << 11,
    },
    msrs={number: value for number, value in RICH.msrs.items() if number not in (0x48B, 0x484, 0x490)}
    | {0xFE: 0, 0x10A: 0, 0x179: 0, 0x345: 0, 0x48B: 0, 0x484: 0x11FF | 0x11FF << 32, 0x490: 0x11FF | 0x11FF << 32},
)  # fmt: skip


def answer(number: int, value: int, known: Capabilities = RICH, **launch: Any) -> bool | None:
    """Whether WRMSR takes a value; None if that is not known."""
    view = view_of(Vmcs(launch=Launch(**launch)), known)
    try:
        return bool(accepts(view, number, value))
    except MissingField:
        return None


READ_ONLY = (
    0x17, 0xBD, 0xCF, 0xFE, 0x10A, 0x179, 0x198, 0x345, 0x38E, 0x392, 0x500, 0x771, 0x981, 0xC8E,
    *range(0x480, 0x494),
)  # fmt: skip


@pytest.mark.parametrize("number", READ_ONLY)
@pytest.mark.parametrize("known", [RICH, POOR, UNKNOWN], ids=lambda known: known.name)
def test_a_read_only_register_takes_nothing(number: int, known: Capabilities) -> None:
    assert answer(number, 0, known) is False
    assert answer(number, 1, known) is False


# Number, a value that is taken, and neighbours of it that are not.
BOUNDARIES = [
    (0x10, ONES, []),
    (0x1B, 0xFEE0_0900, [0xFEE0_0901, 0xFEE0_0B00, 0xFEE0_0500, 1 << 46 | 0x900, 1 << 60 | 0x900]),
    (0x3B, ONES, []),
    (0x48, 7, [1 << 11, 1 << 40, 1 << 63]),
    (0x49, 1, [2, 1 << 63]),
    (0xBC, 1, [2]),
    (0xE1, 0xFFFF_FFFD, [2, 1 << 32]),
    (0x10B, 1, [2]),
    (0x122, 3, [4]),
    (0x174, 0xFFFF, []),
    (0x175, 0x7FFF_FFFF_FFFF, [1 << 47, 1 << 62]),
    (0x176, 0xFFFF_8000_0000_0000, [0xFFFF_7FFF_FFFF_FFFF]),
    (0x17A, 0, [1, 4]),
    (0x186, 0x0043_003C, [1 << 48, 1 << 38]),
    (0x19A, 0x1E, [0x20]),
    (0x1B0, 0xF, [0x10]),
    (0x1CC, 0x1000, [0x1020, 1 << 47]),
    (0x1D1, 0x1008, [0x1004, 1 << 47]),
    (0x1D4, 0x1000, [4, 0x10, 0x20, 0x800]),
    (0x1D9, 0x3, [1 << 3, 1 << 16]),
    (0x1DD, 0xFFFF_8000_0000_0000, []),
    (0x200, 0x6, [0x2, 0x3, 0x7, 0x106, 1 << 46 | 6]),
    (0x201, 0x3FFF_FFFF_F800, [0x400, 0x1, 1 << 46]),
    (0x213, 0x800, [0x801]),
    (0x250, TYPES, [TYPES - 2, TYPES + (1 << 56)]),
    (0x26F, TYPES, [TYPES - 1]),
    (0x277, 0x0007_0406_0007_0406, [2, 3 << 8, 8 << 56]),
    (0x2FF, 0xC06, [0x99, 0x7, 0x100, 0x200, 0x1000, 1 << 63]),
    (0x38D, 0xBBBB, [0x10000]),
    (0x38F, 0xF_0000_00FF, [0x100, 1 << 36, 1 << 63]),
    (0x401, 0, [1]),
    (0x402, 0, [ONES]),
    (0x403, 0, [1 << 63]),
    (0x4C1, 0xFFFF_FFFF_FFFF, [1 << 48]),
    (0x4D0, 1, [2]),
    (0x570, 0x2000, [1 << 63]),
    (0x572, ONES & ~0x1F, [0x10]),
    (0x580, 0x1000, [1 << 47]),
    (0x600, 0x1000, [1 << 47]),
    (0x6A0, 0x1000 | 0x3F, [0x40, 0x200, 0xC00, 0x3C0, 1 << 47]),
    (0x6A2, 0x400, [0x80, 0xC00]),
    (0x6A4, 0x1004, [0x1001, 0x1002, 1 << 47]),
    (0x6A7, 0x1004, [0x1003]),
    (0x6A8, 0x1001, [1 << 47]),
    (0x6E0, ONES, []),
    (0x6E1, 0xFFFF_FFFF, [1 << 32]),
    (0x770, 1, [2]),
    (0xD90, 0x1003, [4, 0x800, 1 << 47]),
    (0xDA0, 0x1900, [1, 1 << 13, 1 << 9, 1 << 17, 1 << 62]),
    (0x14CE, 0x7F_000F, [0x10, 0x8000, 1 << 23]),
    (0xC000_0080, 0xD01, [2, 1 << 9, 1 << 12, 1 << 40]),
    (0xC000_0081, ONES, []),
    (0xC000_0082, 0xFFFF_FFFF_8000_0000, [1 << 47]),
    (0xC000_0083, 0, []),
    (0xC000_0084, 0xFFFF_FFFF, []),
    (0xC000_0102, 0xFFFF_8000_0000_0000, [1 << 47]),
    (0xC000_0103, 0xFFFF_FFFF, [1 << 32]),
]


@pytest.mark.parametrize(
    ("number", "good", "bad"), BOUNDARIES, ids=lambda item: f"{item}" if isinstance(item, int) else ""
)
def test_boundaries(number: int, good: int, bad: list[int]) -> None:
    assert answer(number, good, x2apic=False) is True
    for value in bad:
        assert answer(number, value, x2apic=False) is False, hex(value)


@settings(max_examples=400, deadline=None)
@given(
    number=st.sampled_from(sorted(msrs())),
    value=st.one_of(
        st.integers(0, ONES),
        st.sampled_from([0, 1, 6, TYPES, ONES]),
        st.integers(0, 63).map(lambda bit: 1 << bit),
    ),
)
def test_what_never_is_taken_is_what_is_refused_where_nothing_is_known(number: int, value: int) -> None:
    refused = int(never(Word(32, number), Word(64, value)))
    rule = msrs()[number].rule
    if refused:
        assert answer(number, value, UNKNOWN) is False
    elif rule not in ("apic-base", "spec-ctrl", "xss", "efer", "debugctl"):  # ask the processor first
        assert answer(number, value, UNKNOWN) is not False


UNSURE = [
    (0x1DD, 1 << 47),
    (0xC000_0083, 1 << 62),
    (0xC000_0084, 1 << 32),
    (0x1500, 1 << 62),
    (0x33, 1),
    (0x2F, 1),
]


@pytest.mark.parametrize(("number", "value"), UNSURE)
def test_what_sources_do_not_agree_on_accuses_nobody(number: int, value: int) -> None:
    assert answer(number, value) is None


def test_as_many_ranges_as_the_trace_has() -> None:
    assert [answer(0x580 + place, 0) for place in range(8)] == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("number", "msr", "bit"),
    [(0x48B, 0x482, 31), (0x491, 0x48B, 13), (0x492, 0x482, 17), (0x493, 0x483, 31), (0x48D, 0x480, 23)],
)
def test_a_capability_register_is_there_where_its_control_may_be_1(number: int, msr: int, bit: int) -> None:
    """SDM vol. 3, appendix A: each says which processors have it."""
    # Without the TRUE registers, so that the plain ones decide.
    plain = {**TIGER.msrs, 0x480: TIGER.msrs[0x480] & ~(1 << 55), 0x483: TIGER.msrs[0x483] | 1 << 63}
    plain[0x482] |= 1 << 49
    there = plain | {msr: plain[msr] | 1 << 32 + bit}
    absent = plain | {msr: plain[msr] & ~(1 << 32 + bit)}
    for msrs_, expected in ((there, True), (absent, False)):
        assert reads(view_of(Vmcs(), attrs.evolve(TIGER, msrs=msrs_)), number) is expected
    with pytest.raises(MissingField):
        reads(view_of(Vmcs(), UNKNOWN), number)


def test_a_locked_register_takes_nothing() -> None:
    """VMXON needs IA32_FEATURE_CONTROL locked."""
    for value in (0, 1, 5, 7):
        assert answer(0x3A, value) is False


def test_the_local_apics_modes() -> None:
    assert answer(0x1B, 0xFEE0_0D00, x2apic=True) is True
    assert answer(0x1B, 0xFEE0_0900, x2apic=True) is False  # back to xAPIC mode
    assert answer(0x1B, 0xFEE0_0100, x2apic=True) is True  # off
    assert answer(0x1B, 0xFEE0_0500, x2apic=True) is False
    unknown = attrs.evolve(RICH, msrs={0x480: 0})
    assert answer(0x1B, 0xFEE0_0900, unknown) is None  # the mode is not known


@pytest.mark.parametrize("number", [0xCE, 0x1234, 0x4000_0000, 0x4B56_4D00, 0xC001_0010])
def test_a_register_that_is_not_listed_is_named_and_not_guessed(number: int) -> None:
    view = view_of(Vmcs(), RICH)
    with pytest.raises(MissingField, match=f"MSR {number:X}H"):
        accepts(view, number, 0)


DEPENDING = (
    0x3B,
    0x48,
    0xE1,
    0x122,
    0x1CC,
    0x200,
    0x250,
    0x38F,
    0x401,
    0x570,
    0x6A0,
    0x6E0,
    0x6E1,
    0xD90,
    0xDA0,
)


@pytest.mark.parametrize("number", DEPENDING)
def test_existence_is_the_processors(number: int) -> None:
    assert answer(number, 0, RICH) is True
    assert answer(number, 0, POOR) is False
    assert answer(number, 0, UNKNOWN) is None


def test_a_control_that_may_load_a_register_shows_that_it_exists() -> None:
    known = Capabilities(msrs={0x480: 0, 0x484: 0x11FF | 1 << 54 | 1 << 45 | 0x11FF << 32})
    assert answer(0x6E1, 0, known) is True
    assert answer(0x38F, 0, known) is True
    assert answer(0xD90, 0, known) is None


@pytest.mark.parametrize("known", [RICH, POOR, UNKNOWN, TIGER], ids=lambda known: known.name)
@settings(max_examples=150, deadline=None)
@given(
    number=st.sampled_from(sorted(msrs())),
    value=st.integers(0, ONES) | st.integers(0, 63).map(lambda bit: 1 << bit),
)
def test_knowing_less_changes_no_answer(known: Capabilities, number: int, value: int) -> None:
    """What is said of an unknown processor holds for each."""
    said = answer(number, value, UNKNOWN)
    if said is not None:
        assert answer(number, value, known) in (said, None)


@pytest.mark.parametrize(("number", "bit"), [(0x1D9, 15), (0x1D9, 2)])
def test_a_bit_of_a_feature_that_nobody_told_is_not_said_to_be_taken(number: int, bit: int) -> None:
    """RTM, bus-lock detection: some processors have them."""
    assert answer(number, 1 << bit, UNKNOWN) is None
    assert answer(number, 0, UNKNOWN) is True


# -- in the areas ------------------------------------------------------------------------


def with_area(area: str, *entries: tuple[int, int, int]) -> Vmcs:
    vmcs = baseline("64-bit", TIGER).with_fields(**{f"{area}_COUNT": len(entries)})
    memory: list[tuple[int, int, int]] = []
    for number, (index, high, value) in enumerate(entries):
        place = vmcs.fields[f"{area}_ADDR"] + 16 * number
        memory += [(place, 4, index), (place + 4, 4, high), (place + 8, 8, value)]
    return attrs.evolve(vmcs, memory=tuple(memory))


REFUSED = [
    (0x480, 0), (0xFE, 0), (0x3A, 5), (0x48, 1 << 40), (0x1B, 1 << 60), (0x2FF, 0x99), (0xDA0, 1 << 62),
    (0x6A0, 0x3C0), (0x38E, 0), (0x6E1, 1 << 32), (0xD90, 1 << 62),
]  # fmt: skip


@pytest.mark.parametrize(("index", "value"), REFUSED)
@pytest.mark.parametrize("known", [TIGER, UNKNOWN], ids=lambda known: known.name)
def test_an_entry_that_no_processor_takes_fails_and_is_named(
    index: int, value: int, known: Capabilities
) -> None:
    vmcs = with_area("ENTRY_MSR_LOAD", (0x10, 0, 0), (index, 0, value))
    reported = attrs.evolve(vmcs, fields={**vmcs.fields, "EXIT_REASON": 0x8000_0022, "EXIT_QUALIFICATION": 2})
    verdict = judge(reported, known)
    assert [item.id for item in verdict.failed] == ["LOAD-06"]
    assert f"entry 2: {title(index)}" in verdict.failed[0].message
    assert verdict.outcome.reason == 34
    assert verdict.outcome.qualification == 2
    assert verdict.explains_report == "yes"


def test_an_entry_that_is_not_known_may_fail_before_the_one_that_does() -> None:
    verdict = judge(with_area("ENTRY_MSR_LOAD", (0x1234, 0, 0), (0x480, 0, 0)), TIGER)
    assert [item.qualification for item in verdict.admissible] == [2, 1]
    verdict = judge(with_area("ENTRY_MSR_LOAD", (0x1234, 0, 0)), TIGER)
    assert verdict.outcome.kind == "undecided"
    assert [item.missing for item in verdict.undecided] == [
        ("MSR 1234H: whether this processor has it, and what it takes",)
    ]


@pytest.mark.parametrize(
    ("area", "row", "entry"),
    [
        ("EXIT_MSR_LOAD", "EXIT-08", (0x480, 0, 0)),
        ("EXIT_MSR_LOAD", "EXIT-08", (0xC000_0100, 0, 0)),
        ("EXIT_MSR_LOAD", "EXIT-08", (0x808, 0, 0)),
        ("EXIT_MSR_LOAD", "EXIT-08", (0x10, 1, 0)),
        ("EXIT_MSR_LOAD", "EXIT-08", (0x277, 0, 2)),
        ("EXIT_MSR_STORE", "EXIT-09", (0x808, 0, 0)),
        ("EXIT_MSR_STORE", "EXIT-09", (0x9E, 0, 0)),
        ("EXIT_MSR_STORE", "EXIT-09", (0x10, 1, 0)),
    ],
)
def test_a_bad_entry_of_an_exit_area_is_a_warning(area: str, row: str, entry: tuple[int, int, int]) -> None:
    verdict = judge(with_area(area, entry), TIGER)
    assert verdict.outcome.kind == "enters"
    assert [item.id for item in verdict.warnings] == [row]
    assert "entry 1" in verdict.warnings[0].message
    assert judge(with_area(area, (0x277, 0, 6)), TIGER).warnings == ()


def test_an_undecided_entry_of_an_exit_area_is_named() -> None:
    verdict = judge(with_area("EXIT_MSR_LOAD", (0x1234, 0, 0)), TIGER)
    assert verdict.outcome.kind == "enters"
    assert [item.id for item in verdict.undecided] == ["EXIT-08"]
    assert "1234H" in verdict.undecided[0].missing[0]


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0x480, 0),
        (0xFE, 0),
        (0x3A, 5),
        (0x48, 1 << 40),
        (0x2FF, 0x99),
        (0x6A0, 0x3C0),
        (0xD90, 1 << 63),
        (0x277, 2),
    ],
)
def test_a_listed_entry_of_the_exit_area_that_wrmsr_refuses_is_named(index: int, value: int) -> None:
    """A list by KVM lacks bits 63:32 of the entries; that WRMSR refuses the value is known without them."""
    given = {"EXIT_MSR_LOAD_COUNT": 1, "EXIT_MSR_LOAD_ADDR": 0x5000}
    base = baseline("64-bit", TIGER)
    bad = attrs.evolve(base, areas={"EXIT_MSR_LOAD": ((index, value),)}).with_fields(**given)
    verdict = judge(bad, TIGER)
    assert verdict.outcome.kind == "enters"
    assert [item.id for item in verdict.warnings] == ["EXIT-08"]
    fine = attrs.evolve(base, areas={"EXIT_MSR_LOAD": ((0x277, 0x0007_0406_0007_0406),)}).with_fields(**given)
    assert judge(fine, TIGER).warnings == ()
