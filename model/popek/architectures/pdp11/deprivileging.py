"""The virtual machine map for the PDP-11/45: the whole guest in user mode, its pages moved in core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from popek.kernel.memory import Memory
from popek.kernel.technique import TRAPS_ONLY, Technique
from popek.kernel.words import Word, concat, ite

from .state import CELL_ADDRESS, IO_PAGE, KERNEL, MODE_AND_PAGE, shifted

if TYPE_CHECKING:
    from .state import Pdp11

USER = 3
PAGE_BLOCKS = 0o200
# Of traps, of the console terminal, of the line clock and of program interrupt requests (handbook, appendix B).
VECTORS = (0o4, 0o10, 0o14, 0o20, 0o24, 0o30, 0o34, 0o60, 0o64, 0o100, 0o114, 0o240, 0o244, 0o250)


def _start(private: Pdp11) -> Word:
    """The block where the guest's core begins; the VMM keeps it in what would be PAR 0 of user mode."""
    return private.space_par.load(Word(5, 0o30))


def _map(guest: Pdp11, private: Pdp11) -> Pdp11:
    """Guest block b is real block start + b; the guest's current map is composed with that.

    The previous mode is user, the priority and the other modes' registers are the VMM's.
    """
    hardware = private.copy()
    start = _start(private)
    for name in ("pc", "sp", *_REGISTERS):
        hardware[name] = guest[name]
    hardware.floating = guest.floating  # how the processors are built
    hardware.ps = guest.ps.value
    hardware.ps.current = Word(2, USER)
    hardware.ps.previous = Word(2, USER)
    hardware.ps.priority = private.ps.priority
    hardware.mme = Word(1, 1)

    def par(page: Word) -> Word:
        direct = concat(ite(page == 7, Word(2, 3), Word(2, 0)), page, Word(7, 0))
        return ite(guest.mme, guest.par.load(page), direct) + start

    def pdr(page: Word) -> Word:
        everything = Word(16, 0o77406)
        wanted = ite(guest.mme, guest.pdr.load(page), everything)
        first = par(page) - start
        left = guest.last - first
        # What lies beyond the guest's core is cut off; of a page that expands downwards only the whole.
        short = (left < PAGE_BLOCKS - 1) & (left < wanted[14:8].zero_extend(12))
        cut = ite(short, wanted.replace(14, 8, left[6:0]), wanted)
        whole = left >= PAGE_BLOCKS - 1
        resident = (first <= guest.last) & (~wanted[3] | whole)
        return ite(resident, ite(wanted[3], wanted, cut), Word(16, 0))

    hardware.par = Memory(3, 12, par)
    hardware.pdr = Memory(3, 16, pdr)
    inside, outside = guest.memory, private.memory

    def view(cell: Word) -> Word:
        return ite(_in_guest(guest, private, cell), inside.load(shifted(cell, -start)), outside.load(cell))

    hardware.memory = Memory(17, 16, view)
    return hardware


_REGISTERS = (
    *(f"r{bank}{number}" for bank in range(2) for number in range(6)),
    *(f"fac{number}" for number in range(6)),
    *("fps", "fec", "fea"),
)


def _in_guest(guest: Pdp11, private: Pdp11, address: Word) -> Word:
    block = address[16:5]
    return block - _start(private) <= guest.last


def _owns(guest: Pdp11, private: Pdp11, address: Word) -> Word:
    return ~_in_guest(guest, private, address)


def _fits(guest: Pdp11, private: Pdp11) -> Word:
    """The guest's core lies inside the real core, behind the real trap vectors.

    Kernel mode's pages are below it, but for the I/O page, and each vector enters kernel mode: traps go to the VMM
    and push nothing into the guest's core.
    """
    start = _start(private)
    end = start.zero_extend(13) + guest.last.zero_extend(13)
    promised = (start >= 0o10) & (end <= private.last.zero_extend(13)) & private.running & ~private.waiting
    for page in range(8):
        first = private.space_par.load(Word(MODE_AND_PAGE, page))
        below = first.zero_extend(13) + PAGE_BLOCKS <= start.zero_extend(13)
        promised = promised & (below | (first == IO_PAGE))
    vectors = private.space_par.load(Word(MODE_AND_PAGE, 0)).zero_extend(CELL_ADDRESS) << 5
    for vector in VECTORS:
        status = private.memory.load(vectors + (vector + 2) // 2)
        promised = promised & (status[15:14] == KERNEL)
    return promised


def _guest(state: Pdp11) -> Word:
    return state.running & ~state.waiting


def techniques() -> dict[str, Technique[Pdp11]]:
    """Trap and emulate in user mode."""
    owned = (
        "ps.current", "ps.previous", "ps.priority", "ksp", "ssp", "usp", "mme", "mmr2", "pirq", "running", "waiting",
        "par", "pdr", "space_par", "space_pdr",
    )  # fmt: skip
    moved = ("ps.current", "par", "pdr", "mme", "running", "waiting")
    plain: Technique[Pdp11] = Technique(
        "ring-deprivileging",
        "the whole guest in user mode, its pages moved in core (Popek and Goldberg's VM map)",
        map=_map,
        owned=owned,
        # `par` and `pdr` hold the guest's map, moved; all else that is owned has a value of the VMM's own.
        replaced=tuple(name for name in owned if name not in moved),
        shadowed=owned,
        delivered=("usp",),  # where the guest's stack pointer is found
        deprivileged=lambda state: state.ps.current == USER,
        guest=_guest,
        private=_fits,
        owns_address=_owns,
        entries=TRAPS_ONLY,
        guest_address=lambda private, cell: shifted(cell, _start(private)),
        source="Popek and Goldberg 1974, section 4; Popek and Kline 1975",
    )
    return {plain.name: plain}
