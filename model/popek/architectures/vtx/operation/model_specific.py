"""RDMSR and WRMSR of the model-specific registers of a processor with VMX (SDM vol. 4).

The processor has the registers of `popek.architectures.ia32.msrs` and those that every processor with VMX has. Of the
others, what no processor does is known. What one does is an undefined result of the model, and a register that it has
but the model does not is storage.
"""

from __future__ import annotations

from typing import Final

from popek.architectures.x86.msrs import IA32_APIC_BASE
from popek.kernel.outcome import NotModelledError
from popek.kernel.words import Word, ite

from ...ia32 import msrs
from ...ia32.state import Ia32
from .. import msr_table, msr_writes

_ALWAYS_THERE: Final = frozenset({"always", "1.0.edx[12]", "1.0.edx[14]"})
EXISTING: Final = tuple(
    sorted(
        {number for number, msr in msr_table.msrs().items() if msr.exists in _ALWAYS_THERE}
        | {msr.number for msr in msrs.STORED}
    )
)
"""Registers of every processor with VMX, and those of this model's."""

MCG_STATUS: Final = 0x17A
X2APIC: Final = 0x8  # bits 31:8 of the number


def _of_the_x2apic(cpu: Ia32, number: Word) -> Word:
    """Whether a number is one of the x2APIC's, which is not in x2APIC mode: then there is no such register."""
    return (number[31:8] == X2APIC) & ~cpu.msr.load(Word(32, IA32_APIC_BASE))[10]


def found(cpu: Ia32, number: Word) -> Word:
    """Whether RDMSR at CPL 0 finds a register (width 1); what is up to the processor is an undefined result.

    Raises:
        NotModelledError: that is up to the processor, and nobody chose.
    """
    there = number.isin(EXISTING)
    absent = _of_the_x2apic(cpu, number) | number.isin(msr_table.WRITE_ONLY)
    return there | (
        ~absent & _up_to_the_processor(cpu, number, there | absent, "whether the processor has it")
    )


def taken(cpu: Ia32, number: Word, value: Word) -> Word:
    """Whether WRMSR at CPL 0 takes a value (64 bits; width 1); what is up to the processor is an undefined result.

    Raises:
        NotModelledError: that is up to the processor, and nobody chose.
    """
    stored = msrs.exists(number)
    accepted = msrs.accepted(number, value, cpu.msr.load(number))
    idle = (number == MCG_STATUS) & (value == 0)
    refused = ~stored & (_of_the_x2apic(cpu, number) | msr_writes.never(number, value))
    open_ = _up_to_the_processor(cpu, number, stored | idle | refused, "what WRMSR does")
    return ite(stored, accepted, idle | (~refused & open_))


def _up_to_the_processor(cpu: Ia32, number: Word, known: Word, what: str) -> Word:
    """The processor's answer where nothing is known of it, the same in two runs that are compared."""
    if known.concrete and known.value:
        return Word(1, 0)
    if cpu.leaves_undefined:
        raise NotModelledError(f"{_named(number)}: {what}")
    return cpu.undefined(f"of an MSR, {what}", 1)


def _named(number: Word) -> str:
    return msr_table.title(int(number)) if number.concrete else "other MSRs"
