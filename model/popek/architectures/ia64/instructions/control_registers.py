"""mov cr (vol. 3, mov cr, 3:175; vol. 2, section 3.3.5), one form per group of registers.

The order to a register: Illegal Operation, Privileged Operation, NaT consumption, reserved field,
unimplemented address (IFA), Virtualization; from a register: Illegal, Privileged, Virtualization.
Reserved fields are known for DCR and IPSR only; other registers take any value.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, ite

from ..interruptions import (
    ILLEGAL_OPERATION,
    UNIMPLEMENTED_DATA_ADDRESS,
    VIRTUAL_EXTERNAL_INTERRUPT,
    check_target,
    implemented,
    intercept,
    privileged,
    reserved_field,
    source,
)
from ..operands import EXTERNAL_READ, INTERRUPTION, OTHER
from ..state import CR_NUMBERS, DCR_DEFINED, PSR_DEFINED, Ia64
from ..vti.pending import VTPR, unmasked

PAGE: Final = "SDM vol. 3, mov cr (3:175)"
SPURIOUS: Final = 0x0F


def _collecting(cpu: Ia64) -> None:
    """Interruption registers are off limits under PSR.ic = 1 (the guest's kernel: see `assume.ic_first`)."""
    guest_kernel = (cpu.psr.vm == 1) & (cpu.psr.cpl == 0) & ~cpu.assume.ic_first
    if (cpu.psr.ic == 1) & ~guest_kernel:
        raise Fault(ILLEGAL_OPERATION)


def _names(group: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"cr.{name}" for name in group)


def _number(index: Word, group: tuple[str, ...]) -> Word:
    """The register number of the group's member `index`."""
    number = Word(7, CR_NUMBERS[group[-1]])
    for position in range(len(group) - 2, -1, -1):
        number = ite(index == position, Word(7, CR_NUMBERS[group[position]]), number)
    return number


def _is(index: Word, group: tuple[str, ...], name: str) -> Word:
    return index == group.index(name)


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""
    _interruption(machine)
    _external(machine)
    _other(machine)


def _interruption(machine: Machine[Ia64]) -> None:
    names = _names(INTERRUPTION)

    @machine.instruction("mov cr(interruption) = r", source=PAGE, mnemonic="MOV to CR16-25")
    def move_to(cpu: Ia64, index: Word, r: Word) -> None:
        """Write IPSR ISR IIP IFA ITIR IIPA IFS IIM IHA; accelerated, the VPD's copy."""
        _collecting(cpu)
        privileged(cpu)
        value = source(cpu, r)
        reserved_field(_is(index, INTERRUPTION, "ipsr") & ((value & (PSR_DEFINED ^ 0xFFFFFFFFFFFFFFFF)) != 0))
        if _is(index, INTERRUPTION, "ifa") & ~implemented(value, cpu.withheld):
            raise Fault(UNIMPLEMENTED_DATA_ADDRESS)
        allowed = (cpu.vpsr.ic == 0) | (cpu.assume.cr_any_ic == 1)
        intercept(cpu, 4, (cpu.vac.a_to_int_cr == 1) & allowed)
        if cpu.psr.vm:
            cpu.vcr = cpu.vcr.store(_number(index, INTERRUPTION), value)
        else:
            cpu.write_choice(names, index, value)

    @machine.instruction("mov r = cr(interruption)", source=PAGE, mnemonic="MOV from CR16-25")
    def move_from(cpu: Ia64, r: Word, index: Word) -> None:
        """Read one of them; accelerated, from the VPD."""
        _collecting(cpu)
        check_target(cpu, r)
        privileged(cpu)
        allowed = (cpu.vpsr.ic == 0) | (cpu.assume.cr_any_ic == 1)
        intercept(cpu, 5, (cpu.vac.a_from_int_cr == 1) & allowed)
        copy = cpu.vcr.load(_number(index, INTERRUPTION))
        cpu.write_gr(r, ite(cpu.psr.vm, copy, cpu.read_choice(names, index)))


def _external(machine: Machine[Ia64]) -> None:
    names = _names(EXTERNAL_READ)

    @machine.instruction("mov r = cr(external)", source=PAGE, mnemonic="MOV from CR65-71")
    def move_from(cpu: Ia64, r: Word, index: Word) -> None:
        """Read TPR or IRR0-3."""
        check_target(cpu, r)
        privileged(cpu)
        accelerated = _tpr_accelerated(cpu) & _is(index, EXTERNAL_READ, "tpr")
        intercept(cpu, 5, (cpu.vdc.d_extint == 1) | accelerated)
        virtual = (cpu.psr.vm == 1) & accelerated
        copy = cpu.vcr.load(Word(7, VTPR))
        cpu.write_gr(r, ite(virtual, copy, cpu.read_choice(names, index)))

    @machine.instruction("mov r = cr.ivr", source=PAGE, mnemonic="MOV from CR.IVR")
    def acknowledge(cpu: Ia64, r: Word) -> None:
        """The highest unmasked pending interrupt, which thereby is in service; 15 if there is none."""
        check_target(cpu, r)
        privileged(cpu)
        intercept(cpu, 5, cpu.vdc.d_extint)
        ivr = cpu.cr.ivr
        vector = ivr[7:0]
        cpu.write_gr(r, ivr)
        found = vector != SPURIOUS
        one = Word(64, 1) << vector[5:0].zero_extend(64)
        for number in range(4):
            here = found & (vector[7:6] == number)
            name = f"cr.irr{number}"
            cpu[name] = ite(here, cpu[name] & ~one, cpu[name])
        cpu.in_service = ite(found, vector, cpu.in_service)
        cpu.cr.ivr = ite(found, cpu.undefined("next pending interrupt", 64), ivr)

    @machine.instruction("mov cr.tpr = r", source=PAGE, mnemonic="MOV to CR.TPR")
    def set_priority(cpu: Ia64, r: Word) -> None:
        """Write TPR."""
        privileged(cpu)
        value = source(cpu, r)
        accelerated = _tpr_accelerated(cpu)
        intercept(cpu, 4, (cpu.vdc.d_extint == 1) | accelerated)
        if (cpu.psr.vm == 1) & accelerated:
            cpu.vcr = cpu.vcr.store(Word(7, VTPR), value)
            if unmasked(cpu):
                raise Fault(VIRTUAL_EXTERNAL_INTERRUPT, keeps=True)
        else:
            cpu.cr.tpr = value

    @machine.instruction("mov cr.eoi = r", source=PAGE, mnemonic="MOV to CR.EOI")
    def end_of_interrupt(cpu: Ia64, r: Word) -> None:
        """The highest interrupt in service is so no longer."""
        privileged(cpu)
        source(cpu, r)
        intercept(cpu, 4, cpu.vdc.d_extint)
        cpu.in_service = cpu.undefined("next interrupt in service", 8)

    @machine.instruction("mov cr.ivr = r", source=PAGE, mnemonic="MOV to CR.IVR")
    @machine.instruction("mov cr.irr0 = r", source=PAGE, mnemonic="MOV to CR.IRR")
    def read_only(cpu: Ia64, r: Word) -> None:
        """IVR and IRR0-3 cannot be written."""
        raise Fault(ILLEGAL_OPERATION)


def _tpr_accelerated(cpu: Ia64) -> Word:
    return (cpu.vac.a_int == 1) & (cpu.assume.tpr_traps == 0)


def _other(machine: Machine[Ia64]) -> None:
    names = _names(OTHER)

    @machine.instruction("mov cr(other) = r", source=PAGE, mnemonic="MOV to CR")
    def move_to(cpu: Ia64, index: Word, r: Word) -> None:
        """Write DCR IVA PTA LID ITV PMV CMCV LRR0 LRR1."""
        privileged(cpu)
        value = source(cpu, r)
        reserved_field(_is(index, OTHER, "dcr") & ((value & (DCR_DEFINED ^ 0xFFFFFFFFFFFFFFFF)) != 0))
        intercept(cpu, 4)
        cpu.write_choice(names, index, value)

    @machine.instruction("mov r = cr(other)", source=PAGE, mnemonic="MOV from CR")
    def move_from(cpu: Ia64, r: Word, index: Word) -> None:
        """Read one of them."""
        check_target(cpu, r)
        privileged(cpu)
        intercept(cpu, 5)
        cpu.write_gr(r, cpu.read_choice(names, index))

    @machine.instruction("mov cr.itm = r", source=PAGE, mnemonic="MOV to CR.ITM")
    def set_match(cpu: Ia64, r: Word) -> None:
        """Write the interval timer's match value."""
        privileged(cpu)
        value = source(cpu, r)
        intercept(cpu, 4, cpu.vdc.d_itm)
        cpu.cr.itm = value

    @machine.instruction("mov r = cr.itm", source=PAGE, mnemonic="MOV from CR.ITM")
    def get_match(cpu: Ia64, r: Word) -> None:
        """Read it."""
        check_target(cpu, r)
        privileged(cpu)
        intercept(cpu, 5, cpu.vdc.d_itm)
        cpu.write_gr(r, cpu.cr.itm)

    @machine.instruction("mov cr(unimplemented) = r", source=PAGE, mnemonic="MOV to CR (unimplemented)")
    def unimplemented(cpu: Ia64, number: Word, r: Word) -> None:
        """No such control register."""
        raise Fault(ILLEGAL_OPERATION)
