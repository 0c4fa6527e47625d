"""The oracle of an exploration: what it rules out, and the assignments it keeps."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_solver import hard

from popek.kernel import terms
from popek.kernel.evaluation import evaluate
from popek.kernel.words import Word, symbol
from popek.solving.pruning import Pruner
from popek.solving.solver import Effort

pytestmark = pytest.mark.usefixtures("each_solver")

A, B = symbol("a", 8), symbol("b", 8)


def cell(address: Word) -> Word:
    return Word(8, terms.apply("f", 8, address.term))


def test_feasible_follows_levels() -> None:
    oracle = Pruner()
    oracle.push(A == 1)
    assert oracle.feasible()
    oracle.push(A != 1)
    assert not oracle.feasible()
    oracle.pop()
    oracle.push((cell(A) == 4) & (cell(Word(8, 1)) == 5))
    assert not oracle.feasible()
    oracle.pop()
    assert oracle.feasible()


def test_an_assignment_that_gives_one_cell_two_values_does_not_count() -> None:
    oracle = Pruner()
    oracle.push((A == 1) & (cell(A) == 4))
    assert oracle.feasible()
    oracle.push(cell(Word(8, 1)) == 0)  # what the assignment says of a cell that it has not heard of
    assert not oracle.feasible()


def test_what_is_impossible_nearby_is_looked_for_further_away() -> None:
    oracle = Pruner()
    oracle.push(A == B)
    assert oracle.feasible()
    oracle.push(A + B == 8)  # both must change
    assert oracle.feasible()
    oracle.push(cell(A) == 3)
    oracle.push(cell(B) != 3)
    assert not oracle.feasible()


def test_preferences_are_met_where_they_can_be_and_never_rule_anything_out() -> None:
    oracle = Pruner(prefer=[A == 7, B == 9])
    oracle.push(B < 100)
    assert oracle.feasible()
    assert oracle.assignment is not None
    assert (oracle.assignment(A.term), oracle.assignment(B.term)) == (7, 9)
    contrary = Pruner(prefer=[A == 7])
    contrary.push(A == 8)
    assert contrary.feasible()


def test_too_few_resources_rule_nothing_out() -> None:
    oracle = Pruner(Effort(), rlimit=10_000)
    oracle.push(hard())
    assert oracle.feasible()
    assert oracle.assignment is None


def conditions() -> st.SearchStrategy[Word]:
    """Small conditions on two words and a memory."""
    words = st.sampled_from([A, B, A + B, cell(A), cell(B), cell(A + 1), cell(Word(8, 3))])
    values = st.integers(0, 4)
    equal = st.builds(lambda word, value: word == value, words, values)
    below = st.builds(lambda word, value: word < value, words, values)
    same = st.builds(lambda left, right: left == right, words, words)
    single = st.one_of(equal, below, same).flatmap(lambda word: st.sampled_from([word, ~word]))
    return st.one_of(single, st.builds(lambda left, right: left & right, single, single))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(conditions(), min_size=1, max_size=6))
def test_an_assignment_fulfils_all_that_was_pushed(pushed: list[Word]) -> None:
    oracle = Pruner()
    for number, condition in enumerate(pushed, 1):
        oracle.push(condition)
        possible = oracle.feasible()
        model = oracle.assignment
        assert possible == (model is not None)
        if model is None:
            return
        so_far = [word.term for word in pushed[:number]]
        numbers = {name: model(term) for name, term in terms.variables_of(so_far).items()}
        cells = {model(c.args[0]): model(c) for c in terms.applications_of(so_far)}
        assert all(evaluate(so_far, numbers, {"f": cells.__getitem__}))
