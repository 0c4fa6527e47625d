"""thash ttag tpa tak probe, itc itr ptc ptr (vol. 3)."""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, MemoryFault
from popek.kernel.words import FALSE, Word, concat, ite

from ..access import PAGE_BITS, addressable, entry_of, insert, less_privileged, purge
from ..interruptions import (
    DATA_ACCESS_RIGHTS,
    DATA_TLB,
    ILLEGAL_OPERATION,
    UNIMPLEMENTED_DATA_ADDRESS,
    check_target,
    implemented,
    intercept,
    privileged,
    source,
)
from ..state import Ia64

PROBE_CAUSE: Final = 41


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""
    _hashes(machine)
    _queries(machine)
    _probes(machine)
    _changes(machine)


# -- thash, ttag: the Virtualization fault comes before the NaT and address tests -------------------


def short_format_hash(address: Word, region: Word, pta: Word) -> Word:
    """The VHPT entry of `address` in the region's linear table (vol. 2, "VHPT Hashing")."""
    size, page = pta[7:2].zero_extend(64), region[7:2].zero_extend(64)
    mask = (Word(64, 1) << size) - 1
    offset = (concat(Word(3, 0), address[60:0]) >> page) << 3
    table = concat(Word(3, 0), pta[60:15], Word(15, 0))
    inside = (table & ~mask) | (offset & mask)
    return concat(address[63:61], inside[60:0])


def long_format_hash(address: Word, region: Word, pta: Word) -> Word:
    """An entry of the one hashed table; the function is model-specific, this one stands for it."""
    size, page = pta[7:2].zero_extend(64), region[7:2].zero_extend(64)
    mask = (Word(64, 1) << size) - 1
    number = concat(Word(3, 0), address[60:0]) >> page
    offset = (number ^ region[31:8].zero_extend(64)) << 5
    return (concat(pta[63:15], Word(15, 0)) & ~mask) | (offset & mask)


def translation_tag(address: Word, region: Word) -> Word:
    """The tag of `address`; model-specific, this one joins region identifier and page number."""
    number = concat(Word(3, 0), address[60:0]) >> region[7:2].zero_extend(64)
    return concat(FALSE, region[31:8], number[38:0])


def _hashes(machine: Machine[Ia64]) -> None:
    def operand(cpu: Ia64, r3: Word) -> tuple[Word, Word, Word]:
        """The address, its region register, and whether the result is NaT."""
        address = cpu.read_gr(r3)
        nat = cpu.read_nat(r3) | ~implemented(address, cpu.withheld)
        return address, cpu.rr.load(address[63:61]), nat

    @machine.instruction("thash r = r", source="SDM vol. 3, thash (3:265)", mnemonic="THASH")
    def thash(cpu: Ia64, r1: Word, r3: Word) -> None:
        """The address of the VHPT entry: shows PTA and the region register at any level."""
        check_target(cpu, r1)
        intercept(cpu, 31)
        address, region, nat = operand(cpu, r3)
        if cpu.cr.pta[8]:
            result = long_format_hash(address, region, cpu.cr.pta)
        else:
            result = short_format_hash(address, region, cpu.cr.pta)
        cpu.write_gr(r1, ite(nat, Word(64, 0), result), nat)

    @machine.instruction("ttag r = r", source="SDM vol. 3, ttag (3:269)", mnemonic="TTAG")
    def ttag(cpu: Ia64, r1: Word, r3: Word) -> None:
        """The tag of the long-format VHPT entry: shows the region register at any level."""
        check_target(cpu, r1)
        intercept(cpu, 32)
        address, region, nat = operand(cpu, r3)
        cpu.write_gr(r1, ite(nat, Word(64, 0), translation_tag(address, region)), nat)


def _implemented_source(cpu: Ia64, r3: Word) -> Word:
    address = source(cpu, r3)
    if ~implemented(address, cpu.withheld):
        raise MemoryFault(UNIMPLEMENTED_DATA_ADDRESS)
    return address


def _queries(machine: Machine[Ia64]) -> None:
    @machine.instruction("tpa r = r", source="SDM vol. 3, tpa", mnemonic="TPA")
    def tpa(cpu: Ia64, r1: Word, r3: Word) -> None:
        """The physical address."""
        check_target(cpu, r1)
        privileged(cpu)
        address = _implemented_source(cpu, r3)
        intercept(cpu, 33)
        entry = entry_of(cpu, address)
        if ~entry.present:
            raise MemoryFault(DATA_TLB)
        cpu.write_gr(r1, concat(Word(14, 0), entry.page, address[PAGE_BITS - 1 : 0]))

    @machine.instruction("tak r = r", source="SDM vol. 3, tak (3:260)", mnemonic="TAK")
    def tak(cpu: Ia64, r1: Word, r3: Word) -> None:
        """The protection key; 1 where there is no translation."""
        check_target(cpu, r1)
        privileged(cpu)
        address = _implemented_source(cpu, r3)
        intercept(cpu, 34)
        entry = entry_of(cpu, address)
        key = concat(Word(32, 0), entry.key, Word(8, 0))
        cpu.write_gr(r1, ite(entry.present, key, Word(64, 1)))


def _probes(machine: Machine[Ia64]) -> None:
    def answer(cpu: Ia64, r3: Word, level: Word, *, read: bool, write: bool) -> Word:
        """Whether the access is allowed; the level is the less privileged of operand and CPL.

        With PSR.dt = 0 there is no protection, and every address that exists is allowed.
        """
        address = source(cpu, r3)
        if ~addressable(cpu, address):
            raise MemoryFault(UNIMPLEMENTED_DATA_ADDRESS)
        intercept(cpu, PROBE_CAUSE, ~cpu.assume.probe_vf)
        entry, translated = entry_of(cpu, address), cpu.psr.dt == 1
        if translated & ~entry.present:
            raise MemoryFault(DATA_TLB)
        effective = less_privileged(level, cpu.psr.cpl)
        allowed = Word(1, 1)
        if read:
            allowed = allowed & entry.readable(effective)
        if write:
            allowed = allowed & entry.writable(effective)
        return allowed | ~translated

    for kind in ("r", "w"):
        reading, writing = kind == "r", kind == "w"

        @machine.instruction(
            f"probe.{kind} gr = gr, imm2",
            source="SDM vol. 3, probe",
            mnemonic="PROBE",
            read=reading,
            write=writing,
        )
        def probe_immediate(cpu: Ia64, r1: Word, r3: Word, level: Word, *, read: bool, write: bool) -> None:
            """1 where the access is allowed at the level."""
            check_target(cpu, r1)
            cpu.write_gr(r1, answer(cpu, r3, level, read=read, write=write).zero_extend(64))

        @machine.instruction(
            f"probe.{kind} gr = gr, gr",
            source="SDM vol. 3, probe",
            mnemonic="PROBE",
            read=reading,
            write=writing,
        )
        def probe_register(cpu: Ia64, r1: Word, r3: Word, r2: Word, *, read: bool, write: bool) -> None:
            """1 where the access is allowed at the level in GR[r2]{1:0}."""
            check_target(cpu, r1)
            level = source(cpu, r2)[1:0]
            cpu.write_gr(r1, answer(cpu, r3, level, read=read, write=write).zero_extend(64))

    for kind in ("r", "w", "rw"):

        @machine.instruction(
            f"probe.{kind}.fault gr, imm2", source="SDM vol. 3, probe", mnemonic="PROBE.FAULT",
            read="r" in kind, write="w" in kind,
        )  # fmt: skip
        def probe_fault(cpu: Ia64, r3: Word, level: Word, *, read: bool, write: bool) -> None:
            """Data Access Rights fault where the access is not allowed at the level."""
            if ~answer(cpu, r3, level, read=read, write=write):
                raise MemoryFault(DATA_ACCESS_RIGHTS)


# -- itc, itr, ptc, ptr ---------------------------------------------------------------------------


def _collecting(cpu: Ia64) -> None:
    """Inserts need PSR.ic = 0 (for the guest's kernel, see `assume.ic_first`)."""
    guest_kernel = (cpu.psr.vm == 1) & (cpu.psr.cpl == 0) & ~cpu.assume.ic_first
    if (cpu.psr.ic == 1) & ~guest_kernel:
        raise Fault(ILLEGAL_OPERATION)


def _changes(machine: Machine[Ia64]) -> None:
    @machine.instruction("itc.d r", source="SDM vol. 3, itc", mnemonic="ITC.D", cause=8)
    @machine.instruction("itc.i r", source="SDM vol. 3, itc", mnemonic="ITC.I", cause=9)
    def insert_cache(cpu: Ia64, r2: Word, *, cause: int) -> None:
        """A translation for the page of IFA, with the key of ITIR."""
        _collecting(cpu)
        privileged(cpu)
        pte = source(cpu, r2)
        intercept(cpu, cause)
        insert(cpu, cpu.cr.ifa, pte, cpu.cr.itir[31:8])

    @machine.instruction("itr.d dtr[r] = r", source="SDM vol. 3, itr", mnemonic="ITR.D", cause=16)
    @machine.instruction("itr.i itr[r] = r", source="SDM vol. 3, itr", mnemonic="ITR.I", cause=17)
    def insert_register(cpu: Ia64, r3: Word, r2: Word, *, cause: int) -> None:
        """A pinned translation for the page of IFA; which slot holds it does not show."""
        _collecting(cpu)
        privileged(cpu)
        source(cpu, r3)
        pte = source(cpu, r2)
        intercept(cpu, cause)
        insert(cpu, cpu.cr.ifa, pte, cpu.cr.itir[31:8])

    for name, cause in (("ptc.l", 26), ("ptc.g", 27), ("ptc.ga", 28), ("ptr.d", 29), ("ptr.i", 30)):

        @machine.instruction(
            f"{name} r, r", source=f"SDM vol. 3, {name[:3]}", mnemonic=name.upper(), cause=cause
        )
        def purge_page(cpu: Ia64, r3: Word, r2: Word, *, cause: int) -> None:
            """The page of GR[r3] has no translation any more; larger ranges are not modelled."""
            privileged(cpu)
            address = source(cpu, r3)
            source(cpu, r2)
            if ~implemented(address, cpu.withheld):
                raise MemoryFault(UNIMPLEMENTED_DATA_ADDRESS)
            intercept(cpu, cause)
            purge(cpu, address)

    @machine.instruction("ptc.e r", source="SDM vol. 3, ptc.e", mnemonic="PTC.E")
    def purge_cache(cpu: Ia64, r3: Word) -> None:
        """Empty the translation cache; what it held comes back through the VHPT walker."""
        privileged(cpu)
        source(cpu, r3)
        intercept(cpu, 35)
        cpu.tc_purged = Word(1, 1)
