"""A guest's processor as an agent: it walks the guest's own page tables, and refers to what they map, step by step.

One step reads the entry of one level, or sets its flags, or makes the reference itself.  So what is shown of any step
is shown of walks of any depth: 32-bit paging, PAE, 4 and 5 levels are where the registers start.  Every reference,
those to the tables among them, has a guest-physical address, which a second stage translates.
"""

from __future__ import annotations

from popek.kernel.agents import Agent, Bus
from popek.kernel.state import Role, State, word
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .tables import ADDRESS, Reference

PAE_32, PAE, LONG = 0, 1, 2
PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE = 0, 1, 2, 5, 6, 7


class PageWalker(State):
    """The guest's processor between two of its references."""

    paging = word(2)  # 0: 32-bit, two levels; 1: PAE, three; 2: 4 or 5 levels
    linear = word(64)
    table = word(64)  # of the table at this level; at level 0 the guest-physical address itself
    level = word(3)
    write = word(1)
    fetch = word(1)
    user = word(1, role=Role.MODE)  # the reference is made at CPL 3
    user_address = word(1)  # all entries so far have U/S set
    data = word(64)
    update = word(1)  # the entry that was read gets flags before anything else
    update_at = word(64)
    updated = word(64)
    fault = word(1)  # a page fault of the guest's own


def reference_of(walker: PageWalker, write: bool) -> Reference:
    """What the second stage is asked."""
    walk = (walker.level != 0) | (walker.update == 1)
    return Reference(
        write=TRUE if write else FALSE,
        fetch=FALSE if write else ~walk & (walker.fetch == 1),
        walk=walk,
        user=walker.user_address,
    )


def _shift(walker: PageWalker) -> Word:
    """Bits of the linear address below those that this level's index is taken from (64 bits)."""
    above = (walker.level - 1).zero_extend(64)
    per_level = ite(walker.paging == PAE_32, Word(64, 10), Word(64, 9))
    return ite(
        above == 0,
        Word(64, 12),
        ite(above == 1, per_level + 12, ite(above == 2, per_level + per_level + 12, above * per_level + 12)),
    )


def entry_address(walker: PageWalker) -> Word:
    """The guest-physical address of this level's entry, or of the reference (64 bits)."""
    index = walker.linear >> _shift(walker)
    old = walker.paging == PAE_32
    at = ite(old, (index & 0x3FF) << 2, (index & 0x1FF) << 3)
    return ite(walker.level == 0, walker.table, walker.table + at)


def reference_address(walker: PageWalker) -> Word:
    """The guest-physical address of the quadword that the next step refers to (64 bits)."""
    return ite(walker.update == 1, walker.update_at, quadword(entry_address(walker)))


def quadword(address: Word) -> Word:
    """The address of the quadword that holds it."""
    return concat(address[63:3], Word(3, 0))


def read_entry(walker: PageWalker, bus: Bus) -> None:
    """One level of the guest's tables."""
    if (walker.level == 0) | (walker.update == 1):
        return
    at = entry_address(walker)
    whole = bus.load(quadword(at))
    old = walker.paging == PAE_32
    upper = old & at[2]
    entry = ite(old, ite(upper, whole[63:32], whole[31:0]).zero_extend(64), whole)
    denied = (walker.write & ~entry[WRITABLE]) | (walker.user & ~entry[USER])
    if ~entry[PRESENT] | denied:
        walker.fault = Word(1, 1)
        return
    large = entry[LARGE] & ((walker.level == 2) | ((walker.level == 3) & (walker.paging == LONG)))
    leaf = (walker.level == 1) | large
    flags = ite(leaf & walker.write, Word(64, 1 << ACCESSED | 1 << DIRTY), Word(64, 1 << ACCESSED))
    walker.update = ~((entry & flags) == flags)
    walker.update_at, walker.updated = quadword(at), whole | ite(upper, flags << 32, flags)
    mask = ite(leaf, (Word(64, 1) << _shift(walker)) - 1, Word(64, 0xFFF))
    frame = entry & ADDRESS
    walker.table = ite(leaf, (frame & ~mask) | (walker.linear & mask), frame)
    walker.level = ite(leaf, Word(3, 0), walker.level - 1)
    walker.user_address = walker.user_address & entry[USER]


def set_flags(walker: PageWalker, bus: Bus) -> None:
    """The accessed flag, and the dirty flag of what maps a page that is written."""
    if walker.update == 0:
        return
    bus.store(walker.update_at, walker.updated)
    walker.update = Word(1, 0)


def refer(walker: PageWalker, bus: Bus) -> None:
    """The reference itself, of a quadword."""
    if (walker.level != 0) | (walker.update == 1):
        return
    at = quadword(walker.table)
    if walker.write == 1:
        bus.store(at, walker.data)
    else:
        walker.data = bus.load(at)


def agent() -> Agent[PageWalker]:
    """The guest's processor."""
    return Agent(
        "processor",
        "the guest's processor, which walks the guest's page tables and refers to what they map",
        PageWalker,
        {"walk": read_entry, "set flags": set_flags, "reference": refer},
        {
            "table": "the guest sets CR3, or a register, to the address",
            "level": "the guest's paging has levels to walk",
            "data": "the guest sets the register that is stored",
            "write": "the guest stores",
            "fetch": "the guest jumps",
            "user_address": "the guest's tables give the page to user mode",
        },
        exists=lambda walker: (
            (walker.level <= 5)
            & (walker.paging != 3)
            & (walker.table[2:0] == 0)
            & (walker.update_at[2:0] == 0)
        ),
        source="Intel SDM vol. 3A, paging",
    )
