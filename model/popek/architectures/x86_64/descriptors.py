"""Descriptors of IA-32e mode: 16-byte system descriptors and gates, null SS, 64-bit code segments.

What is as in protected mode comes from `popek.architectures.x86.descriptors` (SDM vol. 3A, chapters 3 and 5).
"""

from __future__ import annotations

import attrs

from popek.architectures.x86 import descriptors
from popek.architectures.x86.access import supervisor_load
from popek.architectures.x86.descriptors import (
    Descriptor,
    error_code,
    in_table,
    is_null,
    load_protected_segment_register,
    read_descriptor,
)
from popek.architectures.x86.exceptions import (
    GP,
    NP,
)
from popek.architectures.x86.registers import SS_
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from .addresses import is_canonical
from .state import X64

# SDM vol. 3A, table "System-Segment and Gate-Descriptor Types", column IA-32e Mode.
LDT, TSS, BUSY_TSS, CALL_GATE, INTERRUPT_GATE, TRAP_GATE = 2, 9, 11, 12, 14, 15


@attrs.frozen
class WideDescriptor:
    """A descriptor of 16 bytes: the first eight as in protected mode, and bits 63:32 of base or offset."""

    low: Descriptor
    high: Word  # 64 bits

    @property
    def base(self) -> Word:
        """Base address (64 bits)."""
        return concat(self.high[31:0], self.low.base)

    @property
    def gate_offset(self) -> Word:
        """64 bits."""
        return concat(self.high[31:0], self.low.gate_offset)

    @property
    def upper_type(self) -> Word:
        """What must be 0 lest the second half pass for a descriptor (5 bits)."""
        return self.high[44:40]


def in_table_wide(cpu: X64, selector: Word) -> Word:
    """Whether a system descriptor lies within the table: 16 bytes in 64-bit mode, else 8; width 1."""
    last = concat(Word(19, 0), selector[15:3]) * 8 + ite(cpu.long, Word(32, 15), Word(32, 7))
    gdt = last <= cpu.gdtr.limit.zero_extend(32)
    ldt = (cpu.ldtr.rights.unusable == 0) & (last <= cpu.ldtr.limit)
    return ite(selector[2], ldt, gdt)


def gate_in_table(cpu: X64, selector: Word) -> Word:
    """Whether the 16 bytes of a call gate, which has them in both modes, lie within the table; width 1."""
    last = concat(Word(19, 0), selector[15:3]) * 8 + 15
    gdt = last <= cpu.gdtr.limit.zero_extend(32)
    return ite(selector[2], (cpu.ldtr.rights.unusable == 0) & (last <= cpu.ldtr.limit), gdt)


def gate_of(cpu: X64, descriptor: Descriptor) -> WideDescriptor:
    """A call gate with its second half."""
    return WideDescriptor(descriptor, supervisor_load(cpu, descriptor.address + 8, 8))


def widened(cpu: X64, descriptor: Descriptor) -> WideDescriptor:
    """A system descriptor with its second half, which it has in 64-bit mode."""
    high = supervisor_load(cpu, descriptor.address + 8, 8)
    return WideDescriptor(descriptor, ite(cpu.long, high, Word(64, 0)))


def fetch_system_descriptor(cpu: X64, selector: Word, kinds: tuple[int, ...]) -> WideDescriptor:
    """What LLDT and LTR load: a present system descriptor of the GDT with a canonical base.

    Raises:
        Fault: #GP(selector) in the LDT, outside the GDT, of another type, or with a base that is not canonical;
            #NP(selector) not present.
    """
    if (selector[2] == 1) | ~in_table_wide(cpu, selector):
        raise Fault(GP, error_code(selector))
    wide = widened(cpu, read_descriptor(cpu, selector))
    if (wide.low.s == 1) | ~wide.low.type.isin(kinds) | (wide.upper_type != 0):
        raise Fault(GP, error_code(selector))
    if not wide.low.p:
        raise Fault(NP, error_code(selector))
    if not is_canonical(wide.base):
        raise Fault(GP, error_code(selector))
    return wide


def load_null_stack_segment(cpu: X64, selector: Word, level: Word) -> None:
    """SS := a null selector, which 64-bit mode allows inside; its level goes on to be CPL."""
    cpu.ss.selector = selector
    cpu.ss.base = Word(64, 0)
    cpu.ss.limit = Word(32, 0)
    cpu.ss.rights = concat(Word(1, 1), Word(9, 0), level, Word(5, 0))


def load_segment_register(cpu: X64, number: Word, selector: Word) -> None:
    """MOV, POP and L?S: load SS, DS, ES, FS or GS (SDM vol. 2B, MOV).

    Raises:
        Fault: as in protected mode; a null SS is accepted in 64-bit mode inside CPL 3 with RPL = CPL.
    """
    null = is_null(selector) & cpu.long & (cpu.cpl != 3) & (selector[1:0] == cpu.cpl)
    if number == SS_ and null:
        load_null_stack_segment(cpu, selector, cpu.cpl)
        return
    load_protected_segment_register(cpu, number, selector)


def return_code_segment(cpu: X64, selector: Word) -> Descriptor:
    """The code segment that RET and IRET go back to, checked; it is not of 64 and of 32 bits at once.

    Raises:
        Fault: #GP(0) null, #GP(selector), #NP(selector).
    """
    named = ~is_null(selector) & in_table(cpu, selector)
    if named & both_widths(read_descriptor(cpu, selector)):
        raise Fault(GP, error_code(selector))
    return descriptors.return_code_segment(cpu, selector)


def both_widths(descriptor: Descriptor) -> Word:
    """L = 1 and D = 1 (width 1)."""
    return descriptor.raw[53] & descriptor.raw[54]


def is_64_bit_code(descriptor: Descriptor) -> Word:
    """L = 1 (width 1)."""
    return descriptor.raw[53]
