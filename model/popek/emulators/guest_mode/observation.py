"""How a step of an SVM guest ended on Bochs, and where that differs from what the model says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from popek.architectures.svm.operation.state import SvmIa32
from popek.architectures.x86.msrs import IA32_PAT, IA32_TIME_STAMP_COUNTER, IA32_TSC_AUX
from popek.emulators.ia32.delivery import deliverable
from popek.emulators.ia32.deviations import explain as explain_ia32
from popek.emulators.ia32.expectation import EXTENDED_STATE
from popek.emulators.ia32.step import ARENA_BYTES, STUBS, WITH_ERROR_CODE, StepCase
from popek.emulators.x86.expectation import Expectation, StepResult, vector_name
from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next
from popek.kernel.words import Word

from .cases import Case
from .deviations import Found, explain, has_next_rip_of_its_own
from .expectation import EXIT_FIELDS, MSR_FIELDS, SEGMENTS, Prediction, svm_machine
from .harness import GuestResult, GuestStep

UNOBSERVED: Final[Mapping[str, str]] = {
    "pkru": "no VMCB field, and the emulated processor has none",
    "msr 0x277": "without nested paging it is the host's, which an exit gives back as it was",
    "eflags.rf": "the exit that ends a step comes after RF was cleared",
    "ldtr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
    "tr.rights.l": "reserved in the descriptor of a system segment; Bochs drops it",
}
"""What the harness does not show, each with the reason."""

IDENTIFICATION: Final = ("eax", "ebx", "ecx", "edx")
"""What CPUID gives, which is the emulated processor's affair."""

_DF = 8
_EXCEPTION, _SHUTDOWN, _VMMCALL = 0x40, 0x7F, 0x81


@attrs.frozen
class Ready:
    """A case with what runs it, and what the model says of it."""

    case: Case
    assembly: str
    step: StepCase
    state: SvmIa32
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

    case: Case
    assembly: str
    expected: str
    observed: str
    details: tuple[str, ...]
    deviation: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "form": self.case.guest.form,
            "assembly": self.assembly,
            "cpl": self.case.guest.cpl,
            "paging": self.case.paging,
            "nested": self.case.nested,
            "controls": {name: hex(value) for name, value in self.case.controls.items()},
            "maps": [[hex(address), data.hex()] for address, data in self.case.maps],
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
    found = dict(result.registers)
    found |= {"eax": fields["RAX"], "esp": fields["RSP"], "eip": fields["RIP"], "eflags": fields["RFLAGS"]}
    found |= {name: fields[name.upper()] for name in ("cr0", "cr2", "cr3", "cr4", "dr6", "dr7")}
    found |= {"xcr0": result.xcr0, "cpl": fields["CPL"]}
    for name in ("gdtr", "idtr"):
        found[f"{name}.base"] = fields[f"{name.upper()}_BASE"]
        found[f"{name}.limit"] = fields[f"{name.upper()}_LIMIT"]
    for name in SEGMENTS:
        upper = name.upper()
        found[name] = fields[f"{upper}_SELECTOR"]
        found[f"{name}.base"] = fields[f"{upper}_BASE"] & 0xFFFF_FFFF
        found[f"{name}.limit"] = fields[f"{upper}_LIMIT"]
        packed = fields[f"{upper}_ATTRIBUTES"]
        rights = packed & 0xFF | packed << 4 & 0xF000
        found[f"{name}.access"] = (rights & 0xFF) << 8 | (rights & 0xF000) << 8 if packed & 0x80 else 0
    return found


@attrs.frozen
class Observed:
    """How a step ended on Bochs.

    Attributes:
        kind: as in `Prediction`; or ``hang``, or how VMRUN failed.
        vector, error_code: of the exception that the guest took; the error code is None where it has none.
        lost: the exception could not be delivered, and which one it was is not known.
    """

    kind: str
    vector: int | None = None
    error_code: int | None = None
    lost: bool = False


def classify(ready: Ready, result: GuestResult, registers: Mapping[str, int]) -> Observed:
    """Tell the step's own exit from what ended it."""
    if result.kind != "exit":
        return Observed(result.kind)
    code, state = result.fields["EXITCODE"], ready.state
    if code == (1 << 64) - 1:
        return Observed("VMEXIT_INVALID")
    moved = (registers["eip"], registers["cs"]) != (int(state.eip), int(state.cs.selector.value))
    stub = registers["eip"] - STUBS
    if moved and code == _VMMCALL and 0 <= stub < 0x400 and registers["cs"] == ready.step.reserved:
        if ready.predicted.kind == "next" and ready.predicted.expected.registers["eip"] == registers["eip"]:
            return Observed("next")
        vector = stub // 4
        return Observed("trap", vector, result.stack[0] & 0xFFFF if vector in WITH_ERROR_CODE else None)
    if moved:
        return Observed("next")
    vectoring = result.fields["EXITINTINFO"]
    if vectoring >> 31 and vectoring >> 8 & 7 == 3 and code != ready.predicted.information.get("exit_code"):
        vector = vectoring & 0xFF
        error = result.fields["EXITINTINFO_ERROR"] & 0xFFFF if vectoring >> 11 & 1 else None
        return Observed("trap", lost=True) if vector == _DF else Observed("trap", vector, error)
    if code in (_SHUTDOWN, _EXCEPTION + _DF):
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
            compare(name, value, result.fields[EXIT_FIELDS[name]])
    # The exception that ended the step may have been delivered in part.
    lost = bool(result.fields) and bool(result.fields["EXITINTINFO"] >> 31)
    if same and predicted.kind != "trap":
        for name, value in expected.registers.items():
            undefined = expected.undefined.get(name, 0)
            if name in UNOBSERVED or (name == "cr2" and lost):
                continue
            owner, _, part = name.partition(".")
            if part in ("base", "limit") and registers.get(f"{owner}.access") == 0:
                continue
            if predicted.kind == "next" and ready.case.guest.form == "CPUID" and name in IDENTIFICATION:
                continue
            if name in ("eax", "edx") and predicted.kind == "next" and _gives_time(ready):
                continue
            compare(name, value & ~undefined, registers[name] & ~undefined)
        for address, value, byte in _memory_differences(ready, expected, result):
            compare(f"[{address:#x}]", value, byte)
        if predicted.kind == "next":
            for number, value in expected.msrs.items():
                if number == IA32_PAT and not ready.case.nested:
                    continue  # see `UNOBSERVED`
                compare(f"msr {number:#x}", value, _msr(result, number))
        if predicted.shadow is not None:
            compare("interrupt shadow", predicted.shadow, result.fields["INTERRUPT_SHADOW"] & 1)
        if predicted.kind == "next" and _gives_time(ready):
            details += _clock(ready, result, registers, differing)
    if not differing:
        return None
    found = Difference(ready.case, ready.assembly, end(predicted), _seen(observed, result), tuple(details))
    return attrs.evolve(found, deviation=_explained(ready, observed, result, registers, differing))


def _explained(
    ready: Ready, observed: Observed, result: GuestResult, registers: Mapping[str, int], differing: set[str]
) -> str | None:
    """The known deviation that explains a difference: one of SVM, or one of bare IA-32 beneath it."""
    if has_next_rip_of_its_own(ready.predicted.information) and len(differing) > 1:
        differing = differing - {"exit_next_rip"}  # known, and not what is to be explained
    found = Found(
        ready.case, ready.state, ready.predicted.kind, ready.predicted.information, ready.predicted.expected,
        result, observed.kind, observed.vector, frozenset(differing),
    )  # fmt: skip
    own = explain(found)
    if own is not None or not result.fields:
        return own
    expected = ready.predicted.expected
    raised = _raised(
        ready.predicted.information.get("exit_code"), ready.predicted.information.get("exit_info1")
    )
    if ready.predicted.kind == "exit" and raised is not None:
        expected = attrs.evolve(expected, kind="trap", vector=raised[0], error_code=raised[1], raised=raised)
    seen = (observed.vector, observed.error_code)
    if observed.kind == "exit":
        seen = _raised(result.fields["EXITCODE"], result.fields["EXITINFO1"]) or (None, None)
    kind = "trap" if seen[0] is not None else "next" if observed.kind == "next" else "hang"
    watched = zip(ready.run.watch, result.memory, strict=True)
    places = [(place, data) for place, data in watched if place[0] < ARENA_BYTES]
    step = attrs.evolve(ready.step, watch=tuple(place for place, _ in places))
    shown = StepResult(kind, *seen, registers, tuple(data for _, data in places))  # type: ignore[arg-type]
    if (expected.vector, expected.error_code) != seen:
        differing = {"outcome"}
    memory = frozenset("memory" if name.startswith("[") else name for name in differing)
    return explain_ia32(ready.case.guest, step, expected, shown, memory)


def _raised(code: int | None, info1: int | None) -> tuple[int, int | None] | None:
    """Vector and error code of an exception that left the guest."""
    if code is None or not _EXCEPTION <= code < _EXCEPTION + 32:
        return None
    vector = code - _EXCEPTION
    return vector, info1 if vector in WITH_ERROR_CODE else None


def _msr(result: GuestResult, number: int) -> int:
    if number == IA32_TSC_AUX:
        return result.auxiliary
    if number == IA32_PAT:
        return result.fields["G_PAT"]
    return result.fields[MSR_FIELDS[number]]


def _memory_differences(
    ready: Ready, expected: Expectation, result: GuestResult
) -> Iterator[tuple[int, int, int]]:
    if ready.case.guest.form in EXTENDED_STATE:
        return
    for (address, _), data in zip(ready.run.watch, result.memory, strict=True):
        for where, byte in enumerate(data, address):
            value = expected.memory.get(where)
            if value is None:
                value = int(ready.state.memory.load(Word(32, where)))
            if value != byte:
                yield where, value, byte


def _gives_time(ready: Ready) -> bool:
    number = int(ready.state.gpr[1])
    form = ready.case.guest.form
    return form in ("RDTSC", "RDTSCP") or (form == "RDMSR" and number == IA32_TIME_STAMP_COUNTER)


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
        outcome = svm_machine().step(ready.instruction, state, parts)
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
        return f"exit {predicted.information['exit_code']:#x}"
    if predicted.kind == "trap":
        code = predicted.expected.error_code
        return vector_name(predicted.expected.vector) + ("" if code is None else f"({code:#x})")
    return predicted.kind


def _seen(observed: Observed, result: GuestResult) -> str:
    if observed.kind == "exit":
        return f"exit {result.fields['EXITCODE']:#x}"
    if observed.kind == "trap":
        code = observed.error_code
        if observed.lost:
            return "an exception that could not be delivered"
        return vector_name(observed.vector) + ("" if code is None else f"({code:#x})")
    return f"{observed.kind} (exit {result.fields.get('EXITCODE', 0):#x})"
