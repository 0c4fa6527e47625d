"""MOV, PUSH and POP of segment registers, and LFS LGS LSS (SDM vol. 2A and 2B)."""

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
from ..access import MemoryOperand, natural, needs_long_mode
from ..descriptors import load_segment_register
from ..state import X64

MOV = "SDM vol. 2B, MOV"


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""
    for size in (16, 32, 64):

        @machine.instruction(f"MOV r{size}, Sreg", source=MOV, mnemonic="MOV sreg", size=size)
        def mov_from_sreg(cpu: X64, r: Word, sreg: Word, *, size: int) -> None:
            """Read the selector, zero-extended; no check at any level."""
            if size == 64:
                needs_long_mode(cpu)
            if sreg > GS:
                raise Fault(UD)
            cpu.write_register(r, cpu.segment(sreg).selector.value.zero_extend(size))

    @machine.instruction("MOV m16, Sreg", source=MOV, mnemonic="MOV sreg")
    def mov_sreg_to_memory(cpu: X64, m: MemoryOperand, sreg: Word) -> None:
        """Store the selector; no check at any level."""
        if sreg > GS:
            raise Fault(UD)
        access.store(cpu, m, cpu.segment(sreg).selector.value)

    @machine.instruction("MOV Sreg, r16", source=MOV, mnemonic="MOV sreg")
    def mov_to_sreg(cpu: X64, sreg: Word, r: Word) -> None:
        """Load a segment register; CS and the two missing ones give #UD."""
        if (sreg == CS) | (sreg > GS):
            raise Fault(UD)
        load_segment_register(cpu, sreg, cpu.read_register(r, 16))
        cpu.shadow.mov_ss = sreg == SS_

    @machine.instruction("MOV Sreg, m16", source=MOV, mnemonic="MOV sreg")
    def mov_memory_to_sreg(cpu: X64, sreg: Word, m: MemoryOperand) -> None:
        """Load a segment register; CS and the two missing ones give #UD."""
        if (sreg == CS) | (sreg > GS):
            raise Fault(UD)
        load_segment_register(cpu, sreg, access.load(cpu, m, 2))
        cpu.shadow.mov_ss = sreg == SS_

    for number, name in ((ES, "ES"), (CS, "CS"), (SS_, "SS"), (DS, "DS"), (FS, "FS"), (GS, "GS")):
        for prefix, narrow in (("", False), ("o16 ", True)):
            if narrow and number < FS:
                continue

            @machine.instruction(
                f"{prefix}PUSH {name}", source="SDM vol. 2B, PUSH", mnemonic="PUSH sreg",
                number=number, narrow=narrow,
            )  # fmt: skip
            def push_sreg(cpu: X64, *, number: int, narrow: bool) -> None:
                """Push the selector, zero-extended in 64-bit mode; CS SS DS ES: #UD there.

                With operand size 32 the processor writes 16 bits only.
                """
                if number < FS and cpu.long:
                    raise Fault(UD)
                size = 2 if narrow else natural(cpu)
                selector = cpu.segment(number).selector.value
                access.push(cpu, selector.zero_extend(64) if size == 8 else selector, slot=size)

            if number == CS:
                continue

            @machine.instruction(
                f"{prefix}POP {name}", source="SDM vol. 2B, POP", mnemonic="POP sreg",
                number=number, narrow=narrow,
            )  # fmt: skip
            def pop_sreg(cpu: X64, *, number: int, narrow: bool) -> None:
                """Pop a selector and load the segment register; SS DS ES: #UD in 64-bit mode."""
                if number < FS and cpu.long:
                    raise Fault(UD)
                size = 2 if narrow else natural(cpu)
                selector = access.peek(cpu, 0, size).truncate(16)
                # RSP moves with the stack segment it was popped from.
                access.move_stack_pointer(cpu, size)
                load_segment_register(cpu, Word(3, number), selector)
                if number == SS_:
                    cpu.shadow.mov_ss = 1

    for name, number in (("LFS", FS), ("LGS", GS), ("LSS", SS_)):
        for size in (16, 32, 64):

            @machine.instruction(
                f"{name} r{size}, m16:{size}", source="SDM vol. 2A, LDS/LES/LFS/LGS/LSS",
                number=number, size=size,
            )  # fmt: skip
            def load_far_pointer(cpu: X64, r: Word, m: MemoryOperand, *, number: int, size: int) -> None:
                """Load a segment register and a general register from a far pointer in memory."""
                if size == 64:
                    needs_long_mode(cpu)
                offset, selector = access.load_pair(cpu, m, size // 8, 2)
                load_segment_register(cpu, Word(3, number), selector)
                cpu.write_register(r, offset)

    for name, number in (("LDS", DS), ("LES", ES)):

        @machine.instruction(f"{name} r32, m16:32", source="SDM vol. 2A, LDS/LES/LFS/LGS/LSS", number=number)
        def load_old_far_pointer(cpu: X64, r: Word, m: MemoryOperand, *, number: int) -> None:
            """#UD in 64-bit mode; in compatibility mode as LFS."""
            if cpu.long:
                raise Fault(UD)
            load_far_pointer(cpu, r, m, number=number, size=32)
