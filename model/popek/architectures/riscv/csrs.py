"""Control and status registers: who may access one, and what it is (privileged manual, "CSRs").

The modules `machine_csrs`, `supervisor_csrs`, `hypervisor_csrs` and `counters` list them by chapter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs

from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .exceptions import ILLEGAL, VIRTUAL
from .state import (
    ASID_BITS,
    BARE,
    MACHINE,
    SUPERVISOR,
    SV39,
    SV48,
    SV57,
    USER,
    VS_BITS,
    XL_32,
    XL_64,
    XLEN,
    Rv64,
    Translation,
)

Condition = Callable[[Rv64], Word]
T = TypeVar("T")


def always(cpu: Rv64) -> Word:
    """True in every state."""
    return TRUE


def never(cpu: Rv64) -> Word:
    """False in every state."""
    return FALSE


@attrs.frozen(eq=False)
class Csr:
    """One control and status register.

    Attributes:
        name: as assemblers spell it.
        number: its 12-bit address; bits 11:10 say read-only, bits 9:8 the lowest privilege.
        read: its value (64 bits).
        write: store a value, of which illegal parts are made legal.
        source: chapter of the manual.
        exists: the extension that brings it is there.
        closed_below_m: a switch of M closes it to every other mode.
        closed: another reason for an illegal-instruction exception.
        closed_to_guests: a switch of HS closes it to VS or VU.
        guest: what the same number means while V = 1.
        modified: what a read-modify-write starts from, where that is not what is read.
    """

    name: str
    number: int
    read: Callable[[Rv64], Word]
    write: Callable[[Rv64, Word], None]
    source: str
    exists: Condition = always
    closed_below_m: Condition = never
    closed: Condition = never
    closed_to_guests: Condition = never
    guest: Csr | None = None
    modified: Callable[[Rv64], Word] | None = None

    @property
    def level(self) -> int:
        """0 user, 1 supervisor, 2 hypervisor and VS, 3 machine."""
        return self.number >> 8 & 3

    @property
    def read_only(self) -> bool:
        """A write is an illegal instruction in every mode."""
        return self.number >> 10 == 3

    def meant(self, cpu: Rv64) -> Csr:
        """Itself, or with V = 1 the guest's copy ("Hypervisor and Virtual Supervisor CSRs")."""
        if self.guest is not None and cpu.v == 1:
            return self.guest
        return self

    def check(self, cpu: Rv64, writing: Word) -> None:
        """Whether the access is permitted, in the manual's order.

        Raises:
            Fault: illegal instruction for what M refuses, for what is not there, and with V = 0; virtual
                instruction for what HS could have done, with V = 1.
        """
        below = cpu.prv != MACHINE
        refused = self.closed_below_m(cpu)
        if self.level == 3:
            refused = TRUE
        lacking = cpu.prv == USER if self.level in (1, 2) else FALSE
        illegal = ~self.exists(cpu) | (writing & int(self.read_only)) | (below & refused) | self.closed(cpu)
        if illegal | (~cpu.v & lacking):
            raise Fault(ILLEGAL)
        kept = TRUE if self.level == 2 else lacking
        if cpu.v & (kept | self.closed_to_guests(cpu)):
            raise Fault(VIRTUAL)


def stored(name: str) -> Callable[[Rv64], Word]:
    """A read of a component."""
    return lambda cpu: cpu[name].zero_extend(XLEN)


def storing(name: str, mask: int = (1 << XLEN) - 1) -> Callable[[Rv64, Word], None]:
    """A write of a component; the bits outside `mask` keep their value."""

    def write(cpu: Rv64, value: Word) -> None:
        old = cpu[name]
        writable = mask & (1 << old.width) - 1
        new = value.truncate(old.width)
        cpu[name] = (old & (writable ^ (1 << old.width) - 1)) | (new & writable)

    return write


def ignoring(cpu: Rv64, value: Word) -> None:
    """Every field is read-only."""


def constant(number: int) -> Callable[[Rv64], Word]:
    """A value that is fixed."""
    return lambda cpu: Word(XLEN, number)


def with_h(cpu: Rv64) -> Word:
    """The hypervisor extension is there."""
    return cpu.misa.h


def with_sd(cpu: Rv64, value: Word, fs: Word, vs: Word) -> Word:
    """A status with XS, which is the hart's, and SD, which summarises FS, VS and XS."""
    xs = cpu.features.xs
    return value.replace(16, 15, xs).replace(63, 63, (fs == 3) | (vs == 3) | (xs == 3))


def vector_status(cpu: Rv64) -> Word:
    """The bits of VS as far as a status has them: read-only 0 without V (64 bits)."""
    return ite(cpu.misa.v, Word(XLEN, VS_BITS), Word(XLEN, 0))


def legal_xl(free: Word, old: Word, new: Word) -> Word:
    """UXL, SXL or VSXL after a write (2 bits): 32 or 64 where the hart has both, and otherwise what it was."""
    return ite(free & new.isin((XL_32, XL_64)), new, old)


def exception_pc(name: str) -> Callable[[Rv64], Word]:
    """A read of mepc, sepc or vsepc: bit 1 is masked while IALIGN is 32."""
    return lambda cpu: aligned(cpu, cpu[name])


def aligned(cpu: Rv64, address: Word) -> Word:
    """An address of an instruction, without bit 1 while IALIGN is 32."""
    return address.replace(1, 1, address[1] & cpu.misa.c)


def implemented(length: Word, width: int) -> Word:
    """The bits of an ASID or a VMID that are there: the low `length` of `width`."""
    return ((Word(width + 1, 1) << length.zero_extend(width + 1)) - 1).truncate(width)


def is_supported(cpu: Rv64, mode: Word) -> Word:
    """A translation mode that this hart has."""
    return (mode == BARE) | (cpu.features.sv39 & mode.isin((SV39, SV48, SV57)))


def store_translation(cpu: Rv64, register: Translation, value: Word, *, whole: bool) -> None:
    """satp or vsatp; with `whole` a write of an unsupported MODE is ignored altogether, else its MODE field."""
    supported = is_supported(cpu, value[63:60])
    value = value.replace(59, 44, value[59:44] & implemented(cpu.features.asidlen, ASID_BITS))
    if whole:
        register.value = ite(supported, value, register.value)
    else:
        register.value = concat(ite(supported, value[63:60], register.mode), value[59:0])


def in_hs(cpu: Rv64) -> Word:
    """HS mode, or S without the hypervisor extension."""
    return (cpu.prv == SUPERVISOR) & ~cpu.v
