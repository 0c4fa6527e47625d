"""The hart with the level of every trap said: M, HS or VS, as medeleg and hedeleg have it.

Elsewhere the level follows from the state in which a trap is delivered; where delegation is what is asked about, each
level is a way of its own to end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Final

import attrs

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault

from ..machine import build
from ..state import Rv64
from ..traps import TO_HS, TO_M, target

M, HS, VS = "M", "HS", "VS"
LEVELS: Final = (M, HS, VS)


def level(cpu: Rv64, code: int) -> str:
    """Who takes an exception that `cpu` raises, by name."""
    to = target(cpu, code)
    if to == TO_M:
        return M
    return HS if to == TO_HS else VS


def says_its_level(semantics: Callable[..., None]) -> Callable[..., None]:
    """The same semantics; what they raise says where it goes.  Nothing changes delegation before a fault."""

    @wraps(semantics)
    def run(cpu: Rv64, *operands: Any, **settings: Any) -> None:
        try:
            semantics(cpu, *operands, **settings)
        except Fault as fault:
            raise Fault(
                fault.vector,
                fault.error_code,
                memory=fault.memory,
                keeps=fault.keeps,
                level=level(cpu, fault.vector.number),
            ) from None

    return run


@cache
def machine() -> Machine[Rv64]:
    """`rv64`, made once for all questions about the controls."""
    plain = build()
    return attrs.evolve(
        plain,
        instructions={
            form: attrs.evolve(instruction, semantics=says_its_level(instruction.semantics))
            for form, instruction in plain.instructions.items()
        },
    )
