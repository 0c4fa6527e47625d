"""The paper's machine where what one part of popek says and what another says have parted.

Settings of which only one spoke, an invariant that the machine leaves, Theorem 2 without what Theorem 1 needs.
`agreement.toml` says what each machine should get.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import ADDRESS, PRIVILEGED_TRAP, WORD, Pg74
from popek.architectures.pg74.trap_and_emulate import leads_to_the_vmm
from popek.kernel.interruption import Interruption
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.state import Role, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word, ite


class Timed(Pg74):
    """The paper's state, a clock and a bit."""

    clock = word(ADDRESS, role=Role.TIME)
    x = word(1)


Made = Machine[Timed]
Semantics = Callable[..., None]


def _fits_alone(guest: Timed, private: Timed) -> Word:
    """As the paper's technique has it, and no word of the straps: they are settings."""
    base, wide = private.relocation.base, ADDRESS + 1
    inside = base.zero_extend(wide) + guest.last.zero_extend(wide) <= private.last.zero_extend(wide)
    return (base >= 2) & inside & leads_to_the_vmm(guest, private, 1)


def base(form: str, semantics: Semantics, *, gives: Any = None, **changed: Any) -> Made:
    """The machine with one more form.

    Args:
        gives: names of what the hardware has from the guest besides.
        changed: of the technique, or (`invariant`, `interruptions`) of the machine.
    """
    paper: Any = build()
    plain = paper.technique()

    def image(guest: Timed, private: Timed) -> Timed:
        hardware: Timed = plain.map(guest, private)
        for name in ("x", *(gives or ())):
            hardware[name] = guest[name]
        return hardware

    ours = {name: changed.pop(name) for name in ("invariant", "interruptions") if name in changed}
    given: dict[str, Any] = {"map": image, **changed}
    made: Technique[Timed] = attrs.evolve(plain, **given)
    machine: Made = attrs.evolve(
        paper,
        name="timed",
        state=Timed,
        techniques={made.name: made},
        instructions={one: paper.instructions[one] for one in ("MOVE a, b", "SVC", "LPSW a")},
        architecture=None,
        **ours,
    )
    machine.instruction(form)(semantics)
    return machine


def _strap(cpu: Timed, a: Word) -> None:
    """E[a] := the strap of LPSW."""
    cpu.store(a, cpu.straps.lpsw.zero_extend(WORD))


def straps_as_set() -> Made:
    """The guest's own machine is strapped as the settings say, and so is the real one."""
    return base("STRAP a", _strap, private=_fits_alone)


def straps_of_its_own() -> Made:
    """The guest's own machine may be strapped in any way, and the hardware shows its own."""
    return base("STRAP a", _strap, private=_fits_alone, guest_settings={"LPSW": None})


def straps_given() -> Made:
    """So it may, and the hardware shows the guest's."""
    return base(
        "STRAP a",
        _strap,
        gives=("straps.lpsw",),
        private=_fits_alone,
        guest_settings={"LPSW": None},
    )


def leaves_what_exists() -> Made:
    """No state has x = 1, says the invariant, and a program gets there; what it does then nobody asked."""

    def go(cpu: Timed) -> None:
        cpu.x = Word(1, 1)

    machine = base("GO", go, invariant=lambda state: state.x == 0)

    @machine.instruction("LEAK a")
    def leak(cpu: Timed, a: Word) -> None:
        cpu.store(a, ite(cpu.x == 1, cpu.relocation.base, Word(ADDRESS, 0)).zero_extend(WORD))

    return machine


def leaves_it_by_the_kernel() -> Made:
    """The same form, privileged: on the hardware nothing leaves it, and the monitor need not follow."""

    def go(cpu: Timed) -> None:
        if cpu.mode == 1:
            raise Fault(PRIVILEGED_TRAP)
        cpu.x = Word(1, 1)

    return base("GO", go, invariant=lambda state: state.x == 0)


def dirty_base() -> Made:
    """In user mode R's base := 0, and a trap: the monitor has lost it."""

    def dirty(cpu: Timed) -> None:
        if cpu.mode == 1:
            cpu.relocation.base = Word(ADDRESS, 0)
            raise Fault(PRIVILEGED_TRAP, keeps=True)

    return base("DIRTY", dirty)


def not_deprivileged() -> Made:
    """The map leaves the guest in the supervisor mode that it believes in; SVC alone reaches the monitor."""
    plain: Any = build().technique()

    def image(guest: Timed, private: Timed) -> Timed:
        hardware: Timed = plain.map(guest, private)
        hardware.mode, hardware.x = guest.mode, guest.x
        return hardware

    machine = base("NOP", lambda cpu: None, map=image)
    del machine.instructions["LPSW a"]
    return machine


def _stored(cpu: Timed) -> None:
    cpu.memory = cpu.memory.store(Word(ADDRESS, 2), cpu.psw)
    cpu.memory = cpu.memory.store(Word(ADDRESS, 4), cpu.clock.zero_extend(WORD))
    cpu.load_psw(cpu.memory.load(Word(ADDRESS, 3)))


def _interrupted(enter: Semantics) -> Made:
    def entered(state: Timed, given: Any) -> Timed:
        cpu = state.copy()
        enter(cpu)
        return cpu

    plain: Any = build().technique()
    return base(
        "NOP",
        lambda cpu: None,
        interruptions=(Interruption("tick", lambda state, given: state.clock == 0, entered),),
        private=lambda guest, private: (
            plain.private(guest, private)
            & (private.relocation.base >= 16)
            & leads_to_the_vmm(guest, private, 3)
        ),
    )


def clock_in_the_interrupt() -> Made:
    """A tick at clock 0, and the clock goes into the monitor's storage: of interrupts Theorem 2 says nothing."""
    return _interrupted(_stored)


def into_supervisor_mode() -> Made:
    """A tick puts the program into supervisor mode where it is."""

    def enter(cpu: Timed) -> None:
        cpu.mode = Word(1, 0)

    return _interrupted(enter)


MACHINES = {
    "straps as set": straps_as_set,
    "straps of its own": straps_of_its_own,
    "straps given": straps_given,
    "leaves what exists": leaves_what_exists,
    "leaves it by the kernel": leaves_it_by_the_kernel,
    "dirty base": dirty_base,
    "not deprivileged": not_deprivileged,
    "clock in the interrupt": clock_in_the_interrupt,
    "into supervisor mode": into_supervisor_mode,
}
