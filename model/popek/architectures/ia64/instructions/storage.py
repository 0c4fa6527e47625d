"""Loads, stores, semaphores, prefetches of general registers (vol. 3).

What orders references among processors (.acq, .rel, .bias) changes nothing here, and there is no ALAT.  The forms
without a base update stand for all.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.words import TRUE, Word, ite

from ..access import addressable, data_address, data_place, entry_of, fetch, load, put, store
from ..interruptions import check_target, source
from ..operands import increment
from ..state import Ia64

# DCR bits that choose which exceptions a speculative load defers (vol. 2, table 3-4).
DEFER_MISS: Final = 8
DEFER_RIGHTS: Final = 12

SIZES: Final = (1, 2, 4, 8)
LD, ST, SEMAPHORE = "SDM vol. 3, ld", "SDM vol. 3, st", "SDM vol. 3, {}; vol. 2, 4.4.7"


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""
    for size in SIZES:
        _plain(machine, size)
        _semaphores(machine, size)
    _speculation(machine)
    _spills(machine)
    _pairs(machine)
    _additions(machine)
    _prefetches(machine)


def defers(cpu: Ia64, r3: Word, size: int) -> Word:
    """A speculative load of these bytes defers its exception: what DCR or PSR.ed says, a NaT address always."""
    address = cpu.read_gr(r3)
    wrong = cpu.read_nat(r3) | ~addressable(cpu, address)
    if size > 1:
        wrong = wrong | (address[size.bit_length() - 2 : 0] != 0)
    entry = entry_of(cpu, address)
    translated = cpu.psr.dt == 1
    miss = translated & ~entry.present & cpu.cr.dcr[DEFER_MISS]
    denied = translated & entry.present & ~entry.readable(cpu.psr.cpl) & cpu.cr.dcr[DEFER_RIGHTS]
    return wrong | miss | denied | (cpu.psr.ed == 1)


def _plain(machine: Machine[Ia64], size: int) -> None:
    @machine.instruction(f"ld{size} r = [r]", source=LD, mnemonic=f"LD{size}")
    def load_bytes(cpu: Ia64, r1: Word, r3: Word) -> None:
        """Bytes of storage, zero-extended."""
        check_target(cpu, r1)
        cpu.write_gr(r1, load(cpu, source(cpu, r3), size))

    @machine.instruction(f"st{size} [r] = r", source=ST, mnemonic=f"ST{size}")
    def store_bytes(cpu: Ia64, r3: Word, r2: Word) -> None:
        """Bytes into storage."""
        address, value = source(cpu, r3), source(cpu, r2)
        store(cpu, address, value, size)


def _speculation(machine: Machine[Ia64]) -> None:
    for size in SIZES:

        @machine.instruction(
            f"ld{size}.s r = [r]", source=f"{LD}; vol. 2, section 5.5.5", mnemonic=f"LD{size}.S", size=size
        )
        def speculative_load(cpu: Ia64, r1: Word, r3: Word, *, size: int) -> None:
            """Load, or defer the exception as a NaT: always for a NaT address, else where DCR or PSR.ed says."""
            check_target(cpu, r1)
            if defers(cpu, r3, size):
                cpu.psr.ed = 0
                cpu.write_gr(r1, Word(64, 0), TRUE)
            else:
                cpu.write_gr(r1, load(cpu, cpu.read_gr(r3), size))


def _spills(machine: Machine[Ia64]) -> None:
    """A NaT bit is kept in UNAT, at the number of its doubleword in 512 bytes."""

    @machine.instruction("ld8.fill r = [r]", source=LD, mnemonic="LD8.FILL")
    def fill(cpu: Ia64, r1: Word, r3: Word) -> None:
        """8 bytes of storage, and the NaT bit from UNAT."""
        check_target(cpu, r1)
        address = source(cpu, r3)
        value = load(cpu, address)
        cpu.write_gr(r1, value, (cpu.ar.unat >> address[8:3].zero_extend(64))[0])

    @machine.instruction("st8.spill [r] = r", source=ST, mnemonic="ST8.SPILL")
    def spill(cpu: Ia64, r3: Word, r2: Word) -> None:
        """8 bytes into storage, and the NaT bit, which is not consumed, to UNAT."""
        address = source(cpu, r3)
        store(cpu, address, cpu.read_gr(r2))
        place = Word(64, 1) << address[8:3].zero_extend(64)
        cpu.ar.unat = ite(cpu.read_nat(r2), cpu.ar.unat | place, cpu.ar.unat & ~place)


def _second(place: Word) -> Word:
    """The upper doubleword of the aligned pair that a physical address lies in."""
    return place.replace(3, 3, 1)


def _pairs(machine: Machine[Ia64]) -> None:
    @machine.instruction("ld16 r = [r]", source=LD, mnemonic="LD16")
    def load_pair(cpu: Ia64, r1: Word, r3: Word) -> None:
        """16 bytes of storage: the lower doubleword, and the upper one into CSD."""
        check_target(cpu, r1)
        place = data_place(cpu, source(cpu, r3), 16, write=False)
        cpu.ar.csd = fetch(cpu, _second(place))
        cpu.write_gr(r1, fetch(cpu, place))

    @machine.instruction("st16 [r] = r", source=ST, mnemonic="ST16")
    def store_pair(cpu: Ia64, r3: Word, r2: Word) -> None:
        """16 bytes into storage: the lower doubleword from r, the upper one from CSD."""
        address, value = source(cpu, r3), source(cpu, r2)
        place = data_place(cpu, address, 16, write=True)
        put(cpu, place, value)
        put(cpu, _second(place), cpu.ar.csd)

    @machine.instruction("cmp8xchg16 r = [r], r", source=SEMAPHORE.format("cmpxchg"), mnemonic="CMP8XCHG16")
    def compare_and_exchange_pair(cpu: Ia64, r1: Word, r3: Word, r2: Word) -> None:
        """8 bytes of storage; where they equal CCV, r and CSD go to the 16 bytes around them."""
        check_target(cpu, r1)
        address, value = source(cpu, r3), source(cpu, r2)
        place = data_place(cpu, address, 16, read=True, write=True, alignment=8)
        old = fetch(cpu, place)
        equal = old == cpu.ar.ccv
        put(cpu, place.replace(3, 3, 0), value, condition=equal)
        put(cpu, _second(place), cpu.ar.csd, condition=equal)
        cpu.write_gr(r1, old)


def _semaphores(machine: Machine[Ia64], size: int) -> None:
    """Both rights are needed, whether or not something is written."""

    @machine.instruction(f"xchg{size} r = [r], r", source=SEMAPHORE.format("xchg"), mnemonic=f"XCHG{size}")
    def exchange(cpu: Ia64, r1: Word, r3: Word, r2: Word) -> None:
        """Bytes of storage against a register."""
        check_target(cpu, r1)
        address, value = source(cpu, r3), source(cpu, r2)
        place = data_place(cpu, address, size, read=True, write=True)
        old = fetch(cpu, place, size)
        put(cpu, place, value, size)
        cpu.write_gr(r1, old)

    @machine.instruction(
        f"cmpxchg{size} r = [r], r", source=SEMAPHORE.format("cmpxchg"), mnemonic=f"CMPXCHG{size}"
    )
    def compare_and_exchange(cpu: Ia64, r1: Word, r3: Word, r2: Word) -> None:
        """Bytes of storage, zero-extended; where they equal CCV, the register's go there."""
        check_target(cpu, r1)
        address, value = source(cpu, r3), source(cpu, r2)
        place = data_place(cpu, address, size, read=True, write=True)
        old = fetch(cpu, place, size)
        put(cpu, place, value, size, old == cpu.ar.ccv)
        cpu.write_gr(r1, old)


def _additions(machine: Machine[Ia64]) -> None:
    for size in (4, 8):

        @machine.instruction(
            f"fetchadd{size} r = [r], inc3",
            source=SEMAPHORE.format("fetchadd"), mnemonic=f"FETCHADD{size}", size=size,
        )  # fmt: skip
        def fetch_and_add(cpu: Ia64, r1: Word, r3: Word, inc3: Word, *, size: int) -> None:
            """Bytes of storage, zero-extended; the sum with the immediate goes there."""
            check_target(cpu, r1)
            place = data_place(cpu, source(cpu, r3), size, read=True, write=True)
            old = fetch(cpu, place, size)
            amount = Word(64, increment(7) & (1 << 64) - 1)
            for number in range(7):
                amount = ite(inc3 == number, Word(64, increment(number) & (1 << 64) - 1), amount)
            put(cpu, place, old + amount, size)
            cpu.write_gr(r1, old)


def _prefetches(machine: Machine[Ia64]) -> None:
    @machine.instruction("lfetch [r]", source="SDM vol. 3, lfetch", mnemonic="LFETCH")
    def prefetch(cpu: Ia64, r3: Word) -> None:
        """Nothing that a program can compute with, whatever the address is."""

    @machine.instruction("lfetch.fault [r]", source="SDM vol. 3, lfetch (3:165)", mnemonic="LFETCH.FAULT")
    def faulting_prefetch(cpu: Ia64, r3: Word) -> None:
        """The faults of a load; nothing where PSR.ed says that they were seen."""
        if cpu.psr.ed:
            cpu.psr.ed = 0
        else:
            data_address(cpu, source(cpu, r3), write=False)
