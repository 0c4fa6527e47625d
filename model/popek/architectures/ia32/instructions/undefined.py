"""UD0 UD1 UD2, RSM outside system-management mode, GETSEC (SDM vol. 2B and 2D)."""

from __future__ import annotations

from typing import Any

from popek.architectures.x86.exceptions import UD
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError

from ..state import Ia32


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("UD0 r32, r32", source="SDM vol. 2B, UD")
    @machine.instruction("UD1 r32, r32", source="SDM vol. 2B, UD")
    @machine.instruction("UD2", source="SDM vol. 2B, UD")
    def undefined(cpu: Ia32, *operands: Any) -> None:
        """#UD, always."""
        raise Fault(UD)

    @machine.instruction("RSM", source="SDM vol. 2B, RSM")
    def rsm(cpu: Ia32) -> None:
        """#UD outside system-management mode, which is not in this machine."""
        cpu.interception.instruction(cpu, "RSM")
        raise Fault(UD)

    @machine.instruction("GETSEC", source="SDM vol. 2D, GETSEC")
    def getsec(cpu: Ia32) -> None:
        """#UD unless CR4.SMXE is set; the leaf functions are not modelled."""
        if not cpu.cr4.smxe:
            raise Fault(UD)
        cpu.interception.instruction(cpu, "GETSEC")
        raise NotModelledError("safer mode extensions")
