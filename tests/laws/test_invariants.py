"""A completed step leads from a state that exists to a state that exists, on every machine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from strategies import FORMS, Example, examples, machine

from popek.kernel.outcome import Next
from popek.kernel.words import Word

EXAMPLES = 16
BY_FORM = pytest.mark.parametrize(("name", "form"), FORMS, ids=[f"{name}: {form}" for name, form in FORMS])


@BY_FORM
def test_a_completed_step_ends_in_a_state_that_exists(name: str, form: str) -> None:
    known = machine(name)

    @settings(max_examples=EXAMPLES)
    @given(examples(name, form))
    def exists_after(example: Example) -> None:
        assert known.invariant(example.state).value == 1
        outcome = known.step(known.instructions[form], example.state, example.operands)
        if isinstance(outcome, Next):
            assert known.invariant(outcome.state).value == 1

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
        def leaves_alone(example: Example, form: str = form) -> None:
            words, memories = dict(example.state.words()), dict(example.state.memories())
            known.step(known.instructions[form], example.state, example.operands)
            assert all(example.state.words()[n] is word for n, word in words.items())
            assert all(example.state.memories()[n] is content for n, content in memories.items())

        leaves_alone()


def test_a_machine_that_breaks_its_invariant_is_noticed() -> None:
    known = machine("ia32")
    state = known.state.reset().with_changes({"cs.selector": Word(16, 0x0B)})
    assert known.invariant(state).value == 0
