"""RDMSR and WRMSR of the local APIC's registers, virtualized on the virtual-APIC page.

SDM vol. 3C, chapter "APIC Virtualization and Virtual Interrupts", "Virtualizing MSR-Based APIC Accesses" (30.5) and
"TPR Virtualization" (30.1.2).  They work whatever the local APIC's mode.  Of the rest of that chapter, MOV CR8 exists
in 64-bit mode alone; accesses to the APIC-access page depend on translations that this model does not make.
"""

from __future__ import annotations

from typing import Final

from popek.architectures.x86.access import privileged
from popek.architectures.x86.exceptions import GP
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import Word, concat

from .exits import TPR_BELOW_THRESHOLD, trap_like_exit_of
from .state import Vmx

EAX, ECX, EDX = 0, 1, 2
TPR, EOI, SELF_IPI = 0x808, 0x80B, 0x83F  # numbers of MSRs
VTPR: Final = 0x80
"""Where the virtual-APIC page has the virtual task-priority register."""


def virtualizes(cpu: Vmx, *, write: bool) -> Word:
    """Whether RDMSR or WRMSR of the MSR in ECX goes to the virtual-APIC page, if it does not exit (width 1)."""
    number = cpu.read_register(ECX, 32)
    if write:
        delivers = cpu.secondary_control("virtual_interrupt_delivery")
        those = (number == TPR) | (delivers & number.isin((EOI, SELF_IPI)))
    else:
        registers = cpu.secondary_control("apic_register_virtualization")
        those = (number == TPR) | (registers & (number[31:8] == 8))
    return cpu.non_root & cpu.secondary_control("virtualize_x2apic_mode") & those


def access(cpu: Vmx, *, write: bool) -> None:
    """RDMSR or WRMSR where `virtualizes`.

    Raises:
        Fault: #GP(0) above CPL 0, or for reserved bits of the TPR; the exit; after a write to the TPR, the exit
            for a TPR below the threshold.
        NotModelledError: virtual-interrupt delivery would follow.
    """
    privileged(cpu)
    cpu.interception.msr(cpu, write=write)
    if not write:
        where = concat(cpu.gpr[ECX][7:0], Word(4, 0))
        value = cpu.virtual_apic.load_little_endian(where, 8)
        cpu.write_register(EDX, value[63:32])
        cpu.write_register(EAX, value[31:0])
        return
    if cpu.secondary_control("virtual_interrupt_delivery"):
        raise NotModelledError("virtual-interrupt delivery")
    value = concat(cpu.read_register(EDX, 32), cpu.read_register(EAX, 32))
    if value[63:8] != 0:
        raise Fault(GP, 0)
    write_task_priority(cpu, value)


def write_task_priority(cpu: Vmx, value: Word) -> None:
    """VTPR := a value (32 or 64 bits), and TPR virtualization (30.1.2).

    Raises:
        Fault: the exit for a TPR below the threshold, after the write.
        NotModelledError: virtual-interrupt delivery would follow.
    """
    if cpu.secondary_control("virtual_interrupt_delivery"):
        raise NotModelledError("virtual-interrupt delivery")
    cpu.virtual_apic = cpu.virtual_apic.store_little_endian(Word(12, VTPR), value)
    if below_threshold(cpu):
        trap_like_exit_of(cpu, TPR_BELOW_THRESHOLD)


def below_threshold(cpu: Vmx) -> Word:
    """Whether bits 7:4 of VTPR are below the TPR threshold (width 1)."""
    return cpu.virtual_apic.load(Word(12, VTPR))[7:4] < cpu.tpr_threshold[3:0]


def exits_after_entry(cpu: Vmx) -> Word:
    """Whether a VM entry is followed by an exit at once (width 1).

    SDM vol. 3C, "VM Exits Induced by the TPR Threshold" (27.7.7).
    """
    virtual = cpu.primary.use_tpr_shadow & cpu.secondary_control("virtualize_apic_accesses")
    return virtual & ~cpu.secondary_control("virtual_interrupt_delivery") & below_threshold(cpu)
