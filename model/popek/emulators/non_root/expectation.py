"""What the IA-32 model with VMX expects of one step of a guest: exit and exit information, state, or exception.

The model decides; this module builds the state of a case and translates the outcome into the harness's names.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Final

from popek.architectures.ia32.state import Ia32
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.operation import machine as vmx
from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.state import Vmx, VmxIa32
from popek.emulators.guests.drawing import PG, VMXE
from popek.emulators.guests.expectation import (
    SEGMENTS,
    GuestPrediction,
    guest_state,
    left,
    predicted,
    stayed,
    without_fault_address,
)
from popek.emulators.guests.memory import bits, page_entries, patches, written
from popek.emulators.ia32.step import Ia32StepCase
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word

from .cases import NE, VTPR_AT, VmxGuestCase
from .harness import (
    GUEST_PAGES,
    MARKER,
    ONLY_64_BIT,
    REGISTERS,
    TSC_AUX,
    TSC_AUX_AT_ENTRY,
    TSC_AUX_AT_EXIT,
    VmxGuestStep,
    baseline,
)

EXIT_FIELDS: Final[Mapping[str, int]] = {
    "exit_reason": 0x4402,
    "exit_qualification": 0x6400,
    "exit_interruption_info": 0x4404,
    "exit_interruption_error": 0x4406,
    "exit_instruction_length": 0x440C,
    "exit_instruction_info": 0x440E,
    "exit_linear_address": 0x640A,
}
"""The exit information: the model's names, and the VMCS encodings."""

MSR_FIELDS: Final = {0x174: 0x482A, 0x175: 0x6824, 0x176: 0x6826, 0x277: 0x2804, 0xC000_0080: 0x2806}
"""The MSRs that have a field in the guest-state area, and its encoding."""

SENTINEL = 0x5A5A_5A5A
"""In fields of the exit information that an exit does not write."""


@functools.cache
def vmx_machine() -> Machine[VmxIa32]:
    """The IA-32 machine with VMX."""
    return vmx.build()


@functools.cache
def capability_msrs(model: str) -> Mapping[int, int]:
    """What the Bochs processor reports of VMX."""
    return load_capabilities(f"bochs-{model}").msrs


def state_of(case: VmxGuestCase, step: Ia32StepCase, arena: bytes, model: str = DEFAULT_MODEL) -> VmxIa32:
    """The model's state at the start: in non-root operation, with the case's VMCS."""
    state = guest_state(VmxIa32, case, step, arena)
    state.cr0 = state.cr0.value | NE | (PG if case.paging else 0)
    state.cr4 = state.cr4.value | VMXE
    if case.paging and "cr3" not in case.guest.registers:
        state.cr3 = Word(32, baseline(model)[0x6802])
    state.msr = Memory(32, 64, {**capability_msrs(model), 0x277: baseline(model)[0x2804], **case.guest.msrs})
    state.non_root = Word(1, 1)
    controls_of(state, case.controls, baseline(model))
    bitmaps_of(state, case.bitmaps)
    for name in EXIT_FIELDS:
        state[name] = SENTINEL
    return state


def controls_of(state: Vmx, controls: Mapping[str, int], known: Mapping[int, int]) -> None:
    """Fill the controls with a case's, given by id, and those of a baseline."""
    fields = {FIELDS[name].encoding: value for name, value in controls.items()}
    settings = {**known, **fields}
    settings[0x4002] |= known[0x4002]
    for name, encoding in CONTROLS.items():
        state[name] = settings[encoding] & ((1 << state[name].width) - 1)


def bitmaps_of(state: Vmx, bitmaps: tuple[tuple[int, bytes], ...]) -> None:
    """Fill the bitmaps and the virtual-APIC page with what a case writes there."""
    cells = written(bitmaps)
    state.io_bitmap = Memory(16, 1, bits(cells, GUEST_PAGES.io_bitmap_a))
    state.msr_bitmap = Memory(15, 1, bits(cells, GUEST_PAGES.msr_bitmap))
    state.vmread_bitmap = Memory(15, 1, bits(cells, GUEST_PAGES.vmread_bitmap))
    state.vmwrite_bitmap = Memory(15, 1, bits(cells, GUEST_PAGES.vmwrite_bitmap))
    virtual_page = range(GUEST_PAGES.virtual_apic, GUEST_PAGES.virtual_apic + 0x1000)
    state.virtual_apic = Memory(
        12, 8, {at - virtual_page.start: cells[at] for at in virtual_page if at in cells}
    )


CONTROLS: Final[Mapping[str, int]] = {
    "pin": 0x4000,
    "primary": 0x4002,
    "secondary": 0x401E,
    "exception_bitmap": 0x4004,
    "page_fault_mask": 0x4006,
    "page_fault_match": 0x4008,
    "cr0_mask": 0x6000,
    "cr0_shadow": 0x6004,
    "cr4_mask": 0x6002,
    "cr4_shadow": 0x6006,
    "cr3_target_count": 0x400A,
    **{f"cr3_target{number}": 0x6008 + 2 * number for number in range(4)},
    "tsc_offset": 0x2010,
    "tsc_multiplier": 0x2032,
    "tpr_threshold": 0x401C,
    "vm_function_controls": 0x2018,
    "xss_exiting_bitmap": 0x202C,
}
"""The control fields, by the model's names."""


def written_fields(
    state: Vmx, controls: Mapping[str, int], guest: Mapping[int, int], known: Mapping[int, int]
) -> dict[int, int]:
    """The fields in which a case's VMCS differs from a baseline: controls by id, the guest's by encoding."""
    fields = {FIELDS[name].encoding: value for name, value in controls.items()}
    fields[0x4002] = int(state.primary.value)
    fields |= guest
    return {encoding: value for encoding, value in fields.items() if known.get(encoding) != value}


def step_run(
    case: VmxGuestCase, state: VmxIa32, arena: bytes, watch: tuple[tuple[int, int], ...], model: str
) -> VmxGuestStep:
    """The case as the harness takes it."""
    fields = written_fields(state, case.controls, _guest_fields(state), baseline(model))
    registers = {name: int(state[name]) for name in REGISTERS if name not in ONLY_64_BIT}
    auxiliary = int(state.msr.load(Word(32, TSC_AUX))).to_bytes(8, "little")
    memory = (*patches(arena), *case.bitmaps, *page_entries(case.barred), (TSC_AUX_AT_ENTRY, auxiliary))
    return VmxGuestStep(fields, registers, memory, (*watch, (TSC_AUX_AT_EXIT, 8)))


def _guest_fields(state: Ia32) -> dict[int, int]:
    """The guest-state area, by encoding."""
    fields = {
        0x6800: int(state.cr0.value),
        0x6802: int(state.cr3),
        0x6804: int(state.cr4.value),
        0x681A: int(state.dr7.value),
        0x681C: int(state.gpr[4]),
        0x681E: int(state.eip),
        0x6820: int(state.eflags.value),
        0x6816: int(state.gdtr.base),
        0x4810: int(state.gdtr.limit),
        0x6818: int(state.idtr.base),
        0x4812: int(state.idtr.limit),
        0x4824: int(state.shadow.value),
    }
    for number, name in enumerate(SEGMENTS):
        fields[0x0800 + 2 * number] = int(state[f"{name}.selector"])
        fields[0x4800 + 2 * number] = int(state[f"{name}.limit"])
        fields[0x4814 + 2 * number] = int(state[f"{name}.rights"])
        fields[0x6806 + 2 * number] = int(state[f"{name}.base"])
    for number, encoding in MSR_FIELDS.items():
        fields[encoding] = int(state.msr.load(Word(32, number)))
    return fields


# -- what the model says -----------------------------------------------------------------------------


def predict(
    machine: Machine[VmxIa32], instruction: Instruction, operands: Mapping[str, int], state: VmxIa32
) -> GuestPrediction | NotModelled:
    """What becomes of one step.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    translate = functools.partial(_prediction, instruction)
    return predicted(machine, instruction, operands, state, translate, "exit_reason")


def _prediction(
    instruction: Instruction,
    state: VmxIa32,
    outcome: Outcome[VmxIa32],
    parts: Mapping[str, Word],
    asked: set[str],
) -> GuestPrediction:
    assert isinstance(outcome, Next | Trap)
    after = outcome.state
    shadow, blocked = int(after.shadow.value), int(after.nmi_blocked)
    if isinstance(outcome, Trap) and outcome.vector is VM_EXIT:
        information = without_fault_address(exit_information(after, EXIT_FIELDS), "exit_qualification", asked)
        return left(outcome, information, virtual_tpr(after), shadow, blocked)
    return stayed(
        instruction,
        state,
        outcome,
        parts,
        marker=MARKER,
        msrs={number: int(after.msr.load(Word(32, number))) for number in (*MSR_FIELDS, TSC_AUX)},
        memory=virtual_tpr(after),
        shadow=shadow,
        blocked=blocked,
    )


def exit_information(state: Vmx, fields: Iterable[str]) -> dict[str, int]:
    """The fields that the exit wrote."""
    return {name: int(state[name]) for name in fields if int(state[name]) != SENTINEL}


def virtual_tpr(state: VmxIa32) -> dict[int, int]:
    """The bytes of VTPR by physical address, where WRMSR can change them."""
    if not int(state.secondary_control("virtualize_x2apic_mode")):
        return {}
    return {VTPR_AT + n: int(state.virtual_apic.load(Word(12, 0x80 + n))) for n in range(8)}
