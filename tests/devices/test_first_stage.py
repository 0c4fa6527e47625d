"""A remapping unit's first stage: fault reasons by hand, and a guest's own first stage behind the monitor's second."""

from __future__ import annotations

import pytest

from popek.architectures.vtd.first_stage import FIRST, NESTED, FirstStageRequest, PasidEntry, first_stage
from popek.architectures.vtd.ledger import rules
from popek.kernel.memory import Memory
from popek.kernel.words import FALSE, Word, symbol
from popek.solving.solver import Answer, holds

L4, L3, L2, L1, PAGE, ADDRESS = 0x1000, 0x2000, 0x3000, 0x4000, 0x800000, 0x7008
PTE = L1 + 0x38
TABLES = {L4: L3 | 7, L3: L2 | 7, L2: L1 | 7, PTE: PAGE | 7}
LOW, THIRD = FIRST << 6 | 1, L4


def reason(
    changes: dict[int, int],
    *,
    write: int = 0,
    privileged: int = 0,
    address: int = ADDRESS,
    low: int = LOW,
    third: int = THIRD,
) -> int:
    cells = {**TABLES, **changes}
    found = first_stage(
        lambda at: Word(64, cells.get(int(at), 0)),
        PasidEntry.of(Word(64, low), Word(64, third)),
        FirstStageRequest(Word(64, address), Word(1, write), Word(1, privileged)),
        host_width=39,
    )
    if int(found.passes):
        assert int(found.address) & 0xFFF == address & 0xFFF
    return int(found.reason)


# Numbers of the specification's table of fault conditions in scalable mode, as Linux names them.
@pytest.mark.parametrize(
    ("changes", "given", "expected"),
    [
        ({}, {}, 0), ({}, {"write": 1}, 0), ({}, {"low": FIRST << 6}, 0x59), ({}, {"low": 5 << 6 | 1}, 0x5B),
        ({}, {"low": 1}, 0x5B), ({}, {"low": NESTED << 6 | 1}, 0x5B), ({}, {"third": L4 | 1 << 2}, 0x5B),
        ({}, {"address": 1 << 47}, 0x80), ({}, {"address": 1 << 48}, 0x80), ({}, {"address": 0xFFFF8 << 44}, 0x71),
        ({PTE: 0}, {}, 0x71), ({L2: L1 | 6}, {}, 0x71), ({PTE: PAGE | 7 | 1 << 45}, {}, 0x72),
        ({L4: L3 | 0x87}, {}, 0x72), ({L2: 0x600087}, {}, 0), ({L2: 0x602087}, {}, 0x72), ({L3: 0x40000087}, {}, 0),
        ({PTE: PAGE | 3}, {}, 0x81), ({PTE: PAGE | 3}, {"privileged": 1}, 0), ({L3: L2 | 3}, {}, 0x81),
        ({PTE: PAGE | 5}, {"write": 1}, 0x85), ({PTE: PAGE | 5}, {}, 0), ({L2: L1 | 5}, {"write": 1}, 0x85),
        ({PTE: PAGE | 5}, {"write": 1, "privileged": 1}, 0),
        ({PTE: PAGE | 5}, {"write": 1, "privileged": 1, "third": L4 | 1 << 4}, 0x85),
    ],
)  # fmt: skip
def test_the_reasons(changes: dict[int, int], given: dict[str, int], expected: int) -> None:
    assert reason(changes, **given) == expected


def test_five_levels() -> None:
    top = 0x9000
    cells = {**TABLES, top: L4 | 7}
    found = first_stage(
        lambda at: Word(64, cells.get(int(at), 0)), PasidEntry.of(Word(64, LOW), Word(64, top | 1 << 2)),
        FirstStageRequest(Word(64, ADDRESS)), host_width=39, levels=(4, 5),
    )  # fmt: skip
    assert (int(found.reason), int(found.address)) == (0, PAGE | 8)


def second(address: Word, write: Word) -> tuple[Word, Word]:
    """A guest with pages 0 to FFFH, from page 100000H of the host on; page 5 is there to read alone."""
    page = address[63:12]
    mine = (page < 0x1000) & ~((page == 5) & write)
    return address + 0x1_0000_0000, mine


def nested(memory: Memory, request: FirstStageRequest, without: frozenset[str] = frozenset()):
    return first_stage(
        lambda at: memory.load(at[38:3]), PasidEntry.of(symbol("low", 64), symbol("third", 64)), request,
        host_width=39, levels=(4,), second=second, without=without,
    )  # fmt: skip


def gets_out(without: frozenset[str] = frozenset()) -> Word:
    """A nested request goes beyond the guest's pages."""
    found = nested(Memory(36, 64, "storage"), FirstStageRequest(symbol("a", 64), symbol("w", 1)), without)
    page, low = found.address[63:12], symbol("low", 64)
    return (low[8:6] == NESTED) & found.passes & ~((page >= 0x100000) & (page < 0x101000))


def test_the_second_stage_confines_whatever_a_guest_writes_into_its_first() -> None:
    assert holds(~gets_out()) is Answer.UNSAT
    assert holds(~gets_out(frozenset({"FS-SECOND"}))) is Answer.SAT


def test_every_rule_is_checked_and_every_check_is_a_rule() -> None:
    found = nested(Memory(36, 64, "storage"), FirstStageRequest(symbol("a", 64), FALSE))
    assert {rule for rule, _ in found.checks} == {r.id for r in rules().values() if r.kind == "first-stage"}
