"""Supervisor-level CSRs (privileged manual, "Supervisor-Level ISA", "Smstateen", "Sstc")."""

from __future__ import annotations

from collections.abc import Callable

from popek.kernel.words import Word, ite

from .csrs import (
    Condition,
    Csr,
    constant,
    exception_pc,
    ignoring,
    in_hs,
    legal_xl,
    store_translation,
    stored,
    storing,
    vector_status,
    with_sd,
)
from .hypervisor_csrs import guest_csrs
from .machine_csrs import COUNTER_BITS, EPC_BITS, TVEC_BITS
from .state import MANUAL, SUPERVISOR, UXL_BITS, VS_BITS, XLEN, Rv64

CHAPTER = f"{MANUAL}, Supervisor-Level ISA"
SSTATUS_BITS = 0xC6122
"""SIE SPIE SPP FS SUM MXR, which can be written."""
INTERRUPTS = 0x222


def _read_sstatus(cpu: Rv64) -> Word:
    shown = cpu.mstatus.value & (SSTATUS_BITS | UXL_BITS | VS_BITS)
    return with_sd(cpu, shown, cpu.mstatus.fs, cpu.mstatus.vs)


def _write_sstatus(cpu: Rv64, value: Word) -> None:
    uxl = legal_xl(cpu.features.uxl32, cpu.mstatus.uxl, value[33:32])
    mask = Word(XLEN, SSTATUS_BITS | UXL_BITS) | vector_status(cpu)
    cpu.mstatus = (cpu.mstatus.value & ~mask) | (value.replace(33, 32, uxl) & mask)


def _read_sie(cpu: Rv64) -> Word:
    return cpu.mie.value & cpu.mideleg.value & INTERRUPTS


def _write_sie(cpu: Rv64, value: Word) -> None:
    mask = cpu.mideleg.value & INTERRUPTS
    cpu.mie = (cpu.mie.value & ~mask) | (value & mask)


def _read_sip(cpu: Rv64) -> Word:
    return cpu.pending() & cpu.mideleg.value & INTERRUPTS


def _write_sip(cpu: Rv64, value: Word) -> None:
    """SSIP alone, and only where it is delegated."""
    cpu.mip.ssi = ite(cpu.mideleg.ssi, value[1], cpu.mip.ssi)


def _write_satp(cpu: Rv64, value: Word) -> None:
    store_translation(cpu, cpu.satp, value, whole=True)


def _write_vsatp(cpu: Rv64, value: Word) -> None:
    """As vsatp is written under the name of satp: an unsupported MODE and the whole write is ignored."""
    store_translation(cpu, cpu.vsatp, value, whole=True)


def _trapped(cpu: Rv64) -> Word:
    """mstatus.TVM keeps satp from HS."""
    return in_hs(cpu) & cpu.mstatus.tvm


def _trapped_guest(cpu: Rv64) -> Word:
    """hstatus.VTVM keeps satp from VS."""
    return (cpu.prv == SUPERVISOR) & cpu.hstatus.vtvm


def _write_senvcfg(cpu: Rv64, value: Word) -> None:
    cpu.senvcfg.fiom = value[0]


def stateen_closed(field: str) -> tuple[Condition, Condition]:
    """What a bit of mstateen0, and a bit of hstateen0, closes."""

    def below_m(cpu: Rv64) -> Word:
        return cpu.features.smstateen & ~cpu[f"mstateen0.{field}"]

    def to_guests(cpu: Rv64) -> Word:
        return cpu.features.smstateen & ~cpu[f"hstateen0.{field}"]

    return below_m, to_guests


def timer_closed(cpu: Rv64) -> Word:
    """M has not opened stimecmp."""
    return ~cpu.menvcfg.stce | ~cpu.mcounteren.tm


def _guest_timer_closed(cpu: Rv64) -> Word:
    return ~cpu.henvcfg.stce | ~cpu.hcounteren.tm


def with_sstc(cpu: Rv64) -> Word:
    """stimecmp is there."""
    return cpu.features.sstc


def supervisor_csrs() -> tuple[Csr, ...]:
    """The CSRs of S mode; those with a VS copy know it."""
    guest = {csr.name: csr for csr in guest_csrs()}

    def plain(name: str, number: int, mask: int = (1 << XLEN) - 1) -> Csr:
        return Csr(name, number, stored(name), storing(name, mask), CHAPTER, guest=guest[f"v{name}"])

    def view(
        name: str, number: int, read: Callable[[Rv64], Word], write: Callable[[Rv64, Word], None]
    ) -> Csr:
        return Csr(name, number, read, write, CHAPTER, guest=guest[f"v{name}"])

    environment, guest_environment = stateen_closed("envcfg")
    se0, guest_se0 = stateen_closed("se0")
    vsatp = Csr("vsatp", 0x280, stored("vsatp"), _write_vsatp, CHAPTER)
    return (
        view("sstatus", 0x100, _read_sstatus, _write_sstatus),
        view("sie", 0x104, _read_sie, _write_sie),
        plain("stvec", 0x105, TVEC_BITS),
        Csr("scounteren", 0x106, stored("scounteren"), storing("scounteren", COUNTER_BITS), CHAPTER),
        Csr(
            "senvcfg",
            0x10A,
            stored("senvcfg"),
            _write_senvcfg,
            CHAPTER,
            closed_below_m=environment,
            closed_to_guests=guest_environment,
        ),
        Csr(
            "sstateen0",
            0x10C,
            constant(0),
            ignoring,
            f"{MANUAL}, Smstateen",
            exists=lambda cpu: cpu.features.smstateen,
            closed_below_m=se0,
            closed_to_guests=guest_se0,
        ),
        plain("sscratch", 0x140),
        Csr("sepc", 0x141, exception_pc("sepc"), storing("sepc", EPC_BITS), CHAPTER, guest=guest["vsepc"]),
        plain("scause", 0x142),
        plain("stval", 0x143),
        view("sip", 0x144, _read_sip, _write_sip),
        Csr(
            "stimecmp",
            0x14D,
            stored("stimecmp"),
            storing("stimecmp"),
            f"{MANUAL}, Sstc",
            exists=with_sstc,
            closed_below_m=timer_closed,
            closed_to_guests=_guest_timer_closed,
            guest=guest["vstimecmp"],
        ),
        Csr(
            "satp",
            0x180,
            stored("satp"),
            _write_satp,
            CHAPTER,
            closed=_trapped,
            closed_to_guests=_trapped_guest,
            guest=vsatp,
        ),
    )
