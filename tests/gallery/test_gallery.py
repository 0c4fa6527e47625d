"""The gallery of instructions made to deceive: classes, promises and premises as written by hand."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from popek.checks.classify import Classifier
from popek.checks.letter import Letter
from popek.checks.premise import A1, A4
from popek.checks.premises import Premises
from popek.checks.promises import Keeper
from popek.checks.runs import explore_instruction
from popek.checks.subject import Subject
from popek.checks.survey import row_of
from popek.kernel.configuration import default_configuration
from popek.machines import from_file

HERE = Path(__file__).parent
CLASSES = ("privileged", "control_sensitive", "location_sensitive", "mode_sensitive", "critical")


def expected(name: str) -> dict[str, dict[str, str]]:
    """Per form what was written by hand."""
    return {row["form"]: row for row in tomllib.loads((HERE / name).read_text(encoding="utf-8"))["forms"]}


WINDOW = from_file(HERE / "window.py")
WRITTEN = expected("window.toml")


def answers(machine: Any, form: str) -> dict[str, str]:
    """What popek says of a form; each witness is made, which replays it."""
    configuration, technique = default_configuration(machine), machine.technique()
    instruction = machine.instructions[form]
    run = explore_instruction(machine, instruction, configuration=configuration)
    found = Classifier(Subject.of(machine, technique, configuration), components=False).classify(
        instruction, run
    )
    kept = Keeper(Subject.of(machine, technique, configuration)).keeps(instruction, run)
    row = row_of(found, kept)
    premises = {
        p.name: p for p in Premises(Subject.of(machine, technique, configuration)).of(instruction, run)
    }
    for one in (*found.findings.values(), kept.fidelity, kept.safety, *premises.values()):
        one.witness  # noqa: B018 - replayed
    told = {name: row.classes[name].value for name in CLASSES}
    told |= {"faithful": kept.fidelity.kept.value, "safe": kept.safety.kept.value}
    return told | {"a1": premises[A1].truth.value, "a4": premises[A4].truth.value}


def test_the_gallery_is_large_and_every_form_is_written_down() -> None:
    assert set(WINDOW.instructions) == set(WRITTEN)
    assert len(WRITTEN) >= 40


@pytest.mark.parametrize("form", WRITTEN)
def test_every_form_gets_what_was_written_by_hand(form: str) -> None:
    written = {k: v for k, v in WRITTEN[form].items() if k not in ("form", "why")}
    assert answers(WINDOW, form) == written


PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "definitions.md"
ROWS = [
    [cell.strip(" `") for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").partition("made to deceive")[2].splitlines()
    if line.startswith("| `")
]


def in_a_word(privileged: str, critical: str) -> str:
    """As the page says it."""
    return "privileged" if privileged == "yes" else "critical" if critical == "yes" else "innocuous"


def kept_or(faithful: str, safe: str) -> str:
    """As the page says it, up to a colon."""
    broken = ["unfaithful"] * (faithful == "no") + ["unsafe"] * (safe == "no")
    return ", ".join(broken) or "kept"


@pytest.mark.parametrize(("name", "letter", "classes", "promises"), [(r[0], *r[2:]) for r in ROWS])
def test_the_pages_selection(name: str, letter: str, classes: str, promises: str) -> None:
    form = next(f for f in WRITTEN if f.split()[0] == name)
    written = WRITTEN[form]
    assert in_a_word(written["privileged"], written["critical"]) == classes
    assert kept_or(written["faithful"], written["safe"]) == promises.partition(":")[0]
    subject, instruction = Subject.of(WINDOW), WINDOW.instructions[form]
    found = Letter(subject).of(instruction, subject.explore(instruction)).truths
    assert in_a_word(found["privileged"].value, found["critical"].value) == letter
