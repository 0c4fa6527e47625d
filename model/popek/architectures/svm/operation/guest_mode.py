"""How guest mode treats instructions (APM vol. 2, "Instruction Intercepts" and the sections after it).

A hook forks at most once for an instruction that is intercepted as a whole.
"""

from __future__ import annotations

from typing import Final

from popek.architectures.x86.access import MemoryOperand
from popek.architectures.x86.descriptors import TASK_GATE, Descriptor
from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.interception import Interception, PortAccess
from popek.architectures.x86.msrs import IA32_EFER
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, any_of, concat, ite

from ...ia32.access import supervisor_load
from ...ia32.descriptors import check_new_tss
from ...ia32.msrs import EFER_NXE
from ...ia32.state import ECX, Ia32
from ...x86.state import X86
from .exits import (
    CR0_SEL_WRITE,
    CR_READ,
    CR_WRITE,
    DR_READ,
    DR_WRITE,
    IOIO,
    MSR,
    SOFTWARE_INTERRUPT,
    TASK_SWITCH,
    assisted,
    exit_of,
    exit_of_software_exception,
)
from .intercepts import When, intercepts
from .state import VM_HSAVE_PA, Svm, SvmX64

MOV_CR: Final = 1 << 63
"""EXITINFO1 of a control register's intercept: the instruction is a MOV, and the low bits name its register."""

SELECTIVE: Final = 0xFFFFFFF5
"""The bits of CR0 that the selective write intercept watches: all but TS and MP."""

MSR_RANGES: Final = (0x00000000, 0xC0000000, 0xC0010000)
"""Where the ranges of the MSR permissions map begin, 2000H MSRs each; an MSR of none always leaves."""

EFER_SVME: Final = 1 << 12


class GuestMode(Interception[X86]):
    """The hooks in guest mode; in the host nothing is different."""

    def early(self, cpu: X86, name: str, immediate: Word | None = None) -> None:
        """The intercepts that come before checks of privilege."""
        information = _information(cpu, name, None) if immediate is None else immediate
        _intercept(_svm(cpu), name, "early", information)

    def instruction(
        self, cpu: X86, name: str, memory: MemoryOperand | None = None, *registers: Word, size: int = 32
    ) -> None:
        """The intercepts that come after them."""
        _intercept(_svm(cpu), name, "checked", _information(cpu, name, memory))

    def late(self, cpu: X86, name: str) -> None:
        """The intercepts that come last; LMSW counts as a write of CR0, whatever it writes."""
        cpu = _svm(cpu)
        if name == "LMSW":
            if cpu.guest_mode & cpu.cr_write.cr0:
                exit_of(cpu, CR_WRITE)
            if cpu.guest_mode & cpu.vector3.cr0_sel_write:
                exit_of(cpu, CR0_SEL_WRITE)
            return
        if name == "MWAIT":
            armed = cpu.undefined("whether the address-range monitor is armed", 1)
            if cpu.guest_mode & cpu.vector4.mwait_armed & armed:
                exit_of(cpu, intercepts()["MWAIT armed"].code)
        _intercept(cpu, name, "late", Word(64, 0))

    def read_control_register(self, cpu: X86, number: int, register: Word | None = None) -> Word:
        """By the register; SMSW is a read of CR0 that is no MOV."""
        cpu = _svm(cpu)
        if cpu.guest_mode & cpu[f"cr_read.cr{number}"]:
            exit_of(cpu, CR_READ + number, _moved(cpu, register))
        return super().read_control_register(cpu, number, register)

    def control_register_accepted(self, cpu: X86, number: int, register: Word, value: Word) -> None:
        """By the register; of CR0 also by the bits that change."""
        cpu = _svm(cpu)
        if cpu.guest_mode & cpu[f"cr_write.cr{number}"]:
            exit_of(cpu, CR_WRITE + number, _moved(cpu, register))
        if number == 0:
            changes = (cpu.cr0.value ^ value) & SELECTIVE != 0
            if cpu.guest_mode & cpu.vector3.cr0_sel_write & changes:
                exit_of(cpu, CR0_SEL_WRITE, _moved(cpu, register))

    def read_task_priority(self, cpu: X86, register: Word) -> Word:
        """By CR8; with V_INTR_MASKING it is V_TPR that is read."""
        cpu = _svm(cpu)
        if cpu.guest_mode & cpu.cr_read.cr8:
            exit_of(cpu, CR_READ + 8, _moved(cpu, register))
        virtual = cpu.guest_mode & cpu.enables.v_intr_masking
        return ite(virtual, cpu.v_tpr[3:0], super().read_task_priority(cpu, register))

    def write_task_priority(self, cpu: X86, register: Word) -> None:
        """By CR8; with V_INTR_MASKING it is V_TPR that is written.

        Raises:
            Fault: #GP(0) for bits 63:4, before the #VMEXIT.
        """
        cpu = _svm(cpu)
        new = cpu.gpr[register]
        if new[63:4] != 0:
            raise Fault(GP, 0)
        if cpu.guest_mode & cpu.cr_write.cr8:
            exit_of(cpu, CR_WRITE + 8, _moved(cpu, register))
        virtual = cpu.guest_mode & cpu.enables.v_intr_masking
        cpu.v_tpr = ite(virtual, new[7:0], cpu.v_tpr)
        cpu["cr8"] = ite(virtual, cpu["cr8"], new[3:0])

    def clear_task_switched(self, cpu: X86) -> Word:
        """A write of CR0 that changes TS alone."""
        cpu = _svm(cpu)
        if cpu.guest_mode & cpu.cr_write.cr0:
            exit_of(cpu, CR_WRITE)
        return super().clear_task_switched(cpu)

    def debug_register_accepted(self, cpu: X86, number: int, register: Word, *, write: bool) -> None:
        """By the register as the instruction names it."""
        cpu = _svm(cpu)
        if cpu.guest_mode & cpu[f"dr_{'write' if write else 'read'}.dr{number}"]:
            exit_of(cpu, (DR_WRITE if write else DR_READ) + number, assisted(cpu, register))

    def port(self, cpu: X86, access: PortAccess) -> None:
        """Bit by bit of the I/O permissions map, which goes on behind the last port."""
        cpu = _svm(cpu)
        first = access.port.zero_extend(17)
        marked = any_of(cpu.iopm.load(first + n) for n in range(access.size // 8))
        if cpu.guest_mode & cpu.vector3.ioio_prot & (cpu.full_maps.iopm | marked):
            exit_of(cpu, IOIO, _io_access(cpu, access), cpu._next)

    def msr(self, cpu: X86, *, write: bool) -> None:
        """Bit by bit of the MSR permissions map; for MSRs that it does not list, always."""
        cpu = _svm(cpu)
        if cpu.guest_mode & cpu.vector3.msr_prot & msr_marked(cpu, cpu.read_register(ECX, 32), write=write):
            exit_of(cpu, MSR, int(write))

    def has_msr(self, cpu: X86, number: Word, stored: Word) -> Word:
        """VM_HSAVE_PA, too."""
        return stored | (number == VM_HSAVE_PA)

    def takes_msr(self, cpu: X86, number: Word, value: Word, stored: Word, accepted: Word) -> Word:
        """EFER has SVME, too; the host-save area is a page of physical memory.

        What a guest does after it cleared EFER.SVME is undefined (APM vol. 2, "Extended Feature Enable Register"): a
        VMM owns that bit, so it is harmed at once.
        """
        page = (value[11:0] == 0) & (value[63:40] == 0)
        found = ite(number == VM_HSAVE_PA, page, stored & accepted)
        if isinstance(cpu, SvmX64):  # whose EFER.SVME is a component of its own
            return found
        efer = (value & ((EFER_NXE | EFER_SVME) ^ ((1 << 64) - 1))) == 0
        return ite(number == IA32_EFER, efer, found)

    def time_stamp(self, cpu: X86) -> Word:
        """With the offset of the VMCB."""
        cpu = _svm(cpu)
        return ite(cpu.guest_mode, cpu.tsc + cpu.tsc_offset, cpu.tsc)

    def software_exception(self, cpu: X86, vector: int) -> None:
        """By the vector."""
        exit_of_software_exception(_svm(cpu), vector)

    def software_interrupt(self, cpu: X86, vector: Word) -> None:
        """The intercept of INT n came before; what goes wrong while it is delivered tells of it."""
        _svm(cpu)._vectoring = SOFTWARE_INTERRUPT, vector

    def task_switch(
        self, cpu: X86, source: str, selector: Word | None = None, descriptor: Descriptor | None = None
    ) -> None:
        """Once the new TSS is found good."""
        cpu = _svm(cpu)
        if not cpu.guest_mode & cpu.vector3.task_switch:
            return
        assert isinstance(cpu, Ia32)  # in IA-32e mode there are none
        if descriptor is not None and descriptor.type == TASK_GATE:
            selector = descriptor.gate_selector
        elif selector is None:
            selector = supervisor_load(cpu, cpu.tr.base, 2)  # the link to the previous task
        check_new_tss(cpu, selector, returning=source == "iret")
        flags = {"iret": 1 << 36, "jmp": 1 << 38}.get(source, 0)
        resume = concat(Word(15, 0), cpu.eflags.rf, Word(48, 0))  # which an instruction clears when it begins
        exit_of(cpu, TASK_SWITCH, selector, Word(64, flags) | resume, next_rip=False)


def _svm(cpu: X86) -> Svm:
    assert isinstance(cpu, Svm)
    return cpu


def _intercept(cpu: Svm, name: str, when: When, information: Word) -> None:
    """Leave where the VMCB intercepts an instruction that is at the place where the intercept is checked."""
    intercept = intercepts().get(name)
    if intercept is not None and intercept.when == when and cpu.guest_mode & cpu[intercept.control]:
        exit_of(cpu, intercept.code, assisted(cpu, information))


def msr_marked(cpu: Svm, number: Word, *, write: bool) -> Word:
    """Whether the MSR permissions map has a 1 for an MSR (32 bits), or does not list it (width 1)."""
    place, listed = Word(2, 0), FALSE
    for index, base in enumerate(MSR_RANGES):
        inside = number[31:13] == base >> 13
        place, listed = ite(inside, Word(2, index), place), listed | inside
    marked = cpu.msrpm.load(concat(place, number[12:0], Word(1, int(write))))
    return ~listed | cpu.full_maps.msrpm | marked


# -- EXITINFO1 and EXITINFO2 ---------------------------------------------------------------------------


def _moved(cpu: Svm, register: Word | None) -> Word:
    """MOV and the general register, with decode assists; nothing for LMSW, SMSW and CLTS."""
    return Word(64, 0) if register is None else assisted(cpu, Word(64, MOV_CR) | register.zero_extend(64))


def _information(cpu: X86, name: str, memory: MemoryOperand | None) -> Word:
    """INVLPG: the linear address."""
    if name == "INVLPG" and memory is not None:
        return _svm(cpu).linear(memory)
    return Word(64, 0)


def _io_access(cpu: Svm, access: PortAccess) -> Word:
    """Port, segment (with decode assists), address size, operand size, REP, string, direction."""
    string = access.memory is not None
    segment = Word(3, 0)
    if access.memory is not None and access.write:
        segment = assisted(cpu, access.memory.segment)[2:0]
    size = Word(3, {8: 1, 16: 2, 32: 4}[access.size])
    flags = Word(4, (not access.write) | string << 2 | access.repeated << 3)
    return concat(access.port, Word(3, 0), segment, cpu.address_size, size, flags)
