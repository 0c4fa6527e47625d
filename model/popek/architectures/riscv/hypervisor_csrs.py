"""Hypervisor and virtual-supervisor CSRs (privileged manual, "H" Extension for Hypervisor Support)."""

from __future__ import annotations

from collections.abc import Callable

from popek.kernel.words import Word, concat, ite

from .csrs import (
    Condition,
    Csr,
    constant,
    exception_pc,
    ignoring,
    implemented,
    in_hs,
    is_supported,
    legal_xl,
    never,
    store_translation,
    stored,
    storing,
    vector_status,
    with_h,
    with_sd,
)
from .exceptions import HEDELEG_BITS
from .machine_csrs import COUNTER_BITS, EPC_BITS, TVEC_BITS
from .state import MANUAL, UXL_BITS, VMID_BITS, XLEN, Rv64

CHAPTER = f'{MANUAL}, "H" Extension for Hypervisor Support'
HSTATUS_BITS = 0x7003C0
"""GVA SPV SPVP HU VTVM VTW VTSR."""
GUEST_INTERRUPTS, WITH_EXTERNAL = 0x444, 0x1444
SSTATUS_BITS = 0xC6122


def _read_vsstatus(cpu: Rv64) -> Word:
    return with_sd(cpu, cpu.vsstatus.value, cpu.vsstatus.fs, cpu.vsstatus.vs)


def _write_vsstatus(cpu: Rv64, value: Word) -> None:
    uxl = legal_xl(cpu.features.uxl32, cpu.vsstatus.uxl, value[33:32])
    mask = Word(XLEN, SSTATUS_BITS | UXL_BITS) | vector_status(cpu)
    cpu.vsstatus = (cpu.vsstatus.value & ~mask) | (value.replace(33, 32, uxl) & mask)


def _write_hstatus(cpu: Rv64, value: Word) -> None:
    vsxl = legal_xl(cpu.features.sxl32, cpu.hstatus.vsxl, value[33:32])
    kept = cpu.hstatus.value & ~Word(XLEN, HSTATUS_BITS | UXL_BITS)
    cpu.hstatus = kept | (value.replace(33, 32, vsxl) & (HSTATUS_BITS | UXL_BITS))


def _delegated(cpu: Rv64) -> Word:
    return cpu.hideleg.value & GUEST_INTERRUPTS


def _shifted(value: Word) -> Word:
    """VS interrupts stand one place lower where the guest looks for them."""
    return value >> 1


def _read_vsie(cpu: Rv64) -> Word:
    return _shifted(cpu.mie.value & _delegated(cpu))


def _write_vsie(cpu: Rv64, value: Word) -> None:
    mask = _delegated(cpu)
    cpu.mie = (cpu.mie.value & ~mask) | ((value << 1) & mask)


def _read_vsip(cpu: Rv64) -> Word:
    return _shifted(cpu.pending() & _delegated(cpu))


def _write_vsip(cpu: Rv64, value: Word) -> None:
    """SSIP alone, and only where it is delegated."""
    cpu.hvip.vssi = ite(cpu.hideleg.vssi, value[1], cpu.hvip.vssi)


def _read_hie(cpu: Rv64) -> Word:
    return cpu.mie.value & WITH_EXTERNAL


def _read_hip(cpu: Rv64) -> Word:
    return cpu.pending() & WITH_EXTERNAL


def _write_hip(cpu: Rv64, value: Word) -> None:
    cpu.hvip.vssi = value[2]


def _read_henvcfg(cpu: Rv64) -> Word:
    """STCE reads as 0 while menvcfg.STCE is 0."""
    return cpu.henvcfg.value.replace(63, 63, cpu.henvcfg.stce & cpu.menvcfg.stce)


def _write_henvcfg(cpu: Rv64, value: Word) -> None:
    cpu.henvcfg.fiom = value[0]
    cpu.henvcfg.stce = ite(cpu.features.sstc & cpu.menvcfg.stce, value[63], cpu.henvcfg.stce)


def _read_hstateen0(cpu: Rv64) -> Word:
    return cpu.hstateen0.value & cpu.mstateen0.value


def _write_hstateen0(cpu: Rv64, value: Word) -> None:
    """A bit that is 0 in mstateen0 is read-only 0 here."""
    mask = cpu.mstateen0.value & (3 << 62)
    cpu.hstateen0 = (cpu.hstateen0.value & ~mask) | (value & mask)


def _write_hgatp(cpu: Rv64, value: Word) -> None:
    """An unsupported MODE leaves the MODE field alone; PPN is a multiple of 4."""
    mode = ite(is_supported(cpu, value[63:60]), value[63:60], cpu.hgatp.mode)
    vmid = value[57:44] & implemented(cpu.features.vmidlen, VMID_BITS)
    cpu.hgatp = concat(mode, Word(2, 0), vmid, value[43:2], Word(2, 0))


def _write_vsatp(cpu: Rv64, value: Word) -> None:
    store_translation(cpu, cpu.vsatp, value, whole=False)


def _trapped(cpu: Rv64) -> Word:
    """mstatus.TVM keeps hgatp from HS."""
    return in_hs(cpu) & cpu.mstatus.tvm


def _environment_closed(cpu: Rv64) -> Word:
    return cpu.features.smstateen & ~cpu.mstateen0.envcfg


def _state_closed(cpu: Rv64) -> Word:
    return cpu.features.smstateen & ~cpu.mstateen0.se0


def _timer_closed(cpu: Rv64) -> Word:
    return ~cpu.menvcfg.stce | ~cpu.mcounteren.tm


def _with_stateen(cpu: Rv64) -> Word:
    return cpu.misa.h & cpu.features.smstateen


def _with_timer(cpu: Rv64) -> Word:
    return cpu.misa.h & cpu.features.sstc


def hypervisor_csrs() -> tuple[Csr, ...]:
    """The CSRs with which HS governs its guests."""

    def csr(
        name: str,
        number: int,
        read: Callable[[Rv64], Word] | None = None,
        write: Callable[[Rv64, Word], None] | None = None,
        *,
        closed: Condition = never,
        closed_below_m: Condition = never,
        exists: Condition = with_h,
    ) -> Csr:
        return Csr(
            name,
            number,
            read or stored(name),
            write or storing(name),
            CHAPTER,
            exists=exists,
            closed=closed,
            closed_below_m=closed_below_m,
        )

    return (
        csr("hstatus", 0x600, write=_write_hstatus),
        csr("hedeleg", 0x602, write=storing("hedeleg", HEDELEG_BITS)),
        csr("hideleg", 0x603, write=storing("hideleg", GUEST_INTERRUPTS)),
        csr("hie", 0x604, _read_hie, storing("mie", WITH_EXTERNAL)),
        csr("htimedelta", 0x605),
        csr("hcounteren", 0x606, write=storing("hcounteren", COUNTER_BITS)),
        csr("hgeie", 0x607, constant(0), ignoring),
        csr("henvcfg", 0x60A, _read_henvcfg, _write_henvcfg, closed_below_m=_environment_closed),
        csr(
            "hstateen0",
            0x60C,
            _read_hstateen0,
            _write_hstateen0,
            closed_below_m=_state_closed,
            exists=_with_stateen,
        ),
        csr("htval", 0x643),
        csr("hip", 0x644, _read_hip, _write_hip),
        csr("hvip", 0x645, write=storing("hvip", GUEST_INTERRUPTS)),
        csr("htinst", 0x64A),
        csr("hgatp", 0x680, write=_write_hgatp, closed=_trapped),
        csr("hgeip", 0xE12, constant(0), ignoring),
    )


def guest_csrs() -> tuple[Csr, ...]:
    """The VS CSRs: what S CSRs are to a guest, under numbers of their own."""

    def csr(
        name: str,
        number: int,
        read: Callable[[Rv64], Word] | None = None,
        write: Callable[[Rv64, Word], None] | None = None,
        mask: int = (1 << XLEN) - 1,
    ) -> Csr:
        return Csr(name, number, read or stored(name), write or storing(name, mask), CHAPTER, exists=with_h)

    timer = Csr(
        "vstimecmp",
        0x24D,
        stored("vstimecmp"),
        storing("vstimecmp"),
        f"{MANUAL}, Sstc",
        exists=_with_timer,
        closed_below_m=_timer_closed,
    )
    return (
        csr("vsstatus", 0x200, _read_vsstatus, _write_vsstatus),
        csr("vsie", 0x204, _read_vsie, _write_vsie),
        csr("vstvec", 0x205, mask=TVEC_BITS),
        csr("vsscratch", 0x240),
        csr("vsepc", 0x241, exception_pc("vsepc"), mask=EPC_BITS),
        csr("vscause", 0x242),
        csr("vstval", 0x243),
        csr("vsip", 0x244, _read_vsip, _write_vsip),
        timer,
        csr("vsatp", 0x280, write=_write_vsatp),
    )
