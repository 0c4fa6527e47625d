"""IA-32 and x86-64 with VMX: their machines, each instruction under the eyes of non-root operation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import attrs

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ...ia32 import machine as ia32
from ...x86_64 import machine as x86_64
from . import virtual_apic
from .exits import exit_of_exception
from .non_root import NonRoot, supports
from .state import Vmx, VmxIa32, VmxX64, begin

VmxIa32.interception = NonRoot()
VmxX64.interception = NonRoot()

V = TypeVar("V", bound=Vmx)


def _monitored(semantics: Callable[..., None]) -> Callable[..., None]:
    """The semantics with exceptions that exit where the exception bitmap says so."""

    @functools.wraps(semantics)
    def run(cpu: Vmx, *operands: Any, **settings: Any) -> None:
        try:
            semantics(cpu, *operands, **settings)
        except Fault as fault:
            exit_of_exception(cpu, fault)
            raise

    return run


def _with_virtual_apic(semantics: Callable[..., None], *, write: bool) -> Callable[..., None]:
    """RDMSR or WRMSR with the virtual-APIC page."""

    @functools.wraps(semantics)
    def run(cpu: Vmx) -> None:
        if virtual_apic.virtualizes(cpu, write=write):
            virtual_apic.access(cpu, write=write)
        else:
            semantics(cpu)

    return run


def build(*, exceptions: bool = True) -> Machine[VmxIa32]:
    """IA-32 with VMX, in root or non-root operation.

    Args:
        exceptions: False where every exception bitmap is 0, which halves the number of paths.
    """
    return _with_vmx(
        cast("Machine[VmxIa32]", ia32.build()),
        VmxIa32,
        "ia32-vmx",
        "IA-32 with VMX: root and non-root operation",
        exceptions,
    )


def build_64(*, exceptions: bool = True) -> Machine[VmxX64]:
    """x86-64 with VMX, in root or non-root operation; `exceptions` as for `build`."""
    return _with_vmx(
        cast("Machine[VmxX64]", x86_64.build()),
        VmxX64,
        "x86-64-vmx",
        "x86-64 with VMX: root and non-root operation",
        exceptions,
    )


def _with_vmx(plain: Machine[V], state: type[V], name: str, title: str, exceptions: bool) -> Machine[V]:
    instructions = dict(plain.instructions)
    for form in ("RDMSR", "WRMSR"):
        virtual = _with_virtual_apic(instructions[form].semantics, write=form == "WRMSR")
        instructions[form] = attrs.evolve(instructions[form], semantics=virtual)
    if exceptions:
        instructions = {
            form: attrs.evolve(instruction, semantics=_monitored(instruction.semantics))
            for form, instruction in instructions.items()
        }

    def advance(cpu: V, operands: Mapping[str, Word]) -> None:
        begin(cpu, operands["operand length"])
        plain.advance(cpu, operands)

    return attrs.evolve(
        plain,
        name=name,
        title=title,
        state=state,
        supervisor=lambda state: (state.non_root == 0) & (state.cpl == 0),
        user=lambda state: (state.non_root == 1) & (state.cpl == 3),
        # In non-root operation CR0 and CR4 have the bits that it fixes.
        invariant=lambda state: plain.invariant(state) & ((state.non_root == 0) | supports(state)),
        advance=advance,
        techniques={},
        notes=(
            *(note for note in plain.notes if "VMX is locked off" not in note),
            "VMX root operation and operation outside VMX are one: `non_root` is 0",
            "the APIC-access page",
            "EPT but for what it changes for instructions; the PAUSE loop's timing",
        ),
        instructions=instructions,
    )
