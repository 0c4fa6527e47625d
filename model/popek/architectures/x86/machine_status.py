"""SMSW to memory, LMSW and CLTS, which every mode has alike (SDM vol. 2A and 2B)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from popek.kernel.machine import Machine
from popek.kernel.words import Word

from .access import MemoryOperand, privileged, user_mode_instruction_prevention


def declare(
    machine: Machine[Any],
    load: Callable[[Any, MemoryOperand, int], Word],
    store: Callable[[Any, MemoryOperand, Word], None],
    changed: Callable[[Any], None] = lambda cpu: None,
) -> None:
    """Add the family to a machine.

    Args:
        load, store: references to storage, of so many bytes and of a value.
        changed: what follows a change of PE.
    """

    def load_status(cpu: Any, source: Word, m: MemoryOperand | None) -> None:
        cpu.cr0 = cpu.cr0.value.replace(3, 0, cpu.interception.load_machine_status_word(cpu, source, m))
        changed(cpu)

    @machine.instruction("SMSW m16", source="SDM vol. 2B, SMSW")
    def smsw_memory(cpu: Any, m: MemoryOperand) -> None:
        """Store CR0[15:0]."""
        user_mode_instruction_prevention(cpu)
        store(cpu, m, cpu.interception.read_control_register(cpu, 0)[15:0])

    @machine.instruction("LMSW r16", source="SDM vol. 2A, LMSW")
    def lmsw_register(cpu: Any, r: Word) -> None:
        """PE, MP, EM, TS := source[3:0]; PE is never cleared."""
        privileged(cpu)
        cpu.interception.late(cpu, "LMSW")
        load_status(cpu, cpu.read_register(r, 16), None)

    @machine.instruction("LMSW m16", source="SDM vol. 2A, LMSW")
    def lmsw_memory(cpu: Any, m: MemoryOperand) -> None:
        """PE, MP, EM, TS := source[3:0]; PE is never cleared."""
        privileged(cpu)
        cpu.interception.late(cpu, "LMSW")
        load_status(cpu, load(cpu, m, 2), m)

    @machine.instruction("CLTS", source="SDM vol. 2A, CLTS")
    def clts(cpu: Any) -> None:
        """CR0.TS := 0."""
        privileged(cpu)
        cpu.cr0.ts = cpu.interception.clear_task_switched(cpu)
