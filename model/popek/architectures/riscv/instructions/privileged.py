"""Returns, WFI, and fences of translation (privileged manual, "Machine-Mode Privileged Instructions", "Svinval").

Translations that are kept in a cache are no state here: a fence that completes changes nothing.
"""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ..csrs import in_hs
from ..exceptions import ILLEGAL, VIRTUAL
from ..state import MACHINE, MANUAL, SUPERVISOR, USER, Rv64
from ..traps import return_from_hs, return_from_m, return_from_vs

SUPERVISOR_CHAPTER = f"{MANUAL}, Supervisor-Level ISA"
SVINVAL = f"{MANUAL}, Svinval"


def add(machine: Machine[Rv64]) -> None:
    """Declare them."""
    _returns(machine)
    _wait(machine)
    _fences(machine)


def _returns(machine: Machine[Rv64]) -> None:
    @machine.instruction("MRET", source=f"{MANUAL}, Trap-Return Instructions")
    def mret(cpu: Rv64) -> None:
        """Return from M; below it illegal, for a guest too."""
        if cpu.prv != MACHINE:
            raise Fault(ILLEGAL)
        return_from_m(cpu)

    @machine.instruction("SRET", source=f"{MANUAL}, Trap-Return Instructions; H, Trap Return")
    def sret(cpu: Rv64) -> None:
        """Return from S; TSR traps it in HS, VTSR in VS."""
        if in_hs(cpu) & cpu.mstatus.tsr | ~cpu.v & (cpu.prv == USER):
            raise Fault(ILLEGAL)
        if cpu.v & ((cpu.prv == USER) | cpu.hstatus.vtsr):
            raise Fault(VIRTUAL)
        if cpu.v:
            return_from_vs(cpu)
        else:
            return_from_hs(cpu)


def _wait(machine: Machine[Rv64]) -> None:
    @machine.instruction("WFI", source=f"{MANUAL}, Wait for Interrupt; mstatus.TW; hstatus.VTW")
    def wfi(cpu: Rv64) -> None:
        """Wait for an interrupt, which is over at once.

        Where it may wait for a bounded time only, it is illegal or virtual, unless it completes within that time.
        """
        waits = ~cpu.features.wfi_completes
        below = cpu.prv != MACHINE
        if waits & below & (cpu.mstatus.tw | (~cpu.v & (cpu.prv == USER))):
            raise Fault(ILLEGAL)
        # In VU there is no time to complete within.
        if cpu.v & ((~cpu.mstatus.tw & (cpu.prv == USER)) | (waits & cpu.hstatus.vtw)):
            raise Fault(VIRTUAL)


def _fences(machine: Machine[Rv64]) -> None:
    def translation(cpu: Rv64, rs1: Word, rs2: Word) -> None:
        """Order updates of page tables; TVM traps it in HS, VTVM in VS."""
        fence(cpu, trapped=cpu.mstatus.tvm, trapped_guest=cpu.hstatus.vtvm)

    def invalidation(cpu: Rv64, rs1: Word, rs2: Word) -> None:
        """As SFENCE.VMA, in a sequence."""
        needs_svinval(cpu)
        fence(cpu, trapped=cpu.mstatus.tvm, trapped_guest=cpu.hstatus.vtvm)

    def bracket(cpu: Rv64) -> None:
        """Begin or end a sequence of invalidations; neither TVM nor VTVM has a say."""
        needs_svinval(cpu)
        off = Word(1, 0)
        fence(cpu, trapped=off, trapped_guest=off)

    machine.instruction("SFENCE.VMA rs1, rs2", source=SUPERVISOR_CHAPTER)(translation)
    machine.instruction("SINVAL.VMA rs1, rs2", source=SVINVAL)(invalidation)
    machine.instruction("SFENCE.W.INVAL", "SFENCE.INVAL.IR", source=SVINVAL)(bracket)


def needs_svinval(cpu: Rv64) -> None:
    """Without Svinval its instructions are illegal."""
    if ~cpu.features.svinval:
        raise Fault(ILLEGAL)


def fence(cpu: Rv64, *, trapped: Word, trapped_guest: Word) -> None:
    """For S and M; a guest's user gets a virtual-instruction exception."""
    if (in_hs(cpu) & trapped) | (~cpu.v & (cpu.prv == USER)):
        raise Fault(ILLEGAL)
    if cpu.v & ((cpu.prv == USER) | ((cpu.prv == SUPERVISOR) & trapped_guest)):
        raise Fault(VIRTUAL)
