"""mov ar for the kernel registers and the interval timer (vol. 3, mov ar)."""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, ite

from ..interruptions import (
    ILLEGAL_OPERATION,
    PRIVILEGED_REGISTER,
    check_target,
    intercept,
    privileged_register,
    source,
)
from ..state import Ia64

PAGE: Final = "SDM vol. 3, mov ar; vol. 2, section 3.3.4"


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("mov ar.k = r", source=PAGE, mnemonic="MOV to AR.K")
    def move_to_kernel_register(cpu: Ia64, number: Word, r: Word) -> None:
        """Write a kernel register: CPL 0 only, whatever PSR.vm."""
        privileged_register(cpu)
        cpu.kr = cpu.kr.store(number, source(cpu, r))

    @machine.instruction("mov r = ar.k", source=PAGE, mnemonic="MOV from AR.K")
    def move_from_kernel_register(cpu: Ia64, r: Word, number: Word) -> None:
        """Read a kernel register at any level."""
        check_target(cpu, r)
        cpu.write_gr(r, cpu.kr.load(number))

    @machine.instruction("mov ar.itc = r", source=PAGE, mnemonic="MOV to AR.ITC")
    def set_timer(cpu: Ia64, r: Word) -> None:
        """Write the interval timer."""
        privileged_register(cpu)
        value = source(cpu, r)
        intercept(cpu, 1)
        cpu.ar.itc = value

    @machine.instruction("mov ar.itc = imm8", source=PAGE, mnemonic="MOV to AR.ITC")
    def set_timer_immediate(cpu: Ia64, value: Word) -> None:
        """Write the interval timer, sign-extended."""
        privileged_register(cpu)
        intercept(cpu, 2)
        cpu.ar.itc = value.sign_extend(64)

    @machine.instruction("mov r = ar.itc", source=PAGE, mnemonic="MOV from AR.ITC", register="ar.itc")
    @machine.instruction("mov r = ar.ruc", source=PAGE, mnemonic="MOV from AR.RUC", register="ar.ruc")
    def read_timer(cpu: Ia64, r: Word, *, register: str) -> None:
        """Read the interval timer; PSR.si reserves it for CPL 0, and under PSR.vm for the VMM."""
        check_target(cpu, r)
        if (cpu.psr.si == 1) & (cpu.psr.cpl != 0):
            raise Fault(PRIVILEGED_REGISTER)
        intercept(cpu, 3, ~cpu.psr.si)
        offset = (cpu.psr.vm == 1) & (cpu.features.gitc == 1)
        cpu.write_gr(r, cpu[register] + ite(offset, cpu.ito, Word(64, 0)))

    @machine.instruction("mov ar.bsp = r", source=PAGE, mnemonic="MOV to AR.BSP")
    def read_only(cpu: Ia64, r: Word) -> None:
        """BSP cannot be written."""
        raise Fault(ILLEGAL_OPERATION)
