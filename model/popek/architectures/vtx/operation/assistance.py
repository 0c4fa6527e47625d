"""VT-x declared as a kind of hardware assistance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, cast

import attrs

from popek.kernel.assistance import (
    Assistance,
    AssistanceError,
    Control,
    Necessity,
    Preset,
    Settings,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import Word

from ...x86.access import MemoryOperand
from ...x86.assisted.declaration import LONG_MODES, protected_modes, reported
from ...x86.interception import Interception
from ...x86.state import X86
from ..controls import exit_reasons
from ..vmcs import Vmcs
from .arrangement import CONTROLS, COVERS, arrange
from .exits import REASONS, VM_EXIT
from .interrupt_claims import INTERRUPTS
from .machine import build, build_64
from .non_root import ENABLED
from .ownership import (
    EVERYTHING,
    EVERYTHING_64,
    FEATURES,
    OWNABLE,
    OWNABLE_64,
    TOUCHES,
    VmxProfile,
    profile,
    profile_64,
)
from .processor import processor, processor_64
from .settings import TPR_SHADOW, hypervisors, hypervisors_64, of_64_bit_guest, of_vmcs
from .state import Vmx, VmxIa32, VmxX64
from .technique import PRESETS, PRESETS_64, hardware, hardware_64
from .virtual_interrupt_claims import VIRTUAL_INTERRUPTS

UNRESTRICTED: Final = "secondary.unrestricted_guest"

PROBLEMS: Final[Mapping[str, tuple[str, ...]]] = {
    "ring aliasing": ("MOV r32, Sreg", "PUSH CS", "CALL ptr16:32", "RETF", "IRETD"),
    "non-faulting access to privileged state": (
        "SGDT m", "SIDT m", "SLDT r32", "STR r32", "SMSW r32", "LAR r32, r16", "LSL r32, r16", "VERR r16", "VERW r16",
    ),
    "adverse impact on guest system calls": ("SYSENTER", "SYSEXIT", "INT imm8"),
    "interrupt virtualization": ("CLI", "STI", "PUSHFD", "POPFD"),
    "access to hidden state": ("MOV Sreg, r16", "POP ES"),
}  # fmt: skip
"""Which problem of Uhlig et al. 2005 a form stands for: stored, after the paper's text, to sort rows."""


PROBLEMS_64: Final[Mapping[str, tuple[str, ...]]] = {
    "ring aliasing": ("MOV r64, Sreg", "CALL m16:64", "RETF", "IRETQ"),
    "non-faulting access to privileged state": (
        "SGDT m", "SIDT m", "SLDT r64", "STR r64", "SMSW r64", "LAR r64, r16", "LSL r64, r16", "VERR r16", "VERW r16",
    ),
    "adverse impact on guest system calls": ("SYSCALL", "SYSRETQ", "SYSENTER", "SYSEXITQ", "INT imm8", "SWAPGS"),
    "interrupt virtualization": ("CLI", "STI", "PUSHFQ", "POPFQ"),
    "access to privileged state": ("MOV CR8, r64", "MOV r64, CR8"),
    "access to hidden state": ("MOV Sreg, r16",),
}  # fmt: skip


@cache
def machine() -> Machine[VmxIa32]:
    """The machine of the questions: no exception exits."""
    return build(exceptions=False)


@cache
def machine_64() -> Machine[VmxX64]:
    """The same for 64-bit guests."""
    return build_64(exceptions=False)


def _profile(owns: frozenset[str], assume: Mapping[str, int], lacks: Iterable[str]) -> VmxProfile:
    return profile(owns, unrestricted=bool(assume.get("unrestricted")), hidden=lacks)


def _profile_64(owns: frozenset[str], assume: Mapping[str, int], lacks: Iterable[str]) -> VmxProfile:
    shadowed = {"tpr"} if assume.get(TPR_SHADOW) else set()
    return profile_64(owns | shadowed, unrestricted=bool(assume.get("unrestricted")), hidden=lacks)


def _refused(owned: VmxProfile) -> str:
    if owned.unrestricted:
        return ""
    return "only an unrestricted guest is in real-address mode on the hardware; add --assume unrestricted"


MODES: Final = protected_modes({UNRESTRICTED: 1}, _refused)


def necessities(owned: VmxProfile) -> tuple[Necessity, ...]:
    """What the ownership profile asks for beyond single instructions."""
    found = []
    if "cr3" not in owned.owns:
        why = "the guest's own page tables map guest-physical addresses; without EPT they reach all of memory"
        found.append(Necessity("memory", "secondary.enable_ept", why))
    if "interrupts" in owned.owns:
        why = "an external interrupt would go through the guest's IDT"
        found.append(Necessity("external interrupts", "pin.external_interrupt_exiting", why, "interrupts"))
    if "nmis" in owned.owns:
        why = "an NMI would go through the guest's IDT"
        found.append(Necessity("NMIs", "pin.nmi_exiting", why, "nmis"))
    return tuple(found)


def plain() -> tuple[VmxIa32, VmxIa32]:
    """What a guest and a VMM look like when nothing is said of them."""
    cr0, cr4 = 0x80000031, 0x2000
    return (
        VmxIa32.reset(cr0=cr0),
        VmxIa32.reset(cr0=cr0, cr4=cr4, non_root=1, primary__activate_secondary_controls=1, tsc=0),
    )


def plain_64() -> tuple[VmxX64, VmxX64]:
    """The same for a 64-bit guest."""
    return (
        VmxX64.reset(),
        VmxX64.reset(cr0=0x80000031, cr4=0x2020, non_root=1, primary__activate_secondary_controls=1),
    )


# -- the forms that VMX says something about ----------------------------------------------------------


class _Recorder(Interception[X86]):
    """Notes whether a hook was called that a VMX control, or non-root operation itself, decides about."""

    called = False

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in _QUIET:
            self.called = True
        return super().__getattribute__(name)

    def recognized(self, cpu: X86, name: str) -> None:
        self.called = self.called or name in ENABLED

    def instruction(
        self, cpu: X86, name: str, memory: MemoryOperand | None = None, *registers: Word, size: int = 32
    ) -> None:
        self.called = self.called or name in REASONS

    def read_control_register(self, cpu: X86, number: int, register: Word | None = None) -> Word:
        self.called = self.called or number != 2
        return super().read_control_register(cpu, number, register)

    def write_control_register(self, cpu: X86, number: int, register: Word) -> Word:
        self.called = self.called or number != 2
        return super().write_control_register(cpu, number, register)


# Hooks that say themselves whether they count, and those of which the exception bitmap alone decides.
_QUIET = (
    "called", "software_exception", "software_interrupt", "recognized", "instruction", "read_control_register",
    "write_control_register", "early", "late", "control_register_accepted", "debug_register_accepted",
)  # fmt: skip


@cache
def governed_forms() -> tuple[str, ...]:
    """The forms that call a hook from a plain state at CPL 0: VM exits and changed behaviour are about them.

    Far transfers exit for task switches alone, which no control decides about; INT1, INT3 and INTO by the
    exception bitmap, which can only give the VMM control more often.
    """
    return _governed(machine(), VmxIa32, {"cr0": 0x80000031, "cr4": 0x00746000, "eflags": 0x802, "ecx": 1})


@cache
def governed_forms_64() -> tuple[str, ...]:
    """The same of x86-64."""
    return _governed(machine_64(), VmxX64, {"cr4": 0x00772620, "rflags": 0x802, "rcx": 1})


def _governed(machine: Machine[Any], state: type[Vmx], start: Mapping[str, int]) -> tuple[str, ...]:
    found = []
    for form, instruction in machine.instructions.items():
        recorder = _Recorder()
        spied: type[Vmx] = type(state.__name__, (state,), {"interception": recorder})
        cpu = spied.reset(**start)
        if isinstance(cpu, VmxIa32):
            cpu.started_at = cpu.eip
        with contextlib.suppress(Fault, NotModelledError):
            instruction.run(cpu, instruction.words(instruction.smallest))
        if recorder.called:
            found.append(form)
    return tuple(found)


# -- what a user gives ---------------------------------------------------------------------------------


def read_vmcs_dumps(name: str, data: bytes) -> list[Settings]:
    """The settings in VMCS dumps.

    Raises:
        AssistanceError: no dump, or a field that decides is not given.
    """
    from ..dumps.model import DumpError
    from ..dumps.reading import read_dumps

    try:
        dumps = read_dumps(data, name)
    except DumpError as error:
        place = f"{name}:{error.line}" if error.line else name
        raise AssistanceError(f"{place}: {error.message}") from None
    return [of_vmcs(Vmcs(dump.name, dump.fields, default=dump.default)) for dump in dumps]


def of_vmcs_fields(fields: Mapping[str, str]) -> Settings:
    """The settings in VMCS fields, such as PIN_CONTROLS=0x16.

    Raises:
        AssistanceError: no such field, no number, or a field that decides is not given.
    """
    from ..fields import FIELDS

    values = {}
    for name, text in fields.items():
        if name not in FIELDS:
            raise AssistanceError(f"{name}: no such VMCS field")
        try:
            values[name] = int(text, 0)
        except ValueError:
            raise AssistanceError(f"{name}: expected a number such as 0x16, not {text!r}") from None
    return of_vmcs(Vmcs("command line", values))


def presets() -> Mapping[str, Preset]:
    """VT-x of 2005, which had no secondary controls."""
    return _presets(*PRESETS["vt-x-2005"])


def presets_64() -> Mapping[str, Preset]:
    """The same for 64-bit guests."""
    return _presets(*PRESETS_64["vt-x-2005"])


def _presets(owned: VmxProfile, on: tuple[str, ...]) -> Mapping[str, Preset]:
    setting = {name: int(name in on) for name in CONTROLS} | dict.fromkeys(COVERS, 1)
    return {"vt-x-2005": Preset("VT-x 2005", attrs.evolve(owned, hidden=frozenset(FEATURES)), setting)}


def _before() -> Machine[Any]:
    from ...ia32 import machine as ia32

    return ia32.build()


def _before_64() -> Machine[Any]:
    from ...x86_64 import machine as x86_64

    return x86_64.build()


VT_X: Final = Assistance[VmxIa32](
    "vt-x",
    "IA-32 with VT-x",
    machine=machine,
    hardware=lambda: hardware("vt-x"),
    before=(_before, "ring-deprivileging-0/1/3"),
    controls=(
        *(Control[VmxIa32](name, name.partition(".")[2].replace("_", " "), leaf=name) for name in CONTROLS),
        *(Control[VmxIa32](name, f"{name} is 1 for whatever the VMM owns") for name in COVERS),
    ),
    ownable=OWNABLE,
    everything=EVERYTHING,
    profile=_profile,
    arrange=arrange,
    touches=TOUCHES,
    options={"unrestricted": "the guest may leave protected mode and paging on the hardware"},
    modes=MODES,
    is_exit=lambda trap: trap.vector is VM_EXIT,
    report=reported(lambda reason: exit_reasons()[reason]),
    governed=governed_forms,
    told_apart=lambda mnemonic: " CR" in mnemonic,
    plain=plain,
    zero=("cr0_mask", "cr4_mask", "io_bitmap", "msr_bitmap"),
    cover=COVERS,
    necessities=necessities,
    processor=processor,
    configurations=hypervisors,
    read=read_vmcs_dumps,
    written=of_vmcs_fields,
    presets=presets,
    problems={form: name for name, forms in PROBLEMS.items() for form in forms},
    interrupts=INTERRUPTS,
    source="Intel SDM vol. 3C, chapters on VMX",
)


@cache
def _hardware_64() -> Machine[Any]:
    """The machine, its technique by the name of the assistance."""
    machine = hardware_64("vt-x")
    named = attrs.evolve(machine.technique("vt-x"), name="vt-x-64")
    return attrs.evolve(machine, techniques={"vt-x-64": named})


VT_X_64: Final[Assistance[Any]] = attrs.evolve(
    cast("Assistance[Any]", VT_X),
    name="vt-x-64",
    title="x86-64 with VT-x",
    machine=machine_64,
    hardware=_hardware_64,
    before=(_before_64, "ring-deprivileging-0/3/3"),
    ownable=OWNABLE_64,
    everything=EVERYTHING_64,
    profile=_profile_64,
    options={**VT_X.options, TPR_SHADOW: "the guest's task priority is in the virtual-APIC page"},
    modes=LONG_MODES,
    governed=governed_forms_64,
    plain=plain_64,
    processor=processor_64,
    configurations=hypervisors_64,
    read=lambda name, data: [of_64_bit_guest(found) for found in read_vmcs_dumps(name, data)],
    written=lambda fields: of_64_bit_guest(of_vmcs_fields(fields)),
    presets=presets_64,
    problems={form: name for name, forms in PROBLEMS_64.items() for form in forms},
    interrupts=VIRTUAL_INTERRUPTS,
)

__all__ = [
    "MODES",
    "PROBLEMS",
    "VT_X",
    "governed_forms",
    "machine",
    "of_vmcs_fields",
    "plain",
    "read_vmcs_dumps",
]
