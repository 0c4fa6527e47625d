"""INT n, INT3, INTO, INT1, BOUND and IRET (SDM vol. 2A; vol. 3A, chapter 6; vol. 3B, chapter 20)."""

from __future__ import annotations

from popek.architectures.x86.descriptors import (
    INTERRUPT_GATE_16,
    INTERRUPT_GATE_32,
    TASK_GATE,
    TRAP_GATE_16,
    TRAP_GATE_32,
    Descriptor,
    code_behind_gate,
    error_code,
    load_code_segment,
    load_null,
    return_code_segment,
)
from popek.architectures.x86.exceptions import (
    BR,
    GP,
    NP,
    external,
)
from popek.architectures.x86.flags import IF, IOPL, IRET_ALWAYS, TF_NT_RF_VM, returned_flags
from popek.architectures.x86.registers import (
    EFLAGS_DEFINED,
    EFLAGS_FIXED,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, MemoryFault, NotModelledError
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import MemoryOperand, supervisor_load
from ..descriptors import load_real_segment
from ..stacks import check_inner_room, inner_stack, switch_to
from ..state import (
    ESP,
    VIRTUAL_8086_RIGHTS,
    Ia32,
)
from .far_transfers import enter_real_segment, return_inside, return_outward
from .flags import load_virtual_flags, virtual_flags

# IRET takes these from the image at every level (SDM vol. 2A, IRET); RF too, unlike POPF.
TF_RF = 0x00010100
TF_IF_RF_AC = 0x00050300


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("INT imm8", source="SDM vol. 2A, INT n", mnemonic="INT n")
    def int_n(cpu: Ia32, vector: Word) -> None:
        """Deliver through the IDT; the gate's DPL must not be below CPL.

        In virtual-8086 mode IOPL must be 3, or CR4.VME lets the TSS choose the 8086 program's own vector table.
        """
        cpu.interception.early(cpu, "INT n", vector)
        if cpu.virtual_8086 and _redirected(cpu, vector):
            _deliver_to_virtual_8086(cpu, vector)
            return
        cpu.interception.software_interrupt(cpu, vector)
        deliver_software_interrupt(cpu, vector, check_dpl=True)

    @machine.instruction("INT3", source="SDM vol. 2A, INT3", mnemonic="INT3")
    def int3(cpu: Ia32) -> None:
        """Deliver vector 3 through the IDT, as INT n."""
        cpu.interception.software_exception(cpu, 3)
        deliver_software_interrupt(cpu, Word(8, 3), check_dpl=True)

    @machine.instruction("INTO", source="SDM vol. 2A, INTO", mnemonic="INTO")
    def into(cpu: Ia32) -> None:
        """Deliver vector 4 through the IDT if OF is set."""
        if cpu.eflags.of:
            cpu.interception.software_exception(cpu, 4)
            deliver_software_interrupt(cpu, Word(8, 4), check_dpl=True)

    @machine.instruction("INT1", source="SDM vol. 2A, INT1", mnemonic="INT1")
    def int1(cpu: Ia32) -> None:
        """Deliver vector 1 through the IDT without looking at the gate's DPL; its faults have EXT = 1."""
        cpu.interception.early(cpu, "INT1")
        cpu.interception.software_exception(cpu, 1)
        with external():
            deliver_software_interrupt(cpu, Word(8, 1), check_dpl=False)

    for size in (16, 32):

        @machine.instruction(
            f"BOUND r{size}, m{size}&{size}", source="SDM vol. 2A, BOUND", mnemonic="BOUND", size=size
        )
        def bound(cpu: Ia32, r: Word, m: MemoryOperand, *, size: int) -> None:
            """#BR unless the signed index lies between the two bounds in memory, both included."""
            index = cpu.read_register(r, size)
            lower, upper = access.load(cpu, m, size // 8), access.load(cpu, m + size // 8, size // 8)
            if index.signed_lt(lower) | upper.signed_lt(index):
                raise Fault(BR)

    for form, size in (("IRETD", 32), ("IRET", 16)):

        @machine.instruction(form, source="SDM vol. 2A, IRET", mnemonic="IRET", size=size)
        def iret(cpu: Ia32, *, size: int) -> None:
            """Return from an interrupt, perhaps to an outer level; flags as CPL and IOPL allow."""
            cpu.interception.early(cpu, "IRET")
            cpu.interception.interrupt_return(cpu)
            if not cpu.protected:
                _real_interrupt_return(cpu, size)
                return
            if cpu.eflags.nt:
                cpu.interception.task_switch(cpu, "iret")
                raise NotModelledError("task switch")
            _interrupt_return(cpu, size)


def deliver_software_interrupt(cpu: Ia32, vector: Word, *, check_dpl: bool) -> None:
    """Enter the handler that the IDT names (SDM vol. 2A, "INTERRUPT PROTECTED-MODE").

    Raises:
        Fault: #GP(vector * 8 + 2) for a vector beyond the IDT, a wrong gate, or a gate DPL below CPL;
            #NP(vector * 8 + 2); faults of the target as for a call gate.
    """
    if cpu.real:
        _deliver_in_real_mode(cpu, vector)
        return
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
        cpu.interception.task_switch(cpu, "gate", None, gate)
        raise NotModelledError("task switch")
    _enter_handler(cpu, gate)


def _deliver_in_real_mode(cpu: Ia32, vector: Word) -> None:
    """Enter the handler that the interrupt vector table at IDTR names (SDM vol. 2A, "REAL-ADDRESS-MODE").

    Raises:
        Fault: #GP for a vector beyond the table.
    """
    offset = concat(Word(22, 0), vector, Word(2, 0))
    if offset + 3 > cpu.idtr.limit.zero_extend(32):
        raise Fault(GP, 0)
    _enter_8086_handler(cpu, cpu.idtr.base + offset, cpu.eflags.value[15:0])
    cpu.eflags = cpu.eflags.value & (TF_IF_RF_AC ^ 0xFFFFFFFF)


def _enter_8086_handler(cpu: Ia32, entry: Word, image: Word) -> None:
    """Push FLAGS (`image`), CS and IP and go where the four bytes at `entry` point."""
    target = supervisor_load(cpu, entry, 4)
    for word in (image, cpu.cs.selector.value, cpu.eip[15:0]):
        access.push(cpu, word)
    enter_real_segment(cpu, target[31:16], target[15:0])


def _redirected(cpu: Ia32, vector: Word) -> bool:
    """Whether INT n in virtual-8086 mode goes to the 8086 program's own handler (SDM vol. 3B, "Class 3").

    Raises:
        Fault: #GP(0), the interrupt is the virtual-8086 monitor's; the map is not within the TSS.
    """
    if cpu.cr4.vme:
        limit = cpu.tr.limit
        if (limit < 0x67) | ~cpu.tr.rights.type[3]:
            raise Fault(GP, 0)
        # The redirection map is the 32 bytes below the I/O permission map.
        base = supervisor_load(cpu, cpu.tr.base + 0x66, 2).zero_extend(32)
        where = base - 32 + concat(Word(27, 0), vector[7:3])
        if where > limit:
            raise Fault(GP, 0)
        bits = supervisor_load(cpu, cpu.tr.base + where, 1)
        if (bits >> concat(Word(5, 0), vector[2:0]))[0] == 0:
            return True
    if cpu.eflags.iopl != 3:
        raise Fault(GP, 0)
    return False


def _deliver_to_virtual_8086(cpu: Ia32, vector: Word) -> None:
    """Enter the handler in the vector table at linear address 0; IF, or below IOPL 3 VIF, is cleared."""
    own = cpu.eflags.iopl == 3
    image = ite(own, cpu.eflags.value[15:0], virtual_flags(cpu))
    _enter_8086_handler(cpu, concat(Word(22, 0), vector, Word(2, 0)), image)
    cpu.eflags = cpu.eflags.value & (TF_RF ^ 0xFFFFFFFF)
    cpu.eflags.if_ = cpu.eflags.if_ & ~own
    cpu.eflags.vif = cpu.eflags.vif & own


def _real_interrupt_return(cpu: Ia32, size: int) -> None:
    """IRET in real-address and virtual-8086 mode (SDM vol. 2A, IRET; vol. 3B, chapter 20)."""
    slot = size // 8
    virtual = bool(cpu.virtual_8086 & (cpu.eflags.iopl != 3))
    if virtual and (size == 32 or not cpu.cr4.vme):
        raise Fault(GP, 0)
    offset = access.peek(cpu, 0, slot)
    selector = access.peek(cpu, slot, slot).truncate(16)
    image = access.peek(cpu, 2 * slot, slot)
    before = cpu.cpl
    enter_real_segment(cpu, selector, offset)
    access.move_stack_pointer(cpu, 3 * slot)
    if virtual:
        load_virtual_flags(cpu, image)
        return
    # VM, VIF and VIP stay, and in virtual-8086 mode IOPL does.
    taken = Word(32, IRET_ALWAYS | IF) | ite(before == 0, Word(32, IOPL), Word(32, 0))
    if size == 16:
        taken = taken & 0xFFFF
    cpu.eflags = (cpu.eflags.value & ~taken) | (image.zero_extend(32) & taken)


def _enter_handler(cpu: Ia32, gate: Descriptor) -> None:
    selector = gate.gate_selector
    target, level = code_behind_gate(cpu, selector), cpu.cpl
    if not target.p:
        raise Fault(NP, error_code(selector))
    size = 32 if gate.type[3] else 16
    offset = gate.gate_offset if size == 32 else gate.gate_offset[15:0].zero_extend(32)
    inward, virtual = bool(~target.is_conforming & (target.dpl < level)), bool(cpu.virtual_8086)
    if virtual and (not inward or target.dpl != 0):
        raise Fault(GP, error_code(selector))
    new_level, slot = target.dpl if inward else level, size // 8
    frame = [cpu.eflags.value, cpu.cs.selector.value, cpu.eip]
    if inward:
        frame = [cpu.ss.selector.value, cpu.gpr[ESP], *frame]
    if virtual:
        frame = [*(getattr(cpu, name).selector.value for name in ("gs", "fs", "ds", "es")), *frame]
    stack = inner_stack(cpu, new_level) if inward else None
    if stack is None:
        access.check_room(cpu, len(frame), slot)
    else:
        check_inner_room(cpu, stack, len(frame) * slot)
    if offset > target.limit:
        raise MemoryFault(GP, 0)
    if stack is not None:
        switch_to(cpu, stack)
    for item in frame:
        access.push(cpu, item.zero_extend(32).truncate(size), checked=True)
    load_code_segment(cpu, selector, target, new_level)
    cpu.eip = offset
    if virtual:
        for segment in (cpu.es, cpu.ds, cpu.fs, cpu.gs):
            load_null(segment, Word(16, 0))
    cpu.eflags = cpu.eflags.value & (TF_NT_RF_VM ^ 0xFFFFFFFF)
    if not gate.type[0]:  # an interrupt gate, no trap gate
        cpu.eflags.if_ = 0


def _interrupt_return(cpu: Ia32, size: int) -> None:
    slot = size // 8
    offset = access.peek(cpu, 0, slot).zero_extend(32)
    selector = access.peek(cpu, slot, slot).truncate(16)
    image = access.peek(cpu, 2 * slot, slot).zero_extend(32)
    if size == 32 and image[17] and cpu.cpl == 0:
        _enter_virtual_8086(cpu, selector, offset, image)
        return
    descriptor = return_code_segment(cpu, selector)
    flags = returned_flags(cpu, image, size)
    level = selector[1:0]
    if level == cpu.cpl:
        return_inside(cpu, selector, descriptor, offset)
        access.move_stack_pointer(cpu, 3 * slot)
    else:
        at = access.stack_offset(cpu, 3 * slot)
        return_outward(cpu, selector, descriptor, offset, at, size)
    cpu.eflags = flags


def _enter_virtual_8086(cpu: Ia32, selector: Word, offset: Word, image: Word) -> None:
    """IRETD at CPL 0 to virtual-8086 mode: stack and data segments come from the frame, all flags from its image.

    Raises:
        MemoryFault: #GP(0), the offset lies beyond FFFFH.
    """
    pointer, *selectors = [access.peek(cpu, 4 * number, 4) for number in range(3, 9)]
    if offset > 0xFFFF:
        raise MemoryFault(GP, 0)
    loaded = zip(("ss", "es", "ds", "fs", "gs"), selectors, strict=True)
    for name, value in (("cs", selector), *((name, word.truncate(16)) for name, word in loaded)):
        segment = getattr(cpu, name)
        load_real_segment(segment, value)
        segment.limit, segment.rights = Word(32, 0xFFFF), Word(17, VIRTUAL_8086_RIGHTS)
    cpu.gpr[ESP], cpu.eip = pointer, offset
    cpu.eflags = (image & EFLAGS_DEFINED) | EFLAGS_FIXED
