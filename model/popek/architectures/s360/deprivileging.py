"""Ring deprivileging as CP-67 and VM/370 do it: the whole guest in the problem state, under translation.

The VMM runs the guest with translation on, by shadow tables: what they yield is the guest's own
translation (or none), then the guest's prefix, then the place of the guest's storage, which lies in one
piece.  PSW key and storage keys are the guest's and are the real ones.  So are the monitor masks
and low-address protection, where the machine has them, so that MC and stores do what the guest expects;
everything else that decides what the hardware does is the VMM's.

`private.translation` of block 0 says where the guest's storage begins: it is the entry that the VMM would use
for a guest without translation.
"""

from __future__ import annotations

from functools import partial
from typing import Final, TypeVar

from popek.kernel.memory import Memory
from popek.kernel.state import Role, State
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import TRUE, Word, concat, ite

from .state import ADDRESS, BLOCK, ENTRY, GRANTED, OFFSET, OUTSIDE, Cpu

C = TypeVar("C", bound=Cpu)

SOURCE: Final = "Meyer and Seawright 1970 (CP-67); Creasy 1981 (VM/370); Popek and Goldberg 1974"


def _start(private: Cpu) -> Word:
    """The first block of the guest's storage."""
    return private.translation.load(Word(BLOCK, 0))[ADDRESS - 1 : OFFSET]


def _map(shared: tuple[str, ...], guest: C, private: C) -> C:
    hardware, start = private.copy(), _start(private)
    hardware.psw.problem = Word(1, 1)
    for name in ("cc", "program_mask", "address", "key"):
        hardware[f"psw.{name}"] = guest[f"psw.{name}"]
    for name in (*(f"gr{i}" for i in range(16)), "ilc", "executing", "target", *shared):
        hardware[name] = guest[name]
    inside, outside = guest.memory, private.memory
    guest_keys, other_keys = guest.keys, private.keys

    def byte(address: Word) -> Word:
        block = address[ADDRESS - 1 : OFFSET]
        there = concat(block - start, address.truncate(OFFSET))
        return ite(_inside(guest, private, block), inside.load(there), outside.load(address))

    def key(block: Word) -> Word:
        return ite(_inside(guest, private, block), guest_keys.load(block - start), other_keys.load(block))

    hardware.memory = Memory(ADDRESS, 8, byte)
    hardware.keys = Memory(BLOCK, 7, key)
    hardware.translation = Memory(BLOCK, ENTRY, partial(_shadow, guest, start))
    return hardware


def _shadow(guest: Cpu, start: Word, virtual: Word) -> Word:
    """What the VMM's tables yield for a block of the guest's addresses."""
    entry = guest.yielded(virtual)
    status, absolute = entry[ENTRY - 1 : ADDRESS], entry[ADDRESS - 1 : OFFSET]
    missing = (status == GRANTED) & (absolute > guest.last_block)
    # Where the guest is denied, the hardware is too, for the same reason; the VMM reflects it.
    return concat(ite(missing, Word(3, OUTSIDE), status), absolute + start, Word(OFFSET, 0))


def _inside(guest: Cpu, private: Cpu, block: Word) -> Word:
    """A block is the guest's; its storage may go round the end of the hardware's."""
    return block - _start(private) <= guest.last_block


def _owns(guest: C, private: C, address: Word) -> Word:
    return ~_inside(guest, private, address[ADDRESS - 1 : OFFSET])


def _promises(same: tuple[str, ...], guest: C, private: C) -> Word:
    """The VMM translates, is interruptible, and keeps the guest off page 0 and the prefix page.

    The hardware has all the storage that it can address: a block that is none would only trap more.
    """
    prefixed = concat(private.absolute_block(Word(BLOCK, 0))[BLOCK - 1 : 1], Word(1, 0))
    whole = private.last_block == (1 << BLOCK) - 1
    clear = whole
    for block in (Word(BLOCK, 0), Word(BLOCK, 1), prefixed, prefixed + 1):
        clear = clear & ~_inside(guest, private, block)
    psw = private.psw
    running = (private.extended == 1) & (psw.dat == 1) & (psw.io == 1) & (psw.external == 1) & (psw.wait == 0)
    total = clear & running
    for name in same:
        total = total & (guest[name] == private[name])
    return total


def _guest(state: Cpu) -> Word:
    """A guest that waits is not run."""
    return state.psw.wait == 0


def _leaves(state: type[State]) -> tuple[str, ...]:
    roles = (Role.RESOURCE, Role.TIME, Role.MODE)
    stored = tuple(slot.name for slot in state.layout if slot.address and slot.role is Role.RESOURCE)
    return (*(leaf.name for leaf in state.leaves if leaf.role in roles), *stored)


def techniques(
    state: type[C],
    *,
    shared: tuple[str, ...] = (),
    same: tuple[str, ...] = (),
    relocating: tuple[str, ...] = (),
) -> dict[str, Technique[C]]:
    """The one technique.

    Args:
        state: the machine's states.
        shared: leaves whose hardware value is the guest's.
        same: leaves that are how the machine was built, alike for guest and hardware.
        relocating: leaves that decide where the guest's storage is.
    """
    owned = _leaves(state)
    kept = ("psw.problem", "psw.key", "psw.dat", "translation", "keys", *shared, *relocating)
    plain: Technique[C] = Technique(
        "ring-deprivileging",
        "the whole guest in the problem state, under shadow tables (CP-67, VM/370)",
        map=partial(_map, shared),
        owned=owned,
        replaced=tuple(name for name in owned if name not in kept),
        shadowed=tuple(name for name in owned if name not in ("psw.key", "keys", *shared)),
        deprivileged=lambda state: state.psw.problem == 1,
        guest=_guest,
        private=partial(_promises, same),
        owns_address=_owns,
        entries=TRAPS_ONLY,
        guest_cell=lambda private, name, cell: cell + _start(private) if name == "keys" else cell,
        has_cell=lambda guest, name, cell: cell <= guest.last_block if name == "keys" else TRUE,
        guest_address=lambda private, address: concat(
            address[ADDRESS - 1 : OFFSET] + _start(private), address.truncate(OFFSET)
        ),
        source=SOURCE,
    )
    return {plain.name: plain}
