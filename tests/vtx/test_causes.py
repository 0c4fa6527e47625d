"""The cause is named: near misses, the one fact that decides, the reported qualification, and explanations."""

from __future__ import annotations

import pytest

from commands import popek
from popek.architectures.vtx.dumps import read_dumps
from popek.architectures.vtx.dumps.diagnosis import Diagnosis, diagnose


def found(**fields: int) -> Diagnosis:
    text = "".join(f"{name} = {value:#x}\n" for name, value in fields.items())
    (dump,) = read_dumps(text.encode(), "input")
    return diagnose(dump)


GUEST_STATE = {"EXIT_REASON": 0x80000021}


def test_single_stepping_in_a_shadow_asks_for_debugctl() -> None:
    diagnosis = found(
        **GUEST_STATE, GUEST_RFLAGS=0x102, GUEST_INTERRUPTIBILITY=2, GUEST_PENDING_DEBUG_EXCEPTIONS=0,
        GUEST_ACTIVITY_STATE=0,
    )  # fmt: skip
    (near,) = [item for item in diagnosis.near_misses if item.id == "GUEST-DBG-02"]
    assert near.missing == ("GUEST_IA32_DEBUGCTL",)
    assert "IA32_DEBUGCTL.BTF = 0" in near.condition
    # Fewest open questions first.
    numbers = [len(item.missing) for item in diagnosis.near_misses]
    assert numbers == sorted(numbers)


def test_dr7_asks_for_the_control_that_loads_it() -> None:
    diagnosis = found(**GUEST_STATE, GUEST_DR7=1 << 63 | 0x400)
    (near,) = [item for item in diagnosis.near_misses if item.id == "GUEST-CR-10"]
    assert near.missing == ("ENTRY_CONTROLS",)
    assert "Load debug controls" in near.condition


def test_one_fact_away_says_what_is_known_and_what_is_asked() -> None:
    diagnosis = found(**GUEST_STATE, ENTRY_CONTROLS=0x11FF, GUEST_RFLAGS=2)
    away = {item.id: item for item in diagnosis.one_away}
    assert away["GUEST-CR-07"].missing == "GUEST_CR4"
    assert any("entry[9]" in text for text in away["GUEST-CR-07"].holds)
    assert all(len(item.holds) > 0 for item in diagnosis.one_away)
    # What holds on every processor is no hint.
    assert not list(found(**GUEST_STATE).one_away)


@pytest.mark.parametrize(
    ("qualification", "most", "expected"),
    [(2, 4, "GUEST-PDPTE-01"), (3, 2, "GUEST-INT-09"), (4, 6, "GUEST-LINK-02")],
)
def test_the_reported_qualification_leaves_few_checks(qualification: int, most: int, expected: str) -> None:
    diagnosis = found(**GUEST_STATE, EXIT_QUALIFICATION=qualification)
    everything = found(**GUEST_STATE)
    assert 0 < diagnosis.relevant <= most < everything.relevant
    asked = {name for name, _ in diagnosis.fields_asked}
    assert asked
    ids = {item.id for item in diagnosis.verdict.undecided}
    assert expected in ids or qualification == 3


def test_the_question_that_decides_most_comes_first() -> None:
    diagnosis = found(VM_INSTRUCTION_ERROR=7)
    assert diagnosis.fields_asked[0][0] == "PRIMARY_PROC_CONTROLS"
    assert found(**GUEST_STATE).fields_asked[0][0] == "GUEST_RFLAGS"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("KVM: entry failed, hardware error 0x80000021\n", "dump_invalid_vmcs=1"),
        ("EAX=00000000 EBX=00000000\nEIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1\n", "dump_invalid_vmcs"),
        ("d1v0 vmentry failure (reason 0x80000021): Invalid guest state (0)\n", "xl dmesg"),
    ],
)  # fmt: skip
def test_what_to_do_next_is_one_line(text: str, words: str) -> None:
    (dump,) = read_dumps(text.encode(), "input")
    step = diagnose(dump).next_step
    assert words in step
    assert "\n" not in step


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("0x80000021", ["ENTRY_FAIL_GUEST_STATE", "usual causes"]),
        ("2147483681", ["ENTRY_FAIL_GUEST_STATE", "usual causes"]),
        ("0x80000022", ["MSR-load area", "qualification is its number"]),
        ("7", ["INTERRUPT_WINDOW", "VM-instruction error 7", "usual causes"]),
        ("8", ["NMI_WINDOW", "VM-instruction error 8", "usual causes"]),
        ("VMEXIT_INVALID", ["usual causes", "dump_invalid_vmcb"]), ("-1", ["usual causes", "dump_invalid_vmcb"]),
        ("VMEXIT_NPF", ["0x400", "nested page fault"]), ("0x400", ["nested page fault"]),
        ("i7-8700", ["intel-skylake", "VirtualBox"]),
    ],
)  # fmt: skip
def test_numbers_and_names_are_explained(subject: str, words: list[str]) -> None:
    run = popek("vmcs", "explain", "--", subject)
    assert run.returncode == 0
    flat = " ".join(run.stdout.split())
    assert [word for word in words if word not in flat] == []


def test_bits_are_shown_without_stray_parentheses() -> None:
    run = popek("vmcs", "explain", "GUEST_INTERRUPTIBILITY")
    assert "))" not in run.stdout.replace("(bit 3))", "")


def test_the_deciding_question_comes_first() -> None:
    """DR7 has bit 63, which fails if 'load debug controls' is 1: that is asked before what decides most checks."""
    diagnosis = found(**GUEST_STATE, GUEST_DR7=1 << 63 | 0x400)
    assert diagnosis.near_misses[0].id == "GUEST-CR-10"
    assert diagnosis.fields_asked[0][0] == "ENTRY_CONTROLS"
    # Without it, the field that decides most.
    assert found(**GUEST_STATE, GUEST_DR7=0x400).fields_asked[0][0] == "GUEST_RFLAGS"


def test_a_near_miss_of_which_more_is_known_comes_before_others() -> None:
    """A shadow of STI holds, and BTF decides; of the injection that the shadow forbids nothing is known."""
    diagnosis = found(
        **GUEST_STATE, GUEST_RFLAGS=0x302, GUEST_INTERRUPTIBILITY=1, GUEST_PENDING_DEBUG_EXCEPTIONS=0,
        GUEST_ACTIVITY_STATE=0,
    )  # fmt: skip
    ids = [item.id for item in diagnosis.near_misses]
    assert ids.index("GUEST-DBG-02") < ids.index("GUEST-INT-04")
    near = diagnosis.near_misses[ids.index("GUEST-DBG-02")]
    assert any("STI" in text for text in near.holds)
    asked = [name for name, _ in diagnosis.fields_asked]
    assert asked.index("GUEST_IA32_DEBUGCTL") < asked.index("ENTRY_INTR_INFO")


def test_what_only_fred_can_miss_leads_no_question() -> None:
    diagnosis = found(**GUEST_STATE, GUEST_CS_ACCESS_RIGHTS=0x9B, GUEST_SS_ACCESS_RIGHTS=0x93, GUEST_RFLAGS=2)
    assert any(item.rare for item in diagnosis.near_misses)
    assert [item.rare for item in diagnosis.near_misses] == sorted(
        item.rare for item in diagnosis.near_misses
    )
    assert diagnosis.fields_asked[0][0] != "GUEST_CR4"


@pytest.mark.parametrize("qualification", [2, 3, 4])
def test_no_near_miss_contradicts_the_reported_qualification(qualification: int) -> None:
    """DR7 ends in qualification 0, and is no near miss where another one is reported."""
    diagnosis = found(**GUEST_STATE, EXIT_QUALIFICATION=qualification, GUEST_DR7=1 << 63 | 0x400)
    assert "GUEST-CR-10" not in [item.id for item in diagnosis.near_misses]
    assert "GUEST-CR-10" in [item.id for item in found(**GUEST_STATE, GUEST_DR7=1 << 63 | 0x400).near_misses]
