"""Segment descriptors and gates in memory, and loading segment registers (SDM vol. 3A, chapters 3 and 5)."""

from __future__ import annotations

import attrs

from popek.kernel.outcome import Fault, Vector
from popek.kernel.words import Word, concat, ite

from .access import supervisor_load
from .exceptions import GP, NP, SS
from .registers import SS_
from .state import X86, Segment

# System descriptor types (SDM vol. 3A, table "System-Segment and Gate-Descriptor Types").
LDT, CALL_GATE_16, TASK_GATE, INTERRUPT_GATE_16, TRAP_GATE_16 = 2, 4, 5, 6, 7
TSS_16, BUSY_TSS_16, TSS_32, BUSY_TSS_32 = 1, 3, 9, 11
CALL_GATE_32, INTERRUPT_GATE_32, TRAP_GATE_32 = 12, 14, 15


@attrs.frozen
class Descriptor:
    """Eight bytes of a descriptor table, and where they are."""

    address: Word  # as wide as linear addresses are
    raw: Word  # 64 bits

    @property
    def type(self) -> Word:
        """System descriptor type, or code and data type with the accessed bit in bit 0 (4 bits)."""
        return self.raw[43:40]

    @property
    def s(self) -> Word:
        """1 for code and data, 0 for system segments and gates."""
        return self.raw[44]

    @property
    def dpl(self) -> Word:
        """Descriptor privilege level (2 bits)."""
        return self.raw[46:45]

    @property
    def p(self) -> Word:
        """Present."""
        return self.raw[47]

    @property
    def base(self) -> Word:
        """Base address (32 bits)."""
        return concat(self.raw[63:56], self.raw[39:16])

    @property
    def limit(self) -> Word:
        """In bytes: granularity applied."""
        limit = concat(self.raw[51:48], self.raw[15:0])
        return ite(self.raw[55], concat(limit, Word(12, 0xFFF)), limit.zero_extend(32))

    @property
    def rights(self) -> Word:
        """As a segment register keeps them (17 bits)."""
        return concat(Word(1, 0), self.raw[55:52], Word(4, 0), self.raw[47:40])

    @property
    def is_code(self) -> Word:
        """A code segment."""
        return (self.s == 1) & (self.type[3] == 1)

    @property
    def is_conforming(self) -> Word:
        """A conforming code segment."""
        return self.is_code & self.type[2]

    @property
    def is_writable_data(self) -> Word:
        """A data segment that may be written."""
        return (self.s == 1) & (self.type[3] == 0) & self.type[1]

    # Gates
    @property
    def gate_selector(self) -> Word:
        """Gate: the selector it leads to (16 bits)."""
        return self.raw[31:16]

    @property
    def gate_offset(self) -> Word:
        """32 bits; a 16-bit gate uses the low half."""
        return concat(self.raw[63:48], self.raw[15:0])

    @property
    def gate_parameters(self) -> Word:
        """Call gate: number of parameters, 5 bits."""
        return self.raw[36:32]


def is_null(selector: Word) -> Word:
    """Index 0 of the GDT, whatever the RPL."""
    return selector[15:2] == 0


def error_code(selector: Word) -> Word:
    """The error code that names a selector: its RPL is replaced by EXT and IDT, here 0."""
    return selector.replace(1, 0, 0)


def in_table(cpu: X86, selector: Word) -> Word:
    """Whether the descriptor lies within its table; an LDT that is not loaded has none.  Width 1."""
    last = concat(Word(19, 0), selector[15:3]) * 8 + 7
    gdt = last <= cpu.gdtr.limit.zero_extend(32)
    ldt = (cpu.ldtr.rights.unusable == 0) & (last <= cpu.ldtr.limit)
    return ite(selector[2], ldt, gdt)


def read_descriptor(cpu: X86, selector: Word) -> Descriptor:
    """The descriptor a selector names; `in_table` has been checked."""
    table = ite(selector[2], cpu.ldtr.base, cpu.gdtr.base)
    address = table + concat(selector[15:3], Word(3, 0)).zero_extend(table.width)
    return Descriptor(address, supervisor_load(cpu, address, 8))


def fetch_descriptor(cpu: X86, selector: Word, vector: Vector = GP) -> Descriptor:
    """The descriptor a selector names.

    Raises:
        Fault: vector(selector), it lies outside its table.
    """
    if not in_table(cpu, selector):
        raise Fault(vector, error_code(selector))
    return read_descriptor(cpu, selector)


def mark_accessed(cpu: X86, descriptor: Descriptor) -> None:
    """Set the accessed bit in memory: byte 5, bit 0."""
    where = descriptor.address + 5
    cpu.translation.system_store(cpu, where, descriptor.raw[47:40] | 1)


def load_cache(segment: Segment, selector: Word, descriptor: Descriptor) -> None:
    """Fill a segment register from a descriptor, the accessed bit set."""
    segment.selector = selector
    segment.base = descriptor.base.zero_extend(segment.base.width)
    segment.limit = descriptor.limit
    accessed = descriptor.rights | ite(descriptor.s == 1, Word(17, 1), Word(17, 0))
    segment.rights = accessed


def load_code_segment(cpu: X86, selector: Word, descriptor: Descriptor, level: Word) -> None:
    """CS := selector with its RPL replaced by `level`, which becomes CPL."""
    mark_accessed(cpu, descriptor)
    load_cache(cpu.cs, selector.replace(1, 0, level), descriptor)


def load_stack_segment(cpu: X86, selector: Word, descriptor: Descriptor) -> None:
    """SS := selector, checked before."""
    mark_accessed(cpu, descriptor)
    load_cache(cpu.ss, selector, descriptor)


def check_stack_segment(
    cpu: X86,
    selector: Word,
    level: Word,
    *,
    vector: Vector,
    null_vector: Vector,
) -> Descriptor:
    """The descriptor of a stack segment for privilege `level`.

    Raises:
        Fault: null_vector(0) when null; vector(selector) outside the table, RPL or DPL not the level,
            or not writable data; #SS(selector) when not present.
    """
    if is_null(selector):
        raise Fault(null_vector, 0)
    descriptor = fetch_descriptor(cpu, selector, vector)
    if (selector[1:0] != level) | ~descriptor.is_writable_data | (descriptor.dpl != level):
        raise Fault(vector, error_code(selector))
    if not descriptor.p:
        raise Fault(SS, error_code(selector))
    return descriptor


def load_null(segment: Segment, selector: Word) -> None:
    """A null selector reads back as given; base, limit and rights of a null segment cannot be seen."""
    segment.selector = selector
    segment.base = Word(segment.base.width, 0)
    segment.limit = Word(32, 0)
    segment.rights = Word(17, 0x10000)


def load_data_segment(cpu: X86, segment: Segment, selector: Word) -> None:
    """Load DS, ES, FS or GS with what is not null.

    Raises:
        Fault: #GP(selector), #NP(selector) not present.
    """
    descriptor = fetch_descriptor(cpu, selector)
    data_or_readable_code = (descriptor.s == 1) & ~((descriptor.type[3] == 1) & (descriptor.type[1] == 0))
    outranked = (selector[1:0] > descriptor.dpl) | (cpu.cpl > descriptor.dpl)
    if ~data_or_readable_code | (~descriptor.is_conforming & outranked):
        raise Fault(GP, error_code(selector))
    if not descriptor.p:
        raise Fault(NP, error_code(selector))
    mark_accessed(cpu, descriptor)
    load_cache(segment, selector, descriptor)


def load_protected_segment_register(cpu: X86, number: Word, selector: Word) -> None:
    """MOV, POP and L?S in protected mode: load SS, DS, ES, FS or GS (SDM vol. 2B, MOV).

    Raises:
        Fault: SS: #GP(0) null, #GP(selector), #SS(selector) not present.
            Others: #GP(selector), #NP(selector) not present; null is accepted.
    """
    if number == SS_:
        descriptor = check_stack_segment(cpu, selector, cpu.cpl, vector=GP, null_vector=GP)
        load_stack_segment(cpu, selector, descriptor)
        return
    segment = cpu.segment(number)
    if is_null(selector):
        load_null(segment, selector)
        return
    load_data_segment(cpu, segment, selector)


def code_behind_gate(cpu: X86, selector: Word) -> Descriptor:
    """The code segment that a gate leads to, present or not.

    Raises:
        Fault: #GP(0) null; #GP(selector), it lies outside its table, is no code segment, or one of an outer level.
    """
    if is_null(selector):
        raise Fault(GP, 0)
    target = fetch_descriptor(cpu, selector)
    if ~target.is_code | (target.dpl > cpu.cpl):
        raise Fault(GP, error_code(selector))
    return target


def return_code_segment(cpu: X86, selector: Word) -> Descriptor:
    """The code segment that RET and IRET go back to, checked.

    Raises:
        Fault: #GP(0) null, #GP(selector), #NP(selector).
    """
    if is_null(selector):
        raise Fault(GP, 0)
    descriptor = fetch_descriptor(cpu, selector)
    level = selector[1:0]
    if ~descriptor.is_code | (level < cpu.cpl):
        raise Fault(GP, error_code(selector))
    if ite(descriptor.is_conforming, descriptor.dpl > level, descriptor.dpl != level):
        raise Fault(GP, error_code(selector))
    if not descriptor.p:
        raise Fault(NP, error_code(selector))
    return descriptor
