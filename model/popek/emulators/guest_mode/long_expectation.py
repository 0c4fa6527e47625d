"""What the x86-64 model with SVM expects of a step of a 64-bit guest, and what that guest finds on the harness.

Physical memory beside that of `popek.emulators.guests.long_memory`::

    00047000H  nested page tables: the first 2 MiB map onto themselves
    0004A000H  I/O permissions map; 0004D000H MSR permissions map
    00050000H  VMCB
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Final

from popek.architectures.svm.operation import machine as svm
from popek.architectures.svm.operation.exits import VM_EXIT
from popek.architectures.svm.operation.guest_mode import EFER_SVME
from popek.architectures.svm.operation.state import VM_HSAVE_PA, SvmX64
from popek.architectures.x86.msrs import IA32_TIME_STAMP_COUNTER
from popek.emulators.guests import long_memory
from popek.emulators.guests.drawing import PG
from popek.emulators.guests.long_expectation import LongPrediction, predicted
from popek.emulators.guests.long_memory import FRAME, patches
from popek.emulators.vmrun.harness import DEFAULT_MODEL
from popek.emulators.x86.expectation import OutsideError
from popek.emulators.x86_64.expectation import arena_memory, initial_state
from popek.emulators.x86_64.step import X64StepCase
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled, Trap
from popek.kernel.words import Word

from .expectation import EXIT_FIELDS, PAT_RESET, segment_fields, under
from .harness import BASELINE, MARKER, REGISTERS, SvmGuestStep, SvmWorld
from .long_cases import SvmLongCase

LACKING: Final = ("INVPCID", "RDPID")
"""Mnemonics that Bochs' model of an AMD processor does not have."""

FIELDS_OF_STATE: Final[Mapping[str, str]] = {
    **{name: name.upper() for name in ("cr0", "cr2", "cr3", "cr4", "dr6", "dr7", "rip", "rflags", "efer")},
    **{name: name.upper() for name in ("rsp", "rax")},
    **{f"{name}.{part}": f"{name}_{part}".upper() for name in ("gdtr", "idtr") for part in ("base", "limit")},
    **{f"msr.{name}": name.upper() for name in ("star", "lstar", "cstar", "kernel_gs_base")},
    **{f"msr.{name}": name.upper() for name in ("sysenter_cs", "sysenter_esp", "sysenter_eip")},
    "msr.fmask": "SFMASK",
    "msr.pat": "G_PAT",
}
"""The fields of the VMCB that hold the guest's state, by the model's names, but for segment registers."""

_NESTED: Final = 0x47000
_TABLE: Final = 0x67  # present, writable, user, accessed, dirty
_LARGE: Final = 0x80


def _image() -> list[tuple[int, bytes]]:
    return [
        *long_memory.image(MARKER),
        (_NESTED, struct.pack("<Q", _NESTED + 0x1000 | _TABLE)),
        (_NESTED + 0x1000, struct.pack("<Q", _NESTED + 0x2000 | _TABLE)),
        (_NESTED + 0x2000, struct.pack("<Q", _LARGE | _TABLE)),
    ]


LONG: Final = SvmWorld(_image, {**BASELINE, "N_CR3": _NESTED})
"""A guest in IA-32e mode."""


@functools.cache
def svm_machine_64() -> Machine[SvmX64]:
    """The x86-64 machine with SVM."""
    return svm.build_64()


def state_of(case: SvmLongCase, step: X64StepCase, arena: bytes, model: str = DEFAULT_MODEL) -> SvmX64:
    """The model's state at the start: in guest mode, with the case's VMCB."""
    plain = initial_state(step)
    state = SvmX64.reset()
    state._words.update(plain._words)
    state._memories.update(plain._memories)
    state.memory = arena_memory(arena)
    under(state, case.controls, case.maps, model)
    state.enabled = Word(1, 1)
    state.enables = int(case.nested) | 2  # V_INTR_MASKING
    state.v_tpr = Word(8, case.controls["VINTR_CONTROL"] & 0xFF)
    return state


def step_run(
    case: SvmLongCase, state: SvmX64, arena: bytes, watch: tuple[tuple[int, int], ...]
) -> SvmGuestStep:
    """The case as the harness takes it; the frame of an exception is watched last."""
    fields = {**case.controls, "NP_CONTROL": int(case.nested), "INTERRUPT_SHADOW": 0, "CPL": int(state.cpl)}
    fields |= {field: int(state[name]) for name, field in FIELDS_OF_STATE.items()} | segment_fields(state)
    fields["EFER"] |= EFER_SVME
    fields = {name: value for name, value in fields.items() if value != LONG.baseline.get(name, 0)}
    registers = {name: int(state[name]) for name in REGISTERS}
    pat = PAT_RESET if case.nested else int(state["msr.pat"])
    memory = (*patches(arena), *case.maps)
    return SvmGuestStep(fields, registers, memory, (*watch, (FRAME, 48)), pat, int(state["msr.tsc_aux"]))


def predict(
    machine: Machine[SvmX64],
    instruction: Instruction,
    operands: Mapping[str, int],
    state: SvmX64,
    step: X64StepCase,
) -> LongPrediction | NotModelled:
    """What becomes of one step.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
    """
    if instruction.mnemonic in LACKING:
        raise OutsideError(f"{instruction.mnemonic}, which the emulated processor does not have")

    _check_paging(instruction, operands, state)

    def information(outcome: Trap[SvmX64]) -> dict[str, int] | None:
        if outcome.vector is not VM_EXIT:
            return None
        return {name: int(outcome.state[name]) for name in EXIT_FIELDS}

    found = predicted(machine, instruction, operands, state, step, information, _nothing, "exit_info2")
    if isinstance(found, LongPrediction):
        _check_msrs(instruction, state, found)
    return found


def _check_paging(instruction: Instruction, operands: Mapping[str, int], state: SvmX64) -> None:
    """The emulator takes paging without protection (`deviations`), and does not come back from 64-bit mode."""
    if instruction.form != "MOV CR0, r64" or int(state.cpl) != 0:
        return
    if int(state.gpr[operands["operand r64"]]) & (PG | 1) == PG:
        raise OutsideError("MOV CR0 with PG and without PE")


def _nothing(state: SvmX64) -> Mapping[int, int]:
    """All that a step changes is the guest's own."""
    return {}


def _check_msrs(instruction: Instruction, state: SvmX64, found: LongPrediction) -> None:
    """Nobody writes the clock or SVM's MSRs, or clears EFER.SVME."""
    if instruction.form not in ("RDMSR", "WRMSR") or found.kind == "exit" or int(state.cpl) != 0:
        return
    number = int(state["rcx"]) & 0xFFFF_FFFF
    if number == VM_HSAVE_PA or (number == IA32_TIME_STAMP_COUNTER and instruction.form == "WRMSR"):
        raise OutsideError("an MSR that the harness does not know")
    if not int(found.state.enabled):
        raise OutsideError("a guest that clears EFER.SVME")
