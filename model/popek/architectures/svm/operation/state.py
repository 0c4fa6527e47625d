"""The state with SVM, of IA-32 and of x86-64: guest mode, the VMCB's control area, and what a #VMEXIT tells.

Names are those of the VMCB's fields; bits of the intercept vectors have the manual's names (AMD64 APM vol. 2, appendix
B).  `guest_mode` is 0 in the host.  What VMLOAD and VMSAVE reach is physical memory, whatever the guest's own is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from popek.kernel.state import MemoryComponent, Register, Role, bit, memory, register, word
from popek.kernel.words import TRUE, Word, ite

from ...ia32.state import Ia32
from ...x86.access import MemoryOperand
from ...x86.assisted.state import Assisted
from ...x86.msrs import IA32_EFER
from ...x86_64.access import low_half
from ...x86_64.segmentation import linear
from ...x86_64.state import X64

RESOURCE = Role.RESOURCE
VM_HSAVE_PA = 0xC0010117


class ControlRegisters(Register):
    """Half of intercept vector 0: reads or writes of CR0 to CR15, of which IA-32 has four."""

    cr0 = bit(0)
    cr2 = bit(2)
    cr3 = bit(3)
    cr4 = bit(4)
    cr8 = bit(8)


class DebugRegisters(Register):
    """Half of intercept vector 1: reads or writes of DR0 to DR15, of which IA-32 has eight."""

    dr0 = bit(0)
    dr1 = bit(1)
    dr2 = bit(2)
    dr3 = bit(3)
    dr4 = bit(4)
    dr5 = bit(5)
    dr6 = bit(6)
    dr7 = bit(7)


class Exceptions(Register):
    """Intercept vector 2, at offset 008H: the exceptions that IA-32 has, by vector."""

    de = bit(0)
    db = bit(1)
    bp = bit(3)
    of = bit(4)
    br = bit(5)
    ud = bit(6)
    nm = bit(7)
    df = bit(8)
    ts = bit(10)
    np = bit(11)
    ss = bit(12)
    gp = bit(13)
    pf = bit(14)
    mf = bit(16)
    ac = bit(17)
    mc = bit(18)
    xf = bit(19)


class Vector3(Register):
    """Intercept vector 3, at offset 00CH."""

    intr = bit(0)
    nmi = bit(1)
    smi = bit(2)
    init = bit(3)
    vintr = bit(4)
    cr0_sel_write = bit(5)
    idtr_read = bit(6)
    gdtr_read = bit(7)
    ldtr_read = bit(8)
    tr_read = bit(9)
    idtr_write = bit(10)
    gdtr_write = bit(11)
    ldtr_write = bit(12)
    tr_write = bit(13)
    rdtsc = bit(14)
    rdpmc = bit(15)
    pushf = bit(16)
    popf = bit(17)
    cpuid = bit(18)
    rsm = bit(19)
    iret = bit(20)
    intn = bit(21)
    invd = bit(22)
    pause = bit(23)
    hlt = bit(24)
    invlpg = bit(25)
    invlpga = bit(26)
    ioio_prot = bit(27)
    msr_prot = bit(28)
    task_switch = bit(29)
    ferr_freeze = bit(30)
    shutdown = bit(31)


class Vector4(Register):
    """Intercept vector 4, at offset 010H, without the traps after writes of control registers."""

    vmrun = bit(0)
    vmmcall = bit(1)
    vmload = bit(2)
    vmsave = bit(3)
    stgi = bit(4)
    clgi = bit(5)
    skinit = bit(6)
    rdtscp = bit(7)
    icebp = bit(8)
    wbinvd = bit(9)
    monitor = bit(10)
    mwait = bit(11)
    mwait_armed = bit(12)
    xsetbv = bit(13)
    rdpru = bit(14)
    efer_write = bit(15)


class CrWriteTraps(Register):
    """The other half of intercept vector 4: a #VMEXIT after a write of CR0 to CR15."""

    cr0 = bit(0)
    cr2 = bit(2)
    cr3 = bit(3)
    cr4 = bit(4)


class Vector5(Register):
    """Intercept vector 5, at offset 014H."""

    invlpgb = bit(0)
    invlpgb_illegal = bit(1)
    invpcid = bit(2)
    mcommit = bit(3)
    tlbsync = bit(4)


class Enables(Register):
    """What other fields of the control area turn on: offsets 060H, 090H and 0B8H."""

    nested_paging = bit(0)
    v_intr_masking = bit(1)
    vgif = bit(2)
    virtual_vmload_vmsave = bit(3)


class FullMaps(Register):
    """Permissions maps that are all ones, said by one bit each; no field of the VMCB."""

    iopm = bit(0)
    msrpm = bit(1)


class Features(Register):
    """What a processor tells of an exit (CPUID 8000000AH EDX)."""

    next_rip_save = bit(0)
    decode_assists = bit(1)


class Svm(Assisted):
    """What SVM adds to a processor: the mode, and the VMCB of the guest that it runs."""

    guest_mode = word(1, role=Role.MODE)
    gif = word(1, role=RESOURCE, reset=1)
    virtual_gif = word(1, role=RESOURCE, reset=1)

    cr_read = register(ControlRegisters, 16, role=RESOURCE)
    cr_write = register(ControlRegisters, 16, role=RESOURCE)
    dr_read = register(DebugRegisters, 16, role=RESOURCE)
    dr_write = register(DebugRegisters, 16, role=RESOURCE)
    exceptions = register(Exceptions, 32, role=RESOURCE)
    vector3 = register(Vector3, 32, role=RESOURCE)
    vector4 = register(Vector4, 16, role=RESOURCE, reset=1)
    cr_write_trap = register(CrWriteTraps, 16, role=RESOURCE)
    vector5 = register(Vector5, 32, role=RESOURCE)
    enables = register(Enables, 4, role=RESOURCE)
    tsc_offset = word(64, role=RESOURCE)
    iopm = memory(address=17, cell=1, role=RESOURCE)  # the I/O permissions map: a bit per port, and two more
    msrpm = memory(address=16, cell=1, role=RESOURCE)  # the MSR permissions map: range, number, write
    full_maps = register(FullMaps, 2, role=RESOURCE)
    v_tpr = word(8, role=RESOURCE)  # the guest's task priority, where V_INTR_MASKING has MOV CR8 work on it
    features = register(Features, 2, role=RESOURCE, reset=3)
    exit_code = word(64, role=Role.HIDDEN)
    exit_info1 = word(64, role=Role.HIDDEN)
    exit_info2 = word(64, role=Role.HIDDEN)
    exit_int_info = word(64, role=Role.HIDDEN)
    exit_next_rip = word(64, role=Role.HIDDEN)

    if TYPE_CHECKING:  # notes of the instruction that is running; each processor declares them
        host_memory: MemoryComponent  # as wide as its addresses
        _start: Svm
        _next: Word
        _vectoring: tuple[int, Word] | None

    @property
    def svme(self) -> Word:
        """EFER.SVME (width 1)."""
        raise NotImplementedError

    @property
    def has_svm_instructions(self) -> Word:
        """In this mode SVM's instructions but VMMCALL are defined (width 1)."""
        raise NotImplementedError

    @property
    def address_size(self) -> Word:
        """Of string instructions, as EXITINFO1 of a port has it: 16, 32 or 64 bits (3 bits)."""
        raise NotImplementedError

    def following(self, length: Word) -> Word:
        """Where the next instruction is, given the length of this one."""
        raise NotImplementedError

    def linear(self, memory: MemoryOperand) -> Word:
        """The linear address of an operand (64 bits); nothing is checked."""
        raise NotImplementedError


class SvmIa32(Svm, Ia32):
    """A processor without long mode."""

    processor = Ia32
    host_memory = memory(address=32, cell=8, role=RESOURCE)  # physical memory, as VMLOAD and VMSAVE see it

    # Of the instruction that is running, or the event that is being delivered; no part of the state.
    _start: Svm
    _next: Word
    _vectoring: tuple[int, Word] | None = None  # that event's type and vector

    @property
    def svme(self) -> Word:
        """Among the MSRs."""
        return self.msr.load(Word(32, IA32_EFER))[12]

    @property
    def has_svm_instructions(self) -> Word:
        """Protected mode."""
        return self.protected

    @property
    def address_size(self) -> Word:
        """32 bits: the forms count with ESI and EDI."""
        return Word(3, 2)

    def following(self, length: Word) -> Word:
        """32 bits."""
        return self.eip + length.zero_extend(32)

    def linear(self, memory: MemoryOperand) -> Word:
        """Base and offset, 32 bits of the sum."""
        return (self.segment(memory.segment).base + memory.offset).zero_extend(64)


class SvmX64(Svm, X64):
    """A processor in IA-32e mode."""

    processor = X64
    host_memory = memory(address=64, cell=8, role=RESOURCE)  # physical memory, as VMLOAD and VMSAVE see it
    enabled = word(1, role=RESOURCE)  # EFER.SVME, which the processor without SVM does not have
    host_save = word(64, role=RESOURCE)  # VM_HSAVE_PA, likewise

    # Of the instruction that is running, or the event that is being delivered; no part of the state.
    _start: Svm
    _next: Word
    _vectoring: tuple[int, Word] | None = None  # that event's type and vector

    @property
    def svme(self) -> Word:
        """Beside the rest of EFER."""
        return self.enabled

    @property
    def has_svm_instructions(self) -> Word:
        """Always: it is protected mode."""
        return TRUE

    @property
    def address_size(self) -> Word:
        """64 bits; 32 in compatibility mode."""
        return ite(self.long, Word(3, 4), Word(3, 2))

    def other_msr(self, number: Word) -> Word:
        """VM_HSAVE_PA."""
        return ite(number == VM_HSAVE_PA, self.host_save, Word(64, 0))

    def set_other_msr(self, number: Word, value: Word) -> None:
        """VM_HSAVE_PA."""
        self.host_save = ite(number == VM_HSAVE_PA, value, self.host_save)

    def following(self, length: Word) -> Word:
        """64 bits; 32 in compatibility mode."""
        following = self.rip + length.zero_extend(64)
        return ite(self.long, following, low_half(following))

    def linear(self, memory: MemoryOperand) -> Word:
        """As in IA-32e mode."""
        return linear(self, self.segment(memory.segment), memory.segment, memory.offset)


EXIT_INFORMATION = tuple(slot.name for slot in Svm.layout if slot.name.startswith("exit_"))


def begin(cpu: Svm, length: Word) -> None:
    """Remember where the instruction began, and where the next one is, given its length (4 bits), for a #VMEXIT."""
    cpu._start, cpu._next = cpu.copy(), cpu.following(length)
