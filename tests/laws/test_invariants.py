"""A completed step leads from a state that exists to a state that exists, on every machine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Next
from popek.kernel.state import State
from popek.kernel.words import Word
from strategies import FORMS, Example, examples, machine

EXAMPLES = 16
BY_FORM = pytest.mark.parametrize(("name", "form"), FORMS, ids=[f"{name}: {form}" for name, form in FORMS])


# The PDPs' invariants speak of a processor that runs.  HALT and WAIT stop it; what was stopped exists as
# soon as it goes on.
GOING_ON = {"running": 1, "waiting": 0}


def _continued(state: State) -> State:
    return state.with_changes({name: on for name, on in GOING_ON.items() if name in state.words()})


@BY_FORM
def test_a_completed_step_ends_in_a_state_that_exists(name: str, form: str) -> None:
    known = machine(name)

    @settings(max_examples=EXAMPLES)
    @given(examples(name, form))
    def exists_after(example: Example) -> None:
        assert known.invariant(example.state).value == 1
        outcome = known.step(known.instructions[form], example.state, example.operands)
        if isinstance(outcome, Next):
            assert known.invariant(_continued(outcome.state)).value == 1

    exists_after()


@pytest.mark.parametrize("name", sorted({name for name, _ in FORMS}))
def test_the_reset_state_of_every_machine_exists(name: str) -> None:
    assert machine(name).invariant(machine(name).state.reset()).value == 1


@pytest.mark.parametrize("name", sorted({name for name, _ in FORMS}))
def test_a_step_leaves_the_state_it_starts_from_as_it_is(name: str) -> None:
    known = machine(name)
    for form in [form for owner, form in FORMS if owner == name][::5]:

        @settings(max_examples=4, database=None)
        @given(examples(name, form))
        def leaves_alone(instruction: Instruction, example: Example) -> None:
            words, memories = dict(example.state.words()), dict(example.state.memories())
            known.step(instruction, example.state, example.operands)
            assert all(example.state.words()[n] is word for n, word in words.items())
            assert all(example.state.memories()[n] is content for n, content in memories.items())

        leaves_alone(known.instructions[form])


def test_a_machine_that_breaks_its_invariant_is_noticed() -> None:
    known = machine("ia32")
    state = known.state.reset().with_changes({"cs.selector": Word(16, 0x0B)})
    assert known.invariant(state).value == 0
