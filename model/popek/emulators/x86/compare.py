"""Compare a model with an emulator on random single instructions, whatever the mode.

An `Isa` says how cases of a mode are drawn, run on the model and made simpler.  A difference is a bug of the model
until shown otherwise.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import attrs

from popek.emulators.differential import AnyCase, Difference, DifftestReport, Tally, first_shrunk, in_chunks
from popek.emulators.x86.expectation import (
    Expectation,
    OutsideError,
    StepResult,
    vector_name,
    watched_differences,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

CaseT = TypeVar("CaseT", bound=AnyCase)


class AnyStep(Protocol):
    """A case as a harness runs it."""

    @property
    def watch(self) -> tuple[tuple[int, int], ...]:
        """(linear address, length) of the memory to report."""


StepT = TypeVar("StepT", bound=AnyStep)
OfCase = TypeVar("OfCase", bound=AnyCase, contravariant=True)
OfStep = TypeVar("OfStep", bound=AnyStep, contravariant=True)
Ends = tuple[str, int | None, int | None]
"""Kind, vector and error code."""


class Emulator(Protocol[OfCase, OfStep]):
    """Something to compare with."""

    @property
    def name(self) -> str:
        """As reports give it."""

    @property
    def run(self) -> Callable[[Sequence[OfStep]], list[StepResult]]:
        """Runs cases, in order."""

    @property
    def explain(self) -> Callable[[OfCase, OfStep, Expectation, StepResult, frozenset[str]], str | None]:
        """The known deviation that explains a difference, if one does."""

    def ends(self, expected: Expectation) -> Ends:
        """What it shows of how an instruction ends."""


@attrs.frozen
class Ready(Generic[CaseT, StepT]):
    """A case with what runs it, and what the model says of it."""

    case: CaseT
    assembly: str
    step: StepT
    expected: Expectation


Job = tuple[int, Any]
"""Number of a case to draw, and what the mode says of it."""


@attrs.frozen
class Isa(Generic[CaseT, StepT]):
    """What differs from mode to mode.

    Attributes:
        build: the machine.
        attempts: how often a case is drawn again where the model or the harness does not follow.
        schedule: what to draw: machine, emulator, number of cases, seed, forms or mnemonics.
        draw: a case for a job: machine, emulator, job, attempt, chance.
        assemble: machine code for cases, all at once, so that `prepare` need not ask again.
        prepare: the case for the harness, with what the model says and what memory to look at.
        refused: what `prepare` raises where the harness cannot follow.
        mode: the operating mode, as reports give it.
        arena: memory at the start.
        simpler: the case with changes taken back.
        together: everything taken back that one of the simpler cases takes back, where that can be said.
    """

    build: Callable[[], Machine[Any]]
    attempts: int
    schedule: Callable[[Machine[Any], Any, int, int, Sequence[str] | None], Iterator[Job]]
    draw: Callable[[Machine[Any], Any, Any, int, random.Random], CaseT]
    assemble: Callable[[Machine[Any], Iterable[CaseT]], object]
    prepare: Callable[[Machine[Any], Any, CaseT], Ready[CaseT, StepT] | NotModelled]
    refused: tuple[type[Exception], ...]
    mode: Callable[[CaseT], str]
    arena: Callable[[StepT], bytes]
    simpler: Callable[[CaseT], Iterator[CaseT]]
    together: Callable[[CaseT, Sequence[CaseT]], CaseT] | None = None

    def difftest(
        self,
        against: Emulator[CaseT, StepT],
        cases: int,
        seed: int,
        forms: Sequence[str] | None,
        progress: Callable[[int], None] | None,
        machine: Machine[Any] | None,
        kept: int,
        shrinks: int,
    ) -> DifftestReport[CaseT]:
        """Compare on random cases; the arguments are those of a mode's `difftest`."""
        started = time.monotonic()
        model = machine or self.build()
        tally: Tally[CaseT] = Tally(kept)
        done = 0
        for jobs in in_chunks(self.schedule(model, against, cases, seed, forms)):
            ready = self._drawn(model, against, jobs, seed, tally)
            for item, result in zip(ready, against.run([item.step for item in ready]), strict=True):
                found = self.differ(against, item, result)
                tally.count(item.case, self.mode(item.case), found, traps=item.expected.kind == "trap")
            done += len(ready)
            if progress is not None:
                progress(done)
        differences = first_shrunk(
            tally.unexplained, lambda found: self.shrink(model, against, found), shrinks
        )
        return tally.report(model.name, against.name, seed, differences, time.monotonic() - started)

    def compare(
        self, against: Emulator[CaseT, StepT], cases: Iterable[CaseT], machine: Machine[Any] | None
    ) -> list[Difference[CaseT] | None]:
        """Run given cases; None where the model and the emulator agree.

        Raises:
            OutsideError: a case leads where the harness cannot follow, or the model does not model it.
        """
        model, items = machine or self.build(), list(cases)
        self.assemble(model, items)
        ready = []
        for case in items:
            found = self.prepare(model, against, case)
            if isinstance(found, NotModelled):
                raise OutsideError(f"not modelled: {found.reason}")
            ready.append(found)
        results = against.run([item.step for item in ready])
        return [self.differ(against, item, result) for item, result in zip(ready, results, strict=True)]

    def _drawn(
        self,
        machine: Machine[Any],
        against: Emulator[CaseT, StepT],
        jobs: list[Job],
        seed: int,
        tally: Tally[CaseT],
    ) -> list[Ready[CaseT, StepT]]:
        """A case for each job, drawn again where the model or the harness does not follow."""
        ready: dict[int, Ready[CaseT, StepT]] = {}
        for attempt in range(self.attempts):
            drawn = []
            for number, job in jobs:
                if number not in ready:
                    rng = random.Random(f"{seed}:{number}:{attempt}")
                    drawn.append((number, self.draw(machine, against, job, attempt, rng)))
            self.assemble(machine, [case for _, case in drawn])
            for number, case in drawn:
                try:
                    found = self.prepare(machine, against, case)
                except self.refused as error:
                    tally.outside[_without_numbers(error)] += 1
                    continue
                if isinstance(found, NotModelled):
                    tally.not_modelled[found.reason] += 1
                else:
                    ready[number] = found
        return [ready[number] for number, _ in jobs if number in ready]

    # -- comparing --------------------------------------------------------------------------------

    def differ(
        self, against: Emulator[CaseT, StepT], item: Ready[CaseT, StepT], result: StepResult
    ) -> Difference[CaseT] | None:
        """How the model and the emulator differ on a case, if they do."""
        expected = item.expected
        details: list[str] = []
        differing: set[str] = set()
        ends = against.ends(expected)
        if ends == (result.kind, result.vector, result.error_code):
            for name, value in expected.registers.items():
                observed = result.registers.get(name)
                undefined = expected.undefined.get(name, 0)
                if (
                    observed is None
                    or (value ^ observed) & ~undefined == 0
                    or _unusable(name, result.registers)
                ):
                    continue
                details.append(f"{name}: {value:#x}, {observed:#x}")
                differing.add(name)
            memory = watched_differences(
                self.arena(item.step), item.step.watch, expected.memory, result.memory
            )
            for address, value, byte in memory:
                details.append(f"[{address:#x}]: {value:#04x}, {byte:#04x}")
                differing.add("memory")
            for number, value in expected.msrs.items():
                if result.msrs.get(number, value) != value:
                    details.append(f"MSR {number:#x}: {value:#x}, {result.msrs[number]:#x}")
                    differing.add("msr")
            if not differing:
                return None
        else:
            differing.add("outcome")
        deviation = None
        if result.kind != "setup-failed":
            deviation = against.explain(item.case, item.step, expected, result, frozenset(differing))
        return Difference(
            item.case,
            item.assembly,
            _end(*ends),
            _end(result.kind, result.vector, result.error_code),
            tuple(details),
            deviation,
        )

    # -- shrinking --------------------------------------------------------------------------------

    def shrink(
        self,
        machine: Machine[Any],
        against: Emulator[CaseT, StepT],
        difference: Difference[CaseT],
    ) -> Difference[CaseT]:
        """Take back, greedily, every change of the plain state that the difference does not need."""
        best = difference
        while True:
            tried = self._still_differing(machine, against, list(self.simpler(best.case)), best)
            if not tried:
                return best
            both = []
            if self.together is not None:
                # All that can go alone may well go together.
                case = self.together(best.case, [found.case for found in tried])
                both = self._still_differing(machine, against, [case], best)
            best = both[0] if both else tried[0]

    def _still_differing(
        self,
        machine: Machine[Any],
        against: Emulator[CaseT, StepT],
        cases: Sequence[CaseT],
        like: Difference[CaseT],
    ) -> list[Difference[CaseT]]:
        self.assemble(machine, cases)
        ready = []
        for case in cases:
            try:
                item = self.prepare(machine, against, case)
            except self.refused:
                continue
            if isinstance(item, Ready):
                ready.append(item)
        results = against.run([item.step for item in ready])
        found = [self.differ(against, item, result) for item, result in zip(ready, results, strict=True)]
        ends = (like.expected, like.observed, like.deviation)
        return [d for d in found if d is not None and (d.expected, d.observed, d.deviation) == ends]


def _without_numbers(error: Exception) -> str:
    """The message without its numbers, so that like ones count together."""
    return " ".join(word for word in str(error).split() if not word.strip(",()").startswith("0x"))


def _unusable(name: str, registers: Mapping[str, int]) -> bool:
    """Base and limit of an unusable register cannot be seen."""
    register, _, part = name.partition(".")
    return part in ("base", "limit") and registers.get(f"{register}.access") == 0


def _end(kind: str, vector: int | None, code: int | None) -> str:
    """How a step ended, in one line."""
    if kind == "hang":
        return "does not go on"
    if vector is None:
        return {"next": "completes"}.get(kind, kind)
    shown = f"({code:#x})" if code is not None else ""
    return f"{vector_name(vector)}{shown}" + ("" if kind == "trap" else f" {kind}")
