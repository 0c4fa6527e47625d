"""The paper's machine with a supervisor call that goes to the program's own handler, and where that is but said.

The call stores P in `old` and takes the next P from `handler`; the mode stays.  The technique says that it goes to the
guest.  `passed_on.toml` says what each machine should get.
"""

from __future__ import annotations

from typing import Any

import attrs

from popek.architectures.pg74.machine import ADDRESS, SUPERVISOR_CALL, Pg74, build
from popek.kernel.machine import Machine
from popek.kernel.outcome import Target, Trap
from popek.kernel.state import Role, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word, ite


class Sending(Pg74):
    """The paper's state and where a call goes."""

    old = word(ADDRESS)
    handler = word(ADDRESS)
    called = word(1, role=Role.RESOURCE)


Made = Machine[Sending]
_PAPERS: Any = build().deliver


def deliver(before: Sending, trap: Trap[Sending]) -> Sending:
    """A call to the handler; all else exchanges PSWs."""
    if trap.vector != SUPERVISOR_CALL:
        return exchange(before, trap)
    cpu = trap.state.copy()
    cpu.old, cpu.pc = cpu.pc, cpu.handler
    return cpu


def exchange(before: Sending, trap: Trap[Sending]) -> Sending:
    """The paper's trap."""
    made: Sending = _PAPERS(before, trap)
    return made


def base(delivering: Any = deliver, own: tuple[str, ...] = ()) -> Made:
    """The machine as it should be, but for its delivery and for what the control program has values of its own in."""
    paper = build()
    plain = paper.technique()
    owned = ("called", *own)

    def image(guest: Sending, private: Sending) -> Sending:
        hardware = plain.map(guest, private)
        for name in ("old", "handler", "called"):
            hardware[name] = (private if name in owned else guest)[name]
        return hardware

    technique: Technique[Sending] = attrs.evolve(
        plain,
        map=image,
        owned=(*plain.owned, *owned),
        shadowed=(*plain.shadowed, *owned),
        replaced=(*plain.replaced, *owned),
        target=lambda trap: Target.GUEST if trap.vector == SUPERVISOR_CALL else Target.VMM,
    )
    return attrs.evolve(
        paper,
        name="sending",
        state=Sending,
        techniques={technique.name: technique},
        instructions={form: paper.instructions[form] for form in ("JUMP a", "SVC", "LPSW a")},
        deliver=delivering,
        architecture=None,
    )


def exchanges() -> Made:
    """It is the paper's trap after all: into E[0] and wherever E[1] says, in the mode that it says."""
    return base(exchange)


def enters_supervisor_mode() -> Made:
    """To the handler, and in supervisor mode."""

    def delivering(before: Sending, trap: Trap[Sending]) -> Sending:
        cpu = deliver(before, trap)
        if trap.vector == SUPERVISOR_CALL:
            cpu.mode = Word(1, 0)
        return cpu

    return base(delivering)


def another_handler() -> Made:
    """The handler is the control program's: the guest is sent where it says, and sees where that is."""
    return base(own=("handler",))


def noted_natively() -> Made:
    """In supervisor mode alone a call is noted: the guest's own machine notes it, and the hardware does not."""

    def delivering(before: Sending, trap: Trap[Sending]) -> Sending:
        cpu = deliver(before, trap)
        if trap.vector == SUPERVISOR_CALL:
            cpu.called = ite(cpu.mode == 0, Word(1, 1), cpu.called)
        return cpu

    return base(delivering)


def noted_always() -> Made:
    """A call is noted in what the control program owns."""

    def delivering(before: Sending, trap: Trap[Sending]) -> Sending:
        cpu = deliver(before, trap)
        if trap.vector == SUPERVISOR_CALL:
            cpu.called = Word(1, 1)
        return cpu

    return base(delivering)


MACHINES = {
    "as it should be": base,
    "exchanges": exchanges,
    "enters supervisor mode": enters_supervisor_mode,
    "another handler": another_handler,
    "noted natively": noted_natively,
    "noted always": noted_always,
}
