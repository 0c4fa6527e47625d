"""Compare SVM guest mode of the IA-32 model with Bochs, one instruction of a guest at a time.

The case is `popek.emulators.guest_mode.cases`'s, the harness `popek.emulators.guest_mode.harness`; what has been shown
to be the emulator's is listed with its evidence in ``popek_specs/ia32/bochs-deviations.toml`` and, for SVM,
``popek_specs/svm/bochs-guest-deviations.toml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from popek.architectures.svm.operation.state import SvmIa32
from popek.emulators.guests.compare import Guests
from popek.emulators.guests.drawing import text_of
from popek.emulators.guests.expectation import GuestPrediction, ready_step
from popek.emulators.guests.observation import ReadyStep
from popek.emulators.ia32.assembly import assemble_all
from popek.emulators.ia32.compare import watched
from popek.emulators.ia32.step import Ia32StepCase
from popek.emulators.vmrun.harness import DEFAULT_MODEL
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

from .cases import SvmGuestCase, random_case
from .expectation import predict, state_of, step_run
from .harness import MARKER, SvmGuestResult, SvmGuestStep, run_guests
from .observation import STEPS

GOVERNED: Final = frozenset(
    (
        *("MOV to CR", "MOV from CR", "LMSW", "CLTS", "SMSW", "MOV to DR", "MOV from DR"),
        *(
            "INVD",
            "INVLPG",
            "INVPCID",
            "RDPMC",
            "RDTSC",
            "RDTSCP",
            "MWAIT",
            "MONITOR",
            "PAUSE",
            "CPUID",
            "XSETBV",
        ),
        *("WBINVD", "WBNOINVD", "IN", "OUT", "INS", "OUTS", "RDMSR", "WRMSR"),
        *("SGDT", "SIDT", "LGDT", "LIDT", "SLDT", "STR", "LLDT", "LTR", "RSM"),
        *("PUSHF", "POPF", "IRET", "INT n", "INT3", "INTO", "INT1", "BOUND", "UD2"),
        *("VMRUN", "VMLOAD", "VMSAVE", "VMMCALL", "STGI", "CLGI", "INVLPGA", "SKINIT"),
    )
)
"""Mnemonics that some intercept is about; they come more often, and mostly at CPL 0."""


def prepare(
    machine: Machine[SvmIa32], case: SvmGuestCase, text: str, code: bytes, model: str
) -> ReadyStep | NotModelled:
    """The case for the harness, with what the model says.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
        StepCaseError: likewise.
    """

    def run(step: Ia32StepCase, state: SvmIa32, arena: bytes, predicted: GuestPrediction) -> SvmGuestStep:
        return step_run(case, state, arena, watched(case.guest, step, predicted.expected))

    def begin(step: Ia32StepCase, arena: bytes) -> SvmIa32:
        return state_of(case, step, arena, model)

    return ready_step(machine, case, text, code, MARKER, begin, predict, run)


def _run(steps: Sequence[SvmGuestStep], model: str) -> list[SvmGuestResult]:
    return run_guests(steps, model=model)


GUESTS: Final = Guests(
    "svm guest", GOVERNED, random_case, text_of, assemble_all, prepare, STEPS, _run, DEFAULT_MODEL
)
"""Guests in protected, real-address and virtual-8086 mode."""
