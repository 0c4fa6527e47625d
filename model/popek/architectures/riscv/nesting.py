"""A hypervisor and its guests, all in VS and VU (privileged manual, "H" Extension; nesting by trap and emulate).

While the hypervisor runs, the VS CSRs have its S CSRs; while a guest of its runs, they have that guest's.  Then the
VMM's controls are merged with the hypervisor's: what either takes is taken, what either closes is closed, floating
point is as dirty as the hypervisor's, and time is off by the hypervisor's offset.  Nothing looks at a clock: time goes
for the hypervisor as for the hart.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.outcome import Target
from popek.kernel.technique import Technique
from popek.kernel.words import TRUE, Word, ite

from .arrangement import (
    DELIVERED,
    PROTECTION,
    delegating_platform,
    denies_own_storage,
    every_register,
    leaves_of,
    map_program,
    owns_address,
    same,
)
from .exceptions import MEDELEG_BITS
from .state import MACHINE, XLEN, Rv64
from .virtualization import BANKED, PENDING, STATUS, UNBANKED, in_vs

MERGED: Final = {
    "vtvm": ("hstatus.vtvm",),
    "vtw": ("hstatus.vtw",),
    "hcounteren": tuple(f"hcounteren.{field}" for field in ("cy", "tm", "ir", "hpm3")),
    "hstateen0": ("hstateen0.envcfg", "hstateen0.se0"),
    "hideleg": tuple(f"hideleg.v{field}" for field in PENDING),
    "fs": ("mstatus.fs",),
    "htimedelta": ("htimedelta",),
}
"""What is the hypervisor's, too, while a guest of its runs, by a short name.  VTSR is on anyway."""
_TAKEN: Final = ("hstatus.vtvm", "hstatus.vtw")
PLATFORM: Final = (
    "features",
    "changeable",
    "misa",
    "medeleg",
    "mideleg",
    "mcounteren",
    "menvcfg",
    "mstateen0",
    *PROTECTION,
)
OWN_CHOICES: Final = (
    *(f"{whose}COUNTEREN_{name}" for whose in "SH" for name in ("CY", "TM", "IR", "HPM3")),
    *("HSTCE", "HSE0", "HENVCFG", "HU", "VTVM", "VTW", "VTSR"),
)
"""Settings that are the hypervisor's to choose on its own machine, and that it may change there."""
_HYPERVISORS: Final = (
    *leaves_of(*BANKED),
    *(f"mstatus.{field}" for field in STATUS if field != "fs"),
    *(f"mie.{field}" for field in PENDING),
    "mip.ssi",
)
_GUESTS: Final = (
    *leaves_of("vsstatus", *(f"v{register}" for register in BANKED)),
    *(f"mie.v{field}" for field in PENDING),
    "hvip.vssi",
)


def merged(guest: Rv64, private: Rv64, *, without: frozenset[str] = frozenset()) -> Rv64:
    """The hypervisor at its own privilege with V = 1, or its guest; the controls of both for the latter.

    Args:
        without: names of `MERGED` that are left as they are for the hypervisor.
    """
    hardware = private.copy()
    map_program(hardware, guest, private)
    inside = guest.v
    hardware.prv, hardware.v = guest.prv, TRUE
    for name in BANKED:
        hardware[f"v{name}"] = ite(inside, guest[f"v{name}"], guest[name])
    for name in UNBANKED:
        hardware[name] = guest[name]
    for field in STATUS:
        hardware[f"vsstatus.{field}"] = ite(inside, guest[f"vsstatus.{field}"], guest[f"mstatus.{field}"])
    pending = guest.pending()
    for own, guests, field in zip((1, 5, 9), (2, 6, 10), PENDING, strict=True):
        hardware[f"mie.v{field}"] = ite(inside, guest[f"mie.v{field}"], guest[f"mie.{field}"])
        hardware[f"hvip.v{field}"] = ite(inside, pending[guests], pending[own])
    hardware.htimedelta = Word(64, 0)
    for name in (leaf for short, leaves in MERGED.items() if short not in without for leaf in leaves):
        mine, hypervisors = hardware[name], guest[name]
        if name in _TAKEN:
            both = mine | hypervisors
        elif mine.width == 1:  # opened by both
            both = mine & hypervisors
        else:  # the VMM's own are 0 and dirty
            both = hypervisors
        hardware[name] = ite(inside, both, mine)
    return hardware


def _guest(state: Rv64) -> Word:
    """A hypervisor in HS, its users, and its guests; its firmware has delegated all that can be."""
    everything = state.medeleg.value == (MEDELEG_BITS | (~state.misa.c).zero_extend(XLEN))
    return (state.prv != MACHINE) & state.misa.h & everything & delegating_platform(state)


def _keeps(guest: Rv64, private: Rv64) -> Word:
    """The platform is the guest's; no exception is sent on, VS interrupts are, and no comparator is the guest's."""
    interrupts = private.hideleg.vssi & private.hideleg.vsti & private.hideleg.vsei
    return (
        same(guest, private, PLATFORM)
        & denies_own_storage(private)
        & (private.hedeleg.value == 0)
        & interrupts
        & ~private.henvcfg.stce
        & (private.mstatus.fs == 3)
        & ~private.mstatus.mprv
    )


def nesting() -> dict[str, Technique[Rv64]]:
    """A hypervisor in VS together with its guests there."""
    technique = _nested()
    return {technique.name: technique}


def _nested() -> Technique[Rv64]:
    given = (
        *leaves_of("vsstatus", *(f"v{register}" for register in BANKED), *UNBANKED),
        *(f"mie.v{field}" for field in PENDING),
        *(f"hvip.v{field}" for field in PENDING),
    )
    owned = (*(leaf for leaf in every_register() if leaf not in given), "v")
    protection, misa = leaves_of(*PROTECTION), leaves_of("misa")
    elsewhere = (*leaves_of(*UNBANKED), "time", "mstatus.fs")
    return Technique(
        "hypervisor-and-guests-in-vs",
        "nested: a hypervisor and its guests in VS, the controls of both merged",
        map=merged,
        owned=tuple(leaf for leaf in owned if leaf != "mstatus.fs"),
        replaced=tuple(
            leaf
            for leaf in owned
            if leaf not in (*protection, *misa, "v", "time", "htimedelta", "mstatus.fs")
        ),
        shadowed=(*(leaf for leaf in every_register() if leaf not in elsewhere), "v"),
        shadowed_when={
            **dict.fromkeys(_HYPERVISORS, lambda guest: guest.v),
            **dict.fromkeys(_GUESTS, lambda guest: ~guest.v),
        },
        deprivileged=in_vs,
        guest=_guest,
        private=_keeps,
        owns_address=owns_address,
        delivered=(*DELIVERED, "v"),
        target=lambda trap: Target.VMM,
        guests_own=("prv", *given),
        guest_settings=dict.fromkeys(OWN_CHOICES),
        source="RISC-V privileged manual, H Extension, on nesting; Popek and Goldberg 1974, Theorem 2",
    )
