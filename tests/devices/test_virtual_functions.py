"""Virtual functions of a shared device: what the physical function must own, each with a trace where it does not."""

from __future__ import annotations

import pytest

from popek.architectures.sriov.functions import DUTIES, SharedDevice, VirtualFunction, devices, shared
from popek.architectures.vtd.platform import Pc
from popek.checks.device_traces import trace_by
from popek.checks.devices import CHANGES, FIDELITY, INTERRUPTS, LEARNS, Attached
from popek.checks.verdict import Status
from popek.kernel.agents import RefusedError
from popek.kernel.memory import Memory
from popek.kernel.words import Word


def test_with_the_tables_the_monitors_a_virtual_function_is_confined_and_faithful() -> None:
    assert {row.status for row in Attached.of(devices()).rows()} == {Status.HOLDS}


DROPPED = {
    "window": (CHANGES, "transfer"), "queues": (CHANGES, "transfer"), "doorbells": (CHANGES, "transfer"),
    "queue-map": (CHANGES, "transfer"), "filtered": (LEARNS, "receive"), "filters": (LEARNS, "receive"),
    "sender": (INTERRUPTS, "send"), "delivered": (FIDELITY, "receive"),
}  # fmt: skip


def test_every_duty_is_dropped_below() -> None:
    assert set(DROPPED) == {duty.name for duty in DUTIES}


@pytest.mark.parametrize("duty", DROPPED)
def test_without_it_there_is_a_trace(duty: str) -> None:
    promise, step = DROPPED[duty]
    attached = Attached.of(devices(), dropped=[duty])
    found = trace_by(attached, promise, list(attached.devices.agent.programs), [step])
    assert found is not None
    assert found.broken


def test_premises_of_fidelity_are_needed() -> None:
    for premise, step in (("own-queues", "transfer"), ("own-sender", "send")):
        rows = Attached.of(devices(), dropped=[premise, "doorbells"]).stepped(step)
        assert Status.REFUTED in {row.status for row in rows if row.promise == FIDELITY}


# On numbers, by hand: function 2 has queues 4 to 7 and pages 0 and 1 at 100H; the rest is function 3's at 200H.
@pytest.mark.parametrize(
    ("queue", "address", "changes", "expected"),
    [
        (0, 0x1008, {}, 0x101 << 9 | 1), (3, 0x0, {}, 0x100 << 9), (4, 0x0, {}, None), (0, 0x2000, {}, None),
        (4, 0x0, {"doorbells": 1}, 0x200 << 9), (0, 1 << 40, {}, None),
        (0, 0xFFF << 52 | 1 << 3, {}, 0x100 << 9 | 1), (0, 0xFFF << 52 | 2 << 3, {}, None),
        (0, 0xFFF << 52 | 2 << 3, {"filters_open": 1}, 2), (0, 0x0, {"map_open": 1}, 0x200 << 9),
    ],
)  # fmt: skip
def test_where_an_access_goes(
    queue: int, address: int, changes: dict[str, int], expected: int | None
) -> None:
    unit = SharedDevice.reset(function=2, base=4, station=1, **changes)
    unit.owner = Memory(4, 2, {number: 2 if 4 <= number < 8 else 3 for number in range(16)})
    unit.filters = Memory(4, 4, {station: 4 if station == 1 else 12 for station in range(16)})
    unit.start, unit.last = Memory(2, 27, {2: 0x100, 3: 0x200}), Memory(2, 27, {2: 1, 3: 1})
    device = VirtualFunction.reset(queue=queue, map_queue=4, map_function=3, filter_station=2, filter_queue=5)
    hardware = Pc.reset(start=0x100)
    if expected is None:
        with pytest.raises(RefusedError):
            shared(hardware, unit, device, Word(64, address), False)
    else:
        assert int(shared(hardware, unit, device, Word(64, address), False)) == expected
