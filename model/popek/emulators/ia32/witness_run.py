"""A run of a witness, what it does, and what it takes to set it up."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from popek.emulators.witnesses import WitnessRun

from .step import Ia32StepCase


@attrs.frozen
class Effect:
    """What a run does, whatever it starts from: the values it leaves behind.

    Attributes:
        end: how it ends.
        leaves: values of the leaves that change.
        cells: values of the cells that are stored, by memory and address.
    """

    end: str
    leaves: Mapping[str, int]
    cells: Mapping[tuple[str, int], int]


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


@attrs.frozen
class Refused:
    """A run that cannot be set up, and why."""

    label: str
    reason: str
