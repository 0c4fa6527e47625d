"""What the IA-32 model in guest mode expects of one step: #VMEXIT and its information, state, or exception.

The model decides; this module builds the state of a case and translates the outcome into the harness's names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs

from popek.architectures.ia32.state import ESP
from popek.architectures.svm.operation import machine as svm
from popek.architectures.svm.operation.exits import VM_EXIT
from popek.architectures.svm.operation.guest_mode import EFER_SVME, VM_HSAVE_PA
from popek.architectures.svm.operation.settings import PLACES
from popek.architectures.svm.operation.state import SvmIa32
from popek.architectures.x86.msrs import IA32_EFER, IA32_PAT, IA32_TIME_STAMP_COUNTER, IA32_TSC_AUX
from popek.emulators.ia32.delivery import deliverable
from popek.emulators.ia32.expectation import (
    BENIGN,
    arena_memory,
    changes,
    initial_state,
    shown_registers,
    virtual_interrupt_pending,
)
from popek.emulators.ia32.step import ARENA_BYTES, STUBS, TEMPLATE, StepCase
from popek.emulators.ia32.step import prepare as prepare_step
from popek.emulators.vmrun.harness import DEFAULT_MODEL, cpuid
from popek.emulators.x86.expectation import Expectation, OutsideError, each_bit
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.words import Word

from .cases import PG, Case, page_entries
from .harness import BASELINE, IOPM, MARKER, MSRPM, PAGE_DIRECTORY, REGISTERS, GuestStep

EXIT_FIELDS: Final[Mapping[str, str]] = {
    "exit_code": "EXITCODE",
    "exit_info1": "EXITINFO1",
    "exit_info2": "EXITINFO2",
    "exit_int_info": "EXITINTINFO",
    "exit_next_rip": "NEXT_RIP",
}
"""What tells of an exit: the model's names, and the VMCB's fields."""

MSR_FIELDS: Final = {0x174: "SYSENTER_CS", 0x175: "SYSENTER_ESP", 0x176: "SYSENTER_EIP", IA32_EFER: "EFER"}
"""The MSRs that the VMCB always holds, and their fields."""

SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")

KNOWN_MSRS: Final = (*MSR_FIELDS, IA32_PAT, IA32_TSC_AUX, IA32_TIME_STAMP_COUNTER)
"""Those that the harness sets and shows."""

LACKING: Final = ("INVPCID", "RDPID", "RDPKRU", "WRPKRU")
"""Mnemonics that Bochs' model of an AMD processor does not have."""

_RF = 1 << 16
_PAT_RESET = 0x0007_0406_0007_0406
_HIDDEN: Final = {"eflags": _RF, "ldtr.access": 1 << 21, "tr.access": 1 << 21}


@functools.cache
def svm_machine() -> Machine[SvmIa32]:
    """The IA-32 machine with SVM."""
    return svm.build()


@attrs.frozen
class Prediction:
    """What the model says of a case.

    Attributes:
        kind: ``exit``, ``next``, ``halt`` or ``trap``.
        expected: state and memory, as the step harness's comparison has them.
        information: exit information by the model's names; a field that is missing is not defined.
        shadow: whether interrupts are in a shadow afterwards; None where it does not matter.
    """

    kind: str
    expected: Expectation
    information: Mapping[str, int] = attrs.field(factory=dict)
    shadow: int | None = None


# -- the state --------------------------------------------------------------------------------------


def step_of(case: Case, code: bytes) -> StepCase:
    """The case without its controls."""
    guest = case.guest
    return StepCase(code, guest.cpl, guest.registers, guest.msrs, guest.memory, guest.stale)


def arena_of(step: StepCase) -> bytes:
    """The arena when the guest starts, with what leaves it behind the instruction."""
    prepared = prepare_step(step)
    arena = bytearray(prepared.arena)
    arena[prepared.end : prepared.end + len(MARKER)] = MARKER
    return bytes(arena)


def _cells(written: Mapping[int, int], base: int) -> Callable[[Word], Word]:
    """The bits of a map that lies at `base`."""

    def cell(index: Word) -> Word:
        number = int(index)
        return Word(1, written.get(base + number // 8, 0) >> number % 8 & 1)

    return cell


def state_of(case: Case, step: StepCase, arena: bytes, model: str = DEFAULT_MODEL) -> SvmIa32:
    """The model's state at the start: in guest mode, with the case's VMCB."""
    plain = initial_state(step)
    state = SvmIa32.reset()
    state._words.update(plain._words)
    state._memories.update(plain._memories)
    state.memory = arena_memory(arena)
    state.cr0 = plain.cr0.value | (PG if case.paging else 0)
    if case.paging and "cr3" not in case.guest.registers:
        state.cr3 = Word(32, PAGE_DIRECTORY)
    msrs = {IA32_PAT: _PAT_RESET, **case.guest.msrs}
    msrs[IA32_EFER] = msrs.get(IA32_EFER, 0) | EFER_SVME
    state.msr = Memory(32, 64, msrs)
    state.guest_mode = Word(1, 1)
    assists = cpuid(model)[0x8000000A, 0][3]
    state.features = assists >> 3 & 1 | (assists >> 7 & 1) << 1
    for page, lacking in case.barred.items():
        pages = state.read_only if lacking == 2 else state.reserved
        pages.base, pages.size = Word(32, page << 12), Word(32, 0x1000)
    for name, (field, low) in PLACES.items():
        width = state[name].width
        state[name] = case.controls.get(field, 0) >> low & ((1 << width) - 1)
    state.tsc_offset = Word(64, case.controls.get("TSC_OFFSET", 0))
    written: dict[int, int] = {}
    for address, data in case.maps:
        written.update(enumerate(data, address))
    state.iopm = Memory(17, 1, _cells(written, IOPM))
    state.msrpm = Memory(16, 1, _cells(written, MSRPM))
    return state


def step_run(case: Case, state: SvmIa32, arena: bytes, watch: tuple[tuple[int, int], ...]) -> GuestStep:
    """The case as the harness takes it."""
    fields = {**case.controls, "NP_CONTROL": int(case.nested), **_guest_fields(state)}
    fields = {name: value for name, value in fields.items() if value != BASELINE.get(name, 0)}
    registers = {name: int(state[name]) for name in REGISTERS}
    memory = (*_patches(arena), *case.maps, *page_entries(case))
    pat, auxiliary = (int(state.msr.load(Word(32, number))) for number in (IA32_PAT, IA32_TSC_AUX))
    return GuestStep(fields, registers, memory, watch, _PAT_RESET if case.nested else pat, auxiliary)


def _guest_fields(state: SvmIa32) -> dict[str, int]:
    """The state-save area, by id."""
    fields = {
        "CR0": int(state.cr0.value),
        "CR2": int(state.cr2),
        "CR3": int(state.cr3),
        "CR4": int(state.cr4.value),
        "DR6": int(state.dr6.value),
        "DR7": int(state.dr7.value),
        "RSP": int(state.gpr[4]),
        "RAX": int(state.gpr[0]),
        "RIP": int(state.eip),
        "RFLAGS": int(state.eflags.value),
        "CPL": int(state.cpl),
        "GDTR_BASE": int(state.gdtr.base),
        "GDTR_LIMIT": int(state.gdtr.limit),
        "IDTR_BASE": int(state.idtr.base),
        "IDTR_LIMIT": int(state.idtr.limit),
        "G_PAT": int(state.msr.load(Word(32, IA32_PAT))),
        "INTERRUPT_SHADOW": int(state.shadow.value != 0),
    }
    for name in SEGMENTS:
        rights = int(state[f"{name}.rights"])
        present = 0 if rights & 0x10000 else rights & 0x80
        fields[f"{name.upper()}_SELECTOR"] = int(state[f"{name}.selector"])
        fields[f"{name.upper()}_LIMIT"] = int(state[f"{name}.limit"])
        fields[f"{name.upper()}_ATTRIBUTES"] = rights & 0x7F | present | rights >> 4 & 0xF00
        fields[f"{name.upper()}_BASE"] = int(state[f"{name}.base"])
    for number, field in MSR_FIELDS.items():
        fields[field] = int(state.msr.load(Word(32, number)))
    return fields


def _patches(arena: bytes) -> Iterator[tuple[int, bytes]]:
    """Where the arena differs from what the harness puts there."""
    for at in range(0, ARENA_BYTES, 1024):
        if arena[at : at + 1024] == TEMPLATE[at : at + 1024]:
            continue
        for small in range(at, at + 1024, 16):
            if arena[small : small + 16] != TEMPLATE[small : small + 16]:
                yield small, arena[small : small + 16]


# -- what the model says -----------------------------------------------------------------------------


def predict(
    machine: Machine[SvmIa32], instruction: Instruction, operands: Mapping[str, int], state: SvmIa32
) -> Prediction | NotModelled:
    """What becomes of one step.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    if int(state["xcr0"]) != 1 or int(state["pkru"]) != 0:
        raise OutsideError("XCR0 or PKRU of its own")
    if virtual_interrupt_pending(state):
        raise OutsideError("a virtual interrupt is pending (CR4.PVI, VIF and VIP at CPL 3)")
    if instruction.mnemonic in LACKING:
        raise OutsideError(f"{instruction.mnemonic}, which the emulated processor does not have")
    _check_transfer(instruction, state, operands)
    widths = {name: width for operand in instruction.inputs for name, width in operand.part_names()}
    parts = {name: Word(width, operands[name]) for name, width in widths.items()}
    asked: dict[str, int] = {}
    outcome = machine.step(instruction, state.with_undefined({}, asked), parts)
    if isinstance(outcome, NotModelled):
        return outcome
    _check_msrs(instruction, state, outcome)
    predicted = _prediction(instruction, state, outcome, parts, set(asked))
    undefined = {name: width for name, width in asked.items() if "page-fault address" not in name}
    return _without_undefined(machine, instruction, state, parts, undefined, predicted)


def _check_transfer(instruction: Instruction, state: SvmIa32, operands: Mapping[str, int]) -> None:
    """Where the emulator does not come back from.

    It gives up when a guest in virtual-8086 mode is left; and it reads around the end of the address space, which no
    processor does, so that nobody knows where a transfer then leads.
    """
    wraps = any(name.endswith(".offset") and value > 0xFFFF_FFF8 for name, value in operands.items())
    if wraps and instruction.mnemonic.startswith(("JMP", "CALL")):
        raise OutsideError("a transfer through memory that wraps around at 4 GiB")
    if instruction.form != "IRETD" or int(state.cpl) != 0:
        return
    pointer = int(state.gpr[ESP]) & (0xFFFF_FFFF if state.ss.rights.db else 0xFFFF)
    image = state.memory.load_little_endian(Word(32, int(state.ss.base) + pointer + 8 & 0xFFFF_FFFF), 4)
    if int(image) >> 17 & 1:
        raise OutsideError("IRETD with VM in the image of EFLAGS")


def _check_msrs(instruction: Instruction, state: SvmIa32, outcome: Next[SvmIa32] | Trap[SvmIa32]) -> None:
    """Of the MSRs that the harness does not know, only intercepts are compared; nobody writes the clock or SVM's."""
    if instruction.form not in ("RDMSR", "WRMSR"):
        return
    if isinstance(outcome, Trap) and (outcome.vector is VM_EXIT or int(state.cpl) != 0):
        return
    number = int(state.gpr[1])
    exists = number in KNOWN_MSRS or not isinstance(outcome, Next)
    if (
        not exists
        or number == VM_HSAVE_PA
        or (number == IA32_TIME_STAMP_COUNTER and instruction.form == "WRMSR")
    ):
        raise OutsideError("an MSR that the harness does not know")
    if (
        isinstance(outcome, Next)
        and instruction.form == "WRMSR"
        and number == IA32_EFER
        and not outcome.state.svme
    ):
        raise OutsideError("a guest that clears EFER.SVME")


def _prediction(
    instruction: Instruction,
    state: SvmIa32,
    outcome: Next[SvmIa32] | Trap[SvmIa32],
    parts: Mapping[str, Word],
    asked: set[str],
) -> Prediction:
    after = outcome.state
    undefined = dict(_HIDDEN)
    if isinstance(outcome, Trap) and outcome.vector is VM_EXIT:
        information = {name: int(after[name]) for name in EXIT_FIELDS}
        if any("page-fault address" in name for name in asked):
            del information["exit_info2"]
        expected = Expectation(
            "exit", None, None, shown_registers(after), undefined, {}, {}, storage=outcome.memory
        )
        return Prediction("exit", expected, information, int(after.shadow.value != 0))
    memory = dict(changes(after.memory))
    msrs = {number: int(after.msr.load(Word(32, number))) for number in (*MSR_FIELDS, IA32_PAT, IA32_TSC_AUX)}
    registers = shown_registers(after)
    if isinstance(outcome, Trap):
        vector = outcome.vector.number
        code = None if outcome.error_code is None else int(outcome.error_code)
        registers["eip"] = int(state.eip)
        if not deliverable(after, vector, code is not None) and vector in BENIGN:
            raise OutsideError("a benign fault that cannot be delivered")
        expected = Expectation(
            "trap", vector, code, registers, undefined, memory, msrs, (vector, code), outcome.memory
        )
        return Prediction("trap", expected)
    start = int(state.cs.base) + int(state.eip)
    target = int(after.cs.base) + int(after.eip) & 0xFFFF_FFFF
    follows = start + int(parts["operand length"]) & 0xFFFF_FFFF
    if virtual_interrupt_pending(after) and target != follows:
        raise OutsideError("a transfer to where a virtual interrupt is pending")
    if after.eflags.tf:
        raise OutsideError("an instruction that sets TF")
    if target == start & 0xFFFF_FFFF:
        raise OutsideError("a jump to itself")
    if any(start - 4 <= address < follows + len(MARKER) for address in memory):
        raise OutsideError("an instruction that writes over itself")
    if target != follows and not STUBS <= target < STUBS + 0x400:
        _check_landing(instruction, state, memory, target, follows)
    if instruction.form == "INT1" and int(after.eip) >= int(after.cs.limit):
        raise OutsideError("UD2 that crosses the limit of its segment")
    expected = Expectation("next", None, None, registers, undefined, memory, msrs)
    return Prediction("next", expected, {}, int(after.shadow.value != 0))


def _check_landing(
    instruction: Instruction, state: SvmIa32, memory: Mapping[int, int], target: int, follows: int
) -> None:
    """Where a transfer leads, INT1 must leave the guest (or UD2, for INT1 itself)."""
    if target >= ARENA_BYTES:
        raise OutsideError(f"a transfer to {target:#x}")
    byte = memory.get(target)
    if byte is None:
        byte = int(state.memory.load(Word(32, target)))
    if byte != (0x0F if instruction.form == "INT1" else 0xF1) or follows < target < follows + len(MARKER):
        raise OutsideError(f"a transfer to {target:#x}, which is no landing place")


def _without_undefined(
    machine: Machine[SvmIa32],
    instruction: Instruction,
    state: SvmIa32,
    parts: Mapping[str, Word],
    asked: Mapping[str, int],
    predicted: Prediction,
) -> Prediction:
    """Leave open the bits of registers that some bit of the undefined results reaches, or all of them together."""
    undefined = dict(predicted.expected.undefined)
    for values in each_bit(asked):
        outcome = machine.step(instruction, state.with_undefined(values), parts)
        if isinstance(outcome, NotModelled):
            raise OutsideError("an undefined result decides what is modelled")
        other = _prediction(instruction, state, outcome, parts, set())
        same = (predicted.kind, predicted.expected.vector, predicted.information.get("exit_code"))
        if (other.kind, other.expected.vector, other.information.get("exit_code")) != same:
            raise OutsideError("an undefined result decides more than registers")
        for register, value in predicted.expected.registers.items():
            if value != other.expected.registers[register]:
                undefined[register] = undefined.get(register, 0) | value ^ other.expected.registers[register]
    return attrs.evolve(predicted, expected=attrs.evolve(predicted.expected, undefined=undefined))
