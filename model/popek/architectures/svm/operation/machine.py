"""IA-32 with SVM: the machine of `ia32`, each instruction under the eyes of guest mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import attrs

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ...ia32 import machine as ia32
from .exits import exit_of_exception
from .guest_mode import GuestMode
from .instructions import INSTRUCTIONS
from .state import SvmIa32, begin

SvmIa32.interception = GuestMode()

SOURCE = "AMD64 APM vol. 2, chapter 15; vol. 3"


WITH_EXCEPTIONS: Final = (*INSTRUCTIONS, "MOV to DR", "MOV from DR")
"""Mnemonics whose exceptions tell the guest of the VMM unless the VMM gets them."""


def _monitored(semantics: Callable[..., None]) -> Callable[..., None]:
    """The semantics with exceptions that leave the guest where the VMCB intercepts them."""

    @functools.wraps(semantics)
    def run(cpu: SvmIa32, *operands: Any, **settings: Any) -> None:
        try:
            semantics(cpu, *operands, **settings)
        except Fault as fault:
            exit_of_exception(cpu, fault)
            raise

    return run


def build(*, exceptions: bool = True) -> Machine[SvmIa32]:
    """IA-32 with SVM, in the host or in a guest.

    Args:
        exceptions: False where no exception is intercepted but those of `WITH_EXCEPTIONS`: half as many paths.
    """
    plain = ia32.build()
    instructions = dict(plain.instructions)
    for form, semantics in INSTRUCTIONS.items():
        instructions[form] = attrs.evolve(instructions[form], semantics=semantics, source=SOURCE)
    for form in instructions:
        if not exceptions and instructions[form].mnemonic not in WITH_EXCEPTIONS:
            continue
        semantics = _monitored(instructions[form].semantics)
        instructions[form] = attrs.evolve(instructions[form], semantics=semantics)

    def advance(cpu: SvmIa32, operands: Mapping[str, Word]) -> None:
        begin(cpu, operands["operand length"])
        plain.advance(cpu, operands)

    return attrs.evolve(
        cast("Machine[SvmIa32]", plain),
        name="ia32-amd-v",
        title="IA-32 with SVM: host and guest mode",
        state=SvmIa32,
        supervisor=lambda state: (state.guest_mode == 0) & (state.cpl == 0),
        user=lambda state: (state.guest_mode == 1) & (state.cpl == 3),
        advance=advance,
        techniques={},
        notes=(
            *plain.notes,
            "events that VMRUN delivers; of SKINIT what it does beyond the processor",
            "paged real mode; blocking by NMI; MOV CR8 with a LOCK prefix",
            "nested paging but for what it changes for instructions; the PAUSE filter",
        ),
        instructions=instructions,
    )
