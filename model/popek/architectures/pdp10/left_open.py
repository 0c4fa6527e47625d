"""What the sources of the PDP-10s leave open."""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

KA10 = (
    LeftOpen(
        "whether User In-out lifts the traps of HALT and JEN, too",
        "SIMH's KA10",
        unsure="no manual was at hand",
        taken="it does, as in SIMH's later KA10",
    ),
)
KS10 = (
    LeftOpen(
        "whether SETCA fetches the memory operand that it does not need",
        "SIMH's KS10",
        unsure="no manual was at hand",
        taken="it does, as in SIMH's KS10",
    ),
)
