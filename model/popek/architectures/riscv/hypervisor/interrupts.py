"""How external interrupts reach a guest in VS: what holds of each step, for an induction over traces.

A device of the guest's interrupts the hart, HS takes it, and the VMM asks the guest in turn: hvip.VSEIP.  Which mode
takes what is the model's own rule (`interrupt_target`), on the hardware and on the guest's own machine.  Timer and
software interrupts go the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final

import attrs

from popek.kernel.exploration import Path
from popek.kernel.instruction import Instruction
from popek.kernel.interrupts import Claim, Interrupts, TraceStep
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Outcome
from popek.kernel.words import FALSE, TRUE, Word, ite, symbol

from ..machine import build
from ..state import SUPERVISOR, Rv64
from ..traps import interrupt_target

STATEMENTS: Final = {
    "invariant": "hvip says what waits for the guest, and HS keeps its own interrupts on",
    "masked": "the guest is interrupted only where its own machine would be",
    "first-window": "where its own machine would be interrupted, the guest is, unless the hart's own is first",
    "control": "an interrupt of the hart gives HS control, whatever the guest masks",
}
CONTROLS: Final = {
    "hideleg": "hideleg sends VS external interrupts to VS",
    "host-enable": "mie.SEIE is 1 while the guest runs, so that an interrupt of the hart's is taken",
}
DUTIES: Final = {
    "raise-hvip": "the VMM sets hvip.VSEIP when something waits for the guest",
    "clear-hvip": "the VMM clears hvip.VSEIP when the guest has told the device",
}
MNEMONICS: Final = (
    "SRET",
    *(f"{access} {csr}" for csr in ("sstatus", "sie", "sip") for access in ("CSRRW", "CSRRS", "CSRRC")),
)


@attrs.frozen
class HypervisorInterruptSetup:
    """What is in place."""

    dropped: frozenset[str] = frozenset()

    def has(self, name: str) -> Word:
        """Whether a control or a duty is (width 1)."""
        return Word(1, int(name not in self.dropped))


@attrs.frozen
class HypervisorWorld:
    """The guest's side and the VMM's (width 1 each).

    Attributes:
        user: the guest is in VU.
        sie: vsstatus.SIE; on its own machine mstatus.SIE.
        enabled: the guest's own SEIE.
        waits: a device of the guest's has asked for it, and the guest has not told it yet that it knows.
        raised: hvip.VSEIP.
        host: mie.SEIE.
    """

    user: Word
    sie: Word
    enabled: Word
    waits: Word
    raised: Word
    host: Word


@attrs.frozen
class HypervisorBoundary:
    """What happens at a boundary (width 1 each): HS takes control, the guest's handler does, or neither."""

    after: HypervisorWorld
    left: Word
    given: Word
    wanted: Word


def start() -> HypervisorWorld:
    """A guest in its kernel that has SEIE on and SIE off; nothing waits."""
    return HypervisorWorld(FALSE, FALSE, TRUE, FALSE, FALSE, TRUE)


def anywhere() -> HypervisorWorld:
    """A world of symbols."""
    return HypervisorWorld(*(symbol(f"world {field.name}", 1) for field in attrs.fields(HypervisorWorld)))


def invariant(world: HypervisorWorld) -> Word:
    """See `STATEMENTS` (width 1)."""
    return (world.raised == world.waits) & world.host


def hardware(world: HypervisorWorld, line: Word, setup: HypervisorInterruptSetup) -> Rv64:
    """The hart while the guest runs, with or without an interrupt of the hart's."""
    delegated = setup.has("hideleg")
    return Rv64.reset().with_changes(
        {
            "v": 1, "prv": ite(world.user, Word(2, 0), Word(2, SUPERVISOR)), "vsstatus.sie": world.sie,
            "mie.vsei": world.enabled, "mie.sei": world.host & setup.has("host-enable"), "hvip.vsei": world.raised,
            "lines.sei": line, "mideleg.sei": 1, "hideleg.vsei": delegated,
        }
    )  # fmt: skip


def own_machine(world: HypervisorWorld) -> Rv64:
    """The machine that the guest believes in: its firmware has delegated external interrupts."""
    return Rv64.reset().with_changes(
        {
            "prv": ite(world.user, Word(2, 0), Word(2, SUPERVISOR)), "mstatus.sie": world.sie,
            "mie.sei": world.enabled, "mip.sei": world.waits, "mideleg.sei": 1, "misa.h": 0,
        }
    )  # fmt: skip


def boundary(
    world: HypervisorWorld, line: Word, for_guest: Word, setup: HypervisorInterruptSetup
) -> HypervisorBoundary:
    """What is taken before the next instruction; HS, where it is, finds out what waits and enters again."""
    _, to_hs, to_vs = interrupt_target(hardware(world, line, setup))
    _, wanted, _ = interrupt_target(own_machine(world))
    waits = world.waits | (to_hs & line & for_guest)
    entered = attrs.evolve(world, user=world.user & ~to_vs, sie=world.sie & ~to_vs, waits=waits)
    raised = ite(to_hs & waits & setup.has("raise-hvip"), TRUE, world.raised)
    return HypervisorBoundary(attrs.evolve(entered, raised=raised), to_hs, to_vs, wanted)


def told(world: HypervisorWorld, setup: HypervisorInterruptSetup) -> HypervisorWorld:
    """The guest tells the device, which the VMM emulates."""
    raised = ite(setup.has("clear-hvip"), FALSE, world.raised)
    return attrs.evolve(world, waits=FALSE, raised=raised)


def promises(line: Word, step: HypervisorBoundary) -> Mapping[str, Word]:
    """Which promises a boundary keeps (width 1 each)."""
    return {
        "masked": ~step.given | step.wanted,
        "first-window": ~step.wanted | step.given | (step.left & line),
        "control": ~line | step.left,
    }


def steps(setup: HypervisorInterruptSetup) -> Iterator[tuple[str, Sequence[Claim]]]:
    """The base case, and the steps that are no instruction."""
    world, line, mine = anywhere(), symbol("an interrupt of the hart's", 1), symbol("for the guest", 1)
    yield "base", [("invariant", TRUE, invariant(start()))]
    step, known = boundary(world, line, mine, setup), invariant(world)
    claims: list[Claim] = [(name, known, kept) for name, kept in promises(line, step).items()]
    yield "boundary", [*claims, ("invariant", known, invariant(step.after))]
    yield "telling the device", [("invariant", known, invariant(told(world, setup)))]


def _guest_side(cpu: Rv64, world: HypervisorWorld) -> HypervisorWorld:
    return attrs.evolve(
        world, user=cpu.prv == 0, sie=cpu.vsstatus.sie, enabled=cpu.mie.vsei, raised=cpu.hvip.vsei, host=cpu.mie.sei
    )  # fmt: skip


def _instruction(
    setup: HypervisorInterruptSetup,
    instruction: Instruction,
    before: Rv64,
    paths: Sequence[Path[Outcome[Rv64]]],
) -> Sequence[Claim]:
    """No instruction of a guest's that completes raises or clears hvip.VSEIP, or masks HS."""
    world = _guest_side(before, anywhere())
    assumed = invariant(world) & before.v & (before.prv[1] == 0) & before.misa.h
    return [
        ("invariant", assumed & path.condition, invariant(_guest_side(path.result.state, world)) & path.result.state.v)
        for path in paths
        if isinstance(path.result, Next)
    ]  # fmt: skip


# -- traces on numbers ------------------------------------------------------------------------------

_SIE, _SEIE = 1 << 1, 1 << 9
PROGRAM: Final[Mapping[str, tuple[str, Mapping[str, int]]]] = {
    "SSTATUS.SIE := 1": ("CSRRS rd, sstatus, rs1", {"operand rs1": 5}),
    "SSTATUS.SIE := 0": ("CSRRC rd, sstatus, rs1", {"operand rs1": 5}),
    "SIE.SEIE := 1": ("CSRRS rd, sie, rs1", {"operand rs1": 6}),
    "SIE.SEIE := 0": ("CSRRC rd, sie, rs1", {"operand rs1": 6}),
    "SRET to VU": ("SRET", {}),
}
"""What the guest of a trace may execute: form and operands; x5 and x6 hold the bits."""
_EVENTS: Final = {
    "": (FALSE, FALSE),
    "an interrupt for the guest arrives": (TRUE, TRUE),
    "an interrupt of the hart's arrives": (TRUE, FALSE),
}


@cache
def machine() -> Machine[Rv64]:
    """`rv64`, made once."""
    return build()


def _executed(name: str, world: HypervisorWorld, setup: HypervisorInterruptSetup) -> HypervisorWorld | None:
    form, operands = PROGRAM[name]
    instruction = machine().instructions[form]
    cpu = hardware(world, FALSE, setup)
    cpu.x = Memory(5, 64, {5: _SIE, 6: _SEIE})
    words = {name: Word(width, operands.get(name, 0)) for name, width in instruction.widths.items()}
    outcome = machine().step(instruction, cpu, words)
    return _guest_side(outcome.state, world) if isinstance(outcome, Next) else None


def successors(world: HypervisorWorld, setup: HypervisorInterruptSetup) -> Iterator[TraceStep]:
    """Every step from a world of numbers."""
    for event, (line, mine) in _EVENTS.items():
        step = boundary(world, line, mine, setup)
        broken = tuple(name for name, kept in promises(line, step).items() if not int(kept))
        given = "interrupt" if int(step.given) else ""
        if int(step.left) or int(step.given):
            yield TraceStep(event or "the guest's handler begins", world, step.after, None, given, broken)
            continue
        if broken:
            yield TraceStep(event or "the guest goes on", world, step.after, None, given, broken)
        for name in PROGRAM if not int(world.user) else ():
            after = _executed(name, world, setup)
            if after is not None:
                yield TraceStep(f"{event}; {name}" if event else name, world, after, None, "", broken)
        if not event and int(world.waits):
            yield TraceStep("the guest tells the device", world, told(world, setup), None, "", broken)


def described(world: HypervisorWorld) -> Mapping[str, int]:
    """A world of numbers by the names of its parts."""
    return {field.name: int(getattr(world, field.name)) for field in attrs.fields(HypervisorWorld)}


def words(world: HypervisorWorld) -> str:
    """The guest's side of a world in a few words."""
    said = ["in VU" if int(world.user) else f"in VS, SIE = {int(world.sie)}", f"SEIE = {int(world.enabled)}"]
    if int(world.waits):
        said.append("an interrupt waits")
    if int(world.raised):
        said.append("hvip.VSEIP is 1")
    return ", ".join(said)


def _setup(dropped: frozenset[str], choices: Mapping[str, int]) -> HypervisorInterruptSetup:
    return HypervisorInterruptSetup(dropped)


INTERRUPTS: Final = Interrupts(
    STATEMENTS,
    CONTROLS,
    DUTIES,
    {},
    MNEMONICS,
    machine,
    _setup,
    steps,
    _instruction,
    start,
    successors,
    described,
    words,
)
