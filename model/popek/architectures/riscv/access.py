"""Loads and stores: whose they are, alignment, protection (privileged manual, "Physical Memory Protection")."""

from __future__ import annotations

from typing import Final

import attrs

from popek.kernel.outcome import MemoryFault, NotModelledError
from popek.kernel.words import FALSE, TRUE, Word, all_of, concat, ite

from . import exceptions
from .references import Actor, ReferenceKind
from .state import BARE, MACHINE, PHYSICAL, PMP_ENTRIES, XL_32, XLEN, Rv64

OFF, TOR, NA4, NAPOT = 0, 1, 2, 3


LOAD: Final = ReferenceKind(
    exceptions.LOAD_MISALIGNED, exceptions.LOAD_ACCESS, exceptions.LOAD_PAGE, exceptions.LOAD_GUEST_PAGE, "r"
)
STORE: Final = ReferenceKind(
    exceptions.STORE_MISALIGNED,
    exceptions.STORE_ACCESS,
    exceptions.STORE_PAGE,
    exceptions.STORE_GUEST_PAGE,
    "w",
)
GUEST_LOAD: Final = ReferenceKind(
    exceptions.GUEST_LOAD_MISALIGNED,
    exceptions.GUEST_LOAD_ACCESS,
    exceptions.GUEST_LOAD_PAGE,
    exceptions.LOAD_GUEST_PAGE,
    "r",
)
GUEST_EXECUTABLE: Final = attrs.evolve(GUEST_LOAD, rights="rx")
GUEST_STORE: Final = ReferenceKind(
    exceptions.GUEST_STORE_MISALIGNED,
    exceptions.GUEST_STORE_ACCESS,
    exceptions.GUEST_STORE_PAGE,
    exceptions.STORE_GUEST_PAGE,
    "w",
)


def itself(cpu: Rv64) -> Actor:
    """The current mode, or with MPRV, which only M can have on, the mode that M came from.

    Raises:
        NotModelledError: that mode is S or VS with 32 bits.
    """
    modified = cpu.mstatus.mprv
    if cpu.features.sxl32 & modified & (cpu.mstatus.mpp != MACHINE):
        narrow = (cpu.mstatus.sxl == XL_32) | (cpu.mstatus.mpv & (cpu.hstatus.vsxl == XL_32))
        if narrow:
            raise NotModelledError("S and VS of 32 bits")
    prv = ite(modified, cpu.mstatus.mpp, cpu.prv)
    v = ite(modified, cpu.mstatus.mpv & (cpu.mstatus.mpp != MACHINE), cpu.v)
    return Actor(prv, v)


def the_guest(cpu: Rv64) -> Actor:
    """For HLV and HSV: VS or VU as hstatus.SPVP says, whatever MPRV.

    Raises:
        NotModelledError: VS has 32 bits.
    """
    if cpu.features.sxl32 & (cpu.hstatus.vsxl == XL_32):
        raise NotModelledError("S and VS of 32 bits")
    return Actor(cpu.hstatus.spvp.zero_extend(2), TRUE)


def load(cpu: Rv64, address: Word, size: int, actor: Actor | None = None, kind: ReferenceKind = LOAD) -> Word:
    """`size` bytes, little-endian."""
    place = physical(cpu, address, size, actor or itself(cpu), kind)
    return read(cpu, place, size)


def store(
    cpu: Rv64, address: Word, value: Word, actor: Actor | None = None, kind: ReferenceKind = STORE
) -> None:
    """A word of 8 to 64 bits, little-endian."""
    place = physical(cpu, address, value.width // 8, actor or itself(cpu), kind)
    write(cpu, place, value)


def read(cpu: Rv64, place: Word, size: int) -> Word:
    """`size` bytes at an aligned physical address."""
    cell = cpu.memory.load(place[PHYSICAL - 1 : 3])
    return cell if size == 8 else (cell >> _shift(place)).truncate(8 * size)


def write(cpu: Rv64, place: Word, value: Word) -> None:
    """Bytes at an aligned physical address := value."""
    where = place[PHYSICAL - 1 : 3]
    if value.width < XLEN:
        shift = _shift(place)
        mask = Word(XLEN, (1 << value.width) - 1) << shift
        value = (cpu.memory.load(where) & ~mask) | (value.zero_extend(XLEN) << shift)
    cpu.memory = cpu.memory.store(where, value)


def _shift(place: Word) -> Word:
    """Where in its doubleword an address is, in bits."""
    return concat(place[2:0], Word(3, 0)).zero_extend(XLEN)


def physical(cpu: Rv64, address: Word, size: int, actor: Actor, kind: ReferenceKind) -> Word:
    """The physical address of an access.

    Raises:
        MemoryFault: misaligned, which comes first on a hart that never does it; access fault where physical
            memory protection denies it.
        NotModelledError: through page tables.
    """
    if size > 1 and address[size.bit_length() - 2 : 0] != 0:
        raise MemoryFault(kind.misaligned, address)
    translated = ite(
        actor.v,
        (cpu.vsatp.mode != BARE) | (cpu.hgatp.mode != BARE),
        (cpu.satp.mode != BARE) & (actor.prv != MACHINE),
    )
    outside = FALSE
    if translated:
        place = cpu.walk(address, actor, kind)
    else:
        place = address.truncate(PHYSICAL)
        outside = address[XLEN - 1 : PHYSICAL] != 0
    if outside | ~permitted(cpu, place, size, actor.prv, kind.rights):
        raise MemoryFault(kind.access, address)
    return place


def permitted(cpu: Rv64, place: Word, size: int, prv: Word, rights: str) -> Word:
    """Physical memory protection: the first entry that matches any byte decides, and must match them all.

    M is bound by locked entries alone; the others need an entry that matches.
    """
    first = place[PHYSICAL - 1 : 2]
    blocks = [first, first | 1] if size == 8 else [first]
    allowed = prv == MACHINE
    for entry in reversed(range(PMP_ENTRIES)):
        matches = [_matches(cpu, entry, block) for block in blocks]
        some, every = FALSE, TRUE
        for match in matches:
            some, every = some | match, every & match
        unbound = (prv == MACHINE) & ~cpu[f"pmpcfg0.l{entry}"]
        given = all_of(cpu[f"pmpcfg0.{right}{entry}"] for right in rights)
        allowed = ite(some, every & (unbound | given), allowed)
    return allowed


def _matches(cpu: Rv64, entry: int, block: Word) -> Word:
    """Whether an entry matches a block of four bytes (54 bits of address)."""
    mode, top = cpu[f"pmpcfg0.a{entry}"], cpu[f"pmpaddr{entry}"]
    bottom = cpu[f"pmpaddr{entry - 1}"] if entry else Word(54, 0)
    size = top ^ (top + 1)  # ones below and at the lowest zero
    range_ = (bottom <= block) & (block < top)
    power = ((block ^ top) & ~size) == 0
    return ite(mode == TOR, range_, ite(mode == NA4, block == top, ite(mode == NAPOT, power, FALSE)))
