"""IA-32 instructions, one module per family, each with `declare(machine)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    control_registers,
    descriptor_tables,
    far_transfers,
    flags,
    general,
    interrupts,
    port_io,
    protection,
    segment_registers,
    system,
)

if TYPE_CHECKING:
    from popek.kernel.machine import Machine

    from ..state import Ia32

FAMILIES = (
    descriptor_tables,
    control_registers,
    flags,
    protection,
    segment_registers,
    far_transfers,
    interrupts,
    port_io,
    system,
    general,
)


def declare_all(machine: Machine[Ia32]) -> None:
    """Declare every family, in the order of this list."""
    for family in FAMILIES:
        family.declare(machine)
