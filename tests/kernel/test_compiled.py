"""The compiled semantics and the interpreted ones are one function.

A few forms of every machine here; `POPEK_COMPILED=all` asks every form, which takes minutes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popek.kernel import terms
from popek.kernel.compiled import Compiled, compiled, nothing_undefined
from popek.kernel.evaluation import evaluate
from popek.kernel.expressions import NamesInScope, Uses
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import Role, State, memory, word
from popek.kernel.terms import Term
from popek.kernel.words import Word, ite
from strategies import FORMS, Everywhere, Example, aims, boundary, example, fitted, machine

ALL = os.environ.get("POPEK_COMPILED") == "all"
FORMS_OF_A_MACHINE = 3
MACHINES = {name: [form for _, form in found] for name, found in groupby(FORMS, lambda pair: pair[0])}


def unlike(one: Outcome[Any], other: Outcome[Any]) -> str:
    """The first thing in which two outcomes on numbers differ."""
    if type(one) is not type(other):
        return f"{type(one).__name__} and {type(other).__name__}"
    if isinstance(one, NotModelled) or isinstance(other, NotModelled):
        return "" if one == other else f"{one} and {other}"
    if isinstance(one, Trap) and isinstance(other, Trap):
        seen = [
            (
                t.vector,
                t.memory,
                t.level,
                None if t.error_code is None else (t.error_code.width, int(t.error_code)),
            )
            for t in (one, other)
        ]
        if seen[0] != seen[1]:
            return f"{seen[0]} and {seen[1]}"
    for name, first in one.state.words().items():
        second = other.state.words()[name]
        if (first.width, first.value) != (second.width, second.value) or type(second.value) is not int:
            return f"{name}: {first} and {second}"
    for name, stored in one.state.memories().items():
        addresses = {int(a) for m in (stored, other.state.memories()[name]) for a in _written(m)}
        for address in (Word(stored.address_width, a) for a in addresses):
            if int(stored.load(address)) != int(other.state.memories()[name].load(address)):
                return f"{name}[{address}]"
    return ""


def _written(content: Any) -> list[Any]:
    return [
        *(content.root if isinstance(content.root, dict) else ()),
        *(entry[0] for entry in content.stores),
    ]


def a_state(known: Machine[Any], chance: random.Random) -> State:
    """A state that exists, with something at every address or in some cells."""
    leaves = [leaf for leaf in known.state.leaves if chance.random() < 0.5]
    state = fitted(known, known.state.reset(), {leaf.name: boundary(chance, leaf) for leaf in leaves})
    for name, content in state.memories().items():
        cells = {
            chance.getrandbits(min(8, content.address_width)): chance.getrandbits(content.cell_width)
            for _ in range(9)
        }
        pool = tuple(chance.getrandbits(content.cell_width) for _ in range(5))
        root: Any = Everywhere(cells, pool, content.cell_width) if chance.random() < 0.5 else cells
        state.memories()[name] = Memory(content.address_width, content.cell_width, root)  # type: ignore[index]
    return state


def some_operands(instruction: Instruction, chance: random.Random) -> dict[str, Word]:
    words = {name: Word(width, chance.getrandbits(width)) for name, width in instruction.widths.items()}
    return words if instruction.valid(words).value == 1 else instruction.words(instruction.smallest)


def assert_alike(known: Machine[Any], instruction: Instruction, fast: Compiled[Any], one: Example) -> None:
    wanted = known.step(instruction, one.state, one.operands)
    found = fast.step(instruction, one.state, one.operands)
    assert not unlike(wanted, found), f"{instruction.form}: {unlike(wanted, found)}, from {one.state}"


@pytest.mark.parametrize("name", MACHINES)
def test_compiled_steps_end_as_interpreted_ones(name: str) -> None:
    """From random states that exist; in the long run from one of every path that a solver knows, too."""
    known, chance = machine(name), random.Random(name)
    fast = Compiled(known)
    forms = MACHINES[name] if ALL else chance.sample(MACHINES[name], min(len(MACHINES[name]), 3))
    for form in forms:
        instruction = known.instructions[form]
        if fast.form(instruction) is None:
            continue
        for chosen in range(5):
            state = a_state(known, chance)
            state = state.with_undefined({}) if chosen % 2 else state
            assert_alike(known, instruction, fast, Example(state, some_operands(instruction, chance), {}))
        for _, aim in aims(name, form) if ALL else ():
            assert_alike(known, instruction, fast, example(name, form, aim, chance.getrandbits(32), []))


@pytest.mark.parametrize(("name", "most"), [("pg74", 0), ("ia32", 4)])
def test_nearly_every_form_is_compiled(name: str, most: int) -> None:
    known = machine(name)
    fast = Compiled(known)
    kept = list(known.instructions.values()) if most == 0 else list(known.find("CALL far"))
    assert sum(fast.form(one) is None for one in kept) == most
    assert set(fast.why.values()) <= {"copies a block of storage"}


# -- expressions ----------------------------------------------------------------------------------

WIDTHS = (1, 3, 8)
OPERATIONS = ("add", "sub", "mul", "udiv", "urem", "and", "or", "xor", "shl", "lshr", "ashr")
COMPARISONS = ("eq", "ult", "ule", "slt", "sle")


@st.composite
def a_term(draw: st.DrawFn, width: int, depth: int) -> Term:
    """Any term over three variables of each width and one function."""
    if depth == 0:
        if draw(st.booleans()):
            return terms.const(width, draw(st.integers(0, terms.mask(width))))
        return terms.var(f"{draw(st.sampled_from('abc'))}{width}", width)
    kind = draw(
        st.sampled_from(("arithmetic", "compare", "ite", "not", "concat", "extract", "sext", "apply"))
    )
    below = st.deferred(lambda: a_term(width, depth - 1))
    if kind == "compare" and width == 1:
        size = draw(st.sampled_from(WIDTHS))
        sides = [draw(a_term(size, depth - 1)) for _ in range(2)]
        return terms.compare(draw(st.sampled_from(COMPARISONS)), *sides)
    if kind == "ite":
        return terms.ite(draw(a_term(1, depth - 1)), draw(below), draw(below))
    if kind == "not":
        return terms.invert(draw(below))
    if kind == "concat" and width > 1:
        return terms.concat(
            draw(a_term(1, depth - 1)), *(draw(a_term(1, depth - 1)) for _ in range(width - 1))
        )
    if kind == "extract" and width < 8:
        low = draw(st.integers(0, 8 - width))
        return terms.extract(draw(a_term(8, depth - 1)), low + width - 1, low)
    if kind == "sext" and width > 1:
        return terms.sign_extend(
            draw(a_term(draw(st.sampled_from([w for w in WIDTHS if w < width])), depth - 1)), width
        )
    if kind == "apply" and width == 8:
        return terms.apply("storage", 8, draw(a_term(8, depth - 1)))
    return terms.arithmetic(draw(st.sampled_from(OPERATIONS)), draw(below), draw(below))


def written(root: Term) -> Callable[[dict[str, int], dict[int, int]], int]:
    """A term as a function on numbers."""
    variables = {f"{letter}{width}": f"v[{f'{letter}{width}'!r}]" for letter in "abc" for width in WIDTHS}
    scope = NamesInScope(variables, {"storage": "storage.get"}).used(Uses([root]))
    lines: list[str] = []
    result = scope.number(root, lines, 1)
    namespace = NamesInScope.helpers()
    exec("\n".join(["def f(v, storage):", *lines, f" return {result}"]), namespace)
    return namespace["f"]  # type: ignore[no-any-return]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(WIDTHS), st.randoms(use_true_random=False))
def test_an_expression_is_what_the_term_is(data: st.DataObject, width: int, chance: random.Random) -> None:
    root = data.draw(a_term(width, 4))
    function = written(root)
    for _ in range(4):
        numbers = {f"{x}{w}": chance.getrandbits(w) for x in "abc" for w in WIDTHS}
        cells = {chance.getrandbits(8): chance.getrandbits(8) for _ in range(60)}
        found = function(numbers, cells)
        assert type(found) is int
        assert [found] == evaluate([root], numbers, {"storage": lambda address, c=cells: c.get(address, 0)})


# -- a machine of its own -------------------------------------------------------------------------


class Small(State):
    """Two registers and a storage."""

    mode = word(1, role=Role.MODE)
    acc = word(8)
    other = word(8)
    memory = memory(address=8, cell=8)


def small() -> Machine[Small]:
    made = Machine("small", "Small", Small, lambda s: s.mode == 0, lambda s: s.mode == 1)

    @made.instruction("SWAP")
    def swap(cpu: Small) -> None:
        """Registers and two cells change places."""
        here, there = cpu.memory.load(cpu.acc), cpu.memory.load(cpu.other)
        cpu.memory = cpu.memory.store(cpu.acc, there).store(cpu.other, here)
        cpu.acc, cpu.other = cpu.other, cpu.acc

    @made.instruction("FLAG")
    def flag(cpu: Small) -> None:
        """A condition becomes a number."""
        cpu.acc = (ite(cpu.acc == cpu.other, cpu.acc, cpu.other) < 3).zero_extend(8)

    @made.instruction("COUNT")
    def count(cpu: Small) -> None:
        """As often as a register says."""
        for _ in range(int(cpu.acc)):
            cpu.other = cpu.other + 1

    return made


def test_what_is_read_is_read_before_anything_is_written() -> None:
    known = small()
    run = compiled(known, known.instructions["SWAP"]).run
    words, cells = [0, 3, 5], [{3: 30, 5: 50}]
    assert run(words, cells, [], nothing_undefined) == (0, None)
    assert (words, cells) == ([0, 5, 3], [{3: 50, 5: 30}])


def test_a_condition_becomes_a_number() -> None:
    known = small()
    after = Compiled(known).step(known.instructions["FLAG"], Small.reset(acc=1, other=2), {})
    assert isinstance(after, Next)
    assert type(after.state.acc.value) is int


def test_what_cannot_be_compiled_is_interpreted_and_named() -> None:
    known = small()
    fast = Compiled(known)
    after = fast.step(known.instructions["COUNT"], Small.reset(acc=4), {})
    assert isinstance(after, Next)
    assert int(after.state.other) == 4
    assert "symbolic" in fast.why["COUNT"]
