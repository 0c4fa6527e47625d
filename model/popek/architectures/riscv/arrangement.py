"""What the virtual machine maps have in common: the program's registers, the VMM's storage, what is whose.

The VMM's storage is a range that physical memory protection denies to every mode below M: entries 0 and 1, from
pmpaddr0 to pmpaddr1.  A VMM in HS denies it by page tables, which are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from popek.kernel.memory import Memory
from popek.kernel.state import Role
from popek.kernel.technique import Hypothesis
from popek.kernel.words import Word, all_of, ite

from .access import OFF, TOR
from .state import BARE, CELL_ADDRESS, PMP_ENTRIES, XLEN, Rv64

PROGRAM: Final = ("pc", "fcsr", "reserved", "reservation")
FLOATING: Final = ("mstatus.fs", "vsstatus.fs")
"""The guest's: off on the hardware while off for the guest, dirty as the guest makes it; the second with V = 1."""
PROTECTION: Final = ("pmpcfg0", *(f"pmpaddr{entry}" for entry in range(PMP_ENTRIES)))

DELIVERED: Final = (
    *("mepc", "mcause", "mtval", "mtval2", "mtinst", "sepc", "scause", "stval", "htval", "htinst"),
    *(f"mstatus.{field}" for field in ("mie", "mpie", "mpp", "mpv", "gva", "sie", "spie", "spp")),
    *(f"hstatus.{field}" for field in ("gva", "spv", "spvp")),
)
"""What an entry of M or HS writes."""


OWN_STORAGE: Final = "own-storage"
OWN_STORAGE_DENIED: Final = Hypothesis(
    OWN_STORAGE,
    "protection denies the VMM's storage to every mode below M",
    examples=("SD rs2, offset(rs1)",),
)


def leaves_of(*components: str) -> tuple[str, ...]:
    """The leaves of these components."""
    return tuple(leaf.name for leaf in Rv64.leaves if leaf.component in components)


def every_register() -> tuple[str, ...]:
    """The leaves of all CSRs and clocks."""
    return tuple(leaf.name for leaf in Rv64.leaves if leaf.role in (Role.RESOURCE, Role.TIME))


def map_program(hardware: Rv64, guest: Rv64, private: Rv64) -> None:
    """The guest's registers, and its storage outside the VMM's."""
    for name in PROGRAM:
        hardware[name] = guest[name]
    hardware.x, hardware.f = guest.x, guest.f
    inside, outside = private.memory, guest.memory

    def view(address: Word) -> Word:
        return ite(owns_address(guest, private, address), inside.load(address), outside.load(address))

    hardware.memory = Memory(CELL_ADDRESS, XLEN, view)


def owns_address(guest: Rv64, private: Rv64, address: Word) -> Word:
    """The VMM's storage (width 1)."""
    return (private.pmpaddr0[53:1] <= address) & (address < private.pmpaddr1[53:1])


def denies_own_storage(private: Rv64) -> Word:
    """The first entry that has a say denies the VMM's storage, which is whole pages (width 1)."""
    config = private.pmpcfg0
    pages = (private.pmpaddr0[9:0] == 0) & (private.pmpaddr1[9:0] == 0)
    return pages & (config.a0 == OFF) & (config.a1 == TOR) & ~config.r1 & ~config.w1 & ~config.x1


def same(guest: Rv64, private: Rv64, names: Iterable[str]) -> Word:
    """The guest's own machine has these as the hardware has (width 1)."""
    return all_of(guest[name] == private[name] for name in names)


def plain_platform(guest: Rv64) -> Word:
    """What M does on the guest's own machine: nothing traps that need not, S interrupts are delegated (width 1)."""
    counters, enabled = guest.mcounteren, guest.mstateen0
    counted = counters.cy & counters.tm & counters.ir & counters.hpm3
    return delegating_platform(guest) & counted & enabled.se0 & enabled.envcfg


def delegating_platform(guest: Rv64) -> Word:
    """M traps nothing of S by TVM, TW and TSR, delegates its interrupts, and does not translate (width 1)."""
    status, delegation = guest.mstatus, guest.mideleg
    opened = (~status.tvm) & (~status.tw) & (~status.tsr)
    return opened & delegation.ssi & delegation.sti & delegation.sei & (guest.satp.mode == BARE)
