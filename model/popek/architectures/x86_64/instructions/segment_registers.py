"""MOV, PUSH and POP of segment registers, and LFS LGS LSS (SDM vol. 2A and 2B)."""

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
from ..access import MemoryOperand, natural, needs_long_mode
from ..descriptors import load_segment_register
from ..state import X64


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

    declare_moves(machine, load_segment_register)

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
                pop_segment_register(cpu, load_segment_register, number, size)

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
