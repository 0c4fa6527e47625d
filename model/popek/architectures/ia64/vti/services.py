"""PAL's virtualization services as state transformers (vol. 2, 2:486 to 2:500; offsets in `vti.toml`).

With accelerations on, the processor works on its own copy of parts of the VPD.  `Services` keeps both:
the state's components are the processor's, `memory` is what the VMM reads and writes.  A service entered
under other conditions than the manual's is undefined and raises `UndefinedUseError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from popek.kernel.memory import Memory
from popek.kernel.words import Word

from ..instructions.translation import long_format_hash, short_format_hash, translation_tag
from ..state import PSR_WIDTH, VIRTUAL_BITS, Ia64
from .configuration import FACTS

OFFSET: Final[Mapping[str, int]] = {row["name"]: row["offset"] for row in FACTS["services"]}


class UndefinedUseError(ValueError):
    """A service is used where the manual leaves its behaviour undefined; the message says the rule."""


@attrs.frozen(eq=False)
class VpdMemory:
    """The VPD as it lies in storage."""

    vpsr: Word
    vhpi: Word
    vcr: Memory
    vgr: Memory
    vnat: Memory


@attrs.frozen(eq=False)
class Services:
    """The processor, and the VPD of the virtual processor that is in it."""

    cpu: Ia64
    memory: VpdMemory

    @property
    def accelerated(self) -> bool:
        """Some acceleration is on (numbers only)."""
        return any(int(self.cpu[s.name]) for s in Ia64.layout if s.name.startswith("vac."))


def copy_of(cpu: Ia64) -> VpdMemory:
    """The VPD that agrees with the processor."""
    return VpdMemory(cpu.vpsr.value, cpu.vhpi, cpu.vcr, cpu.vgr, cpu.vnat)


def _entry(cpu: Ia64) -> None:
    """Rule V19: PSR at the entry of a service."""
    psr = cpu.psr
    zero = (psr.be, psr.i, psr.cpl, psr.is_, psr.ss, psr.db, psr.tb, psr.vm)
    if any(int(field) for field in zero) or not all(map(int, (psr.dt, psr.rt, psr.it))):
        raise UndefinedUseError("V19: PSR.be, i, cpl, is, ss, db, tb, vm must be 0 and dt, rt, it 1")


def _without_controls(cpu: Ia64) -> bool:
    return not any(int(cpu[s.name]) for s in Ia64.layout if s.name.startswith(("vac.", "vdc.")))


def resume(world: Services, *, handler: bool) -> Services:
    """PAL_VPS_RESUME_NORMAL and PAL_VPS_RESUME_HANDLER: into the guest at IIP with IPSR.

    GR24 holds the guest's BR0, GR25 the VPD; PSR.bn is 0.  The guest runs with PSR.vm = 1.

    Raises:
        UndefinedUseError: rules V18 and V19, or PSR.bn.
    """
    cpu = world.cpu
    _entry(cpu)
    if int(cpu.psr.bn):
        raise UndefinedUseError("RESUME is entered with PSR.bn = 0")
    if not handler and not int(cpu.vpsr.ic) and not _without_controls(cpu):
        raise UndefinedUseError("V18: RESUME_NORMAL needs vpsr.ic = 1, or every acceleration and disable off")
    after = cpu.copy()
    after.br = cpu.br.store(Word(3, 0), cpu.read_gr(Word(7, 24)))
    after.psr.value = cpu.cr.ipsr[PSR_WIDTH - 1 : 0]
    after.psr.vm = 1
    after.ip = cpu.cr.iip & ~Word(64, 0xF)
    return attrs.evolve(world, cpu=after)


def sync_read(world: Services) -> Services:
    """PAL_VPS_SYNC_READ: what the processor holds goes to the VPD."""
    _entry(world.cpu)
    return attrs.evolve(world, memory=copy_of(world.cpu)) if world.accelerated else world


def sync_write(world: Services) -> Services:
    """PAL_VPS_SYNC_WRITE: what the VPD holds goes to the processor."""
    _entry(world.cpu)
    cpu, memory = world.cpu.copy(), world.memory
    cpu.vpsr.value = memory.vpsr & Word(PSR_WIDTH, VIRTUAL_BITS)
    cpu.vcr, cpu.vgr, cpu.vnat = memory.vcr, memory.vgr, memory.vnat
    return attrs.evolve(world, cpu=cpu)


def set_pending_interrupt(world: Services) -> Services:
    """PAL_VPS_SET_PENDING_INTERRUPT: the processor takes the VPD's vhpi.

    Under a_int the guest's own rsm, ssm and moves to TPR then decide when the Virtual External Interrupt
    vector is entered.
    """
    _entry(world.cpu)
    cpu = world.cpu.copy()
    cpu.vhpi = world.memory.vhpi
    return attrs.evolve(world, cpu=cpu)


def restore(world: Services) -> Services:
    """PAL_VPS_RESTORE: the VPD's state into the processor."""
    cpu = sync_write(world).cpu
    cpu.vhpi = world.memory.vhpi
    return attrs.evolve(world, cpu=cpu)


def save(world: Services, *, skip_sync: bool = False) -> Services:
    """PAL_VPS_SAVE: SYNC_READ unless GR26 = 1."""
    _entry(world.cpu)
    return world if skip_sync else sync_read(world)


def thash(address: Word, region: Word, pta: Word) -> Word:
    """PAL_VPS_THASH: what thash gives for the guest's own region register and PTA (64 bits each)."""
    return long_format_hash(address, region, pta) if pta[8] else short_format_hash(address, region, pta)


def ttag(address: Word, region: Word) -> Word:
    """PAL_VPS_TTAG: what ttag gives for the guest's own region register."""
    return translation_tag(address, region)
