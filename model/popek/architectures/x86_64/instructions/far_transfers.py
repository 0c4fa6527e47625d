"""Far CALL, JMP and RET in IA-32e mode (SDM vol. 2A CALL, JMP; vol. 2B RET; vol. 3A, chapter 5)."""

from __future__ import annotations

from popek.architectures.x86.descriptors import (
    Descriptor,
    check_stack_segment,
    error_code,
    fetch_descriptor,
    is_null,
    load_code_segment,
    load_stack_segment,
)
from popek.architectures.x86.exceptions import (
    GP,
    NP,
    UD,
)
from popek.architectures.x86.operands import FarPointer
from popek.architectures.x86.stacks import null_if_outranked
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, MemoryFault
from popek.kernel.words import Word, ite

from .. import access
from ..access import MemoryOperand, low_half, needs_long_mode
from ..addresses import is_canonical
from ..descriptors import (
    CALL_GATE,
    both_widths,
    gate_in_table,
    gate_of,
    is_64_bit_code,
    load_null_stack_segment,
    return_code_segment,
)
from ..stacks import enter_level, level_slot, push_frame, stack_pointer_at
from ..state import (
    RSP,
    X64,
)


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""
    for name, call, source in (("CALL", True, "SDM vol. 2A, CALL"), ("JMP", False, "SDM vol. 2A, JMP")):

        @machine.instruction(f"{name} ptr16:32", source=source, mnemonic=f"{name} far", call=call)
        def direct(cpu: X64, pointer: FarPointer, *, call: bool) -> None:
            """#UD in 64-bit mode; in compatibility mode to another segment or through a gate."""
            if cpu.long:
                raise Fault(UD)
            far_transfer(cpu, pointer.selector, pointer.offset, call=call)

        for size in (16, 32, 64):

            @machine.instruction(
                f"{name} m16:{size}", source=source, mnemonic=f"{name} far", call=call, size=size
            )
            def indirect(cpu: X64, m: MemoryOperand, *, call: bool, size: int) -> None:
                """Transfer to another segment or through a gate."""
                if size == 64:
                    needs_long_mode(cpu)
                offset, selector = access.load_pair(cpu, m, size // 8, 2)
                far_transfer(cpu, selector, offset, call=call)

    for prefix, size in (("o16 ", 16), ("", 32), ("o64 ", 64)):

        @machine.instruction(f"{prefix}RETF", source="SDM vol. 2B, RET", mnemonic="RET far", size=size)
        def ret_far(cpu: X64, *, size: int) -> None:
            """Return to another segment, perhaps of an outer level."""
            far_return(cpu, Word(16, 0), size)

    @machine.instruction("RETF imm16", source="SDM vol. 2B, RET", mnemonic="RET far")
    def ret_far_release(cpu: X64, released: Word) -> None:
        """Return to another segment, perhaps of an outer level, and release parameters."""
        far_return(cpu, released, 32)


def enter_code_segment(cpu: X64, selector: Word, descriptor: Descriptor, offset: Word, level: Word) -> None:
    """CS:RIP := selector:offset (64 bits), checked before but for the offset; `level` becomes CPL.

    Raises:
        MemoryFault: #GP(0), not canonical for 64-bit code, else outside the segment.
    """
    to_long = is_64_bit_code(descriptor)
    short = low_half(offset)
    if not ite(to_long, is_canonical(offset), short <= descriptor.limit.zero_extend(64)):
        raise MemoryFault(GP, 0)
    load_code_segment(cpu, selector, descriptor, level)
    cpu.rip = ite(to_long, offset, short)


def far_transfer(cpu: X64, selector: Word, offset: Word, *, call: bool) -> None:
    """CALL or JMP to `selector:offset`; the offset's width is the operand size."""
    if is_null(selector):
        raise Fault(GP, 0)
    descriptor = fetch_descriptor(cpu, selector)
    if descriptor.is_code:
        _to_code_segment(cpu, selector, descriptor, offset, call=call)
        return
    is_gate = (descriptor.s == 0) & (descriptor.type == CALL_GATE)
    if ~is_gate | (descriptor.dpl < cpu.cpl) | (descriptor.dpl < selector[1:0]):
        raise Fault(GP, error_code(selector))
    if not descriptor.p:
        raise Fault(NP, error_code(selector))
    gate = gate_of(cpu, descriptor)
    if ~gate_in_table(cpu, selector) | (gate.upper_type != 0):
        raise Fault(GP, error_code(selector))
    _through_call_gate(cpu, descriptor.gate_selector, gate.gate_offset, call=call)


def _to_code_segment(cpu: X64, selector: Word, descriptor: Descriptor, offset: Word, *, call: bool) -> None:
    level = cpu.cpl
    mismatch = (selector[1:0] > level) | (descriptor.dpl != level)
    outranked = ite(descriptor.is_conforming, descriptor.dpl > level, mismatch)
    if outranked | both_widths(descriptor):
        raise Fault(GP, error_code(selector))
    if not descriptor.p:
        raise Fault(NP, error_code(selector))
    if call:
        width = offset.width
        access.push_all(cpu, (cpu.cs.selector.value.zero_extend(width), cpu.rip.truncate(width)))
    enter_code_segment(cpu, selector, descriptor, offset.zero_extend(64), level)


def _through_call_gate(cpu: X64, selector: Word, offset: Word, *, call: bool) -> None:
    if is_null(selector):
        raise Fault(GP, 0)
    target = fetch_descriptor(cpu, selector)
    level = cpu.cpl
    inward = ~target.is_conforming & (target.dpl < level)
    wide_code = target.is_code & (target.raw[54:53] == 1)  # L = 1, D = 0
    if ~wide_code | (target.dpl > level):
        raise Fault(GP, error_code(selector))
    if not call and inward:  # JMP may not change the level
        raise Fault(GP, error_code(selector))
    if not target.p:
        raise Fault(NP, error_code(selector))
    if not call:
        enter_code_segment(cpu, selector, target, offset, level)
        return
    frame = [cpu.cs.selector.value.zero_extend(64), cpu.rip]
    if inward:
        top = stack_pointer_at(cpu, level_slot(target.dpl))
        frame = [cpu.ss.selector.value.zero_extend(64), cpu.gpr[RSP], *frame]
        push_frame(cpu, top, frame, target.dpl)
        enter_level(cpu, target.dpl)
        enter_code_segment(cpu, selector, target, offset, target.dpl)
    else:
        push_frame(cpu, cpu.gpr[RSP], frame, level)
        enter_code_segment(cpu, selector, target, offset, level)


def far_return(cpu: X64, released: Word, size: int) -> None:
    """RET far, operand size 16, 32 or 64; `released` bytes of parameters (16 bits) leave both stacks."""
    if size == 64:
        needs_long_mode(cpu)
    slot = size // 8
    offset, selector = access.peek_all(cpu, 0, slot, 2)
    selector = selector.truncate(16)
    descriptor = return_code_segment(cpu, selector)
    level, parameters = selector[1:0], released.zero_extend(64)
    if level == cpu.cpl:
        access.move_stack_pointer(cpu, parameters + 2 * slot)
        enter_code_segment(cpu, selector, descriptor, offset.zero_extend(64), level)
    else:
        outer = access.peek_all(cpu, parameters + 2 * slot, slot, 2)
        return_to(cpu, selector, descriptor, offset.zero_extend(64), outer)
        access.move_stack_pointer(cpu, parameters)


def return_to(cpu: X64, selector: Word, descriptor: Descriptor, offset: Word, stack: list[Word]) -> None:
    """Return to a code segment with SS:RSP from the frame, RSP first; outward, data segments are cleansed.

    Raises:
        Fault: #GP(0) for a null SS, unless 64-bit code inside CPL 3 follows; #GP(SS) for a wrong one;
            #SS(SS) when not present.
    """
    pointer, stack_selector = stack[0].zero_extend(64), stack[1].truncate(16)
    level = selector[1:0]
    outward = level != cpu.cpl
    null = bool(is_null(stack_selector))
    if null:
        if ~is_64_bit_code(descriptor) | (level == 3) | (stack_selector[1:0] != level):
            raise Fault(GP, 0)
        enter_code_segment(cpu, selector, descriptor, offset, level)
        load_null_stack_segment(cpu, stack_selector, level)
    else:
        loaded = check_stack_segment(cpu, stack_selector, level, vector=GP, null_vector=GP)
        enter_code_segment(cpu, selector, descriptor, offset, level)
        load_stack_segment(cpu, stack_selector, loaded)
    access.set_stack_pointer(cpu, pointer)
    if outward:
        for segment in (cpu.es, cpu.ds, cpu.fs, cpu.gs):
            null_if_outranked(segment, level, base_stays=True)
