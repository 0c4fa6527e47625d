"""IA-32 instructions, one module per family, each with `declare(machine)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import attrs

from popek.kernel.outcome import Fault

from . import (
    arithmetic,
    control_registers,
    descriptor_tables,
    extended_state,
    far_transfers,
    fast_system_calls,
    flags,
    general,
    identification,
    interrupts,
    port_io,
    protection,
    segment_registers,
    stack_frames,
    strings,
    svm,
    system,
    undefined,
    vmx,
    waiting,
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
    fast_system_calls,
    system,
    identification,
    extended_state,
    waiting,
    vmx,
    svm,
    undefined,
    general,
    stack_frames,
    strings,
    arithmetic,
)


def declare_all(machine: Machine[Ia32]) -> None:
    """Declare every family, in the order of this list."""
    for family in FAMILIES:
        family.declare(machine)
    for form, instruction in machine.instructions.items():
        semantics = _without_error_codes_in_real_mode(instruction.semantics)
        machine.instructions[form] = attrs.evolve(instruction, semantics=semantics)


def _without_error_codes_in_real_mode(semantics: Callable[..., None]) -> Callable[..., None]:
    """In real-address mode no fault has an error code (SDM vol. 3B, "Real-Address Mode Exceptions")."""

    @wraps(semantics)
    def run(cpu: Ia32, *operands: Any, **settings: Any) -> None:
        try:
            semantics(cpu, *operands, **settings)
        except Fault as fault:
            # What is no exception, such as a VM exit, has its number in every mode.
            if fault.error_code is None or fault.vector.number > 0xFF or not cpu.real:
                raise
            raise Fault(fault.vector, memory=fault.memory, keeps=fault.keeps) from None

    return run
