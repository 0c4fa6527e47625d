"""mov to and from indirect register files (vol. 3, mov indirect, 3:180).

CPL is checked for every file but on reading PMD and CPUID; PSR.vm for every file but on reading PMD.
The order of the remaining checks (NaT, reserved index, Virtualization) is that of the other moves.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import FALSE, Word, ite

from ..interruptions import (
    PRIVILEGED_REGISTER,
    check_target,
    intercept,
    privileged,
    reserved_field,
    source,
)
from ..state import Ia64

PAGE: Final = "SDM vol. 3, mov indirect (3:180)"
PM_BIT: Final = 6  # PMC.pm: the counter is privileged

# file: cause of writing, cause of reading, disable bit
FILES: Final = {
    "rr": (10, 18, None),
    "pkr": (13, 21, None),
    "ibr": (12, 20, "d_ibr_dbr"),
    "dbr": (11, 19, "d_ibr_dbr"),
    "pmc": (14, 22, "d_pmc"),
}


def _index(name: str, value: Word) -> Word:
    """The register number in GR[r]: bits 63:61 for rr, 7:0 for the others."""
    return value[63:61] if name == "rr" else value[7:0]


def _let_through(cpu: Ia64, disable: str | None, *, reading: bool) -> Word:
    if disable is None:
        return FALSE
    through = cpu[f"vdc.{disable}"]
    if disable == "d_pmc" and reading:
        through = through & ~cpu.assume.pmc_reads_trap
    return through


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""
    for name, (to_cause, from_cause, disable) in FILES.items():

        @machine.instruction(
            f"mov {name}[r] = r", source=PAGE, mnemonic=f"MOV to {name.upper()}",
            name=name, cause=to_cause, disable=disable,
        )  # fmt: skip
        def move_to(cpu: Ia64, r3: Word, r2: Word, *, name: str, cause: int, disable: str | None) -> None:
            """Write the register that GR[r3] names."""
            privileged(cpu)
            index, value = _index(name, source(cpu, r3)), source(cpu, r2)
            intercept(cpu, cause, _let_through(cpu, disable, reading=False))
            setattr(cpu, name, cpu.memories()[name].store(index, value))

        @machine.instruction(
            f"mov r = {name}[r]", source=PAGE, mnemonic=f"MOV from {name.upper()}",
            name=name, cause=from_cause, disable=disable,
        )  # fmt: skip
        def move_from(cpu: Ia64, r1: Word, r3: Word, *, name: str, cause: int, disable: str | None) -> None:
            """Read the register that GR[r3] names."""
            check_target(cpu, r1)
            privileged(cpu)
            index = _index(name, source(cpu, r3))
            intercept(cpu, cause, _let_through(cpu, disable, reading=True))
            cpu.write_gr(r1, cpu.memories()[name].load(index))

    @machine.instruction("mov pmd[r] = r", source=PAGE, mnemonic="MOV to PMD")
    def move_to_pmd(cpu: Ia64, r3: Word, r2: Word) -> None:
        """Write a performance counter."""
        privileged(cpu)
        index, value = source(cpu, r3)[7:0], source(cpu, r2)
        intercept(cpu, 15, cpu.vdc.d_to_pmd)
        cpu.pmd = cpu.pmd.store(index, value)

    @machine.instruction("mov r = pmd[r]", source=PAGE, mnemonic="MOV from PMD")
    def move_from_pmd(cpu: Ia64, r1: Word, r3: Word) -> None:
        """Read a performance counter, at any level and without a Virtualization fault.

        Above CPL 0 it reads 0 under PSR.sp, and where the counter is privileged (PMC.pm); Ski faults there
        instead (`assume.pmd_fault`).
        """
        check_target(cpu, r1)
        index = source(cpu, r3)[7:0]
        user = cpu.psr.cpl != 0
        private = user & cpu.pmc.load(index)[PM_BIT]
        if private & cpu.assume.pmd_fault:
            raise Fault(PRIVILEGED_REGISTER)
        hidden = private | (user & (cpu.psr.sp == 1))
        cpu.write_gr(r1, ite(hidden, Word(64, 0), cpu.pmd.load(index)))

    @machine.instruction("mov r = cpuid[r]", source=PAGE, mnemonic="MOV from CPUID")
    def move_from_cpuid(cpu: Ia64, r1: Word, r3: Word) -> None:
        """Read an identification register at any level; a Virtualization fault at any level under PSR.vm."""
        check_target(cpu, r1)
        index = source(cpu, r3)[7:0]
        virtual = (cpu.psr.vm == 1) & (cpu.vac.a_from_cpuid == 1)
        last = ite(virtual, cpu.vcpuid.load(Word(3, 3))[7:0], cpu.cpuid.load(Word(8, 3))[7:0])
        reserved_field(index > last)
        intercept(cpu, 23, cpu.vac.a_from_cpuid)
        copy = cpu.vcpuid.load(index[2:0])
        cpu.write_gr(r1, ite(virtual, copy, cpu.cpuid.load(index)))

    @machine.instruction("mov msr[r] = r", source="SDM vol. 3, mov indirect; Ski", mnemonic="MOV to MSR")
    def move_to_msr(cpu: Ia64, r3: Word, r2: Word) -> None:
        """Write an implementation-specific register; PSR.vm is taken to intercept it like the other files."""
        privileged(cpu)
        index, value = source(cpu, r3), source(cpu, r2)
        intercept(cpu, 0)
        cpu.msr = cpu.msr.store(index, value)

    @machine.instruction("mov r = msr[r]", source="SDM vol. 3, mov indirect; Ski", mnemonic="MOV from MSR")
    def move_from_msr(cpu: Ia64, r1: Word, r3: Word) -> None:
        """Read an implementation-specific register; see the write."""
        check_target(cpu, r1)
        privileged(cpu)
        index = source(cpu, r3)
        intercept(cpu, 0)
        cpu.write_gr(r1, cpu.msr.load(index))
