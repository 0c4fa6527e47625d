"""The flag instructions that every program may use, LAHF to STD (SDM vol. 2A and 2B)."""

from __future__ import annotations

from typing import TypeVar

from popek.kernel.machine import Machine

from ..state import X86

CpuT = TypeVar("CpuT", bound=X86)
_A = 0  # the accumulator: EAX or RAX


def declare_program_flags(machine: Machine[CpuT]) -> None:
    """Add them to a machine."""

    @machine.instruction("LAHF", source="SDM vol. 2A, LAHF")
    def lahf(cpu: CpuT) -> None:
        """AH := SF ZF 0 AF 0 PF 1 CF (the processor has it in 64-bit mode, too)."""
        cpu.gpr[_A] = cpu.gpr[_A].replace(15, 8, cpu.eflags.value[7:0])

    @machine.instruction("SAHF", source="SDM vol. 2B, SAHF")
    def sahf(cpu: CpuT) -> None:
        """SF ZF AF PF CF := AH."""
        image = cpu.gpr[_A][15:8]
        cpu.eflags = cpu.eflags.value.replace(7, 0, (image & 0xD5) | 0x02)

    for mnemonic, flag, action in (
        ("CLC", "cf", 0),
        ("STC", "cf", 1),
        ("CMC", "cf", None),
        ("CLD", "df", 0),
        ("STD", "df", 1),
    ):

        @machine.instruction(mnemonic, source=f"SDM vol. 2, {mnemonic}", flag=flag, action=action)
        def set_flag(cpu: CpuT, *, flag: str, action: int | None) -> None:
            """Clear, set or complement one flag."""
            setattr(cpu.eflags, flag, ~getattr(cpu.eflags, flag) if action is None else action)
