"""IA-32 with storage behind page tables: the references of programs and of the processor, translated."""

from __future__ import annotations

from typing import Final, cast

import attrs

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
    plain = build_plain()
    return attrs.evolve(
        cast("Machine[PagedIa32]", plain),
        name="ia32-paged",
        title="IA-32 with page tables walked",
        state=PagedIa32,
        invariant=lambda state: (
            plain.invariant(state) & (state.reserved.size == 0) & (state.read_only.size == 0)
        ),
        relocate=None,
        techniques={},
        notes=(
            "instructions but for one of each kind of reference to storage: they differ in nothing else",
            "TLBs, PAE's page-directory-pointer registers, instruction fetches, CR2, storage above 4 GiB",
        ),
        instructions={form: plain.instructions[form] for form in FORMS},
    )
