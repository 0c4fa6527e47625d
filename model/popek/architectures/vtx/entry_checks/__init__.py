"""The VM-entry checks, one predicate for each row of the ledger, in the manual's groups."""

from __future__ import annotations

from types import MappingProxyType

from . import (  # noqa: F401 -- each module registers its checks, in the manual's order
    basic,
    controls,
    event_injection,
    guest_control_registers,
    guest_descriptor_tables,
    guest_non_register,
    guest_rip_rflags,
    guest_segments,
    host_state,
    msr_areas,
    pdptes,
)
from .registry import Check, CheckGroup, Condition, Outcome, OutcomeKind, ledger, registered

_checks, _not_checked, _not_modelled = registered()

CHECKS = MappingProxyType(dict(sorted(_checks.items(), key=lambda item: list(ledger()).index(item[0]))))
"""The checks by id, in the order of the ledger."""

NOT_CHECKED = MappingProxyType(_not_checked)
"""Rows that say that nothing is checked or the entry succeeds: id -> in other words."""

NOT_MODELLED = MappingProxyType(_not_modelled)
"""Rows without a predicate: id -> why."""

__all__ = [
    "CHECKS",
    "NOT_CHECKED",
    "NOT_MODELLED",
    "Check",
    "CheckGroup",
    "Condition",
    "Outcome",
    "OutcomeKind",
    "ledger",
]
