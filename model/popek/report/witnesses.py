"""Witnesses outside the model: as assembly, and run on an emulator."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from popek.checks.counterexample import Counterexample
from popek.kernel.machine import Machine

if TYPE_CHECKING:
    from popek.emulators.ia32.compare import Ia32Emulator
    from popek.emulators.ia32.witness import RunVerdict
    from popek.emulators.ia32.witness_run import WitnessRun

EMULATORS = ("bochs", "unicorn")
MACHINES = ("ia32",)
"""The machines whose witnesses can be written as assembly and run on an emulator."""


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
        from popek.emulators.ia32.witness import total

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
    from popek.emulators.ia32.witness_run import WitnessRun

    return [
        WitnessRun(run.label, run.before, run.lines) for run in (found.first, found.second) if run is not None
    ]


def emulator(name: str) -> Ia32Emulator:
    """One of `EMULATORS`."""
    if name == "unicorn":
        from popek.emulators.ia32.unicorn import UNICORN

        return UNICORN
    from popek.emulators.ia32.compare import BOCHS

    return BOCHS


def confirm(machine: Machine[Any], witnesses: Sequence[Named], against: str) -> list[Confirmation]:
    """Run witnesses on an emulator.

    Raises:
        BochsError, UnicornError: something is missing.
    """
    from popek.emulators.ia32.witness import confirm as confirmed

    found = confirmed(machine, [runs_of(one.counterexample) for one in witnesses], emulator(against))
    return [
        Confirmation(one.subject, one.question, against, tuple(runs))
        for one, runs in zip(witnesses, found, strict=True)
    ]


def assembly(machine: Machine[Any], subject: str, witnesses: Sequence[Named]) -> str:
    """Witnesses as one NASM source.

    Raises:
        BochsError: nasm is missing.
    """
    from popek.emulators.ia32.witness_asm import Listing, nasm_source
    from popek.emulators.ia32.witness_setup import set_up

    source = nasm_source(
        subject,
        [
            Listing(
                f"{one.subject}: {one.question}",
                tuple(_story(one.counterexample)),
                tuple(set_up(machine, runs_of(one.counterexample))),
            )
            for one in witnesses
        ],
    )
    return source.replace("→", "->").encode("ascii", "replace").decode("ascii")


def _story(found: Counterexample[Any]) -> Iterable[str]:
    yield found.story
    second = found.second
    for run in (found.first, second):
        if run is not None:
            yield f"{run.label[0].upper()}{run.label[1:]}: {run.describe()}."
    if second is not None and found.differ:
        yield "What differs: " + "; ".join(
            f"{d.name} {d.before:#x} / {d.after:#x}" for d in found.differ if d.name != "eip"
        )


def confirmations(found: Sequence[Confirmation]) -> RenderableType:
    """A line per witness, the reasons of those that were not confirmed, and a count."""
    from popek.emulators.ia32.witness import WitnessVerdict

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
