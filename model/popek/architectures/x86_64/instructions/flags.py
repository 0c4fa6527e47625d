"""PUSHF POPF CLI STI and the flag instructions that every program may use (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.flags import STATUS_AND_PROGRAM, load_flags
from popek.architectures.x86.instructions.flags import declare_program_flags
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault

from .. import access
from ..access import natural
from ..state import X64


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("PUSHF", source="SDM vol. 2B, PUSHF", mnemonic="PUSHF", narrow=True)
    @machine.instruction("PUSHFQ", source="SDM vol. 2B, PUSHF", mnemonic="PUSHF", narrow=False)
    def pushf(cpu: X64, *, narrow: bool) -> None:
        """Push RFLAGS with VM and RF read as 0; PUSHFQ is PUSHFD in compatibility mode.

        Never faults but for the stack.
        """
        cpu.interception.early(cpu, "PUSHF")
        size = 2 if narrow else natural(cpu)
        access.push(cpu, (cpu.rflags.value & 0x00FCFFFF).resize(8 * size))

    @machine.instruction("POPF", source="SDM vol. 2B, POPF", mnemonic="POPF", narrow=True)
    @machine.instruction("POPFQ", source="SDM vol. 2B, POPF", mnemonic="POPF", narrow=False)
    def popf(cpu: X64, *, narrow: bool) -> None:
        """Pop RFLAGS: IOPL only at CPL 0, IF only at CPL <= IOPL; what is not allowed is silently kept.

        POPFQ is POPFD in compatibility mode.
        """
        cpu.interception.early(cpu, "POPF")
        size = 2 if narrow else natural(cpu)
        image = access.pop(cpu, size).resize(32)
        load_flags(cpu, image, STATUS_AND_PROGRAM, 16 if narrow else 32)

    @machine.instruction("CLI", source="SDM vol. 2A, CLI")
    def cli(cpu: X64) -> None:
        """IF := 0 at CPL <= IOPL; VIF := 0 at CPL 3 with CR4.PVI; else #GP(0)."""
        if cpu.cpl <= cpu.rflags.iopl:
            cpu.rflags.if_ = 0
        elif cpu.cpl == 3 and cpu.cr4.pvi:
            cpu.rflags.vif = 0
        else:
            raise Fault(GP, 0)

    @machine.instruction("STI", source="SDM vol. 2B, STI")
    def sti(cpu: X64) -> None:
        """IF := 1 at CPL <= IOPL; VIF := 1 at CPL 3 with CR4.PVI unless VIP is set; else #GP(0)."""
        if cpu.cpl <= cpu.rflags.iopl:
            cpu.shadow.sti = ~cpu.rflags.if_
            cpu.rflags.if_ = 1
        elif cpu.cpl == 3 and cpu.cr4.pvi and not cpu.rflags.vip:
            cpu.rflags.vif = 1
        else:
            raise Fault(GP, 0)

    declare_program_flags(machine)
