"""One step of a 64-bit guest: what Bochs did with it, beside what the model expects."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from popek.architectures.vtx.operation.extended_paging import EptX64
from popek.emulators.guests.compare import Guests
from popek.emulators.guests.long_drawing import Key, assembled, in_64_bit_mode, key_of
from popek.emulators.guests.long_expectation import LongPrediction, ready_step, watched
from popek.emulators.guests.long_observation import LongSteps
from popek.emulators.guests.observation import Compared, Ended, ReadyStep
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.emulators.x86_64.cases import LEFT_OUT
from popek.emulators.x86_64.step import X64StepCase
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

from .compare import GOVERNED
from .harness import GUEST_PAGES, MARKER, VmxGuestResult, VmxGuestStep, run_guests
from .long_cases import VmxLongCase, random_long_case
from .long_deviations import LongFound, explain
from .long_expectation import (
    LONG_EXIT_FIELDS,
    NAMES_OF_REGISTERS,
    STATE_FIELDS,
    predict,
    state_of,
    step_run,
    virtual_page,
    virtual_registers,
    vmx_machine_64,
)
from .long_world import LONG, MSRS
from .observation import VmxExits, defined_bits

UNOBSERVED: Final[Mapping[str, str]] = {
    "xcr0, pkru": "host and guest share them; 1 and 0 at the start",
    "extended, xinuse, monitored": "not to be seen",
    "msr.apic_base, msr.misc_enable": "Bochs has other values",
    "tsc": "compared by what RDTSC, RDTSCP and RDMSR read",
}
"""What the harness does not show, each with the reason."""

_VMCALL, _TPR, _EOI, _TIMER, _APIC_WRITE = 18, 43, 45, 52, 56
_GDTR_IDTR = 46


# -- drawing ---------------------------------------------------------------------------------------


def draw(instruction: Instruction, level: int, rng: random.Random, model: str) -> VmxLongCase:
    """A case in 64-bit mode, or in compatibility mode where the form is there."""
    return random_long_case(instruction, level, rng, long=in_64_bit_mode(instruction, rng))


def prepare(
    machine: Machine[EptX64], case: VmxLongCase, key: Key, code: bytes, model: str
) -> ReadyStep | NotModelled:
    """The case for the harness, with what the model says.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """

    def run(step: X64StepCase, state: EptX64, arena: bytes, predicted: LongPrediction) -> VmxGuestStep:
        watch = watched(predicted, state, case.guest.memory)
        if virtual_page(state):
            places = virtual_registers(state)
            watch = (*watch, *((GUEST_PAGES.virtual_apic + at, length) for at, length in places))
        return step_run(case, step, state, arena, watch, model)

    def begin(step: X64StepCase, arena: bytes) -> EptX64:
        return state_of(case, step, arena, model)

    return ready_step(machine, case, key, code, MARKER, begin, functools.partial(predict, machine), run)


# -- what Bochs did ----------------------------------------------------------------------------------


class VmxLongSteps(VmxExits, LongSteps):
    """Steps of guests in 64-bit mode and compatibility mode."""

    behind = len(MSRS) + 1
    shared = frozenset(("xcr0", "pkru"))

    def observe(self, result: VmxGuestResult) -> dict[str, int]:
        """Every component after the exit that the harness shows, by the model's names."""
        found = {ours: result.registers[name] for name, ours in NAMES_OF_REGISTERS.items()}
        found |= {name: result.fields[encoding] for name, encoding in STATE_FIELDS.items()}
        found |= {name: 0x10000 for name, value in found.items() if name.endswith(".rights") and value >> 16}
        areas = result.memory[len(result.memory) - len(MSRS) :]
        found |= {name: int.from_bytes(data, "little") for name, data in zip(MSRS, areas, strict=True)}
        return found

    def classify(self, ready: ReadyStep, result: VmxGuestResult, seen: dict[str, int]) -> Ended:
        """Tell the step's own exit from what ended it; of an exception that was delivered, take its frame."""
        if result.entry.kind != "enters":
            return Ended(result.entry.kind)
        reason = result.entry.basic_reason
        if reason == _TIMER:
            return Ended("halt" if result.fields[0x4826] == 1 else "hang")
        if reason in (_TPR, _EOI, _APIC_WRITE):  # after the instruction
            return Ended("exit")
        delivered = self.at_stub(ready, result, seen) if reason == _VMCALL else None
        return delivered or Ended("next" if self.moved(ready, seen) else "exit")

    def expected(self, ready: ReadyStep) -> dict[str, int]:
        """With IA32_XSS."""
        return {**super().expected(ready), "xss": ready.case.xss}

    def address_seen(self, result: VmxGuestResult) -> int:
        """The exit qualification."""
        return result.fields[0x6400]

    def compared(
        self, ready: ReadyStep, result: VmxGuestResult, registers: Mapping[str, int]
    ) -> Iterator[Compared]:
        """Exit information, every component that is seen, memory, and what blocks events."""
        predicted: LongPrediction = ready.predicted
        for name, value in predicted.information.items():
            mask = _defined(ready, name)
            yield name, value & mask, result.fields[LONG_EXIT_FIELDS[name]] & mask
        for name, value in self.expected(ready).items():
            hidden = predicted.undefined.get(name, 0)
            if name in registers:
                yield name, value & ~hidden, registers[name] & ~hidden
        for address, value, byte in self.memory_differences(ready, result):
            yield f"[{address:#x}]", value, byte
        if predicted.kind in ("next", "exit"):
            blocked = int(predicted.state.nmi_blocked) << 3
            yield "interruptibility", int(predicted.state.shadow.value) | blocked, result.fields[0x4824]
            status = int(predicted.state.svi) << 8 | int(predicted.state.rvi)
            yield "interrupt status", status, result.fields.get(0x0810, status)

    def explain(
        self,
        ready: ReadyStep,
        ended: Ended,
        result: VmxGuestResult,
        registers: dict[str, int],
        differing: set[str],
    ) -> str | None:
        """The known deviation that explains a difference: one of VMX, or one of bare x86-64 beneath it."""
        why = LongFound(
            ready.case, ready.state, ready.predicted, result, ended.kind, ended.vector, frozenset(differing)
        )
        return explain(why) or self.of_bare_x86_64(ready, ended, result, registers, differing)


def _defined(ready: ReadyStep, name: str) -> int:
    """The bits of a field of the exit information that the manual defines for this exit."""
    information = ready.predicted.information
    mask = defined_bits(name, information)
    if name == "exit_instruction_info" and information["exit_reason"] == _GDTR_IDTR and ready.case.guest.long:
        mask &= ~(1 << 11)  # the operand size is undefined in 64-bit mode
    return mask


def forms_left_out() -> Mapping[str, str]:
    """Forms that are not compared, each with the reason."""
    return {
        **LEFT_OUT,
        "RDPKRU": "PKRU is the host's",
        "WRPKRU": "PKRU is the host's",
        "XGETBV": "XCR0 is the host's",
    }


def _run(steps: Sequence[VmxGuestStep], model: str) -> list[VmxGuestResult]:
    return run_guests(steps, model=model, world=LONG)


STEPS: Final = VmxLongSteps(vmx_machine_64)
LONG_GUESTS: Final = Guests(
    "guest", GOVERNED, draw, key_of, assembled, prepare, STEPS, _run, DEFAULT_MODEL, forms_left_out
)
"""Guests in 64-bit mode and compatibility mode."""
