"""Control instructions of System/370's later facilities (GA22-7000-10, "Control Instructions"): storage keys of
4096-byte blocks, the extended facility's TPROT, and what of dual address space walks no tables.
"""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from . import interruptions as program
from .control import SOURCE as CONTROL
from .operands import declare
from .s370_state import S370
from .state import ADDRESS, BAD_FORMAT, BLOCK, ENTRY, GRANTED, OFFSET, OUTSIDE, Address


def declare_extended(machine: Machine[S370]) -> None:
    """Keys by page, TPROT, and those of dual address space."""
    _keys(machine)
    _protection(machine)
    _address_spaces(machine)


def _page(cpu: S370, register: Word) -> tuple[Word, Word]:
    """The two blocks of the page at a real address of 31 bits; the addressing exception if there is none.

    Storage comes in whole pages where these instructions do: half of one is none.
    """
    if cpu.gr[register][30:ADDRESS] != 0:
        raise Fault(program.ADDRESSING, memory=True, keeps=True)
    first = cpu.key_block(cpu.gr[register].truncate(ADDRESS)) & ((1 << BLOCK) - 2)
    if (first | 1) > cpu.last_block:
        raise Fault(program.ADDRESSING, memory=True, keeps=True)
    return first, first | 1


def _keys(machine: Machine[S370]) -> None:
    @declare(machine, "ISKE R1,R2", source=CONTROL, privileged=True)
    def insert_storage_key_extended(cpu: S370, r1: Word, r2: Word) -> None:
        """Bits 24-30 of R1 := the page's key, R and C of either half; bit 31 := 0."""
        first, second = (cpu.keys.load(block) for block in _page(cpu, r2))
        cpu.gr[r1] = cpu.gr[r1].replace(7, 0, concat(first[6:2], first[1:0] | second[1:0], Word(1, 0)))

    @declare(machine, "SSKE R1,R2", source=CONTROL, privileged=True)
    def set_storage_key_extended(cpu: S370, r1: Word, r2: Word) -> None:
        """The keys of both halves of the page := bits 24-30 of R1."""
        for block in _page(cpu, r2):
            cpu.keys = cpu.keys.store(block, cpu.gr[r1][7:1])

    @declare(machine, "RRBE R1,R2", source=CONTROL, privileged=True)
    def reset_reference_bit_extended(cpu: S370, r1: Word, r2: Word) -> None:
        """The page's reference bits := 0; condition code := R and C as they were in either half."""
        before = Word(2, 0)
        for block in _page(cpu, r2):
            key = cpu.keys.load(block)
            before = before | key[1:0]
            cpu.keys = cpu.keys.store(block, key.replace(1, 1, 0))
        cpu.psw.cc = before


def _protection(machine: Machine[S370]) -> None:
    @declare(machine, "TPROT D1(B1),D2(B2)", source=CONTROL, privileged=True)
    def test_protection(cpu: S370, first: Address, second: Address) -> None:
        """Condition code := what the key (bits 24-27 of the second address) allows at the first.

        0 fetching and storing, 1 fetching, 2 neither, 3 no translation is available.
        """
        address, key = cpu.effective(first), cpu.effective(second)[7:4]
        entry = cpu.yielded(address[ADDRESS - 1 : OFFSET])
        status, block = entry[ENTRY - 1 : ADDRESS], entry[ADDRESS - 1 : OFFSET]
        if status == BAD_FORMAT:
            raise Fault(program.TRANSLATION_SPECIFICATION, memory=True, keeps=True)
        if (status == OUTSIDE) | ((status == GRANTED) & (block > cpu.last_block)):
            raise Fault(program.ADDRESSING, memory=True, keeps=True)
        storage_key = cpu.keys.load(block)
        mismatch = (key != 0) & (key != storage_key[6:3])
        no_store = mismatch | cpu.low_address_protected(address)
        refused = concat(mismatch & storage_key[2], no_store & ~(mismatch & storage_key[2]))
        cpu.psw.cc = ite(status == GRANTED, refused, Word(2, 3))


def _address_spaces(machine: Machine[S370]) -> None:
    def permitted(cpu: S370) -> None:
        """Where the facility is installed, under translation, and in the problem state by extraction authority."""
        if ~cpu.dual_address_space:
            raise program.exception(program.OPERATION)
        if ~cpu.psw.dat:
            raise program.exception(program.SPECIAL_OPERATION)
        if cpu.psw.problem & ~cpu.cr0.extraction_authority:
            raise program.exception(program.PRIVILEGED_OPERATION)

    @declare(machine, "EPAR R1", source=CONTROL)
    def extract_primary_asn(cpu: S370, r1: Word) -> None:
        """R1 := the primary address-space number."""
        permitted(cpu)
        cpu.gr[r1] = cpu.cr[4][15:0].zero_extend(32)

    @declare(machine, "ESAR R1", source=CONTROL)
    def extract_secondary_asn(cpu: S370, r1: Word) -> None:
        """R1 := the secondary address-space number."""
        permitted(cpu)
        cpu.gr[r1] = cpu.cr3.secondary_asn.zero_extend(32)

    @declare(machine, "IAC R1", source=CONTROL)
    def insert_address_space_control(cpu: S370, r1: Word) -> None:
        """Bits 16-23 of R1, and the condition code := the address space in use, which is the primary one."""
        permitted(cpu)
        cpu.gr[r1] = cpu.gr[r1].replace(15, 8, 0)
        cpu.psw.cc = Word(2, 0)

    @declare(machine, "IVSK R1,R2", source=CONTROL)
    def insert_virtual_storage_key(cpu: S370, r1: Word, r2: Word) -> None:
        """Bits 24-28 of R1 := access control and fetch protection of the block at a virtual address; 29-31 := 0."""
        permitted(cpu)
        block = cpu.translated(cpu.gr[r2].truncate(ADDRESS))
        cpu.gr[r1] = cpu.gr[r1].replace(7, 0, concat(cpu.keys.load(block)[6:2], Word(3, 0)))
