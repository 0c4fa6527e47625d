"""The table of forms on which the classes and A1 part: what it names is asked again, of one form in each cell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from popek.checks.classify import Classifier
from popek.checks.premises import Premises
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.machines import machine

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "premises-of-the-machines.md"
A1 = "A1_fidelity"
_TABLE = PAGE.read_text(encoding="utf-8").partition("disagreements: begin -->")[2].partition("<!--")[0]
ROWS = [[cell.strip() for cell in line.strip("| ").split("|")] for line in _TABLE.splitlines() if "`" in line]
CELLS = [
    (*row[0].replace("`", "").split(), cell, critical)
    for row in ROWS
    for cell, critical in zip(row[1:], (Truth.YES, Truth.NO), strict=True)
    if cell != "–"
]


def forms(name: str, cell: str) -> list[list[str]]:
    """The forms that a cell names, by mnemonic."""
    known = list(machine(name).instructions)
    told = [re.sub(r" \(\d+\)$", "", word.strip()) for word in cell.split(",")]
    return [[form for form in known if form == word or form.startswith(f"{word} ")] for word in told]


@pytest.mark.parametrize(("name", "technique", "cell", "critical"), CELLS, ids=str)
def test_what_the_table_names_is_so(name: str, technique: str, cell: str, critical: Truth) -> None:
    named = forms(name, cell)
    assert all(named), cell
    subject = Subject.of(machine(name), technique)
    classifier, premises = Classifier(subject), Premises(subject)
    instruction = subject.machine.instructions[named[-1][0]]
    run = subject.explore(instruction)
    assert classifier.classify(instruction, run).critical is critical
    faithful = next(one for one in premises.of(instruction, run) if one.name == A1)
    assert faithful.truth is (Truth.YES if critical is Truth.YES else Truth.NO)
    if critical is Truth.NO:
        assert faithful.witness is not None
