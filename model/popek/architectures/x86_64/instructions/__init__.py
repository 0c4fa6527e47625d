"""x86-64 instructions, one module per family, each with `declare(machine)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    control_registers,
    descriptor_tables,
    extended_state,
    far_transfers,
    flags,
    general,
    interrupts,
    invalid,
    msrs,
    port_io,
    protection,
    segment_registers,
    system,
    system_calls,
    virtualization,
)

if TYPE_CHECKING:
    from popek.kernel.machine import Machine

    from ..state import X64

FAMILIES = (
    descriptor_tables,
    control_registers,
    flags,
    protection,
    segment_registers,
    far_transfers,
    interrupts,
    system_calls,
    port_io,
    msrs,
    system,
    extended_state,
    virtualization,
    invalid,
    general,
)


def declare_all(machine: Machine[X64]) -> None:
    """Declare every family, in the order of this list."""
    for family in FAMILIES:
        family.declare(machine)
