"""References to storage of IA-32, and near transfers; every fault raised here is a trap on a storage reference."""

from __future__ import annotations

from popek.architectures.x86.access import (
    MemoryOperand,
    linear_address,
    load,
    load_to_change,
    misaligned,
    peek,
    pop,
    privileged,
    push,
    store,
    supervisor_load,
    within,
)
from popek.architectures.x86.exceptions import GP, SS
from popek.architectures.x86.registers import CS
from popek.kernel.outcome import MemoryFault
from popek.kernel.words import TRUE, Word, all_of, ite

from .state import Ia32


def stack_offset(cpu: Ia32, distance: int) -> Word:
    """The offset in SS `distance` bytes above the stack pointer: ESP, or SP when SS.B = 0."""
    return cpu.segmentation.stack_offset(cpu, distance)


def move_stack_pointer(cpu: Ia32, distance: Word | int) -> None:
    """Add to ESP, or to SP alone when SS.B = 0."""
    cpu.segmentation.move_stack_pointer(cpu, distance)


def check_room(cpu: Ia32, count: int, size: int) -> None:
    """Check that `count` items of `size` bytes fit on the stack.

    Raises:
        MemoryFault: #SS(0), they do not.
    """
    if not all_of(within(cpu.ss, stack_offset(cpu, -size * number), size) for number in range(1, count + 1)):
        raise MemoryFault(SS, 0)


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


__all__ = [
    "MemoryOperand",
    "check_near",
    "check_room",
    "jump_near",
    "linear_address",
    "load",
    "load_to_change",
    "misaligned",
    "move_stack_pointer",
    "peek",
    "pop",
    "privileged",
    "push",
    "stack_offset",
    "store",
    "supervisor_load",
    "within",
]
