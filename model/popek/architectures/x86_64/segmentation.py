"""Segments in IA-32e mode (SDM vol. 3A, "Segmentation in IA-32e Mode", "Stack Behavior").

In 64-bit mode an address must be canonical and nothing else of segmentation is looked at; in compatibility mode
segments work as in protected mode.
"""

from __future__ import annotations

from typing import Final

from popek.architectures.x86.access import misaligned, within
from popek.architectures.x86.exceptions import AC, GP, SS
from popek.architectures.x86.registers import FS, SS_
from popek.architectures.x86.state import X86, Segment, Segmentation
from popek.kernel.outcome import MemoryFault
from popek.kernel.words import Word, ite

from .addresses import all_canonical, low_half

RSP: Final = 4


class LongSegmentation(Segmentation):
    """64-bit mode and compatibility mode, by CS.L; the stack pointer is RSP, or ESP, or SP."""

    def linear_address(
        self,
        cpu: X86,
        number: Word,
        offset: Word,
        size: int,
        *,
        write: bool,
        checked: bool = False,
        aligned: int = 1,
        second: int = 0,
        unit: int = 0,
    ) -> Word:
        """The linear address of a `size`-byte access.

        Args:
            checked: the segment was found to allow it.
            aligned: what the address must be a multiple of, at every level.
            second: where the second of two parts begins (limit and base, offset and selector), which are aligned
                each by itself; 0 when there is one.
            unit: what alignment checks look at, where the access is several equal items; 0 for the whole.

        Raises:
            MemoryFault: #SS(0) for SS, else #GP(0): not canonical in 64-bit mode, a null segment, a type or a limit
                violation in compatibility mode; #GP(0) unless a multiple of `aligned`; #PF at CPL 3 on a page
                kept from it; #AC(0) on misalignment.
        """
        segment = cpu.segment(number)
        address = linear(cpu, segment, number, offset)
        if not checked:
            fits = allows(cpu, segment, offset, size, write=write)
            if not ite(cpu.cs.rights.l, all_canonical(address, size), fits):
                raise MemoryFault(SS if number == SS_ else GP, 0)
        if aligned > 1 and address[aligned.bit_length() - 2 : 0] != 0:
            raise MemoryFault(GP, 0)
        cpu.translation.permit(cpu, address, size, write=write)
        odd = misaligned(cpu, address, unit or second or size)
        if second:
            odd = odd | misaligned(cpu, address + second, size - second)
        if odd:
            raise MemoryFault(AC, 0)
        return address

    def stack_offset(self, cpu: X86, distance: int) -> Word:
        """The offset in SS `distance` bytes above the stack pointer: RSP, or ESP or SP in compatibility mode."""
        pointer = cpu.gpr[RSP] + (distance & 0xFFFFFFFF_FFFFFFFF)
        return wrapped(cpu, pointer)

    def move_stack_pointer(self, cpu: X86, distance: Word | int) -> None:
        """Add to RSP, or to ESP or SP alone in compatibility mode (64 bits, or a number)."""
        step = Word(64, distance & 0xFFFFFFFF_FFFFFFFF) if isinstance(distance, int) else distance
        set_stack_pointer(cpu, cpu.gpr[RSP] + step)


def linear(cpu: X86, segment: Segment, number: Word, offset: Word) -> Word:
    """The linear address (64 bits) of an offset (64 bits) in a segment; nothing is checked."""
    based = number >= FS
    base = ite(cpu.cs.rights.l & ~based, Word(64, 0), segment.base)
    address = base + ite(cpu.cs.rights.l, offset, low_half(offset))
    return ite(cpu.cs.rights.l, address, low_half(address))


def allows(cpu: X86, segment: Segment, offset: Word, size: int, *, write: bool) -> Word:
    """Whether a segment allows an access in compatibility mode; width 1."""
    rights = segment.rights
    data = rights.type[3] == 0
    permitted = (data & rights.type[1]) if write else (data | rights.type[1])
    return (rights.unusable == 0) & permitted & within(segment, offset.truncate(32), size)


def wrapped(cpu: X86, pointer: Word) -> Word:
    """An offset in the stack, cut to the width that the stack pointer has."""
    narrow = ite(cpu.ss.rights.db, low_half(pointer), pointer.truncate(16).zero_extend(64))
    return ite(cpu.cs.rights.l, pointer, narrow)


def set_stack_pointer(cpu: X86, pointer: Word) -> None:
    """RSP := 64 bits; in compatibility mode ESP or SP alone."""
    narrow = ite(cpu.ss.rights.db, low_half(pointer), cpu.gpr[RSP].replace(15, 0, pointer.truncate(16)))
    cpu.gpr[RSP] = ite(cpu.cs.rights.l, pointer, narrow)
