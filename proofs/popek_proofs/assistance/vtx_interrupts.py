"""Interrupts under VT-x, proved by induction over traces, and what breaks when a control is dropped.

`prove` asks the base case and every step as questions to Z3: the processor's and the VMM's steps, each
instruction of the guest on the machine's own semantics, and for each VM entry that no entry check of
`popek.architectures.vtx` fails.  Where a control or a duty of the VMM is dropped, the shortest trace from reset
that breaks a promise comes from `popek_proofs.assistance.vtx_interrupt_traces`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

import attrs

from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.operation import interrupts
from popek.architectures.vtx.operation.interrupts import PROMISES, Setup, World
from popek.architectures.vtx.operation.state import VmxIa32
from popek.checks.runs import Run, explore_instruction
from popek.checks.verdict import Evidence, Question, Status, evidence_of
from popek.kernel.instruction import Instruction
from popek.kernel.machine import UnknownNameError
from popek.kernel.outcome import Next
from popek.kernel.words import FALSE, TRUE, Word, symbol
from popek.solving.solver import Answer, Effort
from popek.architectures.vtx.formulas import Formulas

from .vtx_interrupt_traces import (
    PRESET,
    STATEMENTS,
    VALID_ENTRY,
    Trace,
    base_vmcs,
    concerned_checks,
    machine_with_vmx,
    traces,
)

TOUCHING: Final = (
    *("STI", "CLI", "POPF", "HLT", "IRET", "INT n", "INT3", "INTO", "INT1"),
    *("MOV sreg", "POP sreg", "SYSENTER"),
)
"""Mnemonics that change RFLAGS.IF, blocking or the activity state; `prove` takes all forms if asked."""


@attrs.frozen(eq=False)
class Row:
    """One question of the induction.

    Attributes:
        promise: of `STATEMENTS`.
        step: ``base``, ``boundary``, ``emulation``, ``exception``, or an instruction form of the guest.
        status: whether it holds.
        evidence: what was asked, hash and answer; None where the step does not touch anything.
    """

    promise: str
    step: str
    status: Status
    evidence: Evidence | None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "promise": self.promise,
            "step": self.step,
            "verdict": self.status.value,
            "evidence": None if self.evidence is None else self.evidence.to_json(),
        }


@attrs.frozen(eq=False)
class Result:
    """What became of the induction.

    Attributes:
        setup: the controls and duties in place.
        rows: its questions.
        traces: for promises that are broken, how.
        seconds: time spent.
    """

    setup: Setup
    rows: tuple[Row, ...]
    traces: tuple[Trace, ...]
    seconds: float

    @property
    def promises(self) -> list[tuple[str, str, Status]]:
        """Each promise: name, statement, and what became of it."""
        return [(name, STATEMENTS[name], self.status(name)) for name in (*PROMISES, VALID_ENTRY)]

    def status(self, promise: str) -> Status:
        """Holds if every question about it does, and the invariant; refuted only with a trace."""
        if any(trace.promise == promise for trace in self.traces):
            return Status.REFUTED
        mine = [row.status for row in self.rows if row.promise in (promise, "invariant")]
        return Status.HOLDS if mine and all(status is Status.HOLDS for status in mine) else Status.UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "dropped": sorted(self.setup.dropped),
            "promises": [
                {"promise": name, "statement": statement, "verdict": status.value}
                for name, statement, status in self.promises
            ],
            "rows": [row.to_json() for row in self.rows],
            "traces": [trace.to_json() for trace in self.traces],
        }


def setup_of(dropped: Sequence[str], *, sti_blocks_nmi_window: bool = True) -> Setup:
    """A setup without these controls and duties.

    Raises:
        UnknownNameError: no such control or duty.
    """
    known = [*interrupts.CONTROLS, *interrupts.DUTIES]
    for name in dropped:
        if name not in known:
            raise UnknownNameError("control or duty", name, known)
    return Setup(frozenset(dropped), sti_blocks_nmi_window)


# -- the induction ------------------------------------------------------------------------------------


def prove(setup: Setup, forms: Sequence[str] | None = None, effort: Effort | None = None) -> Result:
    """The induction, and a shortest trace for each promise that a dropped control or duty breaks.

    Args:
        setup: what is in place.
        forms: instruction forms or mnemonics of the guest; `TOUCHING` by default, and ``all`` means every one.
        effort: bounds of the solver.

    Raises:
        UnknownNameError: no such form.
    """
    started = time.monotonic()
    rows = [
        *_asked("base", [("invariant", TRUE, interrupts.invariant(interrupts.start(), setup))], effort),
        *_asked("boundary", _boundary_claims(setup), effort),
        *_asked("emulation", _emulation_claims(setup), effort),
        *_asked("exception", _exception_claims(setup), effort),
    ]
    for instruction in _instructions(forms):
        rows += _asked(instruction.form, _instruction_claims(instruction, setup), effort)
    refuted = any(row.status is not Status.HOLDS for row in rows)
    return Result(setup, tuple(rows), tuple(traces(setup)) if refuted else (), time.monotonic() - started)


Claim = tuple[str, Word, Word]
"""A promise, an assumption and a conclusion (width 1)."""


def _asked(step: str, claims: Sequence[Claim], effort: Effort | None) -> Iterator[Row]:
    """Each claim as a question: can the conclusion fail under the assumption?"""
    if not claims:
        yield Row("invariant", step, Status.HOLDS, None)
    for promise, assumed, concluded in claims:
        question = Question(f"{step}: {promise}", [assumed, ~concluded])
        answer, _, _ = question.ask(effort)
        status = {Answer.UNSAT: Status.HOLDS, Answer.SAT: Status.REFUTED}.get(answer, Status.UNKNOWN)
        yield Row(promise, step, status, evidence_of(question, answer))


def _boundary_claims(setup: Setup) -> list[Claim]:
    world, arrivals = interrupts.anywhere(), interrupts.anything()
    step = interrupts.boundary(world, arrivals, setup)
    known = interrupts.invariant(world, setup)
    claims = [(name, known, kept) for name, kept in interrupts.promises(world, arrivals, step).items()]
    claims.append(("invariant", known, interrupts.invariant(step.after, setup)))
    assumed, failing = _entry_failures(step.entry, setup)
    claims.append((VALID_ENTRY, known & step.left & assumed, ~failing))
    return claims


def _emulation_claims(setup: Setup) -> list[Claim]:
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


def _exception_claims(setup: Setup) -> list[Claim]:
    """The guest takes an exception through its own IDT."""
    world = interrupts.anywhere()
    kept = symbol("handler keeps IF", 1)
    after = attrs.evolve(interrupts.emulated(world), enabled=world.enabled & kept)
    return [("invariant", interrupts.invariant(world, setup), interrupts.invariant(after, setup))]


def _instructions(forms: Sequence[str] | None) -> list[Instruction]:
    machine = machine_with_vmx()
    if forms is not None and list(forms) == ["all"]:
        return list(machine.instructions.values())
    if not forms:
        return [
            instruction for instruction in machine.instructions.values() if instruction.mnemonic in TOUCHING
        ]
    return list(dict.fromkeys(found for name in forms for found in machine.find(name)))


@cache
def _explored(form: str) -> Run[VmxIa32]:
    machine = machine_with_vmx()
    return explore_instruction(machine, machine.instructions[form]).without_assignments()


def _instruction_claims(instruction: Instruction, setup: Setup) -> list[Claim]:
    """The invariant over each path that touches the guest's side; a VM exit is the step `emulation`."""
    run = _explored(instruction.form)
    before = run.before
    world = interrupts.guest_side(before, interrupts.anywhere())
    assumed = (
        interrupts.invariant(world, setup)
        & (before.non_root == 1)
        & (before.halted == 0)
        & (before.pin.nmi_exiting == setup.has("nmi-exiting"))
        & (before.pin.virtual_nmis == setup.has("virtual-nmis"))
    )
    claims: list[Claim] = []
    for path in run.paths:
        if not isinstance(path.result, Next):
            continue  # a VM exit, an exception, or not modelled
        cpu = path.result.state
        after = interrupts.after_instruction(world, cpu, returns=instruction.mnemonic == "IRET")
        if not _touches(world, after):
            continue
        claims.append(("invariant", assumed & path.condition, interrupts.invariant(after, setup)))
    return claims


def _touches(before: World, after: World) -> bool:
    """Whether an instruction does more than end an interrupt shadow."""
    same = all(
        getattr(before, name).term is getattr(after, name).term
        for name in ("enabled", "halted", "nmi_blocked", "in_nmi")
    )
    return not same or after.sti.value != 0 or after.mov_ss.value != 0


def _entry_failures(made: interrupts.Entry, setup: Setup) -> tuple[Word, Word]:
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
