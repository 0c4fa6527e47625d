"""SMSW LMSW CLTS and MOV to and from control and debug registers (SDM vol. 2A and 2B)."""

from __future__ import annotations

from popek.architectures.x86 import machine_status
from popek.architectures.x86.access import user_mode_instruction_prevention
from popek.architectures.x86.exceptions import DB, GP, UD
from popek.architectures.x86.registers import CR0_DEFINED, DR6_DEFINED, DR6_FIXED
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, NotModelledError
from popek.kernel.words import Word, concat, ite

from .. import access
from ..access import privileged
from ..state import CR4_DEFINED, Ia32, exists_in_protected_mode, exists_in_real_address_mode
from .flags import undefine_status


def declare(machine: Machine[Ia32]) -> None:
    """Add the family to a machine."""

    @machine.instruction("SMSW r16", source="SDM vol. 2B, SMSW", size=16)
    @machine.instruction("SMSW r32", source="SDM vol. 2B, SMSW", size=32)
    def smsw_register(cpu: Ia32, r: Word, *, size: int) -> None:
        """Store CR0[15:0]; with a 32-bit register the processor stores CR0[31:0], which the manual leaves open."""
        user_mode_instruction_prevention(cpu)
        cpu.write_register(r, cpu.interception.read_control_register(cpu, 0).truncate(size))

    machine_status.declare(machine, access.load, access.store, _mode_exists)

    for number in (0, 2, 3, 4):

        @machine.instruction(
            f"MOV r32, CR{number}", source="SDM vol. 2B, MOV—Move to/from Control Registers",
            mnemonic="MOV from CR", number=number,
        )  # fmt: skip
        def mov_from_cr(cpu: Ia32, r: Word, *, number: int) -> None:
            """Read a control register.  The status flags become undefined."""
            privileged(cpu)
            cpu.gpr[r] = cpu.interception.read_control_register(cpu, number, r)
            undefine_status(cpu)

    source = "SDM vol. 2B, MOV—Move to/from Control Registers"

    @machine.instruction("MOV CR0, r32", source=source, mnemonic="MOV to CR")
    def mov_to_cr0(cpu: Ia32, r: Word) -> None:
        """#GP(0) for PG without PE and for NW without CD; undefined bits are ignored and ET reads 1."""
        privileged(cpu)
        new = (cpu.interception.write_control_register(cpu, 0, r) & CR0_DEFINED) | 0x10
        if (new[31] & ~new[0]) | (new[29] & ~new[30]):
            raise Fault(GP, 0)
        cpu.interception.control_register_accepted(cpu, 0, r, new)
        # SDM vol. 3A, "Operations that Invalidate TLBs": PG is cleared.
        cpu.tlb_stale = ite(cpu.cr0.pg & ~new[31], Word(1, 0), cpu.tlb_stale)
        cpu.cr0 = new
        _mode_exists(cpu)
        undefine_status(cpu)

    @machine.instruction("MOV CR2, r32", source=source, mnemonic="MOV to CR")
    def mov_to_cr2(cpu: Ia32, r: Word) -> None:
        """Any value."""
        privileged(cpu)
        new = cpu.interception.write_control_register(cpu, 2, r)
        cpu.interception.control_register_accepted(cpu, 2, r, new)
        cpu.cr2 = new
        undefine_status(cpu)

    @machine.instruction("MOV CR3, r32", source=source, mnemonic="MOV to CR")
    def mov_to_cr3(cpu: Ia32, r: Word) -> None:
        """Any value; the TLBs forget what the new tables do not say."""
        privileged(cpu)
        new = cpu.interception.write_control_register(cpu, 3, r)
        cpu.interception.control_register_accepted(cpu, 3, r, new)
        cpu.cr3 = new
        cpu.tlb_stale = Word(1, 0)
        undefine_status(cpu)

    @machine.instruction("MOV CR4, r32", source=source, mnemonic="MOV to CR")
    def mov_to_cr4(cpu: Ia32, r: Word) -> None:
        """#GP(0) for a reserved bit."""
        privileged(cpu)
        new = cpu.interception.write_control_register(cpu, 4, r)
        if (new & (CR4_DEFINED ^ 0xFFFFFFFF)) != 0:
            raise Fault(GP, 0)
        cpu.interception.control_register_accepted(cpu, 4, r, new)
        # SDM vol. 3A, "Operations that Invalidate TLBs": PAE or PGE changes, SMEP is set; PCIDE needs IA-32e mode.
        old = cpu.cr4.value
        flushes = (old[5] != new[5]) | (old[7] != new[7]) | (new[20] & ~old[20])
        cpu.tlb_stale = ite(flushes, Word(1, 0), cpu.tlb_stale)
        cpu.cr4 = new
        undefine_status(cpu)

    for number in (*range(4), 6, 7):
        for alias in (number - 2, number) if number > 4 else (number,):

            @machine.instruction(
                f"MOV r32, DR{alias}", source="SDM vol. 2B, MOV—Move to/from Debug Registers",
                mnemonic="MOV from DR", number=number, alias=alias != number,
            )  # fmt: skip
            def mov_from_dr(cpu: Ia32, r: Word, *, number: int, alias: bool) -> None:
                """Read a debug register; DR4 and DR5 are DR6 and DR7 unless CR4.DE is set."""
                cpu.interception.debug_register(cpu, number - 2 * alias, r, write=False)
                _debug_register_checks(cpu, alias)
                cpu.interception.debug_register_accepted(cpu, number - 2 * alias, r, write=False)
                values = {6: cpu.dr6.value, 7: cpu.dr7.value}
                cpu.gpr[r] = values[number] if number in values else cpu.dr[number]
                undefine_status(cpu)

            @machine.instruction(
                f"MOV DR{alias}, r32", source="SDM vol. 2B, MOV—Move to/from Debug Registers",
                mnemonic="MOV to DR", number=number, alias=alias != number,
            )  # fmt: skip
            def mov_to_dr(cpu: Ia32, r: Word, *, number: int, alias: bool) -> None:
                """Write a debug register; reserved bits keep their fixed values."""
                cpu.interception.debug_register(cpu, number - 2 * alias, r, write=True)
                _debug_register_checks(cpu, alias)
                cpu.interception.debug_register_accepted(cpu, number - 2 * alias, r, write=True)
                value = cpu.gpr[r]
                if number == 6:
                    cpu.dr6 = (value & DR6_DEFINED) | DR6_FIXED
                elif number == 7:
                    cpu.dr7 = concat(value[31:16], Word(2, 0), value[13], Word(3, 1), value[9:0])
                else:
                    cpu.dr[number] = value
                undefine_status(cpu)


def _debug_register_checks(cpu: Ia32, alias: bool) -> None:
    """#UD for DR4 and DR5 with CR4.DE, then #GP(0) above CPL 0, then #DB with DR7.GD."""
    if alias and cpu.cr4.de:
        raise Fault(UD)
    privileged(cpu)
    if cpu.dr7.gd:
        raise Fault(DB)


def _mode_exists(cpu: Ia32) -> None:
    """After a write to CR0 at CPL 0: the segment registers hold what loads in the mode that PE selects give."""
    # In real-address mode code may be written (SDM vol. 3B, "Real-Address Mode").
    cs = cpu.cs.rights
    cs.type, cs.dpl = ite(cpu.real, Word(4, 3), cs.type), ite(cpu.real, Word(2, 0), cs.dpl)
    exists = ite(cpu.real, exists_in_real_address_mode(cpu), exists_in_protected_mode(cpu))
    if not exists:
        raise NotModelledError("segment registers that no load in the new mode gives")
