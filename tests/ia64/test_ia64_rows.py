"""Itanium's instructions for programs on numbers: what the instruction pages say, row by row."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import number_rows
from popek.architectures.ia64.state import Ia64
from popek.kernel.words import Word

from .machine_room import completed, gr, ia64, nat, put
from .test_storage_and_floating_point import PAGE, room

TARGET, FIRST = 8, 9


def _rows() -> list[tuple[str, str]]:
    told = tomllib.loads(Path(__file__).with_name("ia64_rows.toml").read_text("utf-8"))
    return [(form, row) for form, one in told.items() for row in one["rows"]]


@pytest.mark.parametrize(("form", "row"), _rows())
def test_the_target_gets_what_the_page_says(form: str, row: str) -> None:
    sources, _, result = row.partition("=")
    state, operands, at = room(), [TARGET], FIRST
    for source in sources.split():
        if source.startswith("#"):
            operands.append(number_rows.number(source[1:]))
            continue
        value = number_rows.number(source.strip("[]"))
        if source.startswith("["):
            state.memory = state.memory.store(Word(47, PAGE >> 3), Word(64, value))
            value = PAGE
        state = put(state, at, value)
        operands.append(at)
        at += 1
    after = completed(form, state, *operands)
    assert gr(after, TARGET) == number_rows.number(result.strip())
    assert nat(after, TARGET) == 0
    for number in range(1, 32):
        if number != TARGET:
            assert gr(after, number) == gr(state, number)


TWO_SOURCES = ("add r = r, r", "sub r = r, r", "shl r = r, r", "shladd r = r, imm2, r")


@pytest.mark.parametrize("form", TWO_SOURCES)
def test_a_nat_source_makes_the_target_nat(form: str) -> None:
    """Volume 1, 5.3: NaT bits propagate through instructions that compute."""
    assert form in ia64().instructions
    middle = [1] if "imm2" in form else []
    for bad in (9, 10):
        state = put(put(Ia64.reset(), 9, 5), 10, 3)
        state = put(state, bad, 5, nat=1)
        assert nat(completed(form, state, TARGET, 9, *middle, 10), TARGET) == 1
