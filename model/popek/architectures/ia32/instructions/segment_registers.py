"""MOV, PUSH and POP of segment registers, and LDS LES LFS LGS LSS (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.exceptions import UD
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

MOV = "SDM vol. 2B, MOV"


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("MOV r16, Sreg", source=MOV, mnemonic="MOV sreg", size=16)
    @machine.instruction("MOV r32, Sreg", source=MOV, mnemonic="MOV sreg", size=32)
    def mov_from_sreg(cpu: Ia32, r: Word, sreg: Word, *, size: int) -> None:
        """Read the selector, zero-extended (P6 and later); no check at any level."""
        if sreg > GS:
            raise Fault(UD)
        cpu.write_register(r, cpu.segment(sreg).selector.value.zero_extend(size))

    @machine.instruction("MOV m16, Sreg", source=MOV, mnemonic="MOV sreg")
    def mov_sreg_to_memory(cpu: Ia32, m: MemoryOperand, sreg: Word) -> None:
        """Store the selector; no check at any level."""
        if sreg > GS:
            raise Fault(UD)
        access.store(cpu, m, cpu.segment(sreg).selector.value)

    @machine.instruction("MOV Sreg, r16", source=MOV, mnemonic="MOV sreg")
    def mov_to_sreg(cpu: Ia32, sreg: Word, r: Word) -> None:
        """Load a segment register; CS and the two missing ones give #UD."""
        if (sreg == CS) | (sreg > GS):
            raise Fault(UD)
        load_segment_register(cpu, sreg, cpu.read_register(r, 16))
        cpu.shadow.mov_ss = sreg == SS_

    @machine.instruction("MOV Sreg, m16", source=MOV, mnemonic="MOV sreg")
    def mov_memory_to_sreg(cpu: Ia32, sreg: Word, m: MemoryOperand) -> None:
        """Load a segment register; CS and the two missing ones give #UD."""
        if (sreg == CS) | (sreg > GS):
            raise Fault(UD)
        load_segment_register(cpu, sreg, access.load(cpu, m, 2))
        cpu.shadow.mov_ss = sreg == SS_

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
                selector = access.peek(cpu, 0, size // 8).truncate(16)
                # ESP moves with the stack segment it was popped from.
                access.move_stack_pointer(cpu, size // 8)
                load_segment_register(cpu, Word(3, number), selector)
                if number == SS_:
                    cpu.shadow.mov_ss = 1

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
