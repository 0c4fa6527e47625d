"""What holds of each step in which the processor itself delivers interrupts to a 64-bit guest: claims for an induction.

The processor's and the VMM's steps, and the guest's MOV to CR8 and the EOI and self-IPI registers of its x2APIC on the
machine's own semantics.
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
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import FALSE, TRUE, Word, concat, symbol

from . import machine as vmx
from . import virtual_interrupts as virtual
from .exits import VIRTUALIZED_EOI, VM_EXIT
from .state import VmxX64
from .virtual_apic import EOI, SELF_IPI, TPR, VIRR, VISR, VPPR, VTPR, highest, only
from .virtual_interrupts import (
    CONTROLS,
    DUTIES,
    PROMISES,
    VirtualArrivals,
    VirtualInterruptSetup,
    VirtualInterruptWorld,
)

STATEMENTS: Final[Mapping[str, str]] = {
    **PROMISES,
    "posted-stays": "a posted interrupt does not take the guest away",
    "invariant": "virtual-APIC page, guest interrupt status and the guest's own local APIC agree at every boundary",
}
"""What is proved of every trace, by name."""

RCX, RAX, RDX = "rcx", "rax", "rdx"
NOTHING: Final = Word(256, 0)
_PAGE = 12


@cache
def machine_with_vmx() -> Machine[VmxX64]:
    """The machine whose instructions the guest executes."""
    return vmx.build_64(exceptions=False)


def setup_of(dropped: frozenset[str], choices: Mapping[str, int]) -> VirtualInterruptSetup:
    """A setup without these controls and duties."""
    return VirtualInterruptSetup(dropped)


def steps(setup: VirtualInterruptSetup) -> Iterator[tuple[str, list[Claim]]]:
    """The base case, and the steps that are no instruction."""
    yield "base", [("invariant", TRUE, virtual.invariant(virtual.start(), setup))]
    world, arrivals = virtual.anywhere(), virtual.anything()
    step = virtual.boundary(world, arrivals, setup)
    known = virtual.invariant(world, setup)
    claims = [(name, known, kept) for name, kept in virtual.promises(world, arrivals, step).items()]
    claims.append(("posted-stays", known, ~arrivals.posts | ~step.left))
    claims.append(("invariant", known, virtual.invariant(step.after, setup)))
    yield "boundary", claims
    after, left = virtual.ended(world, setup)
    told = (world.told & only(world.svi)) != 0
    yield (
        "EOI",
        [
            ("end-told", known, ~told | left),
            ("invariant", known, virtual.invariant(after, setup)),
        ],
    )
    entered = virtual.by_the_vmm(world, NOTHING, setup)
    yield "emulation", [("invariant", known, virtual.invariant(entered, setup))]


def _controls_are(cpu: VmxX64, setup: VirtualInterruptSetup) -> Word:
    """The guest's controls are those in place, and its x2APIC is virtual (width 1)."""
    return (
        (cpu.non_root == 1)
        & (cpu.cs.rights.l == 1)
        & (cpu.primary.use_tpr_shadow == setup.has("use-tpr-shadow"))
        & (cpu.primary.cr8_load_exiting == 0)
        & (cpu.primary.interrupt_window_exiting == 0)
        & (cpu.primary.activate_secondary_controls == 1)
        & (cpu.secondary.virtual_interrupt_delivery == setup.has("virtual-interrupt-delivery"))
        & (cpu.secondary.virtualize_x2apic_mode == 1)
    )


def _instruction_claims(
    setup: VirtualInterruptSetup,
    instruction: Instruction,
    before: VmxX64,
    paths: Sequence[Path[Outcome[VmxX64]]],
) -> list[Claim]:
    """The invariant over each path on which the guest's local APIC changes; what else exits is the step `emulation`."""
    claims: list[Claim] = []
    world = virtual.guest_side(before, virtual.anywhere())
    assumed = virtual.invariant(world, setup) & _controls_are(before, setup)
    for path in paths:
        match path.result:
            case Next(after):
                leaves = False
            # Other exits are fault-like, or come before anything changed.
            case Trap(vector=trap, state=after) if (
                trap is VM_EXIT and after.exit_reason.value == VIRTUALIZED_EOI
            ):
                leaves = True
            case _:
                continue
        if after.virtual_apic is before.virtual_apic:
            continue
        for chosen, meant, priority in _meanings(instruction, before, world):
            given = assumed & chosen & path.condition
            if given.value == 0:
                continue
            seen = virtual.guest_side(after, world)
            done = attrs.evolve(seen, wanted=meant.wanted, serving=meant.serving)
            if leaves:  # VM entry evaluates anew
                done = virtual.by_the_vmm(done, NOTHING, setup)
            if priority is not None:
                claims.append(("masked", given, seen.task_priority == priority))
            claims.append(("invariant", given, virtual.invariant(done, setup)))
    return claims


def _meanings(
    instruction: Instruction, before: VmxX64, world: VirtualInterruptWorld
) -> Iterator[tuple[Word, VirtualInterruptWorld, Word | None]]:
    """What an instruction means to the guest's own local APIC: when, the world then, and the TPR where it is set."""
    if instruction.form == "MOV CR8, r64":
        written = before.gpr[symbol("operand r64", 4)]
        yield TRUE, world, concat(written[3:0], Word(4, 0))
    elif instruction.form == "WRMSR":
        number, written = before.read_register(1, 32), before.read_register(0, 32)
        yield number == TPR, world, written[7:0]
        yield number == EOI, _ended(world), None
        yield number == SELF_IPI, attrs.evolve(world, wanted=world.wanted | only(written[7:0])), None


def _ended(world: VirtualInterruptWorld) -> VirtualInterruptWorld:
    """The guest's own local APIC after an EOI."""
    return attrs.evolve(world, serving=world.serving & ~only(highest(world.serving)))


# -- traces on numbers ----------------------------------------------------------------------------------

_NUMBERS = (0x31, 0x45)
_EVENTS: Final[Mapping[str, VirtualArrivals]] = {
    "": VirtualArrivals(FALSE, FALSE, FALSE, Word(8, 0)),
    **{
        f"a device posts {vector:#x}": VirtualArrivals(TRUE, FALSE, FALSE, Word(8, vector))
        for vector in _NUMBERS
    },
    **{
        f"an interrupt for the guest arrives, {vector:#x}": VirtualArrivals(
            FALSE, TRUE, TRUE, Word(8, vector)
        )
        for vector in _NUMBERS
    },
    "an interrupt of the host arrives": VirtualArrivals(FALSE, TRUE, FALSE, Word(8, 0x31)),
}
PROGRAM: Final[Mapping[str, tuple[str, Mapping[str, int], Mapping[str, int]]]] = {
    "NOP": ("NOP", {}, {}),
    "STI": ("STI", {}, {}),
    "CLI": ("CLI", {}, {}),
    "MOV CR8 := 4": ("MOV CR8, r64", {"operand r64": 0}, {RAX: 4}),
    "MOV CR8 := 0": ("MOV CR8, r64", {"operand r64": 0}, {RAX: 0}),
    "EOI": ("WRMSR", {}, {RCX: EOI, RAX: 0, RDX: 0}),
}
"""What the guest of a trace may execute: form, operands, registers."""


def executed(
    name: str, world: VirtualInterruptWorld, setup: VirtualInterruptSetup
) -> tuple[VirtualInterruptWorld, bool] | None:
    """The world after the guest executes an instruction of `PROGRAM`, and whether it left; None if it faults."""
    form, operands, registers = PROGRAM[name]
    machine = machine_with_vmx()
    instruction = machine.instructions[form]
    state = VmxX64.reset(
        non_root=1, cr0__ne=1, cr4__vmxe=1, primary=0, primary__use_msr_bitmaps=1,
        primary__activate_secondary_controls=1, secondary__virtualize_x2apic_mode=1, rvi=int(world.rvi),
        svi=int(world.svi), recognized=int(world.recognized), rflags__if=int(world.enabled),
        shadow__sti=int(world.shadow), cr8=int(world.task_priority[7:4]),
        primary__use_tpr_shadow=int(setup.has("use-tpr-shadow")),
        secondary__virtual_interrupt_delivery=int(setup.has("virtual-interrupt-delivery")), **registers,
    )  # fmt: skip
    told = int(world.told) if int(setup.has("eoi-exit-bitmap")) else 0
    state.eoi_exit_bitmap = Memory(8, 1, {vector: told >> vector & 1 for vector in range(256)})
    state.virtual_apic = Memory(_PAGE, 8, _page(world))
    parts = instruction.words({**operands, "operand length": 3})
    outcome = machine.step(instruction, state, parts)
    left = isinstance(outcome, Trap) and outcome.vector is VM_EXIT
    if not left and not isinstance(outcome, Next):
        return None
    assert isinstance(outcome, (Next, Trap))
    after = virtual.guest_side(outcome.state, world)
    if name == "EOI":
        after = attrs.evolve(after, serving=_ended(world).serving)
    if name.startswith("MOV CR8"):
        after = attrs.evolve(after, task_priority=Word(8, registers[RAX] << 4))
    return (virtual.by_the_vmm(after, NOTHING, setup) if left else after), left


def _page(world: VirtualInterruptWorld) -> dict[int, int]:
    page = {VTPR: int(world.task_priority), VPPR: int(world.priority)}
    for base, vectors in ((VIRR, int(world.requested)), (VISR, int(world.in_service))):
        for byte in range(32):
            page[base + 16 * (byte // 4) + byte % 4] = vectors >> 8 * byte & 0xFF
    return page


def successors(world: VirtualInterruptWorld, setup: VirtualInterruptSetup) -> Iterator[TraceStep]:
    """Every step from a world of numbers."""
    for event, arrivals in _EVENTS.items():
        step = virtual.boundary(world, arrivals, setup)
        kept = dict(virtual.promises(world, arrivals, step))
        kept["posted-stays"] = ~arrivals.posts | ~step.left
        broken = tuple(name for name, holds in kept.items() if not int(holds))
        if int(step.given):
            yield TraceStep(
                f"the processor delivers {int(step.vector):#x}", world, step.after, None, "interrupt", broken
            )
        elif event:
            yield TraceStep(event, world, step.after, None, "", broken)
        elif int(step.runs):
            for name in PROGRAM:
                if name == "EOI" and int(world.serving) == 0:
                    continue
                done = executed(name, world, setup)
                if done is not None:
                    untold = name == "EOI" and int(world.told & only(world.svi)) and not done[1]
                    lost = ("end-told",) if untold else ()
                    yield TraceStep(name, world, done[0], None, "", broken + lost)


def described(world: VirtualInterruptWorld) -> dict[str, int]:
    """A world of numbers by the names of its parts."""
    return {field.name: int(getattr(world, field.name)) for field in attrs.fields(VirtualInterruptWorld)}


def words(world: VirtualInterruptWorld) -> str:
    """The guest's side of a world in a few words."""
    parts = [f"IF = {int(world.enabled)}"]
    if int(world.shadow):
        parts.append("in a shadow")
    if int(world.task_priority):
        parts.append(f"TPR {int(world.task_priority):#x}")
    for name, said in (("requested", "requested"), ("in_service", "in service"), ("posted", "posted")):
        vectors = [hex(n) for n in range(256) if int(getattr(world, name)) >> n & 1]
        if vectors:
            parts.append(f"{said}: {' '.join(vectors)}")
    return ", ".join(parts)


VIRTUAL_INTERRUPTS: Final = Interrupts(
    STATEMENTS,
    CONTROLS,
    DUTIES,
    {},
    ("MOV to CR", "WRMSR"),
    machine_with_vmx,
    setup_of,
    steps,
    _instruction_claims,
    virtual.start,
    successors,
    described,
    words,
)
