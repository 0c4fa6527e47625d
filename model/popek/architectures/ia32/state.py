"""IA-32 state in real-address, virtual-8086 and 32-bit protected mode (Intel SDM vol. 3A, chapters 2, 3, 5, 7, 20).

Memory is linear memory.  Of protection by pages it has two ranges that code above CPL 0 may not touch or not
write, which is all a VMM needs it for; `paging` has page tables for a machine that walks them.  A segment
register has its selector and its hidden part: base, byte-granular limit and access rights in the layout
of VMCS access-rights fields (vol. 3C, "Guest Register State").

CPL is the DPL in the hidden part of SS, in every mode: 0 in real-address mode, 3 in virtual-8086 mode.  In
protected mode a group of leaves shows it (`cs.selector.rpl`, `ss.selector.rpl` and the DPLs of the two
descriptor caches), all with the role `mode`, tied together by the invariant.
"""

from __future__ import annotations

from typing import ClassVar

from popek.architectures.x86 import registers
from popek.architectures.x86.interception import Interception
from popek.architectures.x86.msrs import IA32_EFER
from popek.architectures.x86.registers import (
    CR0_DEFINED,
    EFLAGS_DEFINED,
    EFLAGS_FIXED,
    NAMES_32,
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
    Pages,
    Segment,
    TableRegister,
    Translation,
    debug_registers_exist,
    null_or_local_table,
    null_or_readable,
    task_state,
    writable_data,
)
from popek.kernel.state import Role, bank, bit, group, memory, register, word
from popek.kernel.words import Word, all_of, concat, ite

from .segmentation import ProtectedSegmentation

GPR_NAMES = NAMES_32
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)

XCR0_UNDEFINED = 0xFFFFFFFFFFFFFFF8  # the model has x87, SSE and AVX state
CR4_DEFINED = 0x00746FFF
CR4_VMXE, CR4_SMXE, CR4_PKE = 1 << 13, 1 << 14, 1 << 22


class Cr4(registers.Cr4):
    """CR4 of a processor with safer mode extensions (SDM vol. 3A, "Control Registers")."""

    smxe = bit(14)


class Ia32(X86):
    """The processor, its linear memory and its ports."""

    interception: ClassVar[Interception[Ia32]] = Interception()
    translation = Translation()
    segmentation = ProtectedSegmentation()

    gpr = bank(GPR_NAMES, 32, resets={"esp": 0x8000})
    eip = word(32, role=Role.PC, reset=0x1000)
    eflags = register(Eflags, 32, reset=EFLAGS_FIXED)
    es = group(Segment, resets={"selector": 0x10})
    cs = group(Segment, roles=CPL_BEARING, resets={"selector": 0x08, "rights": 0xC09B})
    ss = group(Segment, roles=CPL_BEARING, resets={"selector": 0x10})
    ds = group(Segment, resets={"selector": 0x10})
    fs = group(Segment, resets={"selector": 0x10})
    gs = group(Segment, resets={"selector": 0x10})
    gdtr = group(TableRegister, resets={"limit": 0xFFFF})
    idtr = group(TableRegister, resets={"limit": 0x7FF})
    ldtr = group(Segment, roles=SYSTEM_SEGMENT, resets={"limit": 0, "rights": 0x10000})
    tr = group(Segment, roles=SYSTEM_SEGMENT, resets={"selector": 0x18, "limit": 0x67, "rights": 0x008B})
    cr0 = register(Cr0, 32, role=RESOURCE, reset=0x00000011)
    cr2 = word(32, role=RESOURCE)
    cr3 = word(32, role=RESOURCE)
    cr4 = register(Cr4, 32, role=RESOURCE)
    dr = bank(("dr0", "dr1", "dr2", "dr3"), 32, role=RESOURCE)
    dr6 = register(Dr6, 32, role=RESOURCE, reset=0xFFFF0FF0)
    dr7 = register(Dr7, 32, role=RESOURCE, reset=0x400)
    xcr0 = word(64, role=RESOURCE, reset=1)
    pkru = word(32, role=RESOURCE)
    tsc = word(64, role=Role.TIME)
    pmc = memory(address=32, cell=64, role=RESOURCE)  # performance counters, by ECX
    msr = memory(address=32, cell=64, role=RESOURCE)  # model-specific registers, by ECX
    # What CPUID reports, EDX:ECX:EBX:EAX by ECX:EAX, but for the bits that mirror CR4.
    cpuid = memory(address=64, cell=128, role=RESOURCE)
    ports = memory(address=16, cell=8, role=RESOURCE)  # what devices show and take at each port
    halted = word(1, role=RESOURCE)
    cache_dirty = word(1, role=RESOURCE)  # the caches hold data that memory does not
    tlb_stale = word(1, role=RESOURCE)  # the TLBs hold translations that the tables no longer give
    shadow = register(Shadow, 2, role=HIDDEN)
    # What the page tables (and, at rings 1 and 2, truncated segments) keep from code above CPL 0.
    reserved = group(Pages)  # no access
    read_only = group(Pages)  # no writing
    extended = word(64)  # stands for the x87, SSE and AVX registers
    memory = memory(address=32, cell=8)

    started_at: Word  # EIP of the instruction that runs: of a working copy, no part of the state

    @property
    def cpl(self) -> Word:
        """The current privilege level, 2 bits, in every mode."""
        return self.ss.rights.dpl

    @property
    def real(self) -> Word:
        """Real-address mode: CR0.PE = 0 (width 1)."""
        return ~self.cr0.pe

    @property
    def virtual_8086(self) -> Word:
        """Virtual-8086 mode: EFLAGS.VM = 1 (width 1)."""
        return self.eflags.vm

    @property
    def protected(self) -> Word:
        """Protected mode other than virtual-8086 mode: selectors name descriptors (width 1)."""
        return self.cr0.pe & ~self.eflags.vm

    @property
    def no_execute(self) -> Word:
        """IA32_EFER.NXE: entries of PAE page tables have the XD flag (width 1)."""
        return self.msr.load(Word(32, IA32_EFER))[11]

    # -- general registers by size ------------------------------------------------------------

    def read_register(self, number: Word | int, size: int) -> Word:
        """A general register, `size` bits: 8 (AL CL DL BL AH CH DH BH), 16 or 32."""
        if size != 8:
            return self.gpr[number].truncate(size)
        if isinstance(number, int):
            number = Word(3, number)
        whole = self.gpr[number & 3]
        return ite(number[2], whole[15:8], whole[7:0])

    def write_register(self, number: Word | int, value: Word) -> None:
        """Set a general register of the value's width; the rest of the 32 bits stays."""
        if value.width == 32:
            self.gpr[number] = value
        elif value.width == 16:
            self.gpr[number] = self.gpr[number].replace(15, 0, value)
        else:
            if isinstance(number, int):
                number = Word(3, number)
            whole = self.gpr[number & 3]
            low, high = whole.replace(7, 0, value), whole.replace(15, 8, value)
            self.gpr[number & 3] = ite(number[2], high, low)


VIRTUAL_8086_RIGHTS = 0xF3  # of every segment: present, DPL 3, writable data, accessed


def invariant(cpu: Ia32) -> Word:
    """Which states exist (SDM vol. 3A, "Protected-Mode Checks"; vol. 3B, "8086 Emulation")."""
    reserved = EFLAGS_DEFINED ^ 0xFFFFFFFF
    conditions = [
        (cpu.eflags.value & reserved) == EFLAGS_FIXED,
        (cpu.cr0.value & (CR0_DEFINED ^ 0xFFFFFFFF)) == 0,
        cpu.cr0.et == 1,
        (cpu.cr4.value & (CR4_DEFINED ^ 0xFFFFFFFF)) == 0,
        debug_registers_exist(cpu),
        (cpu.xcr0[0] == 1) & ((cpu.xcr0 & XCR0_UNDEFINED) == 0) & (~cpu.xcr0[2] | cpu.xcr0[1]),
    ]
    for name in (*SEGMENT_NAMES, "ldtr", "tr"):
        conditions.append(getattr(cpu, name).rights.value[11:8] == 0)
    conditions += [null_or_local_table(cpu.ldtr), task_state(cpu.tr, (3, 11))]
    by_mode = ite(cpu.virtual_8086, _exists_in_virtual_8086_mode(cpu), exists_in_protected_mode(cpu))
    conditions.append(ite(cpu.real, exists_in_real_address_mode(cpu), by_mode))
    return all_of(conditions)


def exists_in_protected_mode(cpu: Ia32) -> Word:
    """What the segment registers hold in protected mode (width 1)."""
    cs = cpu.cs.rights
    conditions = [
        (cpu.ss.selector.rpl == cpu.cpl) & (cpu.cs.selector.rpl == cpu.cpl),
        # CS is present code whose DPL is CPL, or conforming code of a DPL up to CPL; or what it was in
        # real-address mode, until the first far transfer.
        (cs.unusable == 0)
        & (cs.p == 1)
        & (cs.s == 1)
        & ((cs.type[3] == 1) | ((cs.type == 3) & (cpu.cpl == 0))),
        ite(cs.type[3] & cs.type[2], cs.dpl <= cpu.cpl, cs.dpl == cpu.cpl),
        # SS is present writable data; its DPL is CPL.
        writable_data(cpu.ss),
    ]
    conditions += [null_or_readable(getattr(cpu, name)) for name in DATA_REGISTERS]
    return all_of(conditions)


def exists_in_real_address_mode(cpu: Ia32) -> Word:
    """What the segment registers hold in real-address mode (width 1).

    Their hidden parts stay as they were when CR0.PE was cleared, and loading changes nothing but the base.
    The manual (vol. 3A, "Switching Back to Real-Address Mode") wants them writable before; CS becomes so.
    """
    cs = cpu.cs.rights
    conditions = [
        (cpu.eflags.vm == 0) & (cpu.cr0.pg == 0) & (cpu.cpl == 0),
        (cs.unusable == 0) & (cs.p == 1) & (cs.s == 1) & (cs.type == 3) & (cs.dpl == 0),
    ]
    conditions += [writable_data(getattr(cpu, name)) for name in ("ss", *DATA_REGISTERS)]
    return all_of(conditions)


def _exists_in_virtual_8086_mode(cpu: Ia32) -> Word:
    """What the segment registers hold in virtual-8086 mode (width 1)."""
    segments = [getattr(cpu, name) for name in SEGMENT_NAMES]
    return all_of(
        (segment.base == real_base(segment.selector.value))
        & (segment.limit == 0xFFFF)
        & (segment.rights.value == VIRTUAL_8086_RIGHTS)
        for segment in segments
    )


def real_base(selector: Word) -> Word:
    """The base that a selector gives in real-address and virtual-8086 mode: 16 times as much (32 bits)."""
    return concat(Word(12, 0), selector, Word(4, 0))


def far_pointer(selector: Word, offset: Word) -> Word:
    """A 48-bit far pointer as it lies in memory: offset, then selector."""
    return concat(selector, offset.zero_extend(32))
