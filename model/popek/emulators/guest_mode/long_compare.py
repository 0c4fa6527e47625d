"""One step of a 64-bit guest of SVM: what Bochs did with it, beside what the model expects."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from popek.architectures.svm.operation.guest_mode import EFER_SVME
from popek.architectures.svm.operation.state import SvmX64
from popek.emulators.guests.compare import Guests
from popek.emulators.guests.expectation import SEGMENTS
from popek.emulators.guests.long_drawing import Key, assembled, in_64_bit_mode, key_of
from popek.emulators.guests.long_expectation import LongPrediction, ready_step, watched
from popek.emulators.guests.long_observation import LongSteps
from popek.emulators.guests.observation import Compared, Ended, ReadyStep, hardware_exception
from popek.emulators.vmrun.harness import DEFAULT_MODEL
from popek.emulators.x86_64.cases import LEFT_OUT
from popek.emulators.x86_64.step import X64StepCase
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

from .compare import GOVERNED
from .deviations import SOFTWARE, SvmGuestFound, has_next_rip_of_its_own
from .expectation import EXIT_FIELDS
from .harness import MARKER, REGISTERS, SvmGuestResult, SvmGuestStep, run_guests
from .long_cases import SvmLongCase, random_long_case
from .long_deviations import explain
from .long_expectation import FIELDS_OF_STATE, LONG, predict, state_of, step_run, svm_machine_64
from .observation import SvmExits

UNOBSERVED: Final[Mapping[str, str]] = {
    "xcr0, pkru": "host and guest share them; 1 and 0 at the start",
    "cr8": "V_INTR_MASKING is always set, and V_TPR is compared instead",
    "msr.pat": "without nested paging it is the host's, which an exit gives back as it was",
    "extended, xinuse, monitored": "not to be seen",
    "tsc": "compared by what RDTSC, RDTSCP and RDMSR read",
}
"""What the harness does not show, each with the reason."""

_VMMCALL: Final = 0x81
_IDENTIFICATION: Final = ("rax", "rbx", "rcx", "rdx")


def draw(instruction: Instruction, level: int, rng: random.Random, model: str) -> SvmLongCase:
    """A case in 64-bit mode, or in compatibility mode where the form is there."""
    return random_long_case(instruction, level, rng, long=in_64_bit_mode(instruction, rng), model=model)


def prepare(
    machine: Machine[SvmX64], case: SvmLongCase, key: Key, code: bytes, model: str
) -> ReadyStep | NotModelled:
    """The case for the harness, with what the model says.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """

    def run(step: X64StepCase, state: SvmX64, arena: bytes, predicted: LongPrediction) -> SvmGuestStep:
        return step_run(case, state, arena, watched(predicted, state, case.guest.memory))

    def begin(step: X64StepCase, arena: bytes) -> SvmX64:
        return state_of(case, step, arena, model)

    return ready_step(machine, case, key, code, MARKER, begin, functools.partial(predict, machine), run)


class SvmLongSteps(SvmExits, LongSteps):
    """Steps of guests in 64-bit mode and compatibility mode under SVM."""

    behind: ClassVar[int] = 1
    shared = frozenset(("xcr0", "pkru", "cr8"))

    def observe(self, result: SvmGuestResult) -> dict[str, int]:
        """Every component after the exit that the harness shows, by the model's names."""
        fields = result.fields
        found = {name: result.registers[name] for name in REGISTERS}
        found |= {name: fields[field] for name, field in FIELDS_OF_STATE.items()}
        found["efer"] &= ~EFER_SVME
        found["msr.tsc_aux"] = result.auxiliary
        for name in SEGMENTS:
            upper, packed = name.upper(), fields[f"{name.upper()}_ATTRIBUTES"]
            found |= {
                f"{name}.{part}": fields[f"{upper}_{part.upper()}"] for part in ("selector", "base", "limit")
            }
            found[f"{name}.rights"] = packed & 0xFF | packed << 4 & 0xF000 if packed & 0x80 else 0x10000
        return found

    def classify(self, ready: ReadyStep, result: SvmGuestResult, seen: dict[str, int]) -> Ended:
        """Tell the step's own exit from what ended it; of an exception that was delivered, take its frame."""
        if result.kind != "exit":
            return Ended(result.kind)
        code = result.fields["EXITCODE"]
        if code == (1 << 64) - 1:
            return Ended("VMEXIT_INVALID")
        if self.moved(ready, seen):
            return (self.at_stub(ready, result, seen) if code == _VMMCALL else None) or Ended("next")
        if (
            ready.predicted.kind == "trap"
        ):  # else what EXITINTINFO tells may be of an earlier exit (`deviations`)
            event = hardware_exception(
                result.fields["EXITINTINFO"], result.fields["EXITINTINFO_ERROR"] & 0xFFFF
            )
            if event is not None:
                return Ended("trap", *event)
        return Ended("exit")

    def address_seen(self, result: SvmGuestResult) -> int:
        """EXITINFO2."""
        return result.fields["EXITINFO2"]

    def compared(
        self, ready: ReadyStep, result: SvmGuestResult, registers: Mapping[str, int]
    ) -> Iterator[Compared]:
        """Exit information, every component that is seen, memory, and what blocks events."""
        predicted: LongPrediction = ready.predicted
        for name, value in predicted.information.items():
            yield name, value, result.fields[EXIT_FIELDS[name]]
        for name, value in self.expected(ready).items():
            if self._hidden(ready, name) or name not in registers:
                continue
            hidden = predicted.undefined.get(name, 0)
            yield name, value & ~hidden, registers[name] & ~hidden
        for address, value, byte in self.memory_differences(ready, result):
            yield f"[{address:#x}]", value, byte
        if predicted.kind in ("next", "exit"):
            shadow = int(predicted.state.shadow.value != 0)
            yield "interrupt shadow", shadow, result.fields["INTERRUPT_SHADOW"] & 1
            yield "v_tpr", int(predicted.state.v_tpr), result.fields["VINTR_CONTROL"] & 0xFF
            yield "cpl", int(predicted.state.cpl), result.fields["CPL"]

    @staticmethod
    def _hidden(ready: ReadyStep, name: str) -> bool:
        """What CPUID gives, and IA32_PAT without nested paging."""
        identifies = ready.case.form == "CPUID" and ready.predicted.kind == "next"
        return (name == "msr.pat" and not ready.case.nested) or (identifies and name in _IDENTIFICATION)

    def explain(
        self,
        ready: ReadyStep,
        ended: Ended,
        result: SvmGuestResult,
        registers: dict[str, int],
        differing: set[str],
    ) -> str | None:
        """The known deviation that explains a difference: one of SVM, or one of bare x86-64 beneath it."""
        if not result.fields:
            return None
        predicted: LongPrediction = ready.predicted
        if has_next_rip_of_its_own(predicted.information):
            differing = differing - {"exit_next_rip"} or differing  # known, and not what is to be explained
        if ready.case.form in SOFTWARE:
            differing = differing - {"exit_int_info"} or differing
        found = SvmGuestFound(
            ready.case, ready.state, predicted.kind, predicted.information, self.as_of_bare_x86_64(ready), result,
            ended.kind, ended.vector, frozenset(differing),
        )  # fmt: skip
        return explain(found) or self.of_bare_x86_64(ready, ended, result, registers, differing)


def _run(steps: Sequence[SvmGuestStep], model: str) -> list[SvmGuestResult]:
    return run_guests(steps, model=model, world=LONG)


def forms_left_out() -> Mapping[str, str]:
    """Forms that are not compared, each with the reason."""
    return {
        **LEFT_OUT,
        "RDPKRU": "the emulated processor has no protection keys",
        "WRPKRU": "the emulated processor has no protection keys",
        "XGETBV": "XCR0 is the host's",
    }


STEPS: Final = SvmLongSteps(svm_machine_64)
LONG_GUESTS: Final = Guests(
    "svm guest", GOVERNED, draw, key_of, assembled, prepare, STEPS, _run, DEFAULT_MODEL, forms_left_out
)
"""Guests in 64-bit mode and compatibility mode."""
