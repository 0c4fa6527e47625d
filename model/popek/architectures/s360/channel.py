"""System/370 with a channel: SIO, channel address word, channel command words with real addresses.

The addresses in a channel program are absolute: no translation is made of them.  VM/370 lets SIO trap, copies the
channel program with its addresses translated, and starts the copy.
"""

from __future__ import annotations

from functools import partial

from popek.kernel.agents import Agent, Attachment, Bus, Devices, DriverPremise, MonitorDuty, RefusedError
from popek.kernel.memory import Memory
from popek.kernel.state import Role, State, word
from popek.kernel.words import Word, concat, ite

from .deprivileging import _inside, _start
from .s370 import build
from .s370_state import S370
from .state import ADDRESS, BLOCK, ENTRY, OFFSET

SOURCE = "GA22-7000, System/370 Principles of Operation, input/output operations; Creasy 1981 (VM/370)"
CAW, CCW = 72, 8
ENTRIES = 12
"""Bits of the number of CCWs that the monitor's copy has room for."""
COMMAND_CHAINING = 6  # bit 33 of the CCW: bit 6 of the flags, counted from the right
READ = 2


class S370Channel(State):
    """A channel and its device."""

    next = word(ADDRESS)  # of the next CCW
    command = word(8)
    data = word(ADDRESS)  # of the next byte
    flags = word(8)
    count = word(16)  # bytes still to move
    running = word(1)
    program_check = word(1)
    buffer = word(8)  # the byte at the device


class Copy(State):
    """What the monitor remembers of the copy it made."""

    place = word(ADDRESS, role=Role.RESOURCE)  # of the copy
    original = word(ADDRESS, role=Role.RESOURCE)  # of the guest's program
    length = word(ENTRIES, role=Role.RESOURCE)  # CCWs that there is room for; one more is always invalid


class NoCopy(State):
    """The monitor starts the guest's program as it is."""


def start(channel: S370Channel, bus: Bus) -> None:
    """SIO: the CAW says where the program is."""
    if channel.running == 1:
        return
    channel.next = concat(*(bus.load(Word(ADDRESS, CAW + i)) for i in (1, 2, 3)))
    channel.running, channel.program_check, channel.count = Word(1, 1), Word(1, 0), Word(16, 0)


def fetch(channel: S370Channel, bus: Bus) -> None:
    """The next CCW; a program check where there is none, or it makes no sense."""
    if (channel.running == 0) | (channel.count != 0):
        return
    try:
        found = [bus.load(concat(channel.next[ADDRESS - 1 : 3], Word(3, i))) for i in range(CCW)]
    except RefusedError:
        _check(channel)
        return
    count = concat(found[6], found[7])
    if (channel.next[2:0] != 0) | (found[0][3:0] == 0) | (count == 0):
        _check(channel)
        return
    channel.command, channel.data, channel.flags, channel.count = (
        found[0],
        concat(*found[1:4]),
        found[4],
        count,
    )
    channel.next = channel.next + CCW


def move(channel: S370Channel, bus: Bus) -> None:
    """One byte, into storage for a read, from it for a write."""
    if (channel.running == 0) | (channel.count == 0):
        return
    try:
        if channel.command[1:0] == READ:
            bus.store(channel.data, channel.buffer)
        else:
            channel.buffer = bus.load(channel.data)
    except RefusedError:
        _check(channel)
        return
    channel.data, channel.count = channel.data + 1, channel.count - 1
    channel.running = ite(
        (channel.count == 0) & ~channel.flags[COMMAND_CHAINING], Word(1, 0), channel.running
    )


def _check(channel: S370Channel) -> None:
    channel.program_check, channel.running, channel.count = Word(1, 1), Word(1, 0), Word(16, 0)


def absolute(state: S370, address: Word, write: bool) -> Word:
    """The byte itself.

    Raises:
        RefusedError: there is less storage.
    """
    if address[ADDRESS - 1 : OFFSET] > state.last_block:
        raise RefusedError("no such storage")
    return address


def _bytes(guest: S370) -> Word:
    """The first address behind the guest's storage (25 bits)."""
    return concat(guest.last_block.zero_extend(BLOCK + 1) + 1, Word(OFFSET, 0))


def within(guest: S370, address: Word, count: Word) -> Word:
    """So many bytes from there on exist (width 1)."""
    end = address.zero_extend(25) + count.zero_extend(25)
    return end <= _bytes(guest)


def _offset(private: S370) -> Word:
    """How far the guest's storage is moved."""
    return concat(_start(private), Word(OFFSET, 0))


def ccw(storage: Memory, address: Word) -> list[Word]:
    """The eight bytes of a command word."""
    return [storage.load(address + i) for i in range(CCW)]


def _translate(
    without: frozenset[str], guest: S370, channel: S370Channel, private: S370, unit: Copy, before: S370Channel
) -> tuple[S370, Copy]:
    """Copy the guest's channel program; a CCW that leaves the guest's storage, or does not fit, becomes invalid.

    Nothing is copied while the channel runs.
    """
    started, storage, unit = before.running == 0, private.memory, unit.copy()
    unit.original = ite(started, channel.next, unit.original)

    def copied(address: Word) -> Word:
        """A byte of storage after the copy was made; the copy may be of any length."""
        distance = address - unit.place
        number = concat(distance[ADDRESS - 1 : 3], Word(3, 0))
        found = ccw(guest.memory, channel.next + number)
        data, count = concat(*found[1:4]), concat(found[6], found[7])
        good = within(guest, channel.next + number, Word(16, CCW)) & (channel.next[2:0] == 0)
        if "bounds" not in without:
            good = good & within(guest, data, count)
        command = ite(good & (number < _bytes_of(unit)), found[0], Word(8, 0))
        moved = data if "relocation" in without else data + _offset(private)
        byte = found[7]
        for i, other in enumerate([command, moved[23:16], moved[15:8], moved[7:0], *found[4:7]]):
            byte = ite(distance[2:0] == i, other, byte)
        return ite(started & (number <= _bytes_of(unit)), byte, storage.load(address))

    private = private.copy()
    private.memory = Memory(ADDRESS, 8, copied)
    return private, unit


def _bytes_of(unit: Copy) -> Word:
    """The distance of the copy's last CCW, which is invalid."""
    return concat(Word(ADDRESS - ENTRIES - 3, 0), unit.length, Word(3, 0))


def _hardware(guest: S370, channel: S370Channel, private: S370, unit: Copy) -> S370Channel:
    mapped = channel.copy()
    mapped.next = channel.next - unit.original + unit.place
    mapped.data = channel.data + _offset(private)
    return mapped


def _in_storage(guest: S370, channel: S370Channel) -> Word:
    """The next CCW is invalid, or all that it moves exists."""
    found = ccw(guest.memory, concat(channel.next[ADDRESS - 1 : 3], Word(3, 0)))
    exists = within(guest, channel.next, Word(16, CCW))
    whole = within(guest, concat(*found[1:4]), concat(found[6], found[7]))
    return (channel.running == 0) | (channel.count != 0) | ~exists | (found[0][3:0] == 0) | whole


def _unmapped(channel: S370Channel, private: S370, unit: Copy) -> S370Channel:
    """The guest's channel for the hardware's."""
    mapped = channel.copy()
    mapped.next = channel.next - unit.place + unit.original
    mapped.data = channel.data - _offset(private)
    return mapped


def _seen(channel: S370Channel, private: S370, unit: Copy) -> S370Channel:
    """A guest sees the status, and what arrives; addresses it knows from its own program."""
    return channel.with_changes({"next": 0, "data": 0})


def _apart(guest: S370, private: S370, unit: Copy, place: Word) -> Word:
    """The copy is the monitor's, on a doubleword, and does not go round the end."""
    ours = (place > unit.length) | ~_inside(guest, private, _entry(unit, place)[ADDRESS - 1 : OFFSET])
    end = unit.place.zero_extend(ADDRESS + 1) + _bytes_of(unit).zero_extend(ADDRESS + 1) + (CCW - 1)
    return ours & (unit.place[2:0] == 0) & ~end[ADDRESS]


def _entry(unit: Copy, number: Word) -> Word:
    """The address of a CCW of the copy."""
    return unit.place + concat(Word(ADDRESS - ENTRIES - 3, 0), number, Word(3, 0))


def _inbound(guest: S370, private: S370, unit: Copy, place: Word) -> Word:
    """Each CCW of the copy is invalid, or moves bytes of the guest's."""
    found = ccw(private.memory, _entry(unit, place))
    data, count = concat(*found[1:4]) - _offset(private), concat(found[6], found[7])
    moves = (place < unit.length) & within(guest, data, count)
    return (place > unit.length) | (found[0][3:0] == 0) | moves


def _reached(guest: S370, channel: S370Channel, private: S370, unit: Copy) -> Word:
    """The next CCW is one of the copy's, and what is moved is the guest's."""
    distance = channel.next - unit.place
    inside = (distance[2:0] == 0) & (distance <= _bytes_of(unit))
    moves = within(guest, channel.data - _offset(private), channel.count)
    return (channel.running == 0) | (inside & ((channel.count == 0) | (moves & (distance != 0))))


def _held(private: S370, unit: Copy, place: Word) -> list[Word]:
    """The guest's own program, as the copy keeps it."""
    image = ccw(private.memory, _entry(unit, place))
    moved = concat(*image[1:4]) - _offset(private)
    return [unit.original, unit.length, image[0], moved, *image[4:]]


def _places(guest: S370, channel: S370Channel, private: S370, unit: Copy) -> tuple[Word, ...]:
    """The number of the next CCW."""
    return ((channel.next - unit.original)[ENTRIES + 2 : 3],)


START_BLOCK, LAST_BLOCK, COPY, LENGTH = 0x100, 1, 0x4000, 8


def _first(dropped: frozenset[str]) -> tuple[S370, S370]:
    guest = S370.reset(last_block=LAST_BLOCK)
    private = S370.reset(psw__extended=1, psw__dat=1, psw__io=1, psw__external=1, prefix=1)
    private.translation = Memory(
        BLOCK, ENTRY, "translation@vmm", ((Word(BLOCK, 0), Word(ENTRY, START_BLOCK << OFFSET)),)
    )
    return guest.with_contents({"memory": "memory"}), private.with_contents({"memory": "memory@vmm"})


def _first_copy(dropped: frozenset[str]) -> tuple[S370, S370, Copy]:
    guest, private = _first(dropped)
    cleared = tuple((Word(ADDRESS, COPY + i), Word(8, 0)) for i in range((LENGTH + 1) * CCW))
    private.memory = Memory(ADDRESS, 8, "memory@vmm", cleared)
    return guest, private, Copy.reset(place=COPY, length=LENGTH)


_IN_STORAGE = DriverPremise(
    "in-storage", "every command word of a channel program moves bytes of the guest's storage", _in_storage
)
UNTRANSLATED = Attachment(
    "untranslated",
    "the guest's channel program is started as it is",
    route=lambda hardware, unit, channel, address, write: absolute(hardware, address, write),
    unit=NoCopy,
    services={"SIO": lambda guest, channel, private, unit, before: (private, unit)},
    first=lambda dropped: (*_first(dropped), NoCopy.reset()),
)
RULES = {
    "bounds": "a command word that moves what is not the guest's becomes invalid in the copy",
    "relocation": "the addresses of the copy are moved to where the guest's storage is",
}


def _translated(without: frozenset[str] = frozenset()) -> Attachment:
    return Attachment(
        "translated",
        "SIO traps, and the monitor starts a copy of the channel program with its addresses translated",
        route=lambda hardware, unit, channel, address, write: absolute(hardware, address, write),
        unit=Copy,
        device=_hardware,
        seen=_seen,
        unmapped=_unmapped,
        services={"SIO": partial(_translate, without)},
        duties=(
            MonitorDuty("apart", "the copy lies in the monitor's storage", _apart),
            MonitorDuty(
                "inbound", "each command word of the copy is invalid or moves bytes of the guest's", _inbound
            ),
        ),
        reached=_reached,
        reached_text="while the channel runs, its next command word is the copy's, and what it moves is the guest's",
        places=_places,
        held=_held,
        premises=(_IN_STORAGE,),
        rules=RULES,
        without=_translated,
        first=_first_copy,
        source="Creasy 1981 (VM/370)",
    )


def channel() -> Agent[S370Channel]:
    """The channel with its device."""
    return Agent(
        "channel",
        "a selector channel with one device",
        S370Channel,
        {"SIO": start, "fetch": fetch, "move": move},
        {"buffer": "the device: data"},
        source=SOURCE,
    )


def devices() -> Devices[S370]:
    """The machine with its channel."""
    return Devices(
        "s370",
        "System/370 with a channel",
        build,
        next(iter(build().techniques)),
        channel(),
        absolute,
        {one.name: one for one in (UNTRANSLATED, _translated())},
        place=ENTRIES,
        forms=("STC", "IC", "SIO"),
        notes=(
            "one device; reads and writes; no data chaining, TIC, skip, indirect addresses, PCI; of the CSW nothing",
            f"the monitor's copy has room for any number of command words below {1 << ENTRIES}; no protection keys",
            "a virtual = real guest is s370-virtual-real: this map moves all of a guest's storage",
        ),
        source=SOURCE,
    )
