"""Changes of level and mode: epc, vmsw, br.call, br.ret, br.ia, break (vol. 3)."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from ..access import code_page, less_privileged, promotes
from ..interruptions import (
    BREAK,
    DISABLED_ISA_TRANSITION,
    ILLEGAL_OPERATION,
    LOWER_PRIVILEGE_TRANSFER,
    VIRTUALIZATION,
    privileged,
)
from ..state import RING, Ia64
from . import rse

VMSW_CAUSE = 40


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("epc", source="SDM vol. 3, epc", mnemonic="EPC")
    def enter_privileged_code(cpu: Ia64) -> None:
        """Raise CPL to the level of a promotion page."""
        if cpu.ar.pfs.ppl < cpu.psr.cpl:
            raise Fault(ILLEGAL_OPERATION)
        page = code_page(cpu)
        raised = ite(page.pl < cpu.psr.cpl, page.pl, cpu.psr.cpl)
        translated = ite(promotes(cpu), raised, cpu.psr.cpl)
        cpu.psr.cpl = ite(cpu.psr.it, translated, Word(2, 0))

    @machine.instruction("vmsw.0", source="SDM vol. 3, vmsw (3:273)", mnemonic="VMSW", vm=0)
    @machine.instruction("vmsw.1", source="SDM vol. 3, vmsw (3:273)", mnemonic="VMSW", vm=1)
    def virtual_machine_switch(cpu: Ia64, *, vm: int) -> None:
        """Set PSR.vm, on a promotion page with vmsw enabled; the current PSR.vm is not consulted."""
        if cpu.features.vm == 0:
            raise Fault(ILLEGAL_OPERATION)
        privileged(cpu)
        enabled = (cpu.features.vm_enabled == 1) & (cpu.features.vmsw_enabled == 1) & (cpu.vdc.d_vmsw == 0)
        if ~(enabled & promotes(cpu)):
            raise Fault(VIRTUALIZATION, VMSW_CAUSE)
        cpu.psr.vm = vm

    @machine.instruction("br.call b = imm25", source="SDM vol. 3, br", mnemonic="BR.CALL")
    @machine.instruction("brl.call b = imm25", source="SDM vol. 3, brl", mnemonic="BRL.CALL")
    def call(cpu: Ia64, b1: Word, displacement: Word) -> None:
        """Call: the frame, EC and CPL go to PFS."""
        origin = cpu.bundle
        cpu.br = cpu.br.store(b1, origin + 16)
        cpu.ar.pfs = concat(cpu.psr.cpl, Word(4, 0), cpu.ar.ec, Word(14, 0), cpu.cfm.value)
        rse.grow(cpu, cpu.cfm.sol)
        size = cpu.cfm.sof - cpu.cfm.sol
        cpu.cfm = concat(Word(31, 0), size)
        cpu.branch(origin + (displacement.sign_extend(64) << 4))

    @machine.instruction("br.ret b", source="SDM vol. 3, br", mnemonic="BR.RET")
    def ret(cpu: Ia64, b2: Word) -> None:
        """Return: the frame and EC from PFS, and CPL where ppl is less privileged."""
        frame = cpu.ar.pfs.pfm
        if (frame[6:0] > RING) | (frame[13:7] > frame[6:0]):
            raise Fault(ILLEGAL_OPERATION)
        target, ppl = cpu.br.load(b2), cpu.ar.pfs.ppl
        rse.shrink(cpu, frame[13:7])
        cpu.cfm = frame
        cpu.ar.ec = cpu.ar.pfs.pec
        lowered = cpu.psr.cpl < ppl
        cpu.psr.cpl = less_privileged(cpu.psr.cpl, ppl)
        cpu.branch(target)
        if lowered & cpu.psr.lp:
            raise Fault(LOWER_PRIVILEGE_TRANSFER, keeps=True)

    @machine.instruction("br.ia b", source="SDM vol. 3, br; Ski", mnemonic="BR.IA")
    def branch_to_ia32(cpu: Ia64, b2: Word) -> None:
        """Go on in the IA-32 instruction set, unless PSR.di."""
        if cpu.psr.di:
            raise Fault(DISABLED_ISA_TRANSITION)
        target = cpu.br.load(b2)
        cpu.psr.is_ = 1
        cpu.ip, cpu.psr.ri = target & 0xFFFFFFF0, 0

    @machine.instruction("break imm21", source="SDM vol. 3, break", mnemonic="BREAK")
    def break_(cpu: Ia64, immediate: Word) -> None:
        """Break Instruction fault at every level; IIM holds the immediate."""
        raise Fault(BREAK, immediate.zero_extend(64))
