"""Every document that popek prints as JSON has a schema, and is as that says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from commands import popek
from popek.emulators.differential import Difference, DifftestReport
from popek.schemas import schemas
from schemas import assert_valid

HERE = Path(__file__).parents[2]
CODE = [*(HERE / "model" / "popek").rglob("*.py"), *(HERE / "proofs" / "popek_proofs").rglob("*.py")]
TOY = str(HERE / "tests" / "assistance" / "toy.py")


def documents() -> set[str]:
    """The names of all documents, as the code spells them."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in CODE)
    return set(re.findall(r"popek/[a-z0-9-]+/\d", text)) | {"popek/vmcs-rules/1", "popek/vmcb-rules/1"}


def test_no_document_is_without_a_schema() -> None:
    assert documents() - set(schemas()) == set()


def test_no_schema_is_of_nothing() -> None:
    parts = {"popek/witness/1", "popek/question/1", "popek/evidence/1"}
    kept = {name for name in schemas() if name not in documents() | parts}
    assert kept <= {
        "popek/vmcs/1",
        "popek/vmcb/1",
        "popek/vmx-capabilities/1",
        "popek/shard/1",
    }  # files, not answers


@pytest.mark.parametrize("name", sorted(schemas()))
def test_a_schema_is_one_and_refuses_what_is_none(name: str) -> None:
    schema = schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate("popek")


# Whose documents are asked for nowhere else, and which take little time.
COMMANDS = (
    ["notebooks"],
    ["classify", "pg74", "MOVE", "--technique", "all", "--no-cache"],
    ["bench", "steps", "--machine", "pg74", "--only", "ADD"],
    ["assist", "merge", TOY],
    ["assist", "gain", TOY],
    ["assist", "compare", TOY],
    ["assist", "interrupts", TOY],
    ["atlas", "--machines", TOY, "--jobs", "1"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_what_a_command_prints_is_as_its_schema_says(command: list[str]) -> None:
    done = popek(*command, "--json")
    assert done.stderr == ""
    assert_valid(json.loads(done.stdout))


class Case:
    """A case of a comparison."""

    form = "INC"

    def to_json(self) -> dict[str, Any]:
        return {"form": "INC", "state": {"acc": "0x1"}}


def test_a_comparison_with_an_emulator_is_as_its_schemas_say() -> None:
    difference = Difference(Case(), "INC", "acc = 2", "acc = 1", ("acc: model 0x2, emulator 0x1",))  # type: ignore[type-var]
    one = {"INC": 1}
    report = DifftestReport(
        *("toy", "emulator", 7, 1, one, {0: 1}, {"": 1}, one, one, (difference,), 1, {}, {}, {}, 0.5)
    )  # type: ignore[call-arg]
    for name in ("difftest", "svm-guest-difftest", "vtx-difftest"):
        assert_valid({"schema": f"popek/{name}/1", **report.to_json()})
