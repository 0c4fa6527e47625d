"""Memory references through segments, and the stack (SDM vol. 3A, "Limit Checking", "Type Checking").

Every fault raised here is a trap on a storage reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from popek.kernel.outcome import Fault, MemoryFault
from popek.kernel.words import TRUE, Word, all_of, ite

from .state import AC, CS, ESP, GP, SS, SS_, Ia32, Segment

if TYPE_CHECKING:
    from popek.architectures.x86_64 import state as x64

WIDE: Final = 34  # wide enough for offset + length without a carry out


@attrs.frozen
class MemoryOperand:
    """A reference: a segment register by its encoding (3 bits) and an offset (32 bits).

    The addressing form that computed the offset makes no difference to what follows.
    """

    segment: Word
    offset: Word

    def __add__(self, distance: int) -> MemoryOperand:
        return MemoryOperand(self.segment, self.offset + distance)


def within(segment: Segment | x64.Segment, offset: Word, length: Word | int) -> Word:
    """Whether `length` bytes (at least 1) at `offset` lie inside the segment; width 1."""
    size = Word(WIDE, length) if isinstance(length, int) else length.zero_extend(WIDE)
    first = offset.zero_extend(WIDE)
    last = first + size - 1
    limit = segment.limit.zero_extend(WIDE)
    top = ite(segment.rights.db, Word(WIDE, 0xFFFFFFFF), Word(WIDE, 0xFFFF))
    expand_down = (segment.rights.type[3] == 0) & (segment.rights.type[2] == 1)
    return ite(expand_down, (first > limit) & (last <= top), last <= limit)


def misaligned(cpu: Ia32 | x64.X64, address: Word, size: int) -> Word:
    """Whether an access of `size` bytes takes #AC: at CPL 3 with CR0.AM and EFLAGS.AC; width 1."""
    if size == 1:
        return Word(1, 0)
    low = address[size.bit_length() - 2 : 0]
    return (cpu.cpl == 3) & cpu.cr0.am & cpu.eflags.ac & (low != 0)


def linear_address(
    cpu: Ia32, operand: MemoryOperand, size: int, *, write: bool, checked: bool = False
) -> Word:
    """The linear address of a `size`-byte access; `checked`: the segment was found to allow it.

    Raises:
        MemoryFault: #SS(0) for SS, else #GP(0), on a null segment, a type or a limit violation;
            #PF on a page that refuses the access; #AC(0) on misalignment.
    """
    segment = cpu.segment(operand.segment)
    rights = segment.rights
    data = rights.type[3] == 0
    permitted = (data & rights.type[1]) if write else (data | rights.type[1])
    allowed = (rights.unusable == 0) & permitted & within(segment, operand.offset, size)
    if not checked and not allowed:
        raise MemoryFault(SS if operand.segment == SS_ else GP, 0)
    address = segment.base + operand.offset
    cpu.translation.permit(cpu, address, size, write=write)
    if misaligned(cpu, address, size):
        raise MemoryFault(AC, 0)
    return address


def load(cpu: Ia32, operand: MemoryOperand, size: int) -> Word:
    """`size` bytes, little-endian."""
    return cpu.translation.load(cpu, linear_address(cpu, operand, size, write=False), size)


def load_to_change(cpu: Ia32, operand: MemoryOperand, size: int) -> Word:
    """`size` bytes that the instruction writes back: its one access is a write, which a #PF's error code tells."""
    return cpu.translation.load(cpu, linear_address(cpu, operand, size, write=True), size)


def store(cpu: Ia32, operand: MemoryOperand, value: Word, *, checked: bool = False) -> None:
    """Store a word of 8, 16 or 32 bits, little-endian; `checked`: the segment was found to allow it."""
    address = linear_address(cpu, operand, value.width // 8, write=True, checked=checked)
    cpu.translation.store(cpu, address, value)


def supervisor_load(cpu: Ia32 | x64.X64, address: Word, size: int) -> Word:
    """Bytes of a system table: an implicit supervisor access, outside segmentation."""
    return cpu.translation.system_load(cpu, address, size)


# -- the stack ------------------------------------------------------------------------------------


def stack_offset(cpu: Ia32, distance: int) -> Word:
    """The offset in SS `distance` bytes above the stack pointer: ESP, or SP when SS.B = 0."""
    pointer = cpu.gpr[ESP] + (distance & 0xFFFFFFFF)
    return ite(cpu.ss.rights.db, pointer, pointer.truncate(16).zero_extend(32))


def move_stack_pointer(cpu: Ia32, distance: Word | int) -> None:
    """Add to ESP, or to SP alone when SS.B = 0."""
    step = Word(32, distance & 0xFFFFFFFF) if isinstance(distance, int) else distance
    moved = cpu.gpr[ESP] + step
    kept = cpu.gpr[ESP].replace(15, 0, moved.truncate(16))
    cpu.gpr[ESP] = ite(cpu.ss.rights.db, moved, kept)


def check_room(cpu: Ia32, count: int, size: int) -> None:
    """Check that `count` items of `size` bytes fit on the stack.

    Raises:
        MemoryFault: #SS(0), they do not.
    """
    if not all_of(within(cpu.ss, stack_offset(cpu, -size * number), size) for number in range(1, count + 1)):
        raise MemoryFault(SS, 0)


def push(cpu: Ia32, value: Word, *, slot: int | None = None, checked: bool = False) -> None:
    """Push a word of 16 or 32 bits.

    Args:
        slot: bytes of stack, where they are more than the value has.
        checked: there was found to be room.
    """
    size = slot or value.width // 8
    store(cpu, MemoryOperand(Word(3, SS_), stack_offset(cpu, -size)), value, checked=checked)
    move_stack_pointer(cpu, -size)


def peek(cpu: Ia32, distance: int, size: int) -> Word:
    """`size` bytes, `distance` bytes above the stack pointer."""
    return load(cpu, MemoryOperand(Word(3, SS_), stack_offset(cpu, distance)), size)


def pop(cpu: Ia32, size: int) -> Word:
    """Pop `size` bytes."""
    value = peek(cpu, 0, size)
    move_stack_pointer(cpu, size)
    return value


# -- the instruction pointer ----------------------------------------------------------------------


def check_near(cpu: Ia32, target: Word, *, when: Word = TRUE) -> None:
    """Check the target of a near transfer (32 bits), if `when`.

    Raises:
        MemoryFault: #GP(0), it lies outside the code segment.
    """
    if when & (target > cpu.segment(CS).limit):
        raise MemoryFault(GP, 0)


def jump_near(cpu: Ia32, target: Word, *, when: Word = TRUE) -> None:
    """EIP := target (16 or 32 bits), if `when`; else nothing happens.

    Raises:
        MemoryFault: #GP(0), the target lies outside the code segment.
    """
    wide = target.zero_extend(32)
    check_near(cpu, wide, when=when)
    cpu.eip = ite(when, wide, cpu.eip)


def privileged(cpu: Ia32 | x64.X64) -> None:
    """#GP(0) unless CPL is 0."""
    if cpu.cpl != 0:
        raise Fault(GP, 0)
