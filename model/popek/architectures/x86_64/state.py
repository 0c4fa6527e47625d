"""x86-64 state in IA-32e mode: 64-bit mode and compatibility mode (Intel SDM vol. 3A, chapters 2 to 7).

Memory is linear memory, as in the IA-32 model, with 64-bit addresses of which 48 bits are implemented.
Protection by pages is two ranges; page tables know only user (CPL 3) and supervisor (CPL 0, 1 and 2), so the
ranges bar CPL 3 alone.  CR0, CR4, RFLAGS, DR6 and DR7 are kept without their bits 63:32, which are always 0.
In 64-bit mode the bases of CS, DS, ES and SS are held but not used, and no limit is.
"""

from __future__ import annotations

from typing import ClassVar

from popek.architectures.ia32.paging import Translation
from popek.architectures.ia32.state import (
    CR0_DEFINED,
    EFLAGS_DEFINED,
    EFLAGS_FIXED,
    SEGMENT_NAMES,
    Cr0,
    Dr6,
    Dr7,
    Eflags,
    Rights,
    Selector,
    Shadow,
)
from popek.kernel.state import Group, Register, Role, State, bank, bit, bits, group, memory, register, word
from popek.kernel.words import Word, all_of, ite

RESOURCE, MODE, HIDDEN = Role.RESOURCE, Role.MODE, Role.HIDDEN

GPR_NAMES = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
R11 = 11

LINEAR_BITS = 48
"""Linear-address bits that are implemented: 4-level paging."""

PHYSICAL_BITS = 40
"""MAXPHYADDR; the manual leaves it to the processor."""


class Cr4(Register):
    """CR4 (SDM vol. 3A, "Control Registers")."""

    vme = bit(0)
    pvi = bit(1)
    tsd = bit(2)
    de = bit(3)
    pse = bit(4)
    pae = bit(5)
    mce = bit(6)
    pge = bit(7)
    pce = bit(8)
    osfxsr = bit(9)
    osxmmexcpt = bit(10)
    umip = bit(11)
    vmxe = bit(13)
    fsgsbase = bit(16)
    pcide = bit(17)
    osxsave = bit(18)
    smep = bit(20)
    smap = bit(21)
    pke = bit(22)


CR4_DEFINED = 0x00772FFF


class Efer(Register):
    """IA32_EFER (SDM vol. 3A, "Extended Feature Enable Register")."""

    sce = bit(0)
    lme = bit(8)
    lma = bit(10)
    nxe = bit(11)


EFER_DEFINED = 0x00000D01

MISC_ENABLE_DEFINED = 0x4_0085_1889
"""Bits of IA32_MISC_ENABLE that may be set: 0 3 7 11 12 16 18 22 23 34 (SDM vol. 4, table of architectural MSRs)."""


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


class Segment(Group):
    """A segment register: the visible selector and the hidden part, whose base has 64 bits."""

    selector = register(Selector, 16, role=RESOURCE)
    base = word(64, role=HIDDEN)
    limit = word(32, role=HIDDEN, reset=0xFFFFFFFF)
    rights = register(Rights, 17, role=HIDDEN, reset=0xC093)


class TableRegister(Group):
    """GDTR and IDTR: 64-bit base and 16-bit limit."""

    base = word(64, role=RESOURCE)
    limit = word(16, role=RESOURCE)


class Pages(Group):
    """A range of linear addresses: `size` bytes from `base`; empty when size is 0."""

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


_CPL_BEARING = {"selector.rpl": MODE, "rights.dpl": MODE}
_SYSTEM = {"base": RESOURCE, "limit": RESOURCE, "rights": RESOURCE}
# RDFSBASE and WRFSBASE make these visible: they relocate what the program refers to through FS and GS.
_BASE_SHOWS = {"base": RESOURCE}


class X64(State):
    """The processor in IA-32e mode, its linear memory and its ports."""

    translation: ClassVar[Translation] = Translation(segments=False)

    gpr = bank(GPR_NAMES, 64, resets={"rsp": 0x8000})
    rip = word(64, role=Role.PC, reset=0x1000)
    rflags = register(Eflags, 32, reset=EFLAGS_FIXED)
    es = group(Segment, resets={"selector": 0x10})
    cs = group(Segment, roles=_CPL_BEARING, resets={"selector": 0x08, "rights": 0xA09B})
    ss = group(Segment, roles=_CPL_BEARING, resets={"selector": 0x10})
    ds = group(Segment, resets={"selector": 0x10})
    fs = group(Segment, roles=_BASE_SHOWS, resets={"selector": 0x10})
    gs = group(Segment, roles=_BASE_SHOWS, resets={"selector": 0x10})
    gdtr = group(TableRegister, resets={"limit": 0xFFFF})
    idtr = group(TableRegister, resets={"limit": 0xFFF})
    ldtr = group(Segment, roles=_SYSTEM, resets={"limit": 0, "rights": 0x10000})
    tr = group(Segment, roles=_SYSTEM, resets={"selector": 0x18, "limit": 0x67, "rights": 0x008B})
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

    @property
    def eflags(self) -> Eflags:
        """RFLAGS by the name that IA-32 has for it."""
        return self.rflags

    @eflags.setter
    def eflags(self, new: Word) -> None:
        self.rflags = new

    @property
    def no_execute(self) -> Word:
        """IA32_EFER.NXE: entries of page tables have the XD flag (width 1)."""
        return self.efer.nxe

    def segment(self, number: Word | int) -> Segment:
        """A segment register by its encoding: ES CS SS DS FS GS."""
        if isinstance(number, int) or number.concrete:
            return Segment(self, (SEGMENT_NAMES[int(number)],))
        return Segment(self, SEGMENT_NAMES, number)

    # -- general registers by size ------------------------------------------------------------

    def read_register(self, number: Word | int, size: int) -> Word:
        """The low 8, 16, 32 or 64 bits of a general register (as with a REX prefix: 4 is SPL, not AH)."""
        return self.gpr[number].truncate(size)

    def write_register(self, number: Word | int, value: Word) -> None:
        """Set a general register of the value's width: 32 bits clear the upper half, 8 and 16 leave it."""
        if value.width in (32, 64):
            self.gpr[number] = value.zero_extend(64)
        else:
            self.gpr[number] = self.gpr[number].replace(value.width - 1, 0, value)


def is_canonical(address: Word) -> Word:
    """Whether bits 63:47 of an address are all alike (width 1)."""
    top = address[63 : LINEAR_BITS - 1]
    return (top == 0) | (top == (1 << top.width) - 1)


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
    for name in ("es", "ds", "fs", "gs"):
        rights = getattr(cpu, name).rights
        code_unreadable = (rights.type[3] == 1) & (rights.type[1] == 0)
        conditions.append((rights.unusable == 1) | ((rights.p == 1) & (rights.s == 1) & ~code_unreadable))
    for name in (*SEGMENT_NAMES, "ldtr", "tr"):
        conditions.append(getattr(cpu, name).rights.value[11:8] == 0)
    for name in CANONICAL:
        conditions.append(is_canonical(cpu[name]))
    for name in ("es", "cs", "ss", "ds"):
        conditions.append(cpu[f"{name}.base"][63:32] == 0)
    ldtr, tr = cpu.ldtr.rights, cpu.tr.rights
    conditions.append((ldtr.unusable == 1) | ((ldtr.p == 1) & (ldtr.s == 0) & (ldtr.type == 2)))
    conditions.append((tr.unusable == 0) & (tr.p == 1) & (tr.s == 0) & (tr.type == 11))
    return all_of(conditions)


CANONICAL = (
    *("fs.base", "gs.base", "gdtr.base", "idtr.base", "ldtr.base", "tr.base"),
    *("msr.lstar", "msr.cstar", "msr.kernel_gs_base", "msr.sysenter_esp", "msr.sysenter_eip"),
)
"""Components that only ever hold canonical addresses."""
