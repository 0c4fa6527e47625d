"""Intel VT-x: VMCS fields, controls and capabilities, the VM-entry checks, and VMX operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from popek.kernel.assistance import Assistance
    from popek.kernel.machine import Machine

    from .operation.state import VmxIa32


def _today() -> Machine[VmxIa32]:
    from .operation.technique import hardware

    return hardware("vt-x")


def _first() -> Machine[VmxIa32]:
    from .operation.technique import hardware

    return hardware("vt-x-2005")


def _assistance() -> Assistance[VmxIa32]:
    from .operation.assistance import VT_X

    return VT_X


MACHINES = {"ia32-vt-x": _today}
# Machines of the same instructions with other settings, which lists leave out.
VARIANTS = {"ia32-vt-x-2005": _first}
# The machine whose hardware runs the guests of a machine under a technique.
ASSISTED = {("ia32", "vt-x"): "ia32-vt-x", ("ia32", "vt-x-2005"): "ia32-vt-x-2005"}
ASSISTANCES = {"vt-x": _assistance}
