"""IA-32 witnesses on Bochs and Unicorn, and as NASM source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from popek.emulators.witnesses import Harness, Recorded
from popek.emulators.x86.witness import on_emulators
from popek.kernel.machine import Machine

from .witness import confirm
from .witness_asm import Listing, nasm_source
from .witness_setup import set_up


def _assembly(machine: Machine[Any], subject: str, found: Sequence[Recorded]) -> str:
    return nasm_source(
        subject, [Listing(one.title, one.story, tuple(set_up(machine, one.runs))) for one in found]
    )


EMULATORS = {
    "bochs": "popek.emulators.ia32.compare:BOCHS",
    "unicorn": "popek.emulators.ia32.unicorn:UNICORN",
}
HARNESS = Harness(tuple(EMULATORS), on_emulators(confirm, EMULATORS), _assembly)
