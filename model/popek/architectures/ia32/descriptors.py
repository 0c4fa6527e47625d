"""Loading segment registers in protected, virtual-8086 and real-address mode (SDM vol. 3A, chapters 3 and 5)."""

from __future__ import annotations

from popek.architectures.x86.descriptors import (
    BUSY_TSS_16,
    BUSY_TSS_32,
    TSS_16,
    TSS_32,
    error_code,
    fetch_descriptor,
    load_protected_segment_register,
)
from popek.architectures.x86.exceptions import GP, NP, TS, UD
from popek.architectures.x86.state import X86, Segment
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, ite

from .state import Ia32, real_base


def descriptors_needed(cpu: Ia32) -> None:
    """#UD in real-address and virtual-8086 mode, which do not recognise the instruction."""
    if not cpu.protected:
        raise Fault(UD)


def load_real_segment(segment: Segment, selector: Word) -> None:
    """A segment register in real-address or virtual-8086 mode: limit and rights stay as they are."""
    segment.selector = selector
    segment.base = real_base(selector)


def load_segment_register(cpu: Ia32, number: Word, selector: Word) -> None:
    """MOV, POP and L?S: load SS, DS, ES, FS or GS (SDM vol. 2B, MOV).

    Raises:
        Fault: in protected mode, as `load_protected_segment_register`.
    """
    if not cpu.protected:
        load_real_segment(cpu.segment(number), selector)
        return
    load_protected_segment_register(cpu, number, selector)


def check_new_tss(cpu: X86, selector: Word, *, returning: bool) -> None:
    """What is checked of the TSS that a task switch names, before the switch leaves a guest (SDM vol. 3C, "Treatment of
    Task Switches"; APM vol. 2, "Task Switch Intercept").

    Raises:
        Fault: #GP(selector), for IRET #TS(selector): not in the GDT or no TSS of the kind; #NP(selector);
            #TS(selector): too short.
    """
    vector, code = TS if returning else GP, error_code(selector)
    if selector[2]:
        raise Fault(vector, code)
    tss = fetch_descriptor(cpu, selector, vector)
    kinds = (BUSY_TSS_16, BUSY_TSS_32) if returning else (TSS_16, TSS_32)
    if (tss.s == 1) | ~tss.type.isin(kinds):
        raise Fault(vector, code)
    if not tss.p:
        raise Fault(NP, code)
    if tss.limit < ite(tss.type[3], Word(32, 0x67), Word(32, 0x2B)):
        raise Fault(TS, code)
