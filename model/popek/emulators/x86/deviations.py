"""Where emulators deviate from the manual, and what the manual leaves to the processor: the lists, and who recognises.

An entry of a list explains a difference if its recogniser, a function of a `StepDifference`, says so.  A difference
that no entry explains is a bug of the model.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Generic, Protocol, TypeVar

import attrs

from popek.emulators.differential import CaseT
from popek.emulators.x86.expectation import Expectation, OutsideError, StepResult


class AnyStep(Protocol):
    """A case as a harness runs it."""

    @property
    def watch(self) -> tuple[tuple[int, int], ...]:
        """(linear address, length) of the memory to report."""


StepT = TypeVar("StepT", bound=AnyStep)
Explain = Callable[[CaseT, StepT, Expectation, StepResult, frozenset[str]], str | None]
"""The known deviation that explains a difference, if one does; the arguments are the parts of a `StepDifference`."""


@attrs.frozen
class StepDifference(Generic[CaseT, StepT]):
    """A difference between a model and an emulator, as the recognisers see it.

    Attributes:
        case, step: what was run.
        expected: what the model says.
        result: what the emulator did.
        differing: the names of the registers that differ, ``memory``, ``msr`` or ``outcome``.
    """

    case: CaseT
    step: StepT
    expected: Expectation
    result: StepResult
    differing: frozenset[str]

    @property
    def vectors(self) -> tuple[int | None, int | None]:
        """The vector on the model and on the emulator, None where it did not trap."""
        return self.expected.vector, self.result.vector

    @property
    def faults(self) -> tuple[tuple[int | None, int | None], tuple[int | None, int | None]]:
        """Vector and error code as delivered, on the model and on the emulator, None where it did not trap."""
        expected, result = self.expected, self.result
        return (expected.vector, expected.error_code), (result.vector, result.error_code)

    def bits(self, name: str) -> int:
        """The bits of one register that differ, where nothing else does; else 0."""
        if self.differing != {name}:
            return 0
        return self.expected.registers[name] ^ self.result.registers[name]


SeenT = TypeVar("SeenT")


def explainer(
    seen: Callable[[CaseT, StepT, Expectation, StepResult, frozenset[str]], SeenT],
    recognisers: Mapping[str, Callable[[SeenT], bool]],
) -> Explain[CaseT, StepT]:
    """What names the first entry of a list that explains a difference.

    Args:
        seen: makes of a difference what the recognisers look at.
        recognisers: by the name of their entry, in the order in which they are asked.
    """

    def explain(
        case: CaseT, step: StepT, expected: Expectation, result: StepResult, differing: frozenset[str]
    ) -> str | None:
        found = seen(case, step, expected, result, differing)
        return next((name for name, applies in recognisers.items() if _holds(applies, found)), None)

    return explain


def _holds(applies: Callable[[SeenT], bool], found: SeenT) -> bool:
    try:
        return applies(found)
    except OutsideError:  # it looks at memory that no case has
        return False


@attrs.frozen
class Deviation:
    """One entry of a list.

    Attributes:
        name: its key.
        summary: what the emulator does.
        evidence: what the manual says, and where.
    """

    name: str
    summary: str
    evidence: str


@functools.cache
def listed(package: str, file: str) -> Mapping[str, Deviation]:
    """The entries of a file of `popek_specs`, by name."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    entries = tomllib.loads(text)["deviation"]
    return {name: Deviation(name, entry["summary"], entry["evidence"]) for name, entry in entries.items()}
