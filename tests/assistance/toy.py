"""A toy assistance on the paper's machine: a guest bit, a register of the VMM's that LRA shows, and two controls."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from popek.architectures.pg74.machine import Pg74, build
from popek.kernel.assistance import PRIVATE, Arrangement, Assistance, Control, Ownable
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, Target, Vector
from popek.kernel.state import Register, Role, bit, register, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word

EXIT, CONTROLS = Vector("exit", 9), ("lra_exiting", "shift_exiting")


class Controls(Register):
    lra_exiting = bit(0)
    shift_exiting = bit(1)


class Toy(Pg74):
    """The paper's machine, whose storage lies `shift` locations further on in a bigger one."""

    guest = word(1, role=Role.MODE)
    shift = word(8, role=Role.RESOURCE)
    controls = register(Controls, 2, role=Role.RESOURCE)


def exit_if(cpu: Toy, control: Word) -> None:
    if cpu.guest & control:
        raise Fault(EXIT)


def load_real_address(cpu: Toy, a: Word, b: Word) -> None:
    exit_if(cpu, cpu.controls.lra_exiting)
    cpu.store(a, (cpu.real_address(b) + cpu.shift).zero_extend(32))


def set_shift(cpu: Toy, a: Word) -> None:
    exit_if(cpu, cpu.controls.shift_exiting)
    cpu.shift = cpu.load(a)[7:0]


def machine() -> Machine[Toy]:
    made = attrs.evolve(build(), name="toy", title="pg74 with guests", state=Toy, relocate=None)
    made.supervisor = lambda state: (state.guest == 0) & (state.mode == 0)
    made.instructions.pop("LRA a, b")
    made.instruction("LRA a, b")(load_real_address)
    made.instruction("SSHIFT a")(set_shift)
    return made


def arrange(owns: frozenset[str], controls: Mapping[str, Word], masks: Mapping[str, int]) -> Arrangement[Toy]:
    def map_(guest: Toy, private: Toy) -> Toy:
        shift = {"shift": private.shift} if "shift" in owns else {}
        controls = {f"controls.{name}": private[f"controls.{name}"] for name in CONTROLS}
        return guest.with_changes({"guest": 1, **shift, **controls})

    owned = ("guest", *(["shift"] if "shift" in owns else []))
    technique: Technique[Toy] = Technique(
        "toy", "a guest bit", map_, owned, owned, lambda state: (state.guest == 1) & (state.mode == 0),
        replaced=owned[1:], guest=lambda guest: guest.guest == 0,
        target=lambda trap: Target.VMM if trap.vector is EXIT else Target.GUEST, settled=True, uncompared=(),
    )  # fmt: skip
    private = Toy.symbolic(PRIVATE).with_changes({f"controls.{n}": value for n, value in controls.items()})
    return Arrangement(technique, private, lambda state: state.with_changes({"guest": 0}))


TOY = Assistance[Toy](
    "toy", "the paper's machine with a guest bit", machine, (build, "ring-deprivileging"),
    tuple(Control(name, leaf=f"controls.{name}") for name in CONTROLS),
    {"shift": Ownable("where guests are in storage", ("shift",))}, frozenset({"shift"}),
    lambda owns, assume, lacks: owns, arrange,
    is_exit=lambda trap: trap.vector is EXIT, touches=("guest",), source="a test",
)  # fmt: skip
