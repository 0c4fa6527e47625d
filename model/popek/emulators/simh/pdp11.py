"""One PDP-11/45 instruction on SIMH's `pdp11`, from a complete given state.

The first step runs the instruction, and stops before a trap is taken: the trap is then pending in the
simulator's register TRAPS.  A second step takes it and runs the first instruction of its handler, which
the case must make a branch to itself (000777).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from popek.architectures.pdp11.state import (
    BPT_TRAP,
    BUS_ERROR,
    EMT_TRAP,
    FLOATING_TRAP,
    ILLEGAL_HALT,
    IOT_TRAP,
    RESERVED,
    SEGMENT_FAULT,
    TRACE_TRAP,
    TRAP_TRAP,
    Pdp11,
)
from popek.kernel.memory import Memory
from popek.kernel.outcome import Vector
from popek.kernel.words import Word

from .simulator import SimhAnswer, run_cases

_SPACES: Final = {0: "K", 1: "S", 3: "U"}
_STACKS: Final = {0: "KSP", 1: "SSP", 3: "USP"}
_SETS: Final = tuple(f"R{number_of_set}{number}" for number_of_set in range(2) for number in range(6))
LAST_BLOCK: Final = 0o5777
"""The last block of core in these runs: 192 KB."""
_ACCESS_BITS: Final = 0o300  # A and W of a PDR, which the model leaves out
# The simulator's pending traps, most urgent first.
_TRAPS: Final = (None, BUS_ERROR, SEGMENT_FAULT, BUS_ERROR, None, ILLEGAL_HALT, RESERVED, BPT_TRAP, IOT_TRAP,
                 EMT_TRAP, TRAP_TRAP, TRACE_TRAP, None, None, FLOATING_TRAP)  # fmt: skip
_SETUP: Final = ("set cpu 11/45", "set cpu 192k", "d stop_traps 0", "d stop_veca 0", "d stop_spa 0")


@attrs.frozen(eq=False)
class Pdp11Step:
    """One instruction to run.

    Attributes:
        before: the state; its memory holds the instruction, where the PC leads, and every cell that is
            to be reported.
        deliver: take the trap too.
    """

    before: Pdp11
    deliver: bool = False


@attrs.frozen(eq=False)
class Pdp11Result:
    """What SIMH did.

    Attributes:
        halted: the processor stopped.
        trap: the trap that was pending after the instruction, if any.
        state: the state after the instruction, or after the trap was taken where the case asks for it.
    """

    halted: bool
    trap: Vector | None
    state: Pdp11


def run_steps(steps: Iterable[Pdp11Step]) -> list[Pdp11Result]:
    """Run every case in one process.

    Raises:
        SimhError: SIMH is missing or refused a command.
    """
    steps = list(steps)
    answers = run_cases("pdp11", [_commands(step) for step in steps], setup=_SETUP)
    return [_result(step, answer) for step, answer in zip(steps, answers, strict=True)]


def _commands(step: Pdp11Step) -> list[str]:
    state = step.before
    mode, halves = int(state.ps.current), {}
    for number, stack in _STACKS.items():
        place = 2 if number == 3 else number
        halves[stack] = int(state.sp if number == mode else state.saved_sp[place])
    for number, name in enumerate(_SETS):
        halves[name] = int(state.r[number])
    lines = [f"d {name} {value:o}" for name, value in halves.items()]
    lines += [
        f"d psw {int(state.ps.value):o}",
        f"d pc {int(state.pc):o}",
        f"d pirq {int(state.pirq) << 9:o}",
        f"d mmr0 {int(state.mme):o}",
        "d mmr3 0",
        "d stklim 0",
        f"d wait {int(state.waiting)}",
        "d traps 0",
        f"d FPS {int(state.fps.value):o}",
        f"d FEC {int(state.fec):o}",
        f"d FEA {int(state.fea):o}",
    ]
    for number in range(6):
        value = int(state.fac[number])
        lines += (f"d FAC{number}H {value >> 32:o}", f"d FAC{number}L {value & 0xFFFFFFFF:o}")
    for number, letter in _SPACES.items():
        for page in range(8):
            par, pdr = _page(state, number, page)
            lines += (f"d {letter}IPAR{page} {par:o}", f"d {letter}IPDR{page} {pdr:o}")
    cells = state.memory.cells()
    lines += [f"d {cell << 1:o} {value:o}" for cell, value in cells.items()]
    lines += ["step", "ex traps"]
    if step.deliver:
        lines.append("step")
    lines.append("ex pc,psw,ksp,ssp,usp,r00-r15,pirq,wait,mmr0,mmr2,fps,fec,fea")
    lines += [f"ex FAC{number}H,FAC{number}L" for number in range(6)]
    lines += [f"ex {letter}IPAR0-{letter}IPDR7" for letter in _SPACES.values()]
    lines += [f"ex {cell << 1:o}" for cell in cells]
    # Cells that the case leaves nonzero would be another case's strays.
    lines += [f"d {cell << 1:o} 0" for cell in cells]
    return lines


def _page(state: Pdp11, mode: int, page: int) -> tuple[int, int]:
    if mode == int(state.ps.current):
        place = Word(3, page)
        return int(state.par.load(place)), int(state.pdr.load(place))
    place = Word(5, mode << 3 | page)
    return int(state.space_par.load(place)), int(state.space_pdr.load(place))


def _result(step: Pdp11Step, answer: SimhAnswer) -> Pdp11Result:
    values = answer.values
    pending = values["TRAPS"]
    found = next((vector for bit, vector in enumerate(_TRAPS) if pending >> bit & 1), None)
    state = Pdp11.reset(
        pc=values["PC"],
        ps=values["PSW"],
        last=LAST_BLOCK,
        pirq=values["PIRQ"] >> 9,
        mme=values["MMR0"] & 1,
        mmr2=values["MMR2"],
        waiting=values["WAIT"],
        fps=values["FPS"],
        fec=values["FEC"],
        fea=values["FEA"],
    )
    for number in range(6):
        state.fac[number] = Word(64, values[f"FAC{number}H"] << 32 | values[f"FAC{number}L"])
    mode = values["PSW"] >> 14
    for number, stack in _STACKS.items():
        if number == mode:
            state.sp = Word(16, values[stack])
        else:
            state.saved_sp[2 if number == 3 else number] = Word(16, values[stack])
    for number, name in enumerate(_SETS):
        state.r[number] = Word(16, values[name])
    for number, letter in _SPACES.items():
        for page in range(8):
            par, pdr = values[f"{letter}IPAR{page}"], values[f"{letter}IPDR{page}"] & ~_ACCESS_BITS
            if number == mode:
                state.par = state.par.store(Word(3, page), Word(12, par & 0o7777))
                state.pdr = state.pdr.store(Word(3, page), Word(16, pdr))
            place = Word(5, number << 3 | page)
            state.space_par = state.space_par.store(place, Word(12, par & 0o7777))
            state.space_pdr = state.space_pdr.store(place, Word(16, pdr))
    state.memory = Memory(17, 16, {cell: answer.cell(cell << 1) for cell in step.before.memory.cells()})
    halted = answer.stops[:1] == ("HALT instruction",)
    state.running = Word(1, 0 if halted else 1)
    return Pdp11Result(halted, found, state)
