"""AMD's SVM: the VMCB and what VMRUN checks of it, and SVM operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from popek.kernel.assistance import Assistance
    from popek.kernel.machine import Machine

    from .operation.state import SvmIa32


def _today() -> Machine[SvmIa32]:
    from .operation.technique import hardware

    return hardware()


def _assistance() -> Assistance[SvmIa32]:
    from .operation.assistance import SVM

    return SVM


# A machine of the same instructions, which lists leave out.
VARIANTS = {"ia32-svm": _today}
# The machine whose hardware runs the guests of a machine under a technique.
ASSISTED = {("ia32", "svm"): "ia32-svm"}
ASSISTANCES = {"svm": _assistance}
