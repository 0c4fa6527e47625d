"""What the commands about devices print for programs, against the schemas; claims about devices among the others."""

from __future__ import annotations

import json

import jsonschema
import pytest

from commands import popek
from popek.schemas import schemas


@pytest.mark.parametrize(
    ("command", "schema"),
    [
        (["devices", "list"], "popek/device-machines/1"),
        (["devices", "rules"], "popek/remapping-rules/1"),
        (["devices", "rules", "--of", "second-stage"], "popek/second-stage-rules/1"),
        (["devices", "check", "pg74.channel.relocated", "sriov.spoofing"], "popek/device-claims/1"),
        (["check", "pg74.channel.direct"], "popek/claims/1"),
    ],
)
def test_documents_are_as_their_schemas_say(command: list[str], schema: str) -> None:
    done = popek(*command, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema"] == schema
    jsonschema.Draft202012Validator(schemas()[schema]).validate(answer)


def test_fault_lines_are_as_their_schema_says(tmp_path) -> None:
    file = tmp_path / "log"
    file.write_text(
        "DMAR: [DMA Read] Request device [01:00.0] fault addr 0 [fault reason 03] Invalid context entry\n"
    )
    answer = json.loads(popek("devices", "fault", str(file), "--json").stdout)
    jsonschema.Draft202012Validator(schemas()["popek/remapping-faults/1"]).validate(answer)


def test_the_injection_of_2011_is_a_claim_that_check_takes() -> None:
    done = popek("check", "x86.assignment.interrupt-injection", "--json")
    assert done.returncode == 0
    (claim,) = json.loads(done.stdout)["of_devices"]
    assert claim["verdict"] == claim["expected"] == "refuted"
    assert any(trace["promise"] == "interrupts" for trace in claim["traces"])


def test_an_unknown_claim_is_one_line() -> None:
    done = popek("check", "x86.assignment.interrupt-injektion")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown claim" in done.stderr


def test_the_atlas_says_what_a_device_changes() -> None:
    done = popek("atlas", "pg74", "--devices", "--jobs", "1", "--json")
    (row,) = json.loads(done.stdout)["devices"]
    assert row["alone"] == {"attachment": "direct", "safety": "refuted"}
    assert row["confined"] == {"attachment": "relocated", "safety": "holds"}
