"""The KA10 with the KT10 relocation option: one protection and one relocation register.

A user address is checked and relocated by its high 8 bits, blocks of 1024 words.  An executive address
goes to storage as it is.  Here both modes relocate through `bound` and `base`, which in executive mode
are 255 and 0: so two states that differ only in mode see the same storage.
"""

from __future__ import annotations

from collections.abc import Mapping

from popek.architectures.listing import listing
from popek.kernel.machine import Machine, leaf_setting
from popek.kernel.memory import Memory
from popek.kernel.outcome import NotModelledError, Trap
from popek.kernel.words import FALSE, Word, ite

from . import arithmetic, innocuous, ka10_io, ka10_jumps, words_and_halves
from .ka10_state import BLOCK, WHOLE, Ka10
from .left_open import KA10
from .operands import operands
from .relocated_user_mode import ka10_techniques
from .state import ADDRESS, MANUAL_KA, WORD, right, shifted


def build() -> Machine[Ka10]:
    """The machine with User In-out clear, unless a setting says otherwise."""
    machine: Machine[Ka10] = Machine(
        "pdp10-ka10",
        "DEC PDP-10, KA10 processor with KT10",
        Ka10,
        supervisor=lambda state: state.flags.user == 0,
        user=lambda state: state.flags.user == 1,
        source=MANUAL_KA,
        operands=operands(),
        settings=(leaf_setting("USERIO", "flags.user_io", 1, "the flag User In-out", 0),),
        invariant=_exists,
        advance=_advance,
        relocate=_relocate,
        relocation_width=BLOCK,
        reaches=lambda state, address: state.reaches(address),
        deliver=_deliver,
        techniques=ka10_techniques(),
        left_open=KA10,
        notes=(
            "interrupts: memory violations are traps on storage, as if the processor's channel were on",
            "address calculation is not part of an instruction: E is an operand",
            "floating point: what comes of the operands is a function of which nothing is taken to be known",
            "second relocation register pair (KT10A), and the maintenance devices",
            "all devices but APR and PI are one, with a word of data and a word of conditions",
            "no manual was at hand: the layout of the APR conditions is from general knowledge",
            "that User In-out lifts the traps of HALT and JEN too is as in SIMH's later KA10 simulator",
        ),
        interrupt_masks=("pi_on", "pi_enabled"),
        architecture=listing("pdp10", "instructions-ka10"),
    )
    innocuous.add(machine, MANUAL_KA)
    words_and_halves.add(machine, MANUAL_KA)
    arithmetic.add(machine, MANUAL_KA, least_by_one=False)
    arithmetic.add_ka10(machine, MANUAL_KA)
    ka10_jumps.add(machine)
    ka10_io.add(machine)
    return machine


def _exists(state: Ka10) -> Word:
    """Executive mode does not relocate; the flags of later processors are 0."""
    plain = (state.bound == WHOLE) & (state.base == 0)
    return (state.flags.user | plain) & (state.flags.value[5:2] == 0) & state.running


def _advance(cpu: Ka10, parts: Mapping[str, Word]) -> None:
    cpu.pc = ite(cpu.executing, cpu.pc, cpu.pc + 1)
    cpu.executing = FALSE


def _relocate(state: Ka10, offset: Word) -> Ka10:
    """The same user program `offset` blocks further on in core; an executive program cannot be moved."""
    moved, core = state.copy(), state.memory
    moved.base, moved.user_base = state.base + offset, state.user_base + offset
    moved.memory = Memory(ADDRESS, WORD, lambda address: core.load(shifted(address, -offset)))
    return moved


def _deliver(before: Ka10, trap: Trap[Ka10]) -> Ka10:
    """Store the word in 40 and do what 41 says, both in executive storage; JSR leaves user mode.

    Raises:
        NotModelledError: 41 holds something else than JSR, or the trap is an interrupt.
    """
    if trap.memory or trap.error_code is None:
        raise NotModelledError(f"{trap.vector} interrupts")
    cpu = trap.state.copy()
    leaves = cpu.flags.user
    cpu.user_bound = ite(leaves, cpu.bound, cpu.user_bound)
    cpu.user_base = ite(leaves, cpu.base, cpu.user_base)
    cpu.bound, cpu.base = Word(BLOCK, WHOLE), Word(BLOCK, 0)
    cpu.store(Word(ADDRESS, 0o40), trap.error_code)
    call = cpu.load(Word(ADDRESS, 0o41))
    if call[35:18] != 0o264000:
        raise NotModelledError("location 41 holds no plain JSR")
    cpu.store(right(call), cpu.pc_word)
    cpu.flags.user = cpu.flags.first_part_done = FALSE
    cpu.pc = right(call) + 1
    return cpu
