"""AMD's SVM instructions on a processor that has no EFER.SVME: undefined (AMD64 APM vol. 3; SDM vol. 2)."""

from __future__ import annotations

from popek.architectures.x86.exceptions import UD
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault

from ..state import Ia32

NAMES = ("VMRUN", "VMLOAD", "VMSAVE", "VMMCALL", "STGI", "CLGI", "INVLPGA", "SKINIT")


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    for name in NAMES:

        @machine.instruction(name, source="AMD64 APM vol. 3; Intel's processors do not define the opcode")
        def undefined(cpu: Ia32) -> None:
            """#UD at every level."""
            raise Fault(UD)
