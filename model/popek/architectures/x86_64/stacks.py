"""The stack of an inner privilege level in IA-32e mode (SDM vol. 3A, "Stack Switching in IA-32e Mode")."""

from __future__ import annotations

from popek.architectures.x86.access import (
    misaligned,
    supervisor_load,
)
from popek.architectures.x86.descriptors import error_code
from popek.architectures.x86.exceptions import (
    AC,
    SS,
    TS,
)
from popek.kernel.outcome import Fault, MemoryFault
from popek.kernel.words import Word, concat

from .access import all_canonical, check_pages
from .descriptors import load_null_stack_segment
from .state import RSP, X64


def level_slot(level: Word) -> Word:
    """Where the TSS has RSPn (64 bits)."""
    return (level.zero_extend(64) << 3) + 4


def interrupt_stack_slot(ist: Word) -> Word:
    """Where the TSS has ISTn, for n from 1 (64 bits)."""
    return (ist.zero_extend(64) << 3) + 0x1C


def stack_pointer_at(cpu: X64, slot: Word) -> Word:
    """RSPn or ISTn from the TSS.

    Raises:
        Fault: #TS(TR), the TSS is too small.
    """
    if slot + 7 > cpu.tr.limit.zero_extend(64):
        raise Fault(TS, error_code(cpu.tr.selector.value))
    return supervisor_load(cpu, cpu.tr.base + slot, 8)


def push_frame(cpu: X64, top: Word, items: list[Word], level: Word) -> None:
    """Push quadwords below `top` with the rights of `level`, the first one first, and leave RSP there.

    Raises:
        MemoryFault: #SS(0), not canonical; at CPL 3 #PF, and #AC(0) on misalignment.
    """
    size = 8 * len(items)
    where = top - size
    if not all_canonical(where, size):
        raise MemoryFault(SS, 0)
    own = cpu.cs.selector.rpl
    cpu.cs.selector.rpl = level
    try:
        check_pages(cpu, where, size, write=True)
        if misaligned(cpu, where, 8):
            raise MemoryFault(AC, 0)
    finally:
        cpu.cs.selector.rpl = own
    cpu.translation.store(cpu, where, concat(*items))
    cpu.gpr[RSP] = where


def enter_level(cpu: X64, level: Word) -> None:
    """SS of an inner level: null, with the level as its RPL."""
    load_null_stack_segment(cpu, level.zero_extend(16), level)
