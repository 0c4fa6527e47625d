"""Translation and storage (vol. 2, chapter 4): 4-KB pages, one entry per virtual page.

An entry is what the translation registers and the translation cache, with the VHPT walker behind it,
have for the page under the current region registers.  Access rights are those of table 4-2 as far as
reading, writing and promotion go.
"""

from __future__ import annotations

from typing import Final

import attrs

from popek.kernel.outcome import MemoryFault
from popek.kernel.words import TRUE, Word, concat, ite

from .interruptions import (
    DATA_ACCESS_RIGHTS,
    DATA_TLB,
    UNALIGNED,
    UNIMPLEMENTED_DATA_ADDRESS,
    implemented,
)
from .state import Ia64

PAGE_BITS: Final = 12
PHYSICAL_BITS: Final = 50
PROMOTION: Final = 7  # the access right of pages that epc and vmsw need


@attrs.frozen(eq=False)
class TlbEntry:
    """A translation: the insertion format of itc (vol. 2, figure 4-5) with the key of ITIR above it."""

    raw: Word

    @property
    def present(self) -> Word:
        """There is a translation (1 bit)."""
        return self.raw[0]

    @property
    def pl(self) -> Word:
        """Privilege level (2 bits)."""
        return self.raw[8:7]

    @property
    def ar(self) -> Word:
        """Access rights (3 bits)."""
        return self.raw[11:9]

    @property
    def page(self) -> Word:
        """Physical page number (38 bits)."""
        return self.raw[49:12]

    @property
    def ed(self) -> Word:
        """Exception deferral (1 bit)."""
        return self.raw[52]

    @property
    def key(self) -> Word:
        """Protection key (24 bits)."""
        return self.raw[87:64]

    def readable(self, level: Word) -> Word:
        """Data may be read at this level (width 1)."""
        return (level <= self.pl) & ((self.ar != PROMOTION) | (level == 0))

    def writable(self, level: Word) -> Word:
        """Data may be written at this level (width 1)."""
        always = self.ar.isin((2, 3, 6))
        kernel = self.ar.isin((4, 5)) & (level == 0)
        return (level <= self.pl) & (always | kernel)


def entry_of(cpu: Ia64, address: Word) -> TlbEntry:
    """The translation of the page of `address`."""
    return TlbEntry(cpu.translations.load(address[63:PAGE_BITS]))


def less_privileged(a: Word, b: Word) -> Word:
    """The numerically greater of two levels."""
    return ite(a < b, b, a)


def code_page(cpu: Ia64) -> TlbEntry:
    """The translation of the page that the instruction lies in."""
    return entry_of(cpu, cpu.bundle)


def promotes(cpu: Ia64) -> Word:
    """PSR.it = 1 and the code's page has access right 7 (width 1)."""
    return (cpu.psr.it == 1) & (code_page(cpu).ar == PROMOTION)


def addressable(cpu: Ia64, address: Word) -> Word:
    """The address exists, virtual or (PSR.dt = 0) physical (width 1)."""
    top = ~cpu.features.narrow | ~address[PHYSICAL_BITS - 1]
    physical = (address[62:PHYSICAL_BITS] == 0) & top
    return ite(cpu.psr.dt, implemented(address, cpu.withheld), physical)


def data_address(cpu: Ia64, address: Word, *, write: bool, read: bool | None = None) -> Word:
    """The physical address of a data reference at the current level, with its faults.

    Args:
        read: it reads; by default it does unless it writes.  A semaphore does both.
    """
    if ~addressable(cpu, address):
        raise MemoryFault(UNIMPLEMENTED_DATA_ADDRESS)
    entry = entry_of(cpu, address)
    translated = cpu.psr.dt
    if translated & ~entry.present:
        raise MemoryFault(DATA_TLB)
    allowed = entry.writable(cpu.psr.cpl) if write else entry.readable(cpu.psr.cpl)
    if write and read:
        allowed = allowed & entry.readable(cpu.psr.cpl)
    if translated & ~allowed:
        raise MemoryFault(DATA_ACCESS_RIGHTS)
    return ite(translated, concat(entry.page, address[11:0]), address[PHYSICAL_BITS - 1 : 0])


def data_place(
    cpu: Ia64,
    address: Word,
    size: int,
    *,
    write: bool,
    read: bool | None = None,
    alignment: int | None = None,
) -> Word:
    """As `data_address`, of `size` bytes; then the alignment, which comes last (vol. 2, table 5-3).

    Args:
        alignment: in bytes; the size by default.
    """
    place = data_address(cpu, address, write=write, read=read)
    aligned(address, size if alignment is None else alignment)
    return place


def aligned(address: Word, size: int) -> None:
    """References that are not naturally aligned fault, as with PSR.ac = 1."""
    if size > 1 and address[size.bit_length() - 2 : 0] != 0:
        raise MemoryFault(UNALIGNED)


def in_order(cpu: Ia64, value: Word) -> Word:
    """The bytes as PSR.be has them: storage is kept by little-endian doublewords."""
    backwards = concat(*(value[low + 7 : low] for low in range(0, value.width, 8)))
    return ite(cpu.psr.be, backwards, value)


def _shift(place: Word) -> Word:
    return concat(Word(58, 0), place[2:0], Word(3, 0))


def fetch(cpu: Ia64, place: Word, size: int = 8) -> Word:
    """`size` bytes (at most 8) at a physical address, zero-extended."""
    cell = cpu.memory.load(place[PHYSICAL_BITS - 1 : 3])
    if size < 8:
        cell = (cell >> _shift(place)).truncate(8 * size)
    return in_order(cpu, cell).zero_extend(64)


def put(cpu: Ia64, place: Word, value: Word, size: int = 8, condition: Word = TRUE) -> None:
    """The low `size` bytes (at most 8) of a value to a physical address, if the condition (width 1) holds."""
    cell, where = in_order(cpu, value.truncate(8 * size)).zero_extend(64), place[PHYSICAL_BITS - 1 : 3]
    old = cpu.memory.load(where)
    if size < 8:
        mask = Word(64, (1 << 8 * size) - 1) << _shift(place)
        cell = old & ~mask | cell << _shift(place)
    cpu.memory = cpu.memory.store(where, ite(condition, cell, old))


def load(cpu: Ia64, address: Word, size: int = 8) -> Word:
    """`size` bytes of storage, zero-extended."""
    return fetch(cpu, data_place(cpu, address, size, write=False), size)


def store(cpu: Ia64, address: Word, value: Word, size: int = 8) -> None:
    """`size` bytes into storage."""
    put(cpu, data_place(cpu, address, size, write=True), value, size)


def insert(cpu: Ia64, address: Word, pte: Word, key: Word) -> None:
    """A translation for the page of `address`."""
    cpu.translations = cpu.translations.store(address[63:PAGE_BITS], concat(key, pte))


def purge(cpu: Ia64, address: Word) -> None:
    """No translation for the page of `address`."""
    cpu.translations = cpu.translations.store(address[63:PAGE_BITS], Word(88, 0))
