"""PUSHF POPF CLI STI and the flag instructions that every program may use (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from .. import access
from ..state import EAX, GP, Ia32

# What POPF takes from the image (SDM vol. 2B, POPF, table of flag effects).
STATUS_AND_PROGRAM = 0x244DD5  # CF PF AF ZF SF TF DF OF NT AC ID
IF, IOPL, RF = 0x200, 0x3000, 0x10000


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("PUSHF", source="SDM vol. 2B, PUSHF", mnemonic="PUSHF", size=16)
    @machine.instruction("PUSHFD", source="SDM vol. 2B, PUSHF", mnemonic="PUSHF", size=32)
    def pushf(cpu: Ia32, *, size: int) -> None:
        """Push EFLAGS with VM and RF read as 0.  Never faults but for the stack."""
        access.push(cpu, (cpu.eflags.value & 0x00FCFFFF).truncate(size))

    @machine.instruction("POPF", source="SDM vol. 2B, POPF", mnemonic="POPF", size=16)
    @machine.instruction("POPFD", source="SDM vol. 2B, POPF", mnemonic="POPF", size=32)
    def popf(cpu: Ia32, *, size: int) -> None:
        """Pop EFLAGS: IOPL only at CPL 0, IF only at CPL <= IOPL; what is not allowed is silently kept."""
        image = access.pop(cpu, size // 8).zero_extend(32)
        load_flags(cpu, image, STATUS_AND_PROGRAM, size)

    @machine.instruction("CLI", source="SDM vol. 2A, CLI")
    def cli(cpu: Ia32) -> None:
        """IF := 0 at CPL <= IOPL; VIF := 0 at CPL 3 with CR4.PVI; else #GP(0)."""
        if cpu.cpl <= cpu.eflags.iopl:
            cpu.eflags.if_ = 0
        elif cpu.cpl == 3 and cpu.cr4.pvi:
            cpu.eflags.vif = 0
        else:
            raise Fault(GP, 0)

    @machine.instruction("STI", source="SDM vol. 2B, STI")
    def sti(cpu: Ia32) -> None:
        """IF := 1 at CPL <= IOPL; VIF := 1 at CPL 3 with CR4.PVI unless VIP is set; else #GP(0)."""
        if cpu.cpl <= cpu.eflags.iopl:
            cpu.shadow.sti = ~cpu.eflags.if_
            cpu.eflags.if_ = 1
        elif cpu.cpl == 3 and cpu.cr4.pvi and not cpu.eflags.vip:
            cpu.eflags.vif = 1
        else:
            raise Fault(GP, 0)

    @machine.instruction("LAHF", source="SDM vol. 2A, LAHF")
    def lahf(cpu: Ia32) -> None:
        """AH := SF ZF 0 AF 0 PF 1 CF."""
        cpu.gpr[EAX] = cpu.gpr[EAX].replace(15, 8, cpu.eflags.value[7:0])

    @machine.instruction("SAHF", source="SDM vol. 2B, SAHF")
    def sahf(cpu: Ia32) -> None:
        """SF ZF AF PF CF := AH."""
        image = cpu.gpr[EAX][15:8]
        kept = cpu.eflags.value
        cpu.eflags = kept.replace(7, 0, (image & 0xD5) | 0x02)

    for mnemonic, flag, action in (
        ("CLC", "cf", 0),
        ("STC", "cf", 1),
        ("CMC", "cf", None),
        ("CLD", "df", 0),
        ("STD", "df", 1),
    ):

        @machine.instruction(mnemonic, source=f"SDM vol. 2, {mnemonic}", flag=flag, action=action)
        def set_flag(cpu: Ia32, *, flag: str, action: int | None) -> None:
            """Clear, set or complement one flag."""
            setattr(cpu.eflags, flag, ~cpu[f"eflags.{flag}"] if action is None else action)


def load_flags(cpu: Ia32, image: Word, always: int, size: int) -> None:
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
