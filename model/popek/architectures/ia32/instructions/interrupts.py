"""INT n, INT3, INTO, INT1 and IRET in protected mode (SDM vol. 2A; vol. 3A, chapter 6)."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, MemoryFault, NotModelledError
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import supervisor_load
from ..descriptors import (
    INTERRUPT_GATE_16,
    INTERRUPT_GATE_32,
    TASK_GATE,
    TRAP_GATE_16,
    TRAP_GATE_32,
    Descriptor,
    error_code,
    fetch_descriptor,
    is_null,
    load_code_segment,
)
from ..stacks import inner_stack, switch_to
from ..state import AC, ESP, GP, NP, PF, Ia32
from .far_transfers import return_code_segment, return_outward
from .flags import IF, IOPL

# IRET takes these from the image at every level (SDM vol. 2A, IRET); RF too, unlike POPF.
IRET_ALWAYS = 0x254DD5
VIF_VIP = 0x180000
TF_NT_RF_VM = 0x00034100


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("INT imm8", source="SDM vol. 2A, INT n", mnemonic="INT n")
    def int_n(cpu: Ia32, vector: Word) -> None:
        """Deliver through the IDT; the gate's DPL must not be below CPL."""
        deliver_software_interrupt(cpu, vector, check_dpl=True)

    @machine.instruction("INT3", source="SDM vol. 2A, INT3", mnemonic="INT3")
    def int3(cpu: Ia32) -> None:
        """Deliver vector 3 through the IDT, as INT n."""
        deliver_software_interrupt(cpu, Word(8, 3), check_dpl=True)

    @machine.instruction("INTO", source="SDM vol. 2A, INTO", mnemonic="INTO")
    def into(cpu: Ia32) -> None:
        """Deliver vector 4 through the IDT if OF is set."""
        if cpu.eflags.of:
            deliver_software_interrupt(cpu, Word(8, 4), check_dpl=True)

    @machine.instruction("INT1", source="SDM vol. 2A, INT1", mnemonic="INT1")
    def int1(cpu: Ia32) -> None:
        """Deliver vector 1 through the IDT without looking at the gate's DPL; its faults have EXT = 1."""
        try:
            deliver_software_interrupt(cpu, Word(8, 1), check_dpl=False)
        except Fault as fault:
            if fault.error_code is None or fault.vector in (PF, AC):
                raise
            # EXT is clear for INT n, INT3 and INTO alone (SDM vol. 3A, "Error Code").
            raise Fault(fault.vector, fault.error_code | 1, memory=fault.memory, keeps=fault.keeps) from None

    for form, size in (("IRETD", 32), ("IRET", 16)):

        @machine.instruction(form, source="SDM vol. 2A, IRET", mnemonic="IRET", size=size)
        def iret(cpu: Ia32, *, size: int) -> None:
            """Return from an interrupt, perhaps to an outer level; flags as CPL and IOPL allow."""
            if cpu.eflags.nt:
                raise NotModelledError("task switch")
            _interrupt_return(cpu, size)


def deliver_software_interrupt(cpu: Ia32, vector: Word, *, check_dpl: bool) -> None:
    """Enter the handler that the IDT names (SDM vol. 2A, "INTERRUPT PROTECTED-MODE").

    Raises:
        Fault: #GP(vector * 8 + 2) for a vector beyond the IDT, a wrong gate, or a gate DPL below CPL;
            #NP(vector * 8 + 2); faults of the target as for a call gate.
    """
    code = concat(Word(5, 0), vector, Word(3, 2))
    offset = concat(Word(21, 0), vector, Word(3, 0))
    if offset + 7 > cpu.idtr.limit.zero_extend(32):
        raise Fault(GP, code)
    address = cpu.idtr.base + offset
    gate = Descriptor(address, supervisor_load(cpu, address, 8))
    gates = (TASK_GATE, INTERRUPT_GATE_16, TRAP_GATE_16, INTERRUPT_GATE_32, TRAP_GATE_32)
    if (gate.s == 1) | ~gate.type.isin(gates):
        raise Fault(GP, code)
    if check_dpl and gate.dpl < cpu.cpl:
        raise Fault(GP, code)
    if not gate.p:
        raise Fault(NP, code)
    if gate.type == TASK_GATE:
        raise NotModelledError("task switch")
    _enter_handler(cpu, gate)


def _enter_handler(cpu: Ia32, gate: Descriptor) -> None:
    selector = gate.gate_selector
    if is_null(selector):
        raise Fault(GP, 0)
    target = fetch_descriptor(cpu, selector)
    level = cpu.cpl
    if ~target.is_code | (target.dpl > level):
        raise Fault(GP, error_code(selector))
    if not target.p:
        raise Fault(NP, error_code(selector))
    size = 32 if gate.type[3] else 16
    offset = gate.gate_offset if size == 32 else gate.gate_offset[15:0].zero_extend(32)
    new_level, old_flags, old_code = level, cpu.eflags.value, cpu.cs.selector.value
    inward = bool(~target.is_conforming & (target.dpl < level))
    if inward:
        new_level = target.dpl
        old_selector, old_pointer = cpu.ss.selector.value, cpu.gpr[ESP]
        switch_to(cpu, inner_stack(cpu, new_level), new_level, 5 * size // 8)
        access.push(cpu, old_selector.zero_extend(size), checked=True)
        access.push(cpu, old_pointer.truncate(size), checked=True)
    access.push(cpu, old_flags.truncate(size), checked=inward)
    access.push(cpu, old_code.zero_extend(size), checked=inward)
    access.push(cpu, cpu.eip.truncate(size), checked=inward)
    if offset > target.limit:
        raise MemoryFault(GP, 0)
    load_code_segment(cpu, selector, target, new_level)
    cpu.eip = offset
    cpu.eflags = cpu.eflags.value & (TF_NT_RF_VM ^ 0xFFFFFFFF)
    if not gate.type[0]:  # an interrupt gate, no trap gate
        cpu.eflags.if_ = 0


def _interrupt_return(cpu: Ia32, size: int) -> None:
    slot = size // 8
    offset = access.peek(cpu, 0, slot).zero_extend(32)
    selector = access.peek(cpu, slot, slot).truncate(16)
    image = access.peek(cpu, 2 * slot, slot).zero_extend(32)
    if size == 32 and image[17] and cpu.cpl == 0:
        raise NotModelledError("return to virtual-8086 mode")
    descriptor = return_code_segment(cpu, selector)
    flags = _returned_flags(cpu, image, size)
    level = selector[1:0]
    if level == cpu.cpl:
        if offset > descriptor.limit:
            raise MemoryFault(GP, 0)
        load_code_segment(cpu, selector, descriptor, level)
        cpu.eip = offset
        access.move_stack_pointer(cpu, 3 * slot)
    else:
        at = access.stack_offset(cpu, 3 * slot)
        return_outward(cpu, selector, descriptor, offset, at, size, absent=NP)
    cpu.eflags = flags


def _returned_flags(cpu: Ia32, image: Word, size: int) -> Word:
    """EFLAGS after IRET, by the level it runs at (the old one)."""
    none = Word(32, 0)
    taken = Word(32, IRET_ALWAYS) | ite(cpu.cpl <= cpu.eflags.iopl, Word(32, IF), none)
    taken = taken | ite(cpu.cpl == 0, Word(32, IOPL | VIF_VIP), none)
    if size == 16:
        taken = concat(Word(16, 0), taken[15:0])
    return (cpu.eflags.value & ~taken) | (image & taken)
