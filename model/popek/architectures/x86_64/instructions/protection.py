"""LAR LSL VERR VERW: what a program may learn about segments (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86.descriptors import (
    Descriptor,
    in_table,
    is_null,
    read_descriptor,
)
from popek.kernel.machine import Machine
from popek.kernel.words import TRUE, Word, concat

from .. import access
from ..access import MemoryOperand, needs_long_mode
from ..descriptors import BUSY_TSS, CALL_GATE, LDT, TSS, in_table_wide, widened
from ..state import X64

SYSTEM_TYPES = {"LAR": (LDT, TSS, BUSY_TSS, CALL_GATE), "LSL": (LDT, TSS, BUSY_TSS)}


def _visible(cpu: X64, selector: Word, asker: str) -> Descriptor | None:
    """The descriptor, if the selector is in bounds, of an accepted type and visible at CPL and RPL.

    Presence is not looked at, and no fault arises.  A system descriptor must lie in the table whole, and its
    second half must not pass for a descriptor.
    """
    if is_null(selector) | ~in_table(cpu, selector):
        return None
    found = read_descriptor(cpu, selector)
    code = found.type[3] == 1
    whole = TRUE
    if asker in SYSTEM_TYPES:
        right_type = (found.s == 1) | found.type.isin(SYSTEM_TYPES[asker])
        whole = (found.s == 1) | (in_table_wide(cpu, selector) & (widened(cpu, found).upper_type == 0))
    elif asker == "VERR":
        right_type = (found.s == 1) & (~code | found.type[1])
    else:
        right_type = found.is_writable_data
    outranked = (cpu.cpl > found.dpl) | (selector[1:0] > found.dpl)
    if ~right_type | ~whole | (~found.is_conforming & outranked):
        return None
    return found


def _lar(cpu: X64, found: Descriptor) -> Word:
    high = found.raw[63:32]
    undefined = cpu.undefined("LAR bits 19:16", 4)
    return concat(Word(8, 0), high[23:20], undefined, high[15:8], Word(8, 0))


def _look(cpu: X64, r: Word, selector: Word, size: int, name: str) -> None:
    found = _visible(cpu, selector, name)
    if found is None:
        cpu.rflags.zf = 0
        return
    cpu.rflags.zf = 1
    value = _lar(cpu, found) if name == "LAR" else found.limit
    cpu.write_register(r, value.resize(size))


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""
    for name in ("LAR", "LSL"):
        for size in (16, 32, 64):

            @machine.instruction(f"{name} r{size}, r16", source=f"SDM vol. 2A, {name}", size=size, name=name)
            def from_register(cpu: X64, r: Word, selector: Word, *, size: int, name: str) -> None:
                """Load access rights or limit of the segment that a selector names; ZF tells whether."""
                if size == 64:
                    needs_long_mode(cpu)
                _look(cpu, r, cpu.read_register(selector, 16), size, name)

        @machine.instruction(f"{name} r32, m16", source=f"SDM vol. 2A, {name}", size=32, name=name)
        def from_memory(cpu: X64, r: Word, m: MemoryOperand, *, size: int, name: str) -> None:
            """Load access rights or limit of the segment that a selector names; ZF tells whether."""
            _look(cpu, r, access.load(cpu, m, 2), size, name)

    for name in ("VERR", "VERW"):

        @machine.instruction(f"{name} r16", source="SDM vol. 2B, VERR/VERW", name=name)
        def verify_register(cpu: X64, r: Word, *, name: str) -> None:
            """ZF := the segment may be read (VERR) or written (VERW) from here."""
            cpu.rflags.zf = 0 if _visible(cpu, cpu.read_register(r, 16), name) is None else 1

        @machine.instruction(f"{name} m16", source="SDM vol. 2B, VERR/VERW", name=name)
        def verify_memory(cpu: X64, m: MemoryOperand, *, name: str) -> None:
            """ZF := the segment may be read (VERR) or written (VERW) from here."""
            cpu.rflags.zf = 0 if _visible(cpu, access.load(cpu, m, 2), name) is None else 1
