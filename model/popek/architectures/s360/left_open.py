"""What the Principles of Operation leave to the model, and call unpredictable."""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

DIAGNOSE = LeftOpen(
    "what DIAGNOSE does: it depends on the model",
    "Principles of Operation, DIAGNOSE",
    values=("DIAGNOSE",),
)
LEFT_OPEN_67 = (
    DIAGNOSE,
    LeftOpen(
        "what an instruction has stored when it ends with an access exception",
        "Principles of Operation, Termination (the result is unpredictable)",
        taken="nothing",
    ),
)
S370 = (
    DIAGNOSE,
    LeftOpen(
        "whether STCM with a mask of zeros meets the access exceptions of a byte",
        "GA22-7000, STORE CHARACTERS UNDER MASK",
        taken="it does not",
    ),
    LeftOpen(
        "whose access control ISKE shows where SSK gave the halves of a page different ones (unsure: from memory)",
        "GA22-7000-10, INSERT STORAGE KEY EXTENDED",
        taken="the first half's",
    ),
    LeftOpen(
        "the channel's type and model that STIDC stores",
        "GA22-7000, STORE CHANNEL ID",
        values=("channel id",),
    ),
    LeftOpen(
        "when changed tables make translations stale",
        "GA22-7000, Translation-Lookaside Buffer",
        values=("tlb_stale",),
    ),
    LeftOpen(
        "whether the dual-address-space facility is installed",
        "GA22-7000, Dual Address-Space Control",
        settings=("DAS",),
    ),
)
