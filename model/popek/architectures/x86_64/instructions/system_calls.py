"""SYSCALL SYSRET SYSENTER SYSEXIT SWAPGS RDFSBASE RDGSBASE WRFSBASE WRGSBASE (SDM vol. 2B)."""

from __future__ import annotations

from popek.architectures.x86.access import privileged
from popek.architectures.x86.exceptions import (
    GP,
    UD,
)
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ..access import low_half, needs_long_mode
from ..addresses import is_canonical
from ..state import (
    R11,
    RCX,
    RDX,
    RSP,
    X64,
    Segment,
)

FLAT_CODE, FLAT_CODE_64, FLAT_DATA = 0xC09B, 0xA09B, 0xC093  # present, accessed, 4 GiB, DPL 0


def _flat(segment: Segment, selector: Word, rights: Word | int, level: int) -> None:
    """A fixed segment: base 0, 4 GiB; the descriptor tables are not looked at."""
    fixed = Word(17, rights) if isinstance(rights, int) else rights
    segment.selector = selector
    segment.base = Word(64, 0)
    segment.limit = Word(32, 0xFFFFFFFF)
    segment.rights = fixed.replace(6, 5, level)


def declare(machine: Machine[X64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("SYSCALL", source="SDM vol. 2B, SYSCALL")
    def syscall(cpu: X64) -> None:
        """Enter CPL 0 at IA32_LSTAR; #UD outside 64-bit mode and unless EFER.SCE is set."""
        if ~cpu.long | ~cpu.efer.sce:
            raise Fault(UD)
        cpu.gpr[RCX] = cpu.rip
        cpu.gpr[R11] = (cpu.rflags.value & 0xFFFEFFFF).zero_extend(64)  # RF is cleared
        cpu.rip = cpu.msr.lstar
        cpu.rflags = (cpu.rflags.value & ~cpu.msr.fmask & 0x003C7FD7) | 2
        code = cpu.msr.star[47:32]
        _flat(cpu.cs, code & 0xFFFC, FLAT_CODE_64, 0)
        _flat(cpu.ss, (code + 8) & 0xFFFC, FLAT_DATA, 0)

    for form, wide in (("SYSRET", False), ("SYSRETQ", True)):

        @machine.instruction(form, source="SDM vol. 2B, SYSRET", mnemonic="SYSRET", wide=wide)
        def sysret(cpu: X64, *, wide: bool) -> None:
            """Return to CPL 3 at RCX: in 64-bit mode (SYSRETQ) or compatibility mode."""
            if ~cpu.long | ~cpu.efer.sce:
                raise Fault(UD)
            privileged(cpu)
            if wide and not is_canonical(cpu.gpr[RCX]):
                raise Fault(GP, 0)
            cpu.rip = cpu.gpr[RCX] if wide else low_half(cpu.gpr[RCX])
            cpu.rflags = (cpu.gpr[R11].truncate(32) & 0x003C7FD7) | 2
            code = cpu.msr.star[63:48] + (16 if wide else 0)
            _flat(cpu.cs, code | 3, FLAT_CODE_64 if wide else FLAT_CODE, 3)
            _flat(cpu.ss, (cpu.msr.star[63:48] + 8) | 3, FLAT_DATA, 3)

    @machine.instruction("SYSENTER", source="SDM vol. 2B, SYSENTER")
    def sysenter(cpu: X64) -> None:
        """Enter CPL 0 in 64-bit mode at IA32_SYSENTER_EIP; #GP(0) if IA32_SYSENTER_CS is null."""
        code = cpu.msr.sysenter_cs.truncate(16)
        if code[15:2] == 0:
            raise Fault(GP, 0)
        cpu.rflags.if_ = 0
        cpu.gpr[RSP] = cpu.msr.sysenter_esp
        cpu.rip = cpu.msr.sysenter_eip
        _flat(cpu.cs, code & 0xFFFC, FLAT_CODE_64, 0)
        _flat(cpu.ss, (code & 0xFFFC) + 8, FLAT_DATA, 0)

    for form, wide in (("SYSEXIT", False), ("SYSEXITQ", True)):

        @machine.instruction(form, source="SDM vol. 2B, SYSEXIT", mnemonic="SYSEXIT", wide=wide)
        def sysexit(cpu: X64, *, wide: bool) -> None:
            """Return to CPL 3 at RDX with RSP := RCX: in 64-bit mode (SYSEXITQ) or compatibility mode."""
            if wide:
                needs_long_mode(cpu)
            code = cpu.msr.sysenter_cs.truncate(16)
            if (code[15:2] == 0) | (cpu.cpl != 0):
                raise Fault(GP, 0)
            target, stack = cpu.gpr[RDX], cpu.gpr[RCX]
            if wide and not is_canonical(target) & is_canonical(stack):
                raise Fault(GP, 0)
            cpu.gpr[RSP] = stack if wide else low_half(stack)
            cpu.rip = target if wide else low_half(target)
            _flat(cpu.cs, (code + (32 if wide else 16)) | 3, FLAT_CODE_64 if wide else FLAT_CODE, 3)
            _flat(cpu.ss, (code + (40 if wide else 24)) | 3, FLAT_DATA, 3)

    @machine.instruction("SWAPGS", source="SDM vol. 2B, SWAPGS")
    def swapgs(cpu: X64) -> None:
        """Exchange GS.base and IA32_KERNEL_GS_BASE; #UD outside 64-bit mode."""
        if not cpu.long:
            raise Fault(UD)
        privileged(cpu)
        cpu.gs.base, cpu.msr.kernel_gs_base = cpu.msr.kernel_gs_base, cpu.gs.base

    for name in ("fs", "gs"):
        for size in (32, 64):

            @machine.instruction(
                f"RD{name.upper()}BASE r{size}", source="SDM vol. 2B, RDFSBASE/RDGSBASE", name=name, size=size
            )
            def read_base(cpu: X64, r: Word, *, name: str, size: int) -> None:
                """Read FS.base or GS.base at any level; #UD outside 64-bit mode and unless CR4.FSGSBASE is set."""
                if ~cpu.long | ~cpu.cr4.fsgsbase:
                    raise Fault(UD)
                cpu.write_register(r, cpu[f"{name}.base"].truncate(size))

            @machine.instruction(
                f"WR{name.upper()}BASE r{size}", source="SDM vol. 2B, WRFSBASE/WRGSBASE", name=name, size=size
            )
            def write_base(cpu: X64, r: Word, *, name: str, size: int) -> None:
                """Write FS.base or GS.base at any level; #GP(0) for an address that is not canonical."""
                if ~cpu.long | ~cpu.cr4.fsgsbase:
                    raise Fault(UD)
                base = cpu.read_register(r, size).zero_extend(64)
                if not is_canonical(base):
                    raise Fault(GP, 0)
                cpu[f"{name}.base"] = base
