"""Interrupts for a guest, proved by induction over traces, and what breaks when a control or a duty is dropped.

`prove` asks the base case and every step that the assistance declares as questions to Z3.  Where a promise breaks, the
shortest trace from the first world that breaks it is found breadth first, on numbers: so it was replayed when it is
found.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from popek.checks.induction import InductionRow
from popek.checks.runs import Run, explore_instruction
from popek.checks.verdict import Evidence, Question, Status
from popek.kernel.instruction import Instruction
from popek.kernel.interrupts import Claim, Interrupts, TraceStep
from popek.kernel.machine import Machine, UnknownNameError
from popek.solving.solver import Answer, Effort

INVARIANT = "invariant"


@attrs.frozen(eq=False)
class Trace:
    """A shortest trace from the first world that breaks a promise."""

    promise: str
    steps: tuple[TraceStep, ...]


@attrs.frozen(eq=False)
class InterruptResult:
    """What became of the induction.

    Attributes:
        interrupts: the declaration.
        dropped: the controls and duties that are not in place.
        rows: its questions.
        traces: for promises that are broken, how.
        seconds: time spent.
    """

    interrupts: Interrupts
    dropped: frozenset[str]
    rows: tuple[InductionRow, ...]
    traces: tuple[Trace, ...]
    seconds: float

    @property
    def promises(self) -> list[tuple[str, str, Status]]:
        """Each promise: name, statement, and what became of it."""
        return [
            (name, statement, self.status(name))
            for name, statement in self.interrupts.promises.items()
            if name != INVARIANT
        ]

    def status(self, promise: str) -> Status:
        """Holds if every question about it does, and the invariant; refuted only with a trace."""
        if any(trace.promise == promise for trace in self.traces):
            return Status.REFUTED
        mine = [row.status for row in self.rows if row.promise in (promise, INVARIANT)]
        return Status.HOLDS if mine and all(status is Status.HOLDS for status in mine) else Status.UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "dropped": sorted(self.dropped),
            "promises": [
                {"promise": name, "statement": statement, "verdict": status.value}
                for name, statement, status in self.promises
            ],
            "rows": [row.to_json() for row in self.rows],
            "traces": [
                {"promise": trace.promise, "steps": [self._step(step) for step in trace.steps]}
                for trace in self.traces
            ],
        }

    def _step(self, step: TraceStep) -> dict[str, Any]:
        described = self.interrupts.described
        return {
            "event": step.event,
            "before": dict(described(step.before)),
            "after": dict(described(step.after)),
            "injected": None if step.injected is None else hex(step.injected),
            "given": step.given or None,
            "broken": list(step.broken),
        }


@attrs.frozen(eq=False, slots=False)
class Prover:
    """The induction over a declaration; runs are explored once."""

    interrupts: Interrupts
    _runs: dict[str, Run[Any]] = attrs.field(factory=dict, init=False)

    @cached_property
    def machine(self) -> Machine[Any]:
        """The machine whose instructions the guest executes."""
        return self.interrupts.machine()

    def forget(self) -> None:
        """Nothing is kept of what was explored."""
        self._runs.clear()

    def setup(self, dropped: Sequence[str], choices: Mapping[str, int] | None = None) -> Any:
        """What is in place without these controls and duties.

        Raises:
            UnknownNameError: no such control, duty or choice.
        """
        known = [*self.interrupts.controls, *self.interrupts.duties]
        for name in dropped:
            if name not in known:
                raise UnknownNameError("control or duty", name, known)
        for name in choices or {}:
            if name not in self.interrupts.choices:
                raise UnknownNameError("choice of the manual", name, self.interrupts.choices)
        return self.interrupts.setup(frozenset(dropped), choices or {})

    def prove(
        self,
        dropped: Sequence[str] = (),
        forms: Sequence[str] | None = None,
        *,
        choices: Mapping[str, int] | None = None,
        effort: Effort | None = None,
    ) -> InterruptResult:
        """The induction, and a shortest trace for each promise that a dropped control or duty breaks.

        Args:
            forms: instruction forms or mnemonics of the guest; those that touch delivery by default, and ``all``
                means every one.
            choices: what the manual leaves open.
            effort: bounds of the solver.

        Raises:
            UnknownNameError: no such form, control, duty or choice.
        """
        started, setup = time.monotonic(), self.setup(dropped, choices)
        rows: list[InductionRow] = []
        for step, claims in self.interrupts.steps(setup):
            rows += _asked(step, claims, effort)
        for instruction in self._instructions(forms):
            run = self._explored(instruction)
            claims = self.interrupts.instruction(setup, instruction, run.before, run.paths)
            rows += _asked(instruction.form, claims, effort)
        refuted = any(row.status is not Status.HOLDS for row in rows)
        found = tuple(self.traces(setup)) if refuted else ()
        return InterruptResult(
            self.interrupts, frozenset(dropped), tuple(rows), found, time.monotonic() - started
        )

    def _instructions(self, forms: Sequence[str] | None) -> list[Instruction]:
        known = self.machine.instructions.values()
        if forms is not None and list(forms) == ["all"]:
            return list(known)
        if not forms:
            return [instruction for instruction in known if instruction.mnemonic in self.interrupts.mnemonics]
        return list(dict.fromkeys(found for name in forms for found in self.machine.find(name)))

    def _explored(self, instruction: Instruction) -> Run[Any]:
        if instruction.form not in self._runs:
            run = explore_instruction(self.machine, instruction).without_assignments()
            self._runs[instruction.form] = run
        return self._runs[instruction.form]

    def traces(self, setup: Any) -> Iterator[Trace]:
        """A shortest trace for each promise that some trace breaks; the search sees every reachable world."""
        first, promises = self.interrupts.start(), self.interrupts.promises
        reached: dict[tuple[int, ...], tuple[TraceStep, tuple[int, ...]] | None] = {self._key(first): None}
        todo = deque([first])
        broken: dict[str, Trace] = {}
        while todo:
            world = todo.popleft()
            here = self._key(world)
            for step in self.interrupts.successors(world, setup):
                for promise in step.broken:
                    if promise in promises and promise not in broken:
                        broken[promise] = Trace(promise, (*_path(reached, here), step))
                key = self._key(step.after)
                if key not in reached:
                    reached[key] = (step, here)
                    todo.append(step.after)
        yield from (broken[name] for name in promises if name in broken)

    def _key(self, world: Any) -> tuple[int, ...]:
        return tuple(self.interrupts.described(world).values())


def _path(
    reached: Mapping[tuple[int, ...], tuple[TraceStep, tuple[int, ...]] | None], key: tuple[int, ...]
) -> tuple[TraceStep, ...]:
    steps: list[TraceStep] = []
    back = reached[key]
    while back is not None:
        steps.append(back[0])
        back = reached[back[1]]
    return tuple(reversed(steps))


def _asked(step: str, claims: Sequence[Claim], effort: Effort | None) -> Iterator[InductionRow]:
    """Each claim as a question: can the conclusion fail under the assumption?"""
    if not claims:
        yield InductionRow(INVARIANT, step, Status.HOLDS, None)
    for promise, assumed, concluded in claims:
        question = Question(f"{step}: {promise}", [assumed, ~concluded])
        asked = question.put(effort or Effort())
        status = {Answer.UNSAT: Status.HOLDS, Answer.SAT: Status.REFUTED}.get(asked.answer, Status.UNKNOWN)
        yield InductionRow(promise, step, status, Evidence(question, asked.answer, (asked,)))


_PROVERS: dict[int, Prover] = {}


def prover_of(interrupts: Interrupts) -> Prover:
    """The prover of a declaration, made once."""
    known = _PROVERS.get(id(interrupts))
    if known is None:
        known = _PROVERS[id(interrupts)] = Prover(interrupts)
    return known
