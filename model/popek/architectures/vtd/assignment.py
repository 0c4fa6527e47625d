"""A bus-master device of a PC, given to a guest: as it is, behind DMA remapping, behind interrupt remapping too.

What the fabric must do is stated as duties of the monitor's: that it lets through the device's own source-id alone,
and sends requests among its devices to the unit (PCI Express ACS).
"""

from __future__ import annotations

from collections.abc import Callable

from popek.kernel.agents import Agent, Attachment, Bus, Devices, Duty, Premise, RefusedError
from popek.kernel.memory import Block, Memory
from popek.kernel.state import State, word
from popek.kernel.words import FALSE, TRUE, Word, all_of, concat, ite

from .dma import translate
from .interrupts import RANGE, compatible, given, is_message, remap
from .ledger import rules
from .platform import CELL, HOST_WIDTH, PAGE, Platform, build, moved
from .unit import Capabilities, Read, Unit

CAN = Capabilities(host_width=HOST_WIDTH, guest_width=HOST_WIDTH, levels=(3,), large=())
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


def own_route(state: Platform, address: Word, write: bool) -> Word:
    """On the guest's own machine an address is that of storage."""
    cell = address[CELL + 2 : 3]
    if (address[63:HOST_WIDTH] != 0) | (cell[CELL - 1 : CELL - PAGE] > state.last):
        raise RefusedError("no storage there")
    return cell


def source_of(unit: Unit, device: BusMaster) -> Word:
    """The source-id with which a request leaves the fabric."""
    return ite(unit.source_validation == 1, unit.requester, device.source)


def _route(without: frozenset[str]) -> Callable[[Platform, Unit, BusMaster, Word, bool], Word]:
    def route(hardware: Platform, unit: Unit, device: BusMaster, address: Word, write: bool) -> Word:
        if (unit.redirects == 0) & (address[63:12] == PEERS):
            return address[CELL + 2 : 3]  # the switch hands it to the other device
        found = translate(
            reader(hardware.memory), unit, source_of(unit, device), address, write, CAN, without
        )
        if ~found.passes | (found.address[63:HOST_WIDTH] != 0):
            raise RefusedError("a fault of the unit's, or no storage", found.reason)
        return found.address[CELL + 2 : 3]

    return route


def _deliver(without: frozenset[str]) -> Callable[[Platform, Unit, BusMaster, Word, Word], Word]:
    def deliver(hardware: Platform, unit: Unit, device: BusMaster, address: Word, data: Word) -> Word:
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


def _confined(guest: Platform, private: Platform, unit: Unit, place: Word) -> Word:
    """Whatever the unit lets through of the device's requests goes to the guest's storage."""
    kept = []
    for write in (False, True):
        found = translate(reader(private.memory), unit, unit.requester, place, write, CAN)
        cell = found.address[CELL + 2 : 3]
        there = (found.address[63:HOST_WIDTH] == 0) & (cell[CELL - 1 : CELL - PAGE] - private.start <= guest.last)
        kept.append(~found.passes | there)
    return all_of(kept)


def _tables_ours(guest: Platform, private: Platform, unit: Unit, place: Word) -> Word:
    """What the unit reads to translate is the monitor's."""
    read: list[Word] = []

    def noted(address: Word) -> Word:
        read.append(address)
        return reader(private.memory)(address)

    for write in (False, True):
        translate(noted, unit, unit.requester, place, write, CAN)
    remap(noted, unit, unit.requester, _remappable(place[15:0]), Word(32, 0), CAN)
    return all_of(
        ~(address[HOST_WIDTH - 1 : 12] - private.start <= guest.last) for address in read
    )


def _mapped(guest: Platform, private: Platform, unit: Unit, place: Word) -> Word:
    """Every page of the guest's is mapped to itself, for reads and writes, and nothing else."""
    mine = (place[63:HOST_WIDTH] == 0) & (place[HOST_WIDTH - 1 : 12] <= guest.last)
    right = []
    for write in (False, True):
        found = translate(reader(private.memory), unit, unit.requester, place, write, CAN)
        there = found.passes & (found.address[CELL + 2 : 3] == moved(place[CELL + 2 : 3], private.start))
        right.append(ite(mine, there, ~found.passes))
    return all_of(right)


def _remappable(handle: Word) -> Word:
    """The address of a request in remappable format, without a subhandle."""
    low = concat(Word(1, 0), handle[15], Word(2, 0))
    return concat(Word(44, RANGE), handle[14:0], Word(1, 1), low)


def _one_interrupt(guest: Platform, private: Platform, unit: Unit, place: Word) -> Word:
    """Of the interrupt table's entries, those that admit the device give what the monitor expects from it."""
    found = remap(
        reader(private.memory), unit, unit.requester, _remappable(place[15:0]), Word(32, 0), CAN
    )
    return ~found.passes | (found.address == expected(unit))


def _entry(guest: Platform, private: Platform, unit: Unit, place: Word) -> Word:
    found = remap(reader(private.memory), unit, unit.requester, _remappable(unit.handle), Word(32, 0), CAN)
    return found.passes & (found.address == expected(unit))


FABRIC = (
    Duty("destination", "the monitor expects the interrupt at a processor that eight bits can name",
         lambda guest, private, unit, place: unit.destination < 256),
    Duty("source-validation", "the fabric lets through no source-id but the device's own (ACS source validation)",
         lambda guest, private, unit, place: unit.source_validation == 1),
    Duty("redirection", "the fabric sends requests among devices to the unit (ACS redirection)",
         lambda guest, private, unit, place: unit.redirects == 1),
)  # fmt: skip
DMA = (
    Duty("translation", "DMA remapping is on", lambda guest, private, unit, place: unit.translation == 1),
    Duty("confined", "whatever the tables let through of the device's requests goes to the guest's storage", _confined),
    Duty("tables", "the tables that the unit reads are the monitor's storage", _tables_ours),
    Duty("mapped", "every page of the guest's is mapped, to where the second stage has it", _mapped, fidelity=True),
)
INTERRUPTS = (
    Duty("interrupt-remapping", "interrupt remapping is on",
         lambda guest, private, unit, place: unit.interrupt_remapping == 1),
    Duty("no-compatibility", "requests in compatibility format are blocked",
         lambda guest, private, unit, place: unit.compatibility == 0),
    Duty("one-interrupt", "the table's entries that admit the device give what the monitor expects from it",
         _one_interrupt),
    Duty("entry", "the entry of the device's handle gives it", _entry, fidelity=True),
)  # fmt: skip

NO_MESSAGES = Premise(
    "no-transfers-to-messages",
    "the driver moves no data to 0xFEExxxxx, where its own machine would take it as an interrupt",
    lambda guest, device: ~is_message(device.address),
)


def _message(guest: Platform, device: BusMaster, private: Platform, unit: Unit) -> BusMaster:
    """The monitor puts its handle where the driver put address and data."""
    mapped = device.copy()
    on = unit.interrupt_remapping == 1
    mapped.message_address = ite(on, _remappable(unit.handle), Word(64, RANGE << 20) | (unit.destination[7:0].zero_extend(64) << 12))
    mapped.message_data = ite(on, Word(32, 0), unit.vector.zero_extend(32))
    return mapped


def _seen(device: BusMaster, private: Platform, unit: Unit) -> BusMaster:
    """The guest reads back what it wrote."""
    return device.with_changes({"message_address": 0, "message_data": 0})


def _places(guest: Platform, device: BusMaster, private: Platform, unit: Unit) -> tuple[Word, ...]:
    """The address of the transfer, and the index that a message to that address has, with either part of it."""
    handle = concat(Word(48, 0), device.address[2], device.address[19:5])
    subhandle = handle + device.buffer[15:0].zero_extend(64)
    return (device.address, handle, subhandle, unit.handle.zero_extend(64))


# -- the first state ---------------------------------------------------------------------------------

ROOT, CONTEXT, TABLES, VECTORS, START, LAST = 0x1000, 0x2000, 0x3000, 0x6000, 0x100, 1
REQUESTER, HANDLE, VECTOR = 0x0010, 3, 0x51


def _stored(cells: dict[int, int]) -> Memory:
    """Unknown storage in which tables were cleared and these quadwords stored."""
    nothing = Memory(CELL, 64, lambda address: Word(64, 0))
    size = (VECTORS + 0x1000 - ROOT) >> 3
    cleared = Block(Word(CELL, ROOT >> 3), Word(CELL, 0), Word(CELL, size), nothing)
    stores = tuple((Word(CELL, address >> 3), Word(64, value)) for address, value in cells.items())
    return Memory(CELL, 64, "memory@vmm", (cleared, *stores))


def tables(*, pages: int, start: int) -> dict[int, int]:
    """Root, context, and three levels of second-stage tables that map pages from 0 on."""
    bus, function = REQUESTER >> 8, REQUESTER & 0xFF
    cells = {ROOT + 16 * bus: CONTEXT | 1}
    cells |= {CONTEXT + 16 * function: TABLES | 1, CONTEXT + 16 * function + 8: 1}
    cells |= {TABLES: TABLES + 0x1003, TABLES + 0x1000: TABLES + 0x2003}
    cells |= {TABLES + 0x2000 + 8 * page: (start + page) << 12 | 3 for page in range(pages)}
    return cells


def interrupt_table() -> dict[int, int]:
    """Eight entries, of which the device's alone is present."""
    return {VECTORS + 16 * HANDLE: VECTOR << 16 | 1, VECTORS + 16 * HANDLE + 8: 1 << 18 | REQUESTER}


def _first(dropped: frozenset[str], *, dma: bool, interrupts: bool) -> tuple[Platform, Platform, Unit]:
    guest = Platform.reset(last=LAST).with_contents({"memory": "memory"})
    private = Platform.reset(start=START)
    private.memory = _stored({**tables(pages=LAST + 1, start=START), **interrupt_table()})
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
    if "no-compatibility" in dropped:
        unit.compatibility = Word(1, 1)
    return guest, private, unit


def _attachment(name: str, title: str, duties: tuple[Duty, ...], without: frozenset[str] = frozenset()) -> Attachment:
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
        first=None if without else lambda dropped: _first(dropped, dma=dma, interrupts=interrupts),
        rules={rule.id: rule.rule for rule in rules().values() if rule.kind in kinds},
        without=lambda rules: _attachment(name, title, duties, rules),
        source="Intel VT-d architecture specification",
    )


def _off(duty: Duty) -> Duty:
    """That what the duty switches on is off."""
    holds = duty.holds
    return Duty(f"no-{duty.name}", f"not: {duty.text}", lambda *given: ~holds(*given))


DIRECT = _attachment("direct", "no remapping: what the device sends is a host-physical address", (*FABRIC, _off(DMA[0]), _off(INTERRUPTS[0])))
DMA_ONLY = _attachment("dma-remapped", "DMA remapping alone", (*FABRIC, *DMA, _off(INTERRUPTS[0])))
REMAPPED = _attachment("remapped", "DMA remapping and interrupt remapping", (*FABRIC, *DMA, *INTERRUPTS))


def devices() -> Devices[Platform]:
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
            is_message(device.message_address) & (device.message_data[31:11] == 0) & (device.address[2:0] == 0)
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
        message=is_message,
        deliver=lambda state, address, data: compatible(address, data[31:0]),
        interrupt=lambda guest, private, unit, what: what == expected(unit),
        same_interrupt=lambda private, unit, own, what: what == expected(unit),
        notes=(
            "legacy mode: no PASID, no scalable mode, no first stage; no page requests, no device TLBs",
            "the processor's instructions: two references stand for them; `popek safety ia32 --technique vt-x` asks each",
            "message address and data are the driver's to set through the monitor, which gives the device its handle",
        ),
        source="Intel VT-d architecture specification",
    )


__all__ = ["CAN", "TRUE", "BusMaster", "devices", "interrupt_table", "reader", "tables"]
