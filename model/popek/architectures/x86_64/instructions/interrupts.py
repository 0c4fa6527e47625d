"""INT n, INT3, INTO, INT1 and IRET in IA-32e mode (SDM vol. 2A; vol. 3A, "Exception and Interrupt Handling")."""

from __future__ import annotations

from popek.architectures.x86.access import supervisor_load
from popek.architectures.x86.descriptors import (
    Descriptor,
    error_code,
    fetch_descriptor,
    is_null,
)
from popek.architectures.x86.exceptions import (
    GP,
    NP,
    UD,
    external,
)
from popek.architectures.x86.flags import TF_NT_RF_VM, returned_flags
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import needs_long_mode
from ..descriptors import INTERRUPT_GATE, TRAP_GATE, WideDescriptor, return_code_segment
from ..stacks import enter_level, interrupt_stack_slot, level_slot, push_frame, stack_pointer_at
from ..state import RSP, X64
from .far_transfers import enter_code_segment, return_to


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("INT imm8", source="SDM vol. 2A, INT n", mnemonic="INT n")
    def int_n(cpu: X64, vector: Word) -> None:
        """Deliver through the IDT; the gate's DPL must not be below CPL."""
        cpu.interception.early(cpu, "INT n", vector)
        cpu.interception.software_interrupt(cpu, vector)
        deliver_software_interrupt(cpu, vector, check_dpl=True)

    @machine.instruction("INT3", source="SDM vol. 2A, INT3", mnemonic="INT3")
    def int3(cpu: X64) -> None:
        """Deliver vector 3 through the IDT, as INT n."""
        cpu.interception.software_exception(cpu, 3)
        deliver_software_interrupt(cpu, Word(8, 3), check_dpl=True)

    @machine.instruction("INTO", source="SDM vol. 2A, INTO", mnemonic="INTO")
    def into(cpu: X64) -> None:
        """#UD in 64-bit mode; in compatibility mode deliver vector 4 if OF is set."""
        if cpu.long:
            raise Fault(UD)
        if cpu.rflags.of:
            cpu.interception.software_exception(cpu, 4)
            deliver_software_interrupt(cpu, Word(8, 4), check_dpl=True)

    @machine.instruction("INT1", source="SDM vol. 2A, INT1", mnemonic="INT1")
    def int1(cpu: X64) -> None:
        """Deliver vector 1 through the IDT without looking at the gate's DPL; its faults have EXT = 1."""
        cpu.interception.early(cpu, "INT1")
        cpu.interception.software_exception(cpu, 1)
        with external():
            deliver_software_interrupt(cpu, Word(8, 1), check_dpl=False)

    for form, size in (("IRET", 16), ("IRETD", 32), ("IRETQ", 64)):

        @machine.instruction(form, source="SDM vol. 2A, IRET", mnemonic="IRET", size=size)
        def iret(cpu: X64, *, size: int) -> None:
            """Return from an interrupt; #GP(0) with NT, as there are no tasks; flags as CPL and IOPL allow.

            In 64-bit mode SS:RSP is popped even if the level stays.
            """
            if size == 64:
                needs_long_mode(cpu)
            cpu.interception.early(cpu, "IRET")
            cpu.interception.interrupt_return(cpu)
            if cpu.rflags.nt:
                raise Fault(GP, 0)
            _interrupt_return(cpu, size)


def deliver_software_interrupt(cpu: X64, vector: Word, *, check_dpl: bool) -> None:
    """Enter the handler that the IDT names (SDM vol. 2A, INT n, "IA-32e-MODE").

    Raises:
        Fault: #GP(vector * 8 + 2) for a vector beyond the IDT, a wrong gate, or a gate DPL below CPL;
            #NP(vector * 8 + 2); faults of the target as for a call gate.
    """
    code = concat(Word(5, 0), vector, Word(3, 2))
    offset = concat(Word(52, 0), vector, Word(4, 0))
    if offset + 15 > cpu.idtr.limit.zero_extend(64):
        raise Fault(GP, code)
    address = cpu.idtr.base + offset
    low = Descriptor(address, supervisor_load(cpu, address, 8))
    refused = (low.s == 1) | ~low.type.isin((INTERRUPT_GATE, TRAP_GATE))
    if check_dpl:
        refused = refused | (low.dpl < cpu.cpl)
    if refused:
        raise Fault(GP, code)
    if not low.p:
        raise Fault(NP, code)
    _enter_handler(cpu, WideDescriptor(low, supervisor_load(cpu, address + 8, 8)))


def _enter_handler(cpu: X64, gate: WideDescriptor) -> None:
    selector = gate.low.gate_selector
    if is_null(selector):
        raise Fault(GP, 0)
    target = fetch_descriptor(cpu, selector)
    level = cpu.cpl
    wide_code = target.is_code & (target.raw[54:53] == 1)  # L = 1, D = 0
    if ~wide_code | (target.dpl > level):
        raise Fault(GP, error_code(selector))
    if not target.p:
        raise Fault(NP, error_code(selector))
    ist = gate.low.raw[34:32]
    inward = bool(~target.is_conforming & (target.dpl < level))
    new_level = target.dpl if inward else level
    top = cpu.gpr[RSP]
    if inward or ist != 0:
        top = stack_pointer_at(cpu, ite(ist == 0, level_slot(new_level), interrupt_stack_slot(ist)))
    frame = [
        cpu.ss.selector.value.zero_extend(64),
        cpu.gpr[RSP],
        cpu.rflags.value.zero_extend(64),
        cpu.cs.selector.value.zero_extend(64),
        cpu.rip,
    ]
    push_frame(cpu, top & ~Word(64, 15), frame, new_level)
    if inward:
        enter_level(cpu, new_level)
    enter_code_segment(cpu, selector, target, gate.gate_offset, new_level)
    cleared = cpu.rflags.value & (TF_NT_RF_VM ^ 0xFFFFFFFF)
    cpu.rflags = ite(gate.low.type[0], cleared, cleared.replace(9, 9, 0))  # a trap gate leaves IF alone


def _interrupt_return(cpu: X64, size: int) -> None:
    slot = size // 8
    offset, selector, image = access.peek_all(cpu, 0, slot, 3)
    selector = selector.truncate(16)
    descriptor = return_code_segment(cpu, selector)
    flags = returned_flags(cpu, image.resize(32), size)
    wide = offset.zero_extend(64)
    if (selector[1:0] != cpu.cpl) | cpu.long:
        stack = access.peek_all(cpu, 3 * slot, slot, 2)
        return_to(cpu, selector, descriptor, wide, stack)
    else:
        enter_code_segment(cpu, selector, descriptor, wide, selector[1:0])
        access.move_stack_pointer(cpu, 3 * slot)
    cpu.rflags = flags
