"""CPUID RDTSCP RDPID RDRAND RDSEED: what the processor is and where and when it runs (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.msrs import IA32_TSC_AUX
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from ..state import (
    EAX,
    EBX,
    ECX,
    EDX,
    Ia32,
)
from .flags import STATUS

# Leaves of CPUID that look at ECX, too (SDM vol. 2A, CPUID, "Information Returned by CPUID").
WITH_SUBLEAVES = (0x04, 0x07, 0x0B, 0x0D, 0x0F, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1F)


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("CPUID", source="SDM vol. 2A, CPUID")
    def cpuid(cpu: Ia32) -> None:
        """EAX, EBX, ECX, EDX := what the processor is, at every level; two bits show what CR4 holds now."""
        cpu.interception.instruction(cpu, "CPUID")
        leaf = cpu.gpr[EAX]
        subleaf = ite(leaf.isin(WITH_SUBLEAVES), cpu.gpr[ECX], Word(32, 0))
        found = cpu.cpuid.load(concat(subleaf, leaf))
        third = found[95:64]
        third = ite(leaf == 1, third.replace(27, 27, cpu.cr4.osxsave), third)
        third = ite((leaf == 7) & (subleaf == 0), third.replace(4, 4, cpu.cr4.pke), third)
        cpu.gpr[EAX], cpu.gpr[EBX], cpu.gpr[ECX], cpu.gpr[EDX] = (
            found[31:0],
            found[63:32],
            third,
            found[127:96],
        )

    @machine.instruction("RDTSCP", source="SDM vol. 2B, RDTSCP")
    def rdtscp(cpu: Ia32) -> None:
        """EDX:EAX := the time-stamp counter, ECX := IA32_TSC_AUX; #GP(0) above CPL 0 when CR4.TSD is set."""
        cpu.interception.recognized(cpu, "RDTSCP")
        if cpu.cr4.tsd and cpu.cpl != 0:
            raise Fault(GP, 0)
        cpu.interception.instruction(cpu, "RDTSCP")
        now = cpu.interception.time_stamp(cpu)
        cpu.gpr[EDX], cpu.gpr[EAX], cpu.gpr[ECX] = now[63:32], now[31:0], _processor_id(cpu)

    @machine.instruction("RDPID r32", source="SDM vol. 2B, RDPID")
    def rdpid(cpu: Ia32, r: Word) -> None:
        """Register := IA32_TSC_AUX, at every level."""
        cpu.interception.recognized(cpu, "RDPID")
        cpu.gpr[r] = _processor_id(cpu)

    for name in ("RDRAND", "RDSEED"):
        for size in (16, 32):

            @machine.instruction(f"{name} r{size}", source=f"SDM vol. 2B, {name}", name=name, size=size)
            def random_number(cpu: Ia32, r: Word, *, name: str, size: int) -> None:
                """Register := a random number and CF := 1, or both 0 when there was none; other status flags := 0."""
                cpu.interception.instruction(cpu, name, None, r, size=size)
                for flag in STATUS:
                    cpu[f"eflags.{flag}"] = 0
                there_is = cpu.undefined(f"{name} CF", 1)
                cpu.eflags.cf = there_is
                cpu.write_register(r, ite(there_is, cpu.undefined(name, size), Word(size, 0)))


def _processor_id(cpu: Ia32) -> Word:
    return cpu.msr.load(Word(32, IA32_TSC_AUX))[31:0]
