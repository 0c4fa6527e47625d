"""A run of a witness, what it does, and what it takes to set it up."""

from __future__ import annotations

import attrs

from popek.emulators.witnesses import WitnessRun
from popek.emulators.x86.witness import Effect

from .step import Ia32StepCase


@attrs.frozen
class Patch:
    """Bytes of memory that a run needs: linear address, and what they are for."""

    address: int
    data: bytes
    why: str


@attrs.frozen(eq=False)
class WitnessSetup:
    """A run that can be set up.

    Attributes:
        run: of the witness, with the harness's values where they do not matter.
        step: the harness's case.
        code: the instructions as text, with their machine code.
        effect: what the model says it does.
        patches: the memory of the case.
        stale: what memory holds after the segment registers were loaded.
    """

    run: WitnessRun
    step: Ia32StepCase
    code: tuple[tuple[str, bytes], ...]
    effect: Effect
    patches: tuple[Patch, ...]
    stale: tuple[Patch, ...]
