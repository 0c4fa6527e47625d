"""What Bochs did with one step of a guest, beside what the model expects of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from popek.architectures.vtx.operation.state import VmxIa32
from popek.emulators.ia32.delivery import deliverable
from popek.emulators.ia32.deviations import explain as explain_ia32
from popek.emulators.ia32.expectation import EXTENDED_STATE
from popek.emulators.ia32.step import ARENA_BYTES, STUBS, WITH_ERROR_CODE, StepCase
from popek.emulators.x86.expectation import Expectation, StepResult, vector_name
from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next
from popek.kernel.words import Word

from .cases import Case
from .deviations import Found
from .deviations import explain as explain_guest
from .expectation import EXIT_FIELDS, MSR_FIELDS, SEGMENTS, Prediction, vmx_machine
from .harness import ONLY_64_BIT, TSC_AUX, GuestResult, GuestStep
from .long_cases import LongCase

UNOBSERVED: Final[Mapping[str, str]] = {
    "xcr0": "no VMCS field; host and guest share it, and it is 1 at the start",
    "pkru": "no VMCS field, and it keeps what earlier cases wrote: RDPKRU is compared by its faults only",
    "eflags.rf": "the exit that ends a step comes after RF was cleared",
    "ldtr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
    "tr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
}
"""What the harness does not show, each with the reason."""

_DF = 8
_EXCEPTION, _TRIPLE_FAULT, _VMCALL, _TPR, _TIMER = 0, 2, 18, 43, 52
_IO, _GDTR_IDTR, _TABLE_ACCESS, _RDRAND, _RDSEED = 30, 46, 47, 57, 61
_CLOCK_MSR = 0x10


@attrs.frozen
class Ready:
    """A case with what runs it, and what the model says of it."""

    case: Case
    assembly: str
    step: StepCase
    state: VmxIa32
    instruction: Instruction
    operands: Mapping[str, int]
    run: GuestStep
    predicted: Prediction


@attrs.frozen
class Difference:
    """A case on which the model and Bochs do not agree.

    Attributes:
        case: the case.
        assembly: the instruction as text.
        expected, observed: one line each.
        details: a line for each part that differs: model, then emulator.
        deviation: the known deviation of the emulator that explains it, if one does.
    """

    case: Case | LongCase
    assembly: str
    expected: str
    observed: str
    details: tuple[str, ...]
    deviation: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **self.case.described(),
            "assembly": self.assembly,
            "controls": {name: hex(value) for name, value in self.case.controls.items()},
            "bitmaps": [[hex(address), data.hex()] for address, data in self.case.bitmaps],
            "registers": {name: hex(value) for name, value in self.case.guest.registers.items()},
            "expected": self.expected,
            "observed": self.observed,
            "details": list(self.details),
            "deviation": self.deviation,
        }


# -- what Bochs did ----------------------------------------------------------------------------------


def observe(result: GuestResult) -> dict[str, int]:
    """Every register after the exit, by the names of the step harness."""
    fields = result.fields
    found = {name: value for name, value in result.registers.items() if name not in ONLY_64_BIT}
    found["esp"], found["eip"] = fields[0x681C] & 0xFFFF_FFFF, fields[0x681E] & 0xFFFF_FFFF
    found["eflags"] = fields[0x6820]
    found["cr0"], found["cr3"], found["cr4"] = fields[0x6800], fields[0x6802], fields[0x6804]
    found["dr7"] = fields[0x681A]
    found["gdtr.base"], found["gdtr.limit"] = fields[0x6816], fields[0x4810]
    found["idtr.base"], found["idtr.limit"] = fields[0x6818], fields[0x4812]
    for number, name in enumerate(SEGMENTS):
        rights = fields[0x4814 + 2 * number]
        found[name] = fields[0x0800 + 2 * number]
        found[f"{name}.base"], found[f"{name}.limit"] = (
            fields[0x6806 + 2 * number],
            fields[0x4800 + 2 * number],
        )
        usable = not rights & 0x10000
        found[f"{name}.access"] = (rights & 0xFF) << 8 | (rights & 0xF000) << 8 if usable else 0
    found["cpl"] = 3 if found["eflags"] >> 17 & 1 else found["cs"] & 3
    return found


@attrs.frozen
class Observed:
    """How a step ended on Bochs.

    Attributes:
        kind: as in `Prediction`; or ``hang``, or how the VM entry failed.
        vector, error_code: of the exception that the guest took; the error code is None where it has none.
        lost: the exception could not be delivered, and which one it was is not known.
    """

    kind: str
    vector: int | None = None
    error_code: int | None = None
    lost: bool = False


def classify(ready: Ready, result: GuestResult, registers: Mapping[str, int]) -> Observed:
    """Tell the step's own exit from what ended it."""
    entry = result.entry
    if entry.kind != "enters":
        return Observed(entry.kind)
    reason = entry.basic_reason
    state = ready.state
    moved = (registers["eip"], registers["cs"]) != (int(state.eip), int(state.cs.selector.value))
    stub = registers["eip"] - STUBS
    if reason == _TIMER:
        return Observed("halt" if result.fields[0x4826] == 1 else "hang")
    if reason == _TPR:  # after the instruction
        return Observed("exit")
    if moved and reason == _VMCALL and 0 <= stub < 0x400 and registers["cs"] == ready.step.reserved:
        if ready.predicted.kind == "next" and ready.predicted.expected.registers["eip"] == registers["eip"]:
            return Observed("next")
        vector = stub // 4
        return Observed("trap", vector, result.stack[0] & 0xFFFF if vector in WITH_ERROR_CODE else None)
    vectoring = entry.idt_vectoring_info or 0
    if moved:
        return Observed("next")
    if vectoring >> 31 and vectoring >> 8 & 7 == 3:
        code = result.fields[0x440A] & 0xFFFF if vectoring >> 11 & 1 else None
        vector = vectoring & 0xFF
        return Observed("trap", lost=True) if vector == _DF else Observed("trap", vector, code)
    if reason == _TRIPLE_FAULT or (reason == _EXCEPTION and (entry.interruption_info or 0) & 0xFF == _DF):
        return Observed("trap", lost=True)
    return Observed("exit")


def difference(ready: Ready, result: GuestResult) -> Difference | None:
    """Where the model and Bochs do not agree."""
    predicted = ready.predicted
    expected = predicted.expected
    registers = observe(result) if result.fields else {}
    observed = classify(ready, result, registers)
    details: list[str] = []
    differing: set[str] = set()

    def compare(name: str, value: int, seen: int) -> None:
        if value != seen:
            details.append(f"{name}: {value:#x}, {seen:#x}")
            differing.add(name)

    same = predicted.kind == observed.kind
    if same and predicted.kind == "trap":
        if observed.lost:
            same = not deliverable(ready.state, expected.vector or 0, expected.error_code is not None)
        else:
            same = (expected.vector, expected.error_code) == (observed.vector, observed.error_code)
    if not same:
        differing.add("outcome")
    elif predicted.kind == "exit":
        for name, value in predicted.information.items():
            mask = defined_bits(name, predicted.information)
            compare(name, value & mask, result.fields[EXIT_FIELDS[name]] & mask)
    # The exception that ended the step may have been delivered in part.
    lost = result.entry.basic_reason == _TRIPLE_FAULT or bool((result.entry.idt_vectoring_info or 0) >> 31)
    if same and predicted.kind != "trap":
        for name, value in expected.registers.items():
            undefined = expected.undefined.get(name, 0)
            if name in UNOBSERVED or (name == "cr2" and lost):
                continue
            owner, _, part = name.partition(".")
            if part in ("base", "limit") and registers.get(f"{owner}.access") == 0:
                continue
            if name == "eax" and ready.case.guest.form == "RDPKRU":
                continue
            if name in ("eax", "edx") and predicted.kind == "next" and _gives_time(ready):
                continue
            compare(name, value & ~undefined, registers[name] & ~undefined)
        for address, value, byte in _memory_differences(ready, expected, result):
            compare(f"[{address:#x}]", value, byte)
        if predicted.kind == "next":
            for number, value in expected.msrs.items():
                compare(f"msr {number:#x}", value, _msr(result, number))
        if predicted.kind in ("next", "exit") and predicted.shadow is not None:
            compare("interruptibility", predicted.shadow | predicted.blocked << 3, result.fields[0x4824])
        if predicted.kind == "next" and _gives_time(ready):
            details += _clock(ready, result, registers, differing)
    if not differing:
        return None
    found = Difference(ready.case, ready.assembly, end(predicted), _seen(observed, result), tuple(details))
    return attrs.evolve(found, deviation=_explained(ready, observed, result, registers, differing))


def _explained(
    ready: Ready, observed: Observed, result: GuestResult, registers: Mapping[str, int], differing: set[str]
) -> str | None:
    """The known deviation that explains a difference: one of VMX, or one of bare IA-32 beneath it."""
    information = ready.predicted.information
    found = Found(
        ready.case,
        ready.state,
        ready.predicted.kind,
        information,
        result,
        observed.kind,
        frozenset(differing),
    )
    own = explain_guest(found)
    if own is not None:
        return own
    expected = ready.predicted.expected
    raised = _raised(information.get("exit_interruption_info", 0), information.get("exit_interruption_error"))
    if ready.predicted.kind == "exit" and raised is not None:
        expected = attrs.evolve(expected, kind="trap", vector=raised[0], error_code=raised[1], raised=raised)
    seen = (observed.vector, observed.error_code)
    if observed.kind == "exit":
        seen = _raised(result.fields[0x4404], result.fields[0x4406]) or (None, None)
    kind = "trap" if seen[0] is not None else "next" if observed.kind == "next" else "hang"
    watched = zip(ready.run.watch, result.memory, strict=True)
    places = [(place, data) for place, data in watched if place[0] < ARENA_BYTES]
    step = attrs.evolve(ready.step, watch=tuple(place for place, _ in places))
    shown = StepResult(kind, *seen, registers, tuple(data for _, data in places))  # type: ignore[arg-type]
    if (expected.vector, expected.error_code) != seen:
        differing = {"outcome"}
    memory = frozenset("memory" if name.startswith("[") else name for name in differing)
    return explain_ia32(ready.case.guest, step, expected, shown, memory)


def _raised(interruption: int, code: int | None) -> tuple[int, int | None] | None:
    """Vector and error code of a hardware exception that left the guest."""
    if not interruption >> 31 or interruption >> 8 & 7 != 3:
        return None
    return interruption & 0xFF, code if interruption >> 11 & 1 else None


def defined_bits(name: str, information: Mapping[str, int]) -> int:
    """The bits of a field of the exit information that the manual defines for this exit.

    SDM vol. 3C, "Information for VM Exits Due to Instruction Execution", tables of the formats.
    """
    if name != "exit_instruction_info":
        return (1 << 64) - 1
    reason, value = information["exit_reason"], information[name]
    if reason == _IO:
        return 0x380 | (0 if information["exit_qualification"] & 8 else 0x38000)  # INS has no segment
    if reason in (_RDRAND, _RDSEED):
        return 0x1878  # register and operand size
    in_register = value >> 10 & 1
    if reason == _TABLE_ACCESS:
        return 3 << 28 | (0x400 | 0xF << 3 if in_register else _memory_parts(value))
    if reason == _GDTR_IDTR:
        return 3 << 28 | 1 << 11 | _memory_parts(value)
    return 0xF << 28 | 0x400 | (0xF << 3 if in_register else _memory_parts(value))


def _memory_parts(value: int) -> int:
    """Address size, segment, index and base of a memory operand; scaling where there is an index."""
    index, base = not value >> 22 & 1, not value >> 27 & 1
    parts = 0x380 | 0x400 | 7 << 15 | 1 << 22 | 1 << 27
    return parts | (0xF << 18 | 3 if index else 0) | (0xF << 23 if base else 0)


def _msr(result: GuestResult, number: int) -> int:
    if number == TSC_AUX:
        return int.from_bytes(result.memory[-1], "little")
    return result.fields[MSR_FIELDS[number]]


def _memory_differences(
    ready: Ready, expected: Expectation, result: GuestResult
) -> Iterator[tuple[int, int, int]]:
    if ready.case.guest.form in EXTENDED_STATE:
        return
    for (address, _), data in zip(ready.run.watch[:-1], result.memory[:-1], strict=True):
        for where, byte in enumerate(data, address):
            value = expected.memory.get(where)
            if value is None:
                value = int(ready.state.memory.load(Word(32, where)))
            if value != byte:
                yield where, value, byte


def _gives_time(ready: Ready) -> bool:
    number = int(ready.state.gpr[1])
    form = ready.case.guest.form
    return form in ("RDTSC", "RDTSCP") or (form == "RDMSR" and number == _CLOCK_MSR)


def _clock(ready: Ready, result: GuestResult, registers: Mapping[str, int], differing: set[str]) -> list[str]:
    """The time that the guest read must lie between the times around its run, both as it would see them."""
    ends = []
    for time_stamp in result.clock:
        state = ready.state.copy()
        state.tsc = Word(64, time_stamp)
        parts = {
            name: Word(width, ready.operands[name])
            for operand in ready.instruction.inputs
            for name, width in operand.part_names()
        }
        outcome = vmx_machine().step(ready.instruction, state, parts)
        assert isinstance(outcome, Next)
        ends.append(int(outcome.state.gpr[2]) << 32 | int(outcome.state.gpr[0]))
    seen = registers["edx"] << 32 | registers["eax"]
    whole = (1 << 64) - 1
    if seen - ends[0] & whole <= ends[1] - ends[0] & whole:
        return []
    differing.add("time")
    return [f"time: {ends[0]:#x} to {ends[1]:#x}, {seen:#x}"]


def end(predicted: Prediction) -> str:
    """How the model says that the step ends, in a few words."""
    if predicted.kind == "exit":
        return f"exit {predicted.information.get('exit_reason', 0)}"
    if predicted.kind == "trap":
        code = predicted.expected.error_code
        return vector_name(predicted.expected.vector) + ("" if code is None else f"({code:#x})")
    return predicted.kind


def _seen(observed: Observed, result: GuestResult) -> str:
    if observed.kind == "exit":
        return f"exit {result.entry.basic_reason}"
    if observed.kind == "trap":
        code = observed.error_code
        if observed.lost:
            return "an exception that could not be delivered"
        return vector_name(observed.vector) + ("" if code is None else f"({code:#x})")
    return f"{observed.kind} (exit {result.entry.basic_reason})"
