"""IA-32 witnesses on Bochs and Unicorn, and as NASM source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from popek.emulators.witnesses import Harness, Recorded, RunVerdict, WitnessRun
from popek.kernel.machine import Machine

from .compare import BOCHS
from .witness import confirm
from .witness_asm import Listing, nasm_source
from .witness_setup import set_up


def _confirm(
    machine: Machine[Any], runs: Sequence[Sequence[WitnessRun]], against: str
) -> list[list[RunVerdict]]:
    if against == "unicorn":
        from .unicorn import UNICORN

        return confirm(machine, runs, UNICORN)
    return confirm(machine, runs, BOCHS)


def _assembly(machine: Machine[Any], subject: str, found: Sequence[Recorded]) -> str:
    return nasm_source(
        subject, [Listing(one.title, one.story, tuple(set_up(machine, one.runs))) for one in found]
    )


HARNESS = Harness(("bochs", "unicorn"), _confirm, _assembly)
