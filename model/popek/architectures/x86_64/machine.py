"""The x86-64 machine: state, instructions, settings and ways to virtualize it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from popek.architectures.listing import listing
from popek.architectures.x86.left_open import COMMON
from popek.architectures.x86.operands import LENGTH
from popek.architectures.x86.practice import practice
from popek.architectures.x86.settings import PORTS, of_levels
from popek.kernel.left_open import LeftOpen
from popek.kernel.machine import Machine, Setting, leaf_setting
from popek.kernel.words import Word, ite

from .access import low_half
from .deprivileging import techniques
from .instructions import declare_all
from .operands import KINDS
from .state import X64, invariant


def _advance(cpu: X64, operands: Mapping[str, Word]) -> None:
    """RIP moves past the instruction; RF and the interrupt shadow last one instruction."""
    following = cpu.rip + operands["operand length"].zero_extend(64)
    cpu.rip = ite(cpu.long, following, low_half(following))
    cpu.rflags.rf = 0
    cpu.shadow = Word(2, 0)


LEFT_OPEN = (
    *COMMON,
    LeftOpen(
        "the status flags after MOV to and from control and debug registers",
        "SDM vol. 2B, MOV: Move to/from Control Registers",
        taken="they are kept",
    ),
)

# Every instruction depends on it: without a leaf, a fixed mode is decided before one is explored.
_CODE_SIZE: Final = Setting(
    "MODE",
    "CS.L: 64-bit mode or compatibility mode",
    (0, 1),
    lambda state, value: state.cs.rights.l == value,
    1,
    labels={0: "compatibility", 1: "64-bit"},
)


def build() -> Machine[X64]:
    """x86-64 as Intel 64 processors have it: 64-bit mode and compatibility mode."""
    machine = Machine(
        "x86-64",
        "x86-64, IA-32e mode: 64-bit mode and compatibility mode",
        X64,
        supervisor=lambda state: state.cpl == 0,
        user=lambda state: state.cpl == 3,
        fetches=lambda state: state.cs.base + state.rip,
        source="Intel 64 and IA-32 Architectures Software Developer's Manual",
        operands=KINDS,
        left_open=LEFT_OPEN,
        settings=(
            _CODE_SIZE,
            *of_levels("rflags"),
            leaf_setting("SCE", "efer.sce", 1, "EFER.SCE: SYSCALL and SYSRET exist", 1),
            leaf_setting("FSGSBASE", "cr4.fsgsbase", 1, "CR4.FSGSBASE: RDFSBASE and its like exist", 1),
            leaf_setting("OSXSAVE", "cr4.osxsave", 1, "CR4.OSXSAVE: XGETBV and XSETBV exist", 1),
            leaf_setting("PKE", "cr4.pke", 1, "CR4.PKE: RDPKRU and WRPKRU exist", 0),
            PORTS,
        ),
        invariant=invariant,
        advance=_advance,
        implicit=(LENGTH,),
        techniques=techniques(),
        notes=(
            "translation by paging; of protection by pages, two ranges that bar CPL 3 (no SMEP, SMAP, protection keys)",
            "relocation: page tables do it, below linear memory, so location sensitivity is not asked",
            "leaving IA-32e mode: 'not modelled'",
            "VMX is locked off, and there is no SVM and no SMX",
            "compatibility mode: forms with REX.W ('not modelled'); registers above 7, as if they could be encoded",
            "compatibility mode: 16-bit code segments, and innocuous instructions that 64-bit mode lacks",
            "the #GP before an instruction at CPL 3 with CR4.PVI and both VIF and VIP set",
            "debug traps (TF, breakpoints), delivery of faults through the IDT, x87, SIMD, CET, extended state",
            "what x2APIC mode changes; side effects of reading a port; time other than the time-stamp counter",
        ),
        practice=practice(64),
        interrupt_masks=("rflags.if",),
        architecture=listing("x86_64"),
    )
    declare_all(machine)
    return machine
