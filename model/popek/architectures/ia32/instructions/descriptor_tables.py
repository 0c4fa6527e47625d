"""SGDT SIDT SLDT STR LGDT LIDT LLDT LTR (SDM vol. 2B and 2A)."""

from __future__ import annotations

from popek.architectures.x86.access import user_mode_instruction_prevention
from popek.architectures.x86.descriptors import (
    BUSY_TSS_16,
    LDT,
    TSS_16,
    TSS_32,
    error_code,
    fetch_descriptor,
    is_null,
    load_cache,
)
from popek.architectures.x86.exceptions import (
    GP,
    NP,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from .. import access
from ..access import MemoryOperand, privileged
from ..descriptors import descriptors_needed
from ..state import Ia32


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("SGDT m", source="SDM vol. 2B, SGDT", register="gdtr")
    @machine.instruction("SIDT m", source="SDM vol. 2B, SIDT", register="idtr")
    def store_table_register(cpu: Ia32, m: MemoryOperand, *, register: str) -> None:
        """Store limit (2 bytes), then base (4 bytes), whatever the operand size."""
        user_mode_instruction_prevention(cpu)
        cpu.interception.instruction(cpu, "SGDT" if register == "gdtr" else "SIDT", m)
        table = cpu.gdtr if register == "gdtr" else cpu.idtr
        access.store(cpu, m, table.limit)
        access.store(cpu, m + 2, table.base)

    for name, source in (("SLDT", "SDM vol. 2B, SLDT"), ("STR", "SDM vol. 2B, STR")):

        @machine.instruction(f"{name} r16", source=source, size=16, task=name == "STR")
        @machine.instruction(f"{name} r32", source=source, size=32, task=name == "STR")
        def store_selector_in_register(cpu: Ia32, r: Word, *, size: int, task: bool) -> None:
            """Store the selector; zero-extended to 32 bits (P6 and later)."""
            descriptors_needed(cpu)
            user_mode_instruction_prevention(cpu)
            cpu.interception.instruction(cpu, "STR" if task else "SLDT", None, r)
            selector = (cpu.tr if task else cpu.ldtr).selector.value
            cpu.write_register(r, selector.zero_extend(size))

        @machine.instruction(f"{name} m16", source=source, task=name == "STR")
        def store_selector_in_memory(cpu: Ia32, m: MemoryOperand, *, task: bool) -> None:
            """Store the selector, 16 bits."""
            descriptors_needed(cpu)
            user_mode_instruction_prevention(cpu)
            cpu.interception.instruction(cpu, "STR" if task else "SLDT", m)
            access.store(cpu, m, (cpu.tr if task else cpu.ldtr).selector.value)

    @machine.instruction("LGDT m16&32", source="SDM vol. 2A, LGDT", register="gdtr", size=32)
    @machine.instruction(
        "o16 LGDT m16&32", source="SDM vol. 2A, LGDT", mnemonic="LGDT", register="gdtr", size=16
    )
    @machine.instruction("LIDT m16&32", source="SDM vol. 2A, LIDT", register="idtr", size=32)
    @machine.instruction(
        "o16 LIDT m16&32", source="SDM vol. 2A, LIDT", mnemonic="LIDT", register="idtr", size=16
    )
    def load_table_register(cpu: Ia32, m: MemoryOperand, *, register: str, size: int) -> None:
        """Load limit and base; with operand size 16 the base has 24 bits."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "LGDT" if register == "gdtr" else "LIDT", m, size=size)
        limit = access.load(cpu, m, 2)
        base = access.load(cpu, m + 2, 4)
        table = cpu.gdtr if register == "gdtr" else cpu.idtr
        table.limit = limit
        table.base = base & 0x00FFFFFF if size == 16 else base

    @machine.instruction("LLDT r16", source="SDM vol. 2A, LLDT")
    def load_ldtr_from_register(cpu: Ia32, r: Word) -> None:
        """Load LDTR from the GDT; a null selector makes it unusable."""
        descriptors_needed(cpu)
        privileged(cpu)
        cpu.interception.instruction(cpu, "LLDT", None, r)
        _load_ldtr(cpu, cpu.read_register(r, 16))

    @machine.instruction("LLDT m16", source="SDM vol. 2A, LLDT")
    def load_ldtr_from_memory(cpu: Ia32, m: MemoryOperand) -> None:
        """Load LDTR from the GDT; a null selector makes it unusable."""
        descriptors_needed(cpu)
        privileged(cpu)
        cpu.interception.instruction(cpu, "LLDT", m)
        _load_ldtr(cpu, access.load(cpu, m, 2))

    @machine.instruction("LTR r16", source="SDM vol. 2A, LTR")
    def load_tr_from_register(cpu: Ia32, r: Word) -> None:
        """Load TR with an available TSS and mark it busy."""
        descriptors_needed(cpu)
        privileged(cpu)
        cpu.interception.instruction(cpu, "LTR", None, r)
        _load_tr(cpu, cpu.read_register(r, 16))

    @machine.instruction("LTR m16", source="SDM vol. 2A, LTR")
    def load_tr_from_memory(cpu: Ia32, m: MemoryOperand) -> None:
        """Load TR with an available TSS and mark it busy."""
        descriptors_needed(cpu)
        privileged(cpu)
        cpu.interception.instruction(cpu, "LTR", m)
        _load_tr(cpu, access.load(cpu, m, 2))


def _load_ldtr(cpu: Ia32, selector: Word) -> None:
    if is_null(selector):
        cpu.ldtr.selector = selector
        cpu.ldtr.rights.unusable = 1
        return
    if selector[2]:
        raise Fault(GP, error_code(selector))
    descriptor = fetch_descriptor(cpu, selector)
    if (descriptor.s == 1) | (descriptor.type != LDT):
        raise Fault(GP, error_code(selector))
    if not descriptor.p:
        raise Fault(NP, error_code(selector))
    load_cache(cpu.ldtr, selector, descriptor)


def _load_tr(cpu: Ia32, selector: Word) -> None:
    if is_null(selector):
        raise Fault(GP, 0)
    if selector[2]:
        raise Fault(GP, error_code(selector))
    descriptor = fetch_descriptor(cpu, selector)
    if (descriptor.s == 1) | ~descriptor.type.isin((TSS_16, TSS_32)):
        raise Fault(GP, error_code(selector))
    if not descriptor.p:
        raise Fault(NP, error_code(selector))
    busy = descriptor.raw[47:40] | (BUSY_TSS_16 ^ TSS_16)
    cpu.translation.system_store(cpu, descriptor.address + 5, busy)
    load_cache(cpu.tr, selector, descriptor)
    cpu.tr.rights.type = descriptor.type | (BUSY_TSS_16 ^ TSS_16)
