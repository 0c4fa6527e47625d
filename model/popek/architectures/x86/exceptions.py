"""Exceptions by vector (SDM vol. 3A, "Protected-Mode Exceptions and Interrupts"); error codes are 16 bits wide."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from popek.kernel.outcome import Fault, Vector

DE, DB, BP, OF, BR, UD, NM = (
    Vector(name, number)
    for name, number in (("#DE", 0), ("#DB", 1), ("#BP", 3), ("#OF", 4), ("#BR", 5), ("#UD", 6), ("#NM", 7))
)
TS, NP, SS, GP, PF, AC = (
    Vector(name, number, 16)
    for name, number in (("#TS", 10), ("#NP", 11), ("#SS", 12), ("#GP", 13), ("#PF", 14), ("#AC", 17))
)
VECTORS = (DE, DB, BP, OF, BR, UD, NM, TS, NP, SS, GP, PF, AC)


@contextlib.contextmanager
def external() -> Iterator[None]:
    """Faults by the way have EXT = 1, which is clear for INT n, INT3 and INTO alone (SDM vol. 3A, "Error Code").

    #PF has an error code of another kind; that of #AC is 0 but for EXT.
    """
    try:
        yield
    except Fault as fault:
        if fault.error_code is None or fault.vector is PF:
            raise
        raise Fault(fault.vector, fault.error_code | 1, memory=fault.memory, keeps=fault.keeps) from None
