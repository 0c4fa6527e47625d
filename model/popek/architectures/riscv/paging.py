"""Sv39: the walk of page tables (privileged manual, "Virtual Address Translation Process").

Of the two stages of a guest's translation the first; with a second one (hgatp) the model stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from popek.kernel.outcome import MemoryFault, NotModelledError
from popek.kernel.words import TRUE, Word, concat, ite

from .access import permitted, read
from .references import Actor, Kind
from .state import BARE, SUPERVISOR, SV39, USER, XLEN, Rv64

if TYPE_CHECKING:
    from popek.kernel.state import Register

V, R, W, X, U, A, D = 0, 1, 2, 3, 4, 6, 7
LEVELS: Final = 3
PPN: Final = 44


def walk(cpu: Rv64, address: Word, actor: Actor, kind: Kind) -> Word:
    """The physical address (56 bits) of a virtual one.

    Accessed and dirty bits are not set: a reference that needs one set faults (Svade).

    Raises:
        MemoryFault: page fault; access fault where protection denies an entry of the tables.
        NotModelledError: another mode than Sv39, or a second stage.
    """
    guest = actor.v
    if guest & (cpu.hgatp.mode != BARE):
        raise NotModelledError("the second stage of translation")
    table: Register = cpu.vsatp if guest else cpu.satp
    if table.value[63:60] != SV39:
        raise NotModelledError("Sv48 and Sv57")
    if address[XLEN - 1 : 38] + 1 > 1:  # bits 63 to 39 are copies of bit 38
        raise MemoryFault(kind.page, address)
    base = table.value[PPN - 1 : 0]
    for level in reversed(range(LEVELS)):
        low = 12 + 9 * level
        place = concat(base, address[low + 8 : low], Word(3, 0))
        if ~permitted(cpu, place, 8, Word(2, SUPERVISOR), "r"):
            raise MemoryFault(kind.access, address)
        entry = read(cpu, place, 8)
        reserved = entry[63:54] != 0
        pointer = ~entry[R] & ~entry[W] & ~entry[X]
        wrong = ~entry[V] | reserved | (entry[W] & ~entry[R])
        if wrong | (pointer & (entry[U] | entry[A] | entry[D] if level else TRUE)):
            raise MemoryFault(kind.page, address)
        base = entry[53:10]
        if not level or ~pointer:
            if ~_allows(cpu, entry, actor, kind) | ~_aligned(base, level):
                raise MemoryFault(kind.page, address)
            return concat(base[PPN - 1 : 9 * level], address[low - 1 : 0])
    raise AssertionError("the last level has no pointers")


def _allows(cpu: Rv64, entry: Word, actor: Actor, kind: Kind) -> Word:
    """Whether a leaf lets an actor do something, its accessed and dirty bits included (width 1)."""
    # A guest's SUM is its own; MXR of either makes its executable pages readable.
    sum_ = ite(actor.v, cpu.vsstatus.sum, cpu.mstatus.sum)
    mxr = cpu.mstatus.mxr | (actor.v & cpu.vsstatus.mxr)
    whose = ite(actor.prv == USER, entry[U], ~entry[U] | sum_)
    if "w" in kind.rights:
        return whose & entry[W] & entry[A] & entry[D]
    readable = entry[X] if "x" in kind.rights else entry[R] | (mxr & entry[X])
    return whose & readable & entry[A]


def _aligned(base: Word, level: int) -> Word:
    """A superpage begins at a multiple of its size (width 1)."""
    return base[9 * level - 1 : 0] == 0 if level else TRUE
