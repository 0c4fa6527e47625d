"""What the Principles of Operation leave to the model, and call unpredictable."""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

DIAGNOSE = LeftOpen(
    "what DIAGNOSE does: it depends on the model",
    "Principles of Operation, DIAGNOSE",
    unsure="from memory",
    values=("DIAGNOSE",),
)
LEFT_OPEN_67 = (
    DIAGNOSE,
    LeftOpen(
        "what an instruction has stored when it ends with an access exception",
        "Principles of Operation, Termination (the result is unpredictable)",
        unsure="from memory",
        taken="nothing",
    ),
)
S370 = (
    DIAGNOSE,
    LeftOpen(
        "whether STCM with a mask of zeros meets the access exceptions of a byte",
        "GA22-7000-10, STORE CHARACTERS UNDER MASK",
        taken="it does not",
    ),
    LeftOpen(
        "whose access control ISKE shows where SSK gave the halves of a page different ones",
        "GA22-7000-10, INSERT STORAGE KEY EXTENDED; INSERT STORAGE KEY",
        unsure="the second was read: blocks may have two keys of 2K bytes each; the first is from memory",
        taken="the first half's",
    ),
    LeftOpen(
        "the channel's type and model that STIDC stores",
        "GA22-7000, STORE CHANNEL ID",
        unsure="from memory",
        values=("channel id",),
    ),
    LeftOpen(
        "when changed tables make translations stale",
        "GA22-7000, Translation-Lookaside Buffer",
        unsure="from memory",
        values=("tlb_stale",),
    ),
    LeftOpen(
        "whether the dual-address-space facility is installed",
        "GA22-7000, Dual Address-Space Control",
        unsure="from memory",
        settings=("DAS",),
    ),
)
