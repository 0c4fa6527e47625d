"""IA-32 and x86-64 with SVM: the machines of `ia32` and `x86_64`, each instruction under the eyes of guest mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import attrs

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ...ia32 import machine as ia32
from ...x86_64 import machine as x86_64
from .exits import exit_of_exception
from .guest_mode import GuestMode
from .instructions import INSTRUCTIONS, reads_svme, writes_svme
from .state import Svm, SvmIa32, SvmX64, begin

SvmIa32.interception = SvmX64.interception = GuestMode()

SOURCE = "AMD64 APM vol. 2, chapter 15; vol. 3"


WITH_EXCEPTIONS: Final = (*INSTRUCTIONS, "MOV to DR", "MOV from DR")
"""Mnemonics whose exceptions tell the guest of the VMM unless the VMM gets them."""


def _monitored(semantics: Callable[..., None]) -> Callable[..., None]:
    """The semantics with exceptions that leave the guest where the VMCB intercepts them."""

    @functools.wraps(semantics)
    def run(cpu: Svm, *operands: Any, **settings: Any) -> None:
        try:
            semantics(cpu, *operands, **settings)
        except Fault as fault:
            exit_of_exception(cpu, fault)
            raise

    return run


S = TypeVar("S", bound=Svm)


def build(*, exceptions: bool = True) -> Machine[SvmIa32]:
    """IA-32 with SVM, in the host or in a guest.

    Args:
        exceptions: False where no exception is intercepted but those of `WITH_EXCEPTIONS`: half as many paths.
    """
    plain = cast("Machine[SvmIa32]", ia32.build())
    title = "IA-32 with SVM: host and guest mode"
    return _with_svm(plain, SvmIa32, "ia32-amd-v", title, exceptions)


def build_64(*, exceptions: bool = True) -> Machine[SvmX64]:
    """x86-64 with SVM, in the host or in a guest; `exceptions` as for `build`."""
    plain = cast("Machine[SvmX64]", x86_64.build())
    instructions = dict(plain.instructions)
    for form, own in (("RDMSR", reads_svme), ("WRMSR", writes_svme)):
        instructions[form] = attrs.evolve(instructions[form], semantics=own(instructions[form].semantics))
    plain = attrs.evolve(plain, instructions=instructions)
    title = "x86-64 with SVM: host and guest mode"
    return _with_svm(plain, SvmX64, "x86-64-amd-v", title, exceptions)


def _with_svm(plain: Machine[S], state: type[S], name: str, title: str, exceptions: bool) -> Machine[S]:
    instructions = dict(plain.instructions)
    for form, semantics in INSTRUCTIONS.items():
        instructions[form] = attrs.evolve(instructions[form], semantics=semantics, settings={}, source=SOURCE)
    for form in instructions:
        if not exceptions and instructions[form].mnemonic not in WITH_EXCEPTIONS:
            continue
        monitored = _monitored(instructions[form].semantics)
        instructions[form] = attrs.evolve(instructions[form], semantics=monitored)

    def advance(cpu: S, operands: Mapping[str, Word]) -> None:
        begin(cpu, operands["operand length"])
        plain.advance(cpu, operands)

    return attrs.evolve(
        plain,
        name=name,
        title=title,
        state=state,
        supervisor=lambda state: (state.guest_mode == 0) & (state.cpl == 0),
        user=lambda state: (state.guest_mode == 1) & (state.cpl == 3),
        advance=advance,
        techniques={},
        notes=(
            *(note for note in plain.notes if "there is no SVM" not in note),
            "events that VMRUN delivers; of SKINIT what it does beyond the processor; VMRUN and SKINIT of x86-64",
            "paged real mode; blocking by NMI; MOV CR8 with a LOCK prefix",
            "nested paging but for what it changes for instructions; the PAUSE filter",
        ),
        instructions=instructions,
    )
