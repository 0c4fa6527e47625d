"""A machine of a user's own, with texts that a page must not take for markup."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, Vector
from popek.kernel.state import Role, State, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word

PRIVILEGED = Vector("privileged-instruction trap", 1)


class Toy(State):
    """An accumulator, a timer and a mode."""

    mode = word(1, role=Role.MODE)
    acc = word(8, role=Role.GENERAL)
    timer = word(8, role=Role.RESOURCE)


def deprivileged(guest: Toy, private: Toy) -> Toy:
    """The guest runs in user mode; the VMM keeps the timer."""
    hardware = guest.copy()
    hardware.mode, hardware.timer = Word(1, 1), private.timer
    return hardware


technique = Technique(
    "ring-deprivileging",
    "the guest in user mode",
    map=deprivileged,
    owned=("mode", "timer"),
    replaced=("timer",),
    shadowed=("mode", "timer"),
    deprivileged=lambda state: state.mode == 1,
)
toy = Machine(
    "toy",
    "A toy </script><b>&amp; more",
    Toy,
    supervisor=lambda state: state.mode == 0,
    user=lambda state: state.mode == 1,
    techniques={technique.name: technique},
)


@toy.instruction("INC", source="the manual, page 1")
def inc(cpu: Toy) -> None:
    """acc := acc + 1 <!-- no comment -->."""
    cpu.acc = cpu.acc + 1


@toy.instruction("DINC", source="the manual, page 1", mnemonic="INC")
def dinc(cpu: Toy) -> None:
    """acc := acc + 2; a form whose mnemonic is the name of another form."""
    cpu.acc = cpu.acc + 2


@toy.instruction("SETT", source="the manual, page 2")
def set_timer(cpu: Toy) -> None:
    """timer := acc; privileged."""
    if cpu.mode == 1:
        raise Fault(PRIVILEGED)
    cpu.timer = cpu.acc


@toy.instruction("GETT", "GETT now", source="the manual, page 3")
def get_timer(cpu: Toy) -> None:
    """acc := timer, in any mode: the mistake."""
    cpu.acc = cpu.timer
