"""Ring deprivileging of Itanium: the guest's kernel at privilege level 1, 2 or 3.

The VMM owns the PSR bits that Xen keeps to itself (ic i dt si rt mc it bn pp), every control register
and register file, the kernel registers, the clocks and the translations.  It runs the guest with
translation on: the translations are the guest's with privilege levels compressed, or the identity while
the guest has PSR.dt = 0.  The other PSR bits hold the guest's values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from popek.kernel.memory import Memory
from popek.kernel.state import Role
from popek.kernel.technique import Technique
from popek.kernel.words import FALSE, TRUE, Word, all_of, concat, ite

from .access import PAGE_BITS, PHYSICAL_BITS, code_page, promotes

if TYPE_CHECKING:
    from .state import Ia64

SOURCE: Final = "Magenheimer and Christian 2004 (vBlades); Xen 4.1.0, arch/ia64; privify.c"

# PSR bits that the VMM keeps to itself (Xen 4.1.0, vmx_vcpu.c), and of those the ones whose value shows
# nowhere: translation and the bank are arranged so that the guest finds what it expects.
OWN_PSR: Final = ("ic", "i", "dt", "si", "rt", "mc", "it", "bn", "pp")
OWN_VALUE_PSR: Final = ("ic", "i", "si", "mc", "pp")
VPD_STORAGE: Final = ("vcr", "vgr", "vnat", "vcpuid")
BANK_0: Final = ("bank0", "bank0_nat")  # the VMM's while the machine selects bank 1
FILES: Final = ("rr", "pkr", "ibr", "dbr", "pmc", "pmd", "cpuid", "msr")
INTERRUPTION_REGISTERS: Final = tuple(
    f"cr.{name}" for name in ("ipsr", "isr", "iip", "ifa", "itir", "iipa", "ifs", "iim", "iha")
)
CLOCKS: Final = ("ar.itc", "ar.ruc")


def control_leaves() -> tuple[str, ...]:
    """Every control register, and the interrupt in service."""
    return (*_of_group("cr"), "in_service")


def _of_group(group: str) -> tuple[str, ...]:
    """The leaves of a group, by the names that the state gives them."""
    from .state import Ia64

    return tuple(leaf.name for leaf in Ia64.leaves if leaf.name.startswith(f"{group}."))


def general_words() -> tuple[str, ...]:
    """Word components that are the program's own whatever the technique."""
    from .state import Ia64

    kept = (Role.GENERAL, Role.PC)
    components = {leaf.component for leaf in Ia64.leaves if leaf.role in kept}
    return tuple(s.name for s in Ia64.layout if s.name in components and not s.address and s.name != "psr")


def map_program(hardware: Ia64, guest: Ia64, private: Ia64) -> None:
    """What both techniques give the guest as it is: registers, frame, PSR bits, storage."""
    for name in (*general_words(), "bof"):
        hardware[name] = guest[name]
    psr = guest.psr.value
    for name in OWN_PSR:
        place = guest.leaf(f"psr.{name}")
        psr = psr.replace(place.high, place.low, private[place.name])
    hardware.psr = psr
    hardware.gr = _active(guest, guest.gr, guest.bank0)
    hardware.nat = _active(guest, guest.nat, guest.bank0_nat)
    hardware.br, hardware.fr = guest.br, guest.fr
    hardware.memory, hardware.dirty = guest.memory, guest.dirty


def _active(guest: Ia64, usual: Memory, bank0: Memory) -> Memory:
    """The register file: GR16-31 of bank 1, which the machine selects, are the guest's active ones."""

    def cell(number: Word) -> Word:
        other = (number[6:4] == 1) & (guest.psr.bn == 0)
        return ite(other, bank0.load(number), usual.load(number))

    return Memory(usual.address_width, usual.cell_width, cell)


def map_translations(guest: Ia64, level: Callable[[Word], Word]) -> Memory:
    """The guest's translations, or the identity at every level while its PSR.dt is 0."""

    def cell(page: Word) -> Word:
        entry = guest.translations.load(page)
        compressed = entry.replace(8, 7, level(entry[8:7]))
        # privilege level 3, read-write-execute, physical page = virtual page, where there is such a page
        exists = page[PHYSICAL_BITS : PHYSICAL_BITS - PAGE_BITS] == 0
        identity = concat(Word(38, 0), page[37:0], Word(11, 0b011_1100_0000), exists)
        return ite(guest.psr.dt, compressed, identity)

    return Memory(52, 88, cell)


def promises(guest: Ia64, private: Ia64) -> Word:
    """What the VMM sees to while the guest runs: translation on, collection on, bank 1, no machine check."""
    psr = private.psr
    state = (psr.dt == 1, psr.it == 1, psr.rt == 1, psr.ic == 1, psr.i == 1, psr.bn == 1, psr.mc == 0)
    readings = _of_group("assume")
    return all_of((*state, *(guest[name] == private[name] for name in readings)))


def orderly(guest: Ia64) -> Word:
    """Above CPL 0 the guest runs with translation and interruption collection on (width 1)."""
    psr = guest.psr
    return (psr.cpl == 0) | ((psr.ic == 1) & (psr.dt == 1) & (psr.it == 1) & (psr.rt == 1))


def _map(level: int, guest: Ia64, private: Ia64) -> Ia64:
    hardware = private.copy()

    def compress(value: Word) -> Word:
        return ite(value < level, Word(2, level), value)

    map_program(hardware, guest, private)
    hardware.psr.cpl, hardware.psr.vm = compress(guest.psr.cpl), 0
    hardware.ar.pfs.ppl = compress(guest.ar.pfs.ppl)
    hardware.ar.rsc.pl = compress(guest.ar.rsc.pl)
    hardware.translations = map_translations(guest, compress)
    return hardware


def techniques() -> dict[str, Technique[Ia64]]:
    """One technique per level of the guest's kernel."""
    kept = (
        *(f"psr.{name}" for name in OWN_PSR), "psr.vm", *control_leaves(), *CLOCKS, "kr", *FILES,
        "translations", "tc_purged",
    )  # fmt: skip
    replaced = (
        # The levels kept in PFS and RSC are real ones, not those the guest believes in.
        *(f"psr.{name}" for name in OWN_VALUE_PSR), "ar.rsc.pl", "ar.pfs.ppl", *control_leaves(), *CLOCKS,
        "kr", *FILES,
    )  # fmt: skip
    found: dict[str, Technique[Ia64]] = {}
    for level in (1, 2, 3):
        name = f"ring-deprivileging-pl{level}"
        found[name] = Technique(
            name,
            f"ring deprivileging, the guest's kernel at privilege level {level}",
            map=partial(_map, level),
            owned=(*kept, *BANK_0, *VPD_STORAGE),
            replaced=replaced,
            # The level shows in the real one, but where the kernel shares its users'.
            shadowed=(*kept, "psr.cpl") if level == 3 else kept,
            delivered=INTERRUPTION_REGISTERS,
            deprivileged=partial(_at_level, level),
            guest=_guest,
            private=_same_processor,
            has_cell=_has_cell,
            entries=_promoted,
            source=SOURCE,
        )
    return found


def _guest(state: Ia64) -> Word:
    """A guest that uses levels 0 and 3."""
    return (state.psr.vm == 0) & ((state.psr.cpl == 0) | (state.psr.cpl == 3)) & orderly(state)


def _has_cell(guest: Ia64, name: str, cell: Word) -> Word:
    """A guest has no virtual processor's descriptor of its own."""
    return FALSE if name in VPD_STORAGE else TRUE


def _same_processor(guest: Ia64, private: Ia64) -> Word:
    """What the VMM sees to; and the guest's processor implements what the real one does."""
    same = all_of(guest[name] == private[name] for name in _of_group("features"))
    return promises(guest, private) & same


def _promoted(before: Ia64, after: Ia64) -> Word:
    """At the level that a page for promotion raises to: the translations are the VMM's (epc)."""
    level, page = after.psr.cpl, code_page(before)
    return (level < before.psr.cpl) & ite(before.psr.it, promotes(before) & (level == page.pl), level == 0)


def _at_level(level: int, state: Ia64) -> Word:
    return (state.psr.cpl == level) & (state.psr.vm == 0)
