"""x86-64 with storage behind four levels of page tables: the references of programs, translated."""

from __future__ import annotations

from typing import Final, cast

import attrs

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
    plain = build_plain()
    return attrs.evolve(
        cast("Machine[PagedX64]", plain),
        name="x86-64-paged",
        title="x86-64 with page tables walked",
        state=PagedX64,
        invariant=lambda state: (
            plain.invariant(state) & (state.reserved.size == 0) & (state.read_only.size == 0)
        ),
        relocate=None,
        techniques={},
        notes=(
            "instructions but for one of each kind of reference to storage: they differ in nothing else",
            "TLBs, instruction fetches, CR2; five levels",
        ),
        instructions={form: plain.instructions[form] for form in FORMS},
    )
