"""SGDT SIDT SLDT STR LGDT LIDT LLDT LTR (SDM vol. 2A and 2B)."""

from __future__ import annotations

from collections.abc import Callable

from popek.architectures.x86.access import privileged, user_mode_instruction_prevention
from popek.architectures.x86.descriptors import is_null
from popek.architectures.x86.exceptions import GP
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat

from .. import access
from ..access import MemoryOperand, natural, needs_long_mode
from ..addresses import is_canonical
from ..descriptors import BUSY_TSS, LDT, TSS, WideDescriptor, fetch_system_descriptor
from ..state import (
    X64,
    Segment,
)

_Load = Callable[[X64, Word], None]


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("SGDT m", source="SDM vol. 2B, SGDT", register="gdtr")
    @machine.instruction("SIDT m", source="SDM vol. 2B, SIDT", register="idtr")
    def store_table_register(cpu: X64, m: MemoryOperand, *, register: str) -> None:
        """Store limit (2 bytes), then base: 8 bytes in 64-bit mode, 4 in compatibility mode."""
        user_mode_instruction_prevention(cpu)
        cpu.interception.instruction(cpu, "SGDT" if register == "gdtr" else "SIDT", m)
        table = cpu.gdtr if register == "gdtr" else cpu.idtr
        image = concat(table.base.truncate(8 * natural(cpu)), table.limit)
        where = access.linear_address(cpu, m, image.width // 8, write=True, second=2)
        cpu.translation.store(cpu, where, image)

    for name, source in (("SLDT", "SDM vol. 2B, SLDT"), ("STR", "SDM vol. 2B, STR")):
        for size in (16, 32, 64):

            @machine.instruction(f"{name} r{size}", source=source, size=size, task=name == "STR")
            def store_selector_in_register(cpu: X64, r: Word, *, size: int, task: bool) -> None:
                """Store the selector, zero-extended."""
                if size == 64:
                    needs_long_mode(cpu)
                user_mode_instruction_prevention(cpu)
                cpu.interception.instruction(cpu, "STR" if task else "SLDT", None, r, size=size)
                selector = (cpu.tr if task else cpu.ldtr).selector.value
                cpu.write_register(r, selector.zero_extend(size))

        @machine.instruction(f"{name} m16", source=source, task=name == "STR")
        def store_selector_in_memory(cpu: X64, m: MemoryOperand, *, task: bool) -> None:
            """Store the selector, 16 bits."""
            user_mode_instruction_prevention(cpu)
            cpu.interception.instruction(cpu, "STR" if task else "SLDT", m)
            access.store(cpu, m, (cpu.tr if task else cpu.ldtr).selector.value)

    @machine.instruction("LGDT m16&64", source="SDM vol. 2A, LGDT", register="gdtr")
    @machine.instruction("LIDT m16&64", source="SDM vol. 2A, LIDT", register="idtr")
    def load_table_register(cpu: X64, m: MemoryOperand, *, register: str) -> None:
        """Load limit and base (4 bytes of it in compatibility mode); #GP(0) for a base that is not canonical."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "LGDT" if register == "gdtr" else "LIDT", m)
        limit, low = access.load_pair(cpu, m, 2, natural(cpu))
        base = low.zero_extend(64)
        if not is_canonical(base):
            raise Fault(GP, 0)
        table = cpu.gdtr if register == "gdtr" else cpu.idtr
        table.limit = limit
        table.base = base

    for name, load in (("LLDT", _load_ldtr), ("LTR", _load_tr)):

        @machine.instruction(f"{name} r16", source=f"SDM vol. 2A, {name}", name=name, load=load)
        def load_from_register(cpu: X64, r: Word, *, name: str, load: _Load) -> None:
            """Load from the GDT; a null selector makes LDTR unusable and is refused for TR."""
            privileged(cpu)
            cpu.interception.instruction(cpu, name, None, r)
            load(cpu, cpu.read_register(r, 16))

        @machine.instruction(f"{name} m16", source=f"SDM vol. 2A, {name}", name=name, load=load)
        def load_from_memory(cpu: X64, m: MemoryOperand, *, name: str, load: _Load) -> None:
            """Load from the GDT; a null selector makes LDTR unusable and is refused for TR."""
            privileged(cpu)
            cpu.interception.instruction(cpu, name, m)
            load(cpu, access.load(cpu, m, 2))


def _load_ldtr(cpu: X64, selector: Word) -> None:
    if is_null(selector):
        cpu.ldtr.selector = selector
        cpu.ldtr.rights.unusable = 1
        return
    _fill(cpu.ldtr, selector, fetch_system_descriptor(cpu, selector, (LDT,)))


def _load_tr(cpu: X64, selector: Word) -> None:
    if is_null(selector):
        raise Fault(GP, 0)
    wide = fetch_system_descriptor(cpu, selector, (TSS,))
    cpu.translation.system_store(cpu, wide.low.address + 5, wide.low.raw[47:40] | (BUSY_TSS ^ TSS))
    _fill(cpu.tr, selector, wide)
    cpu.tr.rights.type = BUSY_TSS


def _fill(register: Segment, selector: Word, wide: WideDescriptor) -> None:
    register.selector = selector
    register.base = wide.base
    register.limit = wide.low.limit
    register.rights = wide.low.rights
