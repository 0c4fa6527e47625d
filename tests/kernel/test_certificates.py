"""Certificates: clauses mean what terms mean, a certificate is for what was asked, and what is wrong shows."""

from __future__ import annotations

import itertools

import pytest
from pysat.solvers import Solver
from test_solver import OPERATIONS, cell

from popek.checks.verdict import Question
from popek.kernel import terms
from popek.kernel.evaluation import evaluate
from popek.kernel.words import Word, symbol
from popek.solving import certificate
from popek.solving.bit_blasting import TRUE, Clauses
from popek.solving.certificate import NotCertifiedError, RefutedError, certify
from popek.solving.smtlib import Graph, Mirror, QuantifiedError, assertions

A, B = symbol("a", 8), symbol("b", 8)
C, D = symbol("c", 4), symbol("d", 4)
LAW = C * (D + 1) != C * D + C  # a few conflicts


def certified(*conditions: Word, **how: int) -> certificate.Certificate:
    question = Question("a question", conditions)
    return certify(question.smtlib, [word.term for word in conditions], **how)


@pytest.mark.parametrize("name", OPERATIONS)
def test_clauses_mean_what_every_operation_means_on_numbers(name: str) -> None:
    """On all numbers of four bits."""
    term, made = OPERATIONS[name], Clauses()
    mirror = Mirror(Graph())
    word = made.add(mirror.vector(term))
    inputs = {
        name: made.add(mirror.vector(variable)) for name, variable in terms.variables_of([term]).items()
    }
    with Solver(name="glucose4", bootstrap_with=made.clauses) as solver:
        for numbers in itertools.product(*(range(1 << len(bits)) for bits in inputs.values())):
            values = dict(zip(inputs, numbers, strict=True))
            given = [
                b if values[n] >> i & 1 else -b for n, bits in inputs.items() for i, b in enumerate(bits)
            ]
            possible, true = solver.propagate(assumptions=given)
            found = sum(1 << i for i, b in enumerate(word) if b == TRUE or (b != -TRUE and b in true))
            assert possible
            assert [found] == evaluate([term], values), values


@pytest.mark.parametrize(
    "conditions",
    [
        [A < 3, A > 200],
        [LAW],
        [D != 0, C % D >= D],
        [D != 0, C // D > C],
        [(A << 3) >> 3 != A & 0x1F],
        [A.arithmetic_shift_right(9) != A.arithmetic_shift_right(7)],
        [A.sign_extend(12).signed_lt(0) != A[7]],
        [A == B, symbol("mode'", 1), Word(1, 0)],
    ],
)
def test_what_is_impossible_is_certified(conditions: list[Word]) -> None:
    assert certified(*conditions).figures["compared"] > 0


def test_equal_arguments_of_a_memory_are_tied_where_it_matters() -> None:
    assert certified(cell(A) == 1, cell(B) == 2, A == B).figures["ties"] == 1
    assert certified(cell(B) == A, cell(A) != cell(cell(B))).figures["ties"] > 0
    assert certified(cell(A) == 1, cell(B) == 2, A < 3, A > 200).figures["ties"] == 0


def test_what_is_possible_is_never_certified() -> None:
    for conditions in ([A < 3], [cell(A) == 1, cell(B) == 2], [A * B == 143, A > 1, B > 1]):
        with pytest.raises(RefutedError, match="the question is satisfiable"):
            certified(*conditions)


def test_a_swapped_question_is_noticed() -> None:
    low, high = Question("low", [A < 3, A > 200]), Question("high", [A < 3, A > 201])
    with pytest.raises(RefutedError, match="the text does not say what was asked"):
        certify(low.smtlib, [word.term for word in high.conditions])
    with pytest.raises(RefutedError, match="the text does not say what was asked"):
        certify(low.smtlib, [low.conditions[0].term])


@pytest.mark.parametrize(("gate", "instead"), [("most", "both"), ("choose", "either"), ("both", "either")])
def test_wrong_clauses_are_noticed(gate: str, instead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though they may have a proof: bits differ from what the terms are worth."""
    wrong = getattr(Clauses, instead)
    text = Question("a sum", [A + B == 3, A + B == 4, (A & B) == 1, A << B == 6])
    monkeypatch.setattr(Clauses, gate, lambda self, *inputs: wrong(self, *inputs))
    with pytest.raises((RefutedError, RecursionError)):
        certify(text.smtlib, [word.term for word in text.conditions])


def test_a_proof_that_the_checker_does_not_accept_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "_refuted", lambda *_: ["0"])
    with pytest.raises(RefutedError, match="the proof of glucose4 is not accepted"):
        certified(LAW)


def test_what_is_too_hard_is_not_certified_and_says_so() -> None:
    with pytest.raises(NotCertifiedError, match="glucose4 meets more than 3 conflicts"):
        certified(A * (B + 1) != A * B + A, conflicts=3)


def test_quantified_texts_are_not_certified_and_say_so() -> None:
    with pytest.raises(NotCertifiedError, match="it has sorts other than bit-vectors"):
        certify("(declare-sort Word 0)")
    with pytest.raises(NotCertifiedError, match="it has quantifiers"):
        certify("(declare-fun p () Bool) (assert (forall ((x (_ BitVec 8))) p))")


@pytest.mark.parametrize(
    "text", ["(assert", "assert)", "(assert x)", "(assert (bvsdiv #x01 #x02))", "(minimize 3)"]
)
def test_what_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"ends within|too many|outside|not declared|not understood"):
        assertions(text, Graph())


def test_names_bound_by_let_end_with_it() -> None:
    text = "(declare-const a Bool) (assert (and (let ((a (not a))) (let ((b a)) (or a b))) a))"
    (found,) = assertions(text, Graph())
    inner, outer = found.args
    assert (inner.op, [arg.op for arg in inner.args], outer.op) == ("or", ["not", "not"], "var")


def test_sorts_that_are_no_bit_vectors_are_named() -> None:
    with pytest.raises(QuantifiedError, match="sorts other than bit-vectors"):
        assertions("(declare-fun storage () (Array Int Int))", Graph())
