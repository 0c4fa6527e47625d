"""A rule of the unit whose loss breaks no promise: that it is so, and what it decides then."""

from __future__ import annotations

import json
from functools import cache

import jsonschema

from popek.checks.device_traces import trace
from popek.checks.devices import CHANGES, INTERRUPTS, Attached
from popek.checks.verdict import Status
from popek.kernel.agents import Devices
from popek.machines import with_devices
from popek.schemas import schemas
from popek_proofs.devices import DeviceSafety, device_safety


@cache
def pc() -> Devices:
    return with_devices("x86")


@cache
def without_request_rsvd() -> DeviceSafety:
    return device_safety(pc(), "remapped", ["INT-REQUEST-RSVD"], forms=())


def test_a_reserved_bit_of_a_page_s_entry_alone_keeps_a_device_out() -> None:
    found = trace(Attached.of(pc(), "remapped", ["DMA-PAGE-RSVD"]), CHANGES)
    assert found is not None
    (entry,) = (int(value, 16) for cell, value in found.private.items() if cell == "memory[0xa00]")
    assert entry & 2  # writes are permitted
    # Reserved on a unit of 39 bits without snoop control and device TLBs: bits 11, 51:39, 62.
    assert entry & (1 << 11 | (1 << 52) - (1 << 39) | 1 << 62)
    assert found.steps[-1].accesses == (("store", 0, 0),)


def test_reserved_bits_of_a_request_are_needless_and_decide_a_fault() -> None:
    found = without_request_rsvd()
    assert found.needless
    assert not found.traces
    assert {row.status for row in found.rows} == {Status.HOLDS}
    one = found.decides
    assert one is not None
    _, address, given = one.steps[-1].accesses[0]
    assert address >> 20 == 0xFEE
    assert address & 0x18 == 0x18  # remappable format, with a subhandle
    data = next(step.event for step in one.steps if "data :=" in step.event)
    assert int(data.split(":=")[1], 16) & 0xFFFF0000
    assert given >> 32 & 0xFF == 0x51  # what the monitor expects from the device in any case
    assert "(0x20)" in one.broken  # Detected reserved fields in the decoded interrupt-remapped request


def test_what_it_decides_is_in_the_document() -> None:
    document = json.loads(json.dumps(without_request_rsvd().to_json()))
    jsonschema.Draft202012Validator(schemas()["popek/devices/1"]).validate(document)
    assert document["decides"]["promise"] == "decided"
    assert document["safety"] == document["fidelity"] == "holds"


def test_a_rule_that_is_needed_is_not_called_needless() -> None:
    attached = Attached.of(pc(), "remapped", ["INT-SOURCE"], serving=True)
    assert trace(Attached.of(pc(), "remapped", ["INT-SOURCE"]), INTERRUPTS) is not None
    assert any(row.status is Status.REFUTED for row in attached.rows())


def test_what_serves_is_asked_of_the_first_state() -> None:
    attached = Attached.of(pc(), "remapped", ["INT-COMPATIBILITY"], serving=True)
    assert [(row.step, row.status) for row in attached.base()] == [("base", Status.HOLDS)]
