"""The rules of a remapping unit: expectations from the specification's tables, laws, and QEMU beside them."""

from __future__ import annotations

import json

import jsonschema
import pytest

from popek.architectures.vtd.dma import translate
from popek.architectures.vtd.interrupts import PostedDescriptor, admitted, post, remap
from popek.architectures.vtd.ledger import rules
from popek.architectures.vtd.unit import RemappingCapabilities, Unit
from popek.emulators.qemu.dma import compare, make_cases, summary
from popek.kernel.memory import Memory
from popek.kernel.words import FALSE, Word, symbol
from popek.schemas import schemas
from popek.solving.solver import Answer, holds

CAN = RemappingCapabilities(host_width=39, guest_width=39, levels=(3,), large=(2, 3))
ROOT, CONTEXT, L3, L2, L1, PAGE, SOURCE, ADDRESS = (
    0x1000,
    0x2000,
    0x3000,
    0x4000,
    0x5000,
    0x800000,
    0x0310,
    0x7008,
)
AT = ROOT + 16 * 3
BASE = {
    AT: CONTEXT | 1,
    CONTEXT + 0x100: L3 | 1,
    CONTEXT + 0x108: 1,
    L3: L2 | 3,
    L2: L1 | 3,
    L1 + 0x38: PAGE | 3,
}


def reason(changes: dict[int, int], *, write: bool = False, address: int = ADDRESS) -> int:
    cells = {**BASE, **changes}
    unit = Unit.reset(root_table=ROOT, translation=1)
    found = translate(
        lambda at: Word(64, cells.get(int(at), 0)), unit, Word(16, SOURCE), Word(64, address), write, CAN
    )
    if int(found.passes):
        assert int(found.address) == PAGE | address & 0xFFF
    return int(found.reason)


# Expectations are the fault reasons of the specification's table, by number.
@pytest.mark.parametrize(
    ("changes", "write", "expected"),
    [
        ({}, False, 0), ({}, True, 0),
        ({AT: CONTEXT}, False, 0x1),
        ({AT: CONTEXT | 3}, False, 0xA), ({AT + 8: 1}, False, 0xA), ({AT: CONTEXT | 1 << 39 | 1}, False, 0xA),
        ({CONTEXT + 0x100: L3}, False, 0x2),
        ({CONTEXT + 0x100: L3 | 1 << 4 | 1}, False, 0xB), ({CONTEXT + 0x108: 1 | 1 << 24}, False, 0xB),
        ({CONTEXT + 0x108: 2}, False, 0x3), ({CONTEXT + 0x108: 0}, False, 0x3),
        ({CONTEXT + 0x100: L3 | 1 << 2 | 1}, False, 0x3), ({CONTEXT + 0x100: L3 | 3 << 2 | 1}, False, 0x3),
        ({L1 + 0x38: PAGE | 1}, True, 0x5), ({L1 + 0x38: PAGE | 2}, False, 0x6), ({L2: L1 | 2}, False, 0x6),
        ({L1 + 0x38: PAGE | 2}, True, 0), ({L1 + 0x38: 0}, False, 0x6), ({L1 + 0x38: 0}, True, 0x5),
        ({L1 + 0x38: PAGE | 3 | 1 << 45}, False, 0xC), ({L2: L1 | 0x83}, False, 0xC),
        ({L2: 0x600083 | 1 << 20}, False, 0xC), ({L3: 0x40000083 | 1 << 29}, True, 0xC),
        ({L3: 0x83 | 1 << 12}, True, 0xC),
    ],
)  # fmt: skip
def test_the_first_check_that_fails_is_the_reason(
    changes: dict[int, int], write: bool, expected: int
) -> None:
    assert reason(changes, write=write) == expected


def test_an_address_beyond_the_tables_is_a_fault_of_its_own() -> None:
    assert reason({}, address=ADDRESS | 1 << 39) == 0x4


def test_every_rule_is_checked_and_every_check_is_a_rule() -> None:
    storage = Memory(36, 64, "storage")
    unit = Unit.symbolic()

    def read(at: Word) -> Word:
        return storage.load(at[38:3])

    made = set()
    for write in (False, True):
        made |= {r for r, _ in translate(read, unit, symbol("s", 16), symbol("a", 64), write, CAN).checks}
    made |= {
        rule for rule, _ in remap(read, unit, symbol("s", 16), symbol("a", 64), symbol("d", 32), CAN).checks
    }
    assert made == {rule.id for rule in rules().values() if rule.kind != "first-stage"}


def test_symbols_and_numbers_agree() -> None:
    unit = Unit.reset(root_table=ROOT, translation=1)
    address = symbol("address", 64)
    stores = tuple((Word(36, at >> 3), Word(64, value)) for at, value in BASE.items())
    nothing = Memory(36, 64, lambda at: Word(64, 0), stores)
    found = translate(lambda at: nothing.load(at[38:3]), unit, Word(16, SOURCE), address, False, CAN)
    mapped = (address[63:12] == ADDRESS >> 12) & (found.address == (PAGE | address & 0xFFF))
    assert holds(found.passes == mapped) is Answer.UNSAT


# SVT, SQ, SID as the table entry's description has them.
@pytest.mark.parametrize(
    ("kind", "qualifier", "identifier", "source", "expected"),
    [
        (0, 0, 0x0000, 0x1234, 1), (1, 0, 0x1234, 0x1234, 1), (1, 0, 0x1234, 0x1235, 0),
        (1, 1, 0x1230, 0x1234, 1), (1, 1, 0x1230, 0x1231, 0), (1, 2, 0x1230, 0x1236, 1), (1, 2, 0x1230, 0x1231, 0),
        (1, 3, 0x1230, 0x1237, 1), (1, 3, 0x1230, 0x1238, 0), (2, 0, 0x0205, 0x0500, 1), (2, 0, 0x0205, 0x0600, 0),
        (2, 0, 0x0205, 0x0100, 0),
    ],
)  # fmt: skip
def test_an_entry_admits_source_ids(
    kind: int, qualifier: int, identifier: int, source: int, expected: int
) -> None:
    assert int(admitted(Word(16, source), Word(64, kind << 18 | qualifier << 16 | identifier))) == expected


@pytest.mark.parametrize(
    ("address", "data", "entry", "unit", "expected"),
    [
        (0xFEE00018, 0, (0x310001, 0x40310), {}, 0), (0xFEE00010, 0, (0x310001, 0x40310), {}, 0),
        (0xFEE00018, 1 << 16, (0x310001, 0x40310), {}, 0x20), (0xFEE00030, 0, (0x310001, 0x40310), {}, 0x22),
        (0xFEE00050, 0, (0x310001, 0x40310), {}, 0x21), (0xFEE00018, 2, (0x310001, 0x40310), {}, 0x21),
        (0xFEE00010, 0, (0x310001 | 1 << 12, 0x40310), {}, 0x24), (0xFEE00010, 0, (0x310001, 0xC0310), {}, 0x24),
        (0xFEE00010, 0, (0x310001, 0x40311), {}, 0x26), (0xFEE00000, 0x31, (0, 0), {}, 0x25),
        (0xFEE00000, 0x31, (0, 0), {"compatibility": 1}, 0),
        (0xFEE00000, 0x31, (0, 0), {"compatibility": 1, "interrupt_table": ROOT | 0x800}, 0x25),
    ],
)  # fmt: skip
def test_interrupt_requests(
    address: int, data: int, entry: tuple[int, int], unit: dict[str, int], expected: int
) -> None:
    cells = dict(zip((ROOT, ROOT + 8), entry, strict=True))
    state = Unit.reset(**{"interrupt_remapping": 1, "interrupt_table": ROOT, **unit})
    found = remap(
        lambda at: Word(64, cells.get(int(at), 0)),
        state,
        Word(16, SOURCE),
        Word(64, address),
        Word(32, data),
        CAN,
    )
    assert int(found.reason) == expected


def test_posting_sets_the_vector_and_notifies_once() -> None:
    empty = PostedDescriptor(Word(256, 0), FALSE, FALSE, Word(8, 0xF2), Word(32, 0))
    first, notified = post(empty, Word(8, 0x31), FALSE)
    assert int(first.requests) == 1 << 0x31
    assert int(notified) == 1
    second, again = post(first, Word(8, 0x32), FALSE)
    assert int(second.requests) == 0b11 << 0x31
    assert int(again) == 0
    _, suppressed = post(
        PostedDescriptor(Word(256, 0), FALSE, Word(1, 1), Word(8, 0), Word(32, 0)), Word(8, 1), FALSE
    )
    _, urgent = post(
        PostedDescriptor(Word(256, 0), FALSE, Word(1, 1), Word(8, 0), Word(32, 0)), Word(8, 1), Word(1, 1)
    )
    assert (int(suppressed), int(urgent)) == (0, 1)


@pytest.mark.emulator("qemu-system-x86_64", "nasm")
@pytest.mark.parametrize("width", [39, 48])
def test_qemu_does_what_the_rules_say(width: int) -> None:
    found = summary(compare(make_cases(150, 3, width), width), width, 3)
    assert found["unexplained"] == []
    assert len(found["rules_violated"]) >= 8
    schema = jsonschema.Draft202012Validator(schemas()["popek/dma-difftest/1"])
    schema.validate(json.loads(json.dumps(found)))
    assert not schema.is_valid({**found, "unexplained": [{"unlike": "reason 5"}]})
