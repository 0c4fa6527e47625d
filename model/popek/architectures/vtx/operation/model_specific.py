"""RDMSR and WRMSR of the model-specific registers of a processor with VMX (SDM vol. 4).

The processor has the registers of its model and those that every processor with VMX has. Of the others, what no
processor does is known. What one does is an undefined result of the model, and a register that it has but the model
does not is storage.
"""

from __future__ import annotations

from typing import Final

from popek.kernel.outcome import NotModelledError
from popek.kernel.words import Word, ite

from .. import msr_table, msr_writes
from .state import Vmx

_ALWAYS_THERE: Final = frozenset({"always", "1.0.edx[12]", "1.0.edx[14]"})
EXISTING: Final = tuple(
    sorted(number for number, msr in msr_table.msrs().items() if msr.exists in _ALWAYS_THERE)
)
"""Registers of every processor with VMX."""

MCG_STATUS: Final = 0x17A
X2APIC: Final = 0x8  # bits 31:8 of the number


def _of_the_x2apic(cpu: Vmx, number: Word) -> Word:
    """Whether a number is one of the x2APIC's, which is not in x2APIC mode: then there is no such register."""
    return (number[31:8] == X2APIC) & ~cpu.in_x2apic_mode


def found(cpu: Vmx, number: Word, stored: Word) -> Word:
    """Whether RDMSR at CPL 0 finds a register (width 1); what is up to the processor is an undefined result.

    Args:
        stored: whether it is one of the model's (width 1).

    Raises:
        NotModelledError: that is up to the processor, and nobody chose.
    """
    there = stored | number.isin(EXISTING)
    absent = _of_the_x2apic(cpu, number) | number.isin(msr_table.WRITE_ONLY)
    return there | (
        ~absent & _up_to_the_processor(cpu, number, there | absent, "whether the processor has it")
    )


def taken(cpu: Vmx, number: Word, value: Word, stored: Word, accepted: Word) -> Word:
    """Whether WRMSR at CPL 0 takes a value (64 bits; width 1); what is up to the processor is an undefined result.

    Args:
        stored: whether the register is one of the model's (width 1).
        accepted: whether that one takes the value (width 1).

    Raises:
        NotModelledError: that is up to the processor, and nobody chose.
    """
    idle = (number == MCG_STATUS) & (value == 0)
    refused = ~stored & (_of_the_x2apic(cpu, number) | msr_writes.never(number, value))
    open_ = _up_to_the_processor(cpu, number, stored | idle | refused, "what WRMSR does")
    return ite(stored, accepted, idle | (~refused & open_))


def _up_to_the_processor(cpu: Vmx, number: Word, known: Word, what: str) -> Word:
    """The processor's answer where nothing is known of it, the same in two runs that are compared."""
    if known.concrete and known.value:
        return Word(1, 0)
    if cpu.leaves_undefined:
        raise NotModelledError(f"{_named(number)}: {what}")
    return cpu.undefined(f"of an MSR, {what}", 1)


def _named(number: Word) -> str:
    return msr_table.title(int(number)) if number.concrete else "other MSRs"
