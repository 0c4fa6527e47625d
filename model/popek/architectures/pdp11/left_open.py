"""What the PDP-11 handbooks leave to the model of the family."""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

LEFT_OPEN = (
    LeftOpen(
        "in what the models of the family differ (SPL, MTPS, MFPS, RTT, the trap of HALT in user mode)",
        "PDP-11 Processor Handbook, PDP-11 family differences",
        unsure="from memory",
        taken="the PDP-11/45's way",
    ),
    LeftOpen(
        "what the processor does in the mode with bits 10",
        "PDP-11/45 Processor Handbook, Processor Status Word",
        unsure="from memory; notes on the KDJ11-A call it illegal too, and it takes the user's stack pointer there",
        taken="no state is in it, and entering it is not modelled",
    ),
)
