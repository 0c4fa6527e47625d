"""Settings that every mode has."""

from __future__ import annotations

from typing import Final

from popek.kernel.machine import Setting, leaf_setting
from popek.kernel.words import Word

from .state import X86


def of_levels(flags: str) -> tuple[Setting, ...]:
    """What decides which level may do what; `flags` is the name of the flags register."""
    return (
        leaf_setting(
            "IOPL",
            f"{flags}.iopl",
            2,
            f"{flags.upper()}.IOPL: levels up to it may use CLI, STI and ports",
            0,
        ),
        leaf_setting("UMIP", "cr4.umip", 1, "CR4.UMIP: SGDT SIDT SLDT SMSW STR fault above CPL 0", 0),
        leaf_setting("TSD", "cr4.tsd", 1, "CR4.TSD: RDTSC and RDTSCP fault above CPL 0", 0),
        leaf_setting("PCE", "cr4.pce", 1, "CR4.PCE: RDPMC is allowed above CPL 0", 0),
        leaf_setting("PVI", "cr4.pvi", 1, "CR4.PVI: CLI and STI at CPL 3 act on VIF", 0),
    )


def _denies_every_port(state: X86, value: Word) -> Word:
    """The TSS has no I/O permission map within its limit, or (0) may have any."""
    base = state.memory.load_little_endian(state.tr.base + 0x66, 2)
    nowhere = (state.tr.limit <= 0x67) & (base > 0x67)
    return nowhere | (value == 0)


PORTS: Final = Setting(
    "PORTS",
    "the TSS's I/O permission map",
    (0, 1),
    _denies_every_port,
    1,
    concerns=("tr.limit",),
    labels={0: "any", 1: "denied"},
)
