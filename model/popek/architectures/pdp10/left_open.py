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
    LeftOpen(
        "whether IDIV divides the least number by 1 and -1",
        "how a division is made of a double word",
        unsure="no manual was at hand",
        taken="it refuses (No Divide), unlike the KS10, of which SIMH's author compared with the microcode",
    ),
)
KS10 = (
    LeftOpen(
        "whether SETCA fetches the memory operand that it does not need",
        "SIMH's KS10",
        unsure="no manual was at hand",
        taken="it does, as in SIMH's KS10",
    ),
    LeftOpen(
        "what ADJBP makes of a pointer with a position above 36",
        "SIMH's KS10",
        unsure="no manual was at hand",
        taken="divisions are towards zero, as in SIMH's KS10",
    ),
)
