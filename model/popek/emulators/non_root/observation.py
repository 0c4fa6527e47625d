"""How a step of a guest of VMX ended on Bochs, and where that differs from what the model says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from popek.emulators.guests.expectation import SEGMENTS, GuestPrediction
from popek.emulators.guests.observation import Compared, Ended, GuestSteps, ReadyStep, hardware_exception
from popek.emulators.guests.protected import DOUBLE_FAULT, UNOBSERVED, ProtectedSteps, Raised

from .deviations import VmxGuestFound
from .deviations import explain as explain_guest
from .expectation import EXIT_FIELDS, MSR_FIELDS, vmx_machine
from .harness import ONLY_64_BIT, TSC_AUX, VmxGuestResult

_EXCEPTION, _TRIPLE_FAULT, _VMCALL, _TPR, _TIMER = 0, 2, 18, 43, 52
_IO, _GDTR_IDTR, _TABLE_ACCESS, _RDRAND, _RDSEED = 30, 46, 47, 57, 61


class VmxExits(GuestSteps):
    """What exits of VMX tell, whatever the guest."""

    def exit_of(self, information: Mapping[str, int]) -> str:
        """The exit reason."""
        return str(information.get("exit_reason", 0))

    def exit_seen(self, result: VmxGuestResult) -> str:
        """The exit reason."""
        return str(result.entry.basic_reason)

    @staticmethod
    def raised(information: Mapping[str, int]) -> Raised | None:
        """The exception by which the guest is left, as the model says."""
        event = information.get("exit_interruption_info", 0)
        return hardware_exception(event, information.get("exit_interruption_error"))

    @staticmethod
    def raised_seen(result: VmxGuestResult) -> Raised | None:
        """The exception by which the guest was left on Bochs."""
        return hardware_exception(result.fields[0x4404], result.fields[0x4406])


class VmxSteps(VmxExits, ProtectedSteps):
    """Steps of 32-bit guests in non-root operation."""

    unobserved: ClassVar[Mapping[str, str]] = {
        **UNOBSERVED,
        "xcr0": "no VMCS field; host and guest share it, and it is 1 at the start",
        "pkru": "no VMCS field, and it keeps what earlier cases wrote: RDPKRU is compared by its faults only",
    }

    def observe(self, result: VmxGuestResult) -> dict[str, int]:
        """Every register after the exit, by the names of the step harness."""
        fields = result.fields
        found = {name: value for name, value in result.registers.items() if name not in ONLY_64_BIT}
        found["esp"], found["eip"] = fields[0x681C] & 0xFFFF_FFFF, fields[0x681E] & 0xFFFF_FFFF
        found["eflags"] = fields[0x6820]
        found["cr0"], found["cr3"], found["cr4"] = fields[0x6800], fields[0x6802], fields[0x6804]
        found["dr7"] = fields[0x681A]
        found["gdtr.base"], found["gdtr.limit"] = fields[0x6816], fields[0x4810]
        found["idtr.base"], found["idtr.limit"] = fields[0x6818], fields[0x4812]
        for number, name in enumerate(SEGMENTS):
            rights = fields[0x4814 + 2 * number]
            found[name] = fields[0x0800 + 2 * number]
            found[f"{name}.base"], found[f"{name}.limit"] = (
                fields[0x6806 + 2 * number],
                fields[0x4800 + 2 * number],
            )
            usable = not rights & 0x10000
            found[f"{name}.access"] = (rights & 0xFF) << 8 | (rights & 0xF000) << 8 if usable else 0
        found["cpl"] = 3 if found["eflags"] >> 17 & 1 else found["cs"] & 3
        return found

    def classify(self, ready: ReadyStep, result: VmxGuestResult, registers: dict[str, int]) -> Ended:
        """Tell the step's own exit from what ended it."""
        entry = result.entry
        if entry.kind != "enters":
            return Ended(entry.kind)
        reason = entry.basic_reason
        if reason == _TIMER:
            return Ended("halt" if result.fields[0x4826] == 1 else "hang")
        if reason == _TPR:  # after the instruction
            return Ended("exit")
        if self.moved(ready, registers):
            return (self.at_stub(ready, result, registers) if reason == _VMCALL else None) or Ended("next")
        vectored = self.vectored(entry.idt_vectoring_info or 0, result.fields[0x440A])
        if vectored is not None:
            return vectored
        twice = reason == _EXCEPTION and (entry.interruption_info or 0) & 0xFF == DOUBLE_FAULT
        return Ended("trap", lost=True) if reason == _TRIPLE_FAULT or twice else Ended("exit")

    def information(self, ready: ReadyStep, result: VmxGuestResult) -> Iterator[Compared]:
        """The exit information."""
        information = ready.predicted.information
        for name, value in information.items():
            mask = defined_bits(name, information)
            yield name, value & mask, result.fields[EXIT_FIELDS[name]] & mask

    def interrupted(self, result: VmxGuestResult) -> bool:
        """The exception that ended the step may have been delivered in part."""
        entry = result.entry
        return entry.basic_reason == _TRIPLE_FAULT or bool((entry.idt_vectoring_info or 0) >> 31)

    def hidden(self, ready: ReadyStep, register: str) -> bool:
        """What RDPKRU gives."""
        return register == "eax" and ready.case.form == "RDPKRU"

    def watched(self, ready: ReadyStep, result: VmxGuestResult) -> Iterator[tuple[int, bytes]]:
        """The guest's memory; IA32_TSC_AUX is watched last."""
        for (address, _), data in zip(ready.run.watch[:-1], result.memory[:-1], strict=True):
            yield address, data

    def msr(self, ready: ReadyStep, result: VmxGuestResult, number: int) -> int | None:
        """An MSR afterwards."""
        if number == TSC_AUX:
            return int.from_bytes(result.memory[-1], "little")
        return result.fields[MSR_FIELDS[number]]

    def blocking(self, predicted: GuestPrediction, result: VmxGuestResult) -> Compared:
        """The interruptibility state."""
        return "interruptibility", (predicted.shadow or 0) | predicted.blocked << 3, result.fields[0x4824]

    def own_deviation(
        self, ready: ReadyStep, ended: Ended, result: VmxGuestResult, differing: set[str]
    ) -> str | None:
        """The known deviation of Bochs' VMX."""
        predicted: GuestPrediction = ready.predicted
        return explain_guest(
            VmxGuestFound(
                ready.case, ready.state, predicted.kind, predicted.information, result, ended.kind,
                frozenset(differing),
            )
        )  # fmt: skip


STEPS: Final = VmxSteps(vmx_machine)
"""Steps of guests of the IA-32 machine with VMX."""


def defined_bits(name: str, information: Mapping[str, int]) -> int:
    """The bits of a field of the exit information that the manual defines for this exit.

    SDM vol. 3C, "Information for VM Exits Due to Instruction Execution", tables of the formats.
    """
    if name != "exit_instruction_info":
        return (1 << 64) - 1
    reason, value = information["exit_reason"], information[name]
    if reason == _IO:
        return 0x380 | (0 if information["exit_qualification"] & 8 else 0x38000)  # INS has no segment
    if reason in (_RDRAND, _RDSEED):
        return 0x1878  # register and operand size
    in_register = value >> 10 & 1
    if reason == _TABLE_ACCESS:
        return 3 << 28 | (0x400 | 0xF << 3 if in_register else _memory_parts(value))
    if reason == _GDTR_IDTR:
        return 3 << 28 | 1 << 11 | _memory_parts(value)
    return 0xF << 28 | 0x400 | (0xF << 3 if in_register else _memory_parts(value))


def _memory_parts(value: int) -> int:
    """Address size, segment, index and base of a memory operand; scaling where there is an index."""
    index, base = not value >> 22 & 1, not value >> 27 & 1
    parts = 0x380 | 0x400 | 7 << 15 | 1 << 22 | 1 << 27
    return parts | (0xF << 18 | 3 if index else 0) | (0xF << 23 if base else 0)
