"""What Motorola's manuals leave to the processor and to what surrounds it."""

from __future__ import annotations

from popek.kernel.left_open import LeftOpen

from .state import MANUAL, REFERENCE

LEFT_OPEN = (
    LeftOpen("N and V after ABCD, SBCD and NBCD", f"{REFERENCE}, ABCD, SBCD, NBCD", values=("decimal *",)),
    LeftOpen("Z, V and C after CHK, and N where it does not trap", f"{REFERENCE}, CHK", values=("CHK *",)),
    LeftOpen(
        "N and Z after a division that overflows", f"{REFERENCE}, DIVS and DIVU", values=("division *",)
    ),
    LeftOpen(
        "the condition codes after a division by zero",
        f"{REFERENCE}, DIVS and DIVU",
        taken="they stay; the exception's frame holds them",
        unsure="later manuals call them undefined",
    ),
    LeftOpen(
        "the result of ABCD, SBCD and NBCD where a digit is above 9",
        f"{REFERENCE}, ABCD",
        values=("digits *",),
        unsure="the manual speaks of decimal numbers alone",
    ),
    LeftOpen(
        "how far an instruction has come when a bus or address error is taken",
        f"{MANUAL}, section 6.3.9",
        taken="references are made in the order of the operands; registers that were moved stay moved",
    ),
    LeftOpen(
        "the instruction's first word, the access word and the status word in the frame of a bus or address error",
        f"{MANUAL}, section 6.3.9",
        values=("frame *",),
    ),
    LeftOpen(
        "how far the PC in such a frame has run ahead of where the instruction begins",
        f"{MANUAL}, section 6.3.9",
        values=("ahead",),
    ),
    LeftOpen(
        "what the 68010 keeps in the words of its own in such a frame",
        f"{MANUAL}, section 6.3.9",
        taken="where the instruction begins, in two of them; the others, and the buffers, stay as they are",
    ),
    LeftOpen(
        "which value MOVES stores where its register gives the address, too, and moves",
        f"{REFERENCE}, MOVES",
        taken="the register's new one",
        unsure="from memory",
    ),
    LeftOpen(
        "STOP with an operand that has S = 0",
        f"{REFERENCE}, STOP",
        taken="a privilege violation",
        unsure="two secondary sources say so; Musashi stops in user state",
    ),
    LeftOpen(
        "what the unit outside makes of a reference",
        f"{MANUAL}, section 5 (function codes, BERR)",
        taken="a base and a bound for each state of the processor, and a bus error outside; no maker's unit",
    ),
)
