"""The paper's machine with an interrupt, and one machine for each way in which an interrupt can go wrong.

An interrupt stores the PSW in E[2], loads the next one from E[3] and holds off the next.  `HOLD` and `RELEASE` say
whether one is taken, in supervisor mode alone.  `interrupts.toml` says what each machine should get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from popek.architectures.pg74.machine import ADDRESS, PRIVILEGED_TRAP, Pg74, build
from popek.architectures.pg74.trap_and_emulate import leads_to_the_vmm
from popek.kernel.interruption import Interruption
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.state import Role, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word

OLD, NEW = 2, 3


class Interruptible(Pg74):
    """The paper's state and what holds an interrupt off."""

    held = word(1, role=Role.RESOURCE)  # by the hardware's mask
    quiet = word(1, role=Role.RESOURCE)  # by a mask that binds supervisor mode alone


Machined = Machine[Interruptible]
Enter = Callable[[Interruptible, Mapping[str, Word]], Interruptible]


def takes(state: Interruptible, given: Mapping[str, Word]) -> Word:
    """Neither mask holds it off."""
    return ~state.held & (state.mode | ~state.quiet)


def enter(state: Interruptible, given: Mapping[str, Word]) -> Interruptible:
    """E[2] := PSW, PSW := E[3], hold off the next."""
    cpu = state.copy()
    cpu.memory = cpu.memory.store(Word(ADDRESS, OLD), cpu.psw)
    cpu.load_psw(cpu.memory.load(Word(ADDRESS, NEW)))
    cpu.held = Word(1, 1)
    return cpu


def _mask(value: int) -> Callable[[Interruptible], None]:
    def semantics(cpu: Interruptible) -> None:
        """The mask := value, in supervisor mode alone."""
        if cpu.mode == 1:
            raise Fault(PRIVILEGED_TRAP)
        cpu.held = Word(1, value)

    return semantics


def base(entering: Enter = enter, **changes: Any) -> Machined:
    """The machine as it should be, but for the changes to its technique."""
    paper = build()
    plain = paper.technique()

    def image(guest: Interruptible, private: Interruptible) -> Interruptible:
        hardware = plain.map(guest, private)
        hardware.held, hardware.quiet = private.held, private.quiet
        return hardware

    technique: Technique[Interruptible] = attrs.evolve(
        plain,
        map=image,
        owned=(*plain.owned, "held", "quiet"),
        shadowed=(*plain.shadowed, "held", "quiet"),
        private=lambda guest, private: (
            plain.private(guest, private)
            & (private.relocation.base > NEW)
            & leads_to_the_vmm(guest, private, NEW)
        ),
    )
    technique = attrs.evolve(technique, **{name: change(technique) for name, change in changes.items()})
    made = attrs.evolve(
        paper,
        name="interruptible",
        state=Interruptible,
        techniques={technique.name: technique},
        instructions={form: paper.instructions[form] for form in ("JUMP a", "SVC", "LPSW a")},
        interruptions=(Interruption("clock interrupt", takes, entering),),
        architecture=None,
    )
    made.instruction("HOLD")(_mask(1))
    made.instruction("RELEASE")(_mask(0))
    return made


def guest_holds() -> Machined:
    """The hardware's mask is the guest's: it can keep the control program's clock out."""

    def mapped(technique: Technique[Interruptible]) -> Any:
        def image(guest: Interruptible, private: Interruptible) -> Interruptible:
            hardware = technique.map(guest, private)
            hardware.held = guest.held
            return hardware

        return image

    return base(map=mapped)


def loses_the_counter() -> Machined:
    """P's low bit is cleared before the PSW is stored."""

    def entering(state: Interruptible, given: Mapping[str, Word]) -> Interruptible:
        cpu = state.copy()
        cpu.pc = cpu.pc & 0xFE
        return enter(cpu, given)

    return base(entering)


def stores_into_the_guest() -> Machined:
    """The PSW is stored where the program's location 2 is."""

    def entering(state: Interruptible, given: Mapping[str, Word]) -> Interruptible:
        cpu = state.copy()
        new = cpu.memory.load(Word(ADDRESS, NEW))
        cpu.memory = cpu.memory.store(cpu.relocation.base + OLD, cpu.psw)
        cpu.load_psw(new)
        return cpu

    return base(entering)


def goes_where_the_guest_says() -> Machined:
    """The next PSW comes from the program's location 3."""

    def entering(state: Interruptible, given: Mapping[str, Word]) -> Interruptible:
        cpu = state.copy()
        cpu.memory = cpu.memory.store(Word(ADDRESS, OLD), cpu.psw)
        cpu.load_psw(cpu.memory.load(cpu.relocation.base + NEW))
        return cpu

    return base(entering)


def none_may_hold() -> Machined:
    """The technique runs no guest that holds interrupts off, and one that was given one does."""
    return base(guest=lambda technique: lambda state: ~state.held)


def quiet_release() -> Machined:
    """A mask that binds supervisor mode alone is the guest's own, and lifting it does not trap."""

    def mapped(technique: Technique[Interruptible]) -> Any:
        def image(guest: Interruptible, private: Interruptible) -> Interruptible:
            hardware = technique.map(guest, private)
            hardware.quiet = guest.quiet
            return hardware

        return image

    def without(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name != "quiet")

    made = base(
        map=mapped,
        owned=lambda technique: without(technique.owned),
        shadowed=lambda technique: without(technique.shadowed),
        guests_own=lambda technique: ("quiet",),
    )

    @made.instruction("SPEAK")
    def speak(cpu: Interruptible) -> None:
        """The mask that binds supervisor mode := 0."""
        cpu.quiet = Word(1, 0)

    return made


MACHINES = {
    "as it should be": base,
    "guest holds": guest_holds,
    "loses the counter": loses_the_counter,
    "stores into the guest": stores_into_the_guest,
    "goes where the guest says": goes_where_the_guest_says,
    "none may hold": none_may_hold,
    "quiet release": quiet_release,
}
