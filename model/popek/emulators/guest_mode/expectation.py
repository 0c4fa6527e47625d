"""What the IA-32 model in guest mode expects of one step: #VMEXIT and its information, state, or exception.

The model decides; this module builds the state of a case and translates the outcome into the harness's names.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from popek.architectures.ia32.state import ESP
from popek.architectures.svm.operation import machine as svm
from popek.architectures.svm.operation.exits import VM_EXIT
from popek.architectures.svm.operation.guest_mode import EFER_SVME
from popek.architectures.svm.operation.settings import PLACES
from popek.architectures.svm.operation.state import VM_HSAVE_PA, Svm, SvmIa32
from popek.architectures.x86.msrs import IA32_EFER, IA32_PAT, IA32_TIME_STAMP_COUNTER, IA32_TSC_AUX
from popek.emulators.guests.drawing import PG
from popek.emulators.guests.expectation import (
    SEGMENTS,
    GuestPrediction,
    guest_state,
    left,
    predicted,
    stayed,
    without_fault_address,
)
from popek.emulators.guests.memory import PAGE_DIRECTORY, bits, page_entries, patches, written
from popek.emulators.ia32.step import Ia32StepCase
from popek.emulators.vmrun.harness import DEFAULT_MODEL, cpuid
from popek.emulators.x86.expectation import OutsideError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word

from .cases import SvmGuestCase
from .harness import BASELINE, IOPM, MARKER, MSRPM, REGISTERS, SvmGuestStep

EXIT_FIELDS: Final[Mapping[str, str]] = {
    "exit_code": "EXITCODE",
    "exit_info1": "EXITINFO1",
    "exit_info2": "EXITINFO2",
    "exit_int_info": "EXITINTINFO",
    "exit_next_rip": "NEXT_RIP",
}
"""What tells of an exit: the model's names, and the VMCB's fields."""

NAMES_OF_REGISTERS: Final = {
    name: name if name.startswith("dr") else f"e{name[1:]}" for name in REGISTERS if not name[1:].isdigit()
}
"""The harness's registers by the model's names; it has no others."""

MSR_FIELDS: Final = {0x174: "SYSENTER_CS", 0x175: "SYSENTER_ESP", 0x176: "SYSENTER_EIP", IA32_EFER: "EFER"}
"""The MSRs that the VMCB always holds, and their fields."""

KNOWN_MSRS: Final = (*MSR_FIELDS, IA32_PAT, IA32_TSC_AUX, IA32_TIME_STAMP_COUNTER)
"""Those that the harness sets and shows."""

LACKING: Final = ("INVPCID", "RDPID", "RDPKRU", "WRPKRU")
"""Mnemonics that Bochs' model of an AMD processor does not have."""

PAT_RESET = 0x0007_0406_0007_0406


@functools.cache
def svm_machine() -> Machine[SvmIa32]:
    """The IA-32 machine with SVM."""
    return svm.build()


def state_of(case: SvmGuestCase, step: Ia32StepCase, arena: bytes, model: str = DEFAULT_MODEL) -> SvmIa32:
    """The model's state at the start: in guest mode, with the case's VMCB."""
    state = guest_state(SvmIa32, case, step, arena)
    state.cr0 = state.cr0.value | (PG if case.paging else 0)
    if case.paging and "cr3" not in case.guest.registers:
        state.cr3 = Word(32, PAGE_DIRECTORY)
    msrs = {IA32_PAT: PAT_RESET, **case.guest.msrs}
    msrs[IA32_EFER] = msrs.get(IA32_EFER, 0) | EFER_SVME
    state.msr = Memory(32, 64, msrs)
    under(state, case.controls, case.maps, model)
    return state


def under(state: Svm, controls: Mapping[str, int], maps: tuple[tuple[int, bytes], ...], model: str) -> None:
    """Let a state be a guest's, under the controls of a VMCB and its permissions maps."""
    state.guest_mode = Word(1, 1)
    assists = cpuid(model)[0x8000000A, 0][3]
    state.features = assists >> 3 & 1 | (assists >> 7 & 1) << 1
    for name, (field, low) in PLACES.items():
        width = state[name].width
        state[name] = controls.get(field, 0) >> low & ((1 << width) - 1)
    state.tsc_offset = Word(64, controls.get("TSC_OFFSET", 0))
    cells = written(maps)
    state.iopm = Memory(17, 1, bits(cells, IOPM))
    state.msrpm = Memory(16, 1, bits(cells, MSRPM))


def step_run(
    case: SvmGuestCase, state: SvmIa32, arena: bytes, watch: tuple[tuple[int, int], ...]
) -> SvmGuestStep:
    """The case as the harness takes it."""
    fields = {**case.controls, "NP_CONTROL": int(case.nested), **_guest_fields(state)}
    fields = {name: value for name, value in fields.items() if value != BASELINE.get(name, 0)}
    registers = {name: int(state[ours]) for name, ours in NAMES_OF_REGISTERS.items()}
    memory = (*patches(arena), *case.maps, *page_entries(case.barred))
    pat, auxiliary = (int(state.msr.load(Word(32, number))) for number in (IA32_PAT, IA32_TSC_AUX))
    return SvmGuestStep(fields, registers, memory, watch, PAT_RESET if case.nested else pat, auxiliary)


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
    for number, field in MSR_FIELDS.items():
        fields[field] = int(state.msr.load(Word(32, number)))
    return {**fields, **segment_fields(state)}


def segment_fields(state: Svm) -> dict[str, int]:
    """The segment registers in the state-save area, by id."""
    fields = {}
    for name in SEGMENTS:
        rights = int(state[f"{name}.rights"])
        present = 0 if rights & 0x10000 else rights & 0x80
        fields[f"{name.upper()}_SELECTOR"] = int(state[f"{name}.selector"])
        fields[f"{name.upper()}_LIMIT"] = int(state[f"{name}.limit"])
        fields[f"{name.upper()}_ATTRIBUTES"] = rights & 0x7F | present | rights >> 4 & 0xF00
        fields[f"{name.upper()}_BASE"] = int(state[f"{name}.base"])
    return fields


# -- what the model says -----------------------------------------------------------------------------


def predict(
    machine: Machine[SvmIa32], instruction: Instruction, operands: Mapping[str, int], state: SvmIa32
) -> GuestPrediction | NotModelled:
    """What becomes of one step.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    if instruction.mnemonic in LACKING:
        raise OutsideError(f"{instruction.mnemonic}, which the emulated processor does not have")
    _check_transfer(instruction, state, operands)
    translate = functools.partial(_prediction, instruction)
    return predicted(machine, instruction, operands, state, translate, "exit_code")


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
    outcome: Outcome[SvmIa32],
    parts: Mapping[str, Word],
    asked: set[str],
) -> GuestPrediction:
    assert isinstance(outcome, Next | Trap)
    _check_msrs(instruction, state, outcome)
    after = outcome.state
    shadow = int(after.shadow.value != 0)
    if isinstance(outcome, Trap) and outcome.vector is VM_EXIT:
        information = {name: int(after[name]) for name in EXIT_FIELDS}
        return left(outcome, without_fault_address(information, "exit_info2", asked), {}, shadow)
    if isinstance(outcome, Next) and after.eflags.tf:
        raise OutsideError("an instruction that sets TF")
    msrs = {number: int(after.msr.load(Word(32, number))) for number in (*MSR_FIELDS, IA32_PAT, IA32_TSC_AUX)}
    return stayed(instruction, state, outcome, parts, marker=MARKER, msrs=msrs, shadow=shadow)
