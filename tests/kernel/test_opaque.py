"""Arithmetic that a solver is told of as far as it needs: the answers are those about the arithmetic itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popek.kernel import terms
from popek.kernel.evaluation import Evaluation
from popek.kernel.opaque import opaque
from popek.kernel.words import Word
from popek.solving import solver as solving
from popek.solving.solver import Answer, Solver


@opaque(64, 32, 32)
def product(a: Word, b: Word) -> Word:
    return a.zero_extend(64) * b.zero_extend(64)


def symbol(name: str) -> Word:
    return Word(32, terms.var(name, 32))


A, B, C, D = map(symbol, "abcd")
numbers = st.integers(0, (1 << 32) - 1)


def asked(*conditions: Word) -> Solver:
    solver = Solver()
    for condition in conditions:
        solver.add(condition)
    return solver


@given(numbers, numbers)
def test_on_numbers_by_evaluation_and_by_substitution_it_is_the_same(a: int, b: int) -> None:
    expected = a * b
    assert int(product(Word(32, a), Word(32, b))) == expected
    term = product(A, B).term
    known = {A.term: a, B.term: b}
    assert Evaluation(lambda unknown, args: 0, known)(term) == expected
    put = terms.Substitution({"a": terms.const(32, a), "b": terms.const(32, b)})
    assert terms.value_of(put(term)) == expected


def test_equal_factors_give_equal_products_without_a_word_about_multiplication() -> None:
    solver = asked(A == C, B == D, product(A, B) != product(C, D))
    assert (solver.check(), solver.told) == (Answer.UNSAT, [])


def test_an_assignment_has_the_product_that_it_should() -> None:
    solver = asked(product(A, B) == 391, A > 1, B > 1, A < B)
    assert solver.check() is Answer.SAT
    model = solver.model()
    assert (model(A.term), model(B.term)) == (17, 23)
    assert solver.told


def test_what_only_multiplication_refutes_is_refuted_and_the_question_says_by_what() -> None:
    odd = product(A, B)[0] != (A[0] & B[0])
    solver = asked(odd)
    assert solver.check() is Answer.UNSAT
    again = asked(odd, *(Word(1, lemma) for lemma in solver.told))
    assert again.check() is Answer.UNSAT
    assert not again.told, "the lemmas suffice"


def test_what_it_was_told_goes_with_the_level() -> None:
    solver = asked(A < 2)
    solver.push(product(A, B)[0] != (A[0] & B[0]))
    assert solver.check() is Answer.UNSAT
    solver.pop()
    solver.push(product(A, B) == 7)
    assert solver.check() is Answer.SAT
    assert solver.model()(B.term) == 7


def test_a_solver_that_believes_every_value_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving.Solver, "_lemmas", lambda self, cells: [])
    with pytest.raises(AssertionError):
        test_an_assignment_has_the_product_that_it_should()
    with pytest.raises(AssertionError):
        test_what_only_multiplication_refutes_is_refuted_and_the_question_says_by_what()
