"""Register stack: cover, alloc, flushrs, loadrs, clrrrb (vol. 2, chapter 6; vol. 3).

Spills and fills of stacked registers are the RSE's own affair and not modelled; BSP moves as they would
make it move.
"""

from __future__ import annotations

from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word, concat, ite

from ..interruptions import ILLEGAL_OPERATION, check_target, intercept
from ..state import RING, Ia64

IFS_VCR = 23


def _store_address(bsp: Word, registers: Word) -> Word:
    """BSP moved on by `registers` (7 bits), with a NaT collection at every 63rd doubleword."""
    slots = bsp[8:3].zero_extend(8) + registers.zero_extend(8)
    collections = ite(slots >= 126, Word(8, 2), ite(slots >= 63, Word(8, 1), Word(8, 0)))
    return bsp + concat(Word(53, 0), registers.zero_extend(8) + collections, Word(3, 0))


def _store_address_back(bsp: Word, registers: Word) -> Word:
    """BSP moved back by `registers`."""
    distance = registers.zero_extend(8) + (62 - bsp[8:3].zero_extend(8))
    collections = ite(distance >= 126, Word(8, 2), ite(distance >= 63, Word(8, 1), Word(8, 0)))
    return bsp - concat(Word(53, 0), registers.zero_extend(8) + collections, Word(3, 0))


def grow(cpu: Ia64, registers: Word) -> None:
    """The frame begins `registers` (7 bits) further on."""
    moved = cpu.bof.zero_extend(8) + registers.zero_extend(8)
    cpu.bof = ite(moved >= RING, moved - RING, moved).truncate(7)
    cpu.ar.bsp = _store_address(cpu.ar.bsp, registers)


def shrink(cpu: Ia64, registers: Word) -> None:
    """The frame begins `registers` (7 bits, at most 96) earlier."""
    bof, count = cpu.bof.zero_extend(8), registers.zero_extend(8)
    cpu.bof = ite(bof < count, bof + RING - count, bof - count).truncate(7)
    cpu.ar.bsp = _store_address_back(cpu.ar.bsp, registers)


def declare(machine: Machine[Ia64]) -> None:
    """Add the family to a machine."""

    @machine.instruction("cover", source="SDM vol. 3, cover (3:48)", mnemonic="COVER")
    def cover(cpu: Ia64) -> None:
        """A new empty frame above the current one; with PSR.ic = 0, CFM goes to IFS."""
        intercept(cpu, 36, (cpu.psr.cpl != 0) | (cpu.vac.a_cover == 1))
        frame = concat(Word(1, 1), Word(25, 0), cpu.cfm.value)
        if (cpu.psr.vm == 1) & (cpu.psr.cpl == 0):
            if cpu.vpsr.ic == 0:
                cpu.vcr = cpu.vcr.store(Word(7, IFS_VCR), frame)
        else:
            cpu.cr.ifs = ite(cpu.psr.ic, cpu.cr.ifs, frame)
        grow(cpu, cpu.cfm.sof)
        cpu.cfm = 0

    @machine.instruction("alloc r = ar.pfs, imm7, imm7", source="SDM vol. 3, alloc", mnemonic="ALLOC")
    def alloc(cpu: Ia64, r: Word, locals_: Word, frame: Word) -> None:
        """Resize the frame to `frame` registers, `locals_` of them local; PFS goes to r."""
        if (frame > RING) | (locals_ > frame):
            raise Fault(ILLEGAL_OPERATION)
        pfs = cpu.ar.pfs.value
        cpu.cfm.sof, cpu.cfm.sol, cpu.cfm.sor = frame, locals_, 0
        check_target(cpu, r)
        cpu.write_gr(r, pfs)

    @machine.instruction("flushrs", source="SDM vol. 3, flushrs", mnemonic="FLUSHRS")
    def flush(cpu: Ia64) -> None:
        """Every dirty stacked register goes to the backing store."""
        cpu.ar.bspstore = cpu.ar.bsp

    @machine.instruction("loadrs", source="SDM vol. 3, loadrs", mnemonic="LOADRS")
    def load_rs(cpu: Ia64) -> None:
        """The backing store's part that RSC.loadrs names is in registers, the rest is not."""
        if (cpu.ar.rsc.mode != 0) | (cpu.cfm.sof != 0):
            raise Fault(ILLEGAL_OPERATION)
        cpu.ar.bspstore = cpu.ar.bsp - cpu.ar.rsc.loadrs.zero_extend(64)

    @machine.instruction("clrrrb", source="SDM vol. 3, clrrrb", mnemonic="CLRRRB")
    def clear_rename_bases(cpu: Ia64) -> None:
        """The register rename bases become 0."""
        cpu.cfm.rrb_gr, cpu.cfm.rrb_fr, cpu.cfm.rrb_pr = 0, 0, 0
