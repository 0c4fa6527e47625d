"""What the differential tests of single instructions share: who comes when, counting, and the report."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine

CHUNK: Final = 1000
T = TypeVar("T")


class EmulatorError(RuntimeError):
    """An emulator cannot be run; the message says what is missing."""


class AnyCase(Protocol):
    """An instruction and the state it starts from, as far as it is counted and printed."""

    @property
    def form(self) -> str:
        """The instruction's form."""

    @property
    def cpl(self) -> int:
        """The current privilege level."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""


CaseT = TypeVar("CaseT", bound=AnyCase)


@attrs.frozen
class Difference(Generic[CaseT]):
    """A case on which the model and the emulator do not agree.

    Attributes:
        case: the case; it can be run again with `compare`.
        assembly: the instruction as text.
        expected: what the model says, in one line.
        observed: what the emulator did, in one line.
        details: one line for each component and each byte that differs: model, then emulator.
        deviation: the known deviation of the emulator that explains it, if one does.
    """

    case: CaseT
    assembly: str
    expected: str
    observed: str
    details: tuple[str, ...]
    deviation: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **self.case.to_json(),
            "assembly": self.assembly,
            "expected": self.expected,
            "observed": self.observed,
            "details": list(self.details),
            "deviation": self.deviation,
        }


@attrs.frozen
class DifftestReport(Generic[CaseT]):
    """The result of a differential test.

    Attributes:
        machine: the model.
        against: the emulator.
        seed: of the random states.
        cases: how many cases were compared.
        by_form: cases compared, by form.
        by_level: likewise, by CPL.
        by_mode: likewise, by operating mode.
        completed, trapped: by form, how many of them completed and trapped on the model.
        differences: the unexplained ones, or the first of them, with the first of each form shrunk.
        unexplained: how many there are in all.
        explained: how many cases each known deviation explains.
        not_modelled: draws that end in "not modelled", by reason; others were drawn in their place.
        outside: draws that lead where the harness cannot follow, by reason; likewise.
        seconds: of real time.
        level: what the manual calls a privilege level.
    """

    machine: str
    against: str
    seed: int
    cases: int
    by_form: Mapping[str, int]
    by_level: Mapping[int, int]
    by_mode: Mapping[str, int]
    completed: Mapping[str, int]
    trapped: Mapping[str, int]
    differences: tuple[Difference[CaseT], ...]
    unexplained: int
    explained: Mapping[str, int]
    not_modelled: Mapping[str, int]
    outside: Mapping[str, int]
    seconds: float
    level: str = "CPL"

    @property
    def rate(self) -> float:
        """Cases a second."""
        return self.cases / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "machine": self.machine,
            "against": self.against,
            "seed": self.seed,
            "cases": self.cases,
            "seconds": round(self.seconds, 3),
            "cases_per_second": round(self.rate, 1),
            "by_form": dict(self.by_form),
            "by_cpl": {str(level): count for level, count in sorted(self.by_level.items())},
            "by_mode": dict(self.by_mode),
            "completed": dict(self.completed),
            "trapped": dict(self.trapped),
            "unexplained": self.unexplained,
            "differences": [difference.to_json() for difference in self.differences],
            "explained": dict(self.explained),
            "not_modelled": dict(self.not_modelled),
            "outside": dict(self.outside),
        }


class Tally(Generic[CaseT]):
    """Counts, as they come in; at most `kept` unexplained differences are kept."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.by_form: Counter[str] = Counter()
        self.by_level: Counter[int] = Counter()
        self.by_mode: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.trapped: Counter[str] = Counter()
        self.explained: Counter[str] = Counter()
        self.not_modelled: Counter[str] = Counter()
        self.outside: Counter[str] = Counter()
        self.unexplained: list[Difference[CaseT]] = []
        self.different = 0

    def count(self, case: AnyCase, mode: str, found: Difference[CaseT] | None, *, traps: bool) -> None:
        """One case more.

        Args:
            mode: the operating mode it starts in.
            found: how the model and the emulator differ, if they do.
            traps: whether it traps on the model.
        """
        self.by_form[case.form] += 1
        self.by_level[case.cpl] += 1
        self.by_mode[mode] += 1
        (self.trapped if traps else self.completed)[case.form] += 1
        if found is None:
            return
        if found.deviation is not None:
            self.explained[found.deviation] += 1
            return
        self.different += 1
        if len(self.unexplained) < self.kept:
            self.unexplained.append(found)

    def add(self, other: Tally[CaseT]) -> None:
        """The counts of cases that come after these."""
        for name in (
            "by_form",
            "by_level",
            "by_mode",
            "completed",
            "trapped",
            "explained",
            "not_modelled",
            "outside",
        ):
            getattr(self, name).update(getattr(other, name))
        self.different += other.different
        self.unexplained += other.unexplained[: self.kept - len(self.unexplained)]

    def report(
        self, machine: str, against: str, seed: int, differences: Sequence[Difference[CaseT]], seconds: float
    ) -> DifftestReport[CaseT]:
        """The counts, with the differences as they are to be shown."""
        return DifftestReport(
            machine=machine,
            against=against,
            seed=seed,
            cases=sum(self.by_form.values()),
            by_form=dict(self.by_form),
            by_level=dict(self.by_level),
            by_mode=dict(self.by_mode),
            completed=dict(self.completed),
            trapped=dict(self.trapped),
            differences=tuple(differences),
            unexplained=self.different,
            explained=dict(self.explained),
            not_modelled=dict(self.not_modelled),
            outside=dict(self.outside),
            seconds=seconds,
        )


def chosen_forms(machine: Machine[Any], forms: Sequence[str] | None) -> list[Instruction]:
    """The instructions of these forms or mnemonics, each once; all of the machine's by default.

    Raises:
        UnknownNameError: no such form.
    """
    if forms is None:
        return list(machine.instructions.values())
    return list(dict.fromkeys(i for name in forms for i in machine.find(name)))


def in_turns(
    chosen: Sequence[Instruction], stringent: Collection[str], cases: int, rng: random.Random
) -> Iterator[Instruction]:
    """So many instructions: first each once, so that few cases cover all, then `stringent` mnemonics more often."""
    weighted = [i for i in chosen for _ in range(3 if i.mnemonic in stringent else 1)]
    turn: list[Instruction] = []
    for number in range(cases if chosen else 0):
        if not turn:
            turn = list(chosen) if number == 0 else list(weighted)
            rng.shuffle(turn)
        yield turn.pop()


def in_chunks(jobs: Iterable[T]) -> Iterator[list[T]]:
    """As many at once as one run of an emulator takes."""
    chunk: list[T] = []
    for job in jobs:
        chunk.append(job)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def first_shrunk(
    found: Iterable[Difference[CaseT]], shrink: Callable[[Difference[CaseT]], Difference[CaseT]], shrinks: int
) -> list[Difference[CaseT]]:
    """The differences, the first few of different forms shrunk."""
    result = []
    forms: set[str] = set()
    for difference in found:
        if difference.case.form not in forms and len(forms) < shrinks:
            forms.add(difference.case.form)
            difference = shrink(difference)
        result.append(difference)
    return result
