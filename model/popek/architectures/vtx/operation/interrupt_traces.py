"""Steps of interrupts under VT-x on numbers: instructions that the machine executes, VM entries that are judged."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import attrs

from popek.kernel.interrupts import TraceStep
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next
from popek.kernel.words import TRUE, Word

from ..baselines import baseline
from ..capability_files import load_capabilities
from ..entry_checks import CHECKS, Check
from ..evaluation import Evaluator, reads
from ..vmcs import Launch, Vmcs
from . import interrupts
from . import machine as vmx
from .interrupts import PROMISES, Arrivals, VmxBoundary, VmxInterruptSetup, VmxWorld
from .state import VmxIa32

VALID_ENTRY: Final = "valid-entry"
STATEMENTS: Final[Mapping[str, str]] = {
    **PROMISES,
    VALID_ENTRY: "no VM entry fails an entry check",
    "invariant": "what joins the processor's state and the VMM's bookkeeping holds at every boundary",
}
"""What is proved of every trace, by name."""


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
    made = interrupts.entry(interrupts.start(), interrupts.quiet(), VmxInterruptSetup())
    fields = set(interrupts.entry_fields(made, VmxInterruptSetup(), base_vmcs().fields))
    return tuple(check for check in CHECKS.values() if fields & set(reads(check)))


def failing_checks(made: interrupts.EntryWithEvent, setup: VmxInterruptSetup) -> tuple[str, ...]:
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


def executed(name: str, world: VmxWorld, setup: VmxInterruptSetup) -> VmxWorld | None:
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
    parts = instruction.words({**operands, "operand length": length})
    outcome = machine.step(instruction, state, parts)
    return outcome.state if isinstance(outcome, Next) else None


def successors(world: VmxWorld, setup: VmxInterruptSetup) -> Iterator[TraceStep]:
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


def _exit_in_words(step: VmxBoundary) -> str:
    if not int(step.left):
        return ""
    return "the guest leaves at a window"


def described(world: VmxWorld) -> dict[str, int]:
    """A world of numbers by the names of its parts."""
    return {field.name: int(getattr(world, field.name)) for field in attrs.fields(VmxWorld)}
