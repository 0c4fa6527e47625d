"""What the x86-64 model with VMX expects of a step of a 64-bit guest: an exit, or the guest's state afterwards."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

import attrs

from popek.architectures.vtx.operation import machine as vmx
from popek.architectures.vtx.operation import virtual_apic
from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.extended_paging import EptX64
from popek.emulators.guests.expectation import SEGMENTS, without_fault_address
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.emulators.x86.expectation import OutsideError
from popek.emulators.x86_64.expectation import arena_memory, initial_state, outcomes, stored
from popek.emulators.x86_64.step import (
    ARENA_BYTES,
    LANDING_BYTE,
    RESERVED_SELECTOR,
    USER_BASE,
    X64StepCase,
    initial_memory,
    plain_state,
)
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.words import Word

from .expectation import EXIT_FIELDS, SENTINEL, bitmaps_of, controls_of, written_fields
from .harness import GUEST_PAGES, MARKER, REGISTERS, VmxGuestStep
from .long_cases import VmxLongCase
from .long_world import EPT_TABLE, FRAME, LOADED_AT, MSRS, STACK_TOP, STORED_AT, STUBS, baseline, ept_entry

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


@attrs.frozen
class LongPrediction:
    """What the model says of a case.

    Attributes:
        kind: ``exit``, ``next``, ``halt`` or ``trap``.
        state: the state then; of a trap the one that the fault leaves.
        information: exit information by the model's names; a field that is missing is not defined.
        vector, error_code: of a trap.
        undefined: bits of components that the manual leaves undefined.
        memory: bytes that differ from the start, by physical address.
        storage: what ends the step is a fault on a storage reference.
    """

    kind: str
    state: EptX64
    information: Mapping[str, int] = attrs.field(factory=dict)
    vector: int | None = None
    error_code: int | None = None
    undefined: Mapping[str, int] = attrs.field(factory=dict)
    memory: Mapping[int, int] = attrs.field(factory=dict)
    storage: bool = False


def arena_of(step: X64StepCase) -> bytes:
    """The arena when the guest starts, with what leaves it behind the instruction."""
    arena = bytearray(initial_memory(step))
    end = step.start + len(step.code)
    arena[end : end + len(MARKER)] = MARKER
    return bytes(arena)


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
    plain = initial_memory(X64StepCase(b"", plain_state(0)))
    patches = tuple(
        (at, arena[at : at + 16])
        for at in range(0, ARENA_BYTES, 16)
        if arena[at : at + 16] != plain[at : at + 16]
    )
    loaded = tuple(
        (LOADED_AT + 16 * number + 8, int(state[name]).to_bytes(8, "little"))
        for number, name in enumerate(MSRS)
    )
    kept = tuple(
        (EPT_TABLE + 8 * page, ept_entry(page, rights).to_bytes(8, "little"))
        for page, rights in case.kept.items()
    )
    seen = (*watch, (FRAME, 48), *((STORED_AT + 16 * number + 8, 8) for number in range(len(MSRS))))
    return VmxGuestStep(fields, registers, (*patches, *case.bitmaps, *kept, *loaded), seen)


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
    found = outcomes(machine, instruction, operands, state)
    if isinstance(found, NotModelled):
        return found
    first, *others = found.all
    predicted = _prediction(instruction, state, step, first)
    information = without_fault_address(predicted.information, "exit_qualification", found.asked)
    predicted = attrs.evolve(predicted, information=information)
    undefined: dict[str, int] = {"rflags": 1 << 16, "ldtr.rights": 1 << 13, "tr.rights": 1 << 13}
    for other in others:
        for component, value in predicted.state.words().items():
            undefined[component] = undefined.get(component, 0) | int(value) ^ int(other.state[component])
    return attrs.evolve(predicted, undefined=undefined)


def _prediction(
    instruction: Instruction, before: EptX64, step: X64StepCase, outcome: Next[EptX64] | Trap[EptX64]
) -> LongPrediction:
    after = outcome.state
    memory = stored(before, after, _on_interrupt_stack) | virtual_page(after)
    if isinstance(outcome, Trap) and outcome.vector is VM_EXIT:
        information = {name: int(after[name]) for name in LONG_EXIT_FIELDS if int(after[name]) != SENTINEL}
        return LongPrediction("exit", after, information, memory=memory, storage=outcome.memory)
    if isinstance(outcome, Trap):
        if int(before.idtr.limit) < 16 * 15 - 1 or int(before.tr.limit) < 0x2B:
            raise OutsideError("a fault that cannot be delivered")
        code = None if outcome.error_code is None else int(outcome.error_code)
        number = outcome.vector.number
        return LongPrediction("trap", after, {}, number, code, memory=memory, storage=outcome.memory)
    if after.halted.value == 1:
        return LongPrediction("halt", after, memory=memory)
    _check_landing(instruction, step, after, memory)
    return LongPrediction("next", after, memory=memory)


def _on_interrupt_stack(address: int) -> int:
    """Where the harness reports a byte of the frame of an exception."""
    if not STACK_TOP - 0x1000 <= address < STACK_TOP:
        raise OutsideError("a store outside the arena")
    return address - STACK_TOP + FRAME + 48


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


def _check_landing(
    instruction: Instruction, step: X64StepCase, after: EptX64, memory: Mapping[int, int]
) -> None:
    """The transfer goes to the next instruction, to a stub, or to where INT1 leaves the guest."""
    target = int(after.rip) + (0 if after.long.value else int(after.cs.base)) & 0xFFFFFFFF_FFFFFFFF
    follows = step.start + len(step.code)
    if any(step.start - 16 <= address < follows + 16 for address in memory):
        raise OutsideError("an instruction that writes over itself")
    if after.rflags.tf.value:
        raise OutsideError("a single-step trap")
    level = int(after.cpl)
    if level == 3 and (after.cr4.pvi & after.rflags.vif & after.rflags.vip).value:
        raise OutsideError("a transfer to where a virtual interrupt is pending")
    if STUBS <= target < STUBS + 0x400:
        if int(after.cs.selector.value) & ~3 != RESERVED_SELECTOR or target % 4 or level == 3:
            raise OutsideError("a transfer to a stub by another way")
        return
    if target >= ARENA_BYTES - 2:
        raise OutsideError("a transfer out of the arena")
    if (level == 3) != (target >= USER_BASE) and (level == 3 or int(after.cr4.smep)):
        raise OutsideError("a transfer to a page of the other kind")
    if target == follows:
        return
    if target == step.start:
        raise OutsideError("a jump to itself")
    byte = memory.get(target, int(after.memory.load(Word(64, target))))
    if byte != LANDING_BYTE or instruction.form == "INT1":
        raise OutsideError("a transfer to where something else is")
