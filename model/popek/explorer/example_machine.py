"""A machine to begin with: an accumulator, a timer and a mode; GETT is the mistake."""

from popek import Fault, Machine, Role, State, Technique, Vector, Word, word

PRIVILEGED = Vector("privileged-instruction trap", 1)


class Toy(State):
    """All there is."""

    mode = word(1, role=Role.MODE)  # 0 supervisor, 1 user
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
    "A toy",
    Toy,
    supervisor=lambda state: state.mode == 0,
    user=lambda state: state.mode == 1,
    techniques={technique.name: technique},
)


@toy.instruction("INC")
def inc(cpu: Toy) -> None:
    """acc := acc + 1."""
    cpu.acc = cpu.acc + 1


@toy.instruction("SETT")
def set_timer(cpu: Toy) -> None:
    """timer := acc; privileged."""
    if cpu.mode == 1:
        raise Fault(PRIVILEGED)
    cpu.timer = cpu.acc


@toy.instruction("GETT")
def get_timer(cpu: Toy) -> None:
    """acc := timer, in any mode: the mistake."""
    cpu.acc = cpu.timer
