"""What holds of each step in which an interrupt may reach a guest under VT-x: claims for an induction.

The processor's and the VMM's steps, each instruction of the guest on the machine's own semantics, and for each VM
entry that no entry check fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from popek.kernel.exploration import Path
from popek.kernel.instruction import Instruction
from popek.kernel.interrupts import Claim, Interrupts
from popek.kernel.outcome import Next, Outcome
from popek.kernel.words import FALSE, TRUE, Word, symbol

from ..capability_files import load_capabilities
from ..formulas import Formulas
from . import interrupts
from .interrupt_traces import (
    PRESET,
    STATEMENTS,
    VALID_ENTRY,
    base_vmcs,
    concerned_checks,
    described,
    machine_with_vmx,
    successors,
)
from .interrupts import CONTROLS, DUTIES, VmxInterruptSetup, VmxWorld
from .state import VmxIa32

TOUCHING: Final = (
    *("STI", "CLI", "POPF", "HLT", "IRET", "INT n", "INT3", "INTO", "INT1"),
    *("MOV sreg", "POP sreg", "SYSENTER"),
)
"""Mnemonics that change RFLAGS.IF, blocking or the activity state."""


STI_BLOCKS: Final = "sti-blocks-nmi-window"


def setup_of(dropped: frozenset[str], choices: Mapping[str, int]) -> VmxInterruptSetup:
    """A setup without these controls and duties."""
    return VmxInterruptSetup(dropped, bool(choices.get(STI_BLOCKS, 1)))


def steps(setup: VmxInterruptSetup) -> Iterator[tuple[str, list[Claim]]]:
    """The base case, and the steps that are no instruction."""
    yield "base", [("invariant", TRUE, interrupts.invariant(interrupts.start(), setup))]
    yield "boundary", _boundary_claims(setup)
    yield "emulation", _emulation_claims(setup)
    yield "exception", _exception_claims(setup)


def _boundary_claims(setup: VmxInterruptSetup) -> list[Claim]:
    world, arrivals = interrupts.anywhere(), interrupts.anything()
    step = interrupts.boundary(world, arrivals, setup)
    known = interrupts.invariant(world, setup)
    claims = [(name, known, kept) for name, kept in interrupts.promises(world, arrivals, step).items()]
    claims.append(("invariant", known, interrupts.invariant(step.after, setup)))
    assumed, failing = _entry_failures(step.entry, setup)
    claims.append((VALID_ENTRY, known & step.left & assumed, ~failing))
    return claims


def _emulation_claims(setup: VmxInterruptSetup) -> list[Claim]:
    """An instruction leaves the guest; the VMM does it, changes IF as it may, and enters again."""
    world, arrivals = interrupts.anywhere(), interrupts.anything()
    after = attrs.evolve(interrupts.emulated(world), enabled=symbol("emulated IF", 1))
    made = interrupts.entry(after, arrivals, setup)
    valid, nmi = made.information[31] == 1, made.information[10:8] == interrupts.NMI_TYPE >> 8
    final = interrupts.delivered(made.world, valid & ~nmi, valid & nmi)
    known = interrupts.invariant(world, setup)
    assumed, failing = _entry_failures(made, setup)
    return [
        ("invariant", known, interrupts.invariant(final, setup)),
        ("masked", known, (~(valid & ~nmi) | after.open) & (~(valid & nmi) | after.nmi_open)),
        ("first-window", known, ~(after.waiting & after.open) | valid),
        ("first-window", known, ~(after.nmi_waiting & after.nmi_open) | (valid & nmi)),
        (VALID_ENTRY, known & assumed, ~failing),
    ]


def _exception_claims(setup: VmxInterruptSetup) -> list[Claim]:
    """The guest takes an exception through its own IDT."""
    world = interrupts.anywhere()
    kept = symbol("handler keeps IF", 1)
    after = attrs.evolve(interrupts.emulated(world), enabled=world.enabled & kept)
    return [("invariant", interrupts.invariant(world, setup), interrupts.invariant(after, setup))]


def _instruction_claims(
    setup: VmxInterruptSetup,
    instruction: Instruction,
    before: VmxIa32,
    paths: Sequence[Path[Outcome[VmxIa32]]],
) -> list[Claim]:
    """The invariant over each path that touches the guest's side; a VM exit is the step `emulation`."""
    world = interrupts.guest_side(before, interrupts.anywhere())
    assumed = (
        interrupts.invariant(world, setup)
        & (before.non_root == 1)
        & (before.halted == 0)
        & (before.pin.nmi_exiting == setup.has("nmi-exiting"))
        & (before.pin.virtual_nmis == setup.has("virtual-nmis"))
    )
    claims: list[Claim] = []
    for path in paths:
        if not isinstance(path.result, Next):
            continue  # a VM exit, an exception, or not modelled
        cpu = path.result.state
        after = interrupts.after_instruction(world, cpu, returns=instruction.mnemonic == "IRET")
        if not _touches(world, after):
            continue
        claims.append(("invariant", assumed & path.condition, interrupts.invariant(after, setup)))
    return claims


def _touches(before: VmxWorld, after: VmxWorld) -> bool:
    """Whether an instruction does more than end an interrupt shadow."""
    same = all(
        getattr(before, name).term is getattr(after, name).term
        for name in ("enabled", "halted", "nmi_blocked", "in_nmi")
    )
    return not same or after.sti.value != 0 or after.mov_ss.value != 0


def _entry_failures(made: interrupts.EntryWithEvent, setup: VmxInterruptSetup) -> tuple[Word, Word]:
    """That the symbols are the entry's fields, and that some check fails (width 1 each)."""
    fields = interrupts.entry_fields(made, setup, base_vmcs().fields)
    formulas = Formulas(base_vmcs(), load_capabilities(PRESET), fields)
    tied: Word = TRUE
    for name, value in fields.items():
        tied = tied & (formulas.symbols[name] == value)
    failing: Word = FALSE
    for check in concerned_checks():
        violated = formulas.violation(check)
        if violated is not None:
            failing = failing | violated
    return tied, failing


def words(world: VmxWorld) -> str:
    """The guest's side of a world in a few words."""
    parts = [f"IF = {int(world.enabled)}"]
    for name, said in (
        ("sti", "blocking by STI"),
        ("mov_ss", "blocking by MOV SS"),
        ("halted", "HLT"),
        ("in_nmi", "in its NMI handler"),
        ("waiting", "an interrupt waits"),
        ("nmi_waiting", "an NMI waits"),
    ):
        if int(getattr(world, name)):
            parts.append(said)
    return ", ".join(parts)


INTERRUPTS: Final = Interrupts(
    STATEMENTS,
    CONTROLS,
    DUTIES,
    {STI_BLOCKS: "the processor holds off NMI-window exits while STI blocks events"},
    TOUCHING,
    machine_with_vmx,
    setup_of,
    steps,
    _instruction_claims,
    interrupts.start,
    successors,
    described,
    words,
)
