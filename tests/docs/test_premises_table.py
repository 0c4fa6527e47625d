"""The tables of what the machines' premises are: the smallest row is asked again, the others are of what is there."""

from __future__ import annotations

import re

from premises_table import COLUMNS, HEADS, PAGE, PARTED, PREMISES, asked, every, written

from popek.machines import machine

TEXT = PAGE.read_text(encoding="utf-8")
ROWS = written(TEXT, PREMISES)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_machines_are_ours_and_stand_in_their_order() -> None:
    assert list(ROWS) == [name for name in every() if name in ROWS]
    assert set(written(TEXT, PARTED)) == set(ROWS)
    assert {"ia32", "x86-64", "ia64", "ia32-vt-x", "s370", "pg74"} <= {
        name.partition(":")[0] for name in ROWS
    }


def test_no_premise_fails_of_more_forms_than_there_are() -> None:
    for name, row in ROWS.items():
        made, told = machine(name.partition(":")[0]), cells(row)
        assert len(told) == len(HEADS[PREMISES])
        forms = int(told[1])
        assert forms == len(made.instructions), f"{name}: the row is of another day's instructions"
        for premise, answer in zip(COLUMNS, told[3:], strict=False):
            said = sum(map(int, re.findall(r"(?:no|unknown) (\d+)", answer)))
            assert answer in ("yes", "–") or 0 < said <= 2 * forms + 20, (name, premise, answer)


def test_the_papers_machine_is_as_it_says() -> None:
    """All but the time that it took and the day."""
    name = "pg74:ring-deprivileging"
    made = asked(name)
    assert cells(made[PREMISES])[:-2] == cells(ROWS[name])[:-2]
    assert made[PARTED] == written(TEXT, PARTED)[name]
