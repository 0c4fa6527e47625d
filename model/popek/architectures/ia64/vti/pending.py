"""When a virtual interrupt is deliverable (vol. 2, "Virtual External Interrupt vector")."""

from __future__ import annotations

from typing import Final

from popek.kernel.words import Word

from ..state import Ia64

VTPR: Final = 66  # CR.TPR in vcr
NO_INTERRUPT: Final = 0  # vhpi when nothing is pending


def above_priority(vector: Word, tpr: Word) -> Word:
    """Interrupt `vector` (8 bits, from 16) passes TPR.mmi and TPR.mic (width 1)."""
    return (vector >= 16) & (tpr[16] == 0) & (vector[7:4] > tpr[7:4])


def unmasked(cpu: Ia64) -> Word:
    """The guest's highest pending interrupt may be delivered: vpsr.i = 1 and TPR lets it pass (width 1)."""
    return (cpu.vpsr.i == 1) & above_priority(cpu.vhpi, cpu.vcr.load(Word(7, VTPR)))
