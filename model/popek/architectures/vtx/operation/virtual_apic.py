"""The local APIC of a guest on the virtual-APIC page, and interrupts that the processor delivers from there.

SDM vol. 3C, chapter "APIC Virtualization and Virtual Interrupts": TPR, PPR, EOI and self-IPI virtualization (30.1),
evaluation and delivery of pending virtual interrupts (30.2), MOV CR8 (30.3), RDMSR and WRMSR (30.5).  These work
whatever the local APIC's mode.  Accesses to the APIC-access page depend on translations that this model does not make.
"""

from __future__ import annotations

from typing import Final

from popek.architectures.x86.access import privileged
from popek.architectures.x86.exceptions import GP
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, concat, ite

from .exits import APIC_WRITE, TPR_BELOW_THRESHOLD, VIRTUALIZED_EOI, trap_like_exit_of
from .state import Vmx

EAX, ECX, EDX = 0, 1, 2
TPR, EOI, SELF_IPI = 0x808, 0x80B, 0x83F  # numbers of MSRs
VTPR: Final = 0x80
"""Where the virtual-APIC page has the virtual task-priority register."""
VPPR, VEOI, VISR, VIRR, VICR_LOW, SELF_IPI_AT = 0xA0, 0xB0, 0x100, 0x200, 0x300, 0x3F0
"""Where it has the others; VISR and VIRR are eight registers of 32 bits, 16 bytes apart."""
VECTORS: Final = 256


# -- sets of vectors ----------------------------------------------------------------------------------


def highest(vectors: Word) -> Word:
    """The highest vector (8 bits) of a set (a bit each), 0 where there is none."""
    found = Word(8, 0)
    for vector in range(vectors.width):
        found = ite(vectors[vector], Word(8, vector), found)
    return found


def only(vector: Word) -> Word:
    """The set (256 bits) of one vector."""
    return Word(VECTORS, 1) << vector.zero_extend(VECTORS)


def processor_priority(task_priority: Word, in_service: Word) -> Word:
    """PPR (8 bits) from the TPR and the highest vector in service (30.1.3)."""
    return ite(task_priority[7:4] >= in_service[7:4], task_priority, in_service & 0xF0)


def outranks(vector: Word, priority: Word) -> Word:
    """Whether a vector's class is above that of a priority (width 1)."""
    return vector[7:4] > priority[7:4]


def register_set(cpu: Vmx, base: int) -> Word:
    """The set (256 bits) in VISR or VIRR."""
    return concat(
        *(cpu.virtual_apic.load_little_endian(Word(12, base + 16 * n), 4) for n in reversed(range(8)))
    )


def _marked(cpu: Vmx, base: int, vector: Word, value: Word) -> None:
    """Set or clear one vector in VISR or VIRR."""
    where = concat(Word(5, 0), vector[7:5], Word(4, 0)) + base + vector[4:3].zero_extend(12)
    bit = Word(8, 1) << vector[2:0].zero_extend(8)
    old = cpu.virtual_apic.load(where)
    cpu.virtual_apic = cpu.virtual_apic.store(where, ite(value, old | bit, old & ~bit))


# -- RDMSR and WRMSR ----------------------------------------------------------------------------------


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
        Fault: #GP(0) above CPL 0, or for reserved bits of the value; the exit; after a write, the exit for a TPR
            below the threshold, for an EOI that the VMM wants to learn of, or for a self-IPI of a reserved vector.
    """
    privileged(cpu)
    cpu.interception.msr(cpu, write=write)
    if not write:
        where = concat(cpu.gpr[ECX][7:0], Word(4, 0))
        value = cpu.virtual_apic.load_little_endian(where, 8)
        cpu.write_register(EDX, value[63:32])
        cpu.write_register(EAX, value[31:0])
        return
    number = cpu.read_register(ECX, 32)
    value = concat(cpu.read_register(EDX, 32), cpu.read_register(EAX, 32))
    if (value[63:8] != 0) | ((number == EOI) & (value != 0)):
        raise Fault(GP, 0)
    if number == TPR:
        write_task_priority(cpu, value)
    elif number == EOI:
        cpu.virtual_apic = cpu.virtual_apic.store_little_endian(Word(12, VEOI), value)
        end_of_interrupt(cpu)
    else:
        cpu.virtual_apic = cpu.virtual_apic.store_little_endian(Word(12, SELF_IPI_AT), value)
        self_ipi(cpu, value[7:0])


# -- what the processor makes of it -------------------------------------------------------------------


def write_task_priority(cpu: Vmx, value: Word) -> None:
    """VTPR := a value (32 or 64 bits), and TPR virtualization (30.1.2).

    Raises:
        Fault: the exit for a TPR below the threshold, after the write; with virtual-interrupt delivery there is none.
    """
    cpu.virtual_apic = cpu.virtual_apic.store_little_endian(Word(12, VTPR), value)
    if cpu.secondary_control("virtual_interrupt_delivery"):
        virtualize_priority(cpu)
        evaluate(cpu)
    elif below_threshold(cpu):
        trap_like_exit_of(cpu, TPR_BELOW_THRESHOLD)


def entered(cpu: Vmx) -> None:
    """What VM entry makes of the virtual-APIC page with virtual-interrupt delivery (26.3.2.5); does not fork."""
    delivers = cpu.secondary_control("virtual_interrupt_delivery")
    priority = processor_priority(cpu.virtual_apic.load(Word(12, VTPR)), cpu.svi)
    old = cpu.virtual_apic.load_little_endian(Word(12, VPPR), 4)
    shown = ite(delivers, priority.zero_extend(32), old)
    cpu.virtual_apic = cpu.virtual_apic.store_little_endian(Word(12, VPPR), shown)
    pending = outranks(cpu.rvi, priority) & ~cpu.primary.interrupt_window_exiting
    cpu.recognized = delivers & pending


def virtualize_priority(cpu: Vmx) -> None:
    """PPR virtualization (30.1.3)."""
    priority = processor_priority(cpu.virtual_apic.load(Word(12, VTPR)), cpu.svi)
    cpu.virtual_apic = cpu.virtual_apic.store_little_endian(Word(12, VPPR), priority.zero_extend(32))


def evaluate(cpu: Vmx) -> None:
    """Recognize a pending virtual interrupt, or not (30.2.1)."""
    priority = cpu.virtual_apic.load(Word(12, VPPR))
    cpu.recognized = outranks(cpu.rvi, priority) & ~cpu.primary.interrupt_window_exiting


def end_of_interrupt(cpu: Vmx) -> None:
    """EOI virtualization (30.1.4).

    Raises:
        Fault: the exit, where the EOI-exit bitmap has the vector.
    """
    vector = cpu.svi
    _marked(cpu, VISR, vector, FALSE)
    cpu.svi = highest(register_set(cpu, VISR))
    virtualize_priority(cpu)
    if cpu.eoi_exit_bitmap.load(vector):
        trap_like_exit_of(cpu, VIRTUALIZED_EOI, vector.zero_extend(64))
    evaluate(cpu)


def self_ipi(cpu: Vmx, vector: Word) -> None:
    """Self-IPI virtualization (30.1.5) of a vector (8 bits).

    Raises:
        Fault: the exit for an APIC write, of a reserved vector.
    """
    if vector[7:4] == 0:
        trap_like_exit_of(cpu, APIC_WRITE, Word(64, SELF_IPI_AT))
    _marked(cpu, VIRR, vector, Word(1, 1))
    cpu.rvi = ite(vector > cpu.rvi, vector, cpu.rvi)
    evaluate(cpu)


def below_threshold(cpu: Vmx) -> Word:
    """Whether bits 7:4 of VTPR are below the TPR threshold (width 1)."""
    return cpu.virtual_apic.load(Word(12, VTPR))[7:4] < cpu.tpr_threshold[3:0]


def exits_after_entry(cpu: Vmx) -> Word:
    """Whether a VM entry is followed by an exit at once (width 1).

    SDM vol. 3C, "VM Exits Induced by the TPR Threshold" (27.7.7).
    """
    virtual = cpu.primary.use_tpr_shadow & cpu.secondary_control("virtualize_apic_accesses")
    return virtual & ~cpu.secondary_control("virtual_interrupt_delivery") & below_threshold(cpu)
