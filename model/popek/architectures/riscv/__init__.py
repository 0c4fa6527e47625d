"""RISC-V: an RV64 hart with machine, supervisor and user mode and the hypervisor extension."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .machine import build
from .paged import build as build_paged

if TYPE_CHECKING:
    from popek.kernel.assistance import Assistance

    from .state import Rv64


def _assistance() -> Assistance[Rv64]:
    from .hypervisor.assistance import H

    return H


MACHINES = {"rv64": build}
VARIANTS = {"rv64-paged": build_paged}
ASSISTANCES = {"hypervisor-extension": _assistance}
