"""A guest of System/370 whose real addresses are the hardware's: what is left for the monitor to see to."""

from __future__ import annotations

from functools import cache

import pytest

from popek.architectures.s360.deprivileging import VIRTUAL_REAL
from popek.architectures.s360.s370_state import S370
from popek.architectures.s360.state import BLOCK, ENTRY
from popek.checks.device_traces import trace_by
from popek.checks.devices import CHANGES, FIDELITY, Attached
from popek.checks.verdict import Status
from popek.kernel.agents import Devices
from popek.kernel.memory import Memory
from popek.kernel.words import Word
from popek.machines import with_devices

STARTED = ("SIO", "fetch", "move")


@cache
def known() -> Devices:
    return with_devices("s370-virtual-real")


def monitor(start: int) -> S370:
    entries = ((Word(BLOCK, 0), Word(ENTRY, start << 11)),)
    private = S370.reset()
    private.translation = Memory(BLOCK, ENTRY, "translation@vmm", entries)
    return private


# A guest of 64 KB, 32 blocks of 2 KB; its page 0 is at 0x80000.
@pytest.mark.parametrize(
    ("block", "there"), [(0, 0x100), (1, 0x101), (2, 2), (31, 31), (0x100, 0), (0x101, 1), (0x102, 0x102)]
)
def test_only_page_0_is_elsewhere(block: int, there: int) -> None:
    guest, private = S370.reset(last_block=31), monitor(0x100)
    assert int(VIRTUAL_REAL.there(private, Word(BLOCK, block))) == there
    assert int(VIRTUAL_REAL.back(private, Word(BLOCK, there))) == block
    assert int(VIRTUAL_REAL.inside(guest, private, Word(BLOCK, there))) == (block <= 31)


@pytest.mark.parametrize(
    ("last", "start", "possible"), [(31, 0x100, 1), (31, 32, 1), (31, 30, 0), (31, 33, 0), (0, 0x100, 0)]
)
def test_page_0_is_behind_the_guest_on_a_page_of_its_own(last: int, start: int, possible: int) -> None:
    assert int(VIRTUAL_REAL.possible(S370.reset(last_block=last), monitor(start))) == possible


def test_a_channel_with_limits_confines_it_and_its_programs_may_change_themselves() -> None:
    assert {row.status for row in Attached.of(known(), "limited").rows()} == {Status.HOLDS}


@pytest.mark.parametrize(("dropped", "cell"), [("first", "cell 0x0,"), ("last", "cell 0x2000,")])
def test_each_limit_is_needed(dropped: str, cell: str) -> None:
    found = trace_by(Attached.of(known(), "limited", [dropped]), CHANGES, ["buffer"], STARTED)
    assert found is not None
    assert "not the guest's" in found.broken
    assert found.broken.startswith(cell)


def test_page_0_is_not_where_its_programs_look() -> None:
    attached = Attached.of(known(), "limited", ["page-0"])
    assert trace_by(attached, FIDELITY, [], STARTED[:2]) is not None
    assert trace_by(Attached.of(known(), "limited"), FIDELITY, [], STARTED[:2]) is None


def test_a_program_that_is_started_as_it_is_reaches_everything() -> None:
    found = trace_by(Attached.of(known(), "as-it-is"), CHANGES, ["buffer"], STARTED)
    assert found is not None
    assert found.steps[-1].accesses[0][0] == "store"


def test_looking_through_a_program_is_not_enough_for_it_changes_itself() -> None:
    attached = Attached.of(known(), "looked-through")
    assert trace_by(attached, CHANGES, ["buffer"], STARTED) is None
    found = trace_by(attached, CHANGES, ["buffer"], (*STARTED, "fetch", "move"))
    assert found is not None
    _, _, (_, _, moved), (_, changed, _), (_, second, _), (_, reached, _) = (
        (step.accesses or (("", 0, 0),))[0] for step in found.steps
    )
    assert changed in range(second, second + 8)  # the first command word reads into the second
    assert reached not in (moved, changed)
    assert "not the guest's" in found.broken
