"""The JSON input: unknown keys with near ones, what the processor does at launch; near misses of a partial paste."""

from __future__ import annotations

import json
from typing import Any

import pytest

from popek.architectures.vtx.dumps import Dump, DumpError, read_dumps
from popek.architectures.vtx.dumps.diagnosis import diagnose
from popek.architectures.vtx.dumps.explanation import explain


def one(text: str) -> Dump:
    (dump,) = read_dumps(text.encode(), "input")
    return dump


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"memroy": []}, "unknown key \"memroy\": did you mean 'memory'"),
        ({"capability": "x"}, "did you mean 'capabilities'"),
        ({"lunch": {}}, "did you mean 'launch'"),
        (
            {"launch": {"instructoin": "VMRESUME"}},
            "launch: unknown key \"instructoin\": did you mean 'instruction'",
        ),
        ({"launch": {"instruction": "VMCALL"}}, "expected VMLAUNCH or VMRESUME"),
        ({"launch": {"state": "ready"}}, "expected clear or launched"),
        ({"launch": {"smm": 2}}, "expected 0 or 1"),
        ({"launch": 7}, "'launch' is 7"),
    ],
)
def test_what_is_not_known_is_an_error(value: dict[str, Any], words: str) -> None:
    with pytest.raises(DumpError) as caught:
        one(json.dumps({"fields": {"VPID": "0x1"}, **value}))
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("launch", "row"),
    [
        ({"instruction": "VMRESUME", "state": "clear"}, "PRE-07"),
        ({"instruction": "VMLAUNCH", "state": "launched"}, "PRE-06"),
        ({"mov_ss_blocking": 1}, "PRE-05"),
        ({"current_vmcs": "0xffffffffffffffff"}, "PRE-03"),
        ({"cpl": 3}, "PRE-02"),
    ],
)
def test_the_launch_counts(launch: dict[str, Any], row: str) -> None:
    found = diagnose(one(json.dumps({"fields": {"VPID": "0x1"}, "launch": launch})))
    assert row in [item.id for item in found.verdict.failed]


def test_the_address_of_the_current_vmcs_decides_the_link_pointer() -> None:
    given = {"fields": {"VMCS_LINK_POINTER": "0x5000"}, "launch": {"current_vmcs": "0x5000"}}
    assert "GUEST-LINK-06" in [item.id for item in diagnose(one(json.dumps(given))).verdict.failed]
    given["launch"] = {"current_vmcs": "0x6000"}
    found = diagnose(one(json.dumps(given))).verdict
    assert "GUEST-LINK-06" not in [item.id for item in (*found.failed, *found.undecided)]


def test_near_misses_name_the_deciding_fact() -> None:
    found = diagnose(one("EXIT_REASON = 0x80000021\nGUEST_DR7 = 0x8000000000000400\n"))
    (near,) = [item for item in found.near_misses if item.id == "GUEST-CR-10"]
    assert near.condition == "entry[2] (Load debug controls) = 1"
    assert near.missing == ("ENTRY_CONTROLS",)
    stepping = "GUEST_RFLAGS = 0x302\nGUEST_INTERRUPTIBILITY = 0x1\nGUEST_PENDING_DEBUG_EXCEPTIONS = 0x0\n"
    found = diagnose(one("EXIT_REASON = 0x80000021\n" + stepping))
    (near,) = [item for item in found.near_misses if item.id == "GUEST-DBG-02"]
    assert "GUEST_IA32_DEBUGCTL" in near.missing


@pytest.mark.parametrize(
    ("qualification", "rows"), [(2, "GUEST-PDPTE"), (3, "GUEST-INT-06"), (4, "GUEST-LINK")]
)
def test_the_reported_qualification_narrows_what_could_cause_it(qualification: int, rows: str) -> None:
    found = diagnose(one(f"EXIT_REASON = 0x80000021\nEXIT_QUALIFICATION = {qualification:#x}\n"))
    assert 1 <= found.relevant <= 5
    assert rows[:5] == "GUEST"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("KVM: entry failed, hardware error 0x80000021\n", "dump_invalid_vmcs=1"),
        ("(XEN) d5v1 vmentry failure (reason 0x80000021): Invalid guest state (0)\n", "xl dmesg"),
    ],
)
def test_what_to_do_next(text: str, words: str) -> None:
    assert words in diagnose(one(text)).next_step


def test_numbers_are_explained() -> None:
    assert [item.kind for item in explain("7")] == ["basic exit reason", "VMfailValid"]
    (failure,) = explain("0x80000021")
    assert (failure.name, failure.kind) == ("ENTRY_FAIL_GUEST_STATE", "VM-entry failure")
    assert "AMD" in explain("0xffffffff")[0].rows[0][1]


def test_pasid_directories_are_pages() -> None:
    controls = "PRIMARY_PROC_CONTROLS = 0x80000000\nSECONDARY_PROC_CONTROLS = 0x200000\n"
    for name, row in (("LOW_PASID_DIR", "CTL-PASID-01"), ("HIGH_PASID_DIR", "CTL-PASID-02")):
        for value, fails in ((0x1000, False), (0x1001, True), (0x1800, True), (1 << 52, True)):
            found = diagnose(one(f"{controls}{name} = {value:#x}\n")).verdict
            assert (row in [item.id for item in found.failed]) == fails


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"GUEST_CR33": 1}', '"GUEST_CR33" is unknown: near: GUEST_CR3'),
        ('{"GUEST_CR0": "0x21"}', '"GUEST_CR0" is a field: expected an object such as {"fields": '),
        ('{"feilds": {}}', "\"feilds\" is unknown: did you mean 'fields'?"),
        ('{"name": "x", "zzz": 1}', '"zzz" is unknown'),
        ("{}", "no key 'fields': expected an object"),
    ],
)
def test_an_object_without_fields_names_the_key_that_is_wrong(text: str, words: str) -> None:
    with pytest.raises(DumpError) as caught:
        read_dumps(text.encode(), "x")
    assert words in caught.value.message
