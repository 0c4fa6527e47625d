"""The paper's virtual machine map for its own machine: the guest runs in user mode, moved in storage."""

from __future__ import annotations

from popek.kernel.memory import Memory
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import Word, ite

from .state import Pg74

NEW_PSW = 1  # the location from which a trap loads the PSW


def _map(guest: Pg74, private: Pg74) -> Pg74:
    """Guest location a is real location private.base + a; R is composed with that move.

    `private.relocation.base` is where the guest's storage begins; `private` supplies the storage that is
    not the guest's.
    """
    hardware = private.copy()
    start = private.relocation.base
    hardware.mode = Word(1, 1)
    hardware.pc = guest.pc
    hardware.relocation.base = guest.relocation.base + start
    # A reference that runs off the guest's storage must trap: the bound is cut to what is left of it.
    wide = guest.last.width + 1
    beyond = guest.last.zero_extend(wide) + 1 - guest.relocation.base.zero_extend(wide)
    left = ite(guest.relocation.base <= guest.last, beyond, Word(wide, 0))
    cut = left < guest.relocation.bound.zero_extend(wide)
    hardware.relocation.bound = ite(cut, left.truncate(wide - 1), guest.relocation.bound)
    inside, outside = guest.memory, private.memory

    def view(address: Word) -> Word:
        offset = address - start
        return ite((address >= start) & (offset <= guest.last), inside.load(offset), outside.load(address))

    hardware.memory = Memory(outside.address_width, outside.cell_width, view)
    return hardware


def _owns(guest: Pg74, private: Pg74, address: Word) -> Word:
    start = private.relocation.base
    return ~((address >= start) & (address - start <= guest.last))


def leads_to_the_vmm(guest: Pg74, private: Pg74, location: int) -> Word:
    """The PSW in a location of the VMM's leads to supervisor mode, and to a location that is not the guest's."""
    entered = private.copy()
    entered.load_psw(private.memory.load(Word(private.memory.address_width, location)))
    return (entered.mode == 0) & _owns(guest, private, entered.next_instruction)


def _fits(guest: Pg74, private: Pg74) -> Word:
    """The guest's storage lies inside E, clear of the PSW locations 0 and 1; the straps are the machine's.

    A trap leads to the VMM.
    """
    wide = guest.last.width + 1
    end = private.relocation.base.zero_extend(wide) + guest.last.zero_extend(wide)
    inside = (private.relocation.base >= 2) & (end <= private.last.zero_extend(wide))
    return inside & leads_to_the_vmm(guest, private, NEW_PSW) & (guest.straps.value == private.straps.value)


def techniques() -> dict[str, Technique[Pg74]]:
    """Trap and emulate in user mode."""
    plain: Technique[Pg74] = Technique(
        "ring-deprivileging",
        "the whole guest in user mode, moved in storage (Popek and Goldberg's VM map)",
        map=_map,
        owned=("mode", "relocation.base", "relocation.bound"),
        shadowed=("mode", "relocation.base", "relocation.bound"),
        deprivileged=lambda state: state.mode == 1,
        private=_fits,
        owns_address=_owns,
        entries=TRAPS_ONLY,
        guest_address=lambda private, address: address + private.relocation.base,
        source="Popek and Goldberg 1974, section 4",
    )
    return {plain.name: plain}
