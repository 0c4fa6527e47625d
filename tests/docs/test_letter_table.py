"""The table of where the letter of 1974 gives another answer: of each machine some instructions are asked again."""

from __future__ import annotations

import random

import pytest
from letter_table import PAGE, Listed, apart, asked, listed

from popek.machines import machine, makers

LISTED = {row.machine: row for row in listed(PAGE.read_text(encoding="utf-8"))}
COSTLY = 12  # forms of a mnemonic


def test_every_machine_is_listed() -> None:
    assert list(LISTED) == list(makers())


@pytest.mark.parametrize("name", LISTED)
def test_some_of_it_is_asked_again(name: str) -> None:
    made, row = machine(name), LISTED[name]
    forms: dict[str, list[str]] = {}
    for form, instruction in made.instructions.items():
        forms.setdefault(instruction.mnemonic, []).append(form)
    said = row.letter | row.here | row.privileged
    folded = {entry.split()[0] for entry in said if entry not in forms}
    if name == "pg74":
        chosen = set(forms)
    else:
        draw = random.Random(f"letter of {name}")
        known = [m for m in sorted(forms) if len(forms[m]) <= COSTLY and m.split()[0] not in folded]
        named, others = [m for m in known if m in said], [m for m in known if m not in said]
        chosen = {*draw.sample(named, min(2, len(named))), *draw.sample(others, 2)}
    found = asked(name, [form for form in made.instructions if made.instructions[form].mnemonic in chosen])
    columns = [frozenset(column) for column in apart(found)]
    assert Listed(name, *columns) == Listed(
        name, row.letter & chosen, row.here & chosen, row.privileged & chosen
    )
