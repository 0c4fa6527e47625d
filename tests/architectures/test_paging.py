"""Translation by paging: what the manual says of each fault's error code, of large pages and of keys."""

from __future__ import annotations

from typing import Any

import pytest

from popek.architectures.x86 import paging
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.words import Word
from popek.machines import machine

P, RW, US, PS = 1, 2, 4, 0x80
PLAIN = machine("ia32-paged")
LONG = machine("x86-64-paged")


def run(form: str, address: int, cells: dict[int, int], **leaves: int) -> Any:
    """One reference with BX... as the operand says; `cells` are 4-byte entries (8-byte on x86-64)."""
    known = LONG if "64" in form else PLAIN
    size = 8 if known is LONG else 4
    names = {name.replace("__", "."): value for name, value in leaves.items()}
    cpl = names.pop("cpl", 0)
    state = known.state.reset()
    state["cr0"] = names.pop("cr0", 0x80010011)
    state["cr3"] = 0x1000
    for name in ("cs.selector.rpl", "ss.selector.rpl", "cs.rights.dpl", "ss.rights.dpl"):
        state[name] = cpl
    if known is PLAIN:
        state.msr = state.msr.store(Word(32, 0xC0000080), Word(64, names.pop("efer", 0)))
    for name, value in names.items():
        state[name] = value
    table = {where + i: value >> 8 * i & 0xFF for where, value in cells.items() for i in range(size)}
    state.memory = Memory(8 * size, 8, table)
    instruction = known.instructions[form]
    words = {}
    for operand in instruction.inputs:
        for name, width in operand.part_names():
            value = address if name.endswith("offset") else 3 if name.endswith("segment") else 1
            words[name] = Word(width, value)
    return known.step(instruction, state, words)


def code(outcome: Any) -> int:
    assert isinstance(outcome, Trap)
    assert outcome.vector.number == 14
    assert outcome.memory
    return int(outcome.error_code)


READ, WRITE = "MOV r32, m32", "MOV m32, r32"
OPEN = {0x1000: 0x2000 | P | RW | US, 0x2000: 0x5000 | P | RW | US}


@pytest.mark.parametrize(
    ("form", "pte", "leaves", "expected"),
    [
        (READ, 0, {"cpl": 0}, 0x0),
        (WRITE, 0, {"cpl": 0}, 0x2),
        (WRITE, 0, {"cpl": 3}, 0x6),
        (READ, 0x5000 | P, {"cpl": 3}, 0x5),
        (WRITE, 0x5000 | P | US, {"cpl": 3}, 0x7),
        (WRITE, 0x5000 | P | US, {"cpl": 0}, 0x3),
        (READ, 0x5000 | P | US, {"cpl": 0, "cr4__smap": 1}, 0x1),
    ],
)
def test_the_error_code_says_what_was_refused(
    form: str, pte: int, leaves: dict[str, int], expected: int
) -> None:
    assert code(run(form, 0, {**OPEN, 0x2000: pte}, **leaves)) == expected


def test_the_supervisor_writes_where_it_may_not_unless_write_protect_is_on() -> None:
    read_only = {**OPEN, 0x2000: 0x5000 | P | US}
    assert isinstance(run(WRITE, 0, read_only, cr0=0x80000011), Next)
    assert isinstance(run(READ, 0, read_only, cr4__smap=1, eflags__ac=1), Next)


def test_a_reference_sets_accessed_and_a_write_dirty_in_the_last_entry_alone() -> None:
    for form, last in ((READ, 0x20), (WRITE, 0x60)):
        after = run(form, 0, OPEN).state.memory.cells()
        assert (after[0x1000], after[0x2000]) == (P | RW | US | 0x20, P | RW | US | last)


def test_a_large_page_needs_pse_and_has_reserved_bits() -> None:
    large = {0x1000: P | RW | US | PS, 0x123456: 0xAABBCCDD}
    assert int(run(READ, 0x123456, large, cr4__pse=1).state["ecx"]) == 0xAABBCCDD
    assert code(run(READ, 0, {0x1000: 0x2000 | P | RW | US | PS}, cr4__pse=1)) == 0x9
    assert isinstance(run(READ, 0, {0x1000: 0x2000 | P | RW | US | PS, 0x2000: 0x5000 | P}), Next)


@pytest.mark.parametrize(("efer", "expected"), [(0, 0x9), (1 << 11, None)])
def test_with_pae_the_xd_flag_is_reserved_unless_nxe_is_set(efer: int, expected: int | None) -> None:
    tables = {0x1000: 0x2000 | P, 0x2000: 0x3000 | P | RW | US, 0x3000: 0x5000 | P | RW, 0x3004: 1 << 31}
    outcome = run(READ, 0, tables, cr4__pae=1, efer=efer)
    assert (code(outcome) if expected is not None else isinstance(outcome, Next)) == (expected or True)


def test_a_reference_across_pages_faults_on_the_second_and_joins_both() -> None:
    assert code(run(READ, 0xFFE, OPEN)) == 0
    both = {**OPEN, 0x2004: 0x7000 | P, 0x5FFC: 0xBBAA0000, 0x7000: 0x0000DDCC}
    assert int(run(READ, 0xFFE, both).state["ecx"]) == 0xDDCCBBAA


def test_an_implicit_reference_to_a_table_is_the_supervisors_at_every_level() -> None:
    user_page = {**OPEN, 0x2000: 0x5000 | P | RW | US}
    assert code(run("VERW r16", 0, {**OPEN, 0x2000: 0}, cpl=3, ecx=8)) == 0
    assert code(run("VERW r16", 0, user_page, cpl=3, ecx=8, cr4__smap=1, eflags__ac=1)) == 1


FOUR = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007}


@pytest.mark.parametrize(
    ("form", "pkru", "wp", "expected"),
    [
        ("MOV r64, m64", 0b01 << 4, 1, 0x21),
        ("MOV m64, r64", 0b10 << 4, 1, 0x23),
        ("MOV m64, r64", 0b10 << 4, 0, None),
        ("MOV r64, m64", 0b10 << 4, 1, None),
        ("MOV r64, m64", 0b11 << 6, 1, None),
    ],
)
def test_a_protection_key_locks_user_pages(form: str, pkru: int, wp: int, expected: int | None) -> None:
    cells = {**FOUR, 0x4000: 0x5007 | 2 << 59}
    outcome = run(form, 0, cells, cr0=0x80000011 | wp << 16, cr4=0x400020, pkru=pkru)
    assert (code(outcome) if expected is not None else isinstance(outcome, Next)) == (expected or True)


def test_a_walk_that_forgets_user_rights_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "US", paging.P)
    assert isinstance(run(READ, 0, {**OPEN, 0x2000: 0x5000 | P}, cpl=3), Next)
