"""MOV, PUSH and POP of segment registers, and LDS LES LFS LGS LSS (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.exceptions import UD
from popek.architectures.x86.instructions.segment_registers import MOV, declare_moves, pop_segment_register
from popek.architectures.x86.registers import (
    CS,
    DS,
    ES,
    FS,
    GS,
    SS_,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from .. import access
from ..access import MemoryOperand
from ..descriptors import load_segment_register
from ..state import Ia32


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("MOV r16, Sreg", source=MOV, mnemonic="MOV sreg", size=16)
    @machine.instruction("MOV r32, Sreg", source=MOV, mnemonic="MOV sreg", size=32)
    def mov_from_sreg(cpu: Ia32, r: Word, sreg: Word, *, size: int) -> None:
        """Read the selector, zero-extended (P6 and later); no check at any level."""
        if sreg > GS:
            raise Fault(UD)
        cpu.write_register(r, cpu.segment(sreg).selector.value.zero_extend(size))

    declare_moves(machine, load_segment_register)

    for number, name in ((ES, "ES"), (CS, "CS"), (SS_, "SS"), (DS, "DS"), (FS, "FS"), (GS, "GS")):
        for prefix, size in (("", 32), ("o16 ", 16)):

            @machine.instruction(
                f"{prefix}PUSH {name}",
                source="SDM vol. 2B, PUSH",
                mnemonic="PUSH sreg",
                number=number,
                size=size,
            )
            def push_sreg(cpu: Ia32, *, number: int, size: int) -> None:
                """Push the selector: 16 bits are written, and ESP moves by the operand size."""
                access.push(cpu, cpu.segment(number).selector.value, slot=size // 8)

            if number == CS:
                continue

            @machine.instruction(
                f"{prefix}POP {name}",
                source="SDM vol. 2B, POP",
                mnemonic="POP sreg",
                number=number,
                size=size,
            )
            def pop_sreg(cpu: Ia32, *, number: int, size: int) -> None:
                """Pop a selector and load the segment register."""
                pop_segment_register(cpu, load_segment_register, number, size // 8)

    for name, number in (("LDS", DS), ("LES", ES), ("LFS", FS), ("LGS", GS), ("LSS", SS_)):
        for size in (16, 32):

            @machine.instruction(
                f"{name} r{size}, m16:{size}",
                source="SDM vol. 2A, LDS/LES/LFS/LGS/LSS",
                number=number,
                size=size,
            )
            def load_far_pointer(cpu: Ia32, r: Word, m: MemoryOperand, *, number: int, size: int) -> None:
                """Load a segment register and a general register from a far pointer in memory."""
                offset = access.load(cpu, m, size // 8)
                selector = access.load(cpu, m + size // 8, 2)
                load_segment_register(cpu, Word(3, number), selector)
                cpu.write_register(r, offset)
