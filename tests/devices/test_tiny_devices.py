"""A machine with two cells and a channel: what the solver says is what trying every state says."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import attrs
import pytest

from popek.architectures.pg74.channel import NoUnit, devices, exists, relocated, transfer
from popek.checks.devices import CHANGES, FIDELITY, LEARNS, Attached
from popek.checks.verdict import Status
from popek.kernel.agents import Agent, Attachment, MonitorDuty
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.state import Role, State, memory, word
from popek.kernel.technique import Technique
from popek.kernel.words import Word, ite

CELLS = range(2)


class Tiny(State):
    mode = word(1, role=Role.MODE)
    start = word(1, role=Role.RESOURCE)
    last = word(1, role=Role.HIDDEN)
    memory = memory(address=1, cell=1)


class TinyChannel(State):
    address = word(1)
    count = word(1)
    buffer = word(1)
    into_storage = word(1)
    check = word(1)


class TinyUnit(State):
    start = word(1, role=Role.RESOURCE)
    last = word(1, role=Role.RESOURCE)


def inside(guest: Tiny, private: Tiny, address: Word) -> Word:
    return address - private.start <= guest.last


def mapped(guest: Tiny, private: Tiny) -> Tiny:
    hardware = private.copy()
    hardware.last = Word(1, 1)
    ours, others, start = guest.memory, private.memory, private.start
    hardware.memory = Memory(
        1, 1, lambda a: ite(inside(guest, private, a), ours.load(a - start), others.load(a))
    )
    return hardware


def technique() -> Technique[Tiny]:
    return Technique(
        "moved", "moved", mapped, ("start",), (), lambda state: state.mode == 1,
        private=lambda guest, private: ~(private.start & guest.last),
        owns_address=lambda guest, private, address: ~inside(guest, private, address),
        guest_address=lambda private, address: address + private.start,
    )  # fmt: skip


def tiny() -> Machine[Tiny]:
    return Machine(
        "tiny", "tiny", Tiny, lambda s: s.mode == 0, lambda s: s.mode == 1, techniques={"moved": technique()}
    )


START = MonitorDuty("start", "", lambda guest, private, unit, place: unit.start == private.start)
LAST = MonitorDuty("last", "", lambda guest, private, unit, place: unit.last == guest.last)
WAYS = {
    "direct": Attachment("direct", "", lambda h, u, d, a, w: exists(h, a, w), NoUnit),
    "relocated": Attachment("relocated", "", relocated, TinyUnit, duties=(START, LAST)),
}


def machine(directions: tuple[int, ...]):
    exists = lambda device: device.into_storage.isin(directions)  # noqa: E731
    agent = Agent("channel", "", TinyChannel, {"transfer": transfer}, {}, exists=exists)
    return attrs.evolve(devices(), machine=tiny, technique="moved", agent=agent, attachments=WAYS)


def states(kind: type[State]) -> Iterator[State]:
    """Every state."""
    names = [slot.name for slot in kind.layout if not slot.address]
    stored = [slot.name for slot in kind.layout if slot.address]
    for values in itertools.product((0, 1), repeat=len(names) + 2 * len(stored)):
        state = kind.reset(**dict(zip(names, values, strict=False)))
        for name in stored:
            cells = values[len(names) :]
            state._memories[name] = Memory(1, 1, dict(zip(CELLS, cells, strict=True)))
        yield state


def brute(attached: Attached) -> set[str]:
    """The promises that some state breaks."""
    broken: set[str] = set()
    shown: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
    whole = [s for s in states(Tiny) if int(s.mode) == 1]
    for private, unit, guest in itertools.product(whole, states(attached.attachment.unit), whole):
        if int(guest.start):
            continue
        promised = attached.attachment.promised(guest, private, unit, [Word(1, 0)], attached.dropped)
        if not int(technique().private(guest, private)) or not all(int(holds) for _, holds in promised):
            continue
        hardware = attached.devices.arranged(attached.attachment, technique(), guest, None, private, unit)
        contents = Memory(1, 1, {a: int(hardware.state.memory.load(Word(1, a))) for a in CELLS})
        hardware.state.memory = contents
        for device in DEVICES:
            if not int(attached.devices.agent.exists(device)):
                continue
            before = attrs.evolve(hardware, device=device)
            after = attached.devices.hardware_step(attached.attachment, "transfer", before)
            own = attached.devices.own_step("transfer", guest, device)
            mine = [a for a in CELLS if a <= int(guest.last)]
            where = {a: (a + int(private.start)) % 2 for a in mine}
            new = {a: int(after.state.memory.load(Word(1, a))) for a in CELLS}
            if any(new[a] != contents.root[a] for a in CELLS if a not in where.values()):
                broken.add(CHANGES)
            registers = tuple(map(int, after.device.words().values()))
            seen = (*registers, *(new[where[a]] for a in mine))
            expected = (
                *map(int, own.device.words().values()),
                *(int(own.state.memory.load(Word(1, a))) for a in mine),
            )
            if seen != expected:
                broken.add(FIDELITY)
            cells = tuple(int(guest.memory.load(Word(1, a))) for a in mine)
            key = (int(guest.last), *cells, *map(int, device.words().values()))
            shown[key].add(seen)
    return broken | ({LEARNS} if any(len(one) > 1 for one in shown.values()) else set())


DEVICES = list(states(TinyChannel))


ALL = {CHANGES, LEARNS, FIDELITY}


# What a reader expects: reads change nothing; what is written without the bound can be told from the channel's check.
@pytest.mark.parametrize(
    ("way", "dropped", "directions", "expected"),
    [
        ("direct", (), (0, 1), ALL),
        ("direct", (), (0,), {LEARNS, FIDELITY}),
        ("relocated", (), (0, 1), set()),
        ("relocated", ("start",), (0, 1), ALL),
        ("relocated", ("start",), (0,), {LEARNS, FIDELITY}),
        ("relocated", ("last",), (0, 1), ALL),
        ("relocated", ("start", "last"), (1,), ALL),
    ],
)
def test_the_solver_says_what_trying_every_state_says(
    way: str, dropped: tuple[str, ...], directions: tuple[int, ...], expected: set[str]
) -> None:
    attached = Attached.of(machine(directions), way, dropped)
    asked = {row.promise: row.status for row in attached.stepped("transfer")}
    refuted = {promise for promise in ALL if asked[promise] is Status.REFUTED}
    assert refuted == brute(attached) == expected
    assert all(asked[promise] is Status.HOLDS for promise in ALL - refuted)


def test_a_write_to_another_place_of_ones_own_is_unlike() -> None:
    attached = Attached.of(machine((1,)), "relocated", ("start",))
    (row,) = (row for row in attached.stepped("transfer") if row.promise == FIDELITY)
    assert row.status is Status.REFUTED
