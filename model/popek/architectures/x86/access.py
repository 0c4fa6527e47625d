"""Memory references through segments, and the stack (SDM vol. 3A, "Limit Checking", "Type Checking").

Every fault raised here is a trap on a storage reference.
"""

from __future__ import annotations

from typing import Final

import attrs

from popek.kernel.outcome import Fault
from popek.kernel.words import Word, ite

from .exceptions import GP
from .registers import SS_
from .state import X86, Segment

WIDE: Final = 34  # wide enough for offset + length without a carry out


@attrs.frozen
class MemoryOperand:
    """A reference: a segment register by its encoding (3 bits) and an offset (32 bits; in IA-32e mode 64).

    The addressing form that computed the offset makes no difference to what follows.
    """

    segment: Word
    offset: Word

    def __add__(self, distance: int) -> MemoryOperand:
        return MemoryOperand(self.segment, self.offset + distance)


def within(segment: Segment, offset: Word, length: Word | int) -> Word:
    """Whether `length` bytes (at least 1) at `offset` lie inside the segment; width 1."""
    size = Word(WIDE, length) if isinstance(length, int) else length.zero_extend(WIDE)
    first = offset.zero_extend(WIDE)
    last = first + size - 1
    limit = segment.limit.zero_extend(WIDE)
    top = ite(segment.rights.db, Word(WIDE, 0xFFFFFFFF), Word(WIDE, 0xFFFF))
    expand_down = (segment.rights.type[3] == 0) & (segment.rights.type[2] == 1)
    return ite(expand_down, (first > limit) & (last <= top), last <= limit)


def misaligned(cpu: X86, address: Word, size: int) -> Word:
    """Whether an access of `size` bytes takes #AC: at CPL 3 with CR0.AM and EFLAGS.AC; width 1."""
    if size == 1:
        return Word(1, 0)
    low = address[size.bit_length() - 2 : 0]
    return (cpu.cpl == 3) & cpu.cr0.am & cpu.eflags.ac & (low != 0)


def linear_address(
    cpu: X86, operand: MemoryOperand, size: int, *, write: bool, checked: bool = False
) -> Word:
    """The linear address of a `size`-byte access; `checked`: the segment was found to allow it.

    Raises:
        MemoryFault: as the mode's segmentation has it.
    """
    place = operand.segment, operand.offset
    return cpu.segmentation.linear_address(cpu, *place, size, write=write, checked=checked)


def load(cpu: X86, operand: MemoryOperand, size: int) -> Word:
    """`size` bytes, little-endian."""
    return cpu.translation.load(cpu, linear_address(cpu, operand, size, write=False), size)


def load_to_change(cpu: X86, operand: MemoryOperand, size: int) -> Word:
    """`size` bytes that the instruction writes back: its one access is a write, which a #PF's error code tells."""
    return cpu.translation.load(cpu, linear_address(cpu, operand, size, write=True), size)


def store(cpu: X86, operand: MemoryOperand, value: Word, *, checked: bool = False) -> None:
    """Store whole bytes, little-endian; `checked`: the segment was found to allow it."""
    address = linear_address(cpu, operand, value.width // 8, write=True, checked=checked)
    cpu.translation.store(cpu, address, value)


def supervisor_load(cpu: X86, address: Word, size: int) -> Word:
    """Bytes of a system table: an implicit supervisor access, outside segmentation."""
    return cpu.translation.system_load(cpu, address, size)


def push(cpu: X86, value: Word, *, slot: int | None = None, checked: bool = False) -> None:
    """Push a word of 16 bits or more.

    Args:
        slot: bytes of stack, where they are more than the value has.
        checked: there was found to be room.
    """
    size = slot or value.width // 8
    store(cpu, MemoryOperand(Word(3, SS_), cpu.segmentation.stack_offset(cpu, -size)), value, checked=checked)
    cpu.segmentation.move_stack_pointer(cpu, -size)


def peek(cpu: X86, distance: int, size: int) -> Word:
    """`size` bytes, `distance` bytes above the stack pointer."""
    return load(cpu, MemoryOperand(Word(3, SS_), cpu.segmentation.stack_offset(cpu, distance)), size)


def pop(cpu: X86, size: int) -> Word:
    """Pop `size` bytes."""
    value = peek(cpu, 0, size)
    cpu.segmentation.move_stack_pointer(cpu, size)
    return value


def privileged(cpu: X86) -> None:
    """#GP(0) unless CPL is 0."""
    if cpu.cpl != 0:
        raise Fault(GP, 0)


def user_mode_instruction_prevention(cpu: X86) -> None:
    """#GP(0) at CPL > 0 when CR4.UMIP is set."""
    if cpu.cr4.umip and cpu.cpl != 0:
        raise Fault(GP, 0)
