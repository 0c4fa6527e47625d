"""`popek scan --sarif`: a log that other programs can read."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from commands import popek

# What SARIF 2.1.0 requires of the objects that are used (sections 3.13, 3.14, 3.27, 3.29, 3.30, 3.32 and 3.49).
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
RULE = {
    "type": "object",
    "required": ["id", "shortDescription", "fullDescription"],
    "properties": {
        "id": {"type": "string"},
        "shortDescription": TEXT,
        "fullDescription": TEXT,
        "defaultConfiguration": {"properties": {"level": {"enum": ["none", "note", "warning", "error"]}}},
    },
}
PHYSICAL = {
    "type": "object",
    "anyOf": [{"required": ["artifactLocation"]}, {"required": ["address"]}],
    "properties": {
        "artifactLocation": {
            "anyOf": [{"required": ["uri"]}, {"required": ["index"]}],
            "properties": {"uri": {"type": "string", "format": "uri-reference"}, "index": {"minimum": 0}},
        },
        "region": {
            "properties": {"byteOffset": {"type": "integer", "minimum": 0}, "byteLength": {"minimum": 0}}
        },
        "address": {
            "properties": {
                "absoluteAddress": {"type": "integer", "minimum": 0},
                "length": {"type": "integer"},
            }
        },
    },
}
RESULT = {
    "type": "object",
    "required": ["ruleId", "ruleIndex", "message", "locations"],
    "properties": {
        "message": TEXT,
        "level": {"enum": ["none", "note", "warning", "error"]},
        "locations": {
            "items": {
                "properties": {
                    "physicalLocation": PHYSICAL,
                    "logicalLocations": {"items": {"required": ["name"]}},
                }
            }
        },
    },
}
DRIVER = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "rules": {"items": RULE}},
}
LOG = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {"required": ["driver"], "properties": {"driver": DRIVER}},
                    "invocations": {"items": {"required": ["executionSuccessful"]}},
                    "results": {"items": RESULT},
                },
            }
        },
    },
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is asked about the only form that the tests use, asked once."""
    path = tmp_path_factory.mktemp("answers") / "answers.json"
    path.write_text(popek("classify", "ia32", "SGDT", "--promises", "--json", "--jobs", "1").stdout)
    return path


def test_a_log_has_a_rule_for_each_form_and_a_result_for_each_place(tmp_path: Path, answers: Path) -> None:
    (tmp_path / "an image").write_bytes(bytes.fromhex("0f0100 0f0103 ffff"))  # SGDT [EAX]; SGDT [EBX]; none
    told = ("--mode", "32", "--base", "0x100", "--answers", str(answers), "--jobs", "1")
    done = popek("scan", "an image", *told, "--sarif", "log.sarif", "--json", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    log = json.loads((tmp_path / "log.sarif").read_text())
    jsonschema.validate(log, LOG)
    (run,) = log["runs"]
    (rule,) = run["tool"]["driver"]["rules"]
    (finding,) = json.loads(done.stdout)["findings"]
    assert (rule["id"], rule["fullDescription"]["text"]) == ("SGDT m", finding["why"])
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    places = [one["locations"][0]["physicalLocation"] for one in run["results"]]
    assert [one["address"]["absoluteAddress"] for one in places] == [0x100, 0x103]
    assert [(one["region"]["byteOffset"], one["region"]["byteLength"]) for one in places] == [(0, 3), (3, 3)]
    assert {one["artifactLocation"]["uri"] for one in places} == {"an%20image"}
    assert [one["properties"]["bytes"] for one in run["results"]] == ["0f 01 00", "0f 01 03"]
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert [one["message"]["text"] for one in notes] == ["2 bytes begin no instruction"]


def test_a_log_that_cannot_be_written_is_told_in_one_line_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"\x90")
    for name in ("nowhere/log.sarif", "."):
        done = popek("scan", "image", "--mode", "32", "--sarif", name, folder=tmp_path)
        assert done.returncode == 2
        assert done.stdout == ""
        assert (
            done.stderr.removeprefix("popek: ").strip()
            == f"--sarif {name}: expected a file in a folder that exists"
        )
