"""Steps of 32-bit guests: what ends them, and what bare IA-32 on the emulator says of a difference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal

import attrs

from popek.emulators.ia32.delivery import deliverable
from popek.emulators.ia32.deviations import explain as explain_ia32
from popek.emulators.ia32.expectation import EXTENDED_STATE
from popek.emulators.ia32.step import ARENA_BYTES, STUBS, WITH_ERROR_CODE
from popek.emulators.x86.expectation import StepResult
from popek.kernel.words import Word

from .expectation import GuestPrediction
from .observation import Compared, Ended, GuestSteps, ReadyStep, gives_time, hardware_exception

DOUBLE_FAULT: Final = 8
UNOBSERVED: Final[Mapping[str, str]] = {
    "eflags.rf": "the exit that ends a step comes after RF was cleared",
    "ldtr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
    "tr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
}
"""What no harness of a guest shows, each with the reason."""

Raised = tuple[int, int | None]
"""Vector and error code of an exception."""


class ProtectedSteps(GuestSteps):
    """Guests in protected, real-address and virtual-8086 mode."""

    clock = ("edx", "eax")
    unobserved: ClassVar[Mapping[str, str]]
    """Components that are not compared, each with the reason."""

    @abstractmethod
    def information(self, ready: ReadyStep, result: Any) -> Iterator[Compared]:
        """The exit information."""

    @abstractmethod
    def interrupted(self, result: Any) -> bool:
        """The exception that ended the step may have been delivered in part."""

    @abstractmethod
    def hidden(self, ready: ReadyStep, register: str) -> bool:
        """Whether a register of this step is not compared."""

    @abstractmethod
    def msr(self, ready: ReadyStep, result: Any, number: int) -> int | None:
        """An MSR afterwards; None where it cannot be seen."""

    @abstractmethod
    def blocking(self, predicted: GuestPrediction, result: Any) -> Compared:
        """What keeps events from the guest afterwards."""

    @abstractmethod
    def own_deviation(self, ready: ReadyStep, ended: Ended, result: Any, differing: set[str]) -> str | None:
        """The known deviation of the emulator in the assistance itself."""

    @abstractmethod
    def raised(self, information: Mapping[str, int]) -> Raised | None:
        """The exception by which the guest is left, as the model says."""

    @abstractmethod
    def raised_seen(self, result: Any) -> Raised | None:
        """The exception by which the guest was left on the emulator."""

    # -- how a step ended ----------------------------------------------------------------------------

    @staticmethod
    def moved(ready: ReadyStep, registers: Mapping[str, int]) -> bool:
        """The guest is no longer at its instruction."""
        state = ready.state
        return (registers["eip"], registers["cs"]) != (int(state.eip), int(state.cs.selector.value))

    @staticmethod
    def at_stub(ready: ReadyStep, result: Any, registers: Mapping[str, int]) -> Ended | None:
        """The marker left the guest where a gate of the IDT leads: by an exception, or by a transfer there."""
        stub = registers["eip"] - STUBS
        if not 0 <= stub < 0x400 or registers["cs"] != ready.step.reserved:
            return None
        if ready.predicted.kind == "next" and ready.predicted.expected.registers["eip"] == registers["eip"]:
            return Ended("next")
        vector = stub // 4
        return Ended("trap", vector, result.stack[0] & 0xFFFF if vector in WITH_ERROR_CODE else None)

    @staticmethod
    def vectored(event: int, code: int) -> Ended | None:
        """An exception was being delivered when the guest was left."""
        found = hardware_exception(event, code & 0xFFFF)
        if found is None:
            return None
        return Ended("trap", lost=True) if found[0] == DOUBLE_FAULT else Ended("trap", *found)

    def same_end(self, ready: ReadyStep, ended: Ended) -> bool:
        """Whether the model and the emulator agree on how the step ends."""
        predicted: GuestPrediction = ready.predicted
        expected = predicted.expected
        if predicted.kind != ended.kind or predicted.kind != "trap":
            return predicted.kind == ended.kind
        if ended.lost:
            return not deliverable(ready.state, expected.vector or 0, expected.error_code is not None)
        return (expected.vector, expected.error_code) == (ended.vector, ended.error_code)

    def exception_of(self, predicted: GuestPrediction) -> tuple[int | None, int | None]:
        """Vector and error code of the exception that the model expects in the guest."""
        return predicted.expected.vector, predicted.expected.error_code

    # -- what is compared ----------------------------------------------------------------------------

    def compared(self, ready: ReadyStep, result: Any, registers: Mapping[str, int]) -> Iterator[Compared]:
        """Exit information, registers, memory, MSRs, and what blocks events; of an exception nothing more."""
        predicted: GuestPrediction = ready.predicted
        if predicted.kind == "exit":
            yield from self.information(ready, result)
        if predicted.kind == "trap":
            return
        yield from self._registers(ready, result, registers)
        yield from self._memory(ready, result)
        if predicted.kind == "next":
            for number, value in predicted.expected.msrs.items():
                seen = self.msr(ready, result, number)
                if seen is not None:
                    yield f"msr {number:#x}", value, seen
        if predicted.kind in ("next", "exit") and predicted.shadow is not None:
            yield self.blocking(predicted, result)

    def _registers(self, ready: ReadyStep, result: Any, registers: Mapping[str, int]) -> Iterator[Compared]:
        expected = ready.predicted.expected
        in_part, completes = self.interrupted(result), ready.predicted.kind == "next"
        for name, value in expected.registers.items():
            if name in self.unobserved or (name == "cr2" and in_part) or self.hidden(ready, name):
                continue
            owner, _, part = name.partition(".")
            if part in ("base", "limit") and registers.get(f"{owner}.access") == 0:
                continue
            if name in self.clock and completes and gives_time(ready):
                continue
            undefined = expected.undefined.get(name, 0)
            yield name, value & ~undefined, registers[name] & ~undefined

    def watched(self, ready: ReadyStep, result: Any) -> Iterator[tuple[int, bytes]]:
        """The guest's memory that is compared, by address."""
        for (address, _), data in zip(ready.run.watch, result.memory, strict=True):
            yield address, data

    def _memory(self, ready: ReadyStep, result: Any) -> Iterator[Compared]:
        if ready.case.form in EXTENDED_STATE:
            return
        for address, data in self.watched(ready, result):
            for where, byte in enumerate(data, address):
                value = ready.predicted.expected.memory.get(where)
                if value is None:
                    value = int(ready.state.memory.load(Word(32, where)))
                if value != byte:
                    yield f"[{where:#x}]", value, byte

    # -- deviations ----------------------------------------------------------------------------------

    def explain(
        self, ready: ReadyStep, ended: Ended, result: Any, registers: dict[str, int], differing: set[str]
    ) -> str | None:
        """The known deviation that explains a difference: one of the assistance, or one of bare IA-32 beneath it."""
        own = self.own_deviation(ready, ended, result, differing)
        if own is not None or not result.fields:
            return own
        return self.beneath(ready, ended, result, registers, differing)

    def beneath(
        self, ready: ReadyStep, ended: Ended, result: Any, registers: dict[str, int], differing: set[str]
    ) -> str | None:
        """The known deviation of bare IA-32 that explains a difference."""
        expected = ready.predicted.expected
        raised = self.raised(ready.predicted.information)
        if ready.predicted.kind == "exit" and raised is not None:
            expected = attrs.evolve(
                expected, kind="trap", vector=raised[0], error_code=raised[1], raised=raised
            )
        seen: tuple[int | None, int | None] = (ended.vector, ended.error_code)
        if ended.kind == "exit":
            seen = self.raised_seen(result) or (None, None)
        kind: Literal["trap", "next", "hang"] = "next" if ended.kind == "next" else "hang"
        watched = zip(ready.run.watch, result.memory, strict=True)
        places = [(place, data) for place, data in watched if place[0] < ARENA_BYTES]
        step = attrs.evolve(ready.step, watch=tuple(place for place, _ in places))
        shown = StepResult(
            "trap" if seen[0] is not None else kind, *seen, registers, tuple(data for _, data in places)
        )
        if (expected.vector, expected.error_code) != seen:
            differing = {"outcome"}
        memory = frozenset("memory" if name.startswith("[") else name for name in differing)
        return explain_ia32(ready.case.guest, step, expected, shown, memory)
