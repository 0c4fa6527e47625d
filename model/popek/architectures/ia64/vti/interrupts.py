"""Virtual external interrupts under a_int: what an induction over traces needs of each step.

Two promises: the guest is never given an interrupt that it masks, and one that it no longer masks is given
in that very step.  The steps are the guest's instructions, on the machine's own semantics
(`guest_obligations`), and the VMM's (`vmm_obligations`): an interrupt arrives, and
PAL_VPS_SET_PENDING_INTERRUPT tells the processor; an interrupt is delivered through the guest's vectors.
The invariant joins them: the processor knows the highest interrupt that waits, and no interrupt that
could be delivered is left over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import attrs

from popek.kernel.exploration import Path
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import FALSE, TRUE, Word, ite, symbol

from ..interruptions import VIRTUAL_EXTERNAL_INTERRUPT
from ..state import Ia64
from ..state import invariant as exists
from .pending import above_priority, unmasked

Obligation = tuple[Word, Word]
"""An assumption and a conclusion (width 1); the conclusion must follow for all values."""


# -- the guest's steps ------------------------------------------------------------------------------


class Explored(Protocol):
    """All that one instruction can do from a symbolic state (`popek.checks.runs.Run`)."""

    @property
    def before(self) -> Ia64: ...  # noqa: D102
    @property
    def paths(self) -> tuple[Path[Outcome[Ia64]], ...]: ...  # noqa: D102
    @property
    def operands(self) -> Mapping[str, Word]: ...  # noqa: D102
    def at(self, before: Ia64) -> Explored: ...  # noqa: D102


def guest_obligations(run: Explored) -> Iterator[Obligation]:
    """One instruction of the guest, path by path, where it touches what decides delivery."""
    before = run.before
    start = exists(before) & (before.psr.vm == 1) & ~unmasked(before)
    for path in run.paths:
        match path.result:
            case Next(after):
                same = (
                    after.vpsr.value.term is before.vpsr.value.term
                    and after.vcr is before.vcr
                    and after.vhpi.term is before.vhpi.term
                )
                if not same:
                    yield start & path.condition, (after.psr.vm == 0) | ~unmasked(after)
            case Trap(vector, _, _, state) if vector is VIRTUAL_EXTERNAL_INTERRUPT:
                yield start & path.condition, unmasked(state)


# -- the VMM's steps --------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class VtiWorld:
    """What decides the delivery of a virtual interrupt.

    Attributes:
        enabled: vpsr.i (1 bit).
        tpr: the guest's TPR (64 bits).
        vhpi: the processor's highest pending interrupt (8 bits, below 16 none).
        waiting: the VMM's (8 bits).
    """

    enabled: Word
    tpr: Word
    vhpi: Word
    waiting: Word

    @property
    def deliverable(self) -> Word:
        """The guest would take what the processor knows to be pending (width 1)."""
        return self.enabled & above_priority(self.vhpi, self.tpr)


def anywhere() -> VtiWorld:
    """A world that may be any."""
    return VtiWorld(symbol("vpsr.i", 1), symbol("vtpr", 64), symbol("vhpi", 8), symbol("waiting", 8))


def settled(world: VtiWorld) -> Word:
    """The processor knows what waits, and nothing deliverable is left over (width 1)."""
    return (world.vhpi == world.waiting) & ~world.deliverable


def delivered(world: VtiWorld) -> VtiWorld:
    """The VMM enters the guest's vector with the highest interrupt: vpsr.i := 0, a lower one may wait."""
    lower = symbol("next waiting", 8)
    rest = ite(lower < world.waiting, lower, Word(8, 0))
    return attrs.evolve(world, enabled=FALSE, waiting=rest, vhpi=rest)


def arrived(world: VtiWorld, *, told: bool = True) -> VtiWorld:
    """An interrupt arrives; the VMM tells the processor (`told`) and delivers what the guest lets pass."""
    new = symbol("new vector", 8)
    highest = ite((new >= 16) & (new > world.waiting), new, world.waiting)
    known = attrs.evolve(world, waiting=highest, vhpi=highest if told else world.vhpi)
    taken, due = delivered(known), known.deliverable
    return VtiWorld(
        ite(due, taken.enabled, known.enabled),
        known.tpr,
        ite(due, taken.vhpi, known.vhpi),
        ite(due, taken.waiting, known.waiting),
    )


def vmm_obligations(*, told: bool = True) -> Mapping[str, Obligation]:
    """The base case and the VMM's steps.

    Args:
        told: False drops PAL_VPS_SET_PENDING_INTERRUPT, without which the induction fails.
    """
    world = anywhere()
    nothing = VtiWorld(FALSE, Word(64, 0), Word(8, 0), Word(8, 0))
    return {
        "base": (TRUE, settled(nothing)),
        "arrival": (settled(world), settled(arrived(world, told=told))),
        # From the Virtual External Interrupt vector the processor and the VMM agree on what waits.
        "delivery": (world.vhpi == world.waiting, settled(delivered(world))),
    }
