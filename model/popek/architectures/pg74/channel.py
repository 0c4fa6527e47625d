"""The paper's machine with one channel, which the paper leaves out: a device that reads and writes E by itself.

The channel knows nothing of R: its addresses are locations of E.  A monitor that gives it to a guest needs a pair
like R for it.
"""

from __future__ import annotations

from popek.kernel.agents import Agent, Attachment, Bus, Devices, MonitorDuty, RefusedError
from popek.kernel.memory import Memory
from popek.kernel.state import Role, State, word
from popek.kernel.words import Word

from .machine import build
from .state import ADDRESS, WORD, Pg74
from .trap_and_emulate import techniques

COUNT = 4


class Channel(State):
    """The channel's registers, as its driver sees them."""

    address = word(ADDRESS)  # of the next word in E
    count = word(COUNT)  # words still to move
    buffer = word(WORD)  # the word at the device
    into_storage = word(1)  # 1: from the device into E
    check = word(1)  # the address meant no location


class Relocated(State):
    """The channel's own relocation pair."""

    start = word(ADDRESS, role=Role.RESOURCE)
    last = word(ADDRESS, role=Role.RESOURCE)


class NoUnit(State):
    """Nothing stands between the channel and E."""


def transfer(channel: Channel, bus: Bus) -> None:
    """Move one word between E and the buffer; a location that does not exist ends the transfer with a check."""
    if channel.count == 0:
        return
    try:
        if channel.into_storage == 1:
            bus.store(channel.address, channel.buffer)
        else:
            channel.buffer = bus.load(channel.address)
    except RefusedError:
        channel.check, channel.count = Word(1, 1), Word(channel.count.width, 0)
        return
    channel.address, channel.count = channel.address + 1, channel.count - 1


def exists(state: Pg74, address: Word, write: bool) -> Word:
    """The location itself.

    Raises:
        RefusedError: E is smaller.
    """
    if address > state.last:
        raise RefusedError("no such location")
    return address


def relocated(hardware: Pg74, unit: Relocated, channel: Channel, address: Word, write: bool) -> Word:
    """The channel's pair: an address beyond `last` means no location; others are moved by `start`.

    Raises:
        RefusedError: beyond it.
    """
    if address > unit.last:
        raise RefusedError("outside the channel's bounds")
    return address + unit.start


START, LAST = 0x40, 0x1F


NEW_PSW = 0x2_00FF
"""In location 1: a trap leads to supervisor mode, to location 2, with all of storage."""


def _first(dropped: frozenset[str]) -> tuple[Pg74, Pg74, State]:
    """A guest of 32 words at location 64."""
    guest = Pg74.reset(last=LAST).with_contents({"memory": "memory"})
    private = Pg74.reset(relocation__base=START)
    private.memory = Memory(ADDRESS, WORD, "memory@vmm", ((Word(ADDRESS, 1), Word(WORD, NEW_PSW)),))
    return guest, private, NoUnit.reset()


def _first_relocated(dropped: frozenset[str]) -> tuple[Pg74, Pg74, State]:
    guest, private, _ = _first(dropped)
    start, last = (0 if "start" in dropped else START), (0xFF if "last" in dropped else LAST)
    return guest, private, Relocated.reset(start=start, last=last)


DIRECT = Attachment(
    "direct",
    "the channel as it is: its addresses are real locations",
    route=lambda hardware, unit, channel, address, write: exists(hardware, address, write),
    unit=NoUnit,
    first=_first,
)

RELOCATED = Attachment(
    "relocated",
    "the channel behind a relocation pair of its own, which the monitor sets",
    route=relocated,
    unit=Relocated,
    duties=(
        MonitorDuty(
            "start",
            "the channel's start is where the guest's storage begins",
            lambda guest, private, unit, place: unit.start == private.relocation.base,
        ),
        MonitorDuty(
            "last",
            "the channel's last location is the guest's",
            lambda guest, private, unit, place: unit.last == guest.last,
        ),
    ),
    first=_first_relocated,
)


def devices() -> Devices[Pg74]:
    """The machine with its channel."""
    agent = Agent(
        "channel",
        "a channel that moves words between a device and E",
        Channel,
        {"transfer": transfer},
        {name: f"the driver sets {name}" for name in ("address", "count", "buffer", "into_storage")},
        source="after the channels of the paper's time",
    )
    return Devices(
        "pg74",
        "Popek and Goldberg's machine with one channel",
        build,
        next(iter(techniques())),
        agent,
        exists,
        {one.name: one for one in (DIRECT, RELOCATED)},
        place=1,
        notes=("the paper leaves out input and output; the channel is ours, made like those of its time",),
        source="Popek and Goldberg 1974",
    )
