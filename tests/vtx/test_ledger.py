"""The ledger of VM-entry checks and the predicates cover one another."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from popek.architectures.vtx.capabilities import MSR_NAMES, Capabilities, CapabilityView
from popek.architectures.vtx.coverage import coverage, table
from popek.architectures.vtx.entry_checks import CHECKS, NOT_CHECKED, NOT_MODELLED, ledger
from popek.architectures.vtx.evaluation import asks, reads
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.vmcs import MissingField
from popek_specs.vtx import rows


def test_every_row_has_one_answer() -> None:
    known = set(ledger())
    assert len(known) == 347
    assert set(CHECKS) | set(NOT_CHECKED) | set(NOT_MODELLED) == known
    assert len(CHECKS) + len(NOT_CHECKED) + len(NOT_MODELLED) == len(known)


def test_rows_without_a_predicate_are_few_and_say_why() -> None:
    checks = len(CHECKS) + len(NOT_MODELLED)
    assert checks == 322
    assert len(NOT_MODELLED) < 0.05 * checks
    assert all(len(reason) > 20 for reason in NOT_MODELLED.values())


_WORDS = {
    "pin": "pin", "primary": "pri", "secondary": "sec", "tertiary": "ter", "exit": "exit", "exit2": "exit2",
    "entry": "entry", "vmfunc": "vmfunc",
}  # fmt: skip


def test_every_control_has_a_row() -> None:
    """Each bit that the manual names has a row of its own, or one that says that nothing is checked."""
    text = " ".join(" ".join(row.values()) for row in ledger().values())
    without = [
        (row["control"], row["id"])
        for row in rows("controls.csv")
        if not row["id"].startswith("RESERVED")
        and not re.search(rf"\b{_WORDS[row['control']]}\[{row['bit']}\]", text)
    ]
    assert without == []


def test_every_field_that_is_written_has_a_row() -> None:
    text = " ".join(" ".join(row.values()) for row in ledger().values())
    read = {name for check in CHECKS.values() for name in reads(check)}
    without = [
        name
        for name, field in FIELDS.items()
        if field.area != "exit-information" and name not in read and not re.search(rf"\b{name}\b", text)
    ]
    assert without == []


def test_a_row_that_says_no_check_names_no_field_that_a_check_reads() -> None:
    read = {name for check in CHECKS.values() for name in reads(check)}
    for name in NOT_CHECKED:
        if name.startswith(("CTL-NOCHK-01", "CTL-NOCHK-05")):
            named = set(re.findall(r"\b[A-Z][A-Z0-9_]{4,}\b", ledger()[name]["statement"])) & set(FIELDS)
            assert named, name
            assert not named & read, name


def test_rows_that_say_no_check_have_no_predicate() -> None:
    """A row whose failure column says that nothing fails must not fail anything."""
    harmless = {
        name
        for name, row in ledger().items()
        if row["failure"] in ("none", "success", "-", "n/a") or row["statement"].startswith("(see ")
    }
    may_warn = {name for name in harmless & set(CHECKS) if CHECKS[name].certainty == "warning"}
    assert harmless - may_warn == set(NOT_CHECKED)
    assert may_warn == {"EXIT-06"}


@pytest.mark.parametrize("check_id", sorted(CHECKS))
def test_the_outcome_is_the_ledgers(check_id: str) -> None:
    check, text = CHECKS[check_id], ledger()[check_id]["failure"]
    outcome = check.outcome
    if check.certainty == "warning":
        return
    if outcome.kind == "vmfail-valid":
        assert f"VMfailValid({outcome.errors[0]}" in text
    elif outcome.kind == "vmfail-invalid":
        assert "VMfailInvalid" in text
    elif outcome.kind == "fault":
        assert "#UD" in text or "#GP" in text
    elif outcome.reason == 34:
        assert "ENTRY34" in text
    else:
        assert outcome.reason == 33
        assert f"ENTRY33({outcome.qualification})" in text


def test_uncertain_rows_never_fail_an_entry_for_sure() -> None:
    """Except those whose only doubt is the manual's wording, which Bochs confirms."""
    confirmed = {"HOST-MSR-11", "HOST-MSR-16", "GUEST-MSR-10", "GUEST-MSR-18"}
    uncertain = {name for name, check in CHECKS.items() if check.confidence == "uncertain"}
    assert {name for name in uncertain if CHECKS[name].certainty == "must"} <= confirmed


@pytest.mark.parametrize("check_id", sorted(CHECKS))
def test_messages_name_fields_and_capabilities_that_exist(check_id: str) -> None:
    names = {name for _, name, _, _ in Formatter().parse(CHECKS[check_id].message) if name}
    view = CapabilityView(Capabilities(msrs=dict.fromkeys(MSR_NAMES, 0)))
    for name in names - set(FIELDS):
        try:
            getattr(view, name)
        except MissingField:
            continue
    assert names & set(FIELDS) or not reads(CHECKS[check_id])


@pytest.mark.parametrize("check_id", sorted(CHECKS))
def test_a_message_shows_an_actual_value(check_id: str) -> None:
    check = CHECKS[check_id]
    names = {name for _, name, _, _ in Formatter().parse(check.message) if name}
    wanted = set(reads(check))
    assert not wanted or wanted & names


def test_gates_read_what_the_ledger_says() -> None:
    """Each control bit that a gate column names, such as sec[1]=1, is read by the check."""
    fields = {
        "pin": "PIN_CONTROLS",
        "pri": "PRIMARY_PROC_CONTROLS",
        "sec": "SECONDARY_PROC_CONTROLS",
        "ter": "TERTIARY_PROC_CONTROLS",
        "exit": "EXIT_CONTROLS",
        "exit2": "SECONDARY_EXIT_CONTROLS",
        "entry": "ENTRY_CONTROLS",
    }
    for name, check in CHECKS.items():
        if "is a supported control" in ledger()[name]["gate"]:
            continue  # asks the capability MSR, not the control
        for word in re.findall(r"\b(pin|pri|sec|ter|exit|exit2|entry)\[\d+\]", ledger()[name]["gate"]):
            assert fields[word] in reads(check), (name, word)


def test_gates_that_name_a_capability_ask_for_it() -> None:
    for name, check in CHECKS.items():
        if "EPT_VPID_CAP" in ledger()[name]["gate"]:
            assert "ept" in asks(check), name
        if "Intel 64" in ledger()[name]["gate"] and name != "GUEST-CR-10":
            assert "intel64" in asks(check), name


def test_the_coverage_table_is_generated_from_both_sides() -> None:
    found = coverage()
    assert [row.id for row in found] == list(ledger())
    assert {row.id for row in found if row.state == "predicate"} == set(CHECKS)
    text = table()
    assert text.count("\n| ") == len(ledger()) + 1
    assert "CTL-IOBM-01" in text
