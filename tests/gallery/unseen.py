"""The paper's machine where something is left out of sight.

What an interrupt changes, cells that a guest is said not to have, interrupts let in by a trap that the monitor never
gets, and semantics that look whether they run on numbers.

`unseen.toml` says what each machine should get.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from popek.architectures.pg74.machine import build
from popek.architectures.pg74.state import ADDRESS, PRIVILEGED_TRAP, SUPERVISOR_CALL, WORD, Pg74
from popek.kernel.interruption import Interruption
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, Target, Trap
from popek.kernel.state import Role, memory, word
from popek.kernel.technique import Technique
from popek.kernel.words import FALSE, TRUE, Word, ite


class Hiding(Pg74):
    """The paper's state; words and a file of registers that the hardware has of the monitor, and a flag."""

    x = word(ADDRESS, role=Role.HIDDEN)
    r = word(ADDRESS, role=Role.RESOURCE)
    quiet = word(1, role=Role.RESOURCE)
    flag = word(1)
    regs = memory(address=2, cell=ADDRESS, role=Role.GENERAL)


Made = Machine[Hiding]
Semantics = Callable[..., None]
_PAPERS: Any = build()


def _privileged(cpu: Hiding) -> None:
    if cpu.mode == 1:
        raise Fault(PRIVILEGED_TRAP)


def _deliver(before: Hiding, trap: Trap[Hiding]) -> Hiding:
    made: Hiding = _PAPERS.deliver(before, trap)
    return made


def base(
    forms: dict[str, Semantics],
    *,
    tick: Semantics | None = None,
    takes: Callable[..., Word] = lambda state, given: TRUE,
    deliver: Any = _deliver,
    **technique: Any,
) -> Made:
    """The machine with some forms, and an interrupt that exchanges PSWs by E[2] and E[3] after something else."""
    plain = _PAPERS.technique()

    def image(guest: Hiding, private: Hiding) -> Hiding:
        hardware: Hiding = plain.map(guest, private)
        hardware.quiet, hardware.flag = guest.quiet, guest.flag
        return hardware

    def enter(state: Hiding, given: Any) -> Hiding:
        cpu = state.copy()
        assert tick is not None
        tick(cpu)
        cpu.memory = cpu.memory.store(Word(ADDRESS, 2), cpu.psw)
        cpu.load_psw(cpu.memory.load(Word(ADDRESS, 3)))
        return cpu

    given: dict[str, Any] = {
        "map": image,
        "private": lambda guest, private: (
            plain.private(guest, private)
            & (private.relocation.base >= 16)
            & (private.memory.load(Word(ADDRESS, 3)) == 0xFF)
        ),
        "has_cell": lambda guest, name, cell: FALSE,
        **technique,
    }
    made: Technique[Hiding] = attrs.evolve(plain, **given)
    machine: Made = attrs.evolve(
        _PAPERS,
        name="hiding",
        state=Hiding,
        techniques={made.name: made},
        instructions={one: _PAPERS.instructions[one] for one in ("MOVE a, b", "SVC", "LPSW a")},
        deliver=deliver,
        interruptions=(Interruption("tick", takes, enter),) if tick is not None else (),
        architecture=None,
    )
    for form, semantics in forms.items():
        machine.instruction(form)(semantics)
    return machine


def _get(name: str) -> dict[str, Semantics]:
    def get(cpu: Hiding, a: Word) -> None:
        _privileged(cpu)
        cpu.store(a, cpu[name].zero_extend(WORD))

    return {"GET a": get}


def nothing_changes_it() -> Made:
    """A kernel reads x, and nothing changes it: it is as the machine was built."""
    return base(_get("x"), tick=lambda cpu: None)


def the_interrupt_changes_it() -> Made:
    """A kernel reads x, which an interrupt sets to P: what the guest's is, is nowhere."""

    def tick(cpu: Hiding) -> None:
        cpu.x = cpu.pc

    return base(_get("x"), tick=tick)


def the_interrupt_changes_a_resource() -> Made:
    """The same of a resource."""

    def tick(cpu: Hiding) -> None:
        cpu.r = cpu.r + 1

    return base(_get("r"), tick=tick)


def _registers(there: Callable[..., Word]) -> Made:
    def put(cpu: Hiding, a: Word) -> None:
        _privileged(cpu)
        cpu.regs = cpu.regs.store(Word(2, 1), a)

    def get(cpu: Hiding, a: Word) -> None:
        _privileged(cpu)
        cpu.store(a, cpu.regs.load(Word(2, 1)).zero_extend(WORD))

    owned = (*_PAPERS.technique().owned, "regs")
    return base({"PUT a": put, "GET a": get}, has_cell=there, owned=owned)


def said_to_be_absent() -> Made:
    """A kernel writes and reads a register that the technique says no guest has."""
    return _registers(lambda guest, name, cell: FALSE)


def absent_at_times() -> Made:
    """It says so of the guests whose flag is off, and they do not look; a program turns it."""

    def get(cpu: Hiding, a: Word) -> None:
        _privileged(cpu)
        cpu.store(a, ite(cpu.flag == 1, cpu.regs.load(Word(2, 1)), Word(ADDRESS, 0)).zero_extend(WORD))

    def turn(cpu: Hiding) -> None:
        cpu.flag = ~cpu.flag

    plain = _PAPERS.technique()
    return base(
        {"GET a": get, "TURN": turn},
        has_cell=lambda guest, name, cell: guest.flag == 1,
        shadowed=(*plain.shadowed, "regs"),
        owned=(*plain.owned, "regs"),
    )


def others_are_absent() -> Made:
    """No guest has the register beside the one that it uses; and the monitor keeps the file for it."""

    def put(cpu: Hiding, a: Word) -> None:
        _privileged(cpu)
        cpu.regs = cpu.regs.store(Word(2, 1), a)

    def get(cpu: Hiding, a: Word) -> None:
        _privileged(cpu)
        cpu.store(a, cpu.regs.load(Word(2, 1)).zero_extend(WORD))

    plain = _PAPERS.technique()
    return base(
        {"PUT a": put, "GET a": get},
        has_cell=lambda guest, name, cell: cell == 1,
        shadowed=(*plain.shadowed, "regs"),
        owned=(*plain.owned, "regs"),
    )


def storage_behind_the_last() -> Made:
    """A kernel keeps something in E[255], behind the last location that exists: its virtual machine has none there."""

    def put(cpu: Hiding, a: Word) -> None:
        _privileged(cpu)
        cpu.memory = cpu.memory.store(Word(ADDRESS, 255), a.zero_extend(WORD))

    def get(cpu: Hiding, a: Word) -> None:
        _privileged(cpu)
        cpu.store(a, cpu.memory.load(Word(ADDRESS, 255)))

    return base({"PUT a": put, "GET a": get})


def _passed(released: Callable[[Hiding], Word]) -> Made:
    """A supervisor call is the program's own, and lets interrupts in."""

    def deliver(before: Hiding, trap: Trap[Hiding]) -> Hiding:
        if trap.vector != SUPERVISOR_CALL:
            return _deliver(before, trap)
        cpu = trap.state.copy()
        cpu.quiet = ite(released(cpu), Word(1, 0), cpu.quiet)
        return cpu

    plain = _PAPERS.technique()
    return base(
        {},
        tick=lambda cpu: None,
        takes=lambda state, given: (state.mode == 1) | ~state.quiet,
        deliver=deliver,
        guests_own=("quiet",),
        owned=plain.owned,
        target=lambda trap: Target.GUEST if trap.vector == SUPERVISOR_CALL else Target.VMM,
    )


def let_in_by_a_call() -> Made:
    """In supervisor mode quiet = 1 holds the tick off, and the call ends that."""
    return _passed(lambda cpu: TRUE)


def let_in_by_one_call() -> Made:
    """The call at location 7 does."""
    return _passed(lambda cpu: cpu.pc == 7)


def quiet_as_before() -> Made:
    """No call does."""
    return _passed(lambda cpu: FALSE)


MACHINES = {
    "nothing changes it": nothing_changes_it,
    "the interrupt changes it": the_interrupt_changes_it,
    "the interrupt changes a resource": the_interrupt_changes_a_resource,
    "said to be absent": said_to_be_absent,
    "absent at times": absent_at_times,
    "others are absent": others_are_absent,
    "storage behind the last": storage_behind_the_last,
    "let in by a call": let_in_by_a_call,
    "let in by one call": let_in_by_one_call,
    "quiet as before": quiet_as_before,
}


def _asks_whether_it_runs(cpu: Hiding) -> None:
    if cpu.pc.concrete:
        cpu.mode = Word(1, 0)


def _looks_inside(cpu: Hiding) -> None:
    if isinstance(cpu.pc.value, int):
        raise Fault(PRIVILEGED_TRAP)


TWO_FACED = {"asks whether it runs": _asks_whether_it_runs, "looks inside": _looks_inside}
