"""Compare VMX non-root operation of the IA-32 model with Bochs, one instruction of a guest at a time.

The case is `popek.emulators.non_root.cases`'s, the harness `popek.emulators.non_root.harness`; what has been shown to
be the emulator's is listed with its evidence in ``popek_specs/ia32/bochs-deviations.toml`` and, for VMX,
``popek_specs/vtx/bochs-guest-deviations.toml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from popek.architectures.vtx.operation.state import VmxIa32
from popek.emulators.guests.compare import Guests
from popek.emulators.guests.drawing import text_of
from popek.emulators.guests.expectation import GuestPrediction, ready_step
from popek.emulators.guests.observation import ReadyStep
from popek.emulators.ia32.assembly import assemble_all
from popek.emulators.ia32.compare import watched
from popek.emulators.ia32.step import Ia32StepCase
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

from .cases import VTPR_AT, VmxGuestCase, random_case
from .expectation import predict, state_of, step_run, virtual_tpr
from .harness import MARKER, VmxGuestResult, VmxGuestStep, run_guests
from .observation import STEPS

GOVERNED: Final = frozenset(
    (
        *("MOV to CR", "MOV from CR", "LMSW", "CLTS", "SMSW", "MOV to DR", "MOV from DR"),
        *("HLT", "INVLPG", "INVPCID", "RDPMC", "RDTSC", "RDTSCP", "RDPID", "MWAIT", "MONITOR", "PAUSE"),
        *("WBINVD", "WBNOINVD", "RDRAND", "RDSEED", "IN", "OUT", "INS", "OUTS", "RDMSR", "WRMSR"),
        *("SGDT", "SIDT", "LGDT", "LIDT", "SLDT", "STR", "LLDT", "LTR", "XSAVES", "XRSTORS"),
        *("VMREAD", "VMWRITE", "VMFUNC"),
        *("INT3", "INTO", "INT1", "BOUND", "UD2"),
    )
)
"""Mnemonics that some control is about."""


def prepare(
    machine: Machine[VmxIa32], case: VmxGuestCase, text: str, code: bytes, model: str
) -> ReadyStep | NotModelled:
    """The case for the harness, with what the model says.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
        StepCaseError: likewise.
    """

    def run(step: Ia32StepCase, state: VmxIa32, arena: bytes, predicted: GuestPrediction) -> VmxGuestStep:
        watch = watched(case.guest, step, predicted.expected)
        if virtual_tpr(state):
            watch = (*watch, (VTPR_AT, 8))
        return step_run(case, state, arena, watch, model)

    def begin(step: Ia32StepCase, arena: bytes) -> VmxIa32:
        return state_of(case, step, arena, model)

    return ready_step(machine, case, text, code, MARKER, begin, predict, run)


def _run(steps: Sequence[VmxGuestStep], model: str) -> list[VmxGuestResult]:
    return run_guests(steps, model=model)


GUESTS: Final = Guests(
    "guest", GOVERNED, random_case, text_of, assemble_all, prepare, STEPS, _run, DEFAULT_MODEL
)
"""Guests in protected, real-address and virtual-8086 mode."""
