"""How a step of an SVM guest ended on Bochs, and where that differs from what the model says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import attrs

from popek.architectures.x86.msrs import IA32_PAT, IA32_TSC_AUX
from popek.emulators.guests.expectation import SEGMENTS, GuestPrediction
from popek.emulators.guests.observation import Compared, Ended, GuestSteps, ReadyStep
from popek.emulators.guests.protected import DOUBLE_FAULT, UNOBSERVED, ProtectedSteps, Raised
from popek.emulators.ia32.step import WITH_ERROR_CODE

from .deviations import SOFTWARE, SvmGuestFound, explain, has_next_rip_of_its_own
from .expectation import EXIT_FIELDS, MSR_FIELDS, NAMES_OF_REGISTERS, svm_machine
from .harness import SvmGuestResult

IDENTIFICATION: Final = ("eax", "ebx", "ecx", "edx")
"""What CPUID gives, which is the emulated processor's affair."""

_EXCEPTION, _SHUTDOWN, _VMMCALL = 0x40, 0x7F, 0x81
_WRAPS: Final = "access-wraps-at-4-gib"


class SvmExits(GuestSteps):
    """What exits of SVM tell, whatever the guest."""

    def raised(self, information: Mapping[str, int]) -> Raised | None:
        """The exception by which the guest is left, as the model says."""
        return _raised(information.get("exit_code"), information.get("exit_info1"))

    def raised_seen(self, result: SvmGuestResult) -> Raised | None:
        """The exception by which the guest was left on Bochs."""
        return _raised(result.fields["EXITCODE"], result.fields["EXITINFO1"])

    def exit_of(self, information: Mapping[str, int]) -> str:
        """The exit code."""
        return f"{information['exit_code']:#x}"

    def exit_seen(self, result: SvmGuestResult) -> str:
        """The exit code."""
        return f"{result.fields.get('EXITCODE', 0):#x}"


class SvmSteps(SvmExits, ProtectedSteps):
    """Steps of 32-bit guests under SVM."""

    unobserved: ClassVar[Mapping[str, str]] = {
        **UNOBSERVED,
        "pkru": "no VMCB field, and the emulated processor has none",
        "msr 0x277": "without nested paging it is the host's, which an exit gives back as it was",
    }

    def observe(self, result: SvmGuestResult) -> dict[str, int]:
        """Every register after the exit, by the names of the step harness."""
        fields = result.fields
        found = {ours: result.registers[name] & 0xFFFF_FFFF for name, ours in NAMES_OF_REGISTERS.items()}
        found |= {
            "eax": fields["RAX"],
            "esp": fields["RSP"],
            "eip": fields["RIP"],
            "eflags": fields["RFLAGS"],
        }
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

    def classify(self, ready: ReadyStep, result: SvmGuestResult, registers: dict[str, int]) -> Ended:
        """Tell the step's own exit from what ended it."""
        if result.kind != "exit":
            return Ended(result.kind)
        code = result.fields["EXITCODE"]
        if code == (1 << 64) - 1:
            return Ended("VMEXIT_INVALID")
        if self.moved(ready, registers):
            return (self.at_stub(ready, result, registers) if code == _VMMCALL else None) or Ended("next")
        if code != ready.predicted.information.get("exit_code") and not _of_an_earlier_exit(ready, result):
            vectored = self.vectored(result.fields["EXITINTINFO"], result.fields["EXITINTINFO_ERROR"])
            if vectored is not None:
                return vectored
        lost = code in (_SHUTDOWN, _EXCEPTION + DOUBLE_FAULT)
        return Ended("trap", lost=True) if lost else Ended("exit")

    def information(self, ready: ReadyStep, result: SvmGuestResult) -> Iterator[Compared]:
        """The exit information."""
        for name, value in ready.predicted.information.items():
            yield name, value, result.fields[EXIT_FIELDS[name]]

    def interrupted(self, result: SvmGuestResult) -> bool:
        """The exception that ended the step may have been delivered in part."""
        return bool(result.fields["EXITINTINFO"] >> 31)

    def hidden(self, ready: ReadyStep, register: str) -> bool:
        """What CPUID gives."""
        completes = ready.predicted.kind == "next"
        return completes and ready.case.form == "CPUID" and register in IDENTIFICATION

    def msr(self, ready: ReadyStep, result: SvmGuestResult, number: int) -> int | None:
        """An MSR afterwards; None where it cannot be seen."""
        if number == IA32_TSC_AUX:
            return result.auxiliary
        if number == IA32_PAT:
            return result.fields["G_PAT"] if ready.case.nested else None
        return result.fields[MSR_FIELDS[number]]

    def blocking(self, predicted: GuestPrediction, result: SvmGuestResult) -> Compared:
        """The interrupt shadow."""
        return "interrupt shadow", predicted.shadow or 0, result.fields["INTERRUPT_SHADOW"] & 1

    def explain(
        self, ready: ReadyStep, ended: Ended, result: Any, registers: dict[str, int], differing: set[str]
    ) -> str | None:
        """The known deviation of Bochs' SVM that explains a difference, or one of bare IA-32 beneath it.

        INT1 that is not intercepted leads to itself: the arena is full of it. Where its stack wraps around on the
        emulator, and the model has it fault, the guest never leaves.
        """
        if ended.kind == "hang" and ready.case.form == "INT1":
            unseen = attrs.evolve(ready, run=attrs.evolve(ready.run, watch=()))
            found = self.beneath(unseen, ended, result, registers, differing)
            return found if found == _WRAPS else None
        if has_next_rip_of_its_own(ready.predicted.information) and len(differing) > 1:
            differing = differing - {"exit_next_rip"}  # known, and not what is to be explained
        return super().explain(ready, ended, result, registers, differing)

    def own_deviation(
        self, ready: ReadyStep, ended: Ended, result: SvmGuestResult, differing: set[str]
    ) -> str | None:
        """The known deviation of Bochs' SVM."""
        predicted: GuestPrediction = ready.predicted
        return explain(
            SvmGuestFound(
                ready.case, ready.state, predicted.kind, predicted.information, predicted.expected, result,
                ended.kind, ended.vector, frozenset(differing),
            )
        )  # fmt: skip


def _of_an_earlier_exit(ready: ReadyStep, result: SvmGuestResult) -> bool:
    """EXITINTINFO tells of an event that this step cannot have delivered (`events-of-software` of the deviations).

    That is an exception which is intercepted.
    """
    event = result.fields["EXITINTINFO"]
    intercepted = ready.case.controls["EXCEPTION_INTERCEPTS"] >> (event & 0x1F) & 1
    return ready.case.form in SOFTWARE and bool(intercepted)


def _raised(code: int | None, info1: int | None) -> Raised | None:
    """Vector and error code of an exception that left the guest."""
    if code is None or not _EXCEPTION <= code < _EXCEPTION + 32:
        return None
    vector = code - _EXCEPTION
    return vector, info1 if vector in WITH_ERROR_CODE else None


STEPS: Final = SvmSteps(svm_machine)
"""Steps of guests of the IA-32 machine with SVM."""
