"""Registers and their fields (Intel SDM vol. 1, "EFLAGS Register"; vol. 3A, chapter 2; vol. 3B, "Debug Registers")."""

from __future__ import annotations

from typing import Final

from popek.kernel.state import Register, Role, bit, bits

RESOURCE, MODE = Role.RESOURCE, Role.MODE

NAMES_8: Final = ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh")
NAMES_16: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
NAMES_32: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
"""The general registers that every mode has, by size in bits, in the order of their encoding."""

SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs")  # in the order of their encoding
ES, CS, SS_, DS, FS, GS = range(6)

EFLAGS_FIXED = 0x00000002  # bit 1 reads 1
EFLAGS_DEFINED = 0x003F7FD5  # the flags; every other bit reads 0 (bit 1 aside)
CR0_DEFINED = 0xE005003F
DR6_FIXED, DR6_DEFINED = 0xFFFF0FF0, 0x0000E00F  # reserved bits, of which some read 1
DR7_FIXED, DR7_DEFINED = 0x00000400, 0xFFFF23FF


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
    """CR4 (SDM vol. 3A, "Control Registers"): what every mode has."""

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
    osxsave = bit(18)
    smep = bit(20)
    smap = bit(21)
    pke = bit(22)


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
    """Access rights of a loaded segment, in the layout of a VMCS (SDM vol. 3C, "Guest Register State")."""

    type = bits(3, 0)
    s = bit(4)
    dpl = bits(6, 5)
    p = bit(7)
    avl = bit(12)
    l = bit(13)  # noqa: E741 - the manual's name
    db = bit(14)
    g = bit(15)
    unusable = bit(16)


class Shadow(Register):
    """Events held off until the next instruction has run."""

    sti = bit(0)
    mov_ss = bit(1)
