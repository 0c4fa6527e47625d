"""ssm rsm sum rum, mov psr, bsw, rfi (vol. 3)."""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from ..interruptions import (
    ILLEGAL_OPERATION,
    VIRTUAL_EXTERNAL_INTERRUPT,
    check_target,
    intercept,
    privileged,
    reserved_field,
    source,
)
from ..state import PSR_L, PSR_VISIBLE, PSR_WIDTH, SYSTEM_MASK, USER_MASK, VIRTUAL_BITS, Ia64
from ..vti.pending import unmasked
from . import rse

INTERRUPT_BIT: Final = 1 << 14
COLLECTION_BIT: Final = 1 << 13


def virtual_psr(cpu: Ia64) -> Word:
    """PSR as the guest believes it: vpsr where the machine's bit is the VMM's, else the machine's."""
    own = Word(PSR_WIDTH, VIRTUAL_BITS)
    return (cpu.vpsr.value & own) | (cpu.psr.value & ~own)


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("ssm imm24", source="SDM vol. 3, ssm", mnemonic="SSM", set_bits=True, cause=24)
    @machine.instruction("rsm imm24", source="SDM vol. 3, rsm", mnemonic="RSM", set_bits=False, cause=25)
    def system_mask(cpu: Ia64, mask: Word, *, set_bits: bool, cause: int) -> None:
        """Set or reset PSR bits by mask."""
        privileged(cpu)
        reserved_field((mask & (SYSTEM_MASK ^ 0xFFFFFF)) != 0)
        # What the accelerations cover is assumed: only the masks that name nothing else (vol. 2, 2:345).
        only_i = mask == INTERRUPT_BIT
        virtual_i = (cpu.vac.a_int == 1) & only_i
        real_i = (cpu.vdc.d_psr_i == 1) & only_i
        virtual_ic = (cpu.vac.a_ic_um == 1) & ((mask & ((COLLECTION_BIT | USER_MASK) ^ 0xFFFFFF)) == 0)
        intercept(cpu, cause, virtual_i | real_i | virtual_ic)
        if (cpu.psr.vm == 1) & ~real_i:
            wide = (mask & (COLLECTION_BIT | INTERRUPT_BIT)).zero_extend(PSR_WIDTH)
            cpu.vpsr.value = cpu.vpsr.value | wide if set_bits else cpu.vpsr.value & ~wide
            user = (mask & USER_MASK).zero_extend(PSR_WIDTH)
            cpu.psr.value = cpu.psr.value | user if set_bits else cpu.psr.value & ~user
            if set_bits and virtual_i & unmasked(cpu):
                raise Fault(VIRTUAL_EXTERNAL_INTERRUPT, keeps=True)
            return
        wide = mask.zero_extend(PSR_WIDTH)
        cpu.psr.value = cpu.psr.value | wide if set_bits else cpu.psr.value & ~wide

    @machine.instruction("sum imm24", source="SDM vol. 3, sum", mnemonic="SUM", set_bits=True)
    @machine.instruction("rum imm24", source="SDM vol. 3, rum", mnemonic="RUM", set_bits=False)
    def user_mask(cpu: Ia64, mask: Word, *, set_bits: bool) -> None:
        """Set or reset user mask bits; PSR.up stays under PSR.sp."""
        reserved_field((mask & (USER_MASK ^ 0xFFFFFF)) != 0)
        old, wide = cpu.psr.value, mask.zero_extend(PSR_WIDTH)
        _set_user_mask(cpu, old | wide if set_bits else old & ~wide)

    @machine.instruction("mov psr.um = r", source="SDM vol. 3, mov um", mnemonic="MOV to PSR.UM")
    def move_to_user_mask(cpu: Ia64, r: Word) -> None:
        """The user mask from GR[r]{5:0}."""
        value = source(cpu, r)
        reserved_field(value[0] == 1)
        wide = value[5:0].zero_extend(PSR_WIDTH)
        _set_user_mask(cpu, (cpu.psr.value & ~Word(PSR_WIDTH, USER_MASK)) | wide)

    @machine.instruction("mov r = psr.um", source="SDM vol. 3, mov um", mnemonic="MOV from PSR.UM")
    def move_from_user_mask(cpu: Ia64, r: Word) -> None:
        """PSR{5:0}."""
        check_target(cpu, r)
        cpu.write_gr(r, cpu.psr.value[5:0].zero_extend(64))

    @machine.instruction("mov psr.l = r", source="SDM vol. 3, mov psr", mnemonic="MOV to PSR.L")
    def move_to_psr(cpu: Ia64, r: Word) -> None:
        """PSR{31:0} from GR[r]; reserved bits fault before PSR.vm is looked at."""
        privileged(cpu)
        value = source(cpu, r)
        reserved_field((value[31:0] & (PSR_L ^ 0xFFFFFFFF)) != 0)
        intercept(cpu, 6)
        cpu.psr.value = concat(cpu.psr.value[PSR_WIDTH - 1 : 32], value[31:0])

    @machine.instruction("mov r = psr", source="SDM vol. 3, mov psr", mnemonic="MOV from PSR")
    def move_from_psr(cpu: Ia64, r: Word) -> None:
        """PSR{31:0} and {36:35}; everything else reads 0."""
        check_target(cpu, r)
        privileged(cpu)
        intercept(cpu, 7, cpu.vac.a_from_psr)
        value = ite(cpu.psr.vm, virtual_psr(cpu), cpu.psr.value)
        cpu.write_gr(r, (value & PSR_VISIBLE).zero_extend(64))

    @machine.instruction("bsw.0", source="SDM vol. 3, bsw", mnemonic="BSW", bank=0, cause=38)
    @machine.instruction("bsw.1", source="SDM vol. 3, bsw", mnemonic="BSW", bank=1, cause=39)
    def bank_switch(cpu: Ia64, *, bank: int, cause: int) -> None:
        """Select the bank of GR16-31; accelerated, exchange them with vgr and vbgr."""
        privileged(cpu)
        intercept(cpu, cause, cpu.vac.a_bsw)
        if cpu.psr.vm:
            if cpu.vpsr.bn != bank:
                _exchange_banks(cpu, bank)
            cpu.vpsr.bn = bank
        else:
            cpu.psr.bn = bank

    @machine.instruction("rfi", source="SDM vol. 3, rfi", mnemonic="RFI")
    def return_from_interruption(cpu: Ia64) -> None:
        """PSR, IP and the frame from IPSR, IIP and IFS."""
        privileged(cpu)
        intercept(cpu, 37)
        ipsr, ifs = cpu.cr.ipsr, cpu.cr.ifs
        reserved_field((ipsr[PSR_WIDTH - 1 : 0] & ((PSR_L | 0x7FFF_0000_0000) ^ (1 << PSR_WIDTH) - 1)) != 0)
        reserved_field(ipsr[42:41] == 3)
        if ifs[63]:
            frame = ifs[37:0]
            # IFS{6:0} is the size of the frame that returns.
            if (frame[6:0] > 96) | (frame[13:7] > frame[6:0]):
                raise Fault(ILLEGAL_OPERATION)
            rse.shrink(cpu, frame[6:0])
            cpu.cfm = frame
        vm = ipsr[46] & cpu.features.vm
        cpu.psr.value = concat(vm, ipsr[45:0])
        cpu.ip = cpu.cr.iip & ~Word(64, 0xF)


def _set_user_mask(cpu: Ia64, new: Word) -> None:
    """The new value of PSR, of which only user mask bits are new."""
    up = ite(cpu.psr.sp, cpu.psr.up, new[2])
    cpu.psr.value = new.replace(2, 2, up)


def _exchange_banks(cpu: Ia64, bank: int) -> None:
    """The active GR16-31 into the VPD, those of `bank` out of it."""
    leaving, entering = (Word(7, 0), Word(7, 16)) if bank == 0 else (Word(7, 16), Word(7, 0))
    active, vgr, vnat = Word(7, 16), cpu.vgr, cpu.vnat
    if cpu.psr.bn:
        gr, nat = cpu.gr, cpu.nat
        cpu.gr, cpu.nat = copied(gr, active, vgr, entering), copied(nat, active, vnat, entering)
    else:
        gr, nat = cpu.bank0, cpu.bank0_nat
        cpu.bank0, cpu.bank0_nat = copied(gr, active, vgr, entering), copied(nat, active, vnat, entering)
    cpu.vgr, cpu.vnat = copied(vgr, leaving, gr, active), copied(vnat, leaving, nat, active)


def copied(target: Memory, at: Word, origin: Memory, start: Word) -> Memory:
    """`target` after 16 cells of `origin` from `start` were copied to `at`."""
    if target.concrete and origin.concrete:
        for offset in range(16):
            target = target.store(at + offset, origin.load(start + offset))
        return target
    block = Block(at, start, Word(at.width, 16), origin)
    return Memory(target.address_width, target.cell_width, target.root, (*target.stores, block))
