"""XGETBV XSETBV RDPKRU WRPKRU XSAVES XRSTORS (SDM vol. 1, chapter 13; vol. 2).

Of the x87 and SIMD registers the model has one 64-bit stand-in; what is exact is who may save and restore them.
"""

from __future__ import annotations

from popek.architectures.x86.access import privileged
from popek.architectures.x86.exceptions import (
    GP,
    NM,
    UD,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import ite

from .. import access
from ..access import MemoryOperand
from ..state import RAX, RCX, RDX, X64, XCR0_DEFINED
from .system import edx_eax, to_edx_eax

XSAVE_AREA = 64  # alignment of the memory operand in bytes


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("XGETBV", source="SDM vol. 2D, XGETBV")
    def xgetbv(cpu: X64) -> None:
        """EDX:EAX := XCR0, at any level; with ECX = 1 those of its components that are in use."""
        if not cpu.cr4.osxsave:
            raise Fault(UD)
        number = cpu.read_register(RCX, 32)
        if number > 1:
            raise Fault(GP, 0)
        to_edx_eax(cpu, ite(number == 1, cpu.xcr0.value & cpu.xinuse, cpu.xcr0.value))

    @machine.instruction("XSETBV", source="SDM vol. 2D, XSETBV")
    def xsetbv(cpu: X64) -> None:
        """XCR0 := EDX:EAX; x87 cannot be off, nor AVX on without SSE."""
        if not cpu.cr4.osxsave:
            raise Fault(UD)
        cpu.interception.early(cpu, "XSETBV")
        privileged(cpu)
        cpu.interception.instruction(cpu, "XSETBV")
        value = edx_eax(cpu)
        unknown = (value & (XCR0_DEFINED ^ 0xFFFFFFFF_FFFFFFFF)) != 0
        if (cpu.read_register(RCX, 32) != 0) | unknown | (value[0] == 0) | (value[2] & ~value[1]):
            raise Fault(GP, 0)
        cpu.xcr0 = value

    @machine.instruction("RDPKRU", source="SDM vol. 2B, RDPKRU")
    def rdpkru(cpu: X64) -> None:
        """EAX := PKRU, EDX := 0, at any level; #UD unless CR4.PKE is set."""
        if not cpu.cr4.pke:
            raise Fault(UD)
        if cpu.read_register(RCX, 32) != 0:
            raise Fault(GP, 0)
        to_edx_eax(cpu, cpu.pkru.zero_extend(64))

    @machine.instruction("WRPKRU", source="SDM vol. 2D, WRPKRU")
    def wrpkru(cpu: X64) -> None:
        """PKRU := EAX, at any level; #UD unless CR4.PKE is set."""
        if not cpu.cr4.pke:
            raise Fault(UD)
        if (cpu.read_register(RCX, 32) != 0) | (cpu.read_register(RDX, 32) != 0):
            raise Fault(GP, 0)
        cpu.pkru = cpu.read_register(RAX, 32)

    for name in ("XSAVES", "XRSTORS"):

        @machine.instruction(f"{name} m", source=f"SDM vol. 2D, {name}", name=name)
        def supervisor_state(cpu: X64, m: MemoryOperand, *, name: str) -> None:
            """#UD, #NM, #GP(0) above CPL 0 and unless aligned; a stand-in for the registers is moved.

            A monitor steps in where CPL allows the instruction, before #NM.
            """
            cpu.interception.recognized(cpu, name)
            if not cpu.cr4.osxsave:
                raise Fault(UD)
            if cpu.cpl == 0:
                cpu.interception.instruction(cpu, name, m)
            if cpu.cr0.ts:
                raise Fault(NM)
            privileged(cpu)
            saves = name == "XSAVES"
            where = access.linear_address(cpu, m, 8, write=saves, aligned=XSAVE_AREA)
            if saves:
                cpu.translation.store(cpu, where, cpu.extended)
            else:
                cpu.extended = cpu.translation.load(cpu, where, 8)
