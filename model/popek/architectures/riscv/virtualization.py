"""The hypervisor extension: a guest's kernel in VS, its users in VU (privileged manual, "H" Extension).

The VS CSRs are the guest's S CSRs.  scounteren and senvcfg have no VS copy: the VMM puts the guest's values there.
time is the guest's through htimedelta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from popek.kernel.outcome import Target
from popek.kernel.technique import Hypothesis, Technique
from popek.kernel.words import FALSE, TRUE, Word, ite

from .arrangement import (
    DELIVERED,
    OWN_STORAGE,
    OWN_STORAGE_DENIED,
    PROTECTION,
    denies_own_storage,
    every_register,
    leaves_of,
    map_program,
    owns_address,
    plain_platform,
    same,
)
from .state import MACHINE, Rv64

BANKED: Final = ("stvec", "sscratch", "sepc", "scause", "stval", "satp", "stimecmp")
UNBANKED: Final = ("scounteren", "senvcfg")
STATUS: Final = ("sie", "spie", "spp", "vs", "fs", "sum", "mxr", "uxl")
PENDING: Final = ("ssi", "sti", "sei")
DELEGATED: Final = (0, 3, 8, 12, 13, 15)
"""What goes straight to the guest's kernel, as KVM has it: misaligned jumps, breakpoints, calls and page faults of its
users.

A hypervisor in VS gets nothing so: in HS a trap writes hstatus and htval, too, and the VMM keeps them.
"""
SHARED: Final = ("features", "changeable", *(f"misa.{letter}" for letter in "acdfmv"))
"""What the guest's own hart has as the hardware has it: all but H."""


def _mask(codes: Iterable[int]) -> int:
    return sum(1 << code for code in codes)


def _delegates(state: Rv64, codes: Iterable[int]) -> Word:
    """M delegates these exceptions (width 1); with C, jumps are never misaligned, and their bit is read-only 0."""
    mask = _mask(codes)
    wanted = Word(64, mask & ~1) | ((~state.misa.c).zero_extend(64) & mask)
    return (state.medeleg.value & wanted) == wanted


def image(guest: Rv64, private: Rv64) -> Rv64:
    """The guest at its own privilege with V = 1, its S CSRs in the VS CSRs."""
    hardware = private.copy()
    map_program(hardware, guest, private)
    hardware.prv, hardware.v = guest.prv, TRUE
    for name in BANKED:
        hardware[f"v{name}"] = guest[name]
    for name in UNBANKED:
        hardware[name] = guest[name]
    for field in STATUS:
        hardware[f"vsstatus.{field}"] = guest[f"mstatus.{field}"]
    pending = guest.pending()
    for place, field in zip((1, 5, 9), PENDING, strict=True):
        hardware[f"mie.v{field}"] = guest[f"mie.{field}"]
        hardware[f"hvip.v{field}"] = pending[place]
    # The comparator decides by itself where the guest has it, otherwise the VMM does.
    hardware.hvip.vsti = ite(hardware.guest_timer, FALSE, pending[5])
    hardware.htimedelta = guest.time - private.time
    return hardware


def _guest(state: Rv64, *, hypervisor: bool, sent: tuple[int, ...]) -> Word:
    """A kernel and its users without H of their own, or a hypervisor with H, its guests elsewhere.

    Args:
        sent: exceptions that go straight to the kernel: its firmware has delegated them.
    """
    own = plain_platform(state) & _delegates(state, sent) & (state.misa.h == int(hypervisor))
    return ~state.v & (state.prv != MACHINE) & own


def _keeps(
    guest: Rv64, private: Rv64, *, sent: tuple[int, ...], without: frozenset[str] = frozenset()
) -> Word:
    """What the VMM sees to: delegation as above, VS interrupts delegated, floating point on for itself."""
    delegated = (private.hedeleg.value == _mask(sent)) & _delegates(private, DELEGATED)
    interrupts = private.hideleg.vssi & private.hideleg.vsti & private.hideleg.vsei
    equal = same(guest, private, (*SHARED, *PROTECTION))
    timer = ~private.henvcfg.stce | (guest.menvcfg.stce & guest.features.sstc)
    floating = private.mstatus.fs != 0 if DIRTY in without else private.mstatus.fs == 3
    storage = TRUE if OWN_STORAGE in without else denies_own_storage(private)
    return (
        delegated & interrupts & equal & timer & floating & private.misa.h & ~private.mstatus.mprv & storage
    )


def in_vs(state: Rv64) -> Word:
    """A guest's kernel (width 1)."""
    return (state.prv == 1) & state.v


DIRTY: Final = "dirty"
HYPOTHESES: Final = (
    OWN_STORAGE_DENIED,
    Hypothesis(
        "scounteren",
        "scounteren has no VS copy: the VMM puts the guest's there, and its own back",
        examples=("CSRRW rd, scounteren, rs1",),
    ),
    Hypothesis(
        "senvcfg",
        "senvcfg has no VS copy either: the VMM puts the guest's there, or closes it (hstateen0.ENVCFG)",
        "HENVCFG",
        ("CSRRW rd, senvcfg, rs1",),
    ),
    Hypothesis(
        DIRTY,
        "mstatus.FS is Dirty while the guest runs, so that its floating point changes nothing of HS's",
        examples=("FMV.D.X fd, rs1",),
    ),
)
"""What keeps a guest in; each is needed."""


def virtualization() -> dict[str, Technique[Rv64]]:
    """A kernel in VS, and a hypervisor in VS whose H instructions the VMM emulates."""
    return {technique.name: technique for technique in (_kernel(), _nested())}


def _kernel(without: frozenset[str] = frozenset()) -> Technique[Rv64]:
    return _technique(
        "hypervisor-extension",
        "the hypervisor extension: a kernel in VS, its users in VU",
        hypervisor=False,
        own={"H": 0},
        source="RISC-V privileged manual, H Extension; Linux arch/riscv/kvm",
        again=_kernel,
        without=without,
    )


def _nested(without: frozenset[str] = frozenset()) -> Technique[Rv64]:
    return _technique(
        "hypervisor-in-vs",
        "nested: a hypervisor in VS, what it does with H emulated",
        hypervisor=True,
        own={},
        source="RISC-V privileged manual, H Extension, on nesting by trap and emulate",
        again=_nested,
        without=without,
    )


def _technique(
    name: str,
    title: str,
    *,
    hypervisor: bool,
    own: Mapping[str, int],
    source: str,
    again: Callable[[frozenset[str]], Technique[Rv64]],
    without: frozenset[str],
) -> Technique[Rv64]:
    sent = () if hypervisor else DELEGATED
    kept_from_guest = tuple(register for register in UNBANKED if register in without)
    unbanked = tuple(register for register in UNBANKED if register not in without)

    def map_(state: Rv64, private: Rv64) -> Rv64:
        hardware = image(state, private)
        for register in kept_from_guest:
            hardware[register] = private[register]
        return hardware

    given = (
        *leaves_of("vsstatus", *(f"v{register}" for register in BANKED), *unbanked),
        *(f"mie.v{field}" for field in PENDING),
        *(f"hvip.v{field}" for field in PENDING),
    )
    owned = (*(leaf for leaf in every_register() if leaf not in given), "v")
    native = (
        *leaves_of(*BANKED, *unbanked),
        "time",
        *(f"mstatus.{field}" for field in STATUS),
        *(f"mie.{field}" for field in PENDING),
        "mip.ssi",  # the others are the platform's: the VMM raises and remembers them
    )
    protection, misa = leaves_of(*PROTECTION), leaves_of("misa")
    return Technique(
        name,
        title,
        map=map_ if kept_from_guest else image,
        owned=owned,
        replaced=tuple(
            leaf
            for leaf in owned
            if leaf not in (*protection, *misa, "v", "time", "htimedelta", "mstatus.fs")
        ),
        # What the guest believes of M, and a hypervisor of H: nothing of the hardware holds it.
        shadowed=(*(leaf for leaf in every_register() if leaf not in native), "v"),
        deprivileged=in_vs,
        guest=partial(_guest, hypervisor=hypervisor, sent=sent),
        private=partial(_keeps, sent=sent, without=without),
        owns_address=owns_address,
        delivered=(*DELIVERED, "v"),
        target=lambda trap: Target.GUEST if trap.vector.number in sent else Target.VMM,
        guests_own=("prv", *given),
        hypotheses=HYPOTHESES,
        without=again,
        guest_settings=own,
        source=source,
    )
