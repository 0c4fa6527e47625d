"""Every instruction that the SDM says may leave non-root operation calls the hook that decides about it.

The lists are those of the SDM, vol. 3C, chapter "VMX Non-Root Operation": "Instructions That Cause VM Exits
Unconditionally", "Instructions That Cause VM Exits Conditionally" and "Other Causes of VM Exits", in its order.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any, Final

import pytest

from popek.architectures.ia32.machine import build as build_ia32
from popek.architectures.vtx.operation.non_root import CONDITIONAL, ENABLED, UNCONDITIONAL, NonRoot
from popek.architectures.vtx.operation.state import VmxIa32
from popek.architectures.x86.interception import Interception, intercepted
from popek.architectures.x86_64.machine import build as build_x86_64
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import Word

UNCONDITIONALLY: Final = (
    "CPUID", "GETSEC", "INVD", "XSETBV", "INVEPT", "INVVPID", "VMCALL", "VMCLEAR", "VMLAUNCH", "VMPTRLD", "VMPTRST",
    "VMRESUME", "VMXOFF", "VMXON",
)  # fmt: skip
BY_NAME: Final = (
    "HLT", "INVLPG", "INVPCID", "LGDT", "LIDT", "LLDT", "LTR", "SGDT", "SIDT", "SLDT", "STR", "MONITOR", "MWAIT",
    "PAUSE", "RDPMC", "RDRAND", "RDSEED", "RDTSC", "RDTSCP", "RSM", "TPAUSE", "UMWAIT", "VMREAD", "VMWRITE", "WBINVD",
    "WBNOINVD", "XRSTORS", "XSAVES",
)  # fmt: skip
BY_ANOTHER_HOOK: Final = {
    "CLTS": ("clear_task_switched",),
    "IN": ("port",),
    "INS": ("port",),
    "OUT": ("port",),
    "OUTS": ("port",),
    "LMSW": ("load_machine_status_word",),
    "MOV from CR3": ("read_control_register", 3),
    "MOV from CR8": ("read_task_priority",),
    "MOV to CR0": ("write_control_register", 0),
    "MOV to CR3": ("write_control_register", 3),
    "MOV to CR4": ("write_control_register", 4),
    "MOV to CR8": ("write_task_priority",),
    "MOV from DR": ("debug_register",),
    "MOV to DR": ("debug_register",),
    "RDMSR": ("msr",),
    "WRMSR": ("msr",),
    # Other causes: exceptions that instructions raise, and switches of tasks.
    "INT1": ("software_exception", 1),
    "INT3": ("software_exception", 3),
    "INTO": ("software_exception", 4),
    "IRET": ("task_switch", "iret"),
    "CALL far": ("task_switch", "call"),
    "JMP far": ("task_switch", "jmp"),
    "INT n": ("task_switch", "gate"),
    # What VMX changes without an exit.
    "SMSW": ("read_control_register", 0),
    "VMFUNC": ("instruction", "VMFUNC"),
}
NOT_MODELLED: Final = (
    "ENCLS", "ENCLV", "ENQCMD", "ENQCMDS", "LOADIWKEY", "PCONFIG", "SEAMCALL", "TDCALL", "TPAUSE", "UMWAIT",
)  # fmt: skip
"""Listed there, and no instruction of these machines."""

NEVER_REACHED: Final = {
    # No task switches in IA-32e mode; #UD comes first: INTO in 64-bit mode, GETSEC without CR4.SMXE.
    "x86-64": ("IRET", "CALL far", "JMP far", "INT n", "INTO", "GETSEC"),
}
"""Listed there, and decided before the hook on this machine."""

TSS, GDT, IDT = 8, 0x1000, 0x2000


class Recorder(Interception[Any]):
    """Notes which hooks are called, with their first argument."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not inspect.ismethod(found):
            return found

        def call(cpu: Any, *arguments: Any, **more: Any) -> Any:
            self.calls.append((name, *arguments[:1]))
            return found(cpu, *arguments, **more)

        return call


def calls(machine: Machine[Any], instruction: Instruction) -> list[tuple[object, ...]]:
    """The hooks that a form calls at CPL 0, in a state where every feature is on and selector 8 names a TSS."""
    recorder = Recorder()
    kind: Any = type(machine.state.__name__, (machine.state,), {"interception": recorder})
    flags = {"rflags" if machine.name == "x86-64" else "eflags": 0x802}
    if instruction.mnemonic == "IRET":
        flags = {name: value | 1 << 14 for name, value in flags.items()}  # NT
    cpu = kind.reset(cr0=0x80000031, cr4=0x00746000 | (0x20 if "rflags" in flags else 0), **flags)
    cpu["rcx" if "rflags" in flags else "ecx"] = 1
    cpu["gdtr.base"], cpu["gdtr.limit"], cpu["idtr.base"], cpu["idtr.limit"] = GDT, 0xFF, IDT, 0xFFF
    tss, gate = 0x00008B00_00000067, 0x00008500_00000000 | TSS << 16
    if instruction.mnemonic in ("CALL far", "JMP far"):
        tss &= ~(1 << 41)  # not busy
    tables = {GDT + TSS + i: tss >> 8 * i & 0xFF for i in range(8)}
    tables |= {IDT + i: gate >> 8 * (i % 8) & 0xFF for i in range(0x800)}
    far = {
        0x100 + i: byte for i, byte in enumerate((0, 0, TSS, 0, TSS, 0))
    }  # with an offset of 16 or 32 bits
    cpu.memory = Memory(cpu.memory.address_width, 8, lambda at: Word(8, (tables | far).get(int(at), 0)))
    parts = {}
    for operand in instruction.inputs:
        for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True):
            value = operand.kind.first.get(part, 0)
            if part == "offset" and instruction.mnemonic in ("CALL far", "JMP far"):
                value = 0x100
            parts[name] = Word(width, TSS if part == "selector" else value)
    with contextlib.suppress(AttributeError):  # where the machine keeps it
        cpu.started_at = cpu["eip" if "eflags" in flags else "rip"]
    with contextlib.suppress(Fault, NotModelledError):
        instruction.run(cpu, parts)
    return recorder.calls


MACHINES: Final = tuple(
    machine for machine in (build_ia32(), build_x86_64()) if hasattr(machine.state, "interception")
)


def forms(machine: Machine[Any], listed: str) -> list[Instruction]:
    """The forms of what the SDM lists, such as MOV to CR3."""
    name, _, register = listed.partition(" CR")
    found = [i for i in machine.instructions.values() if i.mnemonic in (listed, f"{name} CR")]
    return [i for i in found if not register or f"CR{register}" in i.form]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_instruction_that_the_manual_lists_calls_its_hook(machine: Machine[Any]) -> None:
    expected = {name: ("instruction", name) for name in (*UNCONDITIONALLY, *BY_NAME)} | BY_ANOTHER_HOOK
    silent = [
        (instruction.form, hook)
        for listed, hook in expected.items()
        for instruction in forms(machine, listed)
        if not any(call[: len(hook)] == hook for call in calls(machine, instruction))
        and listed not in NEVER_REACHED.get(machine.name, ())
    ]
    assert silent == []


def test_what_is_listed_is_there_but_for_what_is_named() -> None:
    listed = {*UNCONDITIONALLY, *BY_NAME, *BY_ANOTHER_HOOK}
    lacking = {
        name for name in listed if not any(forms(machine, name) for machine in (build_ia32(), build_x86_64()))
    }
    assert lacking <= set(NOT_MODELLED)
    assert not [name for name in NOT_MODELLED if forms(build_ia32(), name)]


def test_a_name_that_nothing_registers_is_refused_at_once() -> None:
    cpu = VmxIa32.reset(cr0=0x80000031)
    for hook in ("instruction", "recognized"):
        for interception in (NonRoot(), Interception()):
            with pytest.raises(UnknownNameError, match="'HTL'; did you mean HLT"):
                getattr(interception, hook)(cpu, "HTL")


def test_every_hook_that_is_told_a_name_refuses_unknown_ones() -> None:
    """Of every interception there is, whatever its hooks are called."""
    kinds = [Interception, *Interception.__subclasses__()]
    named = [
        (kind, name)
        for kind in kinds
        for name, hook in vars(kind).items()
        if inspect.isfunction(hook) and "name" in inspect.signature(hook).parameters and name[0] != "_"
    ]
    assert (NonRoot, "instruction") in named
    for kind, hook in named:
        with pytest.raises(UnknownNameError):
            getattr(kind, hook)(object(), object(), "HTL")


def test_the_registry_has_every_name_that_vmx_knows_and_each_its_source() -> None:
    assert {*UNCONDITIONAL, *CONDITIONAL, *ENABLED} <= set(intercepted())
    assert {*UNCONDITIONALLY, *BY_NAME} <= set(intercepted())
    assert all(source.startswith(("SDM vol. ", "APM vol. ")) for source in intercepted().values())
