"""System/370's state (GA22-7000, IBM System/370 Principles of Operation)."""

from __future__ import annotations

from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.state import Group, Register, Role, WordBank, bank, bit, bits, group, register, word
from popek.kernel.words import Word, concat, ite

from . import interruptions as program
from .state import BLOCK, CR_NAMES, RESOURCE, Cpu, Psw

SOURCE = "GA22-7000, IBM System/370 Principles of Operation"


class S370Psw(Psw):
    """The PSW's further fields of System/370."""

    extended = word(1, role=RESOURCE)  # bit 12: 0 basic control, 1 extended control
    per = word(1, role=RESOURCE)  # bit 1, program-event recording; only in the EC mode


class ControlRegister0(Register):
    """Control register 0."""

    ssm_suppression = bit(30)  # bit 1
    tod_sync = bit(29)
    low_address_protection = bit(28)  # bit 3
    extraction_authority = bit(27)  # bit 4
    secondary_space = bit(26)  # bit 5
    translation_format = bits(23, 19)  # bits 8-12
    external_masks = bits(15, 0)


class ControlRegister3(Register):
    """Control register 3."""

    psw_key_mask = bits(31, 16)
    secondary_asn = bits(15, 0)


class ControlRegister8(Register):
    """Control register 8."""

    monitor_masks = bits(15, 0)


class TodClock(Group):
    """The time-of-day clock: its value, its state as STCK reports it, and the security switch."""

    value = word(64, role=Role.TIME)
    state = word(2, role=Role.TIME)  # 0 set, 1 not set, 2 error, 3 not operational
    secure = word(1, role=Role.TIME)  # 1: the operator does not hold the switch at "enable set"


class S370(Cpu):
    """System/370, uniprocessor."""

    psw = group(S370Psw)
    cr0 = register(ControlRegister0, role=RESOURCE)
    cr1 = word(32, role=RESOURCE)
    cr2 = word(32, role=RESOURCE)
    cr3 = register(ControlRegister3, role=RESOURCE)
    cr4_7 = bank(CR_NAMES[4:8], 32, role=RESOURCE)
    cr8 = register(ControlRegister8, role=RESOURCE)
    cr9_15 = bank(CR_NAMES[9:], 32, role=RESOURCE)
    prefix = word(BLOCK - 1, role=RESOURCE)  # a block of 4096 bytes
    tod = group(TodClock)
    clock_comparator = word(64, role=RESOURCE)
    cpu_timer = word(64, role=Role.TIME)
    cpu_id = word(64, role=RESOURCE)
    cpu_address = word(16, role=RESOURCE)
    dual_address_space = word(1, role=Role.HIDDEN)  # the facility is installed

    @property
    def cr(self) -> WordBank:
        """The control registers by number."""
        return WordBank(self, CR_NAMES)

    @property
    def extended(self) -> Word:
        """PSW bit 12."""
        return self.psw.extended

    def extend(self) -> None:
        """Set PSW bit 12."""
        self.psw.extended = 1

    def psw_word(self, code: Word) -> Word:
        """The PSW as 64 bits, in the format of the mode."""
        psw = self.psw
        middle = concat(psw.key, psw.extended, psw.machine_check, psw.wait, psw.problem)
        flags = concat(psw.cc, psw.program_mask)
        bc_mask = concat(psw.channels, psw.io, psw.external)
        basic = concat(bc_mask, middle, code, self.ilc, flags, psw.address)
        zeros = Word(3, 0)
        ec_mask = concat(Word(1, 0), psw.per, zeros, psw.dat, psw.io, psw.external)
        extended = concat(ec_mask, middle, Word(2, 0), flags, Word(16, 0), psw.address)
        return ite(psw.extended, extended, basic)

    def load_psw(self, new: Word) -> None:
        """The 64 bits become the PSW; ones where the EC mode wants zeros are found at once."""
        psw = self.psw
        psw.key, psw.extended, psw.machine_check = new[55:52], new[51], new[50]
        psw.wait, psw.problem, psw.address = new[49], new[48], new[23:0]
        psw.cc = ite(new[51], new[45:44], new[29:28])
        psw.program_mask = ite(new[51], new[43:40], new[27:24])
        self._spread_mask(new[63:56])
        space = new[47]  # bit 16; a zero, too, without dual address space
        wrong = wrong_mask(new[63:56]) | (space & ~self.dual_address_space) | new[46] | (new[39:24] != 0)
        if new[51] & wrong:
            raise Fault(program.PSW_FORMAT, new, keeps=True)
        if new[51] & space:
            raise NotModelledError("secondary-space mode")

    def load_system_mask(self, mask: Word) -> None:
        """PSW bits 0-7 := mask, as the mode reads them."""
        self._spread_mask(mask)
        if self.psw.extended & wrong_mask(mask):
            loaded = self.psw_word(Word(16, 0)).replace(63, 56, mask)
            raise Fault(program.PSW_FORMAT, loaded, keeps=True)

    def _spread_mask(self, mask: Word) -> None:
        extended = self.psw.extended
        self.psw.channels = ite(extended, Word(6, 0), mask[7:2])
        self.psw.per, self.psw.dat = mask[6] & extended, mask[2] & extended
        self.psw.io, self.psw.external = mask[1], mask[0]

    def absolute_block(self, real: Word) -> Word:
        """Real blocks of page 0 and of the prefix page change places."""
        page, half = real[BLOCK - 1 : 1], real[0]
        low = concat(Word(BLOCK - 1, 0), half)
        return ite(page == 0, concat(self.prefix, half), ite(page == self.prefix, low, real))

    def low_address_protected(self, address: Word) -> Word:
        """Effective addresses 0-511, where control register 0 says so."""
        return self.cr0.low_address_protection & (address < 512)

    def visible_key(self, key: Word) -> Word:
        """In the BC mode, reference and change bits read as zeros."""
        return ite(self.psw.extended, key, key & 0x7C)


def wrong_mask(mask: Word) -> Word:
    """Bits 0 and 2-4 of an EC-mode PSW are zeros."""
    return (mask & 0xB8) != 0
