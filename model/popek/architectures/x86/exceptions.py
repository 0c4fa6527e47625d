"""Exceptions by vector (SDM vol. 3A, "Protected-Mode Exceptions and Interrupts"); error codes are 16 bits wide."""

from __future__ import annotations

from popek.kernel.outcome import Vector

DE, DB, BP, OF, BR, UD, NM = (
    Vector(name, number)
    for name, number in (("#DE", 0), ("#DB", 1), ("#BP", 3), ("#OF", 4), ("#BR", 5), ("#UD", 6), ("#NM", 7))
)
TS, NP, SS, GP, PF, AC = (
    Vector(name, number, 16)
    for name, number in (("#TS", 10), ("#NP", 11), ("#SS", 12), ("#GP", 13), ("#PF", 14), ("#AC", 17))
)
VECTORS = (DE, DB, BP, OF, BR, UD, NM, TS, NP, SS, GP, PF, AC)
