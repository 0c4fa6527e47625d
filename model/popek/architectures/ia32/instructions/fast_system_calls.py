"""SYSENTER SYSEXIT, and SYSCALL SYSRET, which need 64-bit mode (SDM vol. 2B)."""

from __future__ import annotations

from popek.architectures.x86.exceptions import (
    GP,
    UD,
)
from popek.architectures.x86.msrs import (
    IA32_SYSENTER_CS,
    IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP,
)
from popek.architectures.x86.state import Segment
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ..access import privileged
from ..state import (
    ECX,
    EDX,
    ESP,
    Ia32,
)

# Flat segments as the instructions fix them: 32-bit code that is executable and readable, and writable data.
CODE_RIGHTS, DATA_RIGHTS, DPL_3 = 0xC09B, 0xC093, 0x60
VM_IF_RF = 0x30200


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("SYSENTER", source="SDM vol. 2B, SYSENTER")
    def sysenter(cpu: Ia32) -> None:
        """Enter level 0 where the SYSENTER MSRs say, from any level and from virtual-8086 mode; nothing is saved.

        #GP(0) in real-address mode and when IA32_SYSENTER_CS is null.
        """
        selector = _kernel_selector(cpu)
        cpu.eflags = cpu.eflags.value & (VM_IF_RF ^ 0xFFFFFFFF)
        _load_flat(cpu.cs, selector & 0xFFFC, CODE_RIGHTS)
        _load_flat(cpu.ss, (selector & 0xFFFC) + 8, DATA_RIGHTS)
        cpu.gpr[ESP] = cpu.msr.load(Word(32, IA32_SYSENTER_ESP))[31:0]
        cpu.eip = cpu.msr.load(Word(32, IA32_SYSENTER_EIP))[31:0]

    @machine.instruction("SYSEXIT", source="SDM vol. 2B, SYSEXIT")
    def sysexit(cpu: Ia32) -> None:
        """Return to level 3 at EDX with the stack at ECX.

        #GP(0) in real-address mode, when IA32_SYSENTER_CS is null, and above CPL 0.
        """
        selector = _kernel_selector(cpu)
        privileged(cpu)
        _load_flat(cpu.cs, (selector + 16) | 3, CODE_RIGHTS | DPL_3)
        _load_flat(cpu.ss, (selector + 24) | 3, DATA_RIGHTS | DPL_3)
        cpu.gpr[ESP], cpu.eip = cpu.gpr[ECX], cpu.gpr[EDX]

    @machine.instruction("SYSCALL", source="SDM vol. 2B, SYSCALL")
    @machine.instruction("SYSRET", source="SDM vol. 2B, SYSRET")
    def only_in_64_bit_mode(cpu: Ia32) -> None:
        """#UD outside 64-bit mode."""
        raise Fault(UD)


def _kernel_selector(cpu: Ia32) -> Word:
    """IA32_SYSENTER_CS[15:0].

    Raises:
        Fault: #GP(0), it is null but for its RPL, or the mode is the real-address one.
    """
    selector = cpu.msr.load(Word(32, IA32_SYSENTER_CS))[15:0]
    if cpu.real | (selector[15:2] == 0):
        raise Fault(GP, 0)
    return selector


def _load_flat(segment: Segment, selector: Word, rights: int) -> None:
    segment.selector = selector
    segment.base, segment.limit, segment.rights = Word(32, 0), Word(32, 0xFFFFFFFF), Word(17, rights)
