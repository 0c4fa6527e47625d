"""Translation by paging (SDM vol. 3A, chapter 4): 32-bit, PAE and 4-level page tables, walked in storage.

The machines `ia32` and `x86-64` take storage for linear memory: of paging they have protection alone, as two
ranges, which is all a VMM needs of it, and which keeps questions small.  `ia32-paged` and `x86-64-paged` walk the
tables: storage is physical, and every reference is translated, with permissions, protection keys, accessed and
dirty flags.  Both ways are a `Translation`; instructions do not know which.

Left out: TLBs (a changed table counts at once), the page-directory-pointer registers that PAE loads with CR3
(the tables are read), instruction fetches, CR2 (with the delivery of faults), and storage above 4 GiB.
"""

from __future__ import annotations

from typing import Final

import attrs

from popek.kernel.outcome import MemoryFault, NotModelledError
from popek.kernel.words import FALSE, TRUE, Word, ite

from .exceptions import PF
from .state import KEY, PRESENT, RESERVED, USER, WRITE, X86, Translation

# Bits of an entry: present, writable, user, accessed, dirty, page size.
P, RW, US, A, D, PS = 0, 1, 2, 5, 6, 7


@attrs.frozen
class Level:
    """One level of the tables.

    Attributes:
        high, low: the bits of a linear address that choose an entry.
        size: bytes of an entry.
        large: with PS set the entry maps a page.
        reserved: bits that must be 0 (of a 32-bit or 64-bit entry), beside those of large pages.
        large_reserved: bits that must be 0 where the entry maps a large page.
        rights: the entry has R/W and U/S.
    """

    high: int
    low: int
    size: int
    large: bool = False
    reserved: int = 0
    large_reserved: int = 0
    rights: bool = True


# Bits 51:36 are above the physical-address width of 36 bits.
_TOO_HIGH: Final = ((1 << 52) - 1) ^ ((1 << 36) - 1)
_NO_EXECUTE: Final = 1 << 63
_IGNORED_BY_PAE: Final = ((1 << 63) - 1) ^ ((1 << 52) - 1)  # reserved with PAE, ignored with four levels

TWO_LEVELS: Final = (
    Level(31, 22, 4, large=True, large_reserved=0x003FE000),  # without PSE-36
    Level(21, 12, 4),
)
PAE: Final = (
    Level(31, 30, 8, reserved=_TOO_HIGH | _IGNORED_BY_PAE | _NO_EXECUTE | 0x1E6, rights=False),
    Level(29, 21, 8, large=True, reserved=_TOO_HIGH | _IGNORED_BY_PAE, large_reserved=0x001FE000),
    Level(20, 12, 8, reserved=_TOO_HIGH | _IGNORED_BY_PAE),
)


_NO_PAGE_SIZE: Final = 1 << PS
FOUR_LEVELS: Final = (
    Level(47, 39, 8, reserved=_TOO_HIGH | _NO_PAGE_SIZE),
    Level(38, 30, 8, large=True, reserved=_TOO_HIGH, large_reserved=0x3FFFE000),
    Level(29, 21, 8, large=True, reserved=_TOO_HIGH, large_reserved=0x001FE000),
    Level(20, 12, 8, reserved=_TOO_HIGH),
)


@attrs.frozen
class _Walk:
    """What a walk found: the physical address, whether and how it faults, and the entries' low bytes as used."""

    physical: Word
    fault: Word
    code: Word
    entries: tuple[tuple[Word, Word], ...]


class PageTables(Translation):
    """The tables are walked, where CR0.PG is set."""

    def permit(self, cpu: X86, address: Word, size: int, *, write: bool) -> None:
        """Check a reference by the program, the first page first.

        Raises:
            MemoryFault: #PF.
        """
        self._permit(cpu, address, size, write=write, implicit=False)

    def load(self, cpu: X86, address: Word, size: int) -> Word:
        """`size` bytes, little-endian, from one page or two."""
        first, second = self._pages(cpu, address, size)
        value = Word(8 * size, 0)
        for i in range(size):
            byte = cpu.memory.load(ite(_beyond(address, i), second + i, first + i))
            value = value | byte.zero_extend(8 * size) << 8 * i
        return value

    def store(self, cpu: X86, address: Word, value: Word) -> None:
        """Store whole bytes, little-endian, to one page or two."""
        first, second = self._pages(cpu, address, value.width // 8)
        for i in range(value.width // 8):
            where = ite(_beyond(address, i), second + i, first + i)
            cpu.memory = cpu.memory.store(where, value[8 * i + 7 : 8 * i])

    def system_load(self, cpu: X86, address: Word, size: int) -> Word:
        """Bytes of a system table.

        Raises:
            MemoryFault: #PF.
        """
        self._permit(cpu, address, size, write=False, implicit=True)
        return self.load(cpu, address, size)

    def system_store(self, cpu: X86, address: Word, value: Word) -> None:
        """Store bytes of a system table.

        Raises:
            MemoryFault: #PF.
        """
        self._permit(cpu, address, value.width // 8, write=True, implicit=True)
        self.store(cpu, address, value)

    def _permit(self, cpu: X86, address: Word, size: int, *, write: bool, implicit: bool) -> None:
        if not cpu.cr0.pg:
            return
        self._touch(cpu, address, write=write, implicit=implicit)
        if _beyond(address, size - 1):
            self._touch(cpu, address + (size - 1), write=write, implicit=implicit)

    def _touch(self, cpu: X86, address: Word, *, write: bool, implicit: bool) -> None:
        """Translate, fault or set the accessed and dirty flags."""
        walk = _walk(cpu, address, write=write, implicit=implicit)
        if walk.fault:
            raise MemoryFault(PF, walk.code)
        for where, low in walk.entries:
            cpu.memory = cpu.memory.store(where, low)

    def _pages(self, cpu: X86, address: Word, size: int) -> tuple[Word, Word]:
        """Where the first byte is, and where it would be if the bytes on the second page went on from it."""
        if not cpu.cr0.pg:
            return address, address
        first = _walk(cpu, address, write=False, implicit=True).physical
        if size == 1 or not _beyond(address, size - 1):
            return first, first
        last = _walk(cpu, address + (size - 1), write=False, implicit=True).physical
        return first, last - (size - 1)


def _beyond(address: Word, distance: int) -> Word:
    """Whether the byte at a distance is on the next page (width 1)."""
    if distance == 0:
        return FALSE
    return address[11:0].zero_extend(13) + distance >= 0x1000


def _walk(cpu: X86, address: Word, *, write: bool, implicit: bool) -> _Walk:
    """Walk the tables for one linear address.

    Raises:
        NotModelledError: a table or page above 4 GiB, on a processor without Intel 64.
    """
    if address.width == 64:
        levels: tuple[Level, ...] = FOUR_LEVELS
        table = cpu.cr3 & 0x000FFFFF_FFFFF000
    elif cpu.cr4.pae:
        levels, table = PAE, cpu.cr3 & 0xFFFFFFE0
    else:
        levels, table = TWO_LEVELS, cpu.cr3 & 0xFFFFF000
    width = address.width
    done = absent = malformed = high = FALSE
    user = writable = TRUE
    physical, last = address, Word(64, 0)
    entries: list[tuple[Word, Word]] = []
    for depth, level in enumerate(levels):
        where = table + address[level.high : level.low].zero_extend(width) * level.size
        entry = cpu.memory.load_little_endian(where, level.size).zero_extend(64)
        reached = ~done & ~absent
        absent = absent | (reached & ~entry[P])
        here = reached & entry[P]
        large = FALSE
        if level.large:
            large = entry[PS] if level.size == 8 else entry[PS] & cpu.cr4.pse
        leaf = TRUE if depth == len(levels) - 1 else large
        bad = (entry & level.reserved) != 0
        if level.size == 8:
            bad = bad | (entry[63] & ~cpu.no_execute)
        bad = bad | (large & ((entry & level.large_reserved) != 0))
        malformed = malformed | (here & bad)
        if width == 32:
            high = high | (here & ~bad & (entry[35:32] != 0))
        if level.rights:
            user = user & ite(here, entry[US], TRUE)
            writable = writable & ite(here, entry[RW], TRUE)
        frame = (entry & 0x000FFFFF_FFFFF000).truncate(width)
        inside = (1 << level.low) - 1
        mapped = frame & (inside ^ ((1 << width) - 1)) | address & inside
        physical, last = ite(here & leaf, mapped, physical), ite(here & leaf, entry, last)
        # With PAE the processor keeps the top level in registers and sets no flags in it.
        if level.rights:
            dirty = ite(leaf, Word(8, 1 << D), Word(8, 0)) if write else Word(8, 0)
            used = entry[7:0] | (1 << A) | dirty
            entries.append((where, ite(here, used, entry[7:0])))
        table = frame
        done = done | (here & leaf)
    if high & ~malformed & ~absent:
        raise NotModelledError("storage above 4 GiB")
    key = last[62:59] if width == 64 else None
    denied, code = _denied(cpu, user, writable, key, write=write, implicit=implicit)
    found = ite(malformed, Word(16, PRESENT | RESERVED), Word(16, PRESENT))
    return _Walk(
        physical,
        absent | malformed | denied,
        _of_access(cpu, write=write, implicit=implicit)
        | ite(absent, Word(16, 0), ite(malformed, found, code)),
        tuple(entries),
    )


def _of_access(cpu: X86, *, write: bool, implicit: bool) -> Word:
    """What the error code says of the access: a write, by the user."""
    by_user = FALSE if implicit else cpu.cpl == 3
    return ite(by_user, Word(16, USER), Word(16, 0)) | (WRITE if write else 0)


def _denied(
    cpu: X86, user: Word, writable: Word, key: Word | None, *, write: bool, implicit: bool
) -> tuple[Word, Word]:
    """Whether the rights of a page refuse an access, and what the error code says of the page.

    SDM vol. 3A, "Determination of Access Rights" and "Protection Keys": explicit accesses at CPL 3 are user-mode
    accesses, all others supervisor-mode; SMAP keeps these from user pages unless EFLAGS.AC is set and the access
    is explicit.

    Args:
        user, writable: every entry on the way allows it (width 1).
        key: the page's protection key (4 bits), which only four levels of tables give.
    """
    by_user = FALSE if implicit else cpu.cpl == 3
    allowed_by_ac = FALSE if implicit else cpu.eflags.ac
    prevented = user & cpu.cr4.smap & ~allowed_by_ac
    refused = ~user
    if write:
        prevented, refused = prevented | (cpu.cr0.wp & ~writable), refused | ~writable
    locked = FALSE
    if key is not None:
        rights = (cpu.pkru >> (key.zero_extend(32) * 2))[1:0]
        locked = rights[0]
        if write:
            locked = locked | (rights[1] & (by_user | cpu.cr0.wp))
        locked = locked & user & cpu.cr4.pke
    code = ite(locked, Word(16, PRESENT | KEY), Word(16, PRESENT))
    return ite(by_user, refused, prevented) | locked, code
