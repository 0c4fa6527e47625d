"""Compare a model with an emulator on random single instructions, whatever the mode.

An `Isa` says how cases of a mode are drawn, run on the model and made simpler.  A difference is a bug of the model
until shown otherwise.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic

import attrs

from popek.emulators import load
from popek.emulators.differential import (
    CHUNK,
    CaseT,
    Difference,
    DifftestReport,
    Tally,
    first_shrunk,
    in_chunks,
)
from popek.emulators.x86.deviations import Explain, StepT
from popek.emulators.x86.expectation import (
    Expectation,
    OutsideError,
    StepResult,
    vector_name,
    watched_differences,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled
from popek.work import results

Ends = tuple[str, int | None, int | None]
"""Kind, vector and error code."""


def as_delivered(expected: Expectation) -> Ends:
    """How an instruction ends where faults are delivered and their error codes can be seen."""
    return expected.kind, expected.vector, expected.error_code


def without_code(expected: Expectation) -> Ends:
    """Where error codes cannot be seen."""
    return expected.kind, expected.vector, None


def as_raised(expected: Expectation) -> Ends:
    """Where faults are not delivered: as the instruction itself raised them, without error codes."""
    return ("trap", expected.raised[0], None) if expected.raised else ("next", None, None)


@attrs.frozen
class Emulator(Generic[CaseT, StepT]):
    """Something to compare with.

    Attributes:
        name: as reports give it.
        run: runs cases, in order.
        explain: the known deviation that explains a difference, if one does.
        modes: the operating modes it is asked in, by weight.
        refuses: why a case with this expectation says nothing about the emulator; None when it does.
        ends: what it shows of how an instruction ends.
        levels: the privilege levels it is asked at.
        mnemonics: those it is asked about; all if empty.
        left_out: forms of these that it is not asked about.
    """

    name: str
    run: Callable[[Sequence[StepT]], list[StepResult]]
    explain: Explain[CaseT, StepT]
    modes: tuple[Any, ...]
    refuses: Callable[[CaseT, StepT, Expectation], str | None] = lambda *_: None
    ends: Callable[[Expectation], Ends] = as_delivered
    levels: tuple[int, ...] = (0, 1, 2, 3)
    mnemonics: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()

    @property
    def delivers(self) -> bool:
        """Whether faults are delivered, and show their error codes."""
        return self.ends is as_delivered


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
        standard: the emulator to compare with by default.
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
    standard: Emulator[CaseT, StepT]
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

    def with_emulator(
        self, emulator: Emulator[CaseT, StepT], usual: Sequence[str] | None = None
    ) -> Difftest[CaseT, StepT]:
        """As `difftest`, with another emulator than the standard one, and the forms that it runs by default."""
        return Difftest(self, emulator, usual)

    @property
    def difftest(self) -> Difftest[CaseT, StepT]:
        """Compares the model with the standard emulator, or one that is named, on random cases."""
        return Difftest(self, self.standard)

    def compare(
        self,
        cases: Iterable[CaseT],
        *,
        against: Emulator[CaseT, StepT] | None = None,
        machine: Machine[Any] | None = None,
    ) -> list[Difference[CaseT] | None]:
        """Run given cases; None where the model and the emulator agree.

        Raises:
            OutsideError: a case leads where the harness cannot follow, or the model does not model it.
        """
        against, model, items = against or self.standard, machine or self.build(), list(cases)
        self.assemble(model, items)
        ready = []
        for case in items:
            found = self.prepare(model, against, case)
            if isinstance(found, NotModelled):
                raise OutsideError(f"not modelled: {found.reason}")
            ready.append(found)
        results = against.run([item.step for item in ready])
        return [self.differ(against, item, result) for item, result in zip(ready, results, strict=True)]

    def drawn(
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
        difference: Difference[CaseT],
        *,
        against: Emulator[CaseT, StepT] | None = None,
        machine: Machine[Any] | None = None,
    ) -> Difference[CaseT]:
        """Take back, greedily, every change of the plain state that the difference does not need."""
        against, machine = against or self.standard, machine or self.build()
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


@attrs.frozen(eq=False)
class Difftest(Generic[CaseT, StepT]):
    """A model and an emulator, to be compared on random cases."""

    comparison: Isa[CaseT, StepT]
    emulator: Emulator[CaseT, StepT]
    usual: Sequence[str] | None = None

    def __call__(
        self,
        cases: int,
        seed: int = 0,
        forms: Sequence[str] | None = None,
        progress: Callable[[int], None] | None = None,
        *,
        against: Emulator[CaseT, StepT] | None = None,
        machine: Machine[Any] | None = None,
        kept: int = 20,
        shrinks: int = 3,
        found_as: str = "",
        jobs: int = 1,
    ) -> DifftestReport[CaseT]:
        """Compare.

        Args:
            cases: how many to compare; every form gets its share.
            seed: the same seed draws the same cases.
            forms: instruction forms or mnemonics; all by default.
            progress: called with the number of cases done, now and then.
            against: another emulator.
            machine: the model; the one that `build` makes by default.
            kept: how many unexplained differences to report in full.
            shrinks: how many of these to shrink, each of another form.
            found_as: `module:name` of this object, by which another process finds it.
            jobs: processes; 0 for one per processor.

        Raises:
            UnknownNameError: no such form.
            BochsError: Bochs or nasm is missing.
        """
        against = against or self.emulator
        started = time.monotonic()
        model = machine or self.comparison.build()
        pieces = range(-(-cases // CHUNK))
        if found_as:
            given = (found_as, cases, seed, None if forms is None else tuple(forms), kept)
            tallies = results(_tallying, given, pieces, jobs=jobs)
        else:
            tallies = map(self.tallying(cases, seed, forms, kept, against=against, machine=model), pieces)
        tally: Tally[CaseT] = Tally(kept)
        for one in tallies:
            tally.add(one)
            if progress is not None:
                progress(sum(tally.by_form.values()))
        differences = first_shrunk(
            tally.unexplained,
            lambda found: self.comparison.shrink(found, against=against, machine=model),
            shrinks,
        )
        return tally.report(model.name, against.name, seed, differences, time.monotonic() - started)

    def tallying(
        self,
        cases: int,
        seed: int,
        forms: Sequence[str] | None,
        kept: int,
        *,
        against: Emulator[CaseT, StepT] | None = None,
        machine: Machine[Any] | None = None,
    ) -> Callable[[int], Tally[CaseT]]:
        """What compares the cases of one chunk, by its number."""
        comparison, emulator = self.comparison, against or self.emulator
        model = machine or comparison.build()
        chunks = list(in_chunks(comparison.schedule(model, emulator, cases, seed, forms or self.usual)))

        def tally(number: int) -> Tally[CaseT]:
            found: Tally[CaseT] = Tally(kept)
            ready = (
                comparison.drawn(model, emulator, chunks[number], seed, found) if number < len(chunks) else []
            )
            for item, result in zip(ready, emulator.run([item.step for item in ready]), strict=True):
                differing = comparison.differ(emulator, item, result)
                found.count(
                    item.case, comparison.mode(item.case), differing, traps=item.expected.kind == "trap"
                )
            return found

        return tally


def _tallying(
    found_as: str, cases: int, seed: int, forms: Sequence[str] | None, kept: int
) -> Callable[[int], Tally[Any]]:
    difftest: Difftest[Any, Any] = load(found_as)
    return difftest.tallying(cases, seed, forms, kept)
