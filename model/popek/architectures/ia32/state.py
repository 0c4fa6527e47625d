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

from popek.kernel.state import Group, Register, Role, State, bank, bit, bits, group, memory, register, word
from popek.kernel.words import Word, all_of, concat, ite

from .exceptions import AC as AC
from .exceptions import BP as BP
from .exceptions import BR as BR
from .exceptions import DB as DB
from .exceptions import DE as DE
from .exceptions import GP as GP
from .exceptions import NM as NM
from .exceptions import NP as NP
from .exceptions import OF as OF
from .exceptions import PF as PF
from .exceptions import SS as SS
from .exceptions import TS as TS
from .exceptions import UD as UD
from .exceptions import VECTORS as VECTORS
from .interception import Interception
from .msrs import IA32_EFER
from .paging import Translation

RESOURCE, MODE, HIDDEN, GENERAL = Role.RESOURCE, Role.MODE, Role.HIDDEN, Role.GENERAL

GPR_NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENT_NAMES = ("es", "cs", "ss", "ds", "fs", "gs")  # in the order of their encoding
ES, CS, SS_, DS, FS, GS = range(6)
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)

EFLAGS_FIXED = 0x00000002  # bit 1 reads 1
EFLAGS_DEFINED = 0x003F7FD5  # the flags; every other bit reads 0 (bit 1 aside)
XCR0_UNDEFINED = 0xFFFFFFFFFFFFFFF8  # the model has x87, SSE and AVX state


class Eflags(Register):
    """EFLAGS (SDM vol. 1, "EFLAGS Register")."""

    cf = bit(0)
    pf = bit(2)
    af = bit(4)
    zf = bit(6)
    sf = bit(7)
    tf = bit(8)
    if_ = bit(9, role=RESOURCE)
    df = bit(10)
    of = bit(11)
    iopl = bits(13, 12, role=RESOURCE)
    nt = bit(14)
    rf = bit(16)
    vm = bit(17, role=MODE)
    ac = bit(18)
    vif = bit(19, role=RESOURCE)
    vip = bit(20, role=RESOURCE)
    id = bit(21)


class Cr0(Register):
    """CR0 (SDM vol. 3A, "Control Registers")."""

    pe = bit(0)
    mp = bit(1)
    em = bit(2)
    ts = bit(3)
    et = bit(4)
    ne = bit(5)
    wp = bit(16)
    am = bit(18)
    nw = bit(29)
    cd = bit(30)
    pg = bit(31)


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
    smxe = bit(14)
    osxsave = bit(18)
    smep = bit(20)
    smap = bit(21)
    pke = bit(22)


CR0_DEFINED = 0xE005003F
CR4_DEFINED = 0x00746FFF
CR4_VMXE, CR4_SMXE, CR4_PKE = 1 << 13, 1 << 14, 1 << 22


class Dr6(Register):
    """DR6 (SDM vol. 3B, "Debug Status Register")."""

    b = bits(3, 0)
    bd = bit(13)
    bs = bit(14)
    bt = bit(15)


class Dr7(Register):
    """DR7 (SDM vol. 3B, "Debug Control Register")."""

    enables = bits(9, 0)
    gd = bit(13)
    conditions = bits(31, 16)


class Selector(Register):
    """A segment selector."""

    rpl = bits(1, 0)
    ti = bit(2)
    index = bits(15, 3)


class Rights(Register):
    """Access rights of a loaded segment."""

    type = bits(3, 0)
    s = bit(4)
    dpl = bits(6, 5)
    p = bit(7)
    avl = bit(12)
    l = bit(13)  # noqa: E741 - the manual's name
    db = bit(14)
    g = bit(15)
    unusable = bit(16)


class Segment(Group):
    """A segment register: the visible selector and the hidden descriptor cache."""

    selector = register(Selector, 16, role=RESOURCE)
    base = word(32, role=HIDDEN)
    limit = word(32, role=HIDDEN, reset=0xFFFFFFFF)
    rights = register(Rights, 17, role=HIDDEN, reset=0xC093)


class TableRegister(Group):
    """GDTR and IDTR: base and 16-bit limit."""

    base = word(32, role=RESOURCE)
    limit = word(16, role=RESOURCE)


class Pages(Group):
    """A range of linear addresses: `size` bytes from `base`; empty when size is 0."""

    base = word(32, role=HIDDEN)
    size = word(32, role=HIDDEN)


class Shadow(Register):
    """Events held off until the next instruction has run."""

    sti = bit(0)
    mov_ss = bit(1)


_CPL_BEARING = {"selector.rpl": MODE, "rights.dpl": MODE}
_SYSTEM = {"base": RESOURCE, "limit": RESOURCE, "rights": RESOURCE}


class Ia32(State):
    """The processor, its linear memory and its ports."""

    interception: ClassVar[Interception] = Interception()
    translation: ClassVar[Translation] = Translation()

    gpr = bank(GPR_NAMES, 32, resets={"esp": 0x8000})
    eip = word(32, role=Role.PC, reset=0x1000)
    eflags = register(Eflags, 32, reset=EFLAGS_FIXED)
    es = group(Segment, resets={"selector": 0x10})
    cs = group(Segment, roles=_CPL_BEARING, resets={"selector": 0x08, "rights": 0xC09B})
    ss = group(Segment, roles=_CPL_BEARING, resets={"selector": 0x10})
    ds = group(Segment, resets={"selector": 0x10})
    fs = group(Segment, resets={"selector": 0x10})
    gs = group(Segment, resets={"selector": 0x10})
    gdtr = group(TableRegister, resets={"limit": 0xFFFF})
    idtr = group(TableRegister, resets={"limit": 0x7FF})
    ldtr = group(Segment, roles=_SYSTEM, resets={"limit": 0, "rights": 0x10000})
    tr = group(Segment, roles=_SYSTEM, resets={"selector": 0x18, "limit": 0x67, "rights": 0x008B})
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

    def segment(self, number: Word | int) -> Segment:
        """A segment register by its encoding: ES CS SS DS FS GS."""
        if isinstance(number, int) or number.concrete:
            return Segment(self, (SEGMENT_NAMES[int(number)],))
        return Segment(self, SEGMENT_NAMES, number)

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
_DATA_REGISTERS = ("es", "ds", "fs", "gs")


def invariant(cpu: Ia32) -> Word:
    """Which states exist (SDM vol. 3A, "Protected-Mode Checks"; vol. 3B, "8086 Emulation")."""
    reserved = EFLAGS_DEFINED ^ 0xFFFFFFFF
    conditions = [
        (cpu.eflags.value & reserved) == EFLAGS_FIXED,
        (cpu.cr0.value & (CR0_DEFINED ^ 0xFFFFFFFF)) == 0,
        cpu.cr0.et == 1,
        (cpu.cr4.value & (CR4_DEFINED ^ 0xFFFFFFFF)) == 0,
        (cpu.xcr0[0] == 1) & ((cpu.xcr0 & XCR0_UNDEFINED) == 0) & (~cpu.xcr0[2] | cpu.xcr0[1]),
    ]
    for name in (*SEGMENT_NAMES, "ldtr", "tr"):
        conditions.append(getattr(cpu, name).rights.value[11:8] == 0)
    ldtr, tr = cpu.ldtr.rights, cpu.tr.rights
    conditions.append((ldtr.unusable == 1) | ((ldtr.p == 1) & (ldtr.s == 0) & (ldtr.type == 2)))
    conditions.append((tr.unusable == 0) & (tr.p == 1) & (tr.s == 0) & tr.type.isin((3, 11)))
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
        _writable_data(cpu.ss),
    ]
    for name in _DATA_REGISTERS:
        rights = getattr(cpu, name).rights
        code_unreadable = (rights.type[3] == 1) & (rights.type[1] == 0)
        conditions.append((rights.unusable == 1) | ((rights.p == 1) & (rights.s == 1) & ~code_unreadable))
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
    conditions += [_writable_data(getattr(cpu, name)) for name in ("ss", *_DATA_REGISTERS)]
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


def _writable_data(segment: Segment) -> Word:
    rights = segment.rights
    present = (rights.unusable == 0) & (rights.p == 1) & (rights.s == 1)
    return present & (rights.type[3] == 0) & (rights.type[1] == 1)


def real_base(selector: Word) -> Word:
    """The base that a selector gives in real-address and virtual-8086 mode: 16 times as much (32 bits)."""
    return concat(Word(12, 0), selector, Word(4, 0))


def far_pointer(selector: Word, offset: Word) -> Word:
    """A 48-bit far pointer as it lies in memory: offset, then selector."""
    return concat(selector, offset.zero_extend(32))
