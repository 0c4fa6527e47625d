"""Interruptions: vectors, the checks that raise them, and delivery (vol. 2, chapters 5 and 8).

A fault leaves the state as it was; a trap follows the instruction's effect.  On the real machine every
interruption goes to the VMM: delivery clears PSR.vm.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.outcome import Fault, Trap, Vector
from popek.kernel.words import FALSE, TRUE, Word, any_of, concat, ite, symbol

from .state import PSR_WIDTH, Ia64

GENERAL_EXCEPTION: Final = 0x5400  # told apart by ISR.code
ILLEGAL_OPERATION = Vector("Illegal Operation fault", GENERAL_EXCEPTION)
PRIVILEGED_OPERATION = Vector("Privileged Operation fault", GENERAL_EXCEPTION)
PRIVILEGED_REGISTER = Vector("Privileged Register fault", GENERAL_EXCEPTION)
RESERVED_FIELD = Vector("Reserved Register/Field fault", GENERAL_EXCEPTION)
DISABLED_ISA_TRANSITION = Vector("Disabled Instruction Set Transition fault", GENERAL_EXCEPTION)
UNIMPLEMENTED_DATA_ADDRESS = Vector("Unimplemented Data Address fault", GENERAL_EXCEPTION)
DISABLED_FP_REGISTER = Vector("Disabled FP-register fault", 0x5500, 2)  # which half: ISR.code
REGISTER_NAT = Vector("Register NaT Consumption fault", 0x5600)
BREAK = Vector("Break Instruction fault", 0x2C00, 64)
EXTERNAL_INTERRUPT = Vector("External Interrupt", 0x3000)
VIRTUAL_EXTERNAL_INTERRUPT = Vector("Virtual External Interrupt", 0x3400)
DATA_TLB = Vector("Data TLB fault", 0x0800)
DATA_ACCESS_RIGHTS = Vector("Data Access Rights fault", 0x5300)
UNALIGNED = Vector("Unaligned Data Reference fault", 0x5A00)
SPECULATION = Vector("Speculative Operation fault", 0x5700)
LOWER_PRIVILEGE_TRANSFER = Vector("Lower-Privilege Transfer trap", 0x5E00)
VIRTUALIZATION = Vector("Virtualization fault", 0x6100, 8)  # the error code is the cause handed to GR24

# ISR.code{7:4} of the vectors that share General Exception (vol. 2, chapter 8; Ski).
ISR_CODES: Final = {
    ILLEGAL_OPERATION: 0x00,
    PRIVILEGED_OPERATION: 0x10,
    PRIVILEGED_REGISTER: 0x20,
    RESERVED_FIELD: 0x30,
    UNIMPLEMENTED_DATA_ADDRESS: 0x30,
    DISABLED_ISA_TRANSITION: 0x40,
}

# The most significant implemented bit of an offset within a region; 50 is the architecture's minimum.
IMPLEMENTED_MSB: Final = 50

# What an interruption keeps of PSR: up mfl mfh pk dt rt mc it (vol. 2, table 3-2).
KEPT: Final = 0x18_0802_8034


# -- checks, in the words of vol. 3 --------------------------------------------------------------


def check_target(cpu: Ia64, target: Word) -> None:
    """Illegal Operation for r0 and for a stacked register outside the frame."""
    if (target == 0) | ~cpu.in_frame(target):
        raise Fault(ILLEGAL_OPERATION)


def privileged(cpu: Ia64) -> None:
    """Privileged Operation above CPL 0."""
    if cpu.psr.cpl != 0:
        raise Fault(PRIVILEGED_OPERATION)


def privileged_register(cpu: Ia64) -> None:
    """Privileged Register above CPL 0."""
    if cpu.psr.cpl != 0:
        raise Fault(PRIVILEGED_REGISTER)


def intercept(cpu: Ia64, cause: int, unless: Word = FALSE) -> None:
    """Virtualization fault under PSR.vm, unless an acceleration or a disable bit lets it through."""
    if (cpu.psr.vm == 1) & ~unless:
        raise Fault(VIRTUALIZATION, cause)


def source(cpu: Ia64, number: Word) -> Word:
    """GR[number]; a NaT is consumed with a fault."""
    if cpu.read_nat(number):
        raise Fault(REGISTER_NAT)
    return cpu.read_gr(number)


def floating_target(number: Word) -> None:
    """Illegal Operation for f0 and f1."""
    if number < 2:
        raise Fault(ILLEGAL_OPERATION)


def floating_enabled(cpu: Ia64, *numbers: Word) -> None:
    """Disabled FP-register where PSR.dfl or PSR.dfh disables the half that one of them lies in."""
    low = cpu.psr.dfl & any_of((number >= 2) & (number < 32) for number in numbers)
    high = cpu.psr.dfh & any_of(number >= 32 for number in numbers)
    if low | high:
        raise Fault(DISABLED_FP_REGISTER, concat(high, low))


def reserved_field(condition: Word) -> None:
    """Reserved Register/Field where the condition (width 1) holds."""
    if condition:
        raise Fault(RESERVED_FIELD)


def implemented(address: Word, withheld: Word) -> Word:
    """The virtual address exists (width 1); PSR.vm withholds one bit (vol. 3, thash, ttag, mov cr)."""
    top = address[60:IMPLEMENTED_MSB]
    wide = (top == 0) | (~top == 0)
    return wide & (~withheld | (address[IMPLEMENTED_MSB] == address[IMPLEMENTED_MSB - 1]))


# -- delivery ---------------------------------------------------------------------------------------

CAUSE_REGISTER: Final = Word(7, 24)
OPCODE_REGISTER: Final = Word(7, 25)
OPCODE_BITS: Final = 41


def deliver(before: Ia64, trap: Trap[Ia64], *, opcode: Word | None = None, cause: Word = TRUE) -> Ia64:
    """The state at the interruption vector.

    With PSR.ic = 1 the old PSR, IP and ISR are collected and IFS is invalidated; PSR loses vm, cpl, bn,
    ic, i and the rest, keeps `KEPT`, and takes be and pp from DCR.  An intercept hands over, in bank 0,
    its opcode in GR25 and, where the VMM wants it, its cause in GR24 (vol. 2, 2:333-2:335).

    Args:
        opcode: the instruction in its slot (41 bits), which the semantics does not look at; left open by default.
        cause: config_options.cause of PAL_VP_INIT_ENV (1 bit).
    """
    cpu = trap.state.copy()
    old = cpu.psr.value
    collect = cpu.psr.ic
    code = Word(41, ISR_CODES.get(trap.vector, 0))
    if trap.vector is DISABLED_FP_REGISTER and trap.error_code is not None:
        code = trap.error_code.zero_extend(41)
    cpu.cr.ipsr = ite(collect, old.zero_extend(64), cpu.cr.ipsr)
    cpu.cr.iip = ite(collect, cpu.ip, cpu.cr.iip)
    cpu.cr.ifs = ite(collect, Word(64, 0), cpu.cr.ifs)
    isr = concat(Word(20, 0), cpu.psr.ed, cpu.psr.ri, code)
    cpu.cr.isr = ite(collect, isr, cpu.cr.isr)
    if trap.vector is BREAK and trap.error_code is not None:
        cpu.cr.iim = ite(collect, trap.error_code, cpu.cr.iim)
    cpu.psr.value = old & Word(PSR_WIDTH, KEPT)
    cpu.psr.be, cpu.psr.pp = cpu.cr.dcr[1], cpu.cr.dcr[0]
    if trap.vector is VIRTUALIZATION and trap.error_code is not None:
        told = cpu.read_gr(CAUSE_REGISTER)
        cpu.write_gr(CAUSE_REGISTER, ite(cause, trap.error_code.zero_extend(64), told))
        slot = symbol("opcode", OPCODE_BITS) if opcode is None else opcode
        cpu.write_gr(OPCODE_REGISTER, slot.zero_extend(64))
    vector = Word(64, trap.vector.number)
    cpu.branch(cpu.cr.iva.replace(14, 0, 0) + vector)
    return cpu
