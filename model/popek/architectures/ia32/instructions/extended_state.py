"""XGETBV XSETBV RDPKRU WRPKRU, the XSAVE and FXSAVE families, and waiting for the x87 (SDM vol. 2A, 2B, 2C).

Of the x87 and SIMD registers the model has one 64-bit stand-in, which is what these instructions store and
load at the start of their memory operand.  What is exact is who may, and which fault says otherwise.
"""

from __future__ import annotations

from popek.architectures.x86.exceptions import (
    GP,
    NM,
    UD,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, MemoryFault
from popek.kernel.words import Word, concat

from .. import access
from ..access import MemoryOperand, privileged
from ..state import (
    EAX,
    ECX,
    EDX,
    XCR0_UNDEFINED,
    Ia32,
)

XSAVE_AREA, FXSAVE_AREA = 64, 16  # alignment of the memory operand in bytes
SAVING = ("XSAVE m", "XSAVEOPT m", "XSAVEC m", "XSAVES m")


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    _registers(machine)
    _areas(machine)
    _x87(machine)


def _registers(machine: Machine[Ia32]) -> None:
    @machine.instruction("XGETBV", source="SDM vol. 2C, XGETBV")
    def xgetbv(cpu: Ia32) -> None:
        """EDX:EAX := XCR0, at every level; #UD unless CR4.OSXSAVE is set, #GP(0) for another register."""
        _xsave_enabled(cpu)
        if cpu.gpr[ECX] != 0:
            raise Fault(GP, 0)
        cpu.gpr[EDX], cpu.gpr[EAX] = cpu.xcr0[63:32], cpu.xcr0[31:0]

    @machine.instruction("XSETBV", source="SDM vol. 2C, XSETBV")
    def xsetbv(cpu: Ia32) -> None:
        """XCR0 := EDX:EAX; #UD unless CR4.OSXSAVE, #GP(0) above CPL 0, for another register or a wrong value."""
        _xsave_enabled(cpu)
        cpu.interception.early(cpu, "XSETBV")
        privileged(cpu)
        cpu.interception.instruction(cpu, "XSETBV")
        value = concat(cpu.gpr[EDX], cpu.gpr[EAX])
        # x87 state cannot be left out, and AVX state needs SSE state.
        wrong = (value[0] == 0) | ((value & XCR0_UNDEFINED) != 0) | (value[2] & ~value[1])
        if (cpu.gpr[ECX] != 0) | wrong:
            raise Fault(GP, 0)
        cpu.xcr0 = value

    @machine.instruction("RDPKRU", source="SDM vol. 2B, RDPKRU")
    def rdpkru(cpu: Ia32) -> None:
        """EAX := PKRU, EDX := 0, at every level; #UD unless CR4.PKE is set, #GP(0) unless ECX is 0."""
        if not cpu.cr4.pke:
            raise Fault(UD)
        if cpu.gpr[ECX] != 0:
            raise Fault(GP, 0)
        cpu.gpr[EAX], cpu.gpr[EDX] = cpu.pkru, Word(32, 0)

    @machine.instruction("WRPKRU", source="SDM vol. 2C, WRPKRU")
    def wrpkru(cpu: Ia32) -> None:
        """PKRU := EAX, at every level; #UD unless CR4.PKE is set, #GP(0) unless ECX and EDX are 0."""
        if not cpu.cr4.pke:
            raise Fault(UD)
        if (cpu.gpr[ECX] != 0) | (cpu.gpr[EDX] != 0):
            raise Fault(GP, 0)
        cpu.pkru = cpu.gpr[EAX]


def _areas(machine: Machine[Ia32]) -> None:
    for form in (*SAVING, "XRSTOR m", "XRSTORS m"):
        name = form.split()[0]

        @machine.instruction(
            form,
            source=f"SDM vol. 2C, {name}",
            name=name,
            saves=form in SAVING,
            supervisor=name.endswith("S"),
        )
        def xsave(cpu: Ia32, m: MemoryOperand, *, name: str, saves: bool, supervisor: bool) -> None:
            """Save or restore extended state.

            #UD unless CR4.OSXSAVE; #NM when CR0.TS; with supervisor state #GP(0) above CPL 0; #GP(0) unless the
            operand is aligned to 64 bytes.  A monitor steps in where CPL allows the instruction, before #NM.
            """
            cpu.interception.recognized(cpu, name)
            _xsave_enabled(cpu)
            if supervisor and cpu.cpl == 0:
                cpu.interception.instruction(cpu, name, m)
            if cpu.cr0.ts:
                raise Fault(NM)
            if supervisor:
                privileged(cpu)
            _move(cpu, m, XSAVE_AREA, saves=saves)

    for name in ("FXSAVE", "FXRSTOR"):

        @machine.instruction(f"{name} m", source=f"SDM vol. 2A, {name}", saves=name == "FXSAVE")
        def fxsave(cpu: Ia32, m: MemoryOperand, *, saves: bool) -> None:
            """Save or restore x87 and SSE state; #NM when CR0.EM or TS; #GP(0) unless aligned to 16 bytes."""
            if cpu.cr0.em | cpu.cr0.ts:
                raise Fault(NM)
            _move(cpu, m, FXSAVE_AREA, saves=saves)


def _x87(machine: Machine[Ia32]) -> None:
    @machine.instruction("FWAIT", source="SDM vol. 2C, WAIT/FWAIT")
    def fwait(cpu: Ia32) -> None:
        """Wait for the x87; #NM when CR0.MP and TS."""
        if cpu.cr0.mp & cpu.cr0.ts:
            raise Fault(NM)

    @machine.instruction("FNOP", source="SDM vol. 2A, FNOP")
    def fnop(cpu: Ia32) -> None:
        """Nothing, on the x87; #NM when CR0.EM or TS."""
        if cpu.cr0.em | cpu.cr0.ts:
            raise Fault(NM)

    @machine.instruction("EMMS", source="SDM vol. 2A, EMMS")
    def emms(cpu: Ia32) -> None:
        """Empty the MMX state; #UD when CR0.EM, #NM when CR0.TS."""
        if cpu.cr0.em:
            raise Fault(UD)
        if cpu.cr0.ts:
            raise Fault(NM)


def _xsave_enabled(cpu: Ia32) -> None:
    if not cpu.cr4.osxsave:
        raise Fault(UD)


def _move(cpu: Ia32, m: MemoryOperand, alignment: int, *, saves: bool) -> None:
    """The stand-in to or from memory.

    Raises:
        MemoryFault: #GP(0), the linear address is not aligned, and what a reference of eight bytes raises.
    """
    address = cpu.segment(m.segment).base + m.offset
    if (address & (alignment - 1)) != 0:
        raise MemoryFault(GP, 0)
    if saves:
        access.store(cpu, m, cpu.extended)
    else:
        cpu.extended = access.load(cpu, m, 8)
