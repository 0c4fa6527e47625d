"""Instructions, one module per extension or chapter of the manual."""

from __future__ import annotations

from popek.kernel.machine import Machine

from ..state import Rv64
from . import atomic, floating, hypervisor, integer, multiply, privileged, zicsr


def declare_all(machine: Machine[Rv64]) -> None:
    """Declare them."""
    for family in (integer, multiply, atomic, floating, zicsr, privileged, hypervisor):
        family.add(machine)
