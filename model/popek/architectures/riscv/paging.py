"""Sv39 and Sv39x4: walks of page tables (privileged manual, "Virtual Address Translation Process", "Two-Stage Address
Translation").

Of a guest's two stages either may be off.  What the second one finds is one word of conditions, not a way for every
entry: the entries of the first stage are read through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from popek.kernel.outcome import MemoryFault, NotModelledError
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .access import permitted, read
from .references import Actor, ReferenceKind
from .state import BARE, PHYSICAL, SUPERVISOR, SV39, USER, XLEN, Rv64

if TYPE_CHECKING:
    from popek.kernel.state import Register

V, R, W, X, U, A, D = 0, 1, 2, 3, 4, 6, 7
LEVELS: Final = 3
PPN: Final = 44
GUEST_PHYSICAL: Final = 41
"""Sv39x4 takes two bits more than Sv39: its root is four pages."""
READ_OF_A_TABLE: Final = 0x3000
"""xtinst where the second stage refuses an entry of the first, 64 bits of which are read."""


def walk(cpu: Rv64, address: Word, actor: Actor, kind: ReferenceKind) -> Word:
    """The physical address (56 bits) of a virtual one.

    Accessed and dirty bits are not set: a reference that needs one set faults (Svade).

    Raises:
        MemoryFault: page fault; guest-page fault; access fault where protection denies an entry of the tables.
        NotModelledError: other modes than Sv39 and Sv39x4.
    """
    guest = actor.v
    table: Register = cpu.vsatp if guest else cpu.satp
    second = guest & (cpu.hgatp.mode != BARE)
    if second & (cpu.hgatp.mode != SV39):
        raise NotModelledError("Sv48x4 and Sv57x4")
    if table.value[63:60] == BARE:
        return _second_stage(cpu, address, address, kind)
    if table.value[63:60] != SV39:
        raise NotModelledError("Sv48 and Sv57")
    if address[XLEN - 1 : 38] + 1 > 1:  # bits 63 to 39 are copies of bit 38
        raise MemoryFault(kind.page, address)
    base = table.value[PPN - 1 : 0]
    for level in reversed(range(LEVELS)):
        low = 12 + 9 * level
        place = concat(base, address[low + 8 : low], Word(3, 0))
        if second:
            place = _second_stage(cpu, place.zero_extend(XLEN), address, kind, of_a_table=True)
        if ~permitted(cpu, place, 8, Word(2, SUPERVISOR), "r"):
            raise MemoryFault(kind.access, address)
        entry = PageTableEntry(read(cpu, place, 8), level)
        if entry.invalid:
            raise MemoryFault(kind.page, address)
        base = entry.ppn
        if not level or ~entry.pointer:
            if ~_allows(cpu, entry, actor, kind) | ~entry.aligned:
                raise MemoryFault(kind.page, address)
            found = entry.page(address)
            return _second_stage(cpu, found.zero_extend(XLEN), address, kind) if second else found
    raise AssertionError("the last level has no pointers")


@attrs.frozen
class PageTableEntry:
    """An entry of a page table (64 bits), and its level: 0 has no pointers."""

    value: Word
    level: int

    def __getitem__(self, bit: int) -> Word:
        return self.value[bit]

    @property
    def pointer(self) -> Word:
        """It leads to another table (width 1)."""
        return ~self[R] & ~self[W] & ~self[X]

    @property
    def invalid(self) -> Word:
        """No entry at all, or reserved (width 1)."""
        wrong = ~self[V] | (self.value[63:54] != 0) | (self[W] & ~self[R])
        return wrong | (self.pointer & (self[U] | self[A] | self[D] if self.level else TRUE))

    @property
    def ppn(self) -> Word:
        """The page or the table (44 bits)."""
        return self.value[53:10]

    @property
    def aligned(self) -> Word:
        """A superpage begins at a multiple of its size (width 1)."""
        return self.ppn[9 * self.level - 1 : 0] == 0 if self.level else TRUE

    def page(self, address: Word) -> Word:
        """The physical address (56 bits) of one in the page."""
        return concat(self.ppn[PPN - 1 : 9 * self.level], address[11 + 9 * self.level : 0])


def _allows(cpu: Rv64, entry: PageTableEntry, actor: Actor, kind: ReferenceKind) -> Word:
    """Whether a leaf lets an actor do something, its accessed and dirty bits included (width 1)."""
    # A guest's SUM is its own; MXR of either makes its executable pages readable.
    sum_ = ite(actor.v, cpu.vsstatus.sum, cpu.mstatus.sum)
    mxr = cpu.mstatus.mxr | (actor.v & cpu.vsstatus.mxr)
    whose = ite(actor.prv == USER, entry[U], ~entry[U] | sum_)
    return whose & _rights(entry, kind.rights, mxr)


def _rights(entry: PageTableEntry, rights: str, mxr: Word) -> Word:
    if "w" in rights:
        return entry[W] & entry[A] & entry[D]
    readable = entry[X] if "x" in rights else entry[R] | (mxr & entry[X])
    return readable & entry[A]


def _second_stage(
    cpu: Rv64, place: Word, address: Word, kind: ReferenceKind, *, of_a_table: bool = False
) -> Word:
    """The physical address (56 bits) of a guest-physical one (64 bits), for the reference to `address`.

    Every reference counts as one of U; entries of the first stage are read, and MXR has no say then.

    Raises:
        MemoryFault: guest-page fault with the guest-physical address; access fault.
    """
    rights = "r" if of_a_table else kind.rights
    mxr = FALSE if of_a_table else cpu.mstatus.mxr
    refused = place[XLEN - 1 : GUEST_PHYSICAL] != 0
    denied, going, found = FALSE, ~refused, place[PHYSICAL - 1 : 0]
    base = cpu.hgatp.value[PPN - 1 : 2]
    for level in reversed(range(LEVELS)):
        low = 12 + 9 * level
        index = place[GUEST_PHYSICAL - 1 : low] if level == LEVELS - 1 else place[low + 8 : low]
        where = concat(base, index, Word(3, 0))
        closed = ~permitted(cpu, where, 8, Word(2, SUPERVISOR), "r")
        entry = PageTableEntry(read(cpu, where, 8), level)
        leaf = ~entry.pointer
        wrong = entry.invalid | (leaf & (~entry[U] | ~_rights(entry, rights, mxr) | ~entry.aligned))
        denied = denied | (going & closed)
        refused = refused | (going & ~closed & wrong)
        found = ite(going & leaf, entry.page(place), found)
        going = going & ~closed & ~wrong & ~leaf
        base = entry.ppn
    if denied:
        raise MemoryFault(kind.access, address)
    if refused:
        what = Word(XLEN, READ_OF_A_TABLE if of_a_table else 0)
        raise MemoryFault(kind.guest_page, concat(what, place >> 2, address))
    return found
