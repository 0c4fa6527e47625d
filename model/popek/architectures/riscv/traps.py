"""Traps: where an exception goes, and what entry and return do (privileged manual, "Trap Entry", "Trap Return")."""

from __future__ import annotations

from typing import Final

import attrs

from popek.kernel.outcome import NotModelledError, Trap
from popek.kernel.words import FALSE, TRUE, Word, concat, ite

from .csrs import aligned
from .exceptions import GUEST_PAGE_FAULTS, OF_A_GUEST, ON_STORAGE
from .state import MACHINE, SUPERVISOR, USER, XL_32, XLEN, Rv64

TO_M, TO_HS, TO_VS = 0, 1, 2
ZERO: Final = Word(XLEN, 0)
WITH_ADDRESS: Final = (0, 1, 3, 4, 5, 6, 7, 12, 13, 15, 20, 21, 23)


def target(cpu: Rv64, code: int) -> Word:
    """Which mode handles an exception that `cpu` raises: `TO_M`, `TO_HS` or `TO_VS` (2 bits).

    M unless it is below M and medeleg has the bit; then VS if it comes from a guest and hedeleg has the bit.
    """
    machine = (cpu.prv == MACHINE) | ~cpu.medeleg.value[code]
    guest = cpu.v & cpu.hedeleg.value[code]
    return ite(machine, Word(2, TO_M), ite(guest, Word(2, TO_VS), Word(2, TO_HS)))


def guest_address(cpu: Rv64, trap: Trap[Rv64]) -> Word:
    """Whether xtval gets a guest virtual address (width 1)."""
    code = trap.vector.number
    if trap.vector in OF_A_GUEST or code in GUEST_PAGE_FAULTS:
        return TRUE
    if code not in WITH_ADDRESS:
        return FALSE
    status = cpu.mstatus
    for_a_guest = status.mprv & status.mpv & (status.mpp != MACHINE)
    return cpu.v | (for_a_guest & int(code in ON_STORAGE))


@attrs.frozen
class Told:
    """What an entry of M or HS is told of a trap (64 bits each)."""

    cause: Word
    value: Word
    second: Word = ZERO
    instruction: Word = ZERO


def told(trap: Trap[Rv64]) -> Told:
    """xcause, xtval, xtval2 and xtinst; xtval of instructions that are not executed is 0."""
    code, given = trap.vector.number, trap.error_code
    if given is None:
        return Told(Word(XLEN, code), ZERO)
    if code in GUEST_PAGE_FAULTS:
        return Told(Word(XLEN, code), given[63:0], given[127:64], given[191:128])
    return Told(Word(XLEN, code), given)


def deliver(before: Rv64, trap: Trap[Rv64]) -> Rv64:
    """The hart after it entered the handler."""
    cpu = trap.state.copy()
    report = told(trap)
    to, gva = target(cpu, trap.vector.number), guest_address(cpu, trap)
    if to == TO_M:
        enter_m(cpu, report, gva)
    elif to == TO_HS:
        enter_hs(cpu, report, gva)
    else:
        enter_vs(cpu, report)
    return cpu


def enter_m(cpu: Rv64, report: Told, gva: Word) -> None:
    """M takes a trap."""
    h = cpu.misa.h
    cpu.mepc, cpu.mcause, cpu.mtval = cpu.pc, report.cause, report.value
    cpu.mtval2, cpu.mtinst = ite(h, report.second, cpu.mtval2), ite(h, report.instruction, cpu.mtinst)
    cpu.mstatus.mpp, cpu.mstatus.mpv = cpu.prv, ite(h, cpu.v, cpu.mstatus.mpv)
    cpu.mstatus.gva = ite(h, gva, cpu.mstatus.gva)
    cpu.mstatus.mpie, cpu.mstatus.mie = cpu.mstatus.mie, 0
    cpu.prv, cpu.v = Word(2, MACHINE), FALSE
    cpu.pc = handler(cpu.mtvec.value, report.cause)


def enter_hs(cpu: Rv64, report: Told, gva: Word) -> None:
    """HS, or S without the hypervisor extension, takes a trap."""
    h = cpu.misa.h
    cpu.sepc, cpu.scause, cpu.stval = cpu.pc, report.cause, report.value
    cpu.htval, cpu.htinst = ite(h, report.second, cpu.htval), ite(h, report.instruction, cpu.htinst)
    was_supervisor = cpu.prv[0]
    cpu.mstatus.spp = was_supervisor
    cpu.hstatus.spvp = ite(cpu.v, was_supervisor, cpu.hstatus.spvp)
    cpu.hstatus.spv = ite(h, cpu.v, cpu.hstatus.spv)
    cpu.hstatus.gva = ite(h, gva, cpu.hstatus.gva)
    cpu.mstatus.spie, cpu.mstatus.sie = cpu.mstatus.sie, 0
    cpu.prv, cpu.v = Word(2, SUPERVISOR), FALSE
    cpu.pc = handler(cpu.stvec.value, report.cause)


def enter_vs(cpu: Rv64, report: Told) -> None:
    """VS takes a trap of its own guest; hstatus and the HS CSRs stay."""
    cpu.vsepc, cpu.vscause, cpu.vstval = cpu.pc, report.cause, report.value
    cpu.vsstatus.spp = cpu.prv[0]
    cpu.vsstatus.spie, cpu.vsstatus.sie = cpu.vsstatus.sie, 0
    cpu.prv = Word(2, SUPERVISOR)
    cpu.pc = handler(cpu.vstvec.value, report.cause)


def handler(vectors: Word, cause: Word) -> Word:
    """Where a handler begins: with MODE 1 interrupts have one each."""
    base = concat(vectors[63:2], Word(2, 0))
    return ite(cause[63] & (vectors[1:0] == 1), base + (cause << 2), base)


def enter(cpu: Rv64, prv: Word, v: Word, pc: Word) -> None:
    """Go on in a mode at what an exception program counter holds.

    Raises:
        NotModelledError: S or VS has 32 bits.
    """
    narrow = (cpu.mstatus.sxl == XL_32) | (v & (cpu.hstatus.vsxl == XL_32))
    if cpu.features.sxl32 & (prv != MACHINE) & narrow:
        raise NotModelledError("S and VS of 32 bits")
    cpu.prv, cpu.v = prv, v
    cpu.pc = cpu.extended(aligned(cpu, pc))


def return_from_m(cpu: Rv64) -> None:
    """MRET; GVA stays."""
    status = cpu.mstatus
    mode = status.mpp
    enter(cpu, mode, status.mpv & (mode != MACHINE) & cpu.misa.h, cpu.mepc)
    status.mie, status.mpie = status.mpie, 1
    status.mpp, status.mpv = Word(2, USER), ite(cpu.misa.h, FALSE, status.mpv)
    status.mprv = ite(mode == MACHINE, status.mprv, FALSE)


def return_from_hs(cpu: Rv64) -> None:
    """SRET with V = 0, from M too; SPVP and GVA stay."""
    status = cpu.mstatus
    enter(cpu, status.spp.zero_extend(2), cpu.hstatus.spv & cpu.misa.h, cpu.sepc)
    status.sie, status.spie = status.spie, 1
    status.spp, status.mprv = 0, 0
    cpu.hstatus.spv = ite(cpu.misa.h, FALSE, cpu.hstatus.spv)


def return_from_vs(cpu: Rv64) -> None:
    """SRET in VS; hstatus stays."""
    status = cpu.vsstatus
    enter(cpu, status.spp.zero_extend(2), TRUE, cpu.vsepc)
    status.sie, status.spie, status.spp = status.spie, 1, 0


def interrupt_target(cpu: Rv64) -> tuple[Word, Word, Word]:
    """Whether an interrupt is taken in M, HS, VS before the next instruction (width 1 each)."""
    ready = cpu.pending() & cpu.mie.value
    deleg, guests = cpu.mideleg.value, cpu.hideleg.value
    below_m, below_hs = cpu.prv != MACHINE, cpu.v | (cpu.prv == USER)
    to_m = ((ready & ~deleg) != 0) & (below_m | cpu.mstatus.mie)
    in_s = below_m & (below_hs | cpu.mstatus.sie)
    to_hs = ((ready & deleg & ~guests) != 0) & in_s
    to_vs = ((ready & deleg & guests) != 0) & cpu.v & ((cpu.prv == USER) | cpu.vsstatus.sie)
    return to_m, to_hs & ~to_m, to_vs & ~to_hs & ~to_m
