"""HLT INVD WBINVD INVLPG RDMSR WRMSR RDTSC RDPMC (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, all_of, concat, ite

from ..access import MemoryOperand, privileged
from ..state import EAX, ECX, EDX, GP, Ia32

IA32_TIME_STAMP_COUNTER, IA32_PAT = 0x10, 0x277
IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP = 0x174, 0x175, 0x176
STORED_MSRS = (IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP, IA32_PAT)
MEMORY_TYPES = (0, 1, 4, 5, 6, 7)
GENERAL_COUNTERS, FIXED_COUNTERS = 8, 3  # RDPMC: ECX 0..7 and 40000000H..40000002H


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("HLT", source="SDM vol. 2A, HLT")
    def hlt(cpu: Ia32) -> None:
        """Stop until an interrupt."""
        privileged(cpu)
        cpu.halted = Word(1, 1)

    @machine.instruction("INVD", source="SDM vol. 2A, INVD")
    def invd(cpu: Ia32) -> None:
        """Empty the caches and lose what memory does not have."""
        privileged(cpu)
        cpu.cache_dirty = Word(1, 0)

    @machine.instruction("WBINVD", source="SDM vol. 2B, WBINVD")
    def wbinvd(cpu: Ia32) -> None:
        """Write the caches back and empty them."""
        privileged(cpu)
        cpu.cache_dirty = Word(1, 0)

    @machine.instruction("INVLPG m", source="SDM vol. 2A, INVLPG")
    def invlpg(cpu: Ia32, m: MemoryOperand) -> None:
        """Forget the translation of one page; never faults on the address."""
        privileged(cpu)
        cpu.tlb_stale = Word(1, 0)

    @machine.instruction("RDMSR", source="SDM vol. 2B, RDMSR")
    def rdmsr(cpu: Ia32) -> None:
        """EDX:EAX := the MSR that ECX names; #GP(0) for one that does not exist."""
        privileged(cpu)
        number = cpu.gpr[ECX]
        if number == IA32_TIME_STAMP_COUNTER:
            _to_edx_eax(cpu, cpu.tsc)
        elif number.isin(STORED_MSRS):
            _to_edx_eax(cpu, cpu.msr.load(number))
        else:
            raise Fault(GP, 0)

    @machine.instruction("WRMSR", source="SDM vol. 2B, WRMSR")
    def wrmsr(cpu: Ia32) -> None:
        """The MSR that ECX names := EDX:EAX; #GP(0) for one that does not exist or a value it refuses."""
        privileged(cpu)
        number, value = cpu.gpr[ECX], concat(cpu.gpr[EDX], cpu.gpr[EAX])
        if number == IA32_TIME_STAMP_COUNTER:
            cpu.tsc = value
            return
        if not number.isin(STORED_MSRS):
            raise Fault(GP, 0)
        types = all_of(value[low + 7 : low].isin(MEMORY_TYPES) for low in range(0, 64, 8))
        if (number == IA32_PAT) & ~types:
            raise Fault(GP, 0)
        # A processor without Intel 64 keeps 32 bits of the SYSENTER registers.
        kept = ite(number == IA32_PAT, value, value[31:0].zero_extend(64))
        cpu.msr = cpu.msr.store(number, kept)

    @machine.instruction("RDTSC", source="SDM vol. 2B, RDTSC")
    def rdtsc(cpu: Ia32) -> None:
        """EDX:EAX := the time-stamp counter; #GP(0) above CPL 0 when CR4.TSD is set."""
        if cpu.cr4.tsd and cpu.cpl != 0:
            raise Fault(GP, 0)
        _to_edx_eax(cpu, cpu.tsc)

    @machine.instruction("RDPMC", source="SDM vol. 2B, RDPMC")
    def rdpmc(cpu: Ia32) -> None:
        """EDX:EAX := a performance counter; #GP(0) above CPL 0 unless CR4.PCE is set, or no such counter."""
        if cpu.cpl != 0 and not cpu.cr4.pce:
            raise Fault(GP, 0)
        number = cpu.gpr[ECX]
        fixed = (number >= 0x40000000) & (number < 0x40000000 + FIXED_COUNTERS)
        if not ((number < GENERAL_COUNTERS) | fixed):
            raise Fault(GP, 0)
        _to_edx_eax(cpu, cpu.pmc.load(number))


def _to_edx_eax(cpu: Ia32, value: Word) -> None:
    cpu.gpr[EDX], cpu.gpr[EAX] = value[63:32], value[31:0]
