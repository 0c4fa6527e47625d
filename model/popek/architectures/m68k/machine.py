"""The Motorola 68000 and 68010 as a machine in the sense of Popek and Goldberg; which of the two is a setting."""

from __future__ import annotations

from collections.abc import Mapping

from popek.architectures.listing import listing
from popek.kernel.machine import Machine, Setting
from popek.kernel.memory import Memory
from popek.kernel.practice import Practice
from popek.kernel.words import Word

from . import arithmetic, control, moves, supervisor
from .deprivileging import techniques
from .exceptions import deliver, interruptions
from .left_open import LEFT_OPEN
from .operands import kinds
from .state import BLOCK, CELL_ADDRESS, M68000, MANUAL, SR_BITS, M68k, shifted


def build() -> Machine[M68k]:
    """The 68000, unless MODEL says otherwise."""
    machine: Machine[M68k] = Machine(
        "m68k",
        "Motorola 68000 and 68010 behind a unit that relocates and checks references",
        M68k,
        supervisor=lambda state: state.sr.s == 1,
        user=lambda state: state.sr.s == 0,
        source=MANUAL,
        operands={kind.name: kind for kind in kinds()},
        settings=(
            Setting(
                "MODEL",
                "which of the two processors it is",
                (0, 1),
                lambda state, value: state.m68010 == value,
                default=0,
                leaf="m68010",
                labels={0: "68000", 1: "68010"},
            ),
        ),
        invariant=_exists,
        advance=_advance,
        relocate=_relocate,
        relocation_width=BLOCK,
        deliver=deliver,
        interruptions=interruptions(),
        techniques=techniques(),
        left_open=LEFT_OPEN,
        notes=(
            "no memory management is on the chip: a base and a bound for each state are assumed outside",
            "instruction fetch, so that an odd PC is no address error",
            "the 68010's return to an instruction that a bus error interrupted: RTE of a frame of format 8",
            "the trace trap after an instruction that starts with T = 1",
            "devices, but for their interrupts: RESET, which pulses their line, changes nothing",
            "MOVEM: a list of registers is as many moves",
        ),
        interrupt_masks=("sr.i",),
        architecture=listing("m68k"),
        practice=Practice(examples={"lost-interrupt-mask": ("MOVE #w, SR",)}),
    )
    supervisor.add(machine)
    moves.add(machine)
    arithmetic.add(machine)
    control.add(machine)
    return machine


def _exists(state: M68k) -> Word:
    """The processor runs, SR has the bits that exist, and a 68000 has none of the 68010's registers."""
    bits = (state.sr.value & (0xFFFF ^ SR_BITS)) == 0
    none = (state.vbr == 0) & (state.sfc == 0) & (state.dfc == 0)
    bounds = (state.bound <= 1 << BLOCK) & (state.other_bound <= 1 << BLOCK)
    return (
        bits
        & bounds
        & state.running
        & ((state.m68010 != M68000) | none)
        & (state.ahead >= 1)
        & (state.ahead <= 5)
    )


def _advance(cpu: M68k, operands: Mapping[str, Word]) -> None:
    cpu.pc = cpu.pc + 2


def _relocate(state: M68k, offset: Word) -> M68k:
    """The same program, in both states, `offset` blocks further on in storage."""
    moved, storage = state.copy(), state.memory
    moved.base, moved.other_base = state.base + offset, state.other_base + offset
    moved.memory = Memory(CELL_ADDRESS, 16, lambda cell: storage.load(shifted(cell, -offset)))
    return moved
