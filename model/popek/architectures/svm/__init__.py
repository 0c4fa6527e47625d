"""AMD's SVM: the VMCB and what VMRUN checks of it, and SVM operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from popek.kernel.assistance import Assistance
    from popek.kernel.machine import Machine


def _today() -> Machine[Any]:
    from .operation.technique import hardware

    return hardware()


def _today_64() -> Machine[Any]:
    from .operation.technique import hardware_64

    return hardware_64()


def _assistance() -> Assistance[Any]:
    from .operation.assistance import SVM

    return SVM


def _assistance_64() -> Assistance[Any]:
    from .operation.assistance import SVM_64

    return SVM_64


# Machines of the same instructions, which lists leave out.
VARIANTS = {"ia32-svm": _today, "x86-64-svm": _today_64}
# The machine whose hardware runs the guests of a machine under a technique.
ASSISTED = {("ia32", "svm"): "ia32-svm", ("x86-64", "svm"): "x86-64-svm"}
ASSISTANCES = {"svm": _assistance, "svm-64": _assistance_64}
