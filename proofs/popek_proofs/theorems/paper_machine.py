"""A small world on the paper's machine: a guest of eight locations, the monitor's share, and faults to plant.

Locations 0 and 1 hold the old and the new PSW.  Location 2 holds a PSW for user mode at another place, which
is also an R to load; location 3 holds a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import PRIVILEGED_TRAP, SUPERVISOR_CALL, Pg74
from popek.kernel.configuration import Configuration, default_configuration
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from .monitor import Monitor
from .red_pill import Search, lines, shortest_red_pill

CELLS = 8
START = 16  # where the guest's storage begins in the hardware's
OPERANDS = (2, 3, 4)


def psw(mode: int, pc: int, base: int, bound: int) -> int:
    """<M, P, R> in one word."""
    return mode << 24 | pc << 16 | base << 8 | bound


def guest(configuration: Configuration | None = None, *, user: bool = False) -> Pg74:
    """The state the guest starts in: P = 2, R = (0, 8)."""
    settings = default_configuration(build()).settings if configuration is None else configuration.settings
    state = Pg74.reset(mode=int(user), pc=2, relocation__base=0, relocation__bound=CELLS, last=CELLS - 1)
    state = state.with_changes({f"straps.{name.lower()}": value for name, value in settings.items()})
    contents = {1: psw(0, 6, 0, CELLS), 2: psw(1, 3, 1, 6), 3: 5}
    for address, cell in contents.items():
        state.memory = state.memory.store(Word(8, address), Word(32, cell))
    return state


def private(configuration: Configuration | None = None) -> Pg74:
    """What the monitor puts into the hardware: the guest's storage begins at START."""
    state = guest(configuration)
    return Pg74.reset(relocation__base=START, straps=int(state.straps.value))


def monitor(
    machine: Machine[Pg74], configuration: Configuration | None = None, *, hybrid: bool = False
) -> Monitor[Pg74]:
    """Trap and emulate, or hybrid."""
    return Monitor(machine, machine.technique(), private(configuration), {"memory": CELLS}, hybrid)


def search(
    machine: Machine[Pg74],
    configuration: Configuration | None = None,
    *,
    hybrid: bool = False,
    longest: int = 3,
) -> Search[Pg74]:
    """The shortest red pill, from supervisor and from user mode."""
    starts = [guest(configuration), guest(configuration, user=True)]
    return shortest_red_pill(
        monitor(machine, configuration, hybrid=hybrid), starts, lines(machine, OPERANDS), longest
    )


# -- faults to plant ---------------------------------------------------------------------------------


def with_semantics(machine: Machine[Pg74], form: str, semantics: Callable[..., None]) -> Machine[Pg74]:
    """The machine with another semantics for one form."""
    instructions: Mapping[str, Instruction] = machine.instructions
    changed = {**instructions, form: attrs.evolve(instructions[form], semantics=semantics)}
    return attrs.evolve(machine, instructions=changed)


def silent_relocation(cpu: Pg74, a: Word) -> None:
    """SREL without its trap: in user mode it does nothing."""
    new = cpu.load(a)
    if cpu.mode == 0:
        cpu.relocation.base, cpu.relocation.bound = new[15:8], new[7:0]


def readable_mode(cpu: Pg74, a: Word) -> None:
    """GMODE without its trap."""
    cpu.store(a, cpu.mode.zero_extend(32))


def absolute_move(cpu: Pg74, a: Word, b: Word) -> None:
    """MOVE that reads the absolute location b: the relocation is forgotten."""
    cpu.store(a, cpu.memory.load(b))


def forgetful_trap(cpu: Pg74, a: Word) -> None:
    """GREL that traps only if the bound is odd: almost privileged."""
    if cpu.mode == 1 and cpu.relocation.bound[0] == 1:
        raise Fault(PRIVILEGED_TRAP)
    cpu.store(a, cpu.relocation.base.zero_extend(32))


def quiet_call(cpu: Pg74) -> None:
    """SVC that traps in supervisor mode and is no operation in user mode."""
    if cpu.mode == 0:
        raise Fault(SUPERVISOR_CALL, keeps=True)


def unchecked_store(cpu: Pg74, a: Word, b: Word) -> None:
    """ADD that stores without the bounds check in user mode."""
    total = cpu.load(a) + cpu.load(b)
    if cpu.mode == 1:
        cpu.memory = cpu.memory.store(a, total)
    else:
        cpu.store(a, total)


FAULTS: Mapping[str, tuple[str, Callable[..., None]]] = {
    "silent-relocation": ("SREL a", silent_relocation),
    "readable-mode": ("GMODE a", readable_mode),
    "absolute-move": ("MOVE a, b", absolute_move),
    "forgetful-trap": ("GREL a", forgetful_trap),
    "quiet-call": ("SVC", quiet_call),
    "unchecked-store": ("ADD a, b", unchecked_store),
}


def faulty(name: str) -> Machine[Pg74]:
    """The paper's machine with one fault planted."""
    form, semantics = FAULTS[name]
    return with_semantics(build(), form, semantics)
