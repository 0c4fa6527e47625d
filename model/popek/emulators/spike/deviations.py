"""What Spike does otherwise for a known reason: how each entry of the list in the specs is recognised.

The list, with the manual's side of it, is ``popek_specs/riscv/spike-deviations.toml``.  A difference that no entry
explains is a bug of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import attrs

from .cases import SpikeCase
from .hart import HartResult


@attrs.frozen
class SpikeDifference:
    """A difference, as the recognisers see it.

    Attributes:
        case: what was run.
        names: the components that differ.
        model, spike: both ends.
    """

    case: SpikeCase
    names: Collection[str]
    model: HartResult
    spike: HartResult

    @property
    def csr(self) -> str | None:
        """The CSR that the instruction names, if it does."""
        words = self.case.form.replace(",", "").split()
        return words[2] if words[0].startswith("CSRR") else None

    @property
    def faults(self) -> bool:
        """The model raises a store access fault."""
        model, code = self.model, 7
        return code in (model.csrs["mcause"], model.csrs["scause"], model.csrs["vscause"])

    def only(self, *names: str) -> bool:
        """Nothing but these differs."""
        return set(self.names) <= set(names)

    def bits(self, name: str) -> int:
        """The bits of a CSR that differ."""
        return self.model.csrs[name] ^ self.spike.csrs[name]


_TIMERS: Final = 0x60
_TIMER_CSRS: Final = (
    "menvcfg",
    "henvcfg",
    "stimecmp",
    "vstimecmp",
    "htimedelta",
    "hvip",
    "mip",
    "hip",
    "hideleg",
    "mideleg",
)


def _h(found: SpikeDifference) -> bool:
    """Software has cleared H: the model keeps what nobody can see then."""
    cleared = not found.model.csrs["misa"] >> 7 & 1
    seen = found.only("hedeleg", "hideleg", "mideleg", "mstatus", "hstatus", "mie", "mip", "hvip")
    return found.csr == "misa" and cleared and seen and found.bits("mstatus") & ~(3 << 38) == 0


def _no_fiom(found: SpikeDifference) -> bool:
    name = found.csr or ""
    return name in ("menvcfg", "henvcfg", "senvcfg") and found.only(name) and found.bits(name) == 1


def _timers(found: SpikeDifference) -> bool:
    return found.csr in _TIMER_CSRS and found.only("mip") and found.bits("mip") & ~_TIMERS == 0


def _two(found: SpikeDifference) -> bool:
    """The environment's FIOM, and a timer that it switches."""
    name = found.csr or ""
    envcfg = name in ("menvcfg", "henvcfg") and found.only("mip", name)
    return envcfg and found.bits(name) in (0, 1) and found.bits("mip") & ~_TIMERS == 0


KNOWN: Final[Mapping[str, Callable[[SpikeDifference], bool]]] = {
    "h-comes-and-goes": _h,
    "no-fiom": _no_fiom,
    "state-enables-without-state": lambda found: (
        found.csr == "mstateen0" and found.only("mstateen0") and found.bits("mstateen0") & ~(1 << 60 | 1) == 0
    ),
    "more-pmp-entries": lambda found: (
        found.csr == "pmpcfg0" and found.only("pmpcfg0") and found.bits("pmpcfg0") & 0xFFFFFFFF == 0
    ),
    "counters-count": lambda found: (
        found.csr == "mcountinhibit" and found.only("mcycle", "minstret", "cycle", "instret")
    ),
    "no-hpmcounter": lambda found: found.csr == "mhpmcounter3" and found.case.mode == "M",
    "failing-sc": lambda found: (
        found.case.form.startswith("SC.")
        and found.faults
        and found.spike.pc == found.case.components["pc"] + 4
    ),
    "timers-when-written": lambda found: _timers(found) or _two(found),
}


def explanation(found: SpikeDifference) -> str | None:
    """The known deviation that explains a difference, if one does."""
    return next((name for name, explains in KNOWN.items() if explains(found)), None)
