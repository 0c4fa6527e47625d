"""IA-32 and x86-64 with SVM: the machines of `ia32` and `x86_64`, each instruction under the eyes of guest mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar, cast

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine

from ...ia32 import machine as ia32
from ...x86.assisted.machine import Eyes
from ...x86_64 import machine as x86_64
from .exits import exit_of_exception
from .guest_mode import GuestMode
from .instructions import INSTRUCTIONS, reads_svme, writes_svme
from .state import Svm, SvmIa32, SvmX64, begin

SvmIa32.interception = SvmX64.interception = GuestMode()

S = TypeVar("S", bound=Svm)

SOURCE: Final = "AMD64 APM vol. 2, chapter 15; vol. 3"


WITH_EXCEPTIONS: Final = (*INSTRUCTIONS, "MOV to DR", "MOV from DR")
"""Mnemonics whose exceptions tell the guest of the VMM unless the VMM gets them."""


EYES: Final = Eyes(
    mode="guest_mode",
    begin=begin,
    exit_of_exception=exit_of_exception,
    lacked="there is no SVM",
    notes=(
        "events that VMRUN delivers; of SKINIT what it does beyond the processor; VMRUN and SKINIT of x86-64",
        "paged real mode; blocking by NMI; MOV CR8 with a LOCK prefix",
        "nested paging but for what it changes for instructions; the PAUSE filter",
    ),
    watched=lambda instruction: instruction.mnemonic in WITH_EXCEPTIONS,
)


def build(*, exceptions: bool = True) -> Machine[SvmIa32]:
    """IA-32 with SVM, in the host or in a guest.

    Args:
        exceptions: False where no exception is intercepted but those of `WITH_EXCEPTIONS`: half as many paths.
    """
    plain = cast("Machine[SvmIa32]", ia32.build())
    return _with_svm(plain, SvmIa32, "ia32-amd-v", "IA-32 with SVM: host and guest mode", {}, exceptions)


def build_64(*, exceptions: bool = True) -> Machine[SvmX64]:
    """x86-64 with SVM, in the host or in a guest; `exceptions` as for `build`."""
    plain = cast("Machine[SvmX64]", x86_64.build())
    own = {
        form: attrs.evolve(plain.instructions[form], semantics=with_svme(plain.instructions[form].semantics))
        for form, with_svme in (("RDMSR", reads_svme), ("WRMSR", writes_svme))
    }
    return _with_svm(plain, SvmX64, "x86-64-amd-v", "x86-64 with SVM: host and guest mode", own, exceptions)


def _with_svm(
    plain: Machine[S], state: type[S], name: str, title: str, own: Mapping[str, Instruction], exceptions: bool
) -> Machine[S]:
    of_svm = {
        form: attrs.evolve(plain.instructions[form], semantics=semantics, settings={}, source=SOURCE)
        for form, semantics in INSTRUCTIONS.items()
    }
    return EYES.machine(plain, state, name, title, own={**of_svm, **own}, exceptions=exceptions)
