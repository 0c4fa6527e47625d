"""The table of docs/explanation/letter.md: where the letter of 1974 gives another answer for a machine of ours.

    .venv/bin/python tests/docs/letter_table.py [MACHINE …]

asks every form of these machines, or of all, and writes their rows into the page.  It takes minutes.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import attrs

from popek.checks.letter import CRITICAL, PRIVILEGED
from popek.checks.subject import Subject
from popek.checks.survey import Request, Survey, survey
from popek.checks.verdict import Truth
from popek.machines import makers

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "letter.md"
BEGIN, END = "<!-- letter: begin -->\n", "<!-- letter: end -->"
HEAD = "| machine | critical by the letter alone | critical here alone | privileged here alone |\n|---|---|---|---|\n"
NONE = "–"
MANY = 6  # mnemonics of one first word, as CSRRW mstatus, that are folded


@attrs.frozen
class Listed:
    """A row of the table: mnemonics per column."""

    machine: str
    letter: frozenset[str]
    here: frozenset[str]
    privileged: frozenset[str]


def asked(name: str, forms: list[str] | None = None) -> Survey:
    """The classes of a machine, asked both ways."""
    request = Request(Subject.of(name), components=False, by_the_letter=True)
    return survey(request, forms=forms, jobs=1)


def apart(found: Survey) -> tuple[list[str], list[str], list[str]]:
    """The mnemonics per column of the table, in the machine's order."""
    letter, here = found.by_the_letter(CRITICAL), found.mnemonics(CRITICAL)
    privileged = [
        row.mnemonic
        for row in found.rows
        if row.letter is not None
        and row.classes[PRIVILEGED] is Truth.YES
        and row.letter.classes[PRIVILEGED] is Truth.NO
    ]
    return (
        [m for m in letter if m not in here],
        [m for m in here if m not in letter],
        list(dict.fromkeys(privileged)),
    )


def folded(mnemonics: list[str]) -> list[str]:
    """The mnemonics, many of one first word in one: `CSRRW … (57)`."""
    counts = Counter(name.split()[0] for name in mnemonics)
    names = (w if counts[w := name.split()[0]] > MANY else name for name in mnemonics)
    return [f"{n} … ({counts[n]})" if counts[n] > MANY else n for n in dict.fromkeys(names)]


def written(text: str) -> dict[str, str]:
    """The rows of the page's table by machine."""
    table = text.partition(BEGIN)[2].partition(END)[0]
    lines = [(re.match(r"\| `([^`]+)`", line), line) for line in table.splitlines()]
    return {name[1]: line for name, line in lines if name}


def listed(text: str) -> list[Listed]:
    """What the page says."""
    found = []
    for name, line in written(text).items():
        cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
        names = [frozenset() if cell == NONE else frozenset(cell.split(", ")) for cell in cells]
        found.append(Listed(name, *names))
    return found


def main() -> None:
    """Write the rows of these machines, or of all."""
    for name in sys.argv[1:] or makers():
        columns = apart(asked(name))
        text = PAGE.read_text(encoding="utf-8")
        rows = written(text)
        rows[name] = (
            f"| `{name}` | " + " | ".join(", ".join(folded(column)) or NONE for column in columns) + " |"
        )
        before, _, rest = text.partition(BEGIN)
        table = HEAD + "".join(rows[known] + "\n" for known in makers() if known in rows)
        PAGE.write_text(before + BEGIN + table + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
