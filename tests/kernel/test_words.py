"""Words: one width each, integers stay integers, and the same arithmetic on numbers and on symbols."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popek.kernel.evaluation import evaluate
from popek.kernel.words import (
    SymbolicConditionError,
    WidthError,
    Word,
    all_of,
    any_of,
    concat,
    ite,
    symbol,
)

WIDTHS = st.integers(1, 70)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, int, int]:
    """A width and two numbers that fit it, often at its ends."""
    width = draw(WIDTHS)
    top = (1 << width) - 1
    number = st.one_of(st.sampled_from([0, 1, top, top >> 1, (top >> 1) + 1]), st.integers(0, top))
    return width, draw(number) & top, draw(number) & top


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value >= 1 << (width - 1) else value


# What each operation means, said with Python's integers alone; the result is taken modulo 2**width.
MEANING = {
    "add": (lambda a, b: a + b, lambda w, a, b: a + b),
    "sub": (lambda a, b: a - b, lambda w, a, b: a - b),
    "mul": (lambda a, b: a * b, lambda w, a, b: a * b),
    "div": (lambda a, b: a // b, lambda w, a, b: a // b if b else -1),
    "mod": (lambda a, b: a % b, lambda w, a, b: a % b if b else a),
    "and": (lambda a, b: a & b, lambda w, a, b: a & b),
    "or": (lambda a, b: a | b, lambda w, a, b: a | b),
    "xor": (lambda a, b: a ^ b, lambda w, a, b: a ^ b),
    "shl": (lambda a, b: a << b, lambda w, a, b: a << min(b, 100)),
    "shr": (lambda a, b: a >> b, lambda w, a, b: a >> min(b, 100)),
    "sar": (lambda a, b: a.arithmetic_shift_right(b), lambda w, a, b: signed(a, w) >> min(b, 100)),
    "neg": (lambda a, b: -a, lambda w, a, b: -a),
    "not": (lambda a, b: ~a, lambda w, a, b: ~a),
    "sign_extend": (lambda a, b: a.sign_extend(80), lambda w, a, b: signed(a, w)),
    "zero_extend": (lambda a, b: a.zero_extend(80), lambda w, a, b: a),
    "concat": (lambda a, b: concat(a, b), lambda w, a, b: a << w | b),
    "ite": (lambda a, b: ite(a < b, a, b), lambda w, a, b: min(a, b)),
    "eq": (lambda a, b: a == b, lambda w, a, b: int(a == b)),
    "ne": (lambda a, b: a != b, lambda w, a, b: int(a != b)),
    "lt": (lambda a, b: a < b, lambda w, a, b: int(a < b)),
    "le": (lambda a, b: a <= b, lambda w, a, b: int(a <= b)),
    "gt": (lambda a, b: a > b, lambda w, a, b: int(a > b)),
    "ge": (lambda a, b: a >= b, lambda w, a, b: int(a >= b)),
    "signed_lt": (lambda a, b: a.signed_lt(b), lambda w, a, b: int(signed(a, w) < signed(b, w))),
    "top bit": (lambda a, b: a[a.width - 1], lambda w, a, b: a >> (w - 1)),
    "low half": (lambda a, b: a[(a.width - 1) // 2 : 0], lambda w, a, b: a & ((1 << (w + 1) // 2) - 1)),
}


@pytest.mark.parametrize("name", MEANING)
@given(pairs())
def test_an_operation_on_numbers_is_pythons_modulo_the_width(name: str, pair: tuple[int, int, int]) -> None:
    width, a, b = pair
    on_words, meaning = MEANING[name]
    result = on_words(Word(width, a), Word(width, b))
    assert result.concrete
    assert int(result) == meaning(width, a, b) % (1 << result.width)


@pytest.mark.parametrize("name", MEANING)
@given(pairs())
def test_an_operation_on_symbols_evaluates_to_the_same(name: str, pair: tuple[int, int, int]) -> None:
    width, a, b = pair
    on_words, _ = MEANING[name]
    expected = on_words(Word(width, a), Word(width, b))
    values = {"a": a, "b": b}
    for left, right in (
        (symbol("a", width), symbol("b", width)),
        (symbol("a", width), Word(width, b)),
        (Word(width, a), symbol("b", width)),
    ):
        result = on_words(left, right)
        assert result.width == expected.width
        assert evaluate([result.term], values) == [int(expected)]


@given(pairs(), st.data())
def test_replacing_bits_changes_these_bits_alone(pair: tuple[int, int, int], data: st.DataObject) -> None:
    width, a, b = pair
    low = data.draw(st.integers(0, width - 1))
    high = data.draw(st.integers(low, width - 1))
    new = b & ((1 << (high - low + 1)) - 1)
    for word in (Word(width, a), symbol("a", width)):
        changed = word.replace(high, low, new)
        (value,) = evaluate([changed.term], {"a": a})
        assert value >> low & ((1 << (high - low + 1)) - 1) == new
        assert value ^ a | ((1 << (high - low + 1)) - 1) << low == ((1 << (high - low + 1)) - 1) << low


@pytest.mark.parametrize("operation", [
    lambda a, b: a + b, lambda a, b: a & b, lambda a, b: a == b, lambda a, b: a < b, lambda a, b: a << b,
    lambda a, b: ite(Word(1, 1), a, b), lambda a, b: a >= b,
])  # fmt: skip
def test_words_of_different_widths_do_not_mix(operation: object) -> None:
    for left in (Word(8, 1), symbol("a", 8)):
        with pytest.raises(WidthError, match="8-bit and a 9-bit word do not mix"):
            operation(left, Word(9, 1))  # type: ignore[operator]


def test_a_number_that_does_not_fit_is_an_error() -> None:
    for value in (256, -1):
        with pytest.raises(WidthError, match="does not fit 8 bits"):
            Word(8, value)
    with pytest.raises(WidthError, match="does not fit 8 bits"):
        symbol("a", 8) + 256
    with pytest.raises(WidthError, match="bits 8:0"):
        Word(8, 0)[8:0]


def test_a_word_does_not_mix_with_what_is_no_number() -> None:
    with pytest.raises(TypeError, match="does not mix with str"):
        Word(8, 0) + "1"  # type: ignore[operator]


def test_integers_stay_integers() -> None:
    result = (Word(8, 200) + 100) * 3 ^ 0xFF
    assert type(result.value) is int
    assert type((result == 3).value) is int


def test_a_symbolic_condition_has_no_truth_value_outside_an_exploration() -> None:
    a = symbol("a", 8)
    with pytest.raises(SymbolicConditionError, match="outside an exploration"):
        bool(a == 1)
    with pytest.raises(SymbolicConditionError, match="no definite value"):
        int(a)
    assert bool(a == a)


def test_conditions_combine_without_branching() -> None:
    a = symbol("a", 8)
    both = all_of([a > 3, a < 9])
    some = any_of([a == 3, a.isin((9, 11))])
    for value in range(16):
        assert evaluate([both.term, some.term], {"a": value}) == [
            int(3 < value < 9), int(value in (3, 9, 11)),
        ]  # fmt: skip
    assert int(all_of([])) == 1
    assert int(any_of([])) == 0


def test_a_concrete_run_does_not_import_z3() -> None:
    script = (
        "import sys\n"
        "from popek.machines import makers\n"
        "from popek.kernel.words import Word\n"
        "for make in makers().values():\n"
        "    machine = make()\n"
        "    for instruction in machine.instructions.values():\n"
        "        words = {n: Word(w, 1) for o in instruction.inputs for n, w in o.part_names()}\n"
        "        machine.step(instruction, machine.state.reset(), words)\n"
        "print('z3' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "False\n"
