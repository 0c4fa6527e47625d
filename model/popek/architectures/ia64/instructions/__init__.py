"""Itanium instructions, one module per family, each with `declare(machine)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    application_registers,
    control_registers,
    floating,
    general,
    indirect,
    integers,
    privilege,
    psr,
    rse,
    storage,
    translation,
)

if TYPE_CHECKING:
    from popek.kernel.machine import Machine

    from ..state import Ia64

FAMILIES = (
    psr,
    control_registers,
    application_registers,
    indirect,
    translation,
    rse,
    privilege,
    general,
    integers,
    storage,
    floating,
)


def declare_all(machine: Machine[Ia64]) -> None:
    """Declare every family, in the order of this list."""
    for family in FAMILIES:
        family.declare(machine)
