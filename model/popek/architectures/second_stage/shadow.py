"""Shadow paging: what a monitor without a second stage does, and what it must intercept for that.

The guest's own machine keeps every translation until it is told to drop it, which the manual permits.  The monitor
keeps the same translations, moved to where the guest's storage is, in tables of its own, which the hardware walks.  One
page stands for all: each translation is kept by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from popek.architectures.vtd.assignment import own_route, stored
from popek.architectures.vtd.platform import CELL, HOST_WIDTH, PAGE, Pc, build
from popek.kernel.agents import Agent, Attachment, Bus, Devices, MonitorDuty, RefusedError
from popek.kernel.state import Role, State, word
from popek.kernel.words import Word, concat, ite

from .tables import ADDRESS

PRESENT, WRITABLE, DIRTY = 0, 1, 6


class PagedProcessor(State):
    """Registers, and the translation of one page that is held; the reference is made in supervisor mode."""

    shadowed = word(1, role=Role.HIDDEN)  # 1: the hardware, under a monitor that keeps the tables
    cr3 = word(64)
    write_protect = word(1)  # CR0.WP
    wide = word(1)  # CR4.PAE: entries of 8 bytes, not 4
    page = word(9)  # of the linear address
    write = word(1)
    data = word(64)
    operand = word(64)  # what MOV loads
    valid = word(1, role=Role.HIDDEN)
    frame = word(52, role=Role.HIDDEN)
    writable = word(1, role=Role.HIDDEN)
    dirty = word(1, role=Role.HIDDEN)
    fault = word(1)


class Shadow(State):
    """What the monitor sets, and what a TLB with VPIDs may hold of another guest."""

    root = word(64, role=Role.RESOURCE)  # of the shadow tables
    vpid = word(16, role=Role.RESOURCE)
    held = word(1, role=Role.HIDDEN)
    held_vpid = word(16, role=Role.HIDDEN)
    held_frame = word(52, role=Role.HIDDEN)


# -- the processor's steps --------------------------------------------------------------------------


def _entry_at(cpu: PagedProcessor) -> Word:
    index = cpu.page.zero_extend(64)
    return (cpu.cr3 & ADDRESS) + ite(cpu.wide == 1, index << 3, index << 2)


def _entry(cpu: PagedProcessor, bus: Bus) -> Word:
    at = _entry_at(cpu)
    whole = bus.load(concat(at[63:3], Word(3, 0)))
    return ite(cpu.wide == 1, whole, ite(at[2], whole[63:32], whole[31:0]).zero_extend(64))


def _hold(cpu: PagedProcessor, entry: Word) -> None:
    cpu.valid, cpu.frame = Word(1, 1), (entry & ADDRESS)[63:12]
    cpu.writable, cpu.dirty = entry[WRITABLE], entry[DIRTY]


def _permitted(cpu: PagedProcessor) -> Word:
    return ~cpu.write | cpu.writable | ~cpu.write_protect


def refer(cpu: PagedProcessor, bus: Bus) -> None:
    """A reference through the translation that is held, where it permits that; a write needs the dirty flag set."""
    if (cpu.valid == 0) | ~_permitted(cpu) | (cpu.write & ~cpu.dirty):
        return
    at = concat(cpu.frame, Word(12, 0))
    if cpu.write == 1:
        bus.store(at, cpu.data)
    else:
        cpu.data = bus.load(at)


def walk(cpu: PagedProcessor, bus: Bus) -> None:
    """The hardware walks its tables and holds what it finds; the guest's own machine may walk and keep nothing."""
    if cpu.valid == 1:
        return
    entry = _entry(cpu, bus)
    if (cpu.shadowed == 1) & entry[PRESENT]:
        _hold(cpu, entry)
        cpu.dirty = Word(1, 1)  # nothing is left to set


def miss(cpu: PagedProcessor, bus: Bus) -> None:
    """Nothing is held: what the guest's table says is, or the guest takes a page fault."""
    if cpu.valid == 1:
        return
    entry = _entry(cpu, bus)
    if entry[PRESENT] == 1:
        _hold(cpu, entry)
    else:
        cpu.fault = Word(1, 1)


def denied(cpu: PagedProcessor, bus: Bus) -> None:
    """What is held does not permit the write: a page fault; or the dirty flag is not set in the table: it is set."""
    if (cpu.valid == 0) | (cpu.write == 0):
        return
    if ~_permitted(cpu):
        cpu.fault = Word(1, 1)
    elif cpu.dirty == 0:
        at = _entry_at(cpu)
        quad = concat(at[63:3], Word(3, 0))
        upper = ~cpu.wide & at[2]
        bus.store(quad, bus.load(quad) | ite(upper, Word(64, 1 << DIRTY + 32), Word(64, 1 << DIRTY)))
        cpu.dirty = Word(1, 1)


def _dropped(cpu: PagedProcessor) -> None:
    cpu.valid, cpu.frame, cpu.writable, cpu.dirty = Word(1, 0), Word(52, 0), Word(1, 0), Word(1, 0)


def load_cr3(cpu: PagedProcessor, bus: Bus) -> None:
    """MOV CR3, r: other tables; what was held is dropped."""
    cpu.cr3 = cpu.operand
    _dropped(cpu)


def store_cr3(cpu: PagedProcessor, bus: Bus) -> None:
    """MOV r, CR3."""
    cpu.data = cpu.cr3


def invalidate(cpu: PagedProcessor, bus: Bus) -> None:
    """INVLPG: what is held of the page is dropped."""
    _dropped(cpu)


def load_cr0(cpu: PagedProcessor, bus: Bus) -> None:
    """MOV CR0, r, of which WP is modelled."""
    cpu.write_protect = cpu.operand[16]


def load_cr4(cpu: PagedProcessor, bus: Bus) -> None:
    """MOV CR4, r, which changes PAE or PGE: another format of the tables; what was held is dropped."""
    cpu.wide = cpu.operand[5]
    _dropped(cpu)


STEPS = {
    "reference": refer,
    "walk": walk,
    "#PF, nothing held": miss,
    "#PF, not permitted": denied,
    "MOV CR3": load_cr3,
    "MOV from CR3": store_cr3,
    "INVLPG": invalidate,
    "MOV CR0": load_cr0,
    "MOV CR4": load_cr4,
}
INTERCEPTED: Mapping[str, str] = {
    "#PF": "page faults are intercepted: the monitor fills the shadow tables, sets the dirty flag, or reflects them",
    "MOV-CR3": "MOV to CR3 is intercepted: the hardware's CR3 is the shadow tables'",
    "MOV-from-CR3": "MOV from CR3 is intercepted: the guest reads its own",
    "INVLPG": "INVLPG is intercepted: the shadow entry is dropped, too",
    "CR0.WP": "MOV to CR0 that changes WP is intercepted: the hardware's WP stays set",
    "CR4.PAE-PGE": "MOV to CR4 that changes PAE or PGE is intercepted: the shadow tables keep their format",
}
OF: Mapping[str, tuple[str, ...]] = {
    "#PF": ("#PF, nothing held", "#PF, not permitted"),
    "MOV-CR3": ("MOV CR3",),
    "MOV-from-CR3": ("MOV from CR3",),
    "INVLPG": ("INVLPG",),
    "CR0.WP": ("MOV CR0",),
    "CR4.PAE-PGE": ("MOV CR4",),
}


# -- the monitor ------------------------------------------------------------------------------------


def absolute(hardware: Pc, unit: Shadow, cpu: PagedProcessor, address: Word, write: bool) -> Word:
    """No second stage: an address is a host-physical one.

    Raises:
        RefusedError: there is no such storage.
    """
    if address[63:HOST_WIDTH] != 0:
        raise RefusedError("no storage there")
    return address[CELL + 2 : 3]


def _exists(guest: Pc, frame: Word) -> Word:
    return (frame[51:PAGE] == 0) & (frame[PAGE - 1 : 0] <= guest.last)


def _moved(private: Pc, frame: Word) -> Word:
    return concat(frame[51:PAGE], frame[PAGE - 1 : 0] + private.start)


def _foreign(unit: Shadow) -> Word:
    """The processor answers with another guest's translation (width 1)."""
    return (unit.held == 1) & (unit.held_vpid == unit.vpid)


def _hardware(guest: Pc, cpu: PagedProcessor, private: Pc, unit: Shadow) -> PagedProcessor:
    """The hardware's registers for the guest's."""
    mapped = cpu.copy()
    foreign = _foreign(unit)
    mapped.shadowed, mapped.write_protect, mapped.wide = Word(1, 1), Word(1, 1), Word(1, 1)
    mapped.cr3 = unit.root & ADDRESS
    # A frame that does not exist on the guest's own machine is not mapped.
    valid = (cpu.valid == 1) & _exists(guest, cpu.frame)
    mapped.valid = foreign | valid
    none = Word(52, 0)
    mapped.frame = ite(foreign, unit.held_frame, ite(valid, _moved(private, cpu.frame), none))
    writes = (cpu.writable | ~cpu.write_protect) & cpu.dirty
    mapped.writable = foreign | (valid & writes)
    mapped.dirty = mapped.valid
    return mapped


def _shadow_cell(private: Pc, unit: Shadow, page: Word) -> Word:
    at = (unit.root & ADDRESS) + (page.zero_extend(64) << 3)
    return at[CELL + 2 : 3]


def _image(cpu: PagedProcessor) -> Word:
    """The shadow entry for what the hardware holds."""
    entry = concat(cpu.frame, Word(12, 0)) & ADDRESS
    return ite(cpu.valid == 1, entry | concat(Word(62, 0), cpu.writable, Word(1, 1)), Word(64, 0))


def _follow(
    guest: Pc, cpu: PagedProcessor, private: Pc, unit: Shadow, before: PagedProcessor
) -> tuple[Pc, Shadow]:
    """The monitor makes the shadow entry what the guest's machine holds now."""
    private = private.copy()
    cell = _shadow_cell(private, unit, cpu.page)
    private.memory = private.memory.store(cell, _image(_hardware(guest, cpu, private, unit)))
    return private, unit


def _reached(guest: Pc, cpu: PagedProcessor, private: Pc, unit: Shadow) -> Word:
    """What the hardware holds is what the shadow entry says."""
    entry = private.memory.load(_shadow_cell(private, unit, cpu.page))
    present = entry[PRESENT] == 1
    same = (entry & ADDRESS)[63:12] == cpu.frame
    held = ite(present, (cpu.valid == 1) & same & (entry[WRITABLE] == cpu.writable), cpu.valid == 0)
    return (held | _foreign(unit)) & (cpu.cr3 == unit.root & ADDRESS) & (cpu.wide == 1)


def _confined(guest: Pc, private: Pc, unit: Shadow, place: Word) -> Word:
    """Each entry of the shadow tables is clear, or maps storage of the guest's."""
    entry = private.memory.load(_shadow_cell(private, unit, place[8:0]))
    frame = (entry & ADDRESS)[63:12]
    inside = (frame[51:PAGE] == 0) & (frame[PAGE - 1 : 0] - private.start <= guest.last)
    return ~entry[PRESENT] | inside


def _ours(guest: Pc, private: Pc, unit: Shadow, place: Word) -> Word:
    """The shadow tables exist, and are not the guest's storage."""
    page = (unit.root & ADDRESS)[HOST_WIDTH - 1 : 12]
    return ((unit.root & ADDRESS)[63:HOST_WIDTH] == 0) & ~(page - private.start <= guest.last)


def _own_vpid(guest: Pc, private: Pc, unit: Shadow, place: Word) -> Word:
    return ~_foreign(unit)


DUTIES = (
    MonitorDuty("tables", "the shadow tables are the monitor's storage", _ours),
    MonitorDuty(
        "confined", "each entry of the shadow tables is clear or maps storage of the guest's", _confined
    ),
    MonitorDuty(
        "vpid",
        "no translation of another guest's is held under this guest's VPID: it has another, or INVVPID was executed",
        _own_vpid,
    ),
)

ROOT, START, LAST = 0x3000, 0x100100, 1


def _first(without: frozenset[str], dropped: frozenset[str]) -> tuple[Pc, Pc, Shadow]:
    guest = Pc.reset(last=LAST).with_contents({"memory": "memory"})
    private = Pc.reset(start=START)
    private.memory = stored({})
    unit = Shadow.reset(root=ROOT, vpid=1, held_vpid=2)
    if "vpid" in dropped:
        unit = unit.with_changes({"held": 1, "held_vpid": 1, "held_frame": 0x200})
    return guest, private, unit


def _shadowed(without: frozenset[str] = frozenset()) -> Attachment:
    served: dict[str, Callable[..., tuple[Pc, Shadow]]] = {
        step: _follow for name, steps in OF.items() if name not in without for step in steps
    }
    return Attachment(
        "shadow",
        "shadow tables: the hardware walks the monitor's, which follow the guest's where it is told to",
        route=absolute,
        unit=Shadow,
        device=_hardware,
        seen=lambda cpu, private, unit: cpu.with_changes(
            {"cr3": 0, "frame": 0, "valid": 0, "writable": 0, "dirty": 0, "shadowed": 0}
        ),
        kept=("shadowed", "cr3", "write_protect", "wide", "valid", "frame", "writable", "dirty"),
        duties=DUTIES,
        reached=_reached,
        reached_text="what the hardware holds of a page is what the shadow entry says; its CR3 is the shadow tables'",
        places=lambda guest, cpu, private, unit: (cpu.page.zero_extend(64),),
        first=partial(_first, without),
        services=served,
        rules=INTERCEPTED,
        without=_shadowed,
        source="Intel SDM vol. 3C, chapter 32 (virtual TLB)",
    )


def shadow_devices() -> Devices[Pc]:
    """A guest's paging over storage that is shared with the monitor, without a second stage."""
    agent = Agent(
        "processor",
        "the guest's processor with its page tables",
        PagedProcessor,
        STEPS,
        {
            "write": "the guest means to store",
            "data": "the guest sets the register that is stored",
            "operand": "the guest sets the register that MOV takes",
        },
        exists=lambda cpu: cpu.shadowed == 0,
        inner=("#PF, not permitted", "MOV CR3", "MOV from CR3", "INVLPG", "MOV CR0", "MOV CR4"),
        source="Intel SDM vol. 3A, paging",
    )
    return Devices(
        "x86-shadow",
        "a guest's processor with page tables, without a second stage",
        build,
        "second-stage",
        agent,
        own_route,
        {"shadow": _shadowed()},
        place=64,
        longest=3,
        notes=(
            "one table of 512 or 1,024 entries stands for the levels; supervisor mode; no accessed flag, NX, keys",
            "the guest's own machine holds every translation until it is dropped, as the manual permits",
        ),
        source="Intel SDM vol. 3C, chapter 32",
    )
