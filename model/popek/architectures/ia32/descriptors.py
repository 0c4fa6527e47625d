"""Loading segment registers in protected, virtual-8086 and real-address mode (SDM vol. 3A, chapters 3 and 5)."""

from __future__ import annotations

from popek.architectures.x86.descriptors import load_protected_segment_register
from popek.architectures.x86.exceptions import UD
from popek.architectures.x86.state import Segment
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

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
