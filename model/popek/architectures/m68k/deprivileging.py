"""The virtual machine map for the 68000 and the 68010: the whole guest in user state, its storage moved."""

from __future__ import annotations

from popek.kernel.memory import Memory
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import Word, ite

from .state import BLOCK, CELL_ADDRESS, M68k, shifted

VECTORS, FRAME = 1024, 58
"""Bytes of the vector table, and of the longest frame."""
REGISTERS = ("pc", "sp", *(f"d{number}" for number in range(8)), *(f"a{number}" for number in range(7)))


def _map(guest: M68k, private: M68k) -> M68k:
    """Guest block b is real block start + b; the guest's relocation in use is composed with that.

    `private.base` is where the guest's storage begins.  T, the interrupt mask, the supervisor's stack pointer and
    relocation are the VMM's.
    """
    hardware = private.copy()
    for name in REGISTERS:
        hardware[name] = guest[name]
    hardware.ahead = guest.ahead
    hardware.sr = guest.sr.value
    hardware.sr.s, hardware.sr.t, hardware.sr.i = Word(1, 0), private.sr.t, private.sr.i
    hardware.base = guest.base + private.base
    # What lies beyond the guest's storage is cut off.
    left = guest.last.zero_extend(BLOCK + 1) + 1 - guest.base.zero_extend(BLOCK + 1)
    room = ite(guest.base > guest.last, Word(BLOCK + 1, 0), left)
    hardware.bound = ite(room < guest.bound, room, guest.bound)
    inside, outside, start = guest.memory, private.memory, private.base

    def view(cell: Word) -> Word:
        mine = _in_guest(guest, private, cell)
        return ite(mine, inside.load(shifted(cell, -start)), outside.load(cell))

    hardware.memory = Memory(CELL_ADDRESS, 16, view)
    return hardware


def _in_guest(guest: M68k, private: M68k, address: Word) -> Word:
    return address[22:8] - private.base <= guest.last


def _fits(guest: M68k, private: M68k) -> Word:
    """The guest's storage lies in the machine's, above what supervisor references of the hardware reach.

    Nothing of the guest's is written there, and traps go to the VMM.
    """
    wide = BLOCK + 2
    end = private.base.zero_extend(wide) + guest.last.zero_extend(wide)
    reached = private.other_base.zero_extend(wide) + private.other_bound.zero_extend(wide)
    same = private.m68010 == guest.m68010
    inside = (end <= private.last.zero_extend(wide)) & (reached <= private.base.zero_extend(wide))
    return same & inside & private.running & _can_be_entered(private)


def _can_be_entered(private: M68k) -> Word:
    """The VMM's vectors and the top of its stack are in reach, and apart: no frame is written over a vector."""
    vectors, stack, bound = private.vbr, private.other_sp, private.other_bound.zero_extend(33) << 9
    far, top = vectors.zero_extend(33) + VECTORS, stack.zero_extend(33)
    even = ~vectors[0] & ~stack[0]
    apart = (stack >= far[31:0] + FRAME) | (stack <= vectors)
    return even & apart & (far <= bound) & (top <= bound) & (stack >= FRAME)


def techniques() -> dict[str, Technique[M68k]]:
    """Trap and emulate in user state."""
    owned = (
        "sr.s", "sr.t", "sr.i", "other_sp", "vbr", "sfc", "dfc", "running", "base", "bound", "other_base",
        "other_bound",
    )  # fmt: skip
    moved = ("sr.s", "base", "bound", "running")
    plain: Technique[M68k] = Technique(
        "ring-deprivileging",
        "the whole guest in user state, its storage moved (Popek and Goldberg's VM map)",
        map=_map,
        owned=owned,
        replaced=tuple(name for name in owned if name not in moved),
        shadowed=owned,
        delivered=("other_sp", "other_base", "other_bound"),  # the exchange with what was the guest's
        deprivileged=lambda state: state.sr.s == 0,
        guest=lambda state: state.running,
        private=_fits,
        owns_address=lambda guest, private, address: ~_in_guest(guest, private, address),
        entries=TRAPS_ONLY,
        guest_address=lambda private, cell: shifted(cell, private.base),
        source="Popek and Goldberg 1974, section 4",
    )
    return {plain.name: plain}
