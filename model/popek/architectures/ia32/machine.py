"""The IA-32 machine: state, instructions, settings and ways to virtualize it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.architectures.listing import listing
from popek.architectures.x86.left_open import COMMON
from popek.architectures.x86.operands import LENGTH
from popek.architectures.x86.practice import practice
from popek.architectures.x86.registers import SEGMENT_NAMES
from popek.architectures.x86.settings import PORTS, of_levels
from popek.kernel.machine import Machine, Setting, leaf_setting
from popek.kernel.memory import Memory
from popek.kernel.words import Word, any_of

from .deprivileging import techniques
from .instructions import declare_all
from .operands import KINDS
from .state import (
    Ia32,
    invariant,
)


def _advance(cpu: Ia32, operands: Mapping[str, Word]) -> None:
    """EIP moves past the instruction; RF and the interrupt shadow last one instruction."""
    cpu.started_at = cpu.eip
    cpu.eip = cpu.eip + operands["operand length"].zero_extend(32)
    cpu.eflags.rf = 0
    cpu.shadow = Word(2, 0)


def _relocate(state: Ia32, offset: Word) -> Ia32:
    """The whole of linear memory, with every base register, `offset` bytes further on."""
    moved, old = state.copy(), state.memory
    for name in (*SEGMENT_NAMES, "gdtr", "idtr", "ldtr", "tr", "reserved", "read_only"):
        moved[f"{name}.base"] = state[f"{name}.base"] + offset
    moved.memory = Memory(32, 8, lambda address: old.load(address - offset))
    return moved


def _in_mode(state: Ia32, value: Word) -> Word:
    """The mode is the one of this number (2 bits)."""
    modes = (state.protected, state.cr0.pe & state.virtual_8086, state.real & ~state.virtual_8086)
    return any_of((value == number) & mode for number, mode in enumerate(modes))


# Every instruction depends on it, so a fixed mode is decided before an instruction is explored.
_OPERATING_MODE: Final = Setting(
    "MODE",
    "the operating mode that instructions start in",
    (0, 1, 2),
    _in_mode,
    0,
    labels={0: "protected", 1: "virtual-8086", 2: "real"},
)


def build() -> Machine[Ia32]:
    """IA-32 as a Pentium and its successors have it, without Intel 64."""
    machine = Machine(
        "ia32",
        "IA-32: protected, virtual-8086 and real-address mode",
        Ia32,
        supervisor=lambda state: state.cpl == 0,
        user=lambda state: state.cpl == 3,
        fetches=lambda state: state.cs.base + state.eip,
        source="Intel 64 and IA-32 Architectures Software Developer's Manual",
        operands=KINDS,
        left_open=COMMON,
        settings=(
            _OPERATING_MODE,
            *of_levels("eflags"),
            leaf_setting("VME", "cr4.vme", 1, "CR4.VME: virtual-8086 mode has VIF and redirects INT n", 0),
            PORTS,
        ),
        invariant=invariant,
        advance=_advance,
        implicit=(LENGTH,),
        relocate=_relocate,
        relocation_width=32,
        techniques=techniques(),
        notes=(
            "translation by paging (protection by pages only as two ranges)",
            "64-bit mode",
            "setting CR0.PE with an RPL in CS or SS, clearing it with a segment that is not writable data",
            "hardware task switches: 'not modelled'",
            "the #GP before an instruction at CPL 3 with CR4.PVI (virtual-8086 mode: VME) and both VIF and VIP set",
            "debug traps (TF, breakpoints), delivery of faults through the IDT",
            "x87 and SIMD: one 64-bit word stands for their registers, and XSAVE and FXSAVE store that",
            "side effects of reading a device's port; time other than the time-stamp counter",
        ),
        practice=practice(32),
        interrupt_masks=("eflags.if",),
        architecture=listing("ia32"),
    )
    declare_all(machine)
    return machine
