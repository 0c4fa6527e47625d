"""VMX, SMX and SVM instructions, and RSM, on a processor outside VMX operation and outside SMM (SDM vol. 3C).

The processor has VMX, which its firmware has locked off (IA32_FEATURE_CONTROL), and neither SVM nor SMX.
"""

from __future__ import annotations

from popek.architectures.x86.exceptions import (
    GP,
    UD,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ..access import MemoryOperand
from ..state import X64

VMX = ("VMCALL", "VMLAUNCH", "VMRESUME", "VMXOFF", "VMFUNC")
VMX_MEMORY = ("VMPTRLD m64", "VMPTRST m64", "VMCLEAR m64")
VMX_REGISTER = ("VMREAD r64, r64", "VMWRITE r64, r64")
VMX_INVALIDATIONS = ("INVEPT r64, m128", "INVVPID r64, m128")
SVM = ("VMRUN", "VMMCALL", "VMLOAD", "VMSAVE", "STGI", "CLGI", "SKINIT", "INVLPGA")


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("VMXON m64", source="SDM vol. 3C, VMXON")
    def vmxon(cpu: X64, m: MemoryOperand) -> None:
        """#UD unless CR4.VMXE is set, and in compatibility mode; else #GP(0), at CPL 0 as VMX is locked off."""
        if ~cpu.cr4.vmxe | ~cpu.long:
            raise Fault(UD)
        cpu.interception.instruction(cpu, "VMXON", m)
        raise Fault(GP, 0)

    for forms, source in (
        (
            (*VMX, *VMX_MEMORY, *VMX_REGISTER, *VMX_INVALIDATIONS),
            "SDM vol. 3C, chapter VMX Instruction Reference",
        ),
        (SVM, "AMD64 Architecture Programmer's Manual vol. 3: SVM is not there"),
        (("GETSEC",), "SDM vol. 2D, chapter Safer Mode Extensions Reference"),
        (("RSM",), "SDM vol. 2B, RSM"),
    ):
        for form in forms:

            @machine.instruction(form, source=source, name=form.split()[0])
            def undefined_here(cpu: X64, *operands: object, name: str) -> None:
                """#UD at every level: there is no VMX operation, no SVM, no SMX, and this is not SMM.

                GETSEC needs CR4.SMXE, which such a processor does not have, before a monitor can step in.
                """
                if name == "GETSEC":
                    raise Fault(UD)
                memory = next((o for o in operands if isinstance(o, MemoryOperand)), None)
                registers = [o for o in operands if isinstance(o, Word)]
                cpu.interception.instruction(cpu, name, memory, *registers)
                raise Fault(UD)
