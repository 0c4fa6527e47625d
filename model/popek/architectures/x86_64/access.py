"""Memory references and the stack in IA-32e mode (SDM vol. 3A, "Segmentation in IA-32e Mode", "Paging").

In 64-bit mode an address must be canonical and nothing else of segmentation is looked at; in compatibility mode
segments work as in protected mode.  Every fault raised here is a trap on a storage reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from popek.architectures.ia32.access import misaligned, within
from popek.architectures.ia32.state import AC, FS, GP, SS, SS_
from popek.kernel.outcome import MemoryFault, NotModelledError
from popek.kernel.words import TRUE, Word, concat, ite

from .state import RSP, X64, Segment, is_canonical


@attrs.frozen
class MemoryOperand:
    """A reference: a segment register by its encoding (3 bits) and an offset (64 bits).

    The addressing form that computed the offset makes no difference to what follows.  In 64-bit mode a
    reference through SS is one whose base register is RSP or RBP; compatibility mode uses the low 32 bits.
    """

    segment: Word
    offset: Word

    def __add__(self, distance: int) -> MemoryOperand:
        return MemoryOperand(self.segment, self.offset + distance)


def needs_long_mode(
    cpu: X64, why: str = "a REX prefix, which is another instruction in compatibility mode"
) -> None:
    """Stop where an encoding means something else outside 64-bit mode.

    Raises:
        NotModelledError: in compatibility mode.
    """
    if not cpu.long:
        raise NotModelledError(why)


def low_half(value: Word) -> Word:
    """Bits 31:0, zero-extended to 64."""
    return value.truncate(32).zero_extend(64)


def linear(cpu: X64, segment: Segment, number: Word, offset: Word) -> Word:
    """The linear address (64 bits) of an offset (64 bits) in a segment; nothing is checked."""
    based = number >= FS
    base = ite(cpu.long & ~based, Word(64, 0), segment.base)
    address = base + ite(cpu.long, offset, low_half(offset))
    return ite(cpu.long, address, low_half(address))


def all_canonical(address: Word, size: int) -> Word:
    """Whether every byte of an access is at a canonical address; width 1."""
    first = is_canonical(address)
    return first if size == 1 else first & is_canonical(address + (size - 1))


def allows(cpu: X64, segment: Segment, offset: Word, size: int, *, write: bool) -> Word:
    """Whether a segment allows an access in compatibility mode; width 1."""
    rights = segment.rights
    data = rights.type[3] == 0
    permitted = (data & rights.type[1]) if write else (data | rights.type[1])
    return (rights.unusable == 0) & permitted & within(segment, offset.truncate(32), size)


def linear_address(
    cpu: X64,
    operand: MemoryOperand,
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
    segment = cpu.segment(operand.segment)
    address = linear(cpu, segment, operand.segment, operand.offset)
    if not checked:
        fits = allows(cpu, segment, operand.offset, size, write=write)
        if not ite(cpu.long, all_canonical(address, size), fits):
            raise MemoryFault(SS if operand.segment == SS_ else GP, 0)
    if aligned > 1 and address[aligned.bit_length() - 2 : 0] != 0:
        raise MemoryFault(GP, 0)
    check_pages(cpu, address, size, write=write)
    odd = misaligned(cpu, address, unit or second or size)
    if second:
        odd = odd | misaligned(cpu, address + second, size - second)
    if odd:
        raise MemoryFault(AC, 0)
    return address


def check_pages(cpu: X64, address: Word, size: int, *, write: bool) -> None:
    """The protection that page tables give: against user mode alone (SDM vol. 3A, "Access Rights").

    Raises:
        MemoryFault: #PF at CPL 3.
    """
    cpu.translation.permit(cpu, address, size, write=write)


def load(cpu: X64, operand: MemoryOperand, size: int) -> Word:
    """`size` bytes, little-endian."""
    return cpu.translation.load(cpu, linear_address(cpu, operand, size, write=False), size)


def store(cpu: X64, operand: MemoryOperand, value: Word, *, checked: bool = False) -> None:
    """Store a word of 8 to 64 bits, little-endian; `checked`: the segment was found to allow it."""
    address = linear_address(cpu, operand, value.width // 8, write=True, checked=checked)
    cpu.translation.store(cpu, address, value)


def load_pair(cpu: X64, operand: MemoryOperand, first: int, second: int) -> tuple[Word, Word]:
    """Two neighbours of so many bytes: limit and base, offset and selector."""
    address = linear_address(cpu, operand, first + second, write=False, second=first)
    both = cpu.translation.load(cpu, address, first + second)
    return both[8 * first - 1 : 0], both[both.width - 1 : 8 * first]


# -- the stack ------------------------------------------------------------------------------------


def stack_offset(cpu: X64, distance: int) -> Word:
    """The offset in SS `distance` bytes above the stack pointer: RSP, or ESP or SP in compatibility mode."""
    pointer = cpu.gpr[RSP] + (distance & 0xFFFFFFFF_FFFFFFFF)
    return wrapped(cpu, pointer)


def wrapped(cpu: X64, pointer: Word) -> Word:
    """An offset in the stack, cut to the width that the stack pointer has."""
    narrow = ite(cpu.ss.rights.db, low_half(pointer), pointer.truncate(16).zero_extend(64))
    return ite(cpu.long, pointer, narrow)


def move_stack_pointer(cpu: X64, distance: Word | int) -> None:
    """Add to RSP, or to ESP or SP alone in compatibility mode (64 bits, or a number)."""
    step = Word(64, distance & 0xFFFFFFFF_FFFFFFFF) if isinstance(distance, int) else distance
    set_stack_pointer(cpu, cpu.gpr[RSP] + step)


def set_stack_pointer(cpu: X64, pointer: Word) -> None:
    """RSP := 64 bits; in compatibility mode ESP or SP alone."""
    narrow = ite(cpu.ss.rights.db, low_half(pointer), cpu.gpr[RSP].replace(15, 0, pointer.truncate(16)))
    cpu.gpr[RSP] = ite(cpu.long, pointer, narrow)


def push(cpu: X64, value: Word, *, slot: int | None = None, checked: bool = False) -> None:
    """Push a word of 16, 32 or 64 bits.

    Args:
        slot: bytes of stack, where they are more than the value has.
        checked: there was found to be room.
    """
    size = slot or value.width // 8
    store(cpu, MemoryOperand(Word(3, SS_), stack_offset(cpu, -size)), value, checked=checked)
    move_stack_pointer(cpu, -size)


def peek(cpu: X64, distance: int, size: int) -> Word:
    """`size` bytes, `distance` bytes above the stack pointer."""
    return load(cpu, MemoryOperand(Word(3, SS_), stack_offset(cpu, distance)), size)


def pop(cpu: X64, size: int) -> Word:
    """Pop `size` bytes."""
    value = peek(cpu, 0, size)
    move_stack_pointer(cpu, size)
    return value


def push_all(cpu: X64, items: Sequence[Word]) -> None:
    """Push words of one width, the first one first; checked as one access."""
    slot = items[0].width // 8
    size = slot * len(items)
    operand = MemoryOperand(Word(3, SS_), stack_offset(cpu, -size))
    where = linear_address(cpu, operand, size, write=True, unit=slot)
    cpu.translation.store(cpu, where, concat(*items))
    move_stack_pointer(cpu, -size)


def peek_all(cpu: X64, distance: Word | int, slot: int, count: int) -> list[Word]:
    """`count` items of `slot` bytes, from `distance` bytes above the stack pointer; checked as one access."""
    above = Word(64, distance) if isinstance(distance, int) else distance
    operand = MemoryOperand(Word(3, SS_), wrapped(cpu, cpu.gpr[RSP] + above))
    where = linear_address(cpu, operand, slot * count, write=False, unit=slot)
    whole = cpu.translation.load(cpu, where, slot * count)
    return [whole[8 * slot * (i + 1) - 1 : 8 * slot * i] for i in range(count)]


def natural(cpu: X64) -> int:
    """Bytes of a stack slot without an operand-size prefix: 8 in 64-bit mode, 4 in compatibility mode."""
    return 8 if cpu.long else 4


# -- the instruction pointer ----------------------------------------------------------------------


def check_near(cpu: X64, target: Word) -> None:
    """Check the target of a near transfer (64 bits).

    Raises:
        MemoryFault: #GP(0), it is not canonical, or lies outside the code segment.
    """
    if not _may_be_reached(cpu, target):
        raise MemoryFault(GP, 0)


def _may_be_reached(cpu: X64, target: Word) -> Word:
    return ite(cpu.long, is_canonical(target), target <= cpu.cs.limit.zero_extend(64))


def jump_near(cpu: X64, target: Word, *, when: Word = TRUE) -> None:
    """RIP := target (64 bits), of which compatibility mode uses the low half; if `when`, else nothing happens.

    Raises:
        MemoryFault: #GP(0), as `check_near`.
    """
    wanted = ite(cpu.long, target, low_half(target))
    if when & ~_may_be_reached(cpu, wanted):
        raise MemoryFault(GP, 0)
    cpu.rip = ite(when, wanted, cpu.rip)
