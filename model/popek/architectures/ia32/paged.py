"""IA-32 with storage behind page tables: the references of programs and of the processor, translated."""

from __future__ import annotations

from typing import Final

from popek.architectures.x86.paged import behind_page_tables
from popek.architectures.x86.paging import PageTables
from popek.kernel.machine import Machine

from .machine import build as build_plain
from .state import Ia32


class PagedIa32(Ia32):
    """The processor with physical storage; CR0.PG decides whether the tables are walked."""

    translation = PageTables()


FORMS: Final = (
    "MOV r32, m32",
    "MOV m32, r32",
    "ADD r32, m32",
    "ADD m32, r32",
    "PUSH r32",
    "POP r32",
    "SGDT m",
    "LGDT m16&32",
    "MOV Sreg, r16",
    "LAR r32, r16",
    "VERW r16",
)
"""References of every kind: reads, writes, changes, the stack, pairs, and implicit ones to tables."""


def build() -> Machine[PagedIa32]:
    """`ia32` with storage behind 32-bit or PAE page tables, for a form of each kind of reference."""
    return behind_page_tables(
        build_plain(),
        PagedIa32,
        "IA-32 with page tables walked",
        FORMS,
        "TLBs, PAE's page-directory-pointer registers, instruction fetches, CR2, storage above 4 GiB",
    )
