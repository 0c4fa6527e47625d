"""Far CALL, JMP and RET (SDM vol. 2A CALL, JMP; vol. 2B RET; vol. 3A, chapter 5; vol. 3B, chapter 20)."""

from __future__ import annotations

from popek.architectures.x86.descriptors import (
    CALL_GATE_16,
    CALL_GATE_32,
    TASK_GATE,
    TSS_16,
    TSS_32,
    Descriptor,
    check_stack_segment,
    code_behind_gate,
    error_code,
    fetch_descriptor,
    is_null,
    load_code_segment,
    load_stack_segment,
    return_code_segment,
)
from popek.architectures.x86.exceptions import (
    AC,
    GP,
    NP,
    PF,
    SS,
)
from popek.architectures.x86.operands import FarPointer
from popek.architectures.x86.registers import SS_
from popek.architectures.x86.stacks import null_if_outranked
from popek.architectures.x86.state import (
    overlaps,
    page_fault_code,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, MemoryFault, NotModelledError
from popek.kernel.words import Word, ite

from .. import access
from ..access import MemoryOperand
from ..descriptors import load_real_segment
from ..stacks import InnerStack, bytes_of, check_inner_room, inner_stack, switch_to
from ..state import (
    ESP,
    Ia32,
)


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    for name, call, source in (("CALL", True, "SDM vol. 2A, CALL"), ("JMP", False, "SDM vol. 2A, JMP")):
        for size in (16, 32):

            @machine.instruction(
                f"{name} ptr16:{size}", source=source, mnemonic=f"{name} far", call=call, size=size
            )
            def direct(cpu: Ia32, pointer: FarPointer, *, call: bool, size: int) -> None:
                """Transfer to another segment, through a gate, or to another task."""
                far_transfer(cpu, pointer.selector, pointer.offset, call=call, size=size)

            @machine.instruction(
                f"{name} m16:{size}", source=source, mnemonic=f"{name} far", call=call, size=size
            )
            def indirect(cpu: Ia32, m: MemoryOperand, *, call: bool, size: int) -> None:
                """Transfer to another segment, through a gate, or to another task."""
                offset = access.load(cpu, m, size // 8)
                selector = access.load(cpu, m + size // 8, 2)
                far_transfer(cpu, selector, offset, call=call, size=size)

    for prefix, size in (("", 32), ("o16 ", 16)):

        @machine.instruction(f"{prefix}RETF", source="SDM vol. 2B, RET", mnemonic="RET far", size=size)
        def ret_far(cpu: Ia32, *, size: int) -> None:
            """Return to another segment, perhaps of an outer level."""
            far_return(cpu, Word(16, 0), size)

        @machine.instruction(f"{prefix}RETF imm16", source="SDM vol. 2B, RET", mnemonic="RET far", size=size)
        def ret_far_release(cpu: Ia32, released: Word, *, size: int) -> None:
            """Return to another segment, perhaps of an outer level, and release parameters."""
            far_return(cpu, released, size)


def far_transfer(cpu: Ia32, selector: Word, offset: Word, *, call: bool, size: int) -> None:
    """CALL or JMP to `selector:offset`, operand size 16 or 32."""
    if not cpu.protected:
        _real_transfer(cpu, selector, offset, call=call, size=size)
        return
    if is_null(selector):
        raise Fault(GP, 0)
    descriptor = fetch_descriptor(cpu, selector)
    if descriptor.is_code:
        _to_code_segment(cpu, selector, descriptor, offset, call=call, size=size)
        return
    if descriptor.s == 1 or not descriptor.type.isin((CALL_GATE_16, CALL_GATE_32, TASK_GATE, TSS_16, TSS_32)):
        raise Fault(GP, error_code(selector))
    # A TSS lies in the GDT alone (SDM vol. 3A, "TSS Descriptor").
    misplaced = (selector[2] == 1) & descriptor.type.isin((TSS_16, TSS_32))
    if misplaced | (descriptor.dpl < cpu.cpl) | (descriptor.dpl < selector[1:0]):
        raise Fault(GP, error_code(selector))
    if not descriptor.p:
        raise Fault(NP, error_code(selector))
    if descriptor.type.isin((CALL_GATE_16, CALL_GATE_32)):
        _through_call_gate(cpu, descriptor, call=call)
    else:
        cpu.interception.task_switch(cpu, "call" if call else "jmp", selector, descriptor)
        raise NotModelledError("task switch")


def _real_transfer(cpu: Ia32, selector: Word, offset: Word, *, call: bool, size: int) -> None:
    """CALL and JMP in real-address and virtual-8086 mode.

    Raises:
        MemoryFault: #SS(0) no room for the return address; #GP(0) an offset beyond the limit, which stays, or
            for CALL beyond FFFFH.
    """
    target = offset.zero_extend(32)
    if call:
        access.check_room(cpu, 2, size // 8)
        if target[31:16] != 0:
            raise MemoryFault(GP, 0)
    access.check_near(cpu, target)
    if call:
        _push_return_address(cpu, cpu.cs.selector.value, size)
    load_real_segment(cpu.cs, selector)
    cpu.eip = target


def enter_real_segment(cpu: Ia32, selector: Word, offset: Word) -> None:
    """CS:EIP := selector:offset in real-address and virtual-8086 mode.

    Raises:
        MemoryFault: #GP(0), the offset lies outside the code segment, whose limit stays.
    """
    access.check_near(cpu, offset.zero_extend(32))
    load_real_segment(cpu.cs, selector)
    cpu.eip = offset.zero_extend(32)


def _to_code_segment(
    cpu: Ia32, selector: Word, descriptor: Descriptor, offset: Word, *, call: bool, size: int
) -> None:
    level = cpu.cpl
    mismatch = (selector[1:0] > level) | (descriptor.dpl != level)
    if ite(descriptor.is_conforming, descriptor.dpl > level, mismatch):
        raise Fault(GP, error_code(selector))
    if not descriptor.p:
        raise Fault(NP, error_code(selector))
    if call:
        access.check_room(cpu, 2, size // 8)
    if offset.zero_extend(32) > descriptor.limit:
        raise MemoryFault(GP, 0)
    if call:
        _push_return_address(cpu, cpu.cs.selector.value, size)
    load_code_segment(cpu, selector, descriptor, level)
    cpu.eip = offset.zero_extend(32)


def _push_return_address(cpu: Ia32, selector: Word, size: int) -> None:
    """The caller's CS, zero-extended, then EIP; there was found to be room."""
    access.push(cpu, selector.zero_extend(size), checked=True)
    access.push(cpu, cpu.eip.truncate(size), checked=True)


def _through_call_gate(cpu: Ia32, gate: Descriptor, *, call: bool) -> None:
    selector = gate.gate_selector
    target, level = code_behind_gate(cpu, selector), cpu.cpl
    inward = ~target.is_conforming & (target.dpl < level)
    if not call and inward:  # JMP may not change the level
        raise Fault(GP, error_code(selector))
    if not target.p:
        raise Fault(NP, error_code(selector))
    size = 32 if gate.type == CALL_GATE_32 else 16
    offset = gate.gate_offset if size == 32 else gate.gate_offset[15:0].zero_extend(32)
    new_level, caller, slot = level, cpu.cs.selector.value, size // 8
    parameters, stack = bytes_of(gate.gate_parameters, slot), None
    if call and inward:
        new_level = target.dpl
        stack = inner_stack(cpu, new_level)
        check_inner_room(cpu, stack, parameters + 4 * slot)
    elif call:
        access.check_room(cpu, 2, slot)
    if offset > target.limit:
        raise MemoryFault(GP, 0)
    if stack is not None:
        _switch_stack(cpu, stack, parameters, size)
    if call:
        _push_return_address(cpu, caller, size)
    load_code_segment(cpu, selector, target, new_level)
    cpu.eip = offset


def _switch_stack(cpu: Ia32, stack: InnerStack, parameters: Word, size: int) -> None:
    """Take the inner stack, push the old SS:ESP and copy so many bytes of parameters."""
    slot = size // 8
    old_selector, old_pointer = cpu.ss.selector.value, cpu.gpr[ESP]
    old_offset = access.stack_offset(cpu, 0)
    readable = access.within(cpu.ss, old_offset, parameters)
    source = cpu.ss.base + old_offset
    wraps = (cpu.ss.rights.db == 0) & (old_offset + parameters > 0x10000)
    if wraps:
        raise NotModelledError("parameters that wrap around a 16-bit stack")
    if (parameters != 0) & ~readable:
        raise MemoryFault(SS, 0)
    # The parameters are read with the rights of the caller.
    if (parameters != 0) & (cpu.cpl != 0) & overlaps(cpu.reserved, source, parameters):
        raise MemoryFault(PF, page_fault_code(cpu, False))
    if (parameters != 0) & access.misaligned(cpu, source, slot):
        raise MemoryFault(AC, 0)
    switch_to(cpu, stack)
    access.push(cpu, old_selector.zero_extend(size), checked=True)
    access.push(cpu, old_pointer.truncate(size), checked=True)
    access.move_stack_pointer(cpu, Word(32, 0) - parameters)
    destination = cpu.ss.base + access.stack_offset(cpu, 0)
    barred = overlaps(cpu.reserved, destination, parameters) | overlaps(
        cpu.read_only, destination, parameters
    )
    if (parameters != 0) & (cpu.cpl != 0) & barred:
        raise MemoryFault(PF, page_fault_code(cpu, True))
    cpu.memory = cpu.memory.copy(destination, source, parameters)


def far_return(cpu: Ia32, released: Word, size: int) -> None:
    """RET far, operand size 16 or 32; `released` bytes of parameters (16 bits) leave both stacks."""
    slot = size // 8
    offset = access.peek(cpu, 0, slot).zero_extend(32)
    selector = access.peek(cpu, slot, slot).truncate(16)
    parameters = released.zero_extend(32)
    if not cpu.protected:
        enter_real_segment(cpu, selector, offset)
        access.move_stack_pointer(cpu, parameters + 2 * slot)
        return
    descriptor = return_code_segment(cpu, selector)
    level = selector[1:0]
    if level == cpu.cpl:
        return_inside(cpu, selector, descriptor, offset)
        access.move_stack_pointer(cpu, parameters + 2 * slot)
    else:
        at = access.stack_offset(cpu, 2 * slot) + parameters
        return_outward(cpu, selector, descriptor, offset, at, size)
        access.move_stack_pointer(cpu, parameters)


def return_inside(cpu: Ia32, selector: Word, descriptor: Descriptor, offset: Word) -> None:
    """Go on at a code segment of the same level, checked before.

    Raises:
        MemoryFault: #GP(0), the offset lies outside it.
    """
    if offset > descriptor.limit:
        raise MemoryFault(GP, 0)
    load_code_segment(cpu, selector, descriptor, selector[1:0])
    cpu.eip = offset


def return_outward(
    cpu: Ia32,
    selector: Word,
    descriptor: Descriptor,
    offset: Word,
    frame: Word,
    size: int,
) -> None:
    """Return to an outer level: ESP and SS from `frame` (an offset in SS), data segments cleansed.

    Raises:
        Fault: #GP(0) for a null SS, #GP(SS) for a wrong one; #SS(SS) when not present (SDM vol. 2, "Protected
            Mode Exceptions" of RET and IRET).
    """
    slot, level = size // 8, selector[1:0]
    at = MemoryOperand(Word(3, SS_), _wrapped(cpu, frame))
    pointer = access.load(cpu, at, slot)
    above = MemoryOperand(Word(3, SS_), _wrapped(cpu, frame + slot))
    stack_selector = access.load(cpu, above, slot).truncate(16)
    stack = check_stack_segment(cpu, stack_selector, level, vector=GP, null_vector=GP)
    if offset > descriptor.limit:
        raise MemoryFault(GP, 0)
    load_code_segment(cpu, selector, descriptor, level)
    cpu.eip = offset
    load_stack_segment(cpu, stack_selector, stack)
    kept = cpu.gpr[ESP].replace(15, 0, pointer.truncate(16))
    cpu.gpr[ESP] = ite(cpu.ss.rights.db, pointer.zero_extend(32), kept)
    for segment in (cpu.es, cpu.ds, cpu.fs, cpu.gs):
        null_if_outranked(segment, level)


def _wrapped(cpu: Ia32, offset: Word) -> Word:
    return ite(cpu.ss.rights.db, offset, offset.truncate(16).zero_extend(32))
