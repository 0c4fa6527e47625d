"""The law that ties the uses of one semantics together, on every form of every machine.

For every concrete state that exists, exactly one path's condition holds, and what that path says comes to
the same as running the instruction on numbers.  That run leaves the state it starts from as it is, and where it
completes, the state it ends in exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings

from popek.checks.runs import Run
from popek.kernel.evaluation import evaluate
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import State
from popek.kernel.terms import Term
from popek.kernel.words import Word
from strategies import FORMS, Example, aims, example, examples, explored, machine, stored

Contents = Callable[[int], int]

EXAMPLES = 32
LEAST_IN_ALL = 20_000


def test_a_run_has_at_least_twenty_thousand_examples() -> None:
    assert len(FORMS) * EXAMPLES >= LEAST_IN_ALL


@pytest.mark.parametrize(("name", "form"), FORMS, ids=[f"{name}: {form}" for name, form in FORMS])
def test_exactly_one_path_holds_and_equals_the_run_on_numbers(name: str, form: str) -> None:
    run, conditions = explored(name, form), _conditions(explored(name, form))
    tried = 0

    @settings(max_examples=EXAMPLES)
    @given(examples(name, form))
    def agrees(example: Example) -> None:
        nonlocal tried
        tried += 1
        assert_agrees(name, form, run, conditions, example)

    agrees()
    assert tried >= EXAMPLES
    for number, aim in aims(name, form):
        aimed = example(name, form, aim, 2 * number + 1, [])
        assert_agrees(name, form, run, conditions, aimed, number)


def _conditions(run: Run[Any]) -> list[Term]:
    return list(dict.fromkeys(condition for path in run.paths for condition in path.conditions))


def assert_agrees(
    name: str,
    form: str,
    run: Run[Any],
    conditions: list[Term],
    example: Example,
    aimed: int | None = None,
) -> None:
    """The law for one example; `aimed` is the path that it must go through, where one is known."""
    known = machine(name)
    instruction = known.instructions[form]
    assert known.invariant(example.state).value == 1
    assert instruction.valid(example.operands).value == 1
    values = dict(zip(conditions, evaluate(conditions, example.numbers(), example.functions()), strict=True))
    holding = [path for path in run.paths if all(values[condition] for condition in path.conditions)]
    assert len(holding) == 1, f"{len(holding)} paths hold"
    assert aimed is None or holding[0] is run.paths[aimed]
    words, memories = dict(example.state.words()), dict(example.state.memories())
    concrete = known.step(instruction, example.state, example.operands)
    assert_same_outcome(run, holding[0].result, concrete, example)
    assert_exists(known, concrete)
    assert_left_alone(example.state, words, memories)


def assert_exists(known: Machine[Any], outcome: Outcome[Any]) -> None:
    if isinstance(outcome, Next):
        assert known.invariant(_continued(outcome.state)).value == 1, "it ends in a state that does not exist"


# The PDPs' invariants speak of a processor that runs.  HALT and WAIT stop it; what was stopped exists as
# soon as it goes on.
GOING_ON = {"running": 1, "waiting": 0}


def _continued(state: State) -> State:
    return state.with_changes({name: on for name, on in GOING_ON.items() if name in state.words()})


def assert_left_alone(state: State, words: Mapping[str, Word], memories: Mapping[str, Memory]) -> None:
    """The state is still of these components, the objects themselves."""
    changed = [name for name, word in words.items() if state.words()[name] is not word]
    changed += [name for name, content in memories.items() if state.memories()[name] is not content]
    assert changed == [], "the state it starts from was changed"


def assert_same_outcome(
    run: Run[Any], symbolic: Outcome[Any], concrete: Outcome[Any], example: Example
) -> None:
    assert type(symbolic) is type(concrete), f"{symbolic} and {concrete}"
    if isinstance(symbolic, NotModelled) or isinstance(concrete, NotModelled):
        assert symbolic == concrete
        return
    before, after = symbolic.state, concrete.state
    changed = {n: w for n, w in before.words().items() if w.term is not run.before.words()[n].term}
    roots = [word.term for word in changed.values()]
    roots += [term for content in before.memories().values() for term in stored(content)]
    if isinstance(symbolic, Trap) and symbolic.error_code is not None:
        roots.append(symbolic.error_code.term)
    numbers = evaluate(roots, example.numbers(), example.functions())
    value = dict(zip(roots, numbers, strict=True))
    if isinstance(symbolic, Trap) and isinstance(concrete, Trap):
        assert symbolic.vector == concrete.vector
        assert symbolic.memory == concrete.memory
        code = None if symbolic.error_code is None else value[symbolic.error_code.term]
        assert code == (None if concrete.error_code is None else int(concrete.error_code))
    for component, start in example.state.words().items():
        expected = value[changed[component].term] if component in changed else int(start)
        assert int(after.words()[component]) == expected, component
    for storage, content in before.memories().items():
        _assert_same_storage(storage, content, after.memories()[storage], value, example)


def _assert_same_storage(
    name: str, symbolic: Memory, concrete: Memory, value: dict[Term, int], example: Example
) -> None:
    start, size = example.functions(), 1 << symbolic.address_width
    touched = _touched(symbolic, value) | _touched(concrete, {})
    if concrete.concrete and isinstance(example.state.memories()[name].root, dict):
        touched |= set(concrete.cells())
    for address in touched:
        expected = _cell(symbolic, address % size, value, start)
        found = int(concrete.load(Word(symbolic.address_width, address % size)))
        assert found == expected, f"{name}[{address % size:#x}]"


def _touched(content: Memory, value: dict[Term, int]) -> set[int]:
    """Where it was stored, and the edges of blocks that were copied."""
    found = set()
    for entry in content.stores:
        if isinstance(entry, Block):
            first, count = _number(entry.destination, value), _number(entry.cells, value)
            found |= {first - 1, first, first + count // 2, first + count - 1, first + count}
        else:
            found.add(_number(entry[0], value))
    return found


def _cell(content: Memory, address: int, value: dict[Term, int], start: Mapping[str, Contents]) -> int:
    """One cell of a symbolic memory, with numbers for its terms."""
    size = 1 << content.address_width
    for entry in reversed(content.stores):
        if isinstance(entry, Block):
            distance = (address - _number(entry.destination, value)) % size
            if distance < _number(entry.cells, value):
                source = (_number(entry.source, value) + distance) % size
                return _cell(entry.contents, source, value, start)
        elif _number(entry[0], value) == address:
            return _number(entry[1], value)
    assert isinstance(content.root, str), "the semantics start from unknown contents"
    return start[content.root](address)


def _number(word: Word, value: dict[Term, int]) -> int:
    return int(word) if word.concrete else value[word.term]


def test_a_path_that_is_left_out_would_be_noticed() -> None:
    run = explored("pg74", "LPSW a")
    kept = Run(run.before, run.paths[1:], run.operands)

    @settings(max_examples=600, database=None)
    @given(examples("pg74", "LPSW a"))
    def agrees(example: Example) -> None:
        assert_agrees("pg74", "LPSW a", kept, _conditions(kept), example)

    with pytest.raises(AssertionError, match="0 paths hold"):
        agrees()


class Altered:
    """A machine of which one thing is otherwise, to see that the law looks at it."""

    def __init__(self, known: Machine[Any], *, exists: Callable[[State], Word] | None = None) -> None:
        self.known, self.instructions = known, known.instructions
        self.invariant = exists or known.invariant

    def step(self, instruction: Instruction, state: State, operands: Mapping[str, Word]) -> Outcome[Any]:
        """The same, but the start has another object in it, of the same value."""
        outcome = self.known.step(instruction, state, operands)
        name, word = next(iter(state.words().items()))
        state[name] = Word(word.width, int(word))
        return outcome


def law_of(altered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = explored("pg74", "MOVE a, b")
    completing = (aim for n, aim in aims("pg74", "MOVE a, b") if isinstance(run.paths[n].result, Next))
    drawn = example("pg74", "MOVE a, b", next(completing), 1, [])
    assert_agrees("pg74", "MOVE a, b", run, _conditions(run), drawn)
    monkeypatch.setitem(globals(), "machine", lambda name: altered)
    assert_agrees("pg74", "MOVE a, b", run, _conditions(run), drawn)


def test_a_step_into_a_state_that_does_not_exist_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter((Word(1, 1), Word(1, 0)))
    known = machine("pg74")
    with pytest.raises(AssertionError, match="does not exist"):
        law_of(Altered(known, exists=lambda state: next(answers)), monkeypatch)


def test_a_step_that_changes_the_state_it_starts_from_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(AssertionError, match="was changed"):
        law_of(Altered(machine("pg74")), monkeypatch)


@pytest.mark.parametrize("name", sorted({name for name, _ in FORMS}))
def test_the_reset_state_of_every_machine_exists(name: str) -> None:
    assert machine(name).invariant(machine(name).state.reset()).value == 1


def test_every_kind_of_outcome_occurs_among_the_examples() -> None:
    seen = set()

    @settings(max_examples=400, database=None, derandomize=True)
    @given(examples("ia32", "CALL m16:32"))
    def look(example: Example) -> None:
        known = machine("ia32")
        seen.add(type(known.step(known.instructions["CALL m16:32"], example.state, example.operands)))

    look()
    assert seen == {Next, Trap, NotModelled}
