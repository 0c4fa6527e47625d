"""The claims about Itanium and VT-i: each row's expected verdict against the derived classes."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

import pytest

from popek.checks.classification import Classification
from popek.checks.classify import Classifier
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.kernel.configuration import configure

from .machine_room import ia64

STATEMENTS = {
    "critical": lambda c: c.critical,
    "privileged": lambda c: c.privileged,
    "innocuous": lambda c: c.innocuous,
    "mode-sensitive": lambda c: c.truth("mode_sensitive"),
}


def claim(name: str) -> dict[str, Any]:
    return tomllib.loads((files("popek_specs") / "claims" / f"{name}.toml").read_text("utf-8"))


def classified(about: dict[str, Any], subject: str) -> list[Classification]:
    machine = ia64()
    settings = configure(machine, [f"{n}={v}" for n, v in about["configuration"].items()])
    classifier = Classifier(Subject.of(machine, about["technique"], settings), components=False)
    return [classifier.classify(instruction) for instruction in machine.find(subject)]


@pytest.mark.parametrize("name", ["ia64", "vt-i"])
def test_every_row_has_its_expected_verdict(name) -> None:
    about = claim(name)
    critical = False
    for row in about["rows"]:
        statement = row["statement"].removeprefix("not ")
        wanted = Truth.NO if row["statement"].startswith("not ") else Truth.YES
        found = {STATEMENTS[statement](c) for c in classified(about, row["subject"])}
        holds = found == {wanted}
        assert holds is (row["expected"] == "holds"), f"{row['subject']} {row['statement']}: {found}"
        critical |= holds and row["statement"] == "critical"
    # One critical instruction refutes the premise of Theorem 1.
    assert critical is (about["expected"] == "refuted")


@pytest.mark.parametrize("name", ["ia64", "vt-i"])
def test_every_row_says_where_it_comes_from_and_how_sure_that_is(name) -> None:
    for row in claim(name)["rows"]:
        assert row["source"]
        assert row["confidence"] in ("H", "M", "L")
