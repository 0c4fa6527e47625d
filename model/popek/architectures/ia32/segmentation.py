"""Segments outside IA-32e mode (SDM vol. 3A, "Limit Checking", "Type Checking", "Stack Behavior")."""

from __future__ import annotations

from typing import Final

from popek.architectures.x86.access import misaligned, within
from popek.architectures.x86.exceptions import AC, GP, SS
from popek.architectures.x86.registers import SS_
from popek.architectures.x86.state import X86, Segmentation
from popek.kernel.outcome import MemoryFault
from popek.kernel.words import Word, ite

ESP: Final = 4


class ProtectedSegmentation(Segmentation):
    """Every reference is checked against its segment; the stack pointer is ESP, or SP."""

    def linear_address(
        self, cpu: X86, number: Word, offset: Word, size: int, *, write: bool, checked: bool = False
    ) -> Word:
        """The linear address of a `size`-byte access; `checked`: the segment was found to allow it.

        Raises:
            MemoryFault: #SS(0) for SS, else #GP(0), on a null segment, a type or a limit violation;
                #PF on a page that refuses the access; #AC(0) on misalignment.
        """
        segment = cpu.segment(number)
        rights = segment.rights
        data = rights.type[3] == 0
        permitted = (data & rights.type[1]) if write else (data | rights.type[1])
        allowed = (rights.unusable == 0) & permitted & within(segment, offset, size)
        if not checked and not allowed:
            raise MemoryFault(SS if number == SS_ else GP, 0)
        address = segment.base + offset
        cpu.translation.permit(cpu, address, size, write=write)
        if misaligned(cpu, address, size):
            raise MemoryFault(AC, 0)
        return address

    def stack_offset(self, cpu: X86, distance: int) -> Word:
        """The offset in SS `distance` bytes above the stack pointer: ESP, or SP when SS.B = 0."""
        pointer = cpu.gpr[ESP] + (distance & 0xFFFFFFFF)
        return ite(cpu.ss.rights.db, pointer, pointer.truncate(16).zero_extend(32))

    def move_stack_pointer(self, cpu: X86, distance: Word | int) -> None:
        """Add to ESP, or to SP alone when SS.B = 0."""
        step = Word(32, distance & 0xFFFFFFFF) if isinstance(distance, int) else distance
        moved = cpu.gpr[ESP] + step
        kept = cpu.gpr[ESP].replace(15, 0, moved.truncate(16))
        cpu.gpr[ESP] = ite(cpu.ss.rights.db, moved, kept)
