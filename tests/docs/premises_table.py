"""The tables of docs/explanation/premises-of-the-machines.md: what `popek prove` finds of the machines of ours.

    .venv/bin/python tests/docs/premises_table.py [MACHINE|MACHINE:TECHNIQUE …]

asks every form of these machines, or of all, under their first technique or the one that is named, prints the verdicts,
and writes the rows into the page, with the date and the CPU seconds.  It takes half a CPU hour for all.  All are: each
machine under its first technique, and those of `EVERY` under each.
"""

from __future__ import annotations

import datetime
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from popek.checks.premise import TITLES
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.machines import makers
from popek_proofs.theorems.instantiate import Instantiation, instantiate

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "premises-of-the-machines.md"
EVERY = ("rv64",)
PREMISES, PARTED = "premises", "disagreements"
# Those that are asked; what is taken for granted is no column.
COLUMNS = tuple(name for name in TITLES if name not in ("A2_fetch", "A9_fetch"))
SHORT = {
    "A3_closure_next": "A3 next", "A3_closure_trap": "A3 trap", "A5_vector": "A5 vector",
    "A6_interrupt_tells_apart": "A6 tells", "A6_interrupt_noticed": "A6 noticed", "A6_interrupt_closure": "A6 closure",
    "A9_no_clock_trap": "A9 trap", "A9_guests": "A9 guests", "A9_map": "A9 map",
}  # fmt: skip
HEADS = {
    PREMISES: (
        "machine", "forms", "theorems", *(SHORT.get(name, name.partition("_")[0]) for name in COLUMNS),
        "CPU s", "asked on",
    ),
    PARTED: ("machine", "critical, and faithful all the same", "not critical, and not faithful"),
}  # fmt: skip
NONE = "–"
LETTERS = {"HOLDS": "holds", "REFUTED": "no", "UNKNOWN": "unknown"}


def cell(found: Instantiation[Any], name: str) -> str:
    """The answers of a premise: yes, or of how many it does not hold or is unknown."""
    told = Counter(one.truth for one in found.premises if one.name == name)
    asked = sum(count for truth, count in told.items() if truth is not Truth.NOT_ASKED)
    if not asked:
        return NONE
    if told[Truth.YES] == asked:
        return "yes"
    words = {Truth.NO: "no", Truth.UNKNOWN: "unknown"}
    return ", ".join(f"{words[truth]} {told[truth]}" for truth in words if told[truth])


def theorems(found: Instantiation[Any]) -> str:
    """Which of the three hold, and which are undecided."""
    answers = {1: found.theorem1, 2: found.theorem2, 3: found.theorem3}
    return ", ".join(f"{n} {LETTERS[status.name]}" for n, status in answers.items())


def folded(forms: list[str]) -> str:
    """Forms by their mnemonics."""
    counts = Counter(" ".join(form.split()[: 2 if form.startswith(("o16", "REP ")) else 1]) for form in forms)
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in counts.items()) or NONE


def rows(found: Instantiation[Any], cpu: float, day: str) -> Mapping[str, str]:
    """A machine's row in each table."""
    machine = found.subject.machine
    parted: dict[bool, list[str]] = {True: [], False: []}
    for one in found.disagreements:
        parted[one.how.startswith("critical")].append(one.form)
    title = f"`{machine.name}` `{found.subject.technique.name}`"
    cells = (*(cell(found, name) for name in COLUMNS), f"{cpu:.0f}", day)
    return {
        PREMISES: _row(title, str(len(machine.instructions)), theorems(found), *cells),
        PARTED: _row(title, folded(parted[True]), folded(parted[False])),
    }


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def written(text: str, table: str) -> dict[str, str]:
    """The rows of a table of the page, by machine and technique."""
    begin, end = _marks(table)
    lines = text.partition(begin)[2].partition(end)[0].splitlines()
    found = [(re.match(r"\| `([^`]+)` `([^`]+)`", line), line) for line in lines]
    return {f"{name[1]}:{name[2]}": line for name, line in found if name}


def _marks(table: str) -> tuple[str, str]:
    return f"<!-- {table}: begin -->\n", f"<!-- {table}: end -->"


def every() -> list[str]:
    """All that can have a row, in the table's order."""
    made = {name: list(make().techniques) for name, make in makers().items()}
    return [
        f"{name}:{one}" for name, known in made.items() for one in (known if name in EVERY else known[:1])
    ]


def asked(name: str) -> Mapping[str, str]:
    """The rows of a machine under a technique, asked anew."""
    machine, _, technique = name.partition(":")
    begin = time.process_time()
    found = instantiate(Subject.of(machine, technique))
    print(found, found.recursively, sep="\n", flush=True)
    return rows(found, time.process_time() - begin, datetime.date.today().isoformat())


def main() -> None:
    """Write the rows of these machines, or of all."""
    known = every()
    for argument in sys.argv[1:] or known:
        name = next(one for one in known if one == argument or one.startswith(f"{argument}:"))
        made = asked(name)
        text = PAGE.read_text(encoding="utf-8")
        for table in (PREMISES, PARTED):
            begin, end = _marks(table)
            before, _, rest = text.partition(begin)
            kept = {**written(text, table), name: made[table]}
            heads = HEADS[table]
            lines = [_row(*heads), "|" + "---|" * len(heads), *(kept[n] for n in known if n in kept)]
            text = before + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
