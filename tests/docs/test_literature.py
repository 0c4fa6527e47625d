"""The page of the literature names every shipped claim, and none that is not."""

from __future__ import annotations

import csv
import re
import tomllib
from importlib.resources import files
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/explanation/literature.md"
CLAIMS = {
    tomllib.loads(file.read_text("utf-8"))["id"]: tomllib.loads(file.read_text("utf-8"))["expected"]
    for folder in ("claims", "rewriting")
    for file in (files("popek_specs") / folder).iterdir()
    if file.name.endswith(".toml")
} | {
    row["id"]: row["expected"]
    for row in csv.DictReader(
        (files("popek_specs") / "claims" / "devices.csv").read_text("utf-8").splitlines()
    )
}


def rows() -> list[tuple[list[str], str]]:
    """The claims and the outcome of each row."""
    cells = [
        line.strip("|").split("|") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")
    ]
    return [(re.findall(r"`([^`]+)`", row[1]), row[2]) for row in cells if "`" in row[1]]


def test_every_claim_is_named_and_no_other() -> None:
    named = {name for row in rows() for name in row[0]} | set(
        re.findall(r"`((?:vt-x|rv64|pdp10)[^` ]*)`", PAGE.read_text())
    )
    assert named == set(CLAIMS)


def test_what_is_said_to_hold_is_expected_to_hold() -> None:
    """A row that begins with an outcome says the one of all its claims."""
    for names, outcome in rows():
        word = re.match(r"(holds?|refuted)\b(?!,? and)", outcome.strip())
        if word and not re.search(r"holds with|without it", outcome):
            expected = "refuted" if word[1] == "refuted" else "holds"
            assert {CLAIMS[name] for name in names} == {expected}, (names, outcome)
