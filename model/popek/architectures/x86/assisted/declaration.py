"""What every declaration of an x86 assistance says: the guest's operating modes, and what an exit reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from popek.kernel.assistance import Mode
from popek.kernel.outcome import Trap


def protected_modes(settings: Mapping[str, int], refused: Callable[[Any], str]) -> Mapping[str, Mode[Any]]:
    """The operating modes of a 32-bit guest.

    Args:
        settings: controls without which no guest is in real-address mode.
        refused: why a VMM that owns so much has no guest in real-address mode; empty where it has.
    """
    modes = (
        Mode[Any]("protected", settings={"MODE": 0}),
        Mode[Any]("virtual-8086", "virtual-8086", {"MODE": 1}),
        Mode[Any]("real", "real-address", {"MODE": 2}, settings, refused),
    )
    return {mode.name: mode for mode in modes}


LONG_MODES: Final[Mapping[str, Mode[Any]]] = {
    "64-bit": Mode("64-bit", settings={"MODE": 1}),
    "compatibility": Mode("compatibility", "compatibility", {"MODE": 0}),
}
"""The operating modes of a guest in IA-32e mode."""


def reported(name_of: Callable[[int], str]) -> Callable[[Trap[Any]], tuple[int, str]]:
    """What an exit reports: its number, and what the manual calls it."""

    def report(trap: Trap[Any]) -> tuple[int, str]:
        number = int(trap.error_code) if trap.error_code is not None else 0
        return number, name_of(number)

    return report
