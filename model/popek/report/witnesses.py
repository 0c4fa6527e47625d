"""Witnesses outside the model: as assembly, and run on an emulator."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import attrs
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.counterexample import Counterexample
from popek.emulators.differential import EmulatorError
from popek.emulators.witnesses import Recorded, RunVerdict, WitnessRun, WitnessVerdict, harness, total
from popek.kernel.machine import Machine
from popek.kernel.state import Role


@attrs.frozen(eq=False)
class Named:
    """A witness and what it is one of.

    Attributes:
        subject: the instruction or the program.
        question: the class, promise, problem or hypothesis.
    """

    subject: str
    question: str
    counterexample: Counterexample[Any]


@attrs.frozen
class Confirmation:
    """What an emulator says of a witness."""

    subject: str
    question: str
    against: str
    runs: tuple[RunVerdict, ...]

    @property
    def verdict(self) -> str:
        """Of all its runs: confirmed, differs, or cannot be set up."""
        return total(self.runs).value

    @property
    def differs(self) -> bool:
        """Whether the emulator does something else."""
        return self.verdict == "differs"

    def to_json(self) -> dict[str, object]:
        """By run."""
        return {
            "subject": self.subject,
            "question": self.question,
            "on": self.against,
            "verdict": self.verdict,
            "runs": [run.to_json() for run in self.runs],
        }


def runs_of(found: Counterexample[Any]) -> list[WitnessRun]:
    """The runs of a counterexample, as the emulators take them."""
    return [
        WitnessRun(run.label, run.before, run.lines) for run in (found.first, found.second) if run is not None
    ]


def confirm(machine: Machine[Any], witnesses: Sequence[Named], against: str) -> list[Confirmation]:
    """Run witnesses on an emulator of the machine's.

    Raises:
        EmulatorError: something is missing.
    """
    runs = [runs_of(one.counterexample) for one in witnesses]
    found = harness(machine.name).confirm(machine, runs, against)
    return [
        Confirmation(one.subject, one.question, against, tuple(verdicts))
        for one, verdicts in zip(witnesses, found, strict=True)
    ]


def assembly(machine: Machine[Any], subject: str, witnesses: Sequence[Named]) -> str:
    """Witnesses as one source for the machine's assembler.

    Raises:
        EmulatorError: the assembler is needed and missing.
    """
    places = {leaf.name for leaf in machine.state.leaves if leaf.role is Role.PC}
    listings = [
        Recorded(
            f"{one.subject}: {one.question}",
            tuple(_story(one.counterexample, places)),
            tuple(runs_of(one.counterexample)),
        )
        for one in witnesses
    ]
    write = harness(machine.name).assembly
    if write is None:
        raise EmulatorError(f"nobody writes witnesses of {machine.name} as assembly")
    source = write(machine, subject, listings)
    return source.replace("\u2192", "->").encode("ascii", "replace").decode("ascii")


def _story(found: Counterexample[Any], places: Collection[str]) -> Iterable[str]:
    """What a reader should see; where the run goes on, `places`, is told by the run itself."""
    yield found.story
    second = found.second
    for run in (found.first, second):
        if run is not None:
            yield f"{run.label[0].upper()}{run.label[1:]}: {run.describe()}."
    if second is not None and found.differ:
        yield "What differs: " + "; ".join(
            f"{d.name} {d.before:#x} / {d.after:#x}" for d in found.differ if d.name not in places
        )


def confirmations(found: Sequence[Confirmation]) -> RenderableType:
    """A line per witness, the reasons of those that were not confirmed, and a count."""
    styles = dict(
        zip((v.value for v in WitnessVerdict), ("green", "bold red", "yellow", "yellow"), strict=True)
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    counts = dict.fromkeys(styles, 0)
    for one in found:
        counts[one.verdict] += 1
        reasons = [
            f"{run.label}: {textwrap.shorten('; '.join(run.details), 110)}" for run in one.runs if run.details
        ]
        verdict = Text(one.verdict, styles[one.verdict])
        table.add_row(verdict, f"{one.subject}: {one.question}", Text("\n".join(reasons), "dim"))
    on = found[0].against if found else "the emulator"
    last = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "no witness"
    return Group(table, Text(f"on {on}: {last}", "bold"))
