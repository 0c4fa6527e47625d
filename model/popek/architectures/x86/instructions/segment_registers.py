"""MOV between a segment register and memory, and to one from a register (SDM vol. 2B, MOV)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from .. import access
from ..access import MemoryOperand
from ..exceptions import UD
from ..registers import CS, GS, SS_
from ..state import X86

MOV = "SDM vol. 2B, MOV"
CpuT = TypeVar("CpuT", bound=X86)


def declare_moves(machine: Machine[CpuT], load: Callable[[CpuT, Word, Word], None]) -> None:
    """Add them to a machine.

    Args:
        load: loads a segment register other than CS, by its encoding (3 bits), with a selector (16 bits).
    """

    @machine.instruction("MOV m16, Sreg", source=MOV, mnemonic="MOV sreg")
    def mov_sreg_to_memory(cpu: CpuT, m: MemoryOperand, sreg: Word) -> None:
        """Store the selector; no check at any level."""
        if sreg > GS:
            raise Fault(UD)
        access.store(cpu, m, cpu.segment(sreg).selector.value)

    @machine.instruction("MOV Sreg, r16", source=MOV, mnemonic="MOV sreg")
    def mov_to_sreg(cpu: CpuT, sreg: Word, r: Word) -> None:
        """Load a segment register; CS and the two missing ones give #UD."""
        if (sreg == CS) | (sreg > GS):
            raise Fault(UD)
        load(cpu, sreg, cpu.gpr[r].truncate(16))
        cpu.shadow.mov_ss = sreg == SS_

    @machine.instruction("MOV Sreg, m16", source=MOV, mnemonic="MOV sreg")
    def mov_memory_to_sreg(cpu: CpuT, sreg: Word, m: MemoryOperand) -> None:
        """Load a segment register; CS and the two missing ones give #UD."""
        if (sreg == CS) | (sreg > GS):
            raise Fault(UD)
        load(cpu, sreg, access.load(cpu, m, 2))
        cpu.shadow.mov_ss = sreg == SS_


def pop_segment_register(cpu: CpuT, load: Callable[[CpuT, Word, Word], None], number: int, size: int) -> None:
    """Pop a selector from a slot of so many bytes and load a segment register (SDM vol. 2B, POP)."""
    selector = access.peek(cpu, 0, size).truncate(16)
    # The stack pointer moves with the stack segment it was popped from.
    cpu.segmentation.move_stack_pointer(cpu, size)
    load(cpu, Word(3, number), selector)
    if number == SS_:
        cpu.shadow.mov_ss = 1
