"""Itanium (IA-64) and VT-i."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .machine import build

if TYPE_CHECKING:
    from popek.kernel.assistance import Assistance

    from .state import Ia64


def _assistance() -> Assistance[Ia64]:
    from .vti.assistance import VT_I

    return VT_I


MACHINES = {"ia64": build}
ASSISTANCES = {"vt-i": _assistance}
