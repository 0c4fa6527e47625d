"""A guest of VM/370 whose real addresses are the hardware's: its channel programs need no translation.

What is left for the monitor is asked: starting such a program as it is (VM/370 with NOTRANS on), looking through it
before it is started, and a channel that limits every access.  Page 0 of the hardware is what interrupts use, so the
guest's is elsewhere, and what a channel program means by it is not there.
"""

from __future__ import annotations

from functools import partial

from popek.kernel.agents import Agent, Attachment, Devices, DriverPremise, MonitorDuty, RefusedError
from popek.kernel.memory import Memory
from popek.kernel.state import Role, State, word
from popek.kernel.words import Word, concat, ite

from .channel import CCW, COMMAND_CHAINING, SOURCE, NoCopy, S370Channel, absolute, ccw, channel, within
from .deprivileging import VIRTUAL_REAL
from .s370 import build
from .s370_state import S370
from .state import ADDRESS, BLOCK, ENTRY, OFFSET

START_BLOCK, LAST_BLOCK = 0x100, 3
FIRST_BLOCK = 2
"""The first behind page 0."""


class ChannelLimits(State):
    """The first and the last block that the channel reaches, for fetching command words and moving bytes."""

    first = word(BLOCK, role=Role.RESOURCE)
    last = word(BLOCK, role=Role.RESOURCE)


def _block(address: Word) -> Word:
    return address[ADDRESS - 1 : OFFSET]


def _limited(hardware: S370, unit: ChannelLimits, device: S370Channel, address: Word, write: bool) -> Word:
    """The byte itself, within the limits.

    Raises:
        RefusedError: it is outside.
    """
    block = _block(address)
    if (block < unit.first) | (block > unit.last):
        raise RefusedError("outside the channel's limits")
    return absolute(hardware, address, write)


class Looked(State):
    """What the monitor remembers of having looked through a program."""

    started = word(1, role=Role.RESOURCE)  # every command word was good; else the channel was not started


def _good(guest: S370, address: Word) -> tuple[Word, Word]:
    """A command word and the bytes that it moves are the guest's, behind page 0; and no command is chained to it."""
    found = ccw(guest.memory, address)
    data = concat(*found[1:4])
    behind = (_block(address) >= FIRST_BLOCK) & (_block(data) >= FIRST_BLOCK)
    moves = within(guest, data, concat(found[6], found[7])) & within(guest, address, Word(16, CCW))
    return behind & moves, ~found[4][COMMAND_CHAINING]


def _look(
    guest: S370, device: S370Channel, private: S370, unit: Looked, before: S370Channel
) -> tuple[S370, Looked]:
    """Start a program of one or two command words if they are good, and no other."""
    good, ends = _good(guest, device.next)
    then_good, then_ends = _good(guest, device.next + CCW)
    unit = unit.copy()
    unit.started = ite(before.running == 0, good & (ends | (then_good & then_ends)), unit.started)
    return private, unit


def _if_started(guest: S370, device: S370Channel, private: S370, unit: Looked) -> S370Channel:
    mapped = device.copy()
    mapped.running = device.running & unit.started
    return mapped


_NO_PAGE_0 = DriverPremise(
    "page-0",
    "no command word, and nothing that one moves, lies in page 0",
    lambda guest, device: (
        ((_block(device.next) >= FIRST_BLOCK) | (device.count != 0))
        & ((_block(device.data) >= FIRST_BLOCK) | (device.count == 0))
    ),
)


def _first(dropped: frozenset[str]) -> tuple[S370, S370]:
    guest = S370.reset(last_block=LAST_BLOCK)
    private = S370.reset(psw__extended=1, psw__dat=1, psw__io=1, psw__external=1, prefix=LAST_BLOCK + 1 >> 1)
    private.translation = Memory(
        BLOCK, ENTRY, "translation@vmm", ((Word(BLOCK, 0), Word(ENTRY, START_BLOCK << OFFSET)),)
    )
    return guest.with_contents({"memory": "memory"}), private.with_contents({"memory": "memory@vmm"})


def _first_limits(dropped: frozenset[str]) -> tuple[S370, S370, ChannelLimits]:
    first = 0 if "first" in dropped else FIRST_BLOCK
    last = LAST_BLOCK + 1 if "last" in dropped else LAST_BLOCK
    return (*_first(dropped), ChannelLimits.reset(first=first, last=last))


AS_IT_IS = Attachment(
    "as-it-is",
    "the guest's channel program is started as it is (VM/370, NOTRANS on)",
    route=lambda hardware, unit, device, address, write: absolute(hardware, address, write),
    unit=NoCopy,
    services={"SIO": lambda guest, device, private, unit, before: (private, unit)},
    first=lambda dropped: (*_first(dropped), NoCopy.reset()),
    source="VM/370, SET NOTRANS ON",
)
LOOKED_THROUGH = Attachment(
    "looked-through",
    "the monitor looks through the program, and starts it as it is where it keeps to the guest's storage",
    route=AS_IT_IS.route,
    unit=Looked,
    device=_if_started,
    seen=lambda device, private, unit: device.with_changes({"running": 0}),
    services={"SIO": _look},
    first=lambda dropped: (*_first(dropped), Looked.reset()),
    longest=5,
)
LIMITED = Attachment(
    "limited",
    "the program is started as it is, on a channel that refuses what lies outside two limits",
    route=_limited,
    unit=ChannelLimits,
    services=AS_IT_IS.services,
    duties=(
        MonitorDuty(
            "first",
            "the channel's first block lies behind page 0",
            lambda guest, private, unit, place: unit.first >= FIRST_BLOCK,
        ),
        MonitorDuty(
            "last",
            "the channel's last block is the guest's",
            lambda guest, private, unit, place: unit.last <= guest.last_block,
        ),
        MonitorDuty(
            "whole",
            "all of the guest's storage behind page 0 is within the limits",
            lambda guest, private, unit, place: (unit.first == FIRST_BLOCK) & (unit.last == guest.last_block),
            fidelity=True,
        ),
    ),
    premises=(_NO_PAGE_0,),
    first=_first_limits,
    source="like the address limits of System/370-XA's channels (unsure)",
)


def devices() -> Devices[S370]:
    """The machine with its channel, for such a guest."""
    agent: Agent[S370Channel] = channel()
    return Devices(
        "s370-virtual-real",
        "System/370 with a channel, and a guest whose real addresses are the hardware's",
        partial(build, VIRTUAL_REAL),
        VIRTUAL_REAL.name,
        agent,
        absolute,
        {one.name: one for one in (AS_IT_IS, LOOKED_THROUGH, LIMITED)},
        place=ADDRESS - 3,
        forms=("STC", "IC", "SIO"),
        notes=(
            "one device; reads and writes; no data chaining, TIC, skip, indirect addresses, PCI; of the CSW nothing",
            "the channel with limits is ours; System/370's has storage keys alone, and those are the guest's here",
        ),
        source=SOURCE,
    )
