"""VT-i as a technique: the guest runs at its own privilege levels with PSR.vm = 1.

The guest's kernel is at CPL 0, so the user mode of Theorem 1 is PSR.vm = 1 with CPL 0, and its twin
differs in PSR.vm alone.  An intercept is a Virtualization fault.  Three cases do not fit the paper's
notion of a trap, nor this map, and are decided in `arrangement`: an acceleration runs a sensitive instruction
on the VPD without any trap, so that it is critical and yet faithful; vmsw.0 with d_vmsw = 0 reaches
PSR.vm = 0 without one, and not in the VMM's code; and after an accelerated bsw one half of vgr and vbgr
holds what no map of the guest's state can say.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Final

from popek.kernel.memory import Memory
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import Word, ite

from ..deprivileging import (
    BANK_0,
    CLOCKS,
    FILES,
    OWN_PSR,
    OWN_VALUE_PSR,
    control_leaves,
    map_program,
    map_translations,
    orderly,
    promises,
)

if TYPE_CHECKING:
    from ..state import Ia64

SOURCE: Final = "Intel Itanium SDM rev. 2.3, vol. 2, chapter 11; Uhlig et al. 2005; Xen 4.1.0, vmx"

# Registers that a VMM switches with the virtual processor, or mirrors, rather than keeps for itself.
SWITCHED: Final = ("kr", "cr.dcr", "pmc", "pmd")

# The guest runs at its own levels, and its programs write back lines of its own storage.
GUESTS_OWN: Final = ("psr.cpl", "dirty")


def virtual_machine(
    guest: Ia64, private: Ia64, given: Collection[str] = (), idle: Ia64 | None = None
) -> Ia64:
    """The hardware state in which the guest that believes in `guest` runs.

    Args:
        given: the components that the VMM leaves to the guest: they hold its values.
        idle: where the parts of the VPD that hold nothing of the guest come from; zero by default.
    """
    from ..state import CR_NUMBERS, PSR_WIDTH, VIRTUAL_BITS

    hardware = private.copy()
    map_program(hardware, guest, private)
    hardware.psr.vm = 1
    hardware.translations = map_translations(guest, lambda level: level)
    hardware.vpsr = guest.psr.value & Word(PSR_WIDTH, VIRTUAL_BITS)
    stored = {
        number: guest[f"cr.{name}"]
        for name, number in CR_NUMBERS.items()
        if name != "eoi" and f"cr.{name}" not in given
    }

    def control(number: Word) -> Word:
        value = Word(64, 0) if idle is None else idle.vcr.load(number)
        for known, register in stored.items():
            value = ite(number == known, register, value)
        return value

    hardware.vcr = Memory(7, 64, control)
    hardware.vcpuid = Memory(3, 64, lambda number: guest.cpuid.load(number.zero_extend(8)))
    hardware.vgr = _inactive(guest, guest.gr, guest.bank0, None if idle is None else idle.vgr)
    hardware.vnat = _inactive(guest, guest.nat, guest.bank0_nat, None if idle is None else idle.vnat)
    for name in given:
        if name in guest.memories():
            setattr(hardware, name, guest.memories()[name])
        else:
            hardware[name] = guest[name]
    return hardware


def _inactive(guest: Ia64, usual: Memory, bank0: Memory, idle: Memory | None) -> Memory:
    """vgr holds bank 1 while bank 0 is active, vbgr (from 16) bank 0 while bank 1 is; the other is idle."""

    def cell(address: Word) -> Word:
        in_vgr, in_vbgr = address[6:4] == 0, address[6:4] == 1
        nothing = Word(usual.cell_width, 0) if idle is None else idle.load(address)
        value = ite(in_vgr & (guest.psr.bn == 0), usual.load(address + 16), nothing)
        return ite(in_vbgr & (guest.psr.bn == 1), bank0.load(address), value)

    return Memory(usual.address_width, usual.cell_width, cell)


def _guest(state: Ia64) -> Word:
    """A guest without VT-i of its own, that is told of one address bit less and of five CPUID registers."""
    told = (state.features.vm == 0) & (state.features.narrow == 1)
    small = state.cpuid.load(Word(8, 3))[7:0] <= 4
    return (state.psr.vm == 0) & told & small & orderly(state)


def kernel(state: Ia64) -> Word:
    """PSR.vm = 1 and CPL 0 (width 1)."""
    return (state.psr.vm == 1) & (state.psr.cpl == 0)


def techniques() -> dict[str, Technique[Ia64]]:
    """VT-i with every register file the VMM's own, and with those of `SWITCHED` the guest's."""
    registers = ("kr", *control_leaves(), *CLOCKS, *FILES)
    owned = (
        *(f"psr.{name}" for name in OWN_PSR), "psr.vm", *registers, "translations", "tc_purged", *BANK_0,
    )  # fmt: skip
    # PSR bits, control registers and CPUID have their place in the VPD.
    kept = (
        "kr",
        "in_service",
        *CLOCKS,
        *(name for name in FILES if name != "cpuid"),
        "translations",
        "tc_purged",
    )
    replaced = (*(f"psr.{name}" for name in OWN_VALUE_PSR), *registers)
    plain: Technique[Ia64] = Technique(
        "vt-i",
        "VT-i: PSR.vm = 1 at the guest's own levels; registers that do not trap hold the VMM's values",
        map=virtual_machine,
        owned=owned,
        replaced=replaced,
        shadowed=kept,
        deprivileged=kernel,
        guest=_guest,
        private=promises,
        entries=TRAPS_ONLY,  # leaving PSR.vm = 1 without an interruption is an escape
        guests_own=GUESTS_OWN,
        guest_settings={"VT_I": 0, "NARROW": 1},  # its own machine has no VT-i, and one address bit less
        source=SOURCE,
    )
    switched: Technique[Ia64] = Technique(
        "vt-i-switched",
        "VT-i, the VMM switching kernel registers and counters with the guest and mirroring DCR",
        map=partial(virtual_machine, given=SWITCHED),
        owned=tuple(name for name in owned if name not in SWITCHED),
        replaced=tuple(name for name in replaced if name not in SWITCHED),
        shadowed=tuple(name for name in kept if name not in SWITCHED),
        deprivileged=kernel,
        guest=_guest,
        private=promises,
        entries=TRAPS_ONLY,  # leaving PSR.vm = 1 without an interruption is an escape
        guests_own=(*GUESTS_OWN, *SWITCHED),
        guest_settings={"VT_I": 0, "NARROW": 1},  # its own machine has no VT-i, and one address bit less
        source=SOURCE,
    )
    return {plain.name: plain, switched.name: switched}
