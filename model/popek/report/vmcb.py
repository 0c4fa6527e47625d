"""How the terminal talks about VMCBs: names of their checks and bits."""

from __future__ import annotations

from typing import Final

from popek.architectures.svm.checks import CHECKS
from popek.architectures.svm.vmcb import intercepts
from popek.architectures.vtx import controls
from popek.architectures.vtx.controls import Bit

from .vmcs_repair import Words, names_of

_GUEST_REGISTERS: Final = {
    "CR0": "GUEST_CR0",
    "CR4": "GUEST_CR4",
    "EFER": "GUEST_IA32_EFER",
    "RFLAGS": "GUEST_RFLAGS",
    "G_PAT": "GUEST_IA32_PAT",
    "S_CET": "GUEST_IA32_S_CET",
}
"""Registers that have the same bits in a VMCB and in a VMCS."""


def decode(field_id: str, value: int) -> list[Bit]:
    """The named bits of a field; none if it is a plain number."""
    if field_id in _GUEST_REGISTERS:
        return controls.decode(_GUEST_REGISTERS[field_id], value)
    return [
        Bit(bit, bit, name, value >> bit & 1, f"intercept {name}")
        for (owner, bit), name in sorted(intercepts().items())
        if owner == field_id
    ]


def _names(field_id: str, differing: int) -> list[str]:
    if field_id in _GUEST_REGISTERS:
        return names_of(_GUEST_REGISTERS[field_id], differing)
    return [f"{bit.name}[{bit.low}]" for bit in decode(field_id, differing) if bit.value]


def _statement(check_id: str) -> str:
    return CHECKS[check_id].statement if check_id in CHECKS else ""


WORDS: Final = Words(_statement, _names, "VMRUN enters the guest.")
"""For `print_repair`."""


__all__ = ["WORDS", "decode"]
