"""The paper's machine with a clock, a timer and a log of times: what forms write there, and what comes back.

A clock that nothing writes to is left out of comparisons, as time is.  What a form writes to one is not time any more.
The timer is the monitor's where it says so.  `clocks.toml` says what each machine should get.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import ADDRESS, PRIVILEGED_TRAP, WORD, Pg74
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.state import Role, memory, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word


class Clocked(Pg74):
    """The paper's state with time."""

    clock = word(ADDRESS, role=Role.TIME)
    log = memory(address=2, cell=ADDRESS, role=Role.TIME)


Made = Machine[Clocked]
Semantics = Callable[..., None]


def _read(cpu: Clocked, a: Word) -> None:
    """E[a] := clock."""
    cpu.store(a, cpu.clock.zero_extend(WORD))


def base(forms: dict[str, Semantics], *, own: bool = False) -> Made:
    """The machine with some forms.

    Args:
        own: the clock is the monitor's, which keeps the guest's.
    """
    paper: Any = build()
    plain = paper.technique()

    def image(guest: Clocked, private: Clocked) -> Clocked:
        hardware: Clocked = plain.map(guest, private)
        hardware.log = guest.log
        return hardware

    names = ("clock",) if own else ()
    made: Technique[Clocked] = attrs.evolve(
        plain, map=image, owned=(*plain.owned, *names), shadowed=(*plain.shadowed, *names)
    )
    machine: Made = attrs.evolve(
        paper,
        name="clocked",
        state=Clocked,
        techniques={made.name: made},
        instructions={one: paper.instructions[one] for one in ("MOVE a, b", "SVC", "LPSW a")},
        architecture=None,
    )
    for form, semantics in forms.items():
        machine.instruction(form)(semantics)
    return machine


def read() -> Made:
    """Anybody reads the clock."""
    return base({"READ a": _read})


def reset() -> Made:
    """Anybody sets it to 0."""

    def semantics(cpu: Clocked) -> None:
        cpu.clock = Word(ADDRESS, 0)

    return base({"RESET": semantics, "READ a": _read})


def carries_the_programs() -> Made:
    """Anybody sets it to what is in E[a]: the same natively."""

    def semantics(cpu: Clocked, a: Word) -> None:
        cpu.clock = cpu.load(a).truncate(ADDRESS)

    return base({"SET a": semantics, "READ a": _read})


def carries_the_base() -> Made:
    """Anybody sets it to R's base, and reads it."""

    def semantics(cpu: Clocked) -> None:
        cpu.clock = cpu.relocation.base

    return base({"SET": semantics, "READ a": _read})


def carries_the_mode() -> Made:
    """Anybody sets it to M, and reads it."""

    def semantics(cpu: Clocked) -> None:
        cpu.clock = cpu.mode.zero_extend(ADDRESS)

    return base({"SET": semantics, "READ a": _read})


def logs_the_base() -> Made:
    """The log gets R's base, and anybody reads the log."""

    def semantics(cpu: Clocked) -> None:
        cpu.log = cpu.log.store(Word(2, 0), cpu.relocation.base)

    def show(cpu: Clocked, a: Word) -> None:
        cpu.store(a, cpu.log.load(Word(2, 0)).zero_extend(WORD))

    return base({"LOG": semantics, "SHOW a": show})


def logs_the_time() -> Made:
    """The log gets the clock, and anybody reads the log."""

    def semantics(cpu: Clocked) -> None:
        cpu.log = cpu.log.store(Word(2, 0), cpu.clock)

    def show(cpu: Clocked, a: Word) -> None:
        cpu.store(a, cpu.log.load(Word(2, 0)).zero_extend(WORD))

    return base({"LOG": semantics, "SHOW a": show})


def never() -> Made:
    """Anybody sets the monitor's timer: the tick that it waits for does not come."""

    def semantics(cpu: Clocked) -> None:
        cpu.clock = Word(ADDRESS, 255)

    return base({"NEVER": semantics}, own=True)


def never_and_a_trap() -> Made:
    """The same, and then a trap."""

    def semantics(cpu: Clocked) -> None:
        if cpu.mode == 1:
            cpu.clock = Word(ADDRESS, 255)
            raise Fault(PRIVILEGED_TRAP, keeps=True)

    return base({"NEVER": semantics}, own=True)


MACHINES = {
    "read": read,
    "reset": reset,
    "carries the program's": carries_the_programs,
    "carries the base": carries_the_base,
    "carries the mode": carries_the_mode,
    "logs the base": logs_the_base,
    "logs the time": logs_the_time,
    "never": never,
    "never, and a trap": never_and_a_trap,
}
