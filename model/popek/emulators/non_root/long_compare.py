"""One step of a 64-bit guest: what Bochs did with it, beside what the model expects."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from popek.architectures.vtx.operation.extended_paging import EptX64
from popek.emulators.bochs.simulator import BochsError
from popek.emulators.guests.compare import Guests
from popek.emulators.guests.observation import Compared, Ended, ReadyStep
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.emulators.x86.expectation import Expectation, StepResult, merged
from popek.emulators.x86_64.assembly import assemble_all, assembly_text
from popek.emulators.x86_64.cases import LEFT_OUT
from popek.emulators.x86_64.compare import exists_in_compatibility_mode, only_in_compatibility_mode
from popek.emulators.x86_64.deviations import explain as explain_x86_64
from popek.emulators.x86_64.expectation import drop_unseen
from popek.emulators.x86_64.step import ARENA_BYTES, RESERVED_SELECTOR, X64StepCase, plain_state
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled
from popek.kernel.words import Word

from .compare import GOVERNED
from .harness import GUEST_PAGES, VmxGuestResult, VmxGuestStep, run_guests
from .long_cases import COMPATIBLE_SHARE, VmxLongCase, random_long_case
from .long_deviations import LongFound, explain
from .long_expectation import (
    LONG_EXIT_FIELDS,
    NAMES_OF_REGISTERS,
    STATE_FIELDS,
    LongPrediction,
    arena_of,
    predict,
    state_of,
    step_run,
    virtual_page,
    virtual_registers,
    vmx_machine_64,
)
from .long_world import FRAME, LONG, MSRS, STUBS
from .observation import VmxExits, defined_bits

UNOBSERVED: Final[Mapping[str, str]] = {
    "xcr0, pkru": "host and guest share them; 1 and 0 at the start",
    "extended, xinuse, monitored": "not to be seen",
    "msr.apic_base, msr.misc_enable": "Bochs has other values",
    "tsc": "compared by what RDTSC, RDTSCP and RDMSR read",
}
"""What the harness does not show, each with the reason."""

_PF = 14
_EXCEPTION, _VMCALL, _TPR, _EOI, _TIMER, _APIC_WRITE = 0, 18, 43, 45, 52, 56
_GDTR_IDTR = 46
_WITH_ERROR_CODE: Final = frozenset((8, 10, 11, 12, 13, 14, 17, 21))
Key = tuple[bool, str]


# -- drawing ---------------------------------------------------------------------------------------


def draw(instruction: Instruction, level: int, rng: random.Random, model: str) -> VmxLongCase:
    """A case in 64-bit mode, or in compatibility mode where the form is there."""
    long = rng.random() >= COMPATIBLE_SHARE or not exists_in_compatibility_mode(instruction)
    long = long and not only_in_compatibility_mode(instruction)
    return random_long_case(instruction, level, rng, long=long)


def key_of(instruction: Instruction, case: VmxLongCase) -> Key:
    """The mode, and the instruction as nasm takes it."""
    guest = case.guest
    text = assembly_text(instruction, guest.operands, long=guest.long)
    if case.relative:
        start = guest.state()["rip"]
        text = re.sub(r"\[abs (-?\d+)\]", lambda found: f"[rel $+{int(found[1]) - start}]", text)
    return guest.long, text


def assembled(keys: Iterable[Key]) -> Mapping[Key, bytes]:
    """The machine code of each, but of those that nasm refuses."""
    wanted = list(dict.fromkeys(keys))
    try:
        return assemble_all(wanted)
    except BochsError:
        if len(wanted) == 1:
            return {}
    half = len(wanted) // 2
    return {**assembled(wanted[:half]), **assembled(wanted[half:])}


def prepare(
    machine: Machine[EptX64], case: VmxLongCase, key: Key, code: bytes, model: str
) -> ReadyStep | NotModelled:
    """The case for the harness, with what the model says.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    instruction = machine.instructions[case.form]
    step = X64StepCase(code, case.guest.state(), case.guest.memory)
    arena = arena_of(step)
    state = state_of(case, step, arena, model)
    operands = {**case.guest.operands, "operand length": len(code)}
    predicted = predict(machine, instruction, operands, state, step)
    if isinstance(predicted, NotModelled):
        return predicted
    wanted = [(at - 4, at + 12) for at in predicted.memory if at < ARENA_BYTES]
    wanted += [(at, at + len(data)) for at, data in case.guest.memory]
    top = int(state["rsp"])
    if top < ARENA_BYTES:
        wanted.append((top - 48, top + 16))
    watch = merged(wanted, ARENA_BYTES)
    if virtual_page(state):
        places = virtual_registers(state)
        watch = (*watch, *((GUEST_PAGES.virtual_apic + at, length) for at, length in places))
    run = step_run(case, step, state, arena, watch, model)
    return ReadyStep(case, key[1], step, state, instruction, operands, run, predicted)


# -- what Bochs did ----------------------------------------------------------------------------------


class VmxLongSteps(VmxExits):
    """Steps of guests in 64-bit mode and compatibility mode."""

    clock = ("rdx", "rax")

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
        reason, state = result.entry.basic_reason, ready.state
        if reason == _TIMER:
            return Ended("halt" if result.fields[0x4826] == 1 else "hang")
        if reason in (_TPR, _EOI, _APIC_WRITE):  # after the instruction
            return Ended("exit")
        moved = (seen["rip"], seen["cs.selector"]) != (int(state.rip), int(state.cs.selector.value))
        stub = seen["rip"] - STUBS
        if reason == _VMCALL and 0 <= stub < 0x400 and seen["cs.selector"] & ~3 == RESERVED_SELECTOR:
            predicted = ready.predicted
            if predicted.kind == "next" and int(predicted.state.rip) == seen["rip"]:
                return Ended("next")
            vector = stub // 4
            frame = result.memory[len(result.memory) - len(MSRS) - 1]
            words = [int.from_bytes(frame[at : at + 8], "little") for at in range(0, 48, 8)]
            code = words[0] & 0xFFFF_FFFF if vector in _WITH_ERROR_CODE else None
            names = ("rip", "cs.selector", "rflags", "rsp", "ss.selector")
            seen.update(zip(names, words[1:], strict=True))
            for name in ("cs", "ss"):
                for part in ("base", "limit", "rights"):
                    seen.pop(f"{name}.{part}")
            return Ended("trap", vector, code)
        return Ended("next" if moved else "exit")

    def same_end(self, ready: ReadyStep, ended: Ended) -> bool:
        """Whether the model and Bochs agree on how the step ends."""
        predicted: LongPrediction = ready.predicted
        expected = (predicted.kind, predicted.vector, predicted.error_code)
        return expected == (ended.kind, ended.vector, ended.error_code)

    def exception_of(self, predicted: LongPrediction) -> tuple[int | None, int | None]:
        """Vector and error code of the exception that the model expects in the guest."""
        return predicted.vector, predicted.error_code

    def compared(
        self, ready: ReadyStep, result: VmxGuestResult, registers: Mapping[str, int]
    ) -> Iterator[Compared]:
        """Exit information, every component that is seen, memory, and what blocks events."""
        predicted: LongPrediction = ready.predicted
        for name, value in predicted.information.items():
            mask = _defined(ready, name)
            yield name, value & mask, result.fields[LONG_EXIT_FIELDS[name]] & mask
        for name, value in _expected(ready).items():
            hidden = predicted.undefined.get(name, 0)
            if name in registers:
                yield name, value & ~hidden, registers[name] & ~hidden
        for address, value, byte in _memory_differences(ready, result):
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
        return explain(why) or self._of_bare_x86_64(ready, ended, result, registers, differing)

    def _of_bare_x86_64(
        self,
        ready: ReadyStep,
        observed: Ended,
        result: VmxGuestResult,
        seen: dict[str, int],
        differing: set[str],
    ) -> str | None:
        """The known deviation of bare x86-64 that explains a difference."""
        predicted, own = ready.predicted, len(ready.run.watch) - len(MSRS) - 1
        expected = (predicted.vector, predicted.error_code)
        if predicted.kind == "exit":
            expected = self.raised(predicted.information) or expected
        found = (observed.vector, observed.error_code)
        if observed.kind == "exit":
            found = self.raised_seen(result) or found
            if found[0] == _PF:  # an exit leaves CR2 alone
                seen = {**seen, "cr2": result.fields[0x6400]}
        places = [
            (place, data)
            for place, data in zip(ready.run.watch[:own], result.memory[:own], strict=True)
            if place[0] < ARENA_BYTES
        ]
        step = attrs.evolve(ready.step, watch=tuple(place for place, _ in places))
        if expected != found:
            differing = {"outcome"}
        named = frozenset("memory" if name.startswith("[") else name for name in differing)
        kinds = {True: "trap", False: "next" if predicted.kind == "next" else "hang"}
        return explain_x86_64(
            ready.case.guest,
            step,
            Expectation(
                kinds[expected[0] is not None],
                *expected,
                _expected(ready),
                predicted.undefined,
                predicted.memory,
                storage=predicted.storage,
            ),
            StepResult(
                "trap" if found[0] is not None else "next" if observed.kind == "next" else "hang",
                *found,
                seen,
                tuple(data for _, data in places),
            ),
            named,
        )


def _expected(ready: ReadyStep) -> dict[str, int]:
    """The components that can be compared, with the values that the model expects."""
    predicted, names = ready.predicted, plain_state(0)
    values = {name: int(predicted.state[name]) for name in names if name not in ("xcr0", "pkru")}
    values["xss"] = ready.case.xss
    if predicted.kind == "trap" or predicted.information.get("exit_reason") == _EXCEPTION:
        if _PF in (predicted.vector, predicted.information.get("exit_interruption_info", 0) & 0xFF):
            del values["cr2"]
        if predicted.vector == 1:
            del values["dr6"], values["dr7"]
    if predicted.information.get("exit_interruption_info", 0) & 0xFF == 1:
        del values["dr7"]  # GD stays on an exit, and BD is in the qualification
    if predicted.kind == "next":
        drop_unseen(values, ready.instruction, ready.state)
    else:
        drop_unusable(values)
    values |= {name: 0x10000 for name, value in values.items() if name.endswith(".rights") and value >> 16}
    if predicted.kind == "trap":
        for name in ("es", "ds", "fs", "gs"):
            values.pop(f"{name}.limit", None)
    return values


def drop_unusable(values: dict[str, int]) -> None:
    """What lies in an unusable segment register is of no consequence, but for the bases of FS and GS."""
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr"):
        if values[f"{name}.rights"] >> 16:
            del values[f"{name}.limit"]
            if name not in ("fs", "gs"):
                del values[f"{name}.base"]


def _defined(ready: ReadyStep, name: str) -> int:
    """The bits of a field of the exit information that the manual defines for this exit."""
    information = ready.predicted.information
    mask = defined_bits(name, information)
    if name == "exit_instruction_info" and information["exit_reason"] == _GDTR_IDTR and ready.case.guest.long:
        mask &= ~(1 << 11)  # the operand size is undefined in 64-bit mode
    return mask


def _memory_differences(ready: ReadyStep, result: VmxGuestResult) -> Iterator[tuple[int, int, int]]:
    frame = ready.predicted.kind == "next"
    own = len(ready.run.watch) - len(MSRS) - 1
    for (address, _), data in zip(ready.run.watch[: own + frame], result.memory[: own + frame], strict=True):
        for where, byte in enumerate(data, address):
            value = ready.predicted.memory.get(where)
            if value is None and where >= FRAME:
                continue
            if value is None:
                value = int(ready.state.memory.load(Word(64, where)))
            if value != byte:
                yield where, value, byte


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
