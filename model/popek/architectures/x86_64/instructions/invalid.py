"""Encodings that 64-bit mode does not have, and UD2 (SDM vol. 2, "64-Bit Mode: Invalid")."""

from __future__ import annotations

from popek.architectures.x86.exceptions import UD
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError

from ..access import MemoryOperand
from ..state import X64

INVALID = ("PUSHAD", "POPAD", "AAA", "AAS", "DAA", "DAS", "AAM", "AAD", "SALC")


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""
    for form in INVALID:

        @machine.instruction(form, source="SDM vol. 2, 64-Bit Mode: Invalid")
        def invalid(cpu: X64) -> None:
            """#UD in 64-bit mode."""
            _only_outside(cpu)

    @machine.instruction("BOUND r32, m64", source="SDM vol. 2A, BOUND")
    def bound(cpu: X64, r: object, m: MemoryOperand) -> None:
        """#UD in 64-bit mode."""
        _only_outside(cpu)

    @machine.instruction("UD2", source="SDM vol. 2B, UD")
    def ud2(cpu: X64) -> None:
        """#UD at every level."""
        raise Fault(UD)


def _only_outside(cpu: X64) -> None:
    if cpu.long:
        raise Fault(UD)
    raise NotModelledError("an instruction of protected mode that is not sensitive, in compatibility mode")
