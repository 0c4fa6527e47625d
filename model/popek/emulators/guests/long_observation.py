"""How a step of a 64-bit guest ended, and what bare x86-64 on the emulator says of a difference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal

import attrs

from popek.emulators.x86.expectation import Expectation, StepResult
from popek.emulators.x86_64.deviations import explain as explain_x86_64
from popek.emulators.x86_64.expectation import drop_unseen
from popek.emulators.x86_64.step import ARENA_BYTES, RESERVED_SELECTOR, plain_state
from popek.kernel.words import Word

from .long_expectation import LongPrediction
from .long_memory import FRAME, STUBS
from .observation import Ended, GuestSteps, ReadyStep
from .protected import Raised

_DB, _PF = 1, 14
_WITH_ERROR_CODE: Final = frozenset((8, 10, 11, 12, 13, 14, 17, 21))


class LongSteps(GuestSteps):
    """Guests in 64-bit mode and compatibility mode."""

    clock = ("rdx", "rax")
    behind: ClassVar[int]
    """How many places are watched last that are not the guest's own memory: the frame of an exception, and others."""
    shared: ClassVar[frozenset[str]]
    """Components that are the host's, too."""

    @abstractmethod
    def raised(self, information: Mapping[str, int]) -> Raised | None:
        """The exception by which the guest is left, as the model says."""

    @abstractmethod
    def raised_seen(self, result: Any) -> Raised | None:
        """The exception by which the guest was left on the emulator."""

    @abstractmethod
    def address_seen(self, result: Any) -> int:
        """The address of the page fault by which the guest was left."""

    # -- how a step ended ----------------------------------------------------------------------------

    @staticmethod
    def moved(ready: ReadyStep, seen: Mapping[str, int]) -> bool:
        """The guest is no longer at its instruction."""
        state = ready.state
        return (seen["rip"], seen["cs.selector"]) != (int(state.rip), int(state.cs.selector.value))

    def at_stub(self, ready: ReadyStep, result: Any, seen: dict[str, int]) -> Ended | None:
        """The marker left the guest where a gate leads: by an exception, whose frame is taken, or otherwise."""
        stub = seen["rip"] - STUBS
        if not 0 <= stub < 0x400 or seen["cs.selector"] & ~3 != RESERVED_SELECTOR:
            return None
        predicted = ready.predicted
        if predicted.kind == "next" and int(predicted.state.rip) == seen["rip"]:
            return Ended("next")
        vector = stub // 4
        frame = result.memory[len(result.memory) - self.behind]
        words = [int.from_bytes(frame[at : at + 8], "little") for at in range(0, 48, 8)]
        code = words[0] & 0xFFFF_FFFF if vector in _WITH_ERROR_CODE else None
        names = ("rip", "cs.selector", "rflags", "rsp", "ss.selector")
        seen.update(zip(names, words[1:], strict=True))
        for name in ("cs", "ss"):
            for part in ("base", "limit", "rights"):
                seen.pop(f"{name}.{part}")
        return Ended("trap", vector, code)

    def same_end(self, ready: ReadyStep, ended: Ended) -> bool:
        """Whether the model and Bochs agree on how the step ends."""
        predicted: LongPrediction = ready.predicted
        expected = (predicted.kind, predicted.vector, predicted.error_code)
        return expected == (ended.kind, ended.vector, ended.error_code)

    def exception_of(self, predicted: LongPrediction) -> tuple[int | None, int | None]:
        """Vector and error code of the exception that the model expects in the guest."""
        return predicted.vector, predicted.error_code

    # -- what is compared ----------------------------------------------------------------------------

    def expected(self, ready: ReadyStep) -> dict[str, int]:
        """The components that can be compared, with the values that the model expects."""
        predicted = ready.predicted
        values = {name: int(predicted.state[name]) for name in plain_state(0) if name not in self.shared}
        left_by, _ = self.raised(predicted.information) or (None, None)
        if _PF in (predicted.vector, left_by):
            del values["cr2"]
        if predicted.vector == _DB:
            del values["dr6"], values["dr7"]
        if left_by == _DB:
            del values["dr7"]  # GD stays on an exit, and BD is in what the exit tells
        if predicted.kind == "next":
            drop_unseen(values, ready.instruction, ready.state)
        else:
            drop_unusable(values)
        values |= {
            name: 0x10000 for name, value in values.items() if name.endswith(".rights") and value >> 16
        }
        if predicted.kind == "trap":
            for name in ("es", "ds", "fs", "gs"):
                values.pop(f"{name}.limit", None)
        return values

    def memory_differences(self, ready: ReadyStep, result: Any) -> Iterator[tuple[int, int, int]]:
        """Bytes that differ: address, value expected, value seen."""
        end = len(ready.run.watch) - self.behind + (ready.predicted.kind == "next")
        for (address, _), data in zip(ready.run.watch[:end], result.memory[:end], strict=True):
            for where, byte in enumerate(data, address):
                value = ready.predicted.memory.get(where)
                if value is None and where >= FRAME:
                    continue
                if value is None:
                    value = int(ready.state.memory.load(Word(64, where)))
                if value != byte:
                    yield where, value, byte

    # -- deviations ----------------------------------------------------------------------------------

    def as_of_bare_x86_64(self, ready: ReadyStep) -> Expectation:
        """What the model expects, as the step harness has it; an exception by which the guest is left is a trap."""
        predicted: LongPrediction = ready.predicted
        raised = (predicted.vector, predicted.error_code)
        if predicted.kind == "exit":
            raised = self.raised(predicted.information) or raised
        kinds: Mapping[bool, Literal["trap", "next", "hang"]] = {
            True: "trap",
            False: "next" if predicted.kind == "next" else "hang",
        }
        return Expectation(
            kinds[raised[0] is not None],
            *raised,
            self.expected(ready),
            predicted.undefined,
            predicted.memory,
            storage=predicted.storage,
        )

    def of_bare_x86_64(
        self,
        ready: ReadyStep,
        observed: Ended,
        result: Any,
        seen: dict[str, int],
        differing: set[str],
    ) -> str | None:
        """The known deviation of bare x86-64 that explains a difference."""
        own = len(ready.run.watch) - self.behind
        expected = self.as_of_bare_x86_64(ready)
        raised: tuple[int | None, int | None] = (expected.vector, expected.error_code)
        found = (observed.vector, observed.error_code)
        if observed.kind == "exit":
            found = self.raised_seen(result) or found
            if found[0] == _PF:  # an exit leaves CR2 alone
                seen = {**seen, "cr2": self.address_seen(result)}
        places = [
            (place, data)
            for place, data in zip(ready.run.watch[:own], result.memory[:own], strict=True)
            if place[0] < ARENA_BYTES
        ]
        step = attrs.evolve(ready.step, watch=tuple(place for place, _ in places))
        if raised != found:
            differing = {"outcome"}
        named = frozenset("memory" if name.startswith("[") else name for name in differing)
        return explain_x86_64(
            ready.case.guest,
            step,
            expected,
            StepResult(
                "trap" if found[0] is not None else "next" if observed.kind == "next" else "hang",
                *found,
                seen,
                tuple(data for _, data in places),
            ),
            named,
        )


def drop_unusable(values: dict[str, int]) -> None:
    """What lies in an unusable segment register is of no consequence, but for the bases of FS and GS."""
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr"):
        if values[f"{name}.rights"] >> 16:
            del values[f"{name}.limit"]
            if name not in ("fs", "gs"):
                del values[f"{name}.base"]
