"""The stack of an inner privilege level (SDM vol. 3A, "Stack Switching")."""

from __future__ import annotations

import attrs

from popek.architectures.x86.descriptors import (
    Descriptor,
    check_stack_segment,
    error_code,
    load_stack_segment,
)
from popek.architectures.x86.exceptions import (
    SS,
    TS,
)
from popek.kernel.outcome import Fault, MemoryFault
from popek.kernel.words import Word, concat, ite

from .access import supervisor_load, within
from .state import (
    ESP,
    Ia32,
)


@attrs.frozen
class InnerStack:
    """The stack that the TSS names for a level, checked but not yet in use."""

    selector: Word
    pointer: Word  # 32 bits
    descriptor: Descriptor


def inner_stack(cpu: Ia32, level: Word) -> InnerStack:
    """SS and ESP of `level` (2 bits, less than CPL) from the TSS.

    Raises:
        Fault: #TS(TR) when the TSS is too small; #TS(0) for a null SS, #TS(SS) for one of a wrong level
            or type, #SS(SS) when not present.
    """
    wide_level = level.zero_extend(32)
    small = ~cpu.tr.rights.type[3]  # a 16-bit TSS
    where = ite(small, (wide_level << 2) + 2, (wide_level << 3) + 4)
    # The two bytes after the selector of a 32-bit TSS are reserved, and need not be there.
    if where + ite(small, Word(32, 3), Word(32, 5)) > cpu.tr.limit:
        raise Fault(TS, error_code(cpu.tr.selector.value))
    content = supervisor_load(cpu, cpu.tr.base + where, 6)
    pointer = ite(small, content[15:0].zero_extend(32), content[31:0])
    selector = ite(small, content[31:16], content[47:32])
    descriptor = check_stack_segment(cpu, selector, level, vector=TS, null_vector=TS)
    return InnerStack(selector, pointer, descriptor)


def check_inner_room(cpu: Ia32, stack: InnerStack, room: Word | int) -> None:
    """Check that an inner stack has room for what will be pushed: bytes, 32 bits or a number.

    Raises:
        MemoryFault: #SS(SS), it has not.
    """
    size = Word(32, room) if isinstance(room, int) else room
    probe = cpu.copy()
    load_stack_segment(probe, stack.selector, stack.descriptor)
    top = stack.pointer - size
    offset = ite(probe.ss.rights.db, top, top.truncate(16).zero_extend(32))
    if not within(probe.ss, offset, size):
        raise MemoryFault(SS, error_code(stack.selector))


def switch_to(cpu: Ia32, stack: InnerStack) -> None:
    """Make an inner stack the current one, and its level CPL: what is pushed is pushed by the inner level."""
    load_stack_segment(cpu, stack.selector, stack.descriptor)
    # Only SP moves in a 16-bit stack segment; the upper half is what the TSS gave.
    cpu.gpr[ESP] = stack.pointer


def bytes_of(count: Word, size: int) -> Word:
    """`count` items of `size` bytes, 32 bits."""
    return concat(Word(32 - count.width, 0), count) * size
