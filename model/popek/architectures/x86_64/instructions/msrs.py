"""RDMSR and WRMSR (SDM vol. 2B; vol. 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.architectures.x86.access import privileged
from popek.architectures.x86.exceptions import GP
from popek.architectures.x86.msrs import IA32_TIME_STAMP_COUNTER, are_memory_types
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import TRUE, Word, any_of, ite

from ..addresses import is_canonical
from ..state import (
    EFER_DEFINED,
    MISC_ENABLE_DEFINED,
    PHYSICAL_BITS,
    RCX,
    X64,
)
from .system import edx_eax, to_edx_eax

_WIDE: Final = 0xFFFFFFFF_FFFFFFFF


@attrs.frozen
class X64Msr:
    """One model-specific register.

    Attributes:
        component: where the state has it.
        accepts: whether WRMSR takes a value (64 bits, given the state); width 1.
    """

    component: str
    accepts: Callable[[X64, Word], Word]


def _any(cpu: X64, value: Word) -> Word:
    return TRUE


def _canonical(cpu: X64, value: Word) -> Word:
    return is_canonical(value)


def _of_32_bits(cpu: X64, value: Word) -> Word:
    return value[63:32] == 0


def _efer(cpu: X64, value: Word) -> Word:
    """No reserved bit; LME cannot change while paging is on; LMA is not looked at."""
    return ((value & (EFER_DEFINED ^ _WIDE)) == 0) & (value[8] == 1)


def _memory_types(cpu: X64, value: Word) -> Word:
    return are_memory_types(value)


def _apic_base(cpu: X64, value: Word) -> Word:
    """No reserved bit; x2APIC mode needs the APIC on, and is left only by turning it off."""
    reserved = (value[63:PHYSICAL_BITS] != 0) | (value[9] == 1) | (value[7:0] != 0)
    was, on, extended = cpu.msr.apic_base, value[11], value[10]
    illegal = (extended & ~on) | (was.extd & on & ~extended) | (~was.enable & on & extended)
    return ~(reserved | illegal)


def _misc_enable(cpu: X64, value: Word) -> Word:
    return (value & (MISC_ENABLE_DEFINED ^ _WIDE)) == 0


MSRS: Final[Mapping[int, X64Msr]] = {
    IA32_TIME_STAMP_COUNTER: X64Msr("tsc", _any),
    0x1B: X64Msr("msr.apic_base", _apic_base),
    0x174: X64Msr("msr.sysenter_cs", _any),
    0x175: X64Msr("msr.sysenter_esp", _canonical),
    0x176: X64Msr("msr.sysenter_eip", _canonical),
    0x1A0: X64Msr("msr.misc_enable", _misc_enable),
    0x277: X64Msr("msr.pat", _memory_types),
    0xC0000080: X64Msr("efer", _efer),
    0xC0000081: X64Msr("msr.star", _any),
    0xC0000082: X64Msr("msr.lstar", _canonical),
    0xC0000083: X64Msr("msr.cstar", _canonical),
    0xC0000084: X64Msr("msr.fmask", _of_32_bits),
    0xC0000100: X64Msr("fs.base", _canonical),
    0xC0000101: X64Msr("gs.base", _canonical),
    0xC0000102: X64Msr("msr.kernel_gs_base", _canonical),
    0xC0000103: X64Msr("msr.tsc_aux", _of_32_bits),
}
"""The MSRs that the model knows, by number; every other one gives #GP(0)."""


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("RDMSR", source="SDM vol. 2B, RDMSR")
    def rdmsr(cpu: X64) -> None:
        """EDX:EAX := the MSR that ECX names; #GP(0) for one that does not exist."""
        privileged(cpu)
        cpu.interception.msr(cpu, write=False)
        number = cpu.read_register(RCX, 32)
        if not cpu.interception.has_msr(cpu, number, number.isin(MSRS)):
            raise Fault(GP, 0)
        value = cpu.other_msr(number)
        for known, msr in MSRS.items():
            held = (
                cpu.interception.time_stamp(cpu) if known == IA32_TIME_STAMP_COUNTER else cpu[msr.component]
            )
            value = ite(number == known, held.zero_extend(64), value)
        to_edx_eax(cpu, value)

    @machine.instruction("WRMSR", source="SDM vol. 2B, WRMSR")
    def wrmsr(cpu: X64) -> None:
        """The MSR that ECX names := EDX:EAX; #GP(0) for one that does not exist or a value it refuses."""
        privileged(cpu)
        cpu.interception.msr(cpu, write=True)
        number, value = cpu.read_register(RCX, 32), edx_eax(cpu)
        accepted = any_of((number == known) & msr.accepts(cpu, value) for known, msr in MSRS.items())
        if not cpu.interception.takes_msr(cpu, number, value, number.isin(MSRS), accepted):
            raise Fault(GP, 0)
        cpu.set_other_msr(number, value)
        for known, msr in MSRS.items():
            old = cpu[msr.component]
            new = value.truncate(old.width)
            if msr.component == "efer":
                new = new.replace(10, 10, cpu.efer.lma)
            cpu[msr.component] = ite(number == known, new, old)
