"""What the IA-32 model with VMX expects of one step of a guest: exit and exit information, state, or exception.

The model decides; this module builds the state of a case and translates the outcome into the harness's names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import attrs

from popek.architectures.ia32.state import Ia32
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.operation import machine as vmx
from popek.architectures.vtx.operation.exits import VM_EXIT
from popek.architectures.vtx.operation.state import Vmx, VmxIa32
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
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.emulators.x86.expectation import Expectation, OutsideError, each_bit
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Trap
from popek.kernel.words import Word

from .cases import NE, PG, VMXE, VTPR_AT, Case, page_entries
from .harness import (
    GUEST_PAGES,
    MARKER,
    ONLY_64_BIT,
    REGISTERS,
    TSC_AUX,
    TSC_AUX_AT_ENTRY,
    TSC_AUX_AT_EXIT,
    GuestStep,
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

SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
"""The segment registers in the order of their VMCS encodings."""

_RF = 1 << 16
_SENTINEL = 0x5A5A_5A5A
_HIDDEN: Final = {"eflags": _RF, "ldtr.access": 1 << 21, "tr.access": 1 << 21}


@functools.cache
def vmx_machine() -> Machine[VmxIa32]:
    """The IA-32 machine with VMX."""
    return vmx.build()


@attrs.frozen
class Prediction:
    """What the model says of a case.

    Attributes:
        kind: ``exit``, ``next``, ``halt`` or ``trap``.
        expected: state and memory, as the step harness's comparison has them.
        information: exit information by the model's names; a field that is missing is not defined.
        shadow: blocking by STI and by MOV SS afterwards; None where it does not matter.
        blocked: blocking by NMI afterwards.
    """

    kind: str
    expected: Expectation
    information: Mapping[str, int] = attrs.field(factory=dict)
    shadow: int | None = None
    blocked: int = 0


# -- the state --------------------------------------------------------------------------------------


def step_of(case: Case, code: bytes) -> StepCase:
    """The case without its controls."""
    guest = case.guest
    return StepCase(code, guest.cpl, guest.registers, guest.msrs, guest.memory, guest.stale)


def arena_of(step: StepCase) -> bytes:
    """The arena when the guest starts, with what leaves it behind the instruction."""
    prepared = prepare_step(step)
    arena = bytearray(prepared.arena)
    end = prepared.end
    arena[end : end + len(MARKER)] = MARKER
    return bytes(arena)


def _bits(pages: Mapping[int, int], base: int, size: int) -> Callable[[Word], Word]:
    """A bitmap of so many bits in the control pages."""

    def cell(index: Word) -> Word:
        number = int(index)
        assert number < size
        return Word(1, pages.get(base + number // 8, 0) >> number % 8 & 1)

    return cell


@functools.cache
def capability_msrs(model: str) -> Mapping[int, int]:
    """What the Bochs processor reports of VMX."""
    return load_capabilities(f"bochs-{model}").msrs


def state_of(case: Case, step: StepCase, arena: bytes, model: str = DEFAULT_MODEL) -> VmxIa32:
    """The model's state at the start: in non-root operation, with the case's VMCS."""
    plain = initial_state(step)
    state = VmxIa32.reset()
    state._words.update(plain._words)
    state._memories.update(plain._memories)
    state.memory = arena_memory(arena)
    state.cr0 = plain.cr0.value | NE | (PG if case.paging else 0)
    state.cr4 = plain.cr4.value | VMXE
    if case.paging and "cr3" not in case.guest.registers:
        state.cr3 = Word(32, baseline(model)[0x6802])
    state.msr = Memory(32, 64, {**capability_msrs(model), 0x277: baseline(model)[0x2804], **case.guest.msrs})
    state.non_root = Word(1, 1)
    for page, lacking in case.barred.items():
        pages = state.read_only if lacking == 2 else state.reserved
        pages.base, pages.size = Word(32, page << 12), Word(32, 0x1000)
    fields = {FIELDS[name].encoding: value for name, value in case.controls.items()}
    settings = {**baseline(model), **fields}
    settings[0x4002] |= baseline(model)[0x4002]
    for name, encoding in CONTROLS.items():
        slot = state[name]
        state[name] = settings[encoding] & ((1 << slot.width) - 1)
    bitmaps_of(state, case.bitmaps)
    for name in EXIT_FIELDS:
        state[name] = _SENTINEL
    return state


def bitmaps_of(state: Vmx, bitmaps: tuple[tuple[int, bytes], ...]) -> None:
    """Fill the bitmaps and the virtual-APIC page with what a case writes there."""
    written: dict[int, int] = {}
    for address, data in bitmaps:
        written.update(enumerate(data, address))
    state.io_bitmap = Memory(16, 1, _bits(written, GUEST_PAGES.io_bitmap_a, 1 << 16))
    state.msr_bitmap = Memory(15, 1, _bits(written, GUEST_PAGES.msr_bitmap, 1 << 15))
    state.vmread_bitmap = Memory(15, 1, _bits(written, GUEST_PAGES.vmread_bitmap, 1 << 15))
    state.vmwrite_bitmap = Memory(15, 1, _bits(written, GUEST_PAGES.vmwrite_bitmap, 1 << 15))
    virtual_page = range(GUEST_PAGES.virtual_apic, GUEST_PAGES.virtual_apic + 0x1000)
    state.virtual_apic = Memory(
        12, 8, {at - virtual_page.start: written[at] for at in virtual_page if at in written}
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


def step_run(
    case: Case, state: VmxIa32, arena: bytes, watch: tuple[tuple[int, int], ...], model: str
) -> GuestStep:
    """The case as the harness takes it."""
    fields = {FIELDS[name].encoding: value for name, value in case.controls.items()}
    fields[0x4002] = int(state.primary.value)
    fields |= _guest_fields(state)
    known = baseline(model)
    fields = {encoding: value for encoding, value in fields.items() if known.get(encoding) != value}
    registers = {name: int(state[name]) for name in REGISTERS if name not in ONLY_64_BIT}
    auxiliary = int(state.msr.load(Word(32, TSC_AUX))).to_bytes(8, "little")
    memory = (*_patches(arena), *case.bitmaps, *page_entries(case), (TSC_AUX_AT_ENTRY, auxiliary))
    return GuestStep(fields, registers, memory, (*watch, (TSC_AUX_AT_EXIT, 8)))


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
    machine: Machine[VmxIa32], instruction: Instruction, operands: Mapping[str, int], state: VmxIa32
) -> Prediction | NotModelled:
    """What becomes of one step.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    if int(state["xcr0"]) != 1 or int(state["pkru"]) != 0:
        raise OutsideError("XCR0 or PKRU of its own")
    if virtual_interrupt_pending(state):
        raise OutsideError("a virtual interrupt is pending (CR4.PVI, VIF and VIP at CPL 3)")
    widths = {name: width for operand in instruction.inputs for name, width in operand.part_names()}
    parts = {name: Word(width, operands[name]) for name, width in widths.items()}
    asked: dict[str, int] = {}
    outcome = machine.step(instruction, state.with_undefined({}, asked), parts)
    if isinstance(outcome, NotModelled):
        return outcome
    predicted = _prediction(instruction, state, outcome, parts, set(asked))
    undefined = {name: width for name, width in asked.items() if "page-fault address" not in name}
    return _without_undefined(machine, instruction, state, parts, undefined, predicted)


def _prediction(
    instruction: Instruction,
    state: VmxIa32,
    outcome: Next[VmxIa32] | Trap[VmxIa32],
    parts: Mapping[str, Word],
    asked: set[str],
) -> Prediction:
    after = outcome.state
    undefined = dict(_HIDDEN)
    if isinstance(outcome, Trap) and outcome.vector is VM_EXIT:
        information = {name: int(after[name]) for name in EXIT_FIELDS if int(after[name]) != _SENTINEL}
        if any("page-fault address" in name for name in asked):
            information.pop("exit_qualification", None)
        expected = Expectation(
            "exit",
            None,
            None,
            shown_registers(after),
            undefined,
            virtual_tpr(after),
            {},
            storage=outcome.memory,
        )
        return Prediction("exit", expected, information, int(after.shadow.value), int(after.nmi_blocked))
    memory = dict(changes(after.memory)) | virtual_tpr(after)
    msrs = {number: int(after.msr.load(Word(32, number))) for number in (*MSR_FIELDS, TSC_AUX)}
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
    kind = "halt" if after.halted.value == 1 else "next"
    start = int(state.cs.base) + int(state.eip)
    target = int(after.cs.base) + int(after.eip) & 0xFFFF_FFFF
    follows = start + int(parts["operand length"]) & 0xFFFF_FFFF
    if virtual_interrupt_pending(after) and target != follows:
        raise OutsideError("a transfer to where a virtual interrupt is pending")
    if target == start & 0xFFFF_FFFF:
        raise OutsideError("a jump to itself")
    if any(start - 4 <= address < follows + len(MARKER) for address in memory):
        raise OutsideError("an instruction that writes over itself")
    if kind == "next" and target != follows and not STUBS <= target < STUBS + 0x400:
        _check_landing(instruction, state, memory, target, follows)
    if instruction.form == "INT1" and int(after.eip) >= int(after.cs.limit):
        raise OutsideError("UD2 that crosses the limit of its segment")
    expected = Expectation(kind, None, None, registers, undefined, memory, msrs)
    return Prediction(kind, expected, {}, int(after.shadow.value), int(after.nmi_blocked))


def virtual_tpr(state: VmxIa32) -> dict[int, int]:
    """The bytes of VTPR by physical address, where WRMSR can change them."""
    if not int(state.secondary_control("virtualize_x2apic_mode")):
        return {}
    return {VTPR_AT + n: int(state.virtual_apic.load(Word(12, 0x80 + n))) for n in range(8)}


def _check_landing(
    instruction: Instruction, state: VmxIa32, memory: Mapping[int, int], target: int, follows: int
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
    machine: Machine[VmxIa32],
    instruction: Instruction,
    state: VmxIa32,
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
        if (other.kind, other.expected.vector) != (predicted.kind, predicted.expected.vector):
            raise OutsideError("an undefined result decides more than registers")
        for register, value in predicted.expected.registers.items():
            if value != other.expected.registers[register]:
                undefined[register] = undefined.get(register, 0) | value ^ other.expected.registers[register]
    return attrs.evolve(predicted, expected=attrs.evolve(predicted.expected, undefined=undefined))
