"""Memory references and the stack in IA-32e mode (SDM vol. 3A, "Segmentation in IA-32e Mode", "Paging").

In 64-bit mode an address must be canonical and nothing else of segmentation is looked at; in compatibility mode
segments work as in protected mode.  Every fault raised here is a trap on a storage reference.
"""

from __future__ import annotations

from collections.abc import Sequence

from popek.architectures.x86.access import MemoryOperand, load, misaligned, peek, pop, push, store
from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.registers import SS_
from popek.kernel.outcome import MemoryFault, NotModelledError
from popek.kernel.words import TRUE, Word, concat, ite

from .addresses import all_canonical, is_canonical, low_half
from .segmentation import allows, linear, set_stack_pointer, wrapped
from .state import RSP, X64


def needs_long_mode(
    cpu: X64, why: str = "a REX prefix, which is another instruction in compatibility mode"
) -> None:
    """Stop where an encoding means something else outside 64-bit mode.

    Raises:
        NotModelledError: in compatibility mode.
    """
    if not cpu.long:
        raise NotModelledError(why)


def linear_address(
    cpu: X64, operand: MemoryOperand, size: int, *, write: bool, checked: bool = False, **parts: int
) -> Word:
    """The linear address of a `size`-byte access, as `LongSegmentation` says, which knows the `parts`, too.

    Raises:
        MemoryFault: it is not allowed.
    """
    number, offset = operand.segment, operand.offset
    return cpu.segmentation.linear_address(cpu, number, offset, size, write=write, checked=checked, **parts)


def check_pages(cpu: X64, address: Word, size: int, *, write: bool) -> None:
    """The protection that page tables give: against user mode alone (SDM vol. 3A, "Access Rights").

    Raises:
        MemoryFault: #PF at CPL 3.
    """
    cpu.translation.permit(cpu, address, size, write=write)


def load_pair(cpu: X64, operand: MemoryOperand, first: int, second: int) -> tuple[Word, Word]:
    """Two neighbours of so many bytes: limit and base, offset and selector."""
    address = linear_address(cpu, operand, first + second, write=False, second=first)
    both = cpu.translation.load(cpu, address, first + second)
    return both[8 * first - 1 : 0], both[both.width - 1 : 8 * first]


# -- the stack ------------------------------------------------------------------------------------


def stack_offset(cpu: X64, distance: int) -> Word:
    """The offset in SS `distance` bytes above the stack pointer: RSP, or ESP or SP in compatibility mode."""
    return cpu.segmentation.stack_offset(cpu, distance)


def move_stack_pointer(cpu: X64, distance: Word | int) -> None:
    """Add to RSP, or to ESP or SP alone in compatibility mode (64 bits, or a number)."""
    cpu.segmentation.move_stack_pointer(cpu, distance)


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


__all__ = [
    "MemoryOperand",
    "all_canonical",
    "allows",
    "check_near",
    "check_pages",
    "jump_near",
    "linear",
    "linear_address",
    "load",
    "load_pair",
    "low_half",
    "misaligned",
    "move_stack_pointer",
    "natural",
    "needs_long_mode",
    "peek",
    "peek_all",
    "pop",
    "push",
    "push_all",
    "set_stack_pointer",
    "stack_offset",
    "store",
    "wrapped",
]
