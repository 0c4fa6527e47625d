"""What POPF and IRET take from an image of EFLAGS (SDM vol. 2A, IRET; vol. 2B, POPF, table of flag effects)."""

from __future__ import annotations

from popek.kernel.words import Word, concat, ite

from .state import X86

# What POPF takes from the image (SDM vol. 2B, POPF, table of flag effects).
STATUS_AND_PROGRAM = 0x244DD5  # CF PF AF ZF SF TF DF OF NT AC ID
IF, IOPL, RF = 0x200, 0x3000, 0x10000
IRET_ALWAYS = 0x254DD5
VIF_VIP = 0x180000
TF_NT_RF_VM = 0x00034100
"""What the delivery of an interrupt clears."""


def load_flags(cpu: X86, image: Word, always: int, size: int) -> None:
    """EFLAGS := image where CPL and IOPL allow it; RF := 0.

    Args:
        image: 32 bits.
        always: bits that any privilege level may write.
        size: operand size; a 16-bit one leaves bits 31:16 alone.
    """
    may_write = Word(32, always)
    may_write = may_write | ite(cpu.cpl <= cpu.eflags.iopl, Word(32, IF), Word(32, 0))
    may_write = may_write | ite(cpu.cpl == 0, Word(32, IOPL), Word(32, 0))
    if size == 16:
        may_write = concat(Word(16, 0), may_write[15:0])
    cpu.eflags = (cpu.eflags.value & ~may_write & (RF ^ 0xFFFFFFFF)) | (image & may_write)


def returned_flags(cpu: X86, image: Word, size: int) -> Word:
    """EFLAGS after IRET, by the level it runs at (the old one)."""
    none = Word(32, 0)
    taken = Word(32, IRET_ALWAYS) | ite(cpu.cpl <= cpu.eflags.iopl, Word(32, IF), none)
    taken = taken | ite(cpu.cpl == 0, Word(32, IOPL | VIF_VIP), none)
    if size == 16:
        taken = concat(Word(16, 0), taken[15:0])
    return (cpu.eflags.value & ~taken) | (image & taken)
