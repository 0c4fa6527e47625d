"""The state of a processor with VMX: the mode, the VM-execution controls, and what a VM exit tells.

Names are those of the VMCS fields; bits of the controls have the manual's names (SDM vol. 3C, chapter
"Virtual Machine Control Structures").  `non_root` is 0 in VMX root operation, and outside VMX operation too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from popek.kernel.state import Register, Role, bank, bit, memory, register, word
from popek.kernel.words import Word, ite

from ...ia32.state import Ia32
from ...x86.access import MemoryOperand
from ...x86.assisted.state import Assisted
from ...x86.msrs import IA32_APIC_BASE
from ...x86_64.addresses import low_half
from ...x86_64.instructions.msrs import MSRS
from ...x86_64.segmentation import linear
from ...x86_64.state import X64

RESOURCE = Role.RESOURCE
Vectoring = tuple[int, Word, Word | None] | None
"""An event that is being delivered: its type, vector and error code."""
IA32_XSS = 0xDA0
BITMAPS = ("io_bitmap", "msr_bitmap", "vmread_bitmap", "vmwrite_bitmap", "eoi_exit_bitmap")
GUEST_STATUS = ("nmi_blocked", "rvi", "svi", "recognized")
"""What the VMCS holds of the guest's own state beside its registers."""
CR3_TARGETS = tuple(f"cr3_target{n}" for n in range(4))


class PinControls(Register):
    """Pin-based VM-execution controls."""

    external_interrupt_exiting = bit(0)
    nmi_exiting = bit(3)
    virtual_nmis = bit(5)
    activate_preemption_timer = bit(6)
    process_posted_interrupts = bit(7)


class PrimaryControls(Register):
    """Primary processor-based VM-execution controls."""

    interrupt_window_exiting = bit(2)
    use_tsc_offsetting = bit(3)
    hlt_exiting = bit(7)
    invlpg_exiting = bit(9)
    mwait_exiting = bit(10)
    rdpmc_exiting = bit(11)
    rdtsc_exiting = bit(12)
    cr3_load_exiting = bit(15)
    cr3_store_exiting = bit(16)
    activate_tertiary_controls = bit(17)
    cr8_load_exiting = bit(19)
    cr8_store_exiting = bit(20)
    use_tpr_shadow = bit(21)
    nmi_window_exiting = bit(22)
    mov_dr_exiting = bit(23)
    unconditional_io_exiting = bit(24)
    use_io_bitmaps = bit(25)
    monitor_trap_flag = bit(27)
    use_msr_bitmaps = bit(28)
    monitor_exiting = bit(29)
    pause_exiting = bit(30)
    activate_secondary_controls = bit(31)


class SecondaryControls(Register):
    """Secondary processor-based VM-execution controls; without effect unless they are activated."""

    virtualize_apic_accesses = bit(0)
    enable_ept = bit(1)
    descriptor_table_exiting = bit(2)
    enable_rdtscp = bit(3)
    virtualize_x2apic_mode = bit(4)
    enable_vpid = bit(5)
    wbinvd_exiting = bit(6)
    unrestricted_guest = bit(7)
    apic_register_virtualization = bit(8)
    virtual_interrupt_delivery = bit(9)
    pause_loop_exiting = bit(10)
    rdrand_exiting = bit(11)
    enable_invpcid = bit(12)
    enable_vm_functions = bit(13)
    vmcs_shadowing = bit(14)
    enable_encls_exiting = bit(15)
    rdseed_exiting = bit(16)
    enable_xsaves_xrstors = bit(20)
    use_tsc_scaling = bit(25)
    enable_user_wait_pause = bit(26)


class Vmx(Assisted):
    """What VMX adds to a processor: the mode, and the VMCS that is current.

    Fields of natural width are as wide as on a processor without Intel 64; those with it declare them anew.
    """

    non_root = word(1, role=Role.MODE)

    pin = register(PinControls, role=RESOURCE, reset=0x16)
    primary = register(PrimaryControls, role=RESOURCE, reset=0x0401E172)
    secondary = register(SecondaryControls, role=RESOURCE)
    exception_bitmap = word(32, role=RESOURCE)
    page_fault_mask = word(32, role=RESOURCE)
    page_fault_match = word(32, role=RESOURCE)
    cr0_mask = word(32, role=RESOURCE)
    cr0_shadow = word(32, role=RESOURCE)
    cr4_mask = word(32, role=RESOURCE)
    cr4_shadow = word(32, role=RESOURCE)
    cr3_target_count = word(32, role=RESOURCE)
    cr3_target = bank(CR3_TARGETS, 32, role=RESOURCE)
    tsc_offset = word(64, role=RESOURCE)
    tsc_multiplier = word(64, role=RESOURCE, reset=1 << 48)
    io_bitmap = memory(address=16, cell=1, role=RESOURCE)  # bitmaps A and B: a bit per port
    # Write (bit 14), high range (bit 13), number in the range.
    msr_bitmap = memory(address=15, cell=1, role=RESOURCE)
    vmread_bitmap = memory(address=15, cell=1, role=RESOURCE)
    vmwrite_bitmap = memory(address=15, cell=1, role=RESOURCE)
    vm_function_controls = word(64, role=RESOURCE)
    virtual_apic = memory(address=12, cell=8, role=RESOURCE)  # the virtual-APIC page
    tpr_threshold = word(32, role=RESOURCE)
    xss_exiting_bitmap = word(64, role=RESOURCE)
    # Guest interrupt status: vectors that are requested and in service; and whether one is recognized as pending.
    rvi = word(8, role=RESOURCE)
    svi = word(8, role=RESOURCE)
    recognized = word(1, role=Role.HIDDEN)
    eoi_exit_bitmap = memory(address=8, cell=1, role=RESOURCE)
    nmi_blocked = word(1, role=RESOURCE)  # blocking by NMI; with virtual NMIs, virtual-NMI blocking

    exit_reason = word(32, role=Role.HIDDEN)
    exit_qualification = word(64, role=Role.HIDDEN)
    exit_interruption_info = word(32, role=Role.HIDDEN)
    exit_interruption_error = word(32, role=Role.HIDDEN)
    exit_instruction_length = word(32, role=Role.HIDDEN)
    exit_instruction_info = word(32, role=Role.HIDDEN)
    exit_linear_address = word(64, role=Role.HIDDEN)
    exit_idt_vectoring_info = word(32, role=Role.HIDDEN)
    exit_idt_vectoring_error = word(32, role=Role.HIDDEN)

    if TYPE_CHECKING:  # notes of the instruction that is running; each processor declares them
        _start: Vmx
        _length: Word
        _vectoring: Vectoring
        _unblocked: Word | None

    def secondary_control(self, name: str) -> Word:
        """A secondary control, 0 unless they are activated (width 1)."""
        return self.primary.activate_secondary_controls & self[f"secondary.{name}"]

    @property
    def has_vmx_instructions(self) -> Word:
        """In this mode VMX instructions but VMCALL and VMFUNC are defined (width 1)."""
        raise NotImplementedError

    @property
    def supervisor_state(self) -> Word:
        """IA32_XSS (64 bits)."""
        raise NotImplementedError

    @property
    def in_x2apic_mode(self) -> Word:
        """IA32_APIC_BASE.EXTD (width 1)."""
        raise NotImplementedError

    @property
    def wide_code(self) -> Word:
        """Whether operands have 32 bits or more where no prefix says otherwise (width 1)."""
        raise NotImplementedError

    def address_size(self, memory: MemoryOperand | None) -> Word:
        """As VM-exit instruction information has it (3 bits); what is known of prefixes is in the offset."""
        raise NotImplementedError

    @property
    def string_address_size(self) -> Word:
        """The same of INS and OUTS."""
        raise NotImplementedError

    def linear(self, memory: MemoryOperand) -> Word:
        """The linear address of an operand (64 bits); nothing is checked."""
        raise NotImplementedError

    def displacement(self, memory: MemoryOperand) -> Word:
        """The displacement of an operand that has no base and no index (64 bits).

        Of one that is relative to RIP it is the sum of both, as a VM exit tells it.
        """
        raise NotImplementedError


class VmxIa32(Vmx, Ia32):
    """A processor without Intel 64."""

    processor = Ia32

    # Of the instruction that is running, or the event that is being delivered; no part of the state.
    _start: Vmx
    _length: Word
    _vectoring: Vectoring = None
    _unblocked: Word | None = None  # whether IRET ended the blocking of NMIs (width 1)

    @property
    def has_vmx_instructions(self) -> Word:
        """Protected mode."""
        return self.protected

    @property
    def supervisor_state(self) -> Word:
        """Among the MSRs."""
        return self.msr.load(Word(32, IA32_XSS))

    @property
    def in_x2apic_mode(self) -> Word:
        """Among the MSRs."""
        return self.msr.load(Word(32, IA32_APIC_BASE))[10]

    @property
    def wide_code(self) -> Word:
        """By CS.D, in protected mode."""
        return self.protected & self.cs.rights.db

    def address_size(self, memory: MemoryOperand | None) -> Word:
        """That of the code segment, or 32 bits for an offset beyond FFFFH."""
        wide = self.wide_code
        if memory is not None:
            wide = wide | (memory.offset[31:16] != 0)
        return wide.zero_extend(3)

    @property
    def string_address_size(self) -> Word:
        """32 bits: the forms count with ESI and EDI."""
        return Word(3, 1)

    def linear(self, memory: MemoryOperand) -> Word:
        """Base and offset, 32 bits of the sum."""
        return (self.segment(memory.segment).base + memory.offset).zero_extend(64)

    def displacement(self, memory: MemoryOperand) -> Word:
        """32 bits."""
        return memory.offset.zero_extend(64)


class VmxProcessorX64(X64):
    """What software in VMX root operation and a guest have of a processor with VMX: more MSRs."""

    xss = word(64, role=RESOURCE)  # IA32_XSS
    other_msrs = memory(address=32, cell=64, role=RESOURCE)  # the MSRs that are no component, by ECX

    def other_msr(self, number: Word) -> Word:
        """IA32_XSS, and what is kept of the MSRs that the processor may have beside those of the model."""
        return ite(number == IA32_XSS, self.xss, self.other_msrs.load(number))

    def set_other_msr(self, number: Word, value: Word) -> None:
        """Keep it."""
        other = ~number.isin((*MSRS, IA32_XSS))
        self.other_msrs = self.other_msrs.store(number, ite(other, value, self.other_msrs.load(number)))
        self.xss = ite(number == IA32_XSS, value, self.xss)


class VmxX64(Vmx, VmxProcessorX64):
    """A processor with Intel 64 in IA-32e mode, with VMX."""

    processor = VmxProcessorX64

    # Of the instruction that is running, or the event that is being delivered; no part of the state.
    _start: Vmx
    _length: Word
    _vectoring: Vectoring = None
    _unblocked: Word | None = None  # whether IRET ended the blocking of NMIs (width 1)

    cr0_mask = word(64, role=RESOURCE)
    cr0_shadow = word(64, role=RESOURCE)
    cr4_mask = word(64, role=RESOURCE)
    cr4_shadow = word(64, role=RESOURCE)
    cr3_target = bank(CR3_TARGETS, 64, role=RESOURCE)

    @property
    def has_vmx_instructions(self) -> Word:
        """64-bit mode."""
        return self.long

    @property
    def supervisor_state(self) -> Word:
        """A component."""
        return self.xss

    @property
    def in_x2apic_mode(self) -> Word:
        """A component."""
        return self.msr.apic_base.extd

    @property
    def wide_code(self) -> Word:
        """In 64-bit mode, where it is undefined, and in the model's compatibility mode, which has no 16-bit code."""
        return Word(1, 1)

    def address_size(self, memory: MemoryOperand | None) -> Word:
        """64 bits; 32 in compatibility mode."""
        return self.string_address_size

    @property
    def string_address_size(self) -> Word:
        """64 bits; 32 in compatibility mode."""
        return ite(self.long, Word(3, 2), Word(3, 1))

    def linear(self, memory: MemoryOperand) -> Word:
        """As in IA-32e mode."""
        return linear(self, self.segment(memory.segment), memory.segment, memory.offset)

    def displacement(self, memory: MemoryOperand) -> Word:
        """64 bits; 32 in compatibility mode."""
        return ite(self.long, memory.offset, low_half(memory.offset))


EXIT_INFORMATION = tuple(slot.name for slot in Vmx.layout if slot.name.startswith("exit_"))


def begin(cpu: Vmx, length: Word) -> None:
    """Remember where the instruction began, and its length (4 bits), for a VM exit."""
    cpu._start, cpu._length = cpu.copy(), length.zero_extend(32)
