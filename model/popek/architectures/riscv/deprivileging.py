"""Trap and emulate in U: a kernel that was written for S, or firmware that was written for M.

Every register that has a say is the VMM's, and the status of floating point (FS) alone holds the guest's value.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from popek.kernel.outcome import Target
from popek.kernel.technique import Technique
from popek.kernel.words import FALSE, TRUE, Word, ite

from .access import NA4, NAPOT, OFF, TOR
from .arrangement import (
    DELIVERED,
    FLOATING,
    OWN_STORAGE,
    OWN_STORAGE_DENIED,
    PROTECTION,
    denies_own_storage,
    every_register,
    leaves_of,
    map_program,
    owns_address,
    same,
)
from .state import BARE, MACHINE, PMP_ENTRIES, SUPERVISOR, USER, XL_64, Rv64

HART: Final = ("features", "changeable", "misa")
"""What the guest's own hart has as the hardware has it."""
DELEGABLE: Final = (0, 2, 3, 8)
"""Exceptions of U that an operating system's firmware delegates to it, as far as they show here."""


def _map(guest: Rv64, private: Rv64) -> Rv64:
    """The guest in U, whatever its mode."""
    hardware = private.copy()
    map_program(hardware, guest, private)
    hardware.prv, hardware.v = Word(2, USER), FALSE
    for name in FLOATING:
        hardware[name] = guest[name]
    # U is as wide as the mode that it stands for.
    hardware.mstatus.uxl = ite(guest.prv == USER, guest.mstatus.uxl, Word(2, XL_64))
    return hardware


def _map_firmware(guest: Rv64, private: Rv64) -> Rv64:
    """As `_map`; while the firmware has MPRV on, it may fetch, and nothing is loaded or stored without the VMM."""
    hardware = _map(guest, private)
    acting = guest.mstatus.mprv
    denied = ite(acting, Word(2, NAPOT), Word(2, OFF))
    hardware.pmpcfg0.a0 = denied
    hardware.pmpcfg0.r0, hardware.pmpcfg0.w0, hardware.pmpcfg0.x0 = 0, 0, 1
    hardware.pmpaddr0 = ite(acting, ~Word(54, 0), private.pmpaddr0)
    return hardware


def _kernel(state: Rv64) -> Word:
    """A kernel in S and its users, without translation."""
    return ~state.v & ((state.prv == SUPERVISOR) | (state.prv == USER)) & (state.satp.mode == BARE)


def _firmware(state: Rv64) -> Word:
    """Firmware in M, whose entries of physical memory protection do not bind M.

    Locked ones do, and so does one that ends within a doubleword: a reference to both halves faults in M, too.
    """
    config = state.pmpcfg0
    locked = config.l0 | config.l1 | config.l2 | config.l3
    return (state.prv == MACHINE) & ~state.v & ~locked & in_doublewords(state)


def in_doublewords(state: Rv64) -> Word:
    """No entry of physical memory protection ends within a doubleword (width 1)."""
    result = TRUE
    for entry in range(PMP_ENTRIES):
        mode = state[f"pmpcfg0.a{entry}"]
        even = ~state[f"pmpaddr{entry}"][0]
        if entry:
            even = even & ~state[f"pmpaddr{entry - 1}"][0]
        result = result & (mode != NA4) & ((mode != TOR) | even)
    return result


def _keeps_kernel(guest: Rv64, private: Rv64, *, without: frozenset[str] = frozenset()) -> Word:
    """The same hart and the same protection, which denies the VMM's storage; MPRV is off."""
    equal = same(guest, private, (*HART, *PROTECTION))
    storage = TRUE if OWN_STORAGE in without else denies_own_storage(private)
    return equal & storage & ~private.mstatus.mprv


def _keeps_firmware(guest: Rv64, private: Rv64, *, delegated: bool = False) -> Word:
    """Everything but the VMM's storage is open; what U raises goes to M, or with `delegated` to the system in S."""
    config = private.pmpcfg0
    opened = (config.a2 == OFF) & (config.a3 == NAPOT) & config.r3 & config.w3 & config.x3
    everything = opened & (private.pmpaddr3 == ~Word(54, 0))
    taken = TRUE
    for code in DELEGABLE:
        there = ~private.misa.c if code == 0 else TRUE  # with C, no jump goes wrong
        taken = taken & (private.medeleg.value[code] == (there & int(delegated)))
    return (
        same(guest, private, HART) & denies_own_storage(private) & everything & taken & ~private.mstatus.mprv
    )


# Fields of CSRs that S and HS write, and that M writes besides: the VMM remembers the guest's, and has its own there.
OF_CSRS = ("HU", *(f"SCOUNTEREN_{counter}" for counter in ("CY", "TM", "IR", "HPM3")))
OF_FIRMWARE = (*OF_CSRS, "MPRV", *(f"MISA_{letter}" for letter in "ACDFMV"))


def _in_u(state: Rv64) -> Word:
    return (state.prv == USER) & ~state.v


def _kernel_in_u(without: frozenset[str] = frozenset()) -> Technique[Rv64]:
    owned = tuple(name for name in every_register() if name not in FLOATING)
    protection = leaves_of("misa", *PROTECTION)
    return Technique(
        "ring-deprivileging-u",
        "trap and emulate: a kernel written for S in U, beside its users",
        map=_map,
        owned=owned,
        replaced=tuple(name for name in owned if name not in protection),
        shadowed=(*owned, "prv", "v"),
        deprivileged=_in_u,
        guest=_kernel,
        private=partial(_keeps_kernel, without=without),
        owns_address=owns_address,
        delivered=DELIVERED,
        guests_own=FLOATING,
        hardware_settings=OF_CSRS,
        hypotheses=(OWN_STORAGE_DENIED,),
        without=_kernel_in_u,
        source="Popek and Goldberg 1974, section 4; RVirt (a monitor in S for kernels in U)",
    )


def deprivileging() -> dict[str, Technique[Rv64]]:
    """A kernel in U, firmware in U, and firmware in U while the system's delegation is on."""
    owned = tuple(name for name in every_register() if name not in FLOATING)
    protection = leaves_of("misa", *PROTECTION)
    kernel = _kernel_in_u()
    firmware = partial(
        Technique[Rv64],
        map=_map_firmware,
        owned=owned,
        replaced=tuple(name for name in owned if name not in protection),
        shadowed=(*owned, "prv", "v"),
        deprivileged=_in_u,
        guest=_firmware,
        owns_address=owns_address,
        delivered=DELIVERED,
        guests_own=FLOATING,
        hardware_settings=OF_FIRMWARE,
        source="Miralis (SOSP 2025): a virtual firmware monitor",
    )
    contained = firmware(
        "firmware-in-u", "firmware written for M in U, under a monitor in M", private=_keeps_firmware
    )
    delegated = firmware(
        "firmware-in-u-delegated",
        "firmware in U while medeleg still sends what U raises to the operating system in S",
        private=partial(_keeps_firmware, delegated=True),
        target=lambda trap: Target.GUEST if trap.vector.number in DELEGABLE else Target.VMM,
    )
    return {technique.name: technique for technique in (kernel, contained, delegated)}
