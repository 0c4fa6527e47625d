"""What the x86-64 model with VMX expects of a step of a 64-bit guest: an exit, or the guest's state afterwards."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from popek.architectures.vtx.operation import machine as vmx
from popek.architectures.vtx.operation import virtual_apic
from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.extended_paging import EptX64
from popek.emulators.guests.expectation import SEGMENTS
from popek.emulators.guests.long_expectation import LongPrediction, predicted
from popek.emulators.guests.long_memory import FRAME, patches
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.emulators.x86_64.expectation import arena_memory, initial_state
from popek.emulators.x86_64.step import X64StepCase
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import NotModelled, Trap
from popek.kernel.words import Word

from .expectation import EXIT_FIELDS, SENTINEL, bitmaps_of, controls_of, written_fields
from .harness import GUEST_PAGES, REGISTERS, VmxGuestStep
from .long_cases import VmxLongCase
from .long_world import EPT_TABLE, LOADED_AT, MSRS, STORED_AT, baseline, ept_entry

LONG_EXIT_FIELDS: Final[Mapping[str, int]] = {
    **EXIT_FIELDS,
    "exit_idt_vectoring_info": 0x4408,
    "exit_idt_vectoring_error": 0x440A,
    "exit_guest_physical_address": 0x2400,
}
"""The exit information: the model's names, and the VMCS encodings."""

STATE_FIELDS: Final[Mapping[str, int]] = {
    "cr0": 0x6800, "cr3": 0x6802, "cr4": 0x6804, "dr7": 0x681A, "rsp": 0x681C, "rip": 0x681E, "rflags": 0x6820,
    "gdtr.base": 0x6816, "gdtr.limit": 0x4810, "idtr.base": 0x6818, "idtr.limit": 0x4812, "efer": 0x2806,
    "msr.pat": 0x2804, "msr.sysenter_cs": 0x482A, "msr.sysenter_esp": 0x6824, "msr.sysenter_eip": 0x6826,
    **{f"{name}.selector": 0x0800 + 2 * n for n, name in enumerate(SEGMENTS)},
    **{f"{name}.limit": 0x4800 + 2 * n for n, name in enumerate(SEGMENTS)},
    **{f"{name}.rights": 0x4814 + 2 * n for n, name in enumerate(SEGMENTS)},
    **{f"{name}.base": 0x6806 + 2 * n for n, name in enumerate(SEGMENTS)},
}  # fmt: skip
"""The guest-state area, by the model's names."""

NAMES_OF_REGISTERS: Final = {
    name: name if name[:2] in ("cr", "dr") or name[1:].isdigit() else f"r{name[1:]}" for name in REGISTERS
}
"""The harness's registers by the model's names."""


@functools.cache
def vmx_machine_64() -> Machine[EptX64]:
    """The x86-64 machine with VMX."""
    return vmx.build_ept()


def state_of(case: VmxLongCase, step: X64StepCase, arena: bytes, model: str = DEFAULT_MODEL) -> EptX64:
    """The model's state at the start: in non-root operation, with the case's VMCS."""
    plain = initial_state(step)
    state = EptX64.reset()
    state._words.update(plain._words)
    state._memories.update(plain._memories)
    state.memory = arena_memory(arena)
    for page, rights in case.kept.items():
        kept = state.ept_read_only if rights else state.ept_reserved
        kept.base, kept.size = Word(64, page << 12), Word(64, 0x1000)
    state.non_root, state.xss = Word(1, 1), Word(64, case.xss)
    controls_of(state, case.controls, baseline(model))
    bitmaps_of(state, case.bitmaps)
    status = case.controls.get("GUEST_INTERRUPT_STATUS", 0)
    state.rvi, state.svi = Word(8, status & 0xFF), Word(8, status >> 8)
    wanted = [case.controls.get(f"EOI_EXIT_BITMAP{number}", 0) for number in range(4)]
    state.eoi_exit_bitmap = Memory(8, 1, {v: wanted[v // 64] >> v % 64 & 1 for v in range(256)})
    virtual_apic.entered(state)
    for name in LONG_EXIT_FIELDS:
        state[name] = SENTINEL
    return state


def step_run(
    case: VmxLongCase,
    step: X64StepCase,
    state: EptX64,
    arena: bytes,
    watch: tuple[tuple[int, int], ...],
    model: str,
) -> VmxGuestStep:
    """The case as the harness takes it; the frame of an exception and the MSR area are watched last."""
    guest = {encoding: int(state[name]) for name, encoding in STATE_FIELDS.items()}
    fields = written_fields(state, case.controls, guest, baseline(model))
    registers = {name: int(state[ours]) for name, ours in NAMES_OF_REGISTERS.items()}
    loaded = tuple(
        (LOADED_AT + 16 * number + 8, int(state[name]).to_bytes(8, "little"))
        for number, name in enumerate(MSRS)
    )
    kept = tuple(
        (EPT_TABLE + 8 * page, ept_entry(page, rights).to_bytes(8, "little"))
        for page, rights in case.kept.items()
    )
    seen = (*watch, (FRAME, 48), *((STORED_AT + 16 * number + 8, 8) for number in range(len(MSRS))))
    return VmxGuestStep(fields, registers, (*patches(arena), *case.bitmaps, *kept, *loaded), seen)


def predict(
    machine: Machine[EptX64],
    instruction: Instruction,
    operands: Mapping[str, int],
    state: EptX64,
    step: X64StepCase,
) -> LongPrediction | NotModelled:
    """What becomes of one step.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """

    def information(outcome: Trap[EptX64]) -> dict[str, int] | None:
        if outcome.vector is not VM_EXIT:
            return None
        after = outcome.state
        return {name: int(after[name]) for name in LONG_EXIT_FIELDS if int(after[name]) != SENTINEL}

    return predicted(
        machine, instruction, operands, state, step, information, virtual_page, "exit_qualification"
    )


def virtual_page(state: EptX64) -> dict[int, int]:
    """The bytes of the virtual-APIC page that instructions can change, by physical address."""
    if not int(state.primary.use_tpr_shadow):
        return {}
    return {
        GUEST_PAGES.virtual_apic + at + n: int(state.virtual_apic.load(Word(12, at + n)))
        for at, length in virtual_registers(state)
        for n in range(length)
    }


def virtual_registers(state: EptX64) -> tuple[tuple[int, int], ...]:
    """Where VTPR is on the virtual-APIC page, or the other registers too that interrupts change, and how long."""
    delivers = state.secondary_control("virtual_interrupt_delivery").value
    return ((0x80, 0x200), (0x3F0, 8)) if delivers else ((0x80, 8),)
