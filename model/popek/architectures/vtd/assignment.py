"""A bus-master device of a PC, given to a guest: as it is, behind DMA remapping, behind interrupt remapping too.

What the fabric must do is stated as duties of the monitor's: that it lets through the device's own source-id alone,
and sends requests among its devices to the unit (PCI Express ACS).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from popek.kernel.agents import Agent, Attachment, Bus, Devices, DriverPremise, MonitorDuty, RefusedError
from popek.kernel.memory import Block, Memory
from popek.kernel.state import State, word
from popek.kernel.words import FALSE, Word, all_of, concat, ite, symbol

from .dma import translate
from .interrupts import RANGE, compatible, given, is_message, remap
from .ledger import rules
from .platform import CELL, HOST_WIDTH, IN_PAGE, PAGE, Pc, build, moved
from .unit import Read, RemappingCapabilities, Unit

CAN = RemappingCapabilities(host_width=HOST_WIDTH, guest_width=HOST_WIDTH, levels=(3,))
PEERS = (1 << HOST_WIDTH - 12) - 1
"""The page of another guest's device, in the host's address space."""


class BusMaster(State):
    """A device's registers."""

    address = word(64)  # of the quadword to move
    buffer = word(64)
    into_storage = word(1)  # 1: to storage
    source = word(16)  # the source-id that it puts into its requests
    message_address = word(64, reset=0xFEE00000)  # MSI capability
    message_data = word(32, reset=0x20)


def transfer(device: BusMaster, bus: Bus) -> None:
    """Move one quadword."""
    if device.into_storage == 1:
        bus.store(device.address, device.buffer)
    else:
        device.buffer = bus.load(device.address)


def signal(device: BusMaster, bus: Bus) -> None:
    """Raise its interrupt: a write of the message's data to the message's address."""
    bus.store(device.message_address, device.message_data.zero_extend(64))


def reader(storage: Memory) -> Read:
    """Quadwords by their address of 64 bits."""
    return lambda address: storage.load(address[CELL + 2 : 3])


def own_route(state: Pc, address: Word, write: bool) -> Word:
    """On the guest's own machine an address is that of storage."""
    cell = address[CELL + 2 : 3]
    if (address[63:HOST_WIDTH] != 0) | (cell[CELL - 1 : CELL - PAGE] > state.last):
        raise RefusedError("no storage there")
    return cell


def source_of(unit: Unit, device: BusMaster) -> Word:
    """The source-id with which a request leaves the fabric."""
    return ite(unit.source_validation == 1, unit.requester, device.source)


def held(unit: Unit, address: Word) -> Word:
    """The unit answers from what it holds (width 1)."""
    return (unit.translation == 1) & (unit.cached == 1) & (unit.cached_page == address[63:12])


def _route(without: frozenset[str]) -> Callable[[Pc, Unit, BusMaster, Word, bool], Word]:
    def route(hardware: Pc, unit: Unit, device: BusMaster, address: Word, write: bool) -> Word:
        if (unit.redirects == 0) & (address[63:12] == PEERS):
            return address[CELL + 2 : 3]  # the switch hands it to the other device
        if held(unit, address):
            if unit.cached_fault == 1:
                raise RefusedError("a fault that the unit holds from before")
            return concat(unit.cached_frame[CELL - IN_PAGE - 1 : 0], address[11:3])
        found = translate(
            reader(hardware.memory), unit, source_of(unit, device), address, write, CAN, without
        )
        if ~found.passes | (found.address[63:HOST_WIDTH] != 0):
            raise RefusedError("a fault of the unit's, or no storage", found.reason)
        return found.address[CELL + 2 : 3]

    return route


def _deliver(without: frozenset[str]) -> Callable[[Pc, Unit, BusMaster, Word, Word], Word]:
    def deliver(hardware: Pc, unit: Unit, device: BusMaster, address: Word, data: Word) -> Word:
        source = source_of(unit, device)
        found = remap(reader(hardware.memory), unit, source, address, data[31:0], CAN, without)
        if ~found.passes:
            raise RefusedError("the unit's fault", found.reason)
        return found.address

    return deliver


def expected(unit: Unit) -> Word:
    """What the monitor expects from the device's interrupt."""
    return given(FALSE, Word(3, 0), unit.vector, unit.destination)


# -- the monitor's duties ---------------------------------------------------------------------------


def _on(unit: Unit) -> Unit:
    """What the tables say is asked of a unit that is on, whether it is or not."""
    return unit.with_changes({"translation": 1, "interrupt_remapping": 1})


def _confined(guest: Pc, private: Pc, unit: Unit, place: Word) -> Word:
    """Whatever the unit lets through of the device's requests goes to the guest's storage."""
    kept = []
    for write in (False, True):
        found = translate(reader(private.memory), _on(unit), unit.requester, place, write, CAN)
        cell = found.address[CELL + 2 : 3]
        there = (found.address[63:HOST_WIDTH] == 0) & (
            cell[CELL - 1 : CELL - PAGE] - private.start <= guest.last
        )
        kept.append(~found.passes | there)
    return all_of(kept)


def _invalidated(guest: Pc, private: Pc, unit: Unit, place: Word) -> Word:
    """A translation that the unit still holds leads to the guest's storage."""
    frame = unit.cached_frame[PAGE - 1 : 0]
    there = (unit.cached_frame[51:PAGE] == 0) & (frame - private.start <= guest.last)
    return ~unit.cached | unit.cached_fault | there


def _fresh(guest: Pc, private: Pc, unit: Unit, place: Word) -> Word:
    """What the unit holds is what the tables give."""
    page = unit.cached_page
    mine = (page[51:PAGE] == 0) & (page[PAGE - 1 : 0] <= guest.last)
    there = (unit.cached_frame[51:PAGE] == 0) & (
        unit.cached_frame[PAGE - 1 : 0] == page[PAGE - 1 : 0] + private.start
    )
    return ~unit.cached | ite(mine, ~unit.cached_fault & there, unit.cached_fault)


def _tables_ours(guest: Pc, private: Pc, unit: Unit, place: Word) -> Word:
    """What the unit reads to translate is the monitor's."""
    read: list[Word] = []

    def noted(address: Word) -> Word:
        read.append(address)
        return reader(private.memory)(address)

    for write in (False, True):
        translate(noted, _on(unit), unit.requester, place, write, CAN)
    remap(noted, _on(unit), unit.requester, _remappable(place[15:0]), Word(32, 0), CAN)
    return all_of(~(address[HOST_WIDTH - 1 : 12] - private.start <= guest.last) for address in read)


def _mapped(guest: Pc, private: Pc, unit: Unit, place: Word) -> Word:
    """Every page of the guest's is mapped to itself, for reads and writes, and nothing else."""
    mine = (place[63:HOST_WIDTH] == 0) & (place[HOST_WIDTH - 1 : 12] <= guest.last)
    right = []
    for write in (False, True):
        found = translate(reader(private.memory), _on(unit), unit.requester, place, write, CAN)
        there = found.passes & (found.address[CELL + 2 : 3] == moved(place[CELL + 2 : 3], private.start))
        right.append(ite(mine, there, ~found.passes))
    return all_of(right)


def _remappable(handle: Word) -> Word:
    """The address of a request in remappable format, without a subhandle."""
    low = concat(Word(1, 0), handle[15], Word(2, 0))
    return concat(Word(44, RANGE), handle[14:0], Word(1, 1), low)


def _one_interrupt(guest: Pc, private: Pc, unit: Unit, place: Word) -> Word:
    """Of the interrupt table's entries, those that admit the device give what the monitor expects from it."""
    found = remap(
        reader(private.memory), _on(unit), unit.requester, _remappable(place[15:0]), Word(32, 0), CAN
    )
    return ~found.passes | (found.address == expected(unit))


def _entry(guest: Pc, private: Pc, unit: Unit, place: Word) -> Word:
    found = remap(
        reader(private.memory), _on(unit), unit.requester, _remappable(unit.handle), Word(32, 0), CAN
    )
    return found.passes & (found.address == expected(unit))


FABRIC = (
    MonitorDuty("destination", "the monitor expects the interrupt at a processor that eight bits can name",
                lambda guest, private, unit, place: unit.destination < 256),
    MonitorDuty("source-validation", "the fabric lets no source-id through but the device's (ACS source validation)",
                lambda guest, private, unit, place: unit.source_validation == 1),
    MonitorDuty("redirection", "the fabric sends requests among devices to the unit (ACS redirection)",
                lambda guest, private, unit, place: unit.redirects == 1),
)  # fmt: skip
DMA = (
    MonitorDuty(
        "translation", "DMA remapping is on", lambda guest, private, unit, place: unit.translation == 1
    ),
    MonitorDuty(
        "confined",
        "whatever the tables let through of the device's requests goes to the guest's storage",
        _confined,
    ),
    MonitorDuty(
        "invalidated",
        "after a page was taken from the guest the unit holds no translation to it: it was invalidated",
        _invalidated,
    ),
    MonitorDuty(
        "fresh",
        "what the unit holds is what the tables give, with caching mode faults too: changes were invalidated",
        _fresh,
        fidelity=True,
    ),
    MonitorDuty("tables", "the tables that the unit reads are the monitor's storage", _tables_ours),
    MonitorDuty(
        "mapped",
        "every page of the guest's is mapped, to where the second stage has it",
        _mapped,
        fidelity=True,
    ),
)
INTERRUPTS = (
    MonitorDuty("interrupt-remapping", "interrupt remapping is on",
                lambda guest, private, unit, place: unit.interrupt_remapping == 1),
    MonitorDuty("no-compatibility", "requests in compatibility format are blocked",
                lambda guest, private, unit, place: unit.compatibility == 0),
    MonitorDuty("one-interrupt", "the table's entries that admit the device give what the monitor expects from it",
         _one_interrupt),
    MonitorDuty("entry", "the entry of the device's handle gives it", _entry, fidelity=True),
)  # fmt: skip

NO_MESSAGES = DriverPremise(
    "no-transfers-to-messages",
    "the driver moves no data to 0xFEExxxxx, where its own machine would take it as an interrupt",
    lambda guest, device: ~(is_message(device.address) & device.into_storage),
)


def _message(guest: Pc, device: BusMaster, private: Pc, unit: Unit) -> BusMaster:
    """The monitor puts its handle where the driver put address and data."""
    mapped = device.copy()
    on = unit.interrupt_remapping == 1
    mapped.message_address = ite(
        on, _remappable(unit.handle), Word(64, RANGE << 20) | (unit.destination[7:0].zero_extend(64) << 12)
    )
    mapped.message_data = ite(on, Word(32, 0), unit.vector.zero_extend(32))
    return mapped


def _seen(device: BusMaster, private: Pc, unit: Unit) -> BusMaster:
    """The guest reads back what it wrote."""
    return device.with_changes({"message_address": 0, "message_data": 0})


def _places(guest: Pc, device: BusMaster, private: Pc, unit: Unit) -> tuple[Word, ...]:
    """The address of the transfer, and the index that a message to that address has, with either part of it."""
    handle = concat(Word(48, 0), device.address[2], device.address[19:5])
    subhandle = handle + device.buffer[15:0].zero_extend(64)
    return (device.address, handle, subhandle, unit.handle.zero_extend(64))


# -- the first state ---------------------------------------------------------------------------------

ROOT, CONTEXT, TABLES, OTHERS, VECTORS, START, LAST = 0x1000, 0x2000, 0x3000, 0x6000, 0x9000, 0x100, 1
REQUESTER, HANDLE, VECTOR = 0x0010, 3, 0x51
ANOTHER, ANOTHERS_START, ANOTHERS_HANDLE, ANOTHERS_VECTOR = 0x0018, 0x200, 4, 0x61
"""Another guest with a device."""


def stored(cells: Mapping[int, int | Word]) -> Memory:
    """Unknown storage in which tables were cleared and these quadwords stored."""
    nothing = Memory(CELL, 64, lambda address: Word(64, 0))
    size = (VECTORS + 0x1000 - ROOT) >> 3
    cleared = Block(Word(CELL, ROOT >> 3), Word(CELL, 0), Word(CELL, size), nothing)
    stores = tuple(
        (Word(CELL, address >> 3), value if isinstance(value, Word) else Word(64, value))
        for address, value in cells.items()
    )
    return Memory(CELL, 64, "memory@vmm", (cleared, *stores))


def tables(*, pages: int, start: int, source: int = REQUESTER, at: int = TABLES) -> dict[int, int]:
    """Root, context, and three levels of second-stage tables that map pages from 0 on, of one device."""
    bus, function = source >> 8, source & 0xFF
    cells = {ROOT + 16 * bus: CONTEXT | 1}
    cells |= {CONTEXT + 16 * function: at | 1, CONTEXT + 16 * function + 8: 1}
    cells |= {at: at + 0x1003, at + 0x1000: at + 0x2003}
    cells |= {at + 0x2000 + 8 * page: (start + page) << 12 | 3 for page in range(pages)}
    return cells


def interrupt_table() -> dict[int, int]:
    """Eight entries, one for each device."""
    devices = ((HANDLE, VECTOR, REQUESTER), (ANOTHERS_HANDLE, ANOTHERS_VECTOR, ANOTHER))
    return {
        VECTORS + 16 * handle + offset: value
        for handle, vector, source in devices
        for offset, value in ((0, vector << 16 | 1), (8, 1 << 18 | source))
    }


FREE = {
    "DMA-ROOT-P": ROOT,
    "DMA-ROOT-RSVD": ROOT,
    "DMA-CONTEXT-P": CONTEXT + 16 * REQUESTER,
    "DMA-CONTEXT-RSVD": CONTEXT + 16 * REQUESTER,
    "DMA-CONTEXT-T": CONTEXT + 16 * REQUESTER,
    "DMA-CONTEXT-AW": CONTEXT + 16 * REQUESTER + 8,
    "DMA-PAGE-R": TABLES + 0x2000,
    "DMA-PAGE-W": TABLES + 0x2000,
    "DMA-PAGE-RSVD": TABLES + 0x2000,
    "DMA-LARGE": TABLES + 0x1000,
    "INT-ENTRY-P": VECTORS,
    "INT-ENTRY-RSVD": VECTORS,
    "INT-INDEX": VECTORS + 0x80,
}
"""The quadword of the tables that keeps the device out by this rule alone, where there is such a one."""


def _free(rules: frozenset[str]) -> dict[int, int | Word]:
    """Tables that would let the device at page 0, the monitor's, and the quadwords that are to keep it out."""
    cells: dict[int, int | Word] = {}
    for rule in rules:
        at = FREE.get(rule, 0) & ~0xF
        cells |= {at: 0x71 << 16 | 1, at + 8: 0} if rule.startswith("INT") else tables(pages=1, start=0)
    return cells | {
        FREE[rule]: symbol(f"quadword at {FREE[rule]:#x}@vmm", 64) for rule in rules if rule in FREE
    }


def _first(
    dropped: frozenset[str], rules: frozenset[str], *, dma: bool, interrupts: bool
) -> tuple[Pc, Pc, Unit]:
    guest = Pc.reset(last=LAST).with_contents({"memory": "memory"})
    private = Pc.reset(start=START)
    others = tables(pages=1, start=ANOTHERS_START, source=ANOTHER, at=OTHERS)
    mine = tables(pages=LAST + 1, start=START)
    free = _free(rules) if rules & FREE.keys() else {}
    private.memory = stored({**mine, **others, **interrupt_table(), **free})
    unit = Unit.reset(
        root_table=ROOT,
        translation=int(dma),
        interrupt_remapping=int(interrupts),
        interrupt_table=VECTORS | 2,
        requester=REQUESTER,
        source_validation=1,
        redirects=1,
        handle=HANDLE,
        vector=VECTOR,
    )
    off = {
        "translation": "translation", "interrupt-remapping": "interrupt_remapping",
        "source-validation": "source_validation", "redirection": "redirects",
    }  # fmt: skip
    unit = unit.with_changes({register: 0 for name, register in off.items() if name in dropped})
    if "invalidated" in dropped:  # the page behind the guest's was its own until a moment ago
        gone = {"cached": 1, "cached_page": LAST + 1, "cached_frame": START + LAST + 1}
        unit = unit.with_changes(gone)
    if "fresh" in dropped and not rules:  # page 0 was not there until a moment ago
        unit = unit.with_changes({"cached": 1, "cached_page": 0, "cached_fault": 1})
    if "no-compatibility" in dropped:
        unit.compatibility = Word(1, 1)
    return guest, private, unit


def _attachment(
    name: str, title: str, duties: tuple[MonitorDuty, ...], without: frozenset[str] = frozenset()
) -> Attachment:
    dma, interrupts = DMA[0] in duties, INTERRUPTS[0] in duties
    kinds = {kind for kind, on in (("dma", dma), ("interrupt", interrupts)) if on}
    return Attachment(
        name,
        title,
        route=_route(without),
        unit=Unit,
        device=_message,
        seen=_seen,
        deliver=_deliver(without),
        duties=duties,
        premises=(NO_MESSAGES,),
        places=_places,
        first=lambda dropped: _first(dropped, without, dma=dma, interrupts=interrupts),
        rules={rule.id: rule.rule for rule in rules().values() if rule.kind in kinds},
        without=lambda rules: _attachment(name, title, duties, rules),
        source="Intel VT-d architecture specification",
    )


def _off(duty: MonitorDuty) -> MonitorDuty:
    """That what the duty switches on is off."""
    holds = duty.holds
    return MonitorDuty(f"no-{duty.name}", f"not: {duty.text}", lambda *given: ~holds(*given))


DIRECT = _attachment(
    "direct",
    "no remapping: what the device sends is a host-physical address",
    (*FABRIC, _off(DMA[0]), _off(INTERRUPTS[0])),
)
DMA_ONLY = _attachment("dma-remapped", "DMA remapping alone", (*FABRIC, *DMA, _off(INTERRUPTS[0])))
REMAPPED = _attachment("remapped", "DMA remapping and interrupt remapping", (*FABRIC, *DMA, *INTERRUPTS))


def devices() -> Devices[Pc]:
    """The PC with a bus-master device."""
    agent = Agent(
        "bus-master",
        "a PCI Express device that moves quadwords and raises an interrupt by message",
        BusMaster,
        {"transfer": transfer, "signal": signal},
        {
            "address": "MOV [BAR+80h], address",
            "buffer": "MOV [BAR+40h], data",
            "into_storage": "MOV [BAR+98h], direction",
            "source": "the device's source-id",
        },
        exists=lambda device: (
            is_message(device.message_address)
            & (device.message_data[31:11] == 0)
            & (device.address[2:0] == 0)
        ),
    )
    return Devices(
        "x86",
        "a PC with a bus-master device",
        build,
        "second-stage",
        agent,
        own_route,
        {one.name: one for one in (DIRECT, DMA_ONLY, REMAPPED)},
        place=64,
        longest=1,  # a step leaves nothing that a later one needs
        message=is_message,
        deliver=lambda state, address, data: compatible(address, data[31:0]),
        interrupt=lambda guest, private, unit, what: what == expected(unit),
        same_interrupt=lambda private, unit, own, what: what == expected(unit),
        stands_for=("ia32", "x86-64"),
        notes=(
            "legacy mode: no PASID, no scalable mode, no first stage; no page requests, no device TLBs",
            "the processor's instructions: two references stand for all; `popek safety ia32` and its like ask each",
            "message address and data are the driver's to set through the monitor, which gives the device its handle",
        ),
        source="Intel VT-d architecture specification",
    )
