"""The KS10 with TOPS-10 paging.

A virtual address has 9 bits of page and 9 of word.  Page tables are taken to map the pages from 0 up to
consecutive pages of core: what the user process table in core page u says is `process_map` at u, the
number of its last page and the core page of its first.  The executive's tables are taken to map each page
to itself.  So, as on the KA10, both modes translate through `bound` and `base`, and two states that differ
only in mode see the same storage.
"""

from __future__ import annotations

from collections.abc import Mapping

from popek.architectures.listing import listing
from popek.kernel.machine import Machine, Setting, leaf_setting
from popek.kernel.memory import Memory
from popek.kernel.outcome import NotModelledError, Trap
from popek.kernel.words import FALSE, Word, concat, ite

from . import arithmetic, double_words, innocuous, ks10_io, ks10_jumps, words_and_halves
from .ks10_state import (
    CORE_PAGE,
    PAGE,
    PHYSICAL,
    UPT_CONTEXT,
    UPT_EXECUTIVE_PC,
    UPT_MUUO,
    UPT_MUUO_PC,
    UPT_USER_PC,
    WHOLE,
    Ks10,
)
from .left_open import KS10
from .operands import operands
from .relocated_user_mode import ks10_techniques
from .state import MANUAL_KS, MUUO, WORD, right, shifted


def build() -> Machine[Ks10]:
    """The machine with User In-out clear and paging on, unless a setting says otherwise."""
    paging = Setting(
        "PAGING",
        "trap and paging enable",
        (0, 1),
        lambda state, value: state.paging == value,
        1,
        "paging",
        labels={0: "off", 1: "on"},
    )
    legal = Setting(
        "MAP",
        "MAP in user mode",
        (0, 1),
        lambda state, value: state.map_in_user == value,
        1,
        "map_in_user",
        labels={0: "traps", 1: "legal"},
    )
    machine: Machine[Ks10] = Machine(
        "pdp10-ks10",
        "DEC PDP-10, KS10 processor with TOPS-10 paging",
        Ks10,
        supervisor=lambda state: state.flags.user == 0,
        user=lambda state: state.flags.user == 1,
        source=MANUAL_KS,
        operands=operands(),
        settings=(leaf_setting("USERIO", "flags.user_io", 1, "the flag User In-out", 0), paging, legal),
        invariant=_exists,
        advance=_advance,
        relocate=_relocate,
        relocation_width=CORE_PAGE,
        deliver=_deliver,
        techniques=ks10_techniques(),
        left_open=KS10,
        notes=(
            "page tables map to consecutive pages of core, the executive's to the same; all are writable",
            "accumulator blocks other than 0; the stored page fail word; the traps that the trap flags cause",
            "interrupts, Unibus input and output, console, timer, TOPS-20 paging",
            "address calculation is not part of an instruction: E is an operand",
            "string instructions",
            "floating point: what comes of the operands is a function of which nothing is taken to be known",
            "the flag in bit 7, which the KS10 does not use, is kept as the simulator keeps it",
            "that MAP is legal in user mode is taken from an emulator: see the setting MAP",
        ),
        interrupt_masks=("pi_on", "pi_enabled"),
        architecture=listing("pdp10", "instructions-ks10"),
    )
    innocuous.add(machine, MANUAL_KS)
    # As in SIMH, whose author compared with the microcode; no manual was seen that says so.
    words_and_halves.add(machine, MANUAL_KS, fetching=("SETCA",))
    arithmetic.add(machine, MANUAL_KS, least_by_one=True)
    double_words.add(machine)
    ks10_jumps.add(machine)
    ks10_io.add(machine)
    return machine


def _exists(state: Ks10) -> Word:
    """The executive's map is what it is taken to be; a user has no previous context."""
    plain = (state.bound == WHOLE) & (state.base == 0)
    return (state.flags.user | plain) & (~state.flags.user | (state.pxct == 0)) & state.running


def _advance(cpu: Ks10, parts: Mapping[str, Word]) -> None:
    cpu.pc = ite(cpu.executing, cpu.pc, cpu.pc + 1)
    cpu.executing = FALSE
    cpu.context, cpu.pxct = cpu.pxct, Word(4, 0)


def _relocate(state: Ks10, offset: Word) -> Ks10:
    """The same user program `offset` pages further on in core; an executive program cannot be moved."""
    moved, core, maps = state.copy(), state.memory, state.process_map
    by = ite(state.paging, offset, Word(CORE_PAGE, 0))
    moved.base = state.base + by

    def process(table: Word) -> Word:
        old = maps.load(table)
        return concat(old[19:11], old[10:0] + by)

    moved.process_map = Memory(CORE_PAGE, PAGE + CORE_PAGE, process)
    moved.memory = Memory(PHYSICAL, WORD, lambda address: core.load(shifted(address, -by)))
    return moved


def _deliver(before: Ks10, trap: Trap[Ks10]) -> Ks10:
    """A monitor call: word, PC word and context to the user process table, new PC word from there.

    Raises:
        NotModelledError: a page failure, whose page fail word is not modelled.
    """
    if trap.vector != MUUO or trap.error_code is None:
        raise NotModelledError(f"{trap.vector} is not delivered")
    cpu = trap.state.copy()

    def place(number: int) -> Word:
        return concat(cpu.ubr, Word(9, number))

    user = cpu.flags.user
    old = concat(cpu.flags.value.replace(3, 2, 0), Word(5, 0), cpu.pc)
    for number, value in ((UPT_MUUO, trap.error_code), (UPT_MUUO_PC, old), (UPT_CONTEXT, cpu.context_word)):
        cpu.memory = cpu.memory.store(place(number), value)
    vector = ite(user, place(UPT_USER_PC), place(UPT_EXECUTIVE_PC))
    new = cpu.memory.load(vector)
    cpu.pc = right(new)
    flags = new[35:23]
    cpu.flags = flags.replace(6, 6, flags[6] | user)
    process = cpu.process_map.load(cpu.ubr)
    cpu.bound = ite(flags[7], process[19:11], Word(PAGE, WHOLE))
    cpu.base = ite(flags[7], process[10:0], Word(CORE_PAGE, 0))
    return cpu
