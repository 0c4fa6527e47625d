"""MONITOR MWAIT PAUSE and the fences (SDM vol. 2A and 2B).  How long a wait takes is outside the model."""

from __future__ import annotations

from popek.architectures.x86.exceptions import (
    GP,
    UD,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from .. import access
from ..access import MemoryOperand
from ..state import (
    EAX,
    ECX,
    Ia32,
)


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("MONITOR seg", source="SDM vol. 2B, MONITOR")
    def monitor(cpu: Ia32, segment: Word) -> None:
        """Watch the line at segment:EAX; #UD above CPL 0, #GP(0) unless ECX is 0; else a load of one byte."""
        if cpu.cpl != 0:
            raise Fault(UD)
        cpu.interception.instruction(cpu, "MONITOR")
        if cpu.gpr[ECX] != 0:
            raise Fault(GP, 0)
        access.linear_address(cpu, MemoryOperand(segment, cpu.gpr[EAX]), 1, write=False)
        cpu.interception.late(cpu, "MONITOR")

    @machine.instruction("MWAIT", source="SDM vol. 2B, MWAIT")
    def mwait(cpu: Ia32) -> None:
        """Wait for a store to the line, or not at all; #UD above CPL 0, #GP(0) for ECX above 1."""
        if cpu.cpl != 0:
            raise Fault(UD)
        cpu.interception.instruction(cpu, "MWAIT")
        if cpu.gpr[ECX] > 1:
            raise Fault(GP, 0)
        cpu.interception.late(cpu, "MWAIT")

    @machine.instruction("PAUSE", source="SDM vol. 2B, PAUSE")
    def pause(cpu: Ia32) -> None:
        """Nothing but a hint."""
        cpu.interception.instruction(cpu, "PAUSE")

    for name in ("LFENCE", "MFENCE", "SFENCE"):

        @machine.instruction(name, source=f"SDM vol. 2, {name}")
        def fence(cpu: Ia32) -> None:
            """Order memory accesses, which the model does one after another anyway."""
