"""Intel VT-x: VMCS fields, controls and capabilities, the VM-entry checks, and VMX operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from popek.kernel.assistance import Assistance
    from popek.kernel.machine import Machine


def _today() -> Machine[Any]:
    from .operation.technique import hardware

    return hardware("vt-x")


def _first() -> Machine[Any]:
    from .operation.technique import hardware

    return hardware("vt-x-2005")


def _today_64() -> Machine[Any]:
    from .operation.technique import hardware_64

    return hardware_64("vt-x")


def _first_64() -> Machine[Any]:
    from .operation.technique import hardware_64

    return hardware_64("vt-x-2005")


def _assistance() -> Assistance[Any]:
    from .operation.assistance import VT_X

    return VT_X


def _assistance_64() -> Assistance[Any]:
    from .operation.assistance import VT_X_64

    return VT_X_64


MACHINES = {"ia32-vt-x": _today, "x86-64-vt-x": _today_64}
# Machines of the same instructions with other settings, which lists leave out.
VARIANTS = {"ia32-vt-x-2005": _first, "x86-64-vt-x-2005": _first_64}
# The machine whose hardware runs the guests of a machine under a technique.
ASSISTED = {
    (machine, technique): f"{machine}-{technique}"
    for machine in ("ia32", "x86-64")
    for technique in ("vt-x", "vt-x-2005")
}
ASSISTANCES = {"vt-x": _assistance, "vt-x-64": _assistance_64}
