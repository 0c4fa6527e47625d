"""PUSHF POPF CLI STI CLAC STAC and the flag instructions that every program may use (SDM vol. 2A and 2B)."""

from __future__ import annotations

from collections.abc import Iterable

from popek.architectures.x86.exceptions import (
    GP,
    UD,
)
from popek.architectures.x86.flags import RF, STATUS_AND_PROGRAM, load_flags
from popek.architectures.x86.instructions.flags import declare_program_flags
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, ite

from .. import access
from ..state import (
    Ia32,
)

STATUS = ("cf", "pf", "af", "zf", "sf", "of")


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("PUSHF", source="SDM vol. 2B, PUSHF", mnemonic="PUSHF", size=16)
    @machine.instruction("PUSHFD", source="SDM vol. 2B, PUSHF", mnemonic="PUSHF", size=32)
    def pushf(cpu: Ia32, *, size: int) -> None:
        """Push EFLAGS with VM and RF read as 0.  Below IOPL 3 in virtual-8086 mode VIF and IOPL 3 or #GP(0)."""
        cpu.interception.early(cpu, "PUSHF")
        image = cpu.eflags.value & 0x00FCFFFF
        if cpu.virtual_8086 & (cpu.eflags.iopl != 3):
            _virtual_interrupt_flag_needed(cpu, size)
            image = virtual_flags(cpu).zero_extend(32)
        access.push(cpu, image.truncate(size))

    @machine.instruction("POPF", source="SDM vol. 2B, POPF", mnemonic="POPF", size=16)
    @machine.instruction("POPFD", source="SDM vol. 2B, POPF", mnemonic="POPF", size=32)
    def popf(cpu: Ia32, *, size: int) -> None:
        """Pop EFLAGS: IOPL only at CPL 0, IF only at CPL <= IOPL; what is not allowed is silently kept.

        Below IOPL 3 in virtual-8086 mode the image's IF goes to VIF, or there is #GP(0).
        """
        cpu.interception.early(cpu, "POPF")
        if cpu.virtual_8086 & (cpu.eflags.iopl != 3):
            _virtual_interrupt_flag_needed(cpu, size)
            load_virtual_flags(cpu, access.pop(cpu, 2))
            return
        image = access.pop(cpu, size // 8).zero_extend(32)
        load_flags(cpu, image, STATUS_AND_PROGRAM, size)

    @machine.instruction("CLI", source="SDM vol. 2A, CLI")
    def cli(cpu: Ia32) -> None:
        """IF := 0 at CPL <= IOPL; VIF := 0 at CPL 3 with CR4.PVI, in virtual-8086 mode with VME; else #GP(0)."""
        if cpu.cpl <= cpu.eflags.iopl:
            cpu.eflags.if_ = 0
        elif cpu.cpl == 3 and _has_virtual_interrupt_flag(cpu):
            cpu.eflags.vif = 0
        else:
            raise Fault(GP, 0)

    @machine.instruction("STI", source="SDM vol. 2B, STI")
    def sti(cpu: Ia32) -> None:
        """IF := 1 at CPL <= IOPL; VIF := 1 where CLI clears it, unless VIP is set; else #GP(0)."""
        if cpu.cpl <= cpu.eflags.iopl:
            cpu.shadow.sti = ~cpu.eflags.if_
            cpu.eflags.if_ = 1
        elif cpu.cpl == 3 and _has_virtual_interrupt_flag(cpu) and not cpu.eflags.vip:
            cpu.eflags.vif = 1
        else:
            raise Fault(GP, 0)

    declare_program_flags(machine)

    for name, value in (("CLAC", 0), ("STAC", 1)):

        @machine.instruction(name, source=f"SDM vol. 2, {name}", value=value)
        def access_control(cpu: Ia32, *, value: int) -> None:
            """AC := 0 (CLAC) or 1 (STAC); #UD above CPL 0."""
            if cpu.cpl != 0:
                raise Fault(UD)
            cpu.eflags.ac = value


def undefine_status(cpu: Ia32, flags: Iterable[str] = STATUS) -> None:
    """The manual leaves these flags undefined."""
    for name in flags:
        cpu[f"eflags.{name}"] = cpu.undefined(name.upper(), 1)


def _has_virtual_interrupt_flag(cpu: Ia32) -> Word:
    """VIF stands in for IF at CPL 3 (width 1)."""
    return ite(cpu.virtual_8086, cpu.cr4.vme, cpu.cr4.pvi)


def _virtual_interrupt_flag_needed(cpu: Ia32, size: int) -> None:
    """#GP(0) for PUSHF, POPF and IRET in virtual-8086 mode with IOPL < 3 unless VME helps, with 16-bit operands."""
    if size == 32 or not cpu.cr4.vme:
        raise Fault(GP, 0)


def virtual_flags(cpu: Ia32) -> Word:
    """FLAGS as a virtual-8086 program with IOPL < 3 sees them: IF is VIF, and IOPL is 3 (16 bits)."""
    return cpu.eflags.value[15:0].replace(9, 9, cpu.eflags.vif).replace(13, 12, 3)


def load_virtual_flags(cpu: Ia32, image: Word) -> None:
    """FLAGS := image (16 bits) for a virtual-8086 program with IOPL < 3; IF goes to VIF, IOPL and IF stay.

    Raises:
        Fault: #GP(0), it sets TF, or sets VIF while VIP is pending.
    """
    enables = image[9]
    if image[8] | (enables & cpu.eflags.vip):
        raise Fault(GP, 0)
    taken = STATUS_AND_PROGRAM & 0xFFFF
    kept = cpu.eflags.value & ((taken | RF) ^ 0xFFFFFFFF)
    cpu.eflags = kept | (image & taken).zero_extend(32)
    cpu.eflags.vif = enables
