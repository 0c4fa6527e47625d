"""The paper's machine, of which the monitor keeps a register or a cell only while a flag of the program's says so.

While it does, the hardware has 0 there.  The flag is on the hardware.  `kept_at_times.toml` says what each machine
should get.
"""

from __future__ import annotations

from typing import Any

import attrs

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import ADDRESS, PRIVILEGED_TRAP, WORD, Pg74
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault
from popek.kernel.state import word
from popek.kernel.technique import Technique
from popek.kernel.words import Word, ite

CELL = 5  # that of which a copy is kept


class Flagged(Pg74):
    """The paper's state, a flag and a register."""

    flag = word(1)
    x = word(ADDRESS)


Made = Machine[Flagged]


def _kept(guest: Flagged) -> Word:
    return guest.flag == 1


def _privileged(cpu: Flagged) -> None:
    if cpu.mode == 1:
        raise Fault(PRIVILEGED_TRAP)


def _as_it_should_be(cpu: Flagged, flag: int) -> None:
    """The flag is the kernel's to change: the monitor hears of it."""
    _privileged(cpu)
    cpu.flag = Word(1, flag)


def base(form: str, semantics: Any, *, cell: bool = False) -> Made:
    """The machine with a form that may change the flag, and with privileged ones that change and read what is kept."""
    paper: Any = build()
    plain = paper.technique()

    def image(guest: Flagged, private: Flagged) -> Flagged:
        inner, content = guest.copy(), guest.memory
        if cell:
            inner.memory = Memory(
                ADDRESS,
                WORD,
                lambda a: ite((a == CELL) & _kept(guest), Word(WORD, 0), content.load(a)),
            )
        hardware: Flagged = plain.map(inner, private)
        hardware.flag = guest.flag
        hardware.x = guest.x if cell else ite(_kept(guest), Word(ADDRESS, 0), guest.x)
        return hardware

    given: dict[str, Any] = (
        {
            "shadows_address": lambda guest, address: (address == CELL) & _kept(guest),
            "guest": lambda guest: (guest.relocation.base == 0) & (guest.last >= CELL),
        }
        if cell
        else {"shadowed": (*plain.shadowed, "x"), "shadowed_when": {"x": _kept}}
    )
    made: Technique[Flagged] = attrs.evolve(plain, map=image, **given)
    machine: Made = attrs.evolve(
        paper,
        name="flagged",
        state=Flagged,
        techniques={made.name: made},
        instructions={form: paper.instructions[form] for form in ("JUMP a",)},
        deliver=None if cell else paper.deliver,
        architecture=None,
    )
    machine.instruction(form)(semantics)

    @machine.instruction("SETX a")
    def setx(cpu: Flagged, a: Word) -> None:
        """x, or the cell, := a; privileged."""
        _privileged(cpu)
        if cell:
            cpu.store(Word(ADDRESS, CELL), a.zero_extend(WORD))
        else:
            cpu.x = a

    @machine.instruction("GETX")
    def getx(cpu: Flagged) -> None:
        """P := x, or the cell; privileged."""
        _privileged(cpu)
        cpu.pc = cpu.load(Word(ADDRESS, CELL))[7:0] if cell else cpu.x

    return machine


def _clear(cpu: Flagged) -> None:
    cpu.memory = cpu.memory.store(cpu.relocation.base + CELL, Word(WORD, 0))


def told() -> Made:
    """The kernel sets the flag."""
    return base("SETF", lambda cpu: _as_it_should_be(cpu, 1))


def told_of_a_cell() -> Made:
    """The same, of a cell."""
    return base("SETF", lambda cpu: _as_it_should_be(cpu, 1), cell=True)


def begins() -> Made:
    """Anybody sets the flag; and in user mode x := 0 besides, so that the hardware is where the image of x is."""

    def semantics(cpu: Flagged) -> None:
        if (cpu.mode == 1) & (cpu.flag == 0):
            cpu.x = Word(ADDRESS, 0)
        cpu.flag = Word(1, 1)

    return base("SETF", semantics)


def begins_with_a_cell() -> Made:
    """The same, of a cell."""

    def semantics(cpu: Flagged) -> None:
        if (cpu.mode == 1) & (cpu.flag == 0):
            _clear(cpu)
        cpu.flag = Word(1, 1)

    return base("SETF", semantics, cell=True)


def begins_where_it_is_zero() -> Made:
    """Anybody sets the flag, where x is 0: the image of x is the hardware's, and nothing is in the monitor's notes."""

    def semantics(cpu: Flagged) -> None:
        cpu.flag = ite(cpu.x == 0, Word(1, 1), cpu.flag)

    return base("SETF", semantics)


def ends() -> Made:
    """Anybody clears the flag, and x := 0 in both modes: the hardware is right, and the notes are none's."""

    def semantics(cpu: Flagged) -> None:
        cpu.flag, cpu.x = Word(1, 0), Word(ADDRESS, 0)

    return base("CLRF", semantics)


def ends_and_shows() -> Made:
    """Anybody clears the flag: on the hardware x is 0 from then on."""

    def semantics(cpu: Flagged) -> None:
        cpu.flag = Word(1, 0)

    return base("CLRF", semantics)


def moves_the_copy() -> Made:
    """Anybody turns the flag where the cell is 0: which cells are copied changes, and no cell does."""

    def semantics(cpu: Flagged) -> None:
        there = cpu.memory.load(cpu.relocation.base + CELL) == 0
        cpu.flag = ite(there, ~cpu.flag, cpu.flag)

    return base("TURN", semantics, cell=True)


MACHINES = {
    "told": told,
    "told of a cell": told_of_a_cell,
    "begins": begins,
    "begins with a cell": begins_with_a_cell,
    "begins where it is zero": begins_where_it_is_zero,
    "ends": ends,
    "ends and shows": ends_and_shows,
    "moves the copy": moves_the_copy,
}
