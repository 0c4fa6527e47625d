"""VMX instructions outside VMX operation (SDM vol. 3C, "VMX Instruction Reference").

Every one but VMXON is then undefined, at every level and in every mode; VMXON is refused in the order of its
own checks, and what comes after it is VMX operation, which is not in this machine.
"""

from __future__ import annotations

from typing import Any

from popek.architectures.x86.exceptions import (
    GP,
    UD,
)
from popek.architectures.x86.msrs import IA32_FEATURE_CONTROL
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import Word

from ..access import MemoryOperand, privileged
from ..msrs import FEATURE_CONTROL_LOCK
from ..state import Ia32

SOURCE = "SDM vol. 3C, VMX Instruction Reference"
FORMS = (
    *("VMCALL", "VMLAUNCH", "VMRESUME", "VMXOFF", "VMFUNC"),
    *("VMCLEAR m64", "VMPTRLD m64", "VMPTRST m64"),
    *("VMREAD r32, r32", "VMREAD m32, r32", "VMWRITE r32, r32", "VMWRITE r32, m32"),
    *("INVEPT r32, m128", "INVVPID r32, m128"),
)
# Bits that IA32_VMX_CR0_FIXED0 demands: PE, NE, PG.
CR0_FIXED = 0x80000021
VMXON_OUTSIDE_SMX = 1 << 2


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("VMXON m64", source=SOURCE)
    def vmxon(cpu: Ia32, m: MemoryOperand) -> None:
        """Enter VMX operation.

        #UD unless CR4.VMXE, and in real-address and virtual-8086 mode; #GP(0) above CPL 0, for a wrong CR0 and
        unless IA32_FEATURE_CONTROL is locked with VMXON allowed.
        """
        if ~cpu.cr4.vmxe | ~cpu.protected:
            raise Fault(UD)
        cpu.interception.instruction(cpu, "VMXON", m)
        privileged(cpu)
        control = cpu.msr.load(Word(32, IA32_FEATURE_CONTROL))
        needed = FEATURE_CONTROL_LOCK | VMXON_OUTSIDE_SMX
        if ((cpu.cr0.value & CR0_FIXED) != CR0_FIXED) | ((control & needed) != needed):
            raise Fault(GP, 0)
        raise NotModelledError("VMX operation")

    for form in FORMS:
        name = form.split()[0]

        @machine.instruction(form, source=SOURCE, name=name)
        def outside_vmx_operation(cpu: Ia32, *operands: Any, name: str) -> None:
            """#UD outside VMX operation."""
            memory = next((o for o in operands if isinstance(o, MemoryOperand)), None)
            registers = [o for o in operands if isinstance(o, Word)]
            cpu.interception.instruction(cpu, name, memory, *registers)
            raise Fault(UD)
