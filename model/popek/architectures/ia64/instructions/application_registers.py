"""mov ar, one form per register (vol. 3, mov ar; vol. 1, section 3.1.8).

The order to a register: Illegal Operation, NaT consumption, reserved field, Privileged Register, Virtualization; from
a register: Illegal Operation, Privileged Register, Virtualization.  The registers of the IA-32 instruction set are out,
but for CSD.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, any_of, ite

from ..access import less_privileged
from ..interruptions import (
    ILLEGAL_OPERATION,
    PRIVILEGED_REGISTER,
    check_target,
    intercept,
    privileged_register,
    reserved_field,
    source,
)
from ..state import Ia64

PAGE: Final = "SDM vol. 3, mov ar; vol. 2, section 3.3.4"
ALL: Final = (1 << 64) - 1
PFS_DEFINED: Final = 0xC3F0_003F_FFFF_FFFF  # pfm, pec, ppl
RSC_DEFINED: Final = 0x3FFF_001F  # mode pl be, loadrs
PRECISIONS: Final = ((9, 8), (22, 21), (35, 34), (48, 47))  # FPSR.sf0-3.pc; 1 is reserved
FPSR_TRAP_DISABLE: Final = 12  # FPSR.sf0.td is reserved


@attrs.frozen
class _Register:
    """An application register.

    Attributes:
        reserved: which values have a reserved field set (width 1).
        kept: its bits that are not ignored.
        lazy: it can be used in enforced lazy mode alone.
    """

    name: str
    reserved: Callable[[Word], Word] = lambda value: FALSE
    kept: int = ALL
    lazy: bool = False


def _outside(defined: int) -> Callable[[Word], Word]:
    return lambda value: (value & (defined ^ ALL)) != 0


def reserved_in_fpsr(value: Word) -> Word:
    """Bits 63:58, a trap disable bit of status field 0, a precision of 1 (width 1)."""
    precision = any_of(value[high:low] == 1 for high, low in PRECISIONS)
    return (value[63:58] != 0) | value[FPSR_TRAP_DISABLE] | precision


REGISTERS: Final = (
    _Register("rsc", _outside(RSC_DEFINED)),
    _Register("bspstore", kept=ALL - 7, lazy=True),
    _Register("rnat", kept=ALL >> 1, lazy=True),
    _Register("csd"),
    _Register("ccv"),
    _Register("unat"),
    _Register("fpsr", reserved_in_fpsr),
    _Register("pfs", _outside(PFS_DEFINED)),
    _Register("lc"),
    _Register("ec", kept=0x3F),
)


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""
    _kernel_registers(machine)
    _timers(machine)
    for register in REGISTERS:
        _moves(machine, register)
    _no_registers(machine)


def _kernel_registers(machine: Machine[Ia64]) -> None:
    @machine.instruction("mov ar.k = r", source=PAGE, mnemonic="MOV to AR.K")
    def move_to_kernel_register(cpu: Ia64, number: Word, r: Word) -> None:
        """Write a kernel register: CPL 0 only, whatever PSR.vm."""
        value = source(cpu, r)
        privileged_register(cpu)
        cpu.kr = cpu.kr.store(number, value)

    @machine.instruction("mov ar.k = imm8", source=PAGE, mnemonic="MOV to AR.K")
    def set_kernel_register(cpu: Ia64, number: Word, value: Word) -> None:
        """Write a kernel register, sign-extended."""
        privileged_register(cpu)
        cpu.kr = cpu.kr.store(number, value.sign_extend(64))

    @machine.instruction("mov r = ar.k", source=PAGE, mnemonic="MOV from AR.K")
    def move_from_kernel_register(cpu: Ia64, r: Word, number: Word) -> None:
        """Read a kernel register at any level."""
        check_target(cpu, r)
        cpu.write_gr(r, cpu.kr.load(number))


def _timers(machine: Machine[Ia64]) -> None:
    @machine.instruction("mov ar.itc = r", source=PAGE, mnemonic="MOV to AR.ITC")
    def set_timer(cpu: Ia64, r: Word) -> None:
        """Write the interval timer."""
        value = source(cpu, r)
        privileged_register(cpu)
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


def _moves(machine: Machine[Ia64], register: _Register) -> None:
    name, upper = register.name, register.name.upper()

    def lazy_mode(cpu: Ia64) -> None:
        if register.lazy and cpu.ar.rsc.mode != 0:
            raise Fault(ILLEGAL_OPERATION)

    def set_to(cpu: Ia64, value: Word) -> None:
        reserved_field(register.reserved(value))
        if name == "rsc":
            value = value.replace(3, 2, less_privileged(value[3:2], cpu.psr.cpl))
        width = 6 if name == "ec" else 64
        cpu[f"ar.{name}"] = (value & register.kept).truncate(width)
        if name == "bspstore":
            cpu.ar.bsp = value & register.kept
            cpu.ar.rnat = cpu.undefined("RNAT after a write of BSPSTORE", 64)

    @machine.instruction(f"mov ar.{name} = r", source=PAGE, mnemonic=f"MOV to AR.{upper}")
    def move_to(cpu: Ia64, r: Word) -> None:
        """Write it; RSC's level becomes no more privileged than CPL, and BSPSTORE takes BSP along."""
        lazy_mode(cpu)
        set_to(cpu, source(cpu, r))

    @machine.instruction(f"mov ar.{name} = imm8", source=PAGE, mnemonic=f"MOV to AR.{upper}")
    def move_immediate_to(cpu: Ia64, value: Word) -> None:
        """Write it, sign-extended; see the form with a register."""
        lazy_mode(cpu)
        set_to(cpu, value.sign_extend(64))

    @machine.instruction(f"mov r = ar.{name}", source=PAGE, mnemonic=f"MOV from AR.{upper}")
    def move_from(cpu: Ia64, r: Word) -> None:
        """Read it at any level; BSPSTORE and RNAT in enforced lazy mode."""
        check_target(cpu, r)
        lazy_mode(cpu)
        cpu.write_gr(r, cpu[f"ar.{name}"].zero_extend(64))


def _no_registers(machine: Machine[Ia64]) -> None:
    @machine.instruction("mov r = ar.bsp", source=PAGE, mnemonic="MOV from AR.BSP")
    def move_from_bsp(cpu: Ia64, r: Word) -> None:
        """Read BSP at any level."""
        check_target(cpu, r)
        cpu.write_gr(r, cpu.ar.bsp)

    @machine.instruction("mov ar.bsp = r", source=PAGE, mnemonic="MOV to AR.BSP")
    def read_only(cpu: Ia64, r: Word) -> None:
        """BSP cannot be written."""
        raise Fault(ILLEGAL_OPERATION)

    @machine.instruction("mov ar(reserved) = r", source=PAGE, mnemonic="MOV to AR (reserved)")
    def to_none(cpu: Ia64, number: Word, r: Word) -> None:
        """No such application register."""
        raise Fault(ILLEGAL_OPERATION)

    @machine.instruction("mov r = ar(reserved)", source=PAGE, mnemonic="MOV from AR (reserved)")
    def from_none(cpu: Ia64, r: Word, number: Word) -> None:
        """No such application register."""
        raise Fault(ILLEGAL_OPERATION)

    @machine.instruction("mov ar(ignored) = r", source=PAGE, mnemonic="MOV to AR (ignored)")
    def to_ignored(cpu: Ia64, number: Word, r: Word) -> None:
        """It takes no value; a NaT is consumed with a fault."""
        source(cpu, r)

    @machine.instruction("mov r = ar(ignored)", source=PAGE, mnemonic="MOV from AR (ignored)")
    def from_ignored(cpu: Ia64, r: Word, number: Word) -> None:
        """It reads 0."""
        check_target(cpu, r)
        cpu.write_gr(r, Word(64, 0))
