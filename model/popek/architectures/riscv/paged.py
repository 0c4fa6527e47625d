"""RV64 with Sv39 and Sv39x4 page tables walked, for a form of each kind of reference."""

from __future__ import annotations

from typing import Final, cast

import attrs

from popek.kernel.machine import Machine
from popek.kernel.state import Role, register
from popek.kernel.words import Word

from .machine import build as build_plain
from .paging import walk
from .references import Actor, ReferenceKind
from .state import BARE, SV39, USUAL, Features, Rv64

FORMS: Final = (
    "LD rd, offset(rs1)",
    "LBU rd, offset(rs1)",
    "SW rs2, offset(rs1)",
    "AMOADD.D rd, rs2, (rs1)",
    "LR.W rd, (rs1)",
    "HLV.D rd, (rs1)",
    "HLVX.WU rd, (rs1)",
    "HSV.B rs2, (rs1)",
)


class PagedRv64(Rv64):
    """The hart; the tables are walked."""

    features = register(Features, 19, role=Role.HIDDEN, reset=USUAL | 1 << 5)

    def walk(self, address: Word, actor: Actor, kind: ReferenceKind) -> Word:
        """The physical address (56 bits) that page tables give."""
        return walk(self, address, actor, kind)


def build() -> Machine[PagedRv64]:
    """`rv64` with Sv39, and with a guest's second stage."""
    plain = build_plain()
    return attrs.evolve(
        cast("Machine[PagedRv64]", plain),
        name="rv64-paged",
        title="RV64 with Sv39 and Sv39x4 page tables walked",
        state=PagedRv64,
        invariant=lambda state: (
            plain.invariant(state)
            & state.features.sv39
            & state.satp.mode.isin((BARE, SV39))
            & state.vsatp.mode.isin((BARE, SV39))
            & state.hgatp.mode.isin((BARE, SV39))
        ),
        settings=tuple(setting for setting in plain.settings if setting.name != "SV39"),
        techniques={},
        notes=(
            "instructions but for one of each kind of reference to storage: they differ in nothing else",
            "translation caches, instruction fetches, Sv48 and Sv57, hardware that sets A and D",
        ),
        instructions={form: plain.instructions[form] for form in FORMS},
    )
