"""Machine-level CSRs (privileged manual, "Machine-Level ISA", "Smstateen", "Sstc")."""

from __future__ import annotations

from popek.kernel.words import Word, concat, ite

from .csrs import (
    Csr,
    constant,
    exception_pc,
    ignoring,
    legal_xl,
    stored,
    storing,
    vector_status,
    with_h,
    with_sd,
)
from .exceptions import MEDELEG_BITS, WITH_H_ALONE
from .state import (
    MANUAL,
    PMP_ENTRIES,
    RESERVED_MODE,
    SXL_BITS,
    UXL_BITS,
    XL_32,
    XL_64,
    XLEN,
    Rv64,
)

CHAPTER = f"{MANUAL}, Machine-Level ISA"
STATUS_BITS = 0x7E79AA
"""SIE MIE SPIE MPIE SPP MPP FS MPRV SUM MXR TVM TW TSR; with H also GVA and MPV."""
MIE_BITS, MIE_BITS_WITHOUT_H = 0x1EEE, 0x0AAA
MIDELEG_BITS, ALWAYS_DELEGATED = 0x222, 0x1444
_WITHOUT_H = MEDELEG_BITS & ~WITH_H_ALONE
TVEC_BITS = ~2 & (1 << XLEN) - 1
EPC_BITS = ~1 & (1 << XLEN) - 1
COUNTER_BITS = 0xFFFFFFFF


def _read_mstatus(cpu: Rv64) -> Word:
    return with_sd(cpu, cpu.mstatus.value, cpu.mstatus.fs, cpu.mstatus.vs)


def _write_mstatus(cpu: Rv64, value: Word) -> None:
    """MPP = 2 is no mode and becomes U; GVA and MPV need the hypervisor extension; U is not wider than S."""
    mpp = ite(value[12:11] == RESERVED_MODE, Word(2, 0), value[12:11])
    mask = ite(cpu.misa.h, Word(XLEN, STATUS_BITS | 3 << 38), Word(XLEN, STATUS_BITS)) | vector_status(cpu)
    old = cpu.mstatus
    sxl = legal_xl(cpu.features.sxl32, old.sxl, value[35:34])
    uxl = legal_xl(cpu.features.uxl32, ite(old.sxl == XL_32, Word(2, XL_64), old.uxl), value[33:32])
    uxl = ite(sxl == XL_32, Word(2, XL_32), uxl)
    legal = value.replace(12, 11, mpp).replace(33, 32, uxl).replace(35, 34, sxl)
    mask = mask | UXL_BITS | SXL_BITS
    cpu.mstatus = (old.value & ~mask) | (legal & mask)


def _write_misa(cpu: Rv64, value: Word) -> None:
    """D goes with F.  All is left as it is where IALIGN would become 32 and the next instruction is misaligned.

    Without H there is no MPV and no GVA.
    """
    writable = cpu.changeable.value.zero_extend(XLEN)
    new = (cpu.misa.value & ~writable) | (value & writable)
    new = new.replace(3, 3, new[3] & new[5])
    suppressed = cpu.misa.c & ~new[2] & cpu.pc[1]
    cpu.misa = ite(suppressed, cpu.misa.value, new)
    cpu.mstatus.mpv, cpu.mstatus.gva = cpu.mstatus.mpv & cpu.misa.h, cpu.mstatus.gva & cpu.misa.h


def _read_misa(cpu: Rv64) -> Word:
    return cpu.misa.value.replace(3, 3, cpu.has_d)


def _write_medeleg(cpu: Rv64, value: Word) -> None:
    """Jumps to misaligned targets are no exception while there is C, and their bit is read-only 0."""
    mask = (~cpu.misa.c).zero_extend(XLEN) | ite(cpu.misa.h, Word(XLEN, MEDELEG_BITS), Word(XLEN, _WITHOUT_H))
    cpu.medeleg = (cpu.medeleg.value & WITH_H_ALONE & ~mask) | (value & mask)


def _read_medeleg(cpu: Rv64) -> Word:
    """The exceptions of guests are there with H alone."""
    return cpu.medeleg.value & ite(cpu.misa.h, ~Word(XLEN, 0), ~Word(XLEN, WITH_H_ALONE))


def _read_mideleg(cpu: Rv64) -> Word:
    """The interrupts of guests are always delegated where there is H."""
    return cpu.mideleg.value & ite(cpu.misa.h, Word(XLEN, 0x1666), Word(XLEN, MIDELEG_BITS))


def _read_mie(cpu: Rv64) -> Word:
    return cpu.mie.value & ite(cpu.misa.h, Word(XLEN, MIE_BITS), Word(XLEN, MIE_BITS_WITHOUT_H))


def _write_mie(cpu: Rv64, value: Word) -> None:
    mask = ite(cpu.misa.h, Word(XLEN, MIE_BITS), Word(XLEN, MIE_BITS_WITHOUT_H))
    cpu.mie = (cpu.mie.value & ~mask) | (value & mask)


def _read_mip(cpu: Rv64) -> Word:
    return cpu.pending()


def _modify_mip(cpu: Rv64) -> Word:
    return cpu.pending(line=False)


def _write_mip(cpu: Rv64, value: Word) -> None:
    """SSIP, SEIP, with H VSSIP; STIP unless stimecmp decides it."""
    cpu.mip.ssi, cpu.mip.sei = value[1], value[9]
    cpu.mip.sti = ite(cpu.features.sstc & cpu.menvcfg.stce, cpu.mip.sti, value[5])
    cpu.hvip.vssi = ite(cpu.misa.h, value[2], cpu.hvip.vssi)


def _write_menvcfg(cpu: Rv64, value: Word) -> None:
    cpu.menvcfg.fiom = value[0]
    cpu.menvcfg.stce = ite(cpu.features.sstc, value[63], cpu.menvcfg.stce)


def _with_smstateen(cpu: Rv64) -> Word:
    return cpu.features.smstateen


def _write_pmpcfg(cpu: Rv64, value: Word) -> None:
    """Locked entries keep their value; W without R is reserved and loses W ("Physical Memory Protection CSRs")."""
    old, entries = cpu.pmpcfg0.value, []
    for entry in range(PMP_ENTRIES):
        before, after = old[8 * entry + 7 : 8 * entry], value[8 * entry + 7 : 8 * entry]
        legal = concat(after[7], Word(2, 0), after[4:2], after[1] & after[0], after[0])
        entries.append(ite(before[7], before, legal))
    cpu.pmpcfg0 = concat(Word(XLEN - 8 * PMP_ENTRIES, 0), *reversed(entries))


def _pmpaddr(number: int) -> Csr:
    name = f"pmpaddr{number}"

    def write(cpu: Rv64, value: Word) -> None:
        config = cpu.pmpcfg0.value
        locked = config[8 * number + 7]
        if number + 1 < PMP_ENTRIES:  # the bottom of the range of a locked entry is locked, too
            after = config[8 * number + 15 : 8 * number + 8]
            locked = locked | (after[7] & (after[4:3] == 1))
        cpu[name] = ite(locked, cpu[name], value.truncate(54))

    return Csr(name, 0x3B0 + number, stored(name), write, CHAPTER)


def machine_csrs() -> tuple[Csr, ...]:
    """The CSRs of M mode."""

    def plain(name: str, number: int, mask: int = (1 << XLEN) - 1) -> Csr:
        return Csr(name, number, stored(name), storing(name, mask), CHAPTER)

    def fixed(name: str, number: int, value: int = 0) -> Csr:
        return Csr(name, number, constant(value), ignoring, CHAPTER)

    def guests(name: str, number: int) -> Csr:
        return Csr(name, number, stored(name), storing(name), CHAPTER, exists=with_h)

    return (
        fixed("mvendorid", 0xF11),
        fixed("marchid", 0xF12, 5),
        fixed("mimpid", 0xF13),
        fixed("mhartid", 0xF14),
        fixed("mconfigptr", 0xF15),
        Csr("mstatus", 0x300, _read_mstatus, _write_mstatus, CHAPTER),
        Csr("misa", 0x301, _read_misa, _write_misa, CHAPTER),
        Csr("medeleg", 0x302, _read_medeleg, _write_medeleg, CHAPTER),
        Csr("mideleg", 0x303, _read_mideleg, storing("mideleg", MIDELEG_BITS), CHAPTER),
        Csr("mie", 0x304, _read_mie, _write_mie, CHAPTER),
        plain("mtvec", 0x305, TVEC_BITS),
        plain("mcounteren", 0x306, COUNTER_BITS),
        Csr("menvcfg", 0x30A, stored("menvcfg"), _write_menvcfg, CHAPTER),
        Csr(
            "mstateen0",
            0x30C,
            stored("mstateen0"),
            storing("mstateen0", 3 << 62),
            f"{MANUAL}, Smstateen",
            exists=_with_smstateen,
        ),
        plain("mcountinhibit", 0x320, COUNTER_BITS & ~2),
        fixed("mhpmevent3", 0x323),
        plain("mscratch", 0x340),
        Csr("mepc", 0x341, exception_pc("mepc"), storing("mepc", EPC_BITS), CHAPTER),
        plain("mcause", 0x342),
        plain("mtval", 0x343),
        Csr("mip", 0x344, _read_mip, _write_mip, CHAPTER, modified=_modify_mip),
        guests("mtinst", 0x34A),
        guests("mtval2", 0x34B),
        Csr("pmpcfg0", 0x3A0, stored("pmpcfg0"), _write_pmpcfg, CHAPTER),
        *(_pmpaddr(number) for number in range(PMP_ENTRIES)),
        plain("mcycle", 0xB00),
        plain("minstret", 0xB02),
        plain("mhpmcounter3", 0xB03),
    )
