"""Every document of `popek vmcs` is as its JSON Schema says, and what the reader refuses the schema refuses, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from commands import popek
from popek.architectures.vtx.capability_files import load_capabilities, presets, to_mapping
from popek.architectures.vtx.dumps import DumpError
from popek.architectures.vtx.dumps.json_input import read_json
from popek.schemas import schemas

FOLDER = Path(__file__).parent / "dumps"
OURS = (
    "vmcs", "vmcs-verdict", "vmcs-fields", "vmcs-rules", "vmcs-rule-comparison", "vmx-difftest", "vmx-capabilities",
)  # fmt: skip


def valid(name: str, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schemas()[f"popek/{name}/1"]).is_valid(value))


def assert_valid(name: str, value: Any) -> None:
    jsonschema.Draft202012Validator(schemas()[f"popek/{name}/1"]).validate(value)


def printed(*arguments: str) -> str:
    return popek(*arguments).stdout


def test_the_schemas_are_schemas() -> None:
    for name in OURS:
        jsonschema.Draft202012Validator.check_schema(schemas()[f"popek/{name}/1"])


# 36 is a log of capabilities, no dump.
DUMPS = [path for path in sorted(FOLDER.glob("*.txt")) if not path.stem.startswith("36")]


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.stem[:12])
def test_verdicts_and_fields_of_dumps(path: Path) -> None:
    assert_valid("vmcs-verdict", json.loads(printed("vmcs", "check", str(path), "--json")))
    assert_valid("vmcs-fields", json.loads(printed("vmcs", "decode", str(path), "--json")))


def test_generated_vmcss_are_input_and_their_verdicts_output(tmp_path: Path) -> None:
    lines = printed("vmcs", "generate", "--violate", "GUEST-RFL-02", "--count", "2")
    for line in lines.splitlines():
        assert_valid("vmcs", json.loads(line))
    file = tmp_path / "lines.jsonl"
    file.write_text(lines + '{"fields": {"NOBODY": "0x1"}}\n')
    answers = [json.loads(line) for line in printed("vmcs", "check", str(file), "--jsonl").splitlines()]
    assert len(answers) == 3
    assert "error" in answers[-1]
    for answer in answers:
        assert_valid("vmcs-verdict", answer)
    one = tmp_path / "one.json"
    one.write_text(lines.splitlines()[0])
    repaired = json.loads(printed("vmcs", "repair", str(one), "--json"))
    assert_valid("vmcs-verdict", repaired)
    assert repaired["changes"]


GOOD = [
    {"fields": {"GUEST_CR0": "0x31", "0x4000": 0x16}},
    {"fields": {}, "default": "0x0", "capabilities": "coffee-lake", "memory": [["0x45080", 4, "0x30"]]},
    {"fields": {}, "capabilities": {"0x480": "0x1", "cpuid.7.0.ebx": "0x1", "maxphyaddr": 39}},
    {
        "fields": {},
        "launch": {"instruction": "VMRESUME", "state": "launched", "current_vmcs": "0xffffffffffffffff"},
    },
    {"fields": {}, "launch": {"mov_ss_blocking": 1, "smm": 0, "cpl": 3}},
    [{"fields": {}}, {"name": "two", "fields": {}}],
]
BAD = [
    {"fields": {}, "memroy": []},
    {"fields": {}, "launch": {"instruction": "VMXON"}},
    {"fields": {}, "launch": {"movss": 1}},
    {"fields": {}, "launch": {"state": "active"}},
    {"fields": {"GUEST_CR0": "31"}},
    {"fields": {"GUEST_CR0": -1}},
    {"fields": {}, "memory": [["0x45080", 4]]},
    {"fields": {}, "name": 5},
    {"fields": []},
    {"field": {}},
    [],
]


@pytest.mark.parametrize("value", GOOD)
def test_good_input(value: Any) -> None:
    assert_valid("vmcs", value)
    assert read_json(json.dumps(value), "input")


@pytest.mark.parametrize("value", BAD)
def test_bad_input(value: Any) -> None:
    assert not valid("vmcs", value)
    with pytest.raises(DumpError):
        read_json(json.dumps(value), "input")


@pytest.mark.parametrize("name", [*presets(), "sapphire-rapids"])
def test_capabilities(name: str) -> None:
    assert_valid("vmx-capabilities", to_mapping(load_capabilities(name)))
    assert not valid("vmx-capabilities", {"maxphyadr": 39})
