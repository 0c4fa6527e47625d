"""HLT INVD WBINVD WBNOINVD INVLPG INVPCID CLFLUSH RDMSR WRMSR RDTSC RDPMC (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.msrs import IA32_TIME_STAMP_COUNTER, is_counter
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat

from .. import access, msrs
from ..access import MemoryOperand, privileged
from ..state import (
    EAX,
    ECX,
    EDX,
    Ia32,
)


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("HLT", source="SDM vol. 2A, HLT")
    def hlt(cpu: Ia32) -> None:
        """Stop until an interrupt."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "HLT")
        cpu.halted = Word(1, 1)

    @machine.instruction("INVD", source="SDM vol. 2A, INVD")
    def invd(cpu: Ia32) -> None:
        """Empty the caches and lose what memory does not have."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "INVD")
        cpu.cache_dirty = Word(1, 0)

    @machine.instruction("WBINVD", source="SDM vol. 2B, WBINVD")
    def wbinvd(cpu: Ia32) -> None:
        """Write the caches back and empty them."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "WBINVD")
        cpu.cache_dirty = Word(1, 0)

    @machine.instruction("INVLPG m", source="SDM vol. 2A, INVLPG")
    def invlpg(cpu: Ia32, m: MemoryOperand) -> None:
        """Forget the translation of one page; never faults on the address."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "INVLPG", m)
        cpu.tlb_stale = Word(1, 0)

    @machine.instruction("WBNOINVD", source="SDM vol. 2C, WBNOINVD")
    def wbnoinvd(cpu: Ia32) -> None:
        """Write the caches back."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "WBNOINVD")
        cpu.cache_dirty = Word(1, 0)

    @machine.instruction("CLFLUSH m8", source="SDM vol. 2A, CLFLUSH")
    def clflush(cpu: Ia32, m: MemoryOperand) -> None:
        """Write one line back and forget it, at every level; a reference like a load of one byte.

        The segment may be one that can only be executed.
        """
        segment = cpu.segment(m.segment)
        executable = (segment.rights.unusable == 0) & (segment.rights.type[3] == 1)
        inside = bool(executable & access.within(segment, m.offset, 1))
        access.linear_address(cpu, m, 1, write=False, checked=inside)

    @machine.instruction("INVPCID r32, m128", source="SDM vol. 2A, INVPCID")
    def invpcid(cpu: Ia32, r: Word, m: MemoryOperand) -> None:
        """Forget translations by process-context identifier.

        #GP(0) above CPL 0, for an unknown type, reserved bits of the descriptor, and a PCID without CR4.PCIDE, which
        only IA-32e mode has.
        """
        cpu.interception.recognized(cpu, "INVPCID")
        privileged(cpu)
        cpu.interception.instruction(cpu, "INVPCID", m, r)
        kind, pcid = (
            cpu.gpr[r],
            access.load(cpu, m, 16)[63:0],
        )  # the manual reads both before it looks at either
        if kind > 3:
            raise Fault(GP, 0)
        if (pcid[63:12] != 0) | ((kind < 2) & (pcid != 0)):
            raise Fault(GP, 0)
        cpu.tlb_stale = Word(1, 0)

    @machine.instruction("RDMSR", source="SDM vol. 2B, RDMSR")
    def rdmsr(cpu: Ia32) -> None:
        """EDX:EAX := the MSR that ECX names; #GP(0) for one that does not exist."""
        privileged(cpu)
        cpu.interception.msr(cpu, write=False)
        number = cpu.gpr[ECX]
        if number == IA32_TIME_STAMP_COUNTER:
            _to_edx_eax(cpu, cpu.interception.time_stamp(cpu))
        elif cpu.interception.has_msr(cpu, number, msrs.exists(number)):
            _to_edx_eax(cpu, cpu.msr.load(number))
        else:
            raise Fault(GP, 0)

    @machine.instruction("WRMSR", source="SDM vol. 2B, WRMSR")
    def wrmsr(cpu: Ia32) -> None:
        """The MSR that ECX names := EDX:EAX; #GP(0) for one that does not exist or a value it refuses."""
        privileged(cpu)
        cpu.interception.msr(cpu, write=True)
        number, value = cpu.gpr[ECX], concat(cpu.gpr[EDX], cpu.gpr[EAX])
        if number == IA32_TIME_STAMP_COUNTER:
            cpu.tsc = value
            return
        old = cpu.msr.load(number)
        stored, accepted = msrs.exists(number), msrs.accepted(number, value, old)
        if not cpu.interception.takes_msr(cpu, number, value, stored, accepted):
            raise Fault(GP, 0)
        cpu.msr = cpu.msr.store(number, msrs.kept(number, value, old))

    @machine.instruction("RDTSC", source="SDM vol. 2B, RDTSC")
    def rdtsc(cpu: Ia32) -> None:
        """EDX:EAX := the time-stamp counter; #GP(0) above CPL 0 when CR4.TSD is set."""
        if cpu.cr4.tsd and cpu.cpl != 0:
            raise Fault(GP, 0)
        cpu.interception.instruction(cpu, "RDTSC")
        _to_edx_eax(cpu, cpu.interception.time_stamp(cpu))

    @machine.instruction("RDPMC", source="SDM vol. 2B, RDPMC")
    def rdpmc(cpu: Ia32) -> None:
        """EDX:EAX := a performance counter; #GP(0) above CPL 0 unless CR4.PCE is set, or no such counter."""
        if cpu.cpl != 0 and not cpu.cr4.pce:
            raise Fault(GP, 0)
        cpu.interception.instruction(cpu, "RDPMC")
        number = cpu.gpr[ECX]
        if not is_counter(number):
            raise Fault(GP, 0)
        cpu.interception.late(cpu, "RDPMC")
        _to_edx_eax(cpu, cpu.pmc.load(number))


def _to_edx_eax(cpu: Ia32, value: Word) -> None:
    cpu.gpr[EDX], cpu.gpr[EAX] = value[63:32], value[31:0]
