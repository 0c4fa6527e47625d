"""What an emulator did with one step of a guest, beside what the model expects of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import attrs

from popek.emulators.differential import Difference
from popek.emulators.x86.expectation import vector_name
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next
from popek.kernel.words import Word

TIME_STAMP_COUNTER = 0x10


@attrs.frozen
class ReadyStep:
    """A case with what runs it, and what the model says of it.

    Attributes:
        case: the case.
        assembly: the instruction as text.
        step: the case without its controls.
        state: the model's state before.
        instruction, operands: what runs, and the values of its operands' parts.
        run: the case as the harness takes it.
        predicted: what the model says.
    """

    case: Any
    assembly: str
    step: Any
    state: Any
    instruction: Instruction
    operands: Mapping[str, int]
    run: Any
    predicted: Any


@attrs.frozen
class Ended:
    """How a step ended on the emulator.

    Attributes:
        kind: as in the prediction; or ``hang``, or how the guest could not be entered.
        vector, error_code: of the exception that the guest took; the error code is None where it has none.
        lost: the exception could not be delivered, and which one it was is not known.
    """

    kind: str
    vector: int | None = None
    error_code: int | None = None
    lost: bool = False


Compared = tuple[str, int, int]
"""The name of a component or byte, the value that the model expects, and the one that the emulator shows."""


class GuestSteps(ABC):
    """How the steps of one kind of guest end on an emulator, and where that differs from what the model says."""

    clock: ClassVar[tuple[str, str]]
    """The registers that RDTSC fills: high and low half."""

    def __init__(self, machine: Callable[[], Machine[Any]]) -> None:
        self.machine = machine

    @abstractmethod
    def observe(self, result: Any) -> dict[str, int]:
        """Every register after the exit, by the names of the comparison."""

    @abstractmethod
    def classify(self, ready: ReadyStep, result: Any, registers: dict[str, int]) -> Ended:
        """Tell the step's own exit from what ended it."""

    @abstractmethod
    def same_end(self, ready: ReadyStep, ended: Ended) -> bool:
        """Whether the model and the emulator agree on how the step ends."""

    @abstractmethod
    def compared(self, ready: ReadyStep, result: Any, registers: Mapping[str, int]) -> Iterator[Compared]:
        """What is compared of steps that end alike."""

    @abstractmethod
    def explain(
        self, ready: ReadyStep, ended: Ended, result: Any, registers: dict[str, int], differing: set[str]
    ) -> str | None:
        """The known deviation of the emulator that explains a difference."""

    @abstractmethod
    def exit_of(self, information: Mapping[str, int]) -> str:
        """Why the model says that the guest is left, in a few words."""

    @abstractmethod
    def exit_seen(self, result: Any) -> str:
        """Why the emulator left the guest, in a few words."""

    @abstractmethod
    def exception_of(self, predicted: Any) -> tuple[int | None, int | None]:
        """Vector and error code of the exception that the model expects in the guest."""

    def difference(self, ready: ReadyStep, result: Any) -> Difference[Any] | None:
        """Where the model and the emulator do not agree."""
        registers = self.observe(result) if result.fields else {}
        ended = self.classify(ready, result, registers)
        details: list[str] = []
        differing: set[str] = set()
        if not self.same_end(ready, ended):
            differing.add("outcome")
        else:
            for name, value, seen in self.compared(ready, result, registers):
                if value != seen:
                    details.append(f"{name}: {value:#x}, {seen:#x}")
                    differing.add(name)
            if ready.predicted.kind == "next" and gives_time(ready):
                details += self._time(ready, result, registers, differing)
        if not differing:
            return None
        deviation = self.explain(ready, ended, result, registers, differing)
        expected = self.end(ready.predicted)
        return Difference(
            ready.case, ready.assembly, expected, self._seen(ended, result), tuple(details), deviation
        )

    def end(self, predicted: Any) -> str:
        """How the model says that the step ends, in a few words."""
        if predicted.kind == "exit":
            return f"exit {self.exit_of(predicted.information)}"
        return _exception(*self.exception_of(predicted)) if predicted.kind == "trap" else predicted.kind

    def _seen(self, ended: Ended, result: Any) -> str:
        if ended.kind == "exit":
            return f"exit {self.exit_seen(result)}"
        if ended.kind == "trap":
            if ended.lost:
                return "an exception that could not be delivered"
            return _exception(ended.vector, ended.error_code)
        return f"{ended.kind} (exit {self.exit_seen(result)})"

    def _time(
        self, ready: ReadyStep, result: Any, registers: Mapping[str, int], differing: set[str]
    ) -> list[str]:
        """The time that the guest read must lie between the times around its run, both as it would see them."""
        ends = []
        for time_stamp in result.clock:
            state = ready.state.copy()
            state.tsc = Word(64, time_stamp)
            parts = ready.instruction.words(ready.operands)
            outcome = self.machine().step(ready.instruction, state, parts)
            assert isinstance(outcome, Next)
            ends.append(int(outcome.state.gpr[2]) << 32 | int(outcome.state.gpr[0]))
        high, low = self.clock
        seen = registers[high] << 32 | registers[low]
        whole = (1 << 64) - 1
        if seen - ends[0] & whole <= ends[1] - ends[0] & whole:
            return []
        differing.add("time")
        return [f"time: {ends[0]:#x} to {ends[1]:#x}, {seen:#x}"]


def _exception(vector: int | None, code: int | None) -> str:
    return vector_name(vector) + ("" if code is None else f"({code:#x})")


def gives_time(ready: ReadyStep) -> bool:
    """The instruction reads the time-stamp counter."""
    number = int(ready.state.gpr[1]) & 0xFFFF_FFFF
    form = ready.case.form
    return form in ("RDTSC", "RDTSCP") or (form == "RDMSR" and number == TIME_STAMP_COUNTER)


def hardware_exception(event: int, code: int | None) -> tuple[int, int | None] | None:
    """Vector and error code of a hardware exception, from a description of an event as VMCS and VMCB have it."""
    if not event >> 31 or event >> 8 & 7 != 3:
        return None
    return event & 0xFF, code if event >> 11 & 1 else None
