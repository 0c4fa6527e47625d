"""A network device that guests share by virtual functions with queues of their own: which registers keep them apart.

No vendor's registers.  A queue belongs to a function by the queue map; what a queue moves bears its function's
source-id, for which a remapping unit (in one step here, in full in `architectures/vtd`) has one window of storage; a
packet that arrives goes to the queue that the filters name for its address.  The driver of a virtual function sets what
the function's window of registers has.  A packet that waits for an address is a quadword of storage: the guest's for
the guest's own address, the monitor's for every other.
"""

from __future__ import annotations

from popek.architectures.vtd.assignment import own_route
from popek.architectures.vtd.platform import CELL, HOST_WIDTH, IN_PAGE, PAGE, Pc, build
from popek.kernel.agents import Agent, Attachment, Bus, Devices, DriverPremise, MonitorDuty, RefusedError
from popek.kernel.memory import Memory
from popek.kernel.state import Role, State, memory, word
from popek.kernel.words import Word, concat, ite

FUNCTION, QUEUE, STATION, QUEUES = 2, 4, 4, 4
PACKET, WIRE = 0xFFF, 0xFFE
"""Bits 63:52 of what the model's bus takes as a packet that arrives, and as one that is sent."""


class VirtualFunction(State):
    """What the driver of one virtual function has; the latest write to each table, where its window has that."""

    queue = word(QUEUE)  # whose doorbell is rung, counted from the function's first
    buffer = word(64)  # the address in the queue's next descriptor
    into_storage = word(1)
    data = word(64)
    station = word(STATION, reset=1)  # the function's own address on the network
    receiver = word(STATION)  # whom the packet that arrives is for
    sender = word(STATION)  # what the driver puts into a packet that it sends
    map_queue = word(QUEUE)
    map_function = word(FUNCTION)
    filter_station = word(STATION)
    filter_queue = word(QUEUE)


class SharedDevice(State):
    """The device's tables, and what the function's window gives to its driver."""

    function = word(FUNCTION, role=Role.RESOURCE)  # the guest's
    base = word(QUEUE, role=Role.RESOURCE)  # the first of its queues
    station = word(STATION, role=Role.RESOURCE)  # the address that the monitor gave it
    owner = memory(address=QUEUE, cell=FUNCTION, role=Role.RESOURCE)  # the queue map
    filters = memory(address=STATION, cell=QUEUE, role=Role.RESOURCE)
    start = memory(
        address=FUNCTION, cell=PAGE, role=Role.RESOURCE
    )  # the remapping unit's window by source-id
    last = memory(address=FUNCTION, cell=PAGE, role=Role.RESOURCE)
    doorbells = word(1, role=Role.RESOURCE)  # 1: the window has those of all queues
    map_open = word(1, role=Role.RESOURCE)  # 1: the window has the queue map
    filters_open = word(1, role=Role.RESOURCE)  # 1: the window has the filters
    sender_open = word(1, role=Role.RESOURCE)  # 1: packets leave with any sender's address


# -- the device -------------------------------------------------------------------------------------


def transfer(device: VirtualFunction, bus: Bus) -> None:
    """A queue moves a quadword between storage and the device."""
    if device.into_storage == 1:
        bus.store(device.buffer, device.data)
    else:
        device.data = bus.load(device.buffer)


def receive(device: VirtualFunction, bus: Bus) -> None:
    """A packet arrives, if it comes to this function."""
    own = device.receiver == device.station
    device.data = bus.load(concat(Word(12, PACKET), own, Word(48 - STATION, 0), device.receiver, Word(3, 0)))


def send(device: VirtualFunction, bus: Bus) -> None:
    """A packet leaves."""
    bus.store(concat(Word(12, WIRE), Word(52, 0)), device.sender.zero_extend(64))


def on_its_own(state: Pc, address: Word, write: bool) -> Word:
    """A device that the guest has to itself: it takes packets for its own address.

    Raises:
        RefusedError: there is no such storage, or the packet is for another.
    """
    if address[63:52] == PACKET:
        if address[51] == 0:
            raise RefusedError("a packet for another")
        return address[STATION + 2 : 3].zero_extend(CELL)
    return own_route(state, address, write)


def _owner(unit: SharedDevice, device: VirtualFunction, queue: Word) -> Word:
    """The function whose queue it is; what the guest wrote counts where its window has the queue map."""
    written = (unit.map_open == 1) & (queue == device.map_queue)
    return ite(written, device.map_function, unit.owner.load(queue))


def _queue_for(unit: SharedDevice, device: VirtualFunction, station: Word) -> Word:
    written = (unit.filters_open == 1) & (station == device.filter_station)
    return ite(written, device.filter_queue, unit.filters.load(station))


def shared(hardware: Pc, unit: SharedDevice, device: VirtualFunction, address: Word, write: bool) -> Word:
    """Through the queue's owner and its window; or by the filters.

    Raises:
        RefusedError: the doorbell is not in the function's window, the unit has a fault, or the packet is another's.
    """
    if address[63:52] == PACKET:
        station = address[STATION + 2 : 3]
        if _owner(unit, device, _queue_for(unit, device, station)) != unit.function:
            raise RefusedError("a packet for another function")
        cell = station.zero_extend(CELL)
        return ite(station == unit.station, cell + concat(hardware.start, Word(IN_PAGE, 0)), cell)
    if (unit.doorbells == 0) & (device.queue >= QUEUES):
        raise RefusedError("no such doorbell in the function's window")
    function, page = _owner(unit, device, device.queue + unit.base), address[HOST_WIDTH - 1 : 12]
    if (address[63:HOST_WIDTH] != 0) | (page > unit.last.load(function)):
        raise RefusedError("a fault of the remapping unit")
    return concat(page + unit.start.load(function), address[11:3])


def _sent(hardware: Pc, unit: SharedDevice, device: VirtualFunction, address: Word, data: Word) -> Word:
    """The sender that the wire sees.

    Raises:
        RefusedError: it is not the function's own, and the device minds.
    """
    if (unit.sender_open == 0) & (data[STATION - 1 : 0] != unit.station):
        raise RefusedError("another's address as the sender")
    return data[STATION - 1 : 0]


def _own_sent(state: Pc, address: Word, data: Word) -> Word:
    return data[STATION - 1 : 0]


# -- the monitor ------------------------------------------------------------------------------------


def _window(guest: Pc, private: Pc, unit: SharedDevice, place: Word) -> Word:
    return (unit.start.load(unit.function) == private.start) & (unit.last.load(unit.function) == guest.last)


def _queues(guest: Pc, private: Pc, unit: SharedDevice, place: Word) -> Word:
    distance = place[QUEUE - 1 : 0] - unit.base
    return (distance >= QUEUES) | (unit.owner.load(place[QUEUE - 1 : 0]) == unit.function)


def _filters(guest: Pc, private: Pc, unit: SharedDevice, place: Word) -> Word:
    station = place[STATION - 1 : 0]
    to_it = unit.owner.load(unit.filters.load(station)) == unit.function
    return ~to_it | (station == unit.station)


def _delivered(guest: Pc, private: Pc, unit: SharedDevice, place: Word) -> Word:
    return unit.owner.load(unit.filters.load(unit.station)) == unit.function


DUTIES = (
    MonitorDuty("window", "the remapping unit has the guest's storage for the function's source-id", _window),
    MonitorDuty("queues", "the function's queues are the function's in the queue map", _queues),
    MonitorDuty("doorbells", "the function's window has the doorbells of its own queues alone",
                lambda guest, private, unit, place: unit.doorbells == 0),
    MonitorDuty("queue-map", "the queue map is the physical function's: no virtual function's window has it",
                lambda guest, private, unit, place: unit.map_open == 0),
    MonitorDuty("filtered", "the filters bring the function's queues packets for the guest's address alone", _filters),
    MonitorDuty("filters", "the filters are the physical function's: no virtual function's window has them",
                lambda guest, private, unit, place: unit.filters_open == 0),
    MonitorDuty("sender", "the device lets out no packet with another's address as the sender",
                lambda guest, private, unit, place: unit.sender_open == 0),
    MonitorDuty("delivered", "the filters bring the function the packets for the guest's address", _delivered,
                fidelity=True),
)  # fmt: skip

START, LAST, BASE, MINE, OTHERS = 0x100, 1, 4, 2, 3


def _first(dropped: frozenset[str]) -> tuple[Pc, Pc, SharedDevice]:
    """The guest has function 2 with queues 4 to 7; the others are function 3's, another guest's."""
    guest = Pc.reset(last=LAST).with_contents({"memory": "memory"})
    private = Pc.reset(start=START).with_contents({"memory": "memory@vmm"})
    open_ = {
        "doorbells": "doorbells",
        "queue-map": "map_open",
        "filters": "filters_open",
        "sender": "sender_open",
    }
    unit = SharedDevice.reset(function=MINE, base=BASE, station=1)
    unit = unit.with_changes({register: 1 for name, register in open_.items() if name in dropped})
    owners = {number: MINE if number - BASE in range(QUEUES) else OTHERS for number in range(1 << QUEUE)}
    if "queues" in dropped:
        owners[BASE + 1] = OTHERS
    every = dict.fromkeys(range(1 << STATION), 12) | {1: BASE}
    if "filtered" in dropped:
        every[2] = BASE
    if "delivered" in dropped:
        every[1] = 12
    width = LAST + 1 if "window" in dropped else LAST
    unit.owner = _table("owner", QUEUE, FUNCTION, owners)
    unit.filters = _table("filters", STATION, QUEUE, every)
    unit.start = _table("start", FUNCTION, PAGE, {MINE: START, OTHERS: 0x200})
    unit.last = _table("last", FUNCTION, PAGE, {MINE: width, OTHERS: LAST})
    return guest, private, unit


def _table(name: str, address: int, cell: int, values: dict[int, int]) -> Memory:
    """A table with every entry set."""
    stores = tuple((Word(address, place), Word(cell, values.get(place, 0))) for place in range(1 << address))
    return Memory(address, cell, f"{name}@unit", stores)


def _places(guest: Pc, device: VirtualFunction, private: Pc, unit: SharedDevice) -> tuple[Word, ...]:
    return ((device.queue + unit.base).zero_extend(64), device.receiver.zero_extend(64))


SHARED = Attachment(
    "virtual-function",
    "one of the device's virtual functions; the physical function is the monitor's",
    route=shared,
    unit=SharedDevice,
    deliver=_sent,
    duties=DUTIES,
    reached=lambda guest, device, private, unit: device.station == unit.station,
    reached_text="the function's address on the network is the one that the monitor gave it",
    places=_places,
    premises=(
        DriverPremise(
            "own-queues",
            "the driver rings the doorbells of its four queues",
            lambda guest, device: device.queue < QUEUES,
        ),
        DriverPremise(
            "own-sender",
            "the driver sends under the function's own address",
            lambda guest, device: device.sender == device.station,
        ),
    ),
    held=lambda private, unit, place: (unit.base, unit.station),
    first=_first,
    source="PCI-SIG, Single Root I/O Virtualization and Sharing; no vendor's registers",
)


def devices() -> Devices[Pc]:
    """A PC with a network device that has virtual functions."""
    agent = Agent(
        "virtual-function",
        "a virtual function of a network device, with four queues",
        VirtualFunction,
        {"transfer": transfer, "receive": receive, "send": send},
        {
            "queue": "the driver rings the doorbell of queue",
            "buffer": "a descriptor with address",
            "into_storage": "a descriptor with direction",
            "receiver": "a packet comes for address",
            "sender": "a packet to send with sender",
            "map_queue": "the driver writes to the queue map, queue",
            "map_function": "the driver writes to the queue map, function",
            "filter_station": "the driver writes to the filters, address",
            "filter_queue": "the driver writes to the filters, queue",
        },
        exists=lambda device: (device.buffer[63:52] < WIRE) & (device.buffer[2:0] == 0),
        source="PCI-SIG SR-IOV",
    )
    return Devices(
        "sriov",
        "a network device that guests share by virtual functions",
        build,
        "second-stage",
        agent,
        on_its_own,
        {"virtual-function": SHARED},
        place=64,
        longest=1,
        message=lambda address: address[63:52] == WIRE,
        deliver=_own_sent,
        interrupt=lambda guest, private, unit, given: given == unit.station,
        notes=(
            "assumed: the device does what its tables say; firmware, mailbox and resets are the monitor's",
            "assumed: the function's source-id is its own (ACS), and its interrupts are remapped: as asked of x86",
            "'interrupts' are packets here: every one that leaves bears the sender's own address",
            "16 queues, 16 network addresses, 4 functions; bandwidth, VLANs, promiscuous modes, time are left out",
        ),
        source="PCI-SIG, Single Root I/O Virtualization and Sharing; no vendor's registers",
    )
