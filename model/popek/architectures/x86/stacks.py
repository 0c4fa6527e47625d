"""Returning to an outer privilege level (SDM vol. 2A, IRET, and vol. 2B, RET, Operation)."""

from __future__ import annotations

from popek.kernel.words import Word, ite

from .state import Segment


def null_if_outranked(segment: Segment, level: Word, *, base_stays: bool = False) -> None:
    """The selector of a data segment that is null, or that `level` may not use, becomes 0.

    Args:
        base_stays: as IA-32e mode has it, where FS and GS go on to use theirs; elsewhere nobody can see base and
            limit of a null segment, and they become 0.
    """
    rights = segment.rights
    conforming = (rights.type[3] == 1) & rights.type[2]
    lost = (rights.unusable == 0) & ~conforming & (rights.dpl < level)
    lost = lost | (rights.unusable == 1)
    segment.selector = ite(lost, Word(16, 0), segment.selector.value)
    if not base_stays:
        segment.base = ite(lost, Word(32, 0), segment.base)
        segment.limit = ite(lost, Word(32, 0), segment.limit)
    segment.rights = ite(lost, Word(17, 0x10000), rights.value)
