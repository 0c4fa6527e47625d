"""x86-64 state in IA-32e mode: 64-bit mode and compatibility mode (Intel SDM vol. 3A, chapters 2 to 7).

Memory is linear memory, as in the IA-32 model, with 64-bit addresses of which 48 bits are implemented.
Protection by pages is two ranges; page tables know only user (CPL 3) and supervisor (CPL 0, 1 and 2), so the
ranges bar CPL 3 alone.  CR0, CR4, RFLAGS, DR6 and DR7 are kept without their bits 63:32, which are always 0.
In 64-bit mode the bases of CS, DS, ES and SS are held but not used, and no limit is.
"""

from __future__ import annotations

from typing import ClassVar

from popek.architectures.x86 import registers
from popek.architectures.x86 import state as x86
from popek.architectures.x86.interception import Interception
from popek.architectures.x86.registers import (
    CR0_DEFINED,
    EFLAGS_DEFINED,
    EFLAGS_FIXED,
    SEGMENT_NAMES,
    Cr0,
    Dr6,
    Dr7,
    Eflags,
    Shadow,
)
from popek.architectures.x86.state import (
    CPL_BEARING,
    DATA_REGISTERS,
    HIDDEN,
    RESOURCE,
    SYSTEM_SEGMENT,
    X86,
    Translation,
    debug_registers_exist,
    null_or_local_table,
    null_or_readable,
    task_state,
)
from popek.kernel.state import Group, Register, Role, bank, bit, bits, group, memory, register, same, word
from popek.kernel.words import Word, all_of, ite

from .addresses import is_canonical, low_half
from .segmentation import LongSegmentation

GPR_NAMES = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R11 = 11

PHYSICAL_BITS = 40
"""MAXPHYADDR; the manual leaves it to the processor."""


class Cr4(registers.Cr4):
    """CR4 of a processor with Intel 64 (SDM vol. 3A, "Control Registers")."""

    fsgsbase = bit(16)
    pcide = bit(17)


CR4_DEFINED = 0x00772FFF


class Efer(Register):
    """IA32_EFER (SDM vol. 3A, "Extended Feature Enable Register")."""

    sce = bit(0)
    lme = bit(8)
    lma = bit(10)
    nxe = bit(11)


EFER_DEFINED = 0x00000D01

MISC_ENABLE_DEFINED = 0x4_00C5_1889
"""Bits of IA32_MISC_ENABLE that may be set: 0 3 7 11 12 16 18 22 23 34 (SDM vol. 4, table of architectural MSRs)."""


APIC_BASE_DEFINED = (1 << PHYSICAL_BITS) - 0x1000 | 0xD00
"""BSP, EXTD, EN and the page of the registers."""
RESERVED_IN_CR3 = ((1 << 64) - 1) ^ ((1 << PHYSICAL_BITS) - 1)


class MiscEnable(Register):
    """IA32_MISC_ENABLE."""

    fast_strings = bit(0)
    monitor = bit(18)
    limit_cpuid = bit(22)
    xd_disable = bit(34)


class ApicBase(Register):
    """IA32_APIC_BASE."""

    bsp = bit(8)
    extd = bit(10)
    enable = bit(11)
    address = bits(PHYSICAL_BITS - 1, 12)


class Xcr0(Register):
    """XCR0: x87, SSE, AVX and PKRU state (SDM vol. 1, "Enabling the XSAVE Feature Set")."""

    x87 = bit(0)
    sse = bit(1)
    avx = bit(2)
    pkru = bit(9)


XCR0_DEFINED = 0x207


class Segment(x86.Segment):
    """A segment register whose base has 64 bits."""

    base = word(64, role=HIDDEN)


class TableRegister(x86.TableRegister):
    """GDTR and IDTR: the base has 64 bits."""

    base = word(64, role=RESOURCE)


class Pages(x86.Pages):
    """A range of 64-bit linear addresses."""

    base = word(64, role=HIDDEN)
    size = word(64, role=HIDDEN)


class Msrs(Group):
    """Model-specific registers that system instructions use (SDM vol. 4)."""

    star = word(64, role=RESOURCE)
    lstar = word(64, role=RESOURCE)
    cstar = word(64, role=RESOURCE)
    fmask = word(32, role=RESOURCE)
    kernel_gs_base = word(64, role=RESOURCE)
    tsc_aux = word(32, role=RESOURCE)
    sysenter_cs = word(32, role=RESOURCE)
    sysenter_esp = word(64, role=RESOURCE)
    sysenter_eip = word(64, role=RESOURCE)
    apic_base = register(ApicBase, 64, role=RESOURCE, reset=0xFEE00900)
    pat = word(64, role=RESOURCE, reset=0x0007040600070406)
    misc_enable = register(MiscEnable, 64, role=RESOURCE, reset=1 | 1 << 18)


# RDFSBASE and WRFSBASE make these visible: they relocate what the program refers to through FS and GS.
_BASE_SHOWS = {"base": RESOURCE}


class X64(X86):
    """The processor in IA-32e mode, its linear memory and its ports."""

    interception: ClassVar[Interception[X64]] = Interception()
    translation = Translation(segments=False)
    segmentation = LongSegmentation()

    gpr = bank(GPR_NAMES, 64, resets={"rsp": 0x8000})
    rip = word(64, role=Role.PC, reset=0x1000)
    rflags = register(Eflags, 32, reset=EFLAGS_FIXED)
    eflags = same(Eflags, 32, "rflags")  # by the name that IA-32 has for it
    es = group(Segment, resets={"selector": 0x10})
    cs = group(Segment, roles=CPL_BEARING, resets={"selector": 0x08, "rights": 0xA09B})
    ss = group(Segment, roles=CPL_BEARING, resets={"selector": 0x10})
    ds = group(Segment, resets={"selector": 0x10})
    fs = group(Segment, roles=_BASE_SHOWS, resets={"selector": 0x10})
    gs = group(Segment, roles=_BASE_SHOWS, resets={"selector": 0x10})
    gdtr = group(TableRegister, resets={"limit": 0xFFFF})
    idtr = group(TableRegister, resets={"limit": 0xFFF})
    ldtr = group(Segment, roles=SYSTEM_SEGMENT, resets={"limit": 0, "rights": 0x10000})
    tr = group(Segment, roles=SYSTEM_SEGMENT, resets={"selector": 0x18, "limit": 0x67, "rights": 0x008B})
    cr0 = register(Cr0, 32, role=RESOURCE, reset=0x80000031)
    cr2 = word(64, role=RESOURCE)
    cr3 = word(64, role=RESOURCE)
    cr4 = register(Cr4, 32, role=RESOURCE, reset=0x20)
    cr8 = word(4, role=RESOURCE)
    efer = register(Efer, 32, role=RESOURCE, reset=0x500)
    xcr0 = register(Xcr0, 64, role=RESOURCE, reset=1)
    xinuse = word(64, role=HIDDEN, reset=1)  # which extended state is not in its initial configuration
    pkru = word(32, role=RESOURCE)
    extended = word(64)  # stands for the x87 and SIMD registers
    dr = bank(("dr0", "dr1", "dr2", "dr3"), 64, role=RESOURCE)
    dr6 = register(Dr6, 32, role=RESOURCE, reset=0xFFFF0FF0)
    dr7 = register(Dr7, 32, role=RESOURCE, reset=0x400)
    msr = group(Msrs)
    tsc = word(64, role=Role.TIME)
    pmc = memory(address=32, cell=64, role=RESOURCE)  # performance counters, by ECX
    cpuid = memory(address=64, cell=128, role=RESOURCE)  # EDX:ECX:EBX:EAX, by ECX:EAX
    ports = memory(address=16, cell=8, role=RESOURCE)  # what devices show and take at each port
    halted = word(1, role=RESOURCE)
    monitored = word(1, role=HIDDEN)  # MONITOR has armed the address-range hardware
    cache_dirty = word(1, role=RESOURCE)  # the caches hold data that memory does not
    tlb_stale = word(1, role=RESOURCE)  # the TLBs hold translations that the tables no longer give
    shadow = register(Shadow, 2, role=HIDDEN)
    # What the page tables keep from user mode, which is CPL 3.
    reserved = group(Pages)  # no access
    read_only = group(Pages)  # no writing
    memory = memory(address=64, cell=8)

    @property
    def cpl(self) -> Word:
        """The current privilege level, 2 bits."""
        return self.cs.selector.rpl

    @property
    def long(self) -> Word:
        """64-bit mode, not compatibility mode: CS.L (width 1)."""
        return self.cs.rights.l

    def other_msr(self, number: Word) -> Word:
        """The value (64 bits) of an MSR that is no component: of this processor there is none."""
        return Word(64, 0)

    def set_other_msr(self, number: Word, value: Word) -> None:
        """Give it a value, where `number` is such an MSR."""

    @property
    def no_execute(self) -> Word:
        """IA32_EFER.NXE: entries of page tables have the XD flag (width 1)."""
        return self.efer.nxe

    # -- general registers by size ------------------------------------------------------------

    def read_register(self, number: Word | int, size: int) -> Word:
        """The low 8, 16, 32 or 64 bits of a general register (as with a REX prefix: 4 is SPL, not AH)."""
        return self.gpr[number].truncate(size)

    def whole_register(self, number: Word | int) -> Word:
        """64 bits of a general register; outside 64-bit mode the upper 32 are 0."""
        return ite(self.long, self.gpr[number], low_half(self.gpr[number]))

    def write_register(self, number: Word | int, value: Word) -> None:
        """Set a general register of the value's width: 32 bits clear the upper half, 8 and 16 leave it."""
        if value.width in (32, 64):
            self.gpr[number] = value.zero_extend(64)
        else:
            self.gpr[number] = self.gpr[number].replace(value.width - 1, 0, value)


def reserved_bits_are_clear(cpu: X64) -> Word:
    """IA32_APIC_BASE, IA32_MISC_ENABLE and IA32_PAT have no bit that a write would have been refused (width 1)."""
    whole = (1 << 64) - 1
    apic = (cpu.msr.apic_base.value & (APIC_BASE_DEFINED ^ whole)) == 0
    misc = (cpu.msr.misc_enable.value & (MISC_ENABLE_DEFINED ^ whole)) == 0
    return apic & misc & ((cpu.msr.pat & 0xF8F8F8F8_F8F8F8F8) == 0)


def invariant(cpu: X64) -> Word:
    """Which states exist in IA-32e mode (SDM vol. 3A, "IA-32e Mode"; vol. 3C, "Checks on the Guest State")."""
    cs, ss = cpu.cs.rights, cpu.ss.rights
    conditions = [
        (cpu.rflags.value & (EFLAGS_DEFINED ^ 0xFFFFFFFF)) == EFLAGS_FIXED,
        cpu.rflags.vm == 0,
        # PE, ET and PG; PAE; LME and LMA.
        (cpu.cr0.value & (CR0_DEFINED ^ 0xFFFFFFFF | 0x80000011)) == 0x80000011,
        (cpu.cr0.nw == 0) | (cpu.cr0.cd == 1),
        (cpu.cr4.value & (CR4_DEFINED ^ 0xFFFFFFFF | 0x20)) == 0x20,
        (cpu.efer.value & (EFER_DEFINED ^ 0xFFFFFFFF | 0x500)) == 0x500,
        debug_registers_exist(cpu),
        ((cpu.cr3 & RESERVED_IN_CR3) == 0) & reserved_bits_are_clear(cpu),
        # x87 state cannot be off, and AVX state needs SSE state.
        ((cpu.xcr0.value & (XCR0_DEFINED ^ 0xFFFFFFFF_FFFFFFFF | 1)) == 1) & (cpu.xcr0.sse | ~cpu.xcr0.avx),
        # CS is present code, not both of 64 and of 32 bits, whose DPL is CPL, or conforming code up to CPL.
        (cs.unusable == 0) & (cs.p == 1) & (cs.s == 1) & (cs.type[3] == 1) & ~(cs.l & cs.db),
        ite(cs.type[2], cs.dpl <= cpu.cpl, cs.dpl == cpu.cpl),
        # SS is present writable data; inside, it may be null.
        ite(
            ss.unusable,
            (cpu.cpl != 3) & (cpu.ss.selector.value[15:2] == 0),
            (ss.p == 1) & (ss.s == 1) & (ss.type[3] == 0) & (ss.type[1] == 1),
        ),
        (ss.dpl == cpu.cpl) & (cpu.ss.selector.rpl == cpu.cpl),
    ]
    conditions += [null_or_readable(getattr(cpu, name)) for name in DATA_REGISTERS]
    for name in (*SEGMENT_NAMES, "ldtr", "tr"):
        conditions.append(getattr(cpu, name).rights.value[11:8] == 0)
    for name in CANONICAL:
        conditions.append(is_canonical(cpu[name]))
    for name in ("es", "cs", "ss", "ds"):
        conditions.append(cpu[f"{name}.base"][63:32] == 0)
    conditions += [null_or_local_table(cpu.ldtr), task_state(cpu.tr, (11,))]
    return all_of(conditions)


CANONICAL = (
    *("fs.base", "gs.base", "gdtr.base", "idtr.base", "ldtr.base", "tr.base"),
    *("msr.lstar", "msr.cstar", "msr.kernel_gs_base", "msr.sysenter_esp", "msr.sysenter_eip"),
)
"""Components that only ever hold canonical addresses."""
