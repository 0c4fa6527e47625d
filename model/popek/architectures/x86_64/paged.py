"""x86-64 with storage behind four levels of page tables: the references of programs, translated."""

from __future__ import annotations

from typing import Final

from popek.architectures.x86.paged import behind_page_tables
from popek.architectures.x86.paging import PageTables
from popek.kernel.machine import Machine

from .machine import build as build_plain
from .state import X64


class PagedX64(X64):
    """The processor with physical storage; the tables are walked."""

    translation = PageTables(segments=False)


FORMS: Final = (
    "MOV r64, m64",
    "MOV m64, r64",
    "MOV m8, r8",
    "PUSH r64",
    "POP r64",
    "LAR r32, r16",
    "VERW r16",
)
"""References of every kind: reads, writes, the stack, and implicit ones to tables."""


def build() -> Machine[PagedX64]:
    """`x86-64` with storage behind 4-level page tables, for a form of each kind of reference."""
    return behind_page_tables(
        build_plain(),
        PagedX64,
        "x86-64 with page tables walked",
        FORMS,
        "TLBs, instruction fetches, CR2; five levels",
    )
