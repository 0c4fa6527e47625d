"""LAR LSL VERR VERW ARPL: what a program may learn about segments (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.descriptors import (
    BUSY_TSS_16,
    BUSY_TSS_32,
    CALL_GATE_16,
    CALL_GATE_32,
    LDT,
    TASK_GATE,
    TSS_16,
    TSS_32,
    Descriptor,
    in_table,
    is_null,
    read_descriptor,
)
from popek.kernel.machine import Machine
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import MemoryOperand
from ..descriptors import descriptors_needed
from ..state import Ia32

LAR_SYSTEM_TYPES = (TSS_16, LDT, BUSY_TSS_16, CALL_GATE_16, TASK_GATE, TSS_32, BUSY_TSS_32, CALL_GATE_32)
LSL_SYSTEM_TYPES = (TSS_16, LDT, BUSY_TSS_16, TSS_32, BUSY_TSS_32)


def _visible(cpu: Ia32, selector: Word, accepted: str) -> Descriptor | None:
    """The descriptor, if the selector is in bounds, of an accepted type and visible at CPL and RPL.

    Presence is not looked at, and no fault arises.
    """
    if is_null(selector) | ~in_table(cpu, selector):
        return None
    found = read_descriptor(cpu, selector)
    code = found.type[3] == 1
    if accepted == "LAR":
        right_type = (found.s == 1) | found.type.isin(LAR_SYSTEM_TYPES)
    elif accepted == "LSL":
        right_type = (found.s == 1) | found.type.isin(LSL_SYSTEM_TYPES)
    elif accepted == "VERR":
        right_type = (found.s == 1) & (~code | found.type[1])
    else:
        right_type = found.is_writable_data
    outranked = (cpu.cpl > found.dpl) | (selector[1:0] > found.dpl)
    if ~right_type | (~found.is_conforming & outranked):
        return None
    return found


def _lar(cpu: Ia32, r: Word, selector: Word, size: int) -> None:
    found = _visible(cpu, selector, "LAR")
    if found is None:
        cpu.eflags.zf = 0
        return
    cpu.eflags.zf = 1
    high = found.raw[63:32]
    undefined = cpu.undefined("LAR bits 19:16", 4)
    rights = concat(Word(8, 0), high[23:20], undefined, high[15:8], Word(8, 0))
    cpu.write_register(r, rights.truncate(size))


def _lsl(cpu: Ia32, r: Word, selector: Word, size: int) -> None:
    found = _visible(cpu, selector, "LSL")
    if found is None:
        cpu.eflags.zf = 0
        return
    cpu.eflags.zf = 1
    cpu.write_register(r, found.limit.truncate(size))


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""
    for name in ("LAR", "LSL"):
        for size in (16, 32):

            @machine.instruction(
                f"{name} r{size}, r16", source=f"SDM vol. 2A, {name}", size=size, lar=name == "LAR"
            )
            def from_register(cpu: Ia32, r: Word, selector: Word, *, size: int, lar: bool) -> None:
                """Load access rights or limit of the segment that a selector names; ZF tells whether."""
                descriptors_needed(cpu)
                (_lar if lar else _lsl)(cpu, r, cpu.read_register(selector, 16), size)

            @machine.instruction(
                f"{name} r{size}, m16", source=f"SDM vol. 2A, {name}", size=size, lar=name == "LAR"
            )
            def from_memory(cpu: Ia32, r: Word, m: MemoryOperand, *, size: int, lar: bool) -> None:
                """Load access rights or limit of the segment that a selector names; ZF tells whether."""
                descriptors_needed(cpu)
                (_lar if lar else _lsl)(cpu, r, access.load(cpu, m, 2), size)

    for name in ("VERR", "VERW"):

        @machine.instruction(f"{name} r16", source="SDM vol. 2B, VERR/VERW", name=name)
        def verify_register(cpu: Ia32, r: Word, *, name: str) -> None:
            """ZF := the segment may be read (VERR) or written (VERW) from here."""
            descriptors_needed(cpu)
            cpu.eflags.zf = 0 if _visible(cpu, cpu.read_register(r, 16), name) is None else 1

        @machine.instruction(f"{name} m16", source="SDM vol. 2B, VERR/VERW", name=name)
        def verify_memory(cpu: Ia32, m: MemoryOperand, *, name: str) -> None:
            """ZF := the segment may be read (VERR) or written (VERW) from here."""
            descriptors_needed(cpu)
            cpu.eflags.zf = 0 if _visible(cpu, access.load(cpu, m, 2), name) is None else 1

    @machine.instruction("ARPL r16, r16", source="SDM vol. 2A, ARPL")
    def arpl_register(cpu: Ia32, destination: Word, source: Word) -> None:
        """Raise the destination's RPL to the source's; ZF tells whether."""
        descriptors_needed(cpu)
        old, other = cpu.read_register(destination, 16), cpu.read_register(source, 16)
        raised = old[1:0] < other[1:0]
        cpu.eflags.zf = raised
        cpu.write_register(destination, ite(raised, old.replace(1, 0, other[1:0]), old))

    @machine.instruction("ARPL m16, r16", source="SDM vol. 2A, ARPL")
    def arpl_memory(cpu: Ia32, m: MemoryOperand, source: Word) -> None:
        """Raise the destination's RPL to the source's; ZF tells whether."""
        descriptors_needed(cpu)
        old, other = access.load_to_change(cpu, m, 2), cpu.read_register(source, 16)
        raised = old[1:0] < other[1:0]
        access.store(cpu, m, ite(raised, old.replace(1, 0, other[1:0]), old))
        cpu.eflags.zf = raised
