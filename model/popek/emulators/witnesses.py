"""Witnesses outside the model: whose can be written as assembly and run on an emulator, and what comes of it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from popek.emulators import declared_witnesses, load
from popek.kernel.machine import Machine
from popek.kernel.program import Line


class WitnessVerdict(enum.Enum):
    """What the emulator says of a run."""

    CONFIRMED = "confirmed"
    DIFFERS = "differs"
    DEVIATES = "differs as is known of the emulator"
    IMPOSSIBLE = "cannot be set up"


@attrs.frozen(eq=False)
class WitnessRun:
    """One run of a witness.

    Attributes:
        label: what it shows.
        before: where it starts.
        lines: what it runs.
    """

    label: str
    before: Any
    lines: tuple[Line, ...]


@attrs.frozen
class RunVerdict:
    """What an emulator says of a run.

    Attributes:
        label: what the run shows.
        details: what differs, or why the run cannot be set up.
    """

    label: str
    verdict: WitnessVerdict
    details: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """As plain data."""
        return {"run": self.label, "verdict": self.verdict.value, "details": list(self.details)}


@attrs.frozen(eq=False)
class Recorded:
    """A witness to write down.

    Attributes:
        title: what it is a witness of.
        story: what a reader should see, one line each.
        runs: its runs.
    """

    title: str
    story: tuple[str, ...]
    runs: tuple[WitnessRun, ...]


@attrs.frozen(eq=False)
class Harness:
    """What can be done with a machine's witnesses.

    Attributes:
        emulators: by name; the first where nobody says.
        confirm: runs the runs of each witness on one of them.
        assembly: one source for all witnesses of a subject; None where nobody writes one.
    """

    emulators: tuple[str, ...]
    confirm: Callable[[Machine[Any], Sequence[Sequence[WitnessRun]], str], list[list[RunVerdict]]]
    assembly: Callable[[Machine[Any], str, Sequence[Recorded]], str] | None = None


def harness(machine: str) -> Harness:
    """What can be done with the witnesses of a machine by name.

    Raises:
        KeyError: nothing.
    """
    found: Harness = load(declared_witnesses()[machine])
    return found


def total(verdicts: Sequence[RunVerdict]) -> WitnessVerdict:
    """Of a whole witness: confirmed where every run is."""
    kinds = {verdict.verdict for verdict in verdicts}
    for kind in (WitnessVerdict.DIFFERS, WitnessVerdict.DEVIATES, WitnessVerdict.IMPOSSIBLE):
        if kind in kinds:
            return kind
    return WitnessVerdict.CONFIRMED
