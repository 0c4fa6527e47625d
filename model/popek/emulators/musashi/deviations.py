"""What Musashi does otherwise for a known reason: how each entry of the list in the specs is recognised.

The list, with the manual's side of it, is ``popek_specs/m68k/musashi-deviations.toml``.  A difference that no entry
explains is a bug of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .compare import M68kCase

Recogniser = Callable[["M68kCase", "str | None", Collection[str]], bool]

RECOGNISERS: Final[dict[str, Recogniser]] = {
    "carry-after-division-overflow": lambda case, traps, names: (
        case.form.startswith("DIV") and traps is None and names == {"sr"}
    ),
    "most-negative-by-minus-one": lambda case, traps, names: (
        case.form.startswith("DIVS") and traps is None and case.dividend == 0x80000000 and len(names) == 2
    ),
    "stop-into-user-state": lambda case, traps, names: (
        case.form.startswith("STOP") and case.supervisor and traps == "privilege violation"
    ),
    "pc-of-a-format-error": lambda case, traps, names: (
        case.form == "RTE" and traps == "format error" and all(name.startswith("memory") for name in names)
    ),
    "registers-of-later-models": lambda case, traps, names: (
        case.form == "MOVEC Rc, Rn"
        and traps == "illegal instruction"
        and case.operands["operand Rc"] in (0x002, 0x802)
    ),
}


def explanation(case: M68kCase, traps: str | None, names: Collection[str]) -> str | None:
    """The id of the entry that explains a difference in these registers and cells, if one does."""
    return next((name for name, holds in RECOGNISERS.items() if holds(case, traps, names)), None)
