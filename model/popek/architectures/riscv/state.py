"""State of an RV64 hart: modes, registers, CSRs (privileged manual, chapters "Machine-Level ISA" to "H").

A CSR that is a view of another (sstatus, sie, sip, hie, hip, vsie, vsip, mip, fflags, frm) has no component of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from popek.kernel.outcome import NotModelledError
from popek.kernel.state import Register, Role, State, bit, bits, memory, register, word
from popek.kernel.words import Word, concat, ite

if TYPE_CHECKING:
    from .references import Actor, ReferenceKind

MANUAL: Final = "RISC-V ISA manual, volume II (privileged), August 2026"

USER, SUPERVISOR, RESERVED_MODE, MACHINE = 0, 1, 2, 3
BARE, SV39, SV48, SV57 = 0, 8, 9, 10
XLEN, PHYSICAL, CELL_ADDRESS = 64, 56, 53
PMP_ENTRIES: Final = 4


class Extensions(Register):
    """misa: the letters that an instruction here depends on."""

    a = bit(0)
    c = bit(2)  # IALIGN is 16 with it, and 32 without
    d = bit(3)
    f = bit(5)
    h = bit(7)
    m = bit(12)
    v = bit(21)


class Status(Register):
    """mstatus; sstatus shows a part of it.  SD is computed, XS is the hart's, and endianness is little."""

    sie = bit(1)
    mie = bit(3)
    spie = bit(5)
    mpie = bit(7)
    spp = bit(8)
    vs = bits(10, 9)
    mpp = bits(12, 11)
    fs = bits(14, 13)
    mprv = bit(17)
    sum = bit(18)
    mxr = bit(19)
    tvm = bit(20)
    tw = bit(21)
    tsr = bit(22)
    uxl = bits(33, 32)
    sxl = bits(35, 34)
    gva = bit(38)
    mpv = bit(39)


class GuestStatus(Register):
    """vsstatus: the guest's sstatus, a register of its own."""

    sie = bit(1)
    spie = bit(5)
    spp = bit(8)
    vs = bits(10, 9)
    fs = bits(14, 13)
    sum = bit(18)
    mxr = bit(19)
    uxl = bits(33, 32)


class HypervisorStatus(Register):
    """hstatus; no guest external interrupts, so that VGEIN is 0."""

    gva = bit(6)
    spv = bit(7)
    spvp = bit(8)
    hu = bit(9)
    vtvm = bit(20)
    vtw = bit(21)
    vtsr = bit(22)
    vsxl = bits(33, 32)


class Interrupts(Register):
    """The places of the interrupts in mip, mie, mideleg."""

    ssi = bit(1)
    vssi = bit(2)
    msi = bit(3)
    sti = bit(5)
    vsti = bit(6)
    mti = bit(7)
    sei = bit(9)
    vsei = bit(10)
    mei = bit(11)
    sgei = bit(12)


class Delegated(Register):
    """The exceptions of which this model speaks, in medeleg and hedeleg."""

    fetch_misaligned = bit(0)
    illegal = bit(2)
    breakpoint = bit(3)
    load_misaligned = bit(4)
    load_access = bit(5)
    store_misaligned = bit(6)
    store_access = bit(7)
    ecall_u = bit(8)
    ecall_s = bit(9)
    ecall_vs = bit(10)
    load_page = bit(13)
    store_page = bit(15)
    load_guest_page = bit(21)
    virtual_instruction = bit(22)
    store_guest_page = bit(23)


class CounterEnable(Register):
    """mcounteren, scounteren, hcounteren, mcountinhibit."""

    cy = bit(0)
    tm = bit(1)
    ir = bit(2)
    hpm3 = bit(3)


class Environment(Register):
    """menvcfg and henvcfg."""

    fiom = bit(0)
    stce = bit(63)


class StateEnable(Register):
    """mstateen0 and hstateen0."""

    envcfg = bit(62)
    se0 = bit(63)


class Vectors(Register):
    """mtvec, stvec, vstvec."""

    mode = bits(1, 0)
    base = bits(63, 2)


class Translation(Register):
    """satp and vsatp."""

    ppn = bits(43, 0)
    asid = bits(59, 44)
    mode = bits(63, 60)


class GuestTranslation(Register):
    """hgatp."""

    ppn = bits(43, 0)
    vmid = bits(57, 44)
    mode = bits(63, 60)


class Protection(Register):
    """pmpcfg0: four entries; the others are off and read-only."""

    r0, w0, x0, a0, l0 = bit(0), bit(1), bit(2), bits(4, 3), bit(7)
    r1, w1, x1, a1, l1 = bit(8), bit(9), bit(10), bits(12, 11), bit(15)
    r2, w2, x2, a2, l2 = bit(16), bit(17), bit(18), bits(20, 19), bit(23)
    r3, w3, x3, a3, l3 = bit(24), bit(25), bit(26), bits(28, 27), bit(31)


class Floating(Register):
    """fcsr."""

    fflags = bits(4, 0)
    frm = bits(7, 5)


class Features(Register):
    """What the hart has, and what it does where the manual leaves a choice."""

    sstc = bit(0)
    smstateen = bit(1)
    svinval = bit(2)
    time = bit(3)  # `time` is read in hardware, not by trapping to M
    wfi_completes = bit(4)  # WFI that may wait for a bounded time completes within it
    sv39 = bit(5)  # Sv39 and larger modes of translation; the manual demands them where there is H
    uxl32 = bit(6)  # UXL may be 32
    sxl32 = bit(7)  # SXL and VSXL may be 32
    asidlen = bits(12, 8)
    vmidlen = bits(16, 13)
    xs = bits(18, 17)  # XS of every status: what additional extensions have, if there are any


def letters(text: Iterable[str]) -> int:
    """The bits of misa for extensions by letter."""
    return sum(1 << ord(letter) - ord("a") for letter in text)


XL_32, XL_64 = 1, 2
ALWAYS_THERE: Final = XL_64 << 62 | letters("isu")
CHANGEABLE: Final = letters("acdfhm")
"""The letters that a hart may let software clear."""
UXL_BITS, SXL_BITS, VS_BITS, XS_BITS = 3 << 32, 3 << 34, 3 << 9, 3 << 15
STATUS_FIXED: Final = XL_64 << 32 | XL_64 << 34
ASID_BITS, VMID_BITS = 16, 14
USUAL: Final = ASID_BITS << 8 | VMID_BITS << 13 | 0b1111
"""The features of a hart as it is where no setting says otherwise."""


class Rv64(State):
    """A hart and its storage."""

    prv = word(2, role=Role.MODE, reset=MACHINE)
    v = word(1, role=Role.MODE)
    pc = word(XLEN, role=Role.PC)
    x = memory(address=5, cell=XLEN, role=Role.GENERAL)
    f = memory(address=5, cell=64, role=Role.GENERAL)
    fcsr = register(Floating, 8)
    reserved = word(1, role=Role.HIDDEN)  # LR left a reservation
    reservation = word(PHYSICAL, role=Role.HIDDEN)

    misa = register(Extensions, XLEN, role=Role.RESOURCE, reset=ALWAYS_THERE | CHANGEABLE)
    mstatus = register(Status, XLEN, role=Role.RESOURCE, reset=STATUS_FIXED)
    medeleg = register(Delegated, XLEN, role=Role.RESOURCE)
    mideleg = register(Interrupts, XLEN, role=Role.RESOURCE, reset=0x1444)
    mie = register(Interrupts, XLEN, role=Role.RESOURCE)
    mip = register(Interrupts, XLEN, role=Role.RESOURCE)  # the software's SSIP, STIP, SEIP
    lines = register(Interrupts, XLEN, role=Role.RESOURCE)  # what devices request: MSI, MTI, MEI, SEI
    mtvec = register(Vectors, XLEN, role=Role.RESOURCE)
    mscratch = word(XLEN, role=Role.RESOURCE)
    mepc = word(XLEN, role=Role.RESOURCE)
    mcause = word(XLEN, role=Role.RESOURCE)
    mtval = word(XLEN, role=Role.RESOURCE)
    mtval2 = word(XLEN, role=Role.RESOURCE)
    mtinst = word(XLEN, role=Role.RESOURCE)
    mcounteren = register(CounterEnable, 32, role=Role.RESOURCE)
    mcountinhibit = register(CounterEnable, 32, role=Role.RESOURCE)
    menvcfg = register(Environment, XLEN, role=Role.RESOURCE)
    mstateen0 = register(StateEnable, XLEN, role=Role.RESOURCE)
    pmpcfg0 = register(Protection, XLEN, role=Role.RESOURCE)
    pmpaddr0 = word(54, role=Role.RESOURCE)
    pmpaddr1 = word(54, role=Role.RESOURCE)
    pmpaddr2 = word(54, role=Role.RESOURCE)
    pmpaddr3 = word(54, role=Role.RESOURCE)

    stvec = register(Vectors, XLEN, role=Role.RESOURCE)
    sscratch = word(XLEN, role=Role.RESOURCE)
    sepc = word(XLEN, role=Role.RESOURCE)
    scause = word(XLEN, role=Role.RESOURCE)
    stval = word(XLEN, role=Role.RESOURCE)
    scounteren = register(CounterEnable, 32, role=Role.RESOURCE)
    senvcfg = register(Environment, XLEN, role=Role.RESOURCE)
    satp = register(Translation, XLEN, role=Role.RESOURCE)
    stimecmp = word(XLEN, role=Role.RESOURCE)

    hstatus = register(HypervisorStatus, XLEN, role=Role.RESOURCE, reset=XL_64 << 32)
    hedeleg = register(Delegated, XLEN, role=Role.RESOURCE)
    hideleg = register(Interrupts, XLEN, role=Role.RESOURCE)
    hvip = register(Interrupts, XLEN, role=Role.RESOURCE)
    hcounteren = register(CounterEnable, 32, role=Role.RESOURCE)
    henvcfg = register(Environment, XLEN, role=Role.RESOURCE)
    hstateen0 = register(StateEnable, XLEN, role=Role.RESOURCE)
    htimedelta = word(XLEN, role=Role.RESOURCE)
    htval = word(XLEN, role=Role.RESOURCE)
    htinst = word(XLEN, role=Role.RESOURCE)
    hgatp = register(GuestTranslation, XLEN, role=Role.RESOURCE)

    vsstatus = register(GuestStatus, XLEN, role=Role.RESOURCE, reset=XL_64 << 32)
    vstvec = register(Vectors, XLEN, role=Role.RESOURCE)
    vsscratch = word(XLEN, role=Role.RESOURCE)
    vsepc = word(XLEN, role=Role.RESOURCE)
    vscause = word(XLEN, role=Role.RESOURCE)
    vstval = word(XLEN, role=Role.RESOURCE)
    vsatp = register(Translation, XLEN, role=Role.RESOURCE)
    vstimecmp = word(XLEN, role=Role.RESOURCE)

    mcycle = word(XLEN, role=Role.TIME)
    minstret = word(XLEN, role=Role.TIME)
    mhpmcounter3 = word(XLEN, role=Role.TIME)
    time = word(XLEN, role=Role.TIME)
    features = register(Features, 19, role=Role.HIDDEN, reset=USUAL)
    changeable = register(Extensions, 26, role=Role.HIDDEN)  # the letters that software can clear in misa
    memory = memory(address=CELL_ADDRESS, cell=XLEN)  # doublewords: no reference leaves one

    # -- registers ----------------------------------------------------------------------------

    def narrow(self, prv: Word, v: Word) -> Word:
        """A mode has 32 bits (width 1): U where UXL says so, VU where the guest's does."""
        uxl = ite(v, self.vsstatus.uxl, self.mstatus.uxl)
        return self.features.uxl32 & (prv == USER) & (uxl == XL_32)

    @property
    def is_narrow(self) -> Word:
        """The mode has 32 bits (width 1)."""
        return self.narrow(self.prv, self.v)

    def extended(self, value: Word) -> Word:
        """A result, or an address of an instruction: the low half sign-extended, where the mode has 32 bits."""
        return ite(self.is_narrow, value.truncate(32).sign_extend(XLEN), value)

    def effective(self, address: Word) -> Word:
        """An address of data: modulo the size of what the mode can address."""
        return ite(self.is_narrow, address.truncate(32).zero_extend(XLEN), address)

    @property
    def has_d(self) -> Word:
        """The D extension (width 1), which needs F."""
        return self.misa.d & self.misa.f

    def read_x(self, number: Word) -> Word:
        """An integer register; x0 is 0."""
        return ite(number == 0, Word(XLEN, 0), self.x.load(number))

    def write_x(self, number: Word, value: Word) -> None:
        """An integer register := value; x0 stays 0."""
        kept = self.x.load(number)
        value = self.extended(value)
        self.x = self.x.store(number, ite(number == 0, kept, value))

    def read_f(self, number: Word) -> Word:
        """A floating-point register."""
        return self.f.load(number)

    def write_f(self, number: Word, value: Word) -> None:
        """A floating-point register := value; floating-point state is dirty then."""
        self.f = self.f.store(number, value)
        self.dirty()

    def dirty(self) -> None:
        """FS := dirty, the guest's too while V = 1 ("Extension Context Status")."""
        self.mstatus.fs = 3
        self.vsstatus.fs = ite(self.v, Word(2, 3), self.vsstatus.fs)

    # -- storage ------------------------------------------------------------------------------

    def walk(self, address: Word, actor: Actor, kind: ReferenceKind) -> Word:
        """The physical address (56 bits) that page tables give.

        Raises:
            NotModelledError: this machine does not walk them; `PagedRv64` does.
        """
        raise NotModelledError("translation by page tables")

    # -- interrupts ---------------------------------------------------------------------------

    @property
    def guest_timer(self) -> Word:
        """henvcfg.STCE as it counts: read-only 0 while menvcfg.STCE is 0 (width 1)."""
        return self.features.sstc & self.menvcfg.stce & self.henvcfg.stce

    def pending(self, *, line: bool = True) -> Word:
        """mip; without `line` as a read-modify-write sees it, without the line of SEI ("mip and mie")."""
        sstc = self.features.sstc & self.menvcfg.stce
        software = self.mip
        lines = self.lines
        h = self.misa.h
        due = self.time >= self.stimecmp
        guest_due = self.guest_timer & (self.time + self.htimedelta >= self.vstimecmp)
        places = {
            1: software.ssi,
            2: h & self.hvip.vssi,
            3: lines.msi,
            5: ite(sstc, due, software.sti),
            6: h & (self.hvip.vsti | guest_due),
            7: lines.mti,
            9: software.sei | (lines.sei if line else Word(1, 0)),
            10: h & self.hvip.vsei,
            11: lines.mei,
        }
        return concat(Word(52, 0), *(places.get(place, Word(1, 0)) for place in range(11, -1, -1)))
