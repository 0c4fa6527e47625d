"""The PDP-11/45 with a device on the UNIBUS that moves blocks by itself (a DR11-B), whose registers are cells.

The memory management of the KT11-C is the processor's: what a device puts on the UNIBUS is a physical address.  The
PDP-11/70, 44 and 24 have a UNIBUS map between devices and storage; one like it is what a monitor needs here.
"""

from __future__ import annotations

from popek.kernel.agents import Agent, Attachment, Bus, Devices, MonitorDuty, RefusedError
from popek.kernel.state import Register, Role, State, bit, bits, memory, register, word
from popek.kernel.words import Word, concat, ite

from .deprivileging import USER, VECTORS
from .machine import build
from .state import CELL_ADDRESS, IO_PAGE, Pdp11

SOURCE = "DR11-B manual; PDP-11/70 Processor Handbook, UNIBUS map"
UNIBUS, MAPPED, PAGES = 18, 22, 5


class Status(Register):
    """The device's status and command register."""

    go = bit(0)
    from_storage = bit(1)  # function bit 1: the direction, as the user's device takes it
    extended = bits(5, 4)  # address bits 17 and 16
    ready = bit(7)
    no_memory = bit(14)  # NEX
    error = bit(15)


class BlockDevice(State):
    """The device's registers."""

    count = word(16)  # words still to move, as a negative number
    address = word(16)  # bits 15 to 1 of the next word's address
    status = register(Status, 16)
    data = word(16)


class UnibusMap(State):
    """The map's registers: one for each 8 KB of the UNIBUS."""

    starts = memory(address=PAGES, cell=MAPPED, role=Role.RESOURCE)  # physical addresses


class NoMap(State):
    """Nothing stands between the device and storage."""


def transfer(device: BlockDevice, bus: Bus) -> None:
    """Move one word; an address without storage ends the transfer with NEX and ERROR."""
    status = device.status
    if (status.go == 0) | (device.count == 0):
        return
    address = concat(status.extended, device.address[15:1], Word(1, 0))
    try:
        if status.from_storage == 1:
            device.data = bus.load(address)
        else:
            bus.store(address, device.data)
    except RefusedError:
        status.no_memory, status.error, status.go, status.ready = 1, 1, 0, 1
        return
    device.address, device.count = device.address + 2, device.count + 1
    finished = device.count == 0
    status.go, status.ready = ite(finished, Word(1, 0), status.go), ite(finished, Word(1, 1), status.ready)


def physical(state: Pdp11, address: Word, write: bool) -> Word:
    """The cell of a UNIBUS address of 18 bits.

    Raises:
        RefusedError: there is no core; the I/O page's registers are left out.
    """
    block = address[17:6]
    if (block > state.last) | (block >= IO_PAGE):
        raise RefusedError("no core there")
    return address[17:1]


def mapped(hardware: Pdp11, unit: UnibusMap, device: BlockDevice, address: Word, write: bool) -> Word:
    """Through the map: the register that bits 17 to 13 choose, and bits 12 to 0.

    Raises:
        RefusedError: there is no core.
    """
    place = unit.starts.load(address[17:13]) + address[12:0].zero_extend(MAPPED)
    if (place[MAPPED - 1 : UNIBUS] != 0) | (address[17:13] == 31):
        raise RefusedError("no core there")
    return physical(hardware, place[UNIBUS - 1 : 0], write)


def _start(private: Pdp11) -> Word:
    """The block where the guest's core begins."""
    return private.space_par.load(Word(5, 0o30))


def _whole(guest: Pdp11, page: Word) -> Word:
    """8 KB that lie wholly in the guest's core (width 1)."""
    last = page.zero_extend(13) * 128 + 127
    return last <= guest.last.zero_extend(13)


def _placed(guest: Pdp11, private: Pdp11, unit: UnibusMap, place: Word) -> Word:
    there = _start(private).zero_extend(MAPPED) * 64 + place.zero_extend(MAPPED) * 8192
    return ~_whole(guest, place) | (unit.starts.load(place) == there)


def _nowhere(guest: Pdp11, private: Pdp11, unit: UnibusMap, place: Word) -> Word:
    return _whole(guest, place) | (unit.starts.load(place) == 0o17000000)


START, LAST = 0o2000, 0o377  # blocks: 16 KB for the guest, at 64 KB


def _first(dropped: frozenset[str]) -> tuple[Pdp11, Pdp11]:
    """A guest of 16 KB behind the vectors."""
    guest = Pdp11.reset(last=0o400 + 0o37 if "pages" in dropped else LAST).with_contents({"memory": "memory"})
    private = Pdp11.reset(ps__current=USER, ps__previous=USER, mme=1)
    private.space_par = private.space_par.store(Word(5, 0o30), Word(12, START))
    vectors = tuple((Word(CELL_ADDRESS, (vector + 2) // 2), Word(16, 0)) for vector in VECTORS)
    private = private.with_contents({"memory": "memory@vmm"})
    private._memories["memory"] = type(private.memory)(CELL_ADDRESS, 16, "memory@vmm", vectors)
    return guest, private


def _first_mapped(dropped: frozenset[str]) -> tuple[Pdp11, Pdp11, UnibusMap]:
    guest, private = _first(dropped)
    unit, start = UnibusMap.reset().with_contents({"starts": "starts@unit"}), int(_start(private)) * 64
    for page in range(32):
        inside = page * 128 + 127 <= int(guest.last)
        there = start + page * 8192 if inside else 0o17000000
        if (inside and "placed" in dropped) or (not inside and "nowhere" in dropped):
            there = 0o20000 if inside else page * 8192
        unit.starts = unit.starts.store(Word(PAGES, page), Word(MAPPED, there))
    return guest, private, unit


DIRECT = Attachment(
    "direct",
    "the device as it is: its addresses are physical",
    route=lambda hardware, unit, device, address, write: physical(hardware, address, write),
    unit=NoMap,
    first=lambda dropped: (*_first(dropped), NoMap.reset()),
)
BEHIND_MAP = Attachment(
    "mapped",
    "the device behind a UNIBUS map, which the monitor sets",
    route=mapped,
    unit=UnibusMap,
    duties=(
        MonitorDuty(
            "placed", "the register of each 8 KB that are wholly the guest's points to them", _placed
        ),
        MonitorDuty("nowhere", "every other register points where there is no core", _nowhere),
        MonitorDuty(
            "pages",
            "the guest's core is a number of whole 8 KB",
            lambda guest, private, unit, place: guest.last[6:0] == 127,
            fidelity=True,
        ),
    ),
    places=lambda guest, device, private, unit: (concat(device.status.extended, device.address[15:13]),),
    first=_first_mapped,
    source=SOURCE,
)


def devices() -> Devices[Pdp11]:
    """The machine with its device."""
    agent = Agent(
        "dr11-b",
        "a block-transfer device on the UNIBUS",
        BlockDevice,
        {"transfer": transfer},
        {
            "count": "MOV #n, @#172410",
            "address": "MOV #n, @#172412",
            "status": "MOV #n, @#172414",
            "data": "the user's device: data",
        },
        source=SOURCE,
    )
    return Devices(
        "pdp11-45",
        "the PDP-11/45 with a block-transfer device on the UNIBUS",
        build,
        "ring-deprivileging",
        agent,
        physical,
        {one.name: one for one in (DIRECT, BEHIND_MAP)},
        place=PAGES,
        forms=("MOV R, (R)", "MOV (R), R"),
        notes=(
            "a UNIBUS map was made for the 11/70, 44 and 24, not for the 11/45: what one like it would give",
            "a device's request to the I/O page ends as one to core that is none; interrupts of the device",
            "DR11-B: function bit 1 is taken for the direction; maintenance, attention, burst mode are left out",
        ),
        source=SOURCE,
    )
