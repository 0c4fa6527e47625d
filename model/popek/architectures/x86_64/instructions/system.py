"""HLT INVD WBINVD INVLPG INVPCID RDTSC RDTSCP RDPID RDPMC CPUID CLAC STAC MONITOR MWAIT (SDM vol. 2)."""

from __future__ import annotations

from popek.architectures.x86.access import privileged
from popek.architectures.x86.exceptions import (
    GP,
    UD,
)
from popek.architectures.x86.msrs import is_counter
from popek.architectures.x86.registers import DS
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import MemoryOperand
from ..addresses import is_canonical
from ..state import (
    RAX,
    RBX,
    RCX,
    RDX,
    X64,
)


def to_edx_eax(cpu: X64, value: Word) -> None:
    """EDX:EAX := 64 bits; both upper halves become 0."""
    cpu.write_register(RDX, value[63:32])
    cpu.write_register(RAX, value[31:0])


def edx_eax(cpu: X64) -> Word:
    """EDX:EAX, 64 bits."""
    return concat(cpu.read_register(RDX, 32), cpu.read_register(RAX, 32))


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""
    _caches_and_translations(machine)
    _clocks_and_identification(machine)

    @machine.instruction("HLT", source="SDM vol. 2A, HLT")
    def hlt(cpu: X64) -> None:
        """Stop until an interrupt."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "HLT")
        cpu.halted = Word(1, 1)

    @machine.instruction("MONITOR", source="SDM vol. 2B, MONITOR")
    def monitor(cpu: X64) -> None:
        """Watch DS:RAX; #UD when IA32_MISC_ENABLE says so and above CPL 0; #GP(0) for RCX not 0."""
        _monitor_allowed(cpu)
        cpu.interception.instruction(cpu, "MONITOR")
        if cpu.whole_register(RCX) != 0:
            raise Fault(GP, 0)
        access.load(cpu, MemoryOperand(Word(3, DS), cpu.gpr[RAX]), 1)
        cpu.interception.late(cpu, "MONITOR")
        cpu.monitored = Word(1, 1)

    @machine.instruction("MWAIT", source="SDM vol. 2B, MWAIT")
    def mwait(cpu: X64) -> None:
        """Wait for a store to what is watched, or an interrupt; RCX: bit 0 alone is known."""
        _monitor_allowed(cpu)
        cpu.interception.instruction(cpu, "MWAIT")
        if cpu.whole_register(RCX)[63:1] != 0:
            raise Fault(GP, 0)
        cpu.interception.late(cpu, "MWAIT")
        cpu.halted = cpu.monitored
        cpu.monitored = Word(1, 0)

    for name, value in (("CLAC", 0), ("STAC", 1)):

        @machine.instruction(name, source=f"SDM vol. 2, {name}", value=value)
        def set_ac(cpu: X64, *, value: int) -> None:
            """RFLAGS.AC := 0 or 1; #UD above CPL 0."""
            if cpu.cpl != 0:
                raise Fault(UD)
            cpu.rflags.ac = value


def _monitor_allowed(cpu: X64) -> None:
    if (cpu.msr.misc_enable.monitor == 0) | (cpu.cpl != 0):
        raise Fault(UD)


def _caches_and_translations(machine: Machine[X64]) -> None:
    for name, source in (("INVD", "SDM vol. 2A, INVD"), ("WBINVD", "SDM vol. 2B, WBINVD")):

        @machine.instruction(name, source=source, name=name)
        def empty_caches(cpu: X64, *, name: str) -> None:
            """Empty the caches; INVD loses what memory does not have."""
            privileged(cpu)
            cpu.interception.instruction(cpu, name)
            cpu.cache_dirty = Word(1, 0)

    @machine.instruction("INVLPG m", source="SDM vol. 2A, INVLPG")
    def invlpg(cpu: X64, m: MemoryOperand) -> None:
        """Forget the translation of one page; never faults on the address."""
        privileged(cpu)
        cpu.interception.instruction(cpu, "INVLPG", m)
        cpu.tlb_stale = Word(1, 0)

    @machine.instruction("INVPCID r64, m128", source="SDM vol. 2A, INVPCID")
    def invpcid(cpu: X64, r: Word, m: MemoryOperand) -> None:
        """Forget translations by process-context identifier: types 0 to 3."""
        cpu.interception.recognized(cpu, "INVPCID")
        privileged(cpu)
        cpu.interception.instruction(cpu, "INVPCID", m, r)
        kind, descriptor = cpu.whole_register(r), access.load(cpu, m, 16)  # the manual reads both first
        if kind > 3:
            raise Fault(GP, 0)
        pcid, address = descriptor[11:0], descriptor[127:64]
        names_other = (cpu.cr4.pcide == 0) & (pcid != 0) & (kind <= 1)
        if (descriptor[63:12] != 0) | names_other | ((kind == 0) & ~is_canonical(address)):
            raise Fault(GP, 0)
        cpu.tlb_stale = Word(1, 0)


def _clocks_and_identification(machine: Machine[X64]) -> None:
    @machine.instruction("RDTSC", source="SDM vol. 2B, RDTSC")
    def rdtsc(cpu: X64) -> None:
        """EDX:EAX := the time-stamp counter; #GP(0) above CPL 0 when CR4.TSD is set."""
        if cpu.cr4.tsd and cpu.cpl != 0:
            raise Fault(GP, 0)
        cpu.interception.instruction(cpu, "RDTSC")
        to_edx_eax(cpu, cpu.interception.time_stamp(cpu))

    @machine.instruction("RDTSCP", source="SDM vol. 2B, RDTSCP")
    def rdtscp(cpu: X64) -> None:
        """As RDTSC, and ECX := IA32_TSC_AUX."""
        cpu.interception.recognized(cpu, "RDTSCP")
        if cpu.cr4.tsd and cpu.cpl != 0:
            raise Fault(GP, 0)
        cpu.interception.instruction(cpu, "RDTSCP")
        to_edx_eax(cpu, cpu.interception.time_stamp(cpu))
        cpu.write_register(RCX, cpu.msr.tsc_aux)

    @machine.instruction("RDPID r64", source="SDM vol. 2B, RDPID")
    def rdpid(cpu: X64, r: Word) -> None:
        """IA32_TSC_AUX, zero-extended, at any level."""
        cpu.interception.recognized(cpu, "RDPID")
        cpu.gpr[r] = cpu.msr.tsc_aux.zero_extend(64)

    @machine.instruction("RDPMC", source="SDM vol. 2B, RDPMC")
    def rdpmc(cpu: X64) -> None:
        """EDX:EAX := a performance counter; #GP(0) above CPL 0 unless CR4.PCE is set, or no such counter."""
        if cpu.cpl != 0 and not cpu.cr4.pce:
            raise Fault(GP, 0)
        cpu.interception.instruction(cpu, "RDPMC")
        number = cpu.read_register(RCX, 32)
        if not is_counter(number):
            raise Fault(GP, 0)
        cpu.interception.late(cpu, "RDPMC")
        to_edx_eax(cpu, cpu.pmc.load(number))

    @machine.instruction("CPUID", source="SDM vol. 2A, CPUID")
    def cpuid(cpu: X64) -> None:
        """EAX EBX ECX EDX := what the processor says of itself, at any level.

        Leaf 1 shows CR4.OSXSAVE (ECX[27]) and leaf 7 CR4.PKE (ECX[4]).
        """
        cpu.interception.instruction(cpu, "CPUID")
        leaf, subleaf = cpu.read_register(RAX, 32), cpu.read_register(RCX, 32)
        found = cpu.cpuid.load(concat(subleaf, leaf))
        ecx = found[95:64]
        ecx = ite(leaf == 1, ecx.replace(27, 27, cpu.cr4.osxsave), ecx)
        ecx = ite((leaf == 7) & (subleaf == 0), ecx.replace(4, 4, cpu.cr4.pke), ecx)
        for register, value in ((RAX, found[31:0]), (RBX, found[63:32]), (RCX, ecx), (RDX, found[127:96])):
            cpu.write_register(register, value)
