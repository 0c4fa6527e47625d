"""IA-32 and x86-64 with VMX: their machines, each instruction under the eyes of non-root operation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, TypeVar, cast

import attrs

from popek.kernel.machine import Machine
from popek.kernel.words import TRUE, Word

from ...ia32 import machine as ia32
from ...x86.assisted.machine import Eyes
from ...x86_64 import machine as x86_64
from .. import msr_table
from . import virtual_apic
from .exits import exit_of_exception
from .extended_paging import EptX64
from .non_root import NonRoot, supports
from .state import IA32_XSS, Vmx, VmxIa32, VmxX64, begin

VmxIa32.interception = NonRoot()
VmxX64.interception = NonRoot()

V = TypeVar("V", bound=Vmx)


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


def build_ept() -> Machine[EptX64]:
    """x86-64 with VMX and storage that EPT keeps from the guest."""
    return _with_vmx(
        cast("Machine[EptX64]", x86_64.build()),
        EptX64,
        "x86-64-vmx-ept",
        "x86-64 with VMX and EPT's protection: root and non-root operation",
        True,
    )


EYES: Final = Eyes(
    mode="non_root",
    begin=begin,
    exit_of_exception=exit_of_exception,
    lacked="VMX is locked off",
    notes=(
        "VMX root operation and operation outside VMX are one: `non_root` is 0",
        "the APIC-access page",
        "EPT but for what it changes for instructions; the PAUSE loop's timing",
    ),
    # In non-root operation CR0 and CR4 have the bits that it fixes.
    invariant=lambda state: ((state.non_root == 0) | supports(state)) & _has_no_reserved_bit(state),
)


def _has_no_reserved_bit(state: Vmx) -> Word:
    """IA32_XSS, where it is a component, has only bits that WRMSR takes (width 1)."""
    return state.xss & msr_table.msrs()[IA32_XSS].reserved == 0 if isinstance(state, VmxX64) else TRUE


def _with_vmx(plain: Machine[V], state: type[V], name: str, title: str, exceptions: bool) -> Machine[V]:
    own = {}
    for form in ("RDMSR", "WRMSR"):
        virtual = _with_virtual_apic(plain.instructions[form].semantics, write=form == "WRMSR")
        own[form] = attrs.evolve(plain.instructions[form], semantics=virtual)
    return EYES.machine(plain, state, name, title, own=own, exceptions=exceptions)
