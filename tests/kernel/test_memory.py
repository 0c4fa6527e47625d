"""Memory: loads answer from stores and root, the same on numbers and on symbols."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popek.kernel.evaluation import evaluate
from popek.kernel.memory import Memory
from popek.kernel.state import substitution
from popek.kernel.words import Word, symbol

ADDRESS, CELL = 4, 8
STORES = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 255)), max_size=6)


@given(STORES, st.dictionaries(st.integers(0, 15), st.integers(0, 255)))
def test_a_concrete_memory_is_a_dictionary(stores: list[tuple[int, int]], root: dict[int, int]) -> None:
    memory = Memory(ADDRESS, CELL, root)
    for address, cell in stores:
        memory = memory.store(Word(ADDRESS, address), Word(CELL, cell))
    expected = root | dict(stores)
    for address in range(16):
        assert int(memory.load(Word(ADDRESS, address))) == expected.get(address, 0)
    assert memory.concrete
    assert memory.cells() == expected


@given(STORES, st.lists(st.integers(0, 255), min_size=16, max_size=16))
def test_stores_at_symbolic_addresses_evaluate_as_on_numbers(
    stores: list[tuple[int, int]], contents: list[int]
) -> None:
    memory = Memory(ADDRESS, CELL, "m")
    for number, (_, cell) in enumerate(stores):
        memory = memory.store(symbol(f"at{number}", ADDRESS), Word(CELL, cell))
    loaded = memory.load(symbol("where", ADDRESS)).term
    values = {f"at{number}": address for number, (address, _) in enumerate(stores)}
    for where in range(16):
        expected = dict(stores).get(where, contents[where])
        assert evaluate([loaded], values | {"where": where}, {"m": contents.__getitem__}) == [expected]


@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 15), STORES)
def test_copying_a_block_is_copying_its_cells(
    destination: int, source: int, cells: int, stores: list[tuple[int, int]]
) -> None:
    start = {address: address * 16 + 1 for address in range(16)}
    numbers, symbols = Memory(ADDRESS, CELL, start), Memory(ADDRESS, CELL, "m")
    expected = dict(start)
    for i in range(cells):  # read from what was there before: a copy, not a fill
        expected[(destination + i) % 16] = start[(source + i) % 16]
    copied = symbols.copy(symbol("d", ADDRESS), symbol("s", ADDRESS), symbol("n", ADDRESS))
    values = {"d": destination, "s": source, "n": cells}
    concrete = numbers.copy(Word(ADDRESS, destination), Word(ADDRESS, source), Word(ADDRESS, cells))
    for address, cell in stores:
        expected[address] = cell
        copied = copied.store(Word(ADDRESS, address), Word(CELL, cell))
        concrete = concrete.store(Word(ADDRESS, address), Word(CELL, cell))
    for where in range(16):
        loaded = copied.load(Word(ADDRESS, where)).term
        assert evaluate([loaded], values, {"m": start.__getitem__}) == [expected[where]]
        assert int(concrete.load(Word(ADDRESS, where))) == expected[where]


def test_little_endian_words_have_their_least_significant_cell_first() -> None:
    memory = Memory(ADDRESS, CELL).store_little_endian(Word(ADDRESS, 15), Word(24, 0x123456))
    assert memory.cells() == {15: 0x56, 0: 0x34, 1: 0x12}
    assert int(memory.load_little_endian(Word(ADDRESS, 15), 3)) == 0x123456


def test_a_store_leaves_the_earlier_memory_alone() -> None:
    before = Memory(ADDRESS, CELL)
    before.store(Word(ADDRESS, 1), Word(CELL, 2))
    assert before.cells() == {}


def test_wrong_widths_are_errors() -> None:
    memory = Memory(ADDRESS, CELL)
    with pytest.raises(TypeError, match="addresses of this memory have 4 bits, not 5"):
        memory.load(Word(5, 0))
    with pytest.raises(TypeError, match="a store of 9 bits"):
        memory.store(Word(ADDRESS, 0), Word(9, 0))


def test_a_view_shows_one_storage_as_another() -> None:
    below = Memory(ADDRESS, CELL, {3: 7})
    moved = Memory(ADDRESS, CELL, lambda address: below.load(address - 2))
    assert int(moved.load(Word(ADDRESS, 5))) == 7
    assert int(moved.store(Word(ADDRESS, 5), Word(CELL, 9)).load(Word(ADDRESS, 5))) == 9


def test_substitution_replaces_contents_by_a_view() -> None:
    memory = Memory(ADDRESS, CELL, "m").store(symbol("a", ADDRESS), Word(CELL, 1))
    views = {"m": Memory(ADDRESS, CELL, {2: 5}).load}
    concrete = memory.substituted(substitution({"a": Word(ADDRESS, 3)}, views), views)
    assert int(concrete.load(Word(ADDRESS, 2))) == 5
    assert int(concrete.load(Word(ADDRESS, 3))) == 1


def test_a_symbolic_memory_has_no_list_of_cells() -> None:
    with pytest.raises(TypeError, match="no list of cells"):
        Memory(ADDRESS, CELL, "m").cells()
