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

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import attrs

from popek.kernel.memory import Memory
from popek.kernel.state import Role, State
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import TRUE, Word, concat, ite

from .state import ADDRESS, BLOCK, ENTRY, GRANTED, OFFSET, OUTSIDE, Cpu

C = TypeVar("C", bound=Cpu)

SOURCE: Final = "Meyer and Seawright 1970 (CP-67); Creasy 1981 (VM/370); Popek and Goldberg 1974"


@attrs.frozen
class Placement:
    """Where the VMM has the blocks of a guest's storage.

    Attributes:
        name, title: of the technique.
        there: `there(private, block)`: the hardware's block for a guest's.
        back: `back(private, block)`: the guest's block for one of the hardware's that is its own.
        inside: `inside(guest, private, block)`: a block of the hardware's is the guest's (width 1).
        possible: `possible(guest, private)`: such a guest can be placed so (width 1).
    """

    name: str
    title: str
    there: Callable[[Cpu, Word], Word]
    back: Callable[[Cpu, Word], Word]
    inside: Callable[[Cpu, Cpu, Word], Word]
    possible: Callable[[Cpu, Cpu], Word] = lambda guest, private: TRUE


def _start(private: Cpu) -> Word:
    """The first block of the guest's storage."""
    return private.translation.load(Word(BLOCK, 0))[ADDRESS - 1 : OFFSET]


def _map(shared: tuple[str, ...], placed: Placement, guest: C, private: C) -> C:
    hardware = private.copy()
    hardware.psw.problem = Word(1, 1)
    for name in ("cc", "program_mask", "address", "key"):
        hardware[f"psw.{name}"] = guest[f"psw.{name}"]
    for name in (*(f"gr{i}" for i in range(16)), "ilc", "executing", "target", *shared):
        hardware[name] = guest[name]
    inside, outside = guest.memory, private.memory
    guest_keys, other_keys = guest.keys, private.keys

    def byte(address: Word) -> Word:
        block = address[ADDRESS - 1 : OFFSET]
        there = concat(placed.back(private, block), address.truncate(OFFSET))
        return ite(placed.inside(guest, private, block), inside.load(there), outside.load(address))

    def key(block: Word) -> Word:
        mine = guest_keys.load(placed.back(private, block))
        return ite(placed.inside(guest, private, block), mine, other_keys.load(block))

    hardware.memory = Memory(ADDRESS, 8, byte)
    hardware.keys = Memory(BLOCK, 7, key)
    hardware.translation = Memory(BLOCK, ENTRY, partial(_shadow, placed, guest, private))
    return hardware


def _shadow(placed: Placement, guest: Cpu, private: Cpu, virtual: Word) -> Word:
    """What the VMM's tables yield for a block of the guest's addresses."""
    entry = guest.yielded(virtual)
    status, absolute = entry[ENTRY - 1 : ADDRESS], entry[ADDRESS - 1 : OFFSET]
    missing = (status == GRANTED) & (absolute > guest.last_block)
    # Where the guest is denied, the hardware is too, for the same reason; the VMM reflects it.
    there = placed.there(private, absolute)
    return concat(ite(missing, Word(3, OUTSIDE), status), there, Word(OFFSET, 0))


def _inside(guest: Cpu, private: Cpu, block: Word) -> Word:
    """A block is the guest's; its storage may go round the end of the hardware's."""
    return block - _start(private) <= guest.last_block


IN_ONE_PIECE = Placement(
    "ring-deprivileging",
    "the whole guest in the problem state, under shadow tables (CP-67, VM/370)",
    there=lambda private, block: block + _start(private),
    back=lambda private, block: block - _start(private),
    inside=_inside,
)


def _page_0(private: Cpu, block: Word) -> Word:
    """A block of the hardware's is one of the guest's page 0 (width 1)."""
    return block - _start(private) <= 1


def _exchanged(private: Cpu, block: Word) -> Word:
    """Page 0 and the page where the guest's page 0 is are exchanged; all others stay."""
    start = _start(private)
    return ite(block <= 1, block + start, ite(_page_0(private, block), block - start, block))


VIRTUAL_REAL = Placement(
    "virtual-real",
    "the whole guest in the problem state, at the hardware's own addresses, but for page 0 (VM/370's virtual = real)",
    there=_exchanged,
    back=_exchanged,
    inside=lambda guest, private, block: (
        _page_0(private, block) | ((block > 1) & (block <= guest.last_block))
    ),
    possible=lambda guest, private: (
        (guest.last_block >= 1) & (_start(private) > guest.last_block) & ~_start(private)[0]
    ),
)
"""Page 0 of the hardware is what interrupts use; the guest's is behind the guest's last block."""


def _owns(placed: Placement, guest: C, private: C, address: Word) -> Word:
    return ~placed.inside(guest, private, address[ADDRESS - 1 : OFFSET])


def _promises(same: tuple[str, ...], placed: Placement, guest: C, private: C) -> Word:
    """The VMM translates, is interruptible, and keeps the guest off page 0 and the prefix page.

    The hardware has all the storage that it can address: a block that is none would only trap more.
    """
    prefixed = concat(private.absolute_block(Word(BLOCK, 0))[BLOCK - 1 : 1], Word(1, 0))
    whole = private.last_block == (1 << BLOCK) - 1
    clear = whole
    for block in (Word(BLOCK, 0), Word(BLOCK, 1), prefixed, prefixed + 1):
        clear = clear & ~placed.inside(guest, private, block)
    psw = private.psw
    running = (private.extended == 1) & (psw.dat == 1) & (psw.io == 1) & (psw.external == 1) & (psw.wait == 0)
    total = clear & running & placed.possible(guest, private)
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
    placed: Placement = IN_ONE_PIECE,
) -> dict[str, Technique[C]]:
    """The one technique.

    Args:
        state: the machine's states.
        shared: leaves whose hardware value is the guest's.
        same: leaves that are how the machine was built, alike for guest and hardware.
        relocating: leaves that decide where the guest's storage is.
        placed: where it is.
    """
    owned = _leaves(state)
    kept = ("psw.problem", "psw.key", "psw.dat", "translation", "keys", *shared, *relocating)
    plain: Technique[C] = Technique(
        placed.name,
        placed.title,
        map=partial(_map, shared, placed),
        owned=owned,
        replaced=tuple(name for name in owned if name not in kept),
        shadowed=tuple(name for name in owned if name not in ("psw.key", "keys", *shared)),
        deprivileged=lambda state: state.psw.problem == 1,
        guest=_guest,
        private=partial(_promises, same, placed),
        owns_address=partial(_owns, placed),
        entries=TRAPS_ONLY,
        guest_cell=lambda private, name, cell: placed.there(private, cell) if name == "keys" else cell,
        has_cell=lambda guest, name, cell: cell <= guest.last_block if name == "keys" else TRUE,
        guest_address=lambda private, address: concat(
            placed.there(private, address[ADDRESS - 1 : OFFSET]), address.truncate(OFFSET)
        ),
        source=SOURCE,
    )
    return {plain.name: plain}
