"""What System/360 Model 67 and System/370 share: PSW, general registers, storage and the ways to it.

Bits of a word are numbered from the right here, as everywhere in popek; the manuals number them from the
left.  Docstrings that say "bit" give the manual's number.

Dynamic address translation is held as its result: `translation` gives for each block of 2048 virtual
addresses what segment table, page table and translation-lookaside buffer yield for it, as an absolute
address.  The tables themselves are ordinary storage and are not walked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

import attrs

from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault
from popek.kernel.state import Group, GroupComponent, Role, State, bank, memory, word
from popek.kernel.words import FALSE, Word, concat, ite

from . import interruptions as program

RESOURCE, HIDDEN = Role.RESOURCE, Role.HIDDEN

ADDRESS: Final = 24  # bits of an address
BLOCK: Final = 13  # bits of a block number: 2048 bytes, the unit of storage keys
OFFSET: Final = ADDRESS - BLOCK
ENTRY: Final = 3 + ADDRESS  # a translation: how it ended and an address

GR_NAMES: Final = tuple(f"gr{i}" for i in range(16))
CR_NAMES: Final = tuple(f"cr{i}" for i in range(16))

# How a translation or an access ends.  With 0 the address is the block's; with 1 to 4 it is that of the
# table entry in question, which LRA shows.  Both are absolute addresses.
GRANTED, SEGMENT_INVALID, PAGE_INVALID, SEGMENT_LENGTH, PAGE_LENGTH, BAD_FORMAT, OUTSIDE, PROTECTED = range(8)

# Where a device stands, as the condition codes of TIO report it.
AVAILABLE, STATUS_PENDING, WORKING, NOT_OPERATIONAL = range(4)

CSW, CAW = 64, 72  # real addresses of the channel status and channel address words


class Psw(Group):
    """The program status word, by meaning; where a field lies depends on the mode."""

    channels = word(6, role=RESOURCE)  # masks of channels 0-5; only in the BC (standard) mode
    dat = word(1, role=RESOURCE)  # translation; only in the EC (extended) mode
    io = word(1, role=RESOURCE)
    external = word(1, role=RESOURCE)
    key = word(4, role=RESOURCE)
    machine_check = word(1, role=RESOURCE)
    wait = word(1, role=RESOURCE)
    problem = word(1, role=Role.MODE)
    cc = word(2)
    program_mask = word(4)
    address = word(ADDRESS, role=Role.PC, reset=0x1000)


@attrs.frozen
class Address:
    """A storage operand: index register, base register (0 stands for none), displacement."""

    base: Word
    displacement: Word
    index: Word | None = None


@attrs.frozen
class Place:
    """Where a byte of an operand is: in block `second` if the operand has run into it, else in `first`.

    They are absolute blocks, kept apart because a translation moves each as a whole.
    """

    first: Word
    second: Word
    crossed: Word
    offset: Word

    @property
    def address(self) -> Word:
        """The absolute address."""
        return concat(ite(self.crossed, self.second, self.first), self.offset)


class Cpu(State):
    """The CPU, main storage, the channels' view of the devices, and the external lines."""

    # Halfword, word and doubleword operands must be on integral boundaries (System/360).
    aligned: ClassVar[bool] = False

    if TYPE_CHECKING:  # each machine declares its own
        psw: GroupComponent[Psw]

    gr = bank(GR_NAMES, 32)
    ilc = word(2, role=HIDDEN)  # halfwords of the instruction that ran last; 0 after a new PSW
    executing = word(1)  # 1: `target` is the instruction, fetched by EXECUTE
    target = word(48)
    translation = memory(address=BLOCK, cell=ENTRY, role=RESOURCE)
    tlb_stale = word(1, role=RESOURCE)  # translations are in use that the tables no longer give
    keys = memory(address=BLOCK, cell=7, role=RESOURCE)  # key (4), fetch protection, reference, change
    last_block = word(BLOCK, role=HIDDEN, reset=0x1FFF)  # the last block of main storage that exists
    devices = memory(address=16, cell=18, role=RESOURCE)  # condition (2) and pending CSW status (16)
    direct_in = word(8, role=RESOURCE)  # the lines of the direct control feature
    direct_out = word(16, role=RESOURCE)  # timing signals (8) and byte
    maintenance = word(32, role=RESOURCE)  # whatever DIAGNOSE may reach
    memory = memory(address=ADDRESS, cell=8)  # absolute storage

    # -- the PSW ------------------------------------------------------------------------------

    @property
    def extended(self) -> Word:
        """The extended-control (System/370) or extended-PSW (Model 67) mode, 1 bit."""
        raise NotImplementedError

    def extend(self) -> None:
        """Enter that mode, the fields of the PSW left as they are."""
        raise NotImplementedError

    def psw_word(self, code: Word) -> Word:
        """The PSW as 64 bits, with an interruption code (16 bits) where the format has room for it."""
        raise NotImplementedError

    def load_psw(self, new: Word) -> None:
        """The 64 bits become the PSW."""
        raise NotImplementedError

    @property
    def system_mask(self) -> Word:
        """Bits 0-7 of the PSW."""
        return self.psw_word(Word(16, 0))[63:56]

    def begin(self, halfwords: int) -> None:
        """The instruction address moves past an instruction of so many halfwords; EXECUTE's has moved already."""
        moved = self.psw.address + 2 * halfwords
        self.ilc = ite(self.executing, Word(2, 2), Word(2, halfwords))
        self.psw.address = ite(self.executing, self.psw.address, moved)
        self.executing = FALSE

    @property
    def ascii_codes(self) -> Word:
        """Whether decimal results get the codes of ASCII-8, 1 bit."""
        return FALSE

    # -- addresses ----------------------------------------------------------------------------

    def effective(self, operand: Address) -> Word:
        """The address that an operand designates, modulo 2**24."""
        total = operand.displacement.zero_extend(ADDRESS)
        for number in (operand.base, operand.index):
            if number is not None:
                total = total + ite(number == 0, Word(ADDRESS, 0), self.gr[number].truncate(ADDRESS))
        return total

    def absolute_block(self, real: Word) -> Word:
        """Prefixing, for a block number."""
        return real

    def low_address_protected(self, address: Word) -> Word:
        """Whether a store to this effective address is refused whatever the keys say."""
        return FALSE

    def locate(
        self, address: Word, size: int, *, store: bool, unit: int = 1, integral: bool = False
    ) -> tuple[Place, ...]:
        """Translate and check an operand; where its bytes are, the leftmost first.

        Args:
            address: the effective address.
            size: in bytes, 2048 at most.
            store: the operand is stored into, so protection is that against storing.
            unit: its natural boundary in bytes.
            integral: it must lie there even where operands are byte-oriented.

        Raises:
            Fault: specification, then the access exceptions of the first byte, then those of the last.
        """
        boundary = unit if integral or self.aligned else 1
        if boundary > 1 and address & (boundary - 1):
            raise program.exception(program.SPECIFICATION)
        status, first = self._access(address, store)
        failing, last, one_block = address, first, size <= boundary or size == 1
        if not one_block:
            end = address + (size - 1)
            end_status, last = self._access(end, store)
            failing = ite(status == GRANTED, end, address)
            status = ite(status == GRANTED, end_status, status)
        if status != GRANTED:
            raise self._access_exception(status, failing)
        offset = address.truncate(OFFSET)
        return tuple(
            Place(first, last, FALSE if one_block or i == 0 else offset + i < i, offset + i)
            for i in range(size)
        )

    def _access(self, address: Word, store: bool) -> tuple[Word, Word]:
        """How a reference to one byte ends, and its absolute block."""
        entry = self.yielded(address[ADDRESS - 1 : OFFSET])
        translated, block = entry[ENTRY - 1 : ADDRESS], entry[ADDRESS - 1 : OFFSET]
        key = self.keys.load(block)
        mismatch = (self.psw.key != 0) & (self.psw.key != key[6:3])
        refused = mismatch | self.low_address_protected(address) if store else mismatch & key[2]
        status = ite(refused, Word(3, PROTECTED), Word(3, GRANTED))
        status = ite(block > self.last_block, Word(3, OUTSIDE), status)
        return ite(translated == GRANTED, status, translated), block

    def yielded(self, virtual: Word) -> Word:
        """What translation or, without it, prefixing yields for a block of addresses: status and address."""
        entry, dat = self.translation.load(virtual), self.psw.dat
        status = ite(dat, entry[ENTRY - 1 : ADDRESS], Word(3, GRANTED))
        block = ite(dat, entry[ADDRESS - 1 : OFFSET], self.absolute_block(virtual))
        return concat(status, block, ite(dat, entry.truncate(OFFSET), Word(OFFSET, 0)))

    def _access_exception(self, status: Word, address: Word) -> Fault:
        if status.isin((SEGMENT_INVALID, SEGMENT_LENGTH, PAGE_INVALID, PAGE_LENGTH)):
            # Nullification: the old PSW points to the instruction.
            self.psw.address = self.psw.address - self.ilc.zero_extend(ADDRESS) * 2
            page = status.isin((PAGE_INVALID, PAGE_LENGTH))
            vector = program.PAGE_TRANSLATION if page else program.SEGMENT_TRANSLATION
            return Fault(vector, address, memory=True, keeps=True)
        if status == BAD_FORMAT:
            vector = program.TRANSLATION_SPECIFICATION
        elif status == OUTSIDE:
            vector = program.ADDRESSING
        else:
            vector = program.PROTECTION
        return Fault(vector, memory=True, keeps=True)

    def translated(self, address: Word) -> Word:
        """The absolute block of an address that is to be read whatever its key.

        Raises:
            Fault: the access exceptions but for protection.
        """
        entry = self.yielded(address[ADDRESS - 1 : OFFSET])
        status, block = entry[ENTRY - 1 : ADDRESS], entry[ADDRESS - 1 : OFFSET]
        status = ite((status == GRANTED) & (block > self.last_block), Word(3, OUTSIDE), status)
        if status != GRANTED:
            raise self._access_exception(status, address)
        return block

    # -- storage ------------------------------------------------------------------------------

    def load(self, place: Place) -> Word:
        """One byte."""
        here = self.memory.load(concat(place.first, place.offset))
        if place.crossed.value == 0:
            return here
        return ite(place.crossed, self.memory.load(concat(place.second, place.offset)), here)

    def read(self, places: tuple[Place, ...]) -> Word:
        """Bytes side by side, the leftmost first."""
        return concat(*(self.load(place) for place in places))

    def write(self, places: tuple[Place, ...], value: Word) -> None:
        """Store a word over bytes, the leftmost first."""
        content = self.memory
        for i, place in enumerate(places):
            low = 8 * (len(places) - 1 - i)
            content = content.store(place.address, value[low + 7 : low])
        self.memory = content

    def fetch(self, operand: Address, size: int, *, unit: int | None = None, integral: bool = False) -> Word:
        """A storage operand of `size` bytes; see `locate`."""
        places = self.locate(self.effective(operand), size, store=False, unit=unit or size, integral=integral)
        return self.read(places)

    def store(
        self, operand: Address, value: Word, *, unit: int | None = None, integral: bool = False
    ) -> None:
        """Store into a storage operand as wide as the value; see `locate`."""
        size = value.width // 8
        places = self.locate(self.effective(operand), size, store=True, unit=unit or size, integral=integral)
        self.write(places, value)

    def real(self, address: int, size: int) -> tuple[Place, ...]:
        """Where assigned storage is: prefixed, neither translated nor protected."""
        where = Word(ADDRESS, address)
        block = self.absolute_block(where[ADDRESS - 1 : OFFSET])
        return tuple(Place(block, block, FALSE, where.truncate(OFFSET) + i) for i in range(size))

    def key_block(self, address: Word) -> Word:
        """The absolute block of a real address (24 bits); the addressing exception if there is none."""
        block = self.absolute_block(address[ADDRESS - 1 : OFFSET])
        if block > self.last_block:
            raise Fault(program.ADDRESSING, memory=True, keeps=True)
        return block

    def visible_key(self, key: Word) -> Word:
        """What ISK shows of a storage key (7 bits)."""
        return key


C = TypeVar("C", bound=Cpu)


def relocated(state: C, blocks: Word) -> C:
    """A program with its storage and keys at other blocks, under translation.

    Translation is this machine's relocation: a program that ran without it comes to run under tables that
    yield what prefixing gave, moved.  So this is a VMM's doing, and the PSW differs by it.  Tables can send
    blocks anywhere; here they lie `blocks` further on.
    """
    moved, storage, keys, old = state.copy(), state.memory, state.keys, state.copy()

    def byte(address: Word) -> Word:
        return storage.load(concat(address[ADDRESS - 1 : OFFSET] - blocks, address.truncate(OFFSET)))

    def entry(virtual: Word) -> Word:
        before = old.yielded(virtual)
        there = before[ADDRESS - 1 : OFFSET] + blocks
        return concat(before[ENTRY - 1 : ADDRESS], there, before.truncate(OFFSET))

    moved.memory = Memory(ADDRESS, 8, byte)
    moved.keys = Memory(BLOCK, 7, lambda block: keys.load(block - blocks))
    moved.translation = Memory(BLOCK, ENTRY, entry)
    moved.psw.dat, moved.psw.channels = Word(1, 1), Word(6, 0)
    moved.extend()
    return moved
