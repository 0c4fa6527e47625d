"""The gallery of instructions made to deceive: classes, promises and premises as written by hand."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from popek.checks.classify import Classifier
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
