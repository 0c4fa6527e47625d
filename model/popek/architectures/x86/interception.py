"""Where a virtual machine monitor's hardware may step in: the hooks that instructions call.

Each hook is called at the place that the manual gives the VM exit among the instruction's faults (SDM
vol. 3C, "Relative Priority of Faults and VM Exits"): after #UD, after faults that rest on CPL and after the
checks of the I/O permission map; before every other fault, unless the exit depends on an operand, which is then
fetched first.  AMD's intercepts come elsewhere for some instructions (APM vol. 2, "Instruction Intercepts"): before
the faults by CPL, which is `early`, or after every fault but those of storage references, which is `late` and the hooks
named `accepted`.  On a processor that nobody monitors a hook does nothing and returns what is there.

A hook that is told an instruction's `name` knows those of ``popek_specs/x86/interception.csv`` alone: another is a
mistake in an instruction's semantics, which would otherwise never be intercepted, and is refused at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from popek.kernel.machine import UnknownNameError
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat
from popek_specs.x86 import rows

from .access import MemoryOperand
from .descriptors import Descriptor
from .exceptions import GP
from .state import X86

Cpu = TypeVar("Cpu", bound=X86, contravariant=True)


@attrs.frozen
class PortAccess:
    """One access to a port.

    Attributes:
        port: the first port (16 bits).
        size: 8, 16 or 32 bits.
        write: OUT or OUTS.
        immediate: an immediate operand names the port, not DX.
        memory: the memory operand of INS and OUTS.
        repeated: with a REP prefix.
    """

    port: Word
    size: int
    write: bool
    immediate: bool = False
    memory: MemoryOperand | None = None
    repeated: bool = False


@functools.cache
def intercepted() -> Mapping[str, str]:
    """The instructions that hooks know by name, each with the place in a manual that says what may happen."""
    return {row["instruction"]: row["source"] for row in rows("interception.csv")}


def _of_known_names(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, which refuses a name that is not registered."""

    @functools.wraps(hook)
    def run(self: object, cpu: object, name: str, *arguments: Any, **more: Any) -> Any:
        if name not in intercepted():
            raise UnknownNameError("instruction of a hook", name, intercepted())
        return hook(self, cpu, name, *arguments, **more)

    return run


class Interception(Generic[Cpu]):
    """Nobody steps in."""

    def __init_subclass__(cls) -> None:
        """Have every hook that is told a name refuse one that is not registered."""
        _check_names(cls)

    def recognized(self, cpu: Cpu, name: str) -> None:
        """An instruction that needs a control to exist is about to be decoded.

        Raises:
            Fault: #UD, the control says that there is no such instruction.
        """

    def instruction(
        self, cpu: Cpu, name: str, memory: MemoryOperand | None = None, *registers: Word, size: int = 32
    ) -> None:
        """An instruction, by its mnemonic, passed the checks that come before an exit.

        Args:
            memory: its memory operand.
            registers: its register operands by number (3 bits; 4 in IA-32e mode), in the order of the form.
            size: its operand size, 16, 32 or 64 bits.
        """

    def early(self, cpu: Cpu, name: str, immediate: Word | None = None) -> None:
        """PUSHF, POPF, IRET, INT n, INT1 or XSETBV, after #UD and before every other check.

        Args:
            immediate: INT n: the vector (8 bits).
        """

    def late(self, cpu: Cpu, name: str) -> None:
        """LMSW, RDPMC, MONITOR or MWAIT, after every check of its own; LMSW before its operand is fetched."""

    def read_control_register(self, cpu: Cpu, number: int, register: Word | None = None) -> Word:
        """What MOV from CR (to `register`) and SMSW (None) see, as wide as the state keeps it, or wider."""
        return {0: cpu.cr0.value, 2: cpu.cr2, 3: cpu.cr3, 4: cpu.cr4.value}[number]

    def write_control_register(self, cpu: Cpu, number: int, register: Word) -> Word:
        """What MOV to CR from `register` has the processor load, where nothing else is wrong with it.

        As wide as a general register; outside 64-bit mode the upper half is 0.
        """
        return cpu.whole_register(register)

    def read_task_priority(self, cpu: Cpu, register: Word) -> Word:
        """What MOV from CR8 to `register` sees (4 bits)."""
        return cpu["cr8"]

    def write_task_priority(self, cpu: Cpu, register: Word) -> None:
        """MOV to CR8 from `register`; #GP(0) for bits 63:4."""
        new = cpu.gpr[register]
        if new[63:4] != 0:
            raise Fault(GP, 0)
        cpu["cr8"] = new[3:0]

    def control_register_accepted(self, cpu: Cpu, number: int, register: Word, value: Word) -> None:
        """MOV to CR from `register` (3 bits) is about to put there a value in which it found nothing wrong."""

    def load_machine_status_word(self, cpu: Cpu, source: Word, memory: MemoryOperand | None) -> Word:
        """CR0[3:0] after LMSW of `source` (16 bits)."""
        return source[3:0] | concat(Word(3, 0), cpu.cr0.pe)

    def clear_task_switched(self, cpu: Cpu) -> Word:
        """CR0.TS after CLTS (1 bit)."""
        return Word(1, 0)

    def debug_register(self, cpu: Cpu, number: int, register: Word, *, write: bool) -> None:
        """MOV to or from DR`number` as the instruction names it, before every check."""

    def debug_register_accepted(self, cpu: Cpu, number: int, register: Word, *, write: bool) -> None:
        """MOV to or from DR`number` as the instruction names it, after every check."""

    def port(self, cpu: Cpu, access: PortAccess) -> None:
        """A port that the instruction may use."""

    def msr(self, cpu: Cpu, *, write: bool) -> None:
        """RDMSR or WRMSR of the MSR that ECX names."""

    def has_msr(self, cpu: Cpu, number: Word, stored: Word) -> Word:
        """Whether RDMSR finds a register, given whether it is one of the model's (width 1)."""
        return stored

    def takes_msr(self, cpu: Cpu, number: Word, value: Word, stored: Word, accepted: Word) -> Word:
        """Whether WRMSR takes a value (width 1).

        Args:
            stored: whether the register is one of the model's (width 1).
            accepted: whether that one takes the value (width 1).
        """
        return stored & accepted

    def time_stamp(self, cpu: Cpu) -> Word:
        """The time-stamp counter as RDTSC, RDTSCP and RDMSR see it (64 bits)."""
        return cpu.tsc

    def software_exception(self, cpu: Cpu, vector: int) -> None:
        """INT1, INT3 or INTO is about to be delivered."""

    def software_interrupt(self, cpu: Cpu, vector: Word) -> None:
        """INT n is about to be delivered through the IDT."""

    def task_switch(
        self, cpu: Cpu, source: str, selector: Word | None = None, descriptor: Descriptor | None = None
    ) -> None:
        """A switch of tasks, before the new TSS is looked at.

        Args:
            source: `call`, `iret`, `jmp`, or `gate` for a task gate in the IDT.
            selector, descriptor: what a call or jump names: a TSS or a task gate; of a gate in the IDT the
                descriptor alone.
        """

    def interrupt_return(self, cpu: Cpu) -> None:
        """IRET is about to begin: it ends the blocking of NMIs, whatever comes of it."""


def _check_names(kind: type) -> None:
    for attribute, hook in list(vars(kind).items()):
        told = inspect.isfunction(hook) and "name" in inspect.signature(hook).parameters
        if told and not attribute.startswith("_"):
            setattr(kind, attribute, _of_known_names(hook))


_check_names(Interception)
