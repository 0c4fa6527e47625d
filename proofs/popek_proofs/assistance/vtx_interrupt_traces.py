"""Traces of interrupts under VT-x on numbers: every reachable world, and a shortest way to a broken promise.

Breadth first over the worlds of `popek.architectures.vtx.operation.interrupts`, with instructions that the machine
executes and VM entries that the entry checks of `popek.architectures.vtx` judge; so a trace was replayed on
numbers when it is found.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import attrs

from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.entry_checks import CHECKS, Check
from popek.architectures.vtx.evaluation import Evaluator, reads
from popek.architectures.vtx.operation import interrupts
from popek.architectures.vtx.operation import machine as vmx
from popek.architectures.vtx.operation.interrupts import PROMISES, Arrivals, Setup, Step, World
from popek.architectures.vtx.operation.state import VmxIa32
from popek.architectures.vtx.vmcs import Launch, Vmcs
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next
from popek.kernel.words import TRUE, Word

VALID_ENTRY: Final = "valid-entry"
STATEMENTS: Final[Mapping[str, str]] = {
    **PROMISES,
    VALID_ENTRY: "no VM entry fails an entry check",
    "invariant": "what joins the processor's state and the VMM's bookkeeping holds at every boundary",
}
"""What is proved of every trace, by name."""


@attrs.frozen(eq=False)
class TraceStep:
    """One step of a trace.

    Attributes:
        event: what happens, in words.
        before, after: the worlds, of numbers.
        injected: the VM-entry interruption information, where the guest was left and entered again.
        given: what the guest was given: ``interrupt``, ``NMI`` or nothing.
        broken: the promises that this step breaks, or the entry checks that fail.
    """

    event: str
    before: World
    after: World
    injected: int | None
    given: str
    broken: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "event": self.event,
            "before": described(self.before),
            "after": described(self.after),
            "injected": None if self.injected is None else hex(self.injected),
            "given": self.given or None,
            "broken": list(self.broken),
        }


@attrs.frozen(eq=False)
class Trace:
    """A shortest trace from reset that breaks a promise."""

    promise: str
    steps: tuple[TraceStep, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"promise": self.promise, "steps": [step.to_json() for step in self.steps]}


@cache
def machine_with_vmx() -> Machine[VmxIa32]:
    """The machine whose instructions the guest executes."""
    return vmx.build()


# -- the entry checks ---------------------------------------------------------------------------------

PRESET: Final = "bochs-tigerlake"
"""The processor whose entry checks are asked."""

_LAUNCH = Launch(launch_state="clear", current_vmcs=0x111000, vmxon_pointer=0x110000, x2apic=False)


@cache
def base_vmcs() -> Vmcs:
    """A VMCS that enters, which the worlds change."""
    return attrs.evolve(baseline("32-bit", load_capabilities(PRESET)), launch=_LAUNCH)


@cache
def concerned_checks() -> tuple[Check, ...]:
    """The checks that read a field that an entry here may change."""
    made = interrupts.entry(interrupts.start(), interrupts.quiet(), Setup())
    fields = set(interrupts.entry_fields(made, Setup(), base_vmcs().fields))
    return tuple(check for check in CHECKS.values() if fields & set(reads(check)))


def failing_checks(made: interrupts.Entry, setup: Setup) -> tuple[str, ...]:
    """Ids of the entry checks that a VM entry of numbers fails."""
    fields = {
        name: int(value) for name, value in interrupts.entry_fields(made, setup, base_vmcs().fields).items()
    }
    return _failing(tuple(sorted(fields.items())))


@cache
def _failing(fields: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    evaluator = Evaluator(load_capabilities(PRESET), concerned_checks())
    vmcs = attrs.evolve(base_vmcs(), fields={**base_vmcs().fields, **dict(fields)})
    return tuple(check.id for check in evaluator.run(vmcs).violated)


# -- traces on numbers --------------------------------------------------------------------------------

_GDT = struct.pack("<QQQ", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
_STACK = 0x8000
PROGRAM: Final[Mapping[str, tuple[str, Mapping[str, int], int]]] = {
    "CLC": ("CLC", {}, 1),
    "STI": ("STI", {}, 1),
    "CLI": ("CLI", {}, 1),
    "MOV SS, AX": ("MOV Sreg, r16", {"operand Sreg": 2, "operand r16": 0}, 2),
    "IRETD (IF = 1)": ("IRETD", {}, 1),
    "HLT": ("HLT", {}, 1),
}
"""What the guest of a trace may execute: form, operands, length in bytes."""

_EVENTS: Final[Mapping[str, Arrivals]] = {
    "": interrupts.quiet(),
    "an interrupt for the guest arrives": attrs.evolve(
        interrupts.quiet(), interrupt=TRUE, for_guest=TRUE, vector=Word(8, 0x30)
    ),
    "an NMI for the guest arrives": attrs.evolve(interrupts.quiet(), nmi=TRUE, nmi_for_guest=TRUE),
    "an interrupt of the host arrives": attrs.evolve(
        interrupts.quiet(), interrupt=TRUE, vector=Word(8, 0x31)
    ),
    "an NMI of the host arrives": attrs.evolve(interrupts.quiet(), nmi=TRUE),
}


def executed(name: str, world: World, setup: Setup) -> World | None:
    """The world after the guest executes an instruction of `PROGRAM`; None if it does not complete."""
    key = tuple(int(w) for w in (world.enabled, world.sti, world.mov_ss, world.nmi_blocked))
    after = _guest_after(name, key, int(setup.has("nmi-exiting")), int(setup.has("virtual-nmis")))
    return (
        None if after is None else interrupts.after_instruction(world, after, returns=name.startswith("IRET"))
    )


@cache
def _guest_after(name: str, side: tuple[int, ...], nmi_exiting: int, virtual_nmis: int) -> VmxIa32 | None:
    form, operands, length = PROGRAM[name]
    machine = machine_with_vmx()
    instruction = machine.instructions[form]
    enabled, sti, mov_ss, nmi_blocked = side
    state = VmxIa32.reset(
        non_root=1, cr0__pg=1, cr0__ne=1, cr4__vmxe=1, pin__nmi_exiting=nmi_exiting,
        pin__virtual_nmis=virtual_nmis, eflags__if=enabled, shadow__sti=sti, shadow__mov_ss=mov_ss,
        nmi_blocked=nmi_blocked, eax=0x10,
    )  # fmt: skip
    content = dict(enumerate(_GDT)) | dict(enumerate(struct.pack("<III", 0x1000, 0x08, 0x202), _STACK))
    state.memory = Memory(32, 8, content)
    widths = {part: width for operand in instruction.inputs for part, width in operand.part_names()}
    parts = {
        part: Word(width, {**operands, "operand length": length}[part]) for part, width in widths.items()
    }
    outcome = machine.step(instruction, state, parts)
    return outcome.state if isinstance(outcome, Next) else None


def successors(world: World, setup: Setup) -> Iterator[TraceStep]:
    """Every step from a world of numbers."""
    for event, arrivals in _EVENTS.items():
        step = interrupts.boundary(world, arrivals, setup)
        broken = tuple(
            name for name, kept in interrupts.promises(world, arrivals, step).items() if not int(kept)
        )
        if int(step.left):
            failed = failing_checks(step.entry, setup)
            if failed:
                broken = (*broken, VALID_ENTRY, *failed)
        given = "interrupt" if int(step.given) else "NMI" if int(step.nmi_given) else ""
        injected = int(step.entry.information) if int(step.left) else None
        told = event or _exit_in_words(step)
        if not int(step.runs):
            yield TraceStep(told, world, step.after, injected, given, broken)
        elif int(world.halted):
            yield TraceStep(event or "the guest stays halted", world, world, None, "", broken)
        else:
            for name in PROGRAM:
                after = executed(name, world, setup)
                if after is not None:
                    words = f"{event}; {name}" if event else name
                    yield TraceStep(words, world, after, None, "", broken)


def _exit_in_words(step: Step) -> str:
    if not int(step.left):
        return ""
    return "the guest leaves at a window"


def traces(setup: Setup) -> Iterator[Trace]:
    """A shortest trace for each promise that some trace breaks; the search sees every reachable world."""
    first = interrupts.start()
    reached: dict[tuple[int, ...], tuple[TraceStep, tuple[int, ...]] | None] = {first.key(): None}
    todo = deque([first])
    broken: dict[str, Trace] = {}
    while todo:
        world = todo.popleft()
        for step in successors(world, setup):
            for promise in step.broken:
                if promise in STATEMENTS and promise not in broken:
                    broken[promise] = Trace(promise, (*_path(reached, world), step))
            key = step.after.key()
            if key not in reached:
                reached[key] = (step, world.key())
                todo.append(step.after)
    yield from (broken[name] for name in STATEMENTS if name in broken)


def _path(
    reached: Mapping[tuple[int, ...], tuple[TraceStep, tuple[int, ...]] | None], world: World
) -> tuple[TraceStep, ...]:
    steps: list[TraceStep] = []
    back = reached[world.key()]
    while back is not None:
        steps.append(back[0])
        back = reached[back[1]]
    return tuple(reversed(steps))


def described(world: World) -> dict[str, int]:
    """A world of numbers by the names of its parts."""
    return {field.name: int(getattr(world, field.name)) for field in attrs.fields(World)}
