"""Machines with devices: unsafe as they are, safe behind what confines them; each rule and duty dropped is seen."""

from __future__ import annotations

import json
from functools import cache

import jsonschema
import pytest

from commands import popek
from popek.checks.device_traces import trace
from popek.checks.devices import CHANGES, INTERRUPTS, LEARNS, Attached, VacuousError, droppable
from popek.checks.verdict import Status
from popek.kernel.agents import Devices
from popek.kernel.machine import UnknownNameError
from popek.machines import devices, with_devices
from popek.schemas import schemas
from popek_proofs.devices import check_device_claim, device_claims, device_safety


@cache
def known(name: str) -> Devices:
    return with_devices(name)


def statuses(name: str, attachment: str, *dropped: str) -> dict[tuple[str, str], Status]:
    return {
        (row.step, row.promise): row.status for row in Attached.of(known(name), attachment, dropped).rows()
    }


@pytest.mark.parametrize(
    ("name", "attachment"),
    [("pg74", "direct"), ("pdp11-45", "direct"), ("s370", "untranslated"), ("x86", "direct")],
)
def test_a_device_with_real_addresses_reaches_the_monitor(name: str, attachment: str) -> None:
    found = device_safety(known(name), attachment, forms=())
    assert found.status("safety") is Status.REFUTED
    changed = next(one for one in found.traces if one.promise == CHANGES)
    assert "not the guest's" in changed.broken
    assert [kind for kind, _, _ in changed.steps[-1].accesses] == ["store"]
    assert any(one.promise == LEARNS for one in found.traces)


@pytest.mark.parametrize(("drop", "code"), [((), 0), (("--drop", "last"), 1)])
def test_the_document_is_as_its_schema_says(drop: tuple[str, ...], code: int) -> None:
    done = popek("devices", "safety", "pg74", "--json", "--form", "MOVE", *drop)
    assert done.returncode == code
    jsonschema.Draft202012Validator(schemas()["popek/devices/1"]).validate(json.loads(done.stdout))


@pytest.mark.parametrize(("name", "attachment"), [("pg74", "relocated"), ("pdp11-45", "mapped")])
def test_behind_a_unit_that_remaps_it_is_confined_and_faithful(name: str, attachment: str) -> None:
    found = device_safety(known(name), attachment)
    assert found.status("safety") is Status.HOLDS
    assert found.status("fidelity") is Status.HOLDS
    assert found.forms
    assert not found.traces


def test_vt_d_confines_an_assigned_device() -> None:
    assert set(statuses("x86", "remapped").values()) == {Status.HOLDS}


def test_a_translated_channel_program_is_safe_and_no_longer_changes_itself() -> None:
    found = device_safety(known("s370"), "translated", forms=())
    assert found.status("safety") is Status.HOLDS
    assert found.status("fidelity") is Status.REFUTED
    (one,) = found.traces
    assert [step.event for step in one.steps] == [
        f"the device: {step}" for step in ("SIO", "fetch", "move", "fetch")
    ]


@pytest.mark.parametrize(
    ("name", "attachment", "dropped", "promise"),
    [
        ("pg74", "relocated", "start", CHANGES),
        ("pg74", "relocated", "last", CHANGES),
        ("pdp11-45", "mapped", "placed", CHANGES),
        ("pdp11-45", "mapped", "nowhere", CHANGES),
        ("s370", "translated", "bounds", CHANGES),
        ("s370", "translated", "relocation", CHANGES),
        ("x86", "remapped", "source-validation", CHANGES),
        ("x86", "remapped", "redirection", CHANGES),
        ("x86", "remapped", "invalidated", CHANGES),
        ("x86", "remapped", "DMA-PAGE-W", CHANGES),
        ("x86", "remapped", "DMA-LARGE", CHANGES),
        ("x86", "remapped", "INT-SOURCE", INTERRUPTS),
        ("x86", "dma-remapped", "", INTERRUPTS),
    ],
)
def test_without_it_there_is_a_trace(name: str, attachment: str, dropped: str, promise: str) -> None:
    found = trace(Attached.of(known(name), attachment, dropped.split()), promise)
    assert found is not None
    assert found.broken
    assert found.steps


def test_with_dma_remapping_alone_any_interrupt_can_be_raised() -> None:
    found = trace(Attached.of(known("x86"), "dma-remapped"), INTERRUPTS)
    assert found is not None
    assert found.steps[-1].accesses[0][:2] == ("message", 0xFEE00000)


def test_a_device_that_reaches_the_vectors_breaks_the_invariant() -> None:
    found = statuses("pdp11-45", "direct")
    assert found["transfer", "invariant"] is Status.REFUTED
    assert found["base", "invariant"] is Status.HOLDS


def test_what_may_be_dropped_is_named() -> None:
    with pytest.raises(UnknownNameError, match="DMA-ROOT-P"):
        Attached.of(known("x86"), "remapped", ["DMA-ROOT-Q"])
    with pytest.raises(UnknownNameError, match="relocated"):
        Attached.of(known("pg74"), "relocate")
    assert set(devices()) == {
        "pg74", "pdp11-45", "s370", "s370-virtual-real", "x86", "x86-memory", "x86-shadow", "sriov",
    }  # fmt: skip
    assert "INT-SOURCE" in droppable(known("x86").attachments["remapped"])


def test_a_duty_that_cannot_hold_is_an_error() -> None:
    import attrs

    from popek.kernel.agents import MonitorDuty
    from popek.kernel.words import FALSE

    way = known("pg74").attachments["relocated"]
    impossible = MonitorDuty("impossible", "never", lambda guest, private, unit, place: FALSE)
    attached = Attached(known("pg74"), attrs.evolve(way, duties=(*way.duties, impossible)))
    with pytest.raises(VacuousError, match="no such state"):
        list(attached.rows())


def test_a_device_that_reaches_nothing_is_an_error() -> None:
    import attrs

    idle = attrs.evolve(known("pg74").agent, steps={"transfer": lambda device, bus: None})
    attached = Attached.of(attrs.evolve(known("pg74"), agent=idle), "relocated")
    with pytest.raises(VacuousError, match="reaches nothing"):
        list(attached.rows())


ELSEWHERE = ("x86", "translated", "ept", "ept-5-level", "nested")  # what a longer test above asks already
CLAIMS = [c for c in device_claims() if c.machine not in ELSEWHERE and c.attachment not in ELSEWHERE]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
def test_claims_turn_out_as_expected(claim) -> None:
    assert not check_device_claim(claim).unexpected
