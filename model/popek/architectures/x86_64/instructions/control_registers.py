"""SMSW LMSW CLTS and MOV to and from control and debug registers (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86 import machine_status
from popek.architectures.x86.access import privileged, user_mode_instruction_prevention
from popek.architectures.x86.exceptions import DB, GP, UD
from popek.architectures.x86.registers import CR0_DEFINED, DR6_DEFINED, DR6_FIXED
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import low_half, needs_long_mode
from ..state import CR4_DEFINED, PHYSICAL_BITS, X64

FROM_TO_CR = "SDM vol. 2B, MOV—Move to/from Control Registers"
FROM_TO_DR = "SDM vol. 2B, MOV—Move to/from Debug Registers"


def _give(cpu: X64, r: Word, value: Word) -> None:
    wide = value.zero_extend(64)
    cpu.gpr[r] = ite(cpu.long, wide, low_half(wide))


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""
    for size in (16, 32, 64):

        @machine.instruction(f"SMSW r{size}", source="SDM vol. 2B, SMSW", size=size)
        def smsw_register(cpu: X64, r: Word, *, size: int) -> None:
            """Store CR0: 16, 32 or 64 bits."""
            if size == 64:
                needs_long_mode(cpu)
            user_mode_instruction_prevention(cpu)
            cpu.write_register(r, cpu.interception.read_control_register(cpu, 0).resize(size))

    machine_status.declare(machine, access.load, access.store)

    for number in (0, 2, 3, 4):

        @machine.instruction(f"MOV r64, CR{number}", source=FROM_TO_CR, mnemonic="MOV from CR", number=number)
        def mov_from_cr(cpu: X64, r: Word, *, number: int) -> None:
            """Read a control register; 32 bits of it in compatibility mode."""
            privileged(cpu)
            _give(cpu, r, cpu.interception.read_control_register(cpu, number, r))

    @machine.instruction("MOV r64, CR8", source=FROM_TO_CR, mnemonic="MOV from CR")
    def mov_from_cr8(cpu: X64, r: Word) -> None:
        """Read the task-priority register."""
        needs_long_mode(cpu)
        privileged(cpu)
        cpu.gpr[r] = cpu.interception.read_task_priority(cpu, r).zero_extend(64)

    @machine.instruction("MOV CR0, r64", source=FROM_TO_CR, mnemonic="MOV to CR")
    def mov_to_cr0(cpu: X64, r: Word) -> None:
        """#GP(0) for bits 63:32, PG without PE, NW without CD, clearing PG in 64-bit mode or with PCIDE."""
        privileged(cpu)
        value = cpu.interception.write_control_register(cpu, 0, r)
        new = (value.truncate(32) & CR0_DEFINED) | 0x10
        stops_paging = (new[31] == 0) & (cpu.long | cpu.cr4.pcide)
        if (value[63:32] != 0) | (new[31] & ~new[0]) | (new[29] & ~new[30]) | stops_paging:
            raise Fault(GP, 0)
        cpu.interception.control_register_accepted(cpu, 0, r, new)
        if not new[31]:
            raise NotModelledError("leaving IA-32e mode")
        cpu.cr0 = new

    @machine.instruction("MOV CR2, r64", source=FROM_TO_CR, mnemonic="MOV to CR")
    def mov_to_cr2(cpu: X64, r: Word) -> None:
        """Any value."""
        privileged(cpu)
        new = cpu.interception.write_control_register(cpu, 2, r)
        cpu.interception.control_register_accepted(cpu, 2, r, new)
        cpu.cr2 = new

    @machine.instruction("MOV CR3, r64", source=FROM_TO_CR, mnemonic="MOV to CR")
    def mov_to_cr3(cpu: X64, r: Word) -> None:
        """#GP(0) for a bit above the physical address, but 63 with CR4.PCIDE, which keeps the TLBs."""
        privileged(cpu)
        new = cpu.interception.write_control_register(cpu, 3, r)
        if (new[62:PHYSICAL_BITS] != 0) | (new[63] & ~cpu.cr4.pcide):
            raise Fault(GP, 0)
        cpu.interception.control_register_accepted(cpu, 3, r, new)
        cpu.cr3 = new.replace(63, 63, 0)
        cpu.tlb_stale = ite(new[63], cpu.tlb_stale, Word(1, 0))

    @machine.instruction("MOV CR4, r64", source=FROM_TO_CR, mnemonic="MOV to CR")
    def mov_to_cr4(cpu: X64, r: Word) -> None:
        """#GP(0) for a reserved bit, clearing PAE, or setting PCIDE while CR3[11:0] is not 0."""
        privileged(cpu)
        new = cpu.interception.write_control_register(cpu, 4, r)
        sets_pcide = new[17] & ~cpu.cr4.pcide & (cpu.cr3[11:0] != 0)
        if ((new & (CR4_DEFINED ^ 0xFFFFFFFF_FFFFFFFF)) != 0) | (new[5] == 0) | sets_pcide:
            raise Fault(GP, 0)
        cpu.interception.control_register_accepted(cpu, 4, r, new)
        # SDM vol. 3A, "Operations that Invalidate TLBs": PGE changes, PCIDE is cleared, SMEP is set.
        old, new = cpu.cr4.value, new.truncate(32)
        flushes = (old[7] != new[7]) | (old[17] & ~new[17]) | (new[20] & ~old[20])
        cpu.tlb_stale = ite(flushes, Word(1, 0), cpu.tlb_stale)
        cpu.cr4 = new

    @machine.instruction("MOV CR8, r64", source=FROM_TO_CR, mnemonic="MOV to CR")
    def mov_to_cr8(cpu: X64, r: Word) -> None:
        """Write the task-priority register; #GP(0) for bits 63:4."""
        needs_long_mode(cpu)
        privileged(cpu)
        cpu.interception.write_task_priority(cpu, r)

    @machine.instruction("MOV r64, CR1", source=FROM_TO_CR, mnemonic="MOV from CR")
    @machine.instruction("MOV CR1, r64", source=FROM_TO_CR, mnemonic="MOV to CR")
    def mov_cr1(cpu: X64, r: Word) -> None:
        """There is no CR1: #UD at every level."""
        raise Fault(UD)

    for number in (*range(4), 6, 7):
        for alias in (number - 2, number) if number > 4 else (number,):

            @machine.instruction(
                f"MOV r64, DR{alias}", source=FROM_TO_DR,
                mnemonic="MOV from DR", number=number, alias=alias != number,
            )  # fmt: skip
            def mov_from_dr(cpu: X64, r: Word, *, number: int, alias: bool) -> None:
                """Read a debug register; DR4 and DR5 are DR6 and DR7 unless CR4.DE is set."""
                cpu.interception.debug_register(cpu, number - 2 * alias, r, write=False)
                _debug_register_checks(cpu, alias)
                cpu.interception.debug_register_accepted(cpu, number - 2 * alias, r, write=False)
                values = {6: cpu.dr6.value, 7: cpu.dr7.value}
                _give(cpu, r, values[number] if number in values else cpu.dr[number])

            @machine.instruction(
                f"MOV DR{alias}, r64", source=FROM_TO_DR,
                mnemonic="MOV to DR", number=number, alias=alias != number,
            )  # fmt: skip
            def mov_to_dr(cpu: X64, r: Word, *, number: int, alias: bool) -> None:
                """Write a debug register; #GP(0) for bits 63:32 of DR6 and DR7."""
                cpu.interception.debug_register(cpu, number - 2 * alias, r, write=True)
                _debug_register_checks(cpu, alias)
                value = cpu.whole_register(r)
                if number > 3 and value[63:32] != 0:
                    raise Fault(GP, 0)
                cpu.interception.debug_register_accepted(cpu, number - 2 * alias, r, write=True)
                if number < 4:
                    cpu.dr[number] = value
                elif number == 6:
                    cpu.dr6 = (value.truncate(32) & DR6_DEFINED) | DR6_FIXED
                else:
                    cpu.dr7 = concat(value[31:16], Word(2, 0), value[13], Word(3, 1), value[9:0])


def _debug_register_checks(cpu: X64, alias: bool) -> None:
    """#UD for DR4 and DR5 with CR4.DE, then #GP(0) above CPL 0, then #DB with DR7.GD."""
    if alias and cpu.cr4.de:
        raise Fault(UD)
    privileged(cpu)
    if cpu.dr7.gd:
        raise Fault(DB)
