"""Itanium state (Intel Itanium Architecture SDM rev. 2.3, vol. 2 chapters 3 to 5 and 11).

Registers are named as the manual names them.  General registers 16-31 exist twice: bank 1 is in `gr`,
bank 0 in `bank0`; stacked registers lie at their place in the physical ring, so neither a bank switch nor
a call moves anything.  Register files are storage indexed by register number.
The VPD's fields that the processor itself reads are components of the state (`vac`, `vdc`, `vpsr`, ...)
rather than bytes of storage.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.memory import Memory
from popek.kernel.state import Group, Register, Role, State, bit, bits, group, memory, register, word
from popek.kernel.words import FALSE, Word, ite

RESOURCE, MODE, HIDDEN, GENERAL, TIME = Role.RESOURCE, Role.MODE, Role.HIDDEN, Role.GENERAL, Role.TIME


class Psr(Register):
    """Processor Status Register, bits 46:0 (vol. 2, figure 3-2)."""

    be = bit(1, role=GENERAL)
    up = bit(2, role=GENERAL)
    ac = bit(3, role=GENERAL)
    mfl = bit(4, role=GENERAL)
    mfh = bit(5, role=GENERAL)
    ic = bit(13)
    i = bit(14)
    pk = bit(15)
    dt = bit(17)
    dfl = bit(18)
    dfh = bit(19)
    sp = bit(20)
    pp = bit(21)
    di = bit(22)
    si = bit(23)
    db = bit(24)
    lp = bit(25)
    tb = bit(26)
    rt = bit(27)
    cpl = bits(33, 32, role=MODE)
    is_ = bit(34, role=GENERAL)  # which instruction set is decoded: anyone may switch where PSR.di = 0
    mc = bit(35)
    it = bit(36)
    id = bit(37, role=HIDDEN)
    da = bit(38, role=HIDDEN)
    dd = bit(39, role=HIDDEN)
    ss = bit(40)
    ri = bits(42, 41, role=Role.PC)
    ed = bit(43, role=HIDDEN)
    bn = bit(44)
    ia = bit(45, role=HIDDEN)
    vm = bit(46, role=MODE)


PSR_WIDTH: Final = 47
USER_MASK: Final = 0x3E  # be up ac mfl mfh
SYSTEM_MASK: Final = 0xFEE03E  # what ssm and rsm may name: the user mask, ic i pk, dt ... si
PSR_L: Final = 0x0FFEE03E  # what mov psr.l may set: bits 27:0 that exist
PSR_DEFINED: Final = PSR_L | 0x7FFF_0000_0000
DCR_DEFINED: Final = 0x7F07
PSR_VISIBLE: Final = 0x18_FFFF_FFFF  # what mov r = psr shows: bits 31:0 and 36:35
PSR_ONE_SHOT: Final = 0x20E0_0000_0000  # id da dd ia: gone after one instruction; ed is one-shot too


class VirtualPsr(Register):
    """The bits of VPD.vpsr whose machine counterparts belong to the VMM; the guest's others are real."""

    ic = bit(13)
    i = bit(14)
    dt = bit(17)
    pp = bit(21)
    si = bit(23)
    rt = bit(27)
    mc = bit(35)
    it = bit(36)
    bn = bit(44)


VIRTUAL_BITS: Final = 0x1018_08A2_6000


class Cfm(Register):
    """Current frame marker (vol. 1, "Register Stack")."""

    sof = bits(6, 0)
    sol = bits(13, 7)
    sor = bits(17, 14)
    rrb_gr = bits(24, 18)
    rrb_fr = bits(31, 25)
    rrb_pr = bits(37, 32)


class Rsc(Register):
    """Register stack configuration (vol. 2, "RSE")."""

    mode = bits(1, 0)
    pl = bits(3, 2)
    be = bit(4)
    loadrs = bits(29, 16)


class Pfs(Register):
    """Previous function state."""

    pfm = bits(37, 0)
    pec = bits(57, 52)
    ppl = bits(63, 62)


FPSR_RESET: Final = 0x9804C_0270_033F  # every trap disabled, double-extended precision
NATVAL: Final = 0x1FFFE << 64  # "not a thing", in a floating-point register


class ApplicationRegisters(Group):
    """Application registers that matter here; the kernel registers are `kr`."""

    rsc = register(Rsc, 64)
    bsp = word(64)
    bspstore = word(64)
    rnat = word(64)
    pfs = register(Pfs, 64)
    lc = word(64)
    ec = word(6)
    ccv = word(64)
    csd = word(64)
    fpsr = word(64, reset=FPSR_RESET)
    unat = word(64)
    itc = word(64, role=TIME)
    ruc = word(64, role=TIME)


class ControlRegisters(Group):
    """Control registers (vol. 2, table 3-3)."""

    dcr = word(64, role=RESOURCE)
    itm = word(64, role=RESOURCE)
    iva = word(64, role=RESOURCE)
    pta = word(64, role=RESOURCE)
    ipsr = word(64, role=RESOURCE)
    isr = word(64, role=RESOURCE)
    iip = word(64, role=RESOURCE)
    ifa = word(64, role=RESOURCE)
    itir = word(64, role=RESOURCE)
    iipa = word(64, role=RESOURCE)
    ifs = word(64, role=RESOURCE)
    iim = word(64, role=RESOURCE)
    iha = word(64, role=RESOURCE)
    lid = word(64, role=RESOURCE)
    ivr = word(64, role=RESOURCE)
    tpr = word(64, role=RESOURCE)
    irr0 = word(64, role=RESOURCE)
    irr1 = word(64, role=RESOURCE)
    irr2 = word(64, role=RESOURCE)
    irr3 = word(64, role=RESOURCE)
    itv = word(64, role=RESOURCE)
    pmv = word(64, role=RESOURCE)
    cmcv = word(64, role=RESOURCE)
    lrr0 = word(64, role=RESOURCE)
    lrr1 = word(64, role=RESOURCE)


# Numbers (vol. 2, table 3-3).  EOI (67) has no storage; IRR0-3 and IVR are read-only.
CR_NUMBERS: Final = {
    "dcr": 0, "itm": 1, "iva": 2, "pta": 8, "ipsr": 16, "isr": 17, "iip": 19, "ifa": 20, "itir": 21,
    "iipa": 22, "ifs": 23, "iim": 24, "iha": 25, "lid": 64, "ivr": 65, "tpr": 66, "eoi": 67, "irr0": 68,
    "irr1": 69, "irr2": 70, "irr3": 71, "itv": 72, "pmv": 73, "cmcv": 74, "lrr0": 80, "lrr1": 81,
}  # fmt: skip


class Features(Group):
    """What the processor implements and PAL has switched on."""

    vm = word(1, role=HIDDEN)  # PSR.vm is implemented: the processor has VT-i
    vm_enabled = word(1, role=HIDDEN)  # PAL_PROC_GET_FEATURES bit 40
    vmsw_enabled = word(1, role=HIDDEN)  # PAL_PROC_GET_FEATURES bit 54
    gitc = word(1, role=HIDDEN)  # AR.ITC reads as ITC + ITO under PSR.vm
    narrow = word(1, role=HIDDEN)  # one address bit less is implemented (what a VMM may tell a guest)


class Vac(Group):
    """VPD acceleration control (vol. 2, "Virtualization Accelerations")."""

    a_int = word(1, role=HIDDEN)
    a_from_int_cr = word(1, role=HIDDEN)
    a_to_int_cr = word(1, role=HIDDEN)
    a_from_psr = word(1, role=HIDDEN)
    a_from_cpuid = word(1, role=HIDDEN)
    a_cover = word(1, role=HIDDEN)
    a_bsw = word(1, role=HIDDEN)
    a_tf = word(1, role=HIDDEN)
    a_ic_um = word(1, role=HIDDEN)


class Vdc(Group):
    """VPD disable control (vol. 2, "Virtualization Disables")."""

    d_vmsw = word(1, role=HIDDEN)
    d_extint = word(1, role=HIDDEN)
    d_ibr_dbr = word(1, role=HIDDEN)
    d_pmc = word(1, role=HIDDEN)
    d_to_pmd = word(1, role=HIDDEN)
    d_itm = word(1, role=HIDDEN)
    d_psr_i = word(1, role=HIDDEN)


class Assumptions(Group):
    """Where the sources are silent or disagree: each reading is a setting, and verdicts name it."""

    pmd_fault = word(1, role=HIDDEN)  # PMC.pm = 1 above CPL 0: 0 reads 0, 1 Privileged Register fault
    ic_first = word(1, role=HIDDEN)  # PSR.ic = 1 beats the Virtualization fault for itc, itr, CR16-25
    probe_vf = word(1, role=HIDDEN)  # the optional virtualization of probe exists and is on
    cr_any_ic = word(1, role=HIDDEN)  # accelerated CR16-25 moves do not look at vpsr.ic
    pmc_reads_trap = word(1, role=HIDDEN)  # d_pmc covers writes only
    tpr_traps = word(1, role=HIDDEN)  # a_int does not cover moves to and from CR.TPR


FRAME_BASE: Final = 32
RING: Final = 96  # physical stacked registers


class Ia64(State):
    """One logical processor, its translations and physical storage."""

    psr = register(Psr, PSR_WIDTH, role=RESOURCE, reset=1 << 44)
    ip = word(64, role=Role.PC, reset=0x10000)
    gr = memory(address=7, cell=64, role=GENERAL)  # by physical number; 16-31 are bank 1
    nat = memory(address=7, cell=1, role=GENERAL)  # its NaT bits
    bank0 = memory(address=7, cell=64, role=GENERAL)  # GR16-31 while PSR.bn = 0
    bank0_nat = memory(address=7, cell=1, role=GENERAL)
    br = memory(address=3, cell=64, role=GENERAL)
    fr = memory(address=7, cell=82, role=GENERAL)  # sign, exponent (17 bits), significand (64)
    pr = word(64)
    cfm = register(Cfm, 38, reset=RING)
    bof = word(7, role=HIDDEN)  # RSE.BOF: the frame's first register in the ring
    ar = group(ApplicationRegisters)
    kr = memory(address=3, cell=64, role=RESOURCE)  # AR.K0-K7
    cr = group(ControlRegisters)
    in_service = word(8, role=RESOURCE, reset=0x0F)  # highest external interrupt in service
    rr = memory(address=3, cell=64, role=RESOURCE)
    pkr = memory(address=8, cell=64, role=RESOURCE)
    ibr = memory(address=8, cell=64, role=RESOURCE)
    dbr = memory(address=8, cell=64, role=RESOURCE)
    pmc = memory(address=8, cell=64, role=RESOURCE)
    pmd = memory(address=8, cell=64, role=RESOURCE)
    cpuid = memory(address=8, cell=64, role=RESOURCE)
    msr = memory(address=64, cell=64, role=RESOURCE)  # implementation-specific
    translations = memory(address=52, cell=88, role=RESOURCE)  # key and PTE by virtual page, TRs and TC
    tc_purged = word(1, role=RESOURCE)  # ptc.e has emptied the translation cache
    dirty = memory(address=44, cell=1, role=RESOURCE)  # physical lines that the caches hold modified
    features = group(Features, resets={"vm": 1, "vm_enabled": 1, "vmsw_enabled": 1})
    assume = group(Assumptions)
    # What the processor reads and writes of the virtual processor descriptor.
    vac = group(Vac)
    vdc = group(Vdc)
    vhpi = word(8, role=HIDDEN)  # vector of the highest pending virtual interrupt; below 16 none
    vpsr = register(VirtualPsr, PSR_WIDTH, role=HIDDEN)
    vcr = memory(address=7, cell=64, role=HIDDEN)
    vgr = memory(address=7, cell=64, role=HIDDEN)  # 0-15 vgr, 16-31 vbgr
    vnat = memory(address=7, cell=1, role=HIDDEN)  # vnat, vbnat
    vcpuid = memory(address=3, cell=64, role=HIDDEN)
    ito = word(64, role=HIDDEN)  # interval timer offset, where gitc is on
    memory = memory(address=47, cell=64)  # physical storage by doubleword

    # -- general registers ----------------------------------------------------------------------

    def physical(self, number: Word) -> Word:
        """Where general register `number` is in the ring, or its own number below 32 (7 bits)."""
        wide = number.zero_extend(8)
        ring = self.bof.zero_extend(8) + wide  # bof + (number - 32) + 32, modulo the ring
        stacked = ite(ring >= FRAME_BASE + RING, ring - RING, ring).truncate(7)
        return ite(number < FRAME_BASE, number, stacked)

    def in_bank_0(self, number: Word) -> Word:
        """Register `number` means bank 0 (width 1)."""
        return (number[6:4] == 1) & (self.psr.bn == 0)

    def in_frame(self, number: Word) -> Word:
        """Register `number` is static or within the current frame (width 1)."""
        return (number < FRAME_BASE) | ((number - FRAME_BASE) < self.cfm.sof)

    def read_gr(self, number: Word) -> Word:
        """GR[number]; r0 reads 0, a stacked register outside the frame is undefined."""
        value = self._banked(number, self.gr, self.bank0)
        return ite(number == 0, Word(64, 0), value)

    def read_nat(self, number: Word) -> Word:
        """GR[number].nat."""
        return ite(number == 0, FALSE, self._banked(number, self.nat, self.bank0_nat))

    def _banked(self, number: Word, usual: Memory, bank0: Memory) -> Word:
        return ite(self.in_bank_0(number), bank0.load(number), usual.load(self.physical(number)))

    def write_gr(self, number: Word, value: Word, nat: Word = FALSE) -> None:
        """GR[number] := value, with its NaT bit; the target was checked before."""
        place, other = self.physical(number), self.in_bank_0(number)
        self.gr = _stored(self.gr, place, value, ~other)
        self.nat = _stored(self.nat, place, nat, ~other)
        self.bank0 = _stored(self.bank0, number, value, other)
        self.bank0_nat = _stored(self.bank0_nat, number, nat, other)

    # -- floating-point registers ---------------------------------------------------------------

    def read_fr(self, number: Word) -> Word:
        """FR[number]; f0 is +0.0, f1 is +1.0."""
        one = Word(82, 0xFFFF << 64 | 1 << 63)
        return ite(number == 0, Word(82, 0), ite(number == 1, one, self.fr.load(number)))

    def write_fr(self, number: Word, value: Word) -> None:
        """FR[number] := value, and the bit of the user mask that tells; the target was checked before."""
        self.fr = self.fr.store(number, value)
        low = number < 32
        self.psr.mfl = self.psr.mfl | low
        self.psr.mfh = self.psr.mfh | ~low

    # -- instruction pointer ----------------------------------------------------------------------

    @property
    def withheld(self) -> Word:
        """The most significant implemented bit of virtual addresses is withheld (1 bit)."""
        return self.psr.vm | self.features.narrow

    @property
    def bundle(self) -> Word:
        """The address of the bundle of the instruction that runs: IP and PSR.ri are past it already."""
        return ite(self.psr.ri == 0, self.ip - 16, self.ip)

    def branch(self, target: Word) -> None:
        """IP := target, slot 0."""
        self.ip = target & ~Word(64, 0xF)
        self.psr.ri = 0


def _stored(storage: Memory, place: Word, cell: Word, condition: Word) -> Memory:
    """The storage after a store that happens under a condition (width 1)."""
    if condition.value == 0:
        return storage
    return storage.store(place, ite(condition, cell, storage.load(place)))


def invariant(cpu: Ia64) -> Word:
    """Which states exist."""
    return (
        ((cpu.psr.value & (PSR_DEFINED ^ (1 << PSR_WIDTH) - 1)) == 0)
        & ((cpu.cr.ipsr & (PSR_DEFINED ^ (1 << 64) - 1)) == 0)  # what moves and interruptions may leave there
        & ((cpu.cr.dcr & (DCR_DEFINED ^ (1 << 64) - 1)) == 0)
        & ((cpu.psr.vm == 0) | (cpu.features.vm == 1))
        & (cpu.psr.ri != 3)
        & (cpu.ip[3:0] == 0)
        & (cpu.cfm.sof <= RING)
        & (cpu.cfm.sol <= cpu.cfm.sof)
        & (cpu.bof < RING)
        & ((cpu.vpsr.value & (VIRTUAL_BITS ^ (1 << PSR_WIDTH) - 1)) == 0)
    )
