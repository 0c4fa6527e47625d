"""The solver: translation means what terms mean, cells at equal addresses are equal, unknown is unknown."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from test_terms import FUNCTIONS, VALUES, VARIABLES, Tree, built, meaning, trees

from popek.checks.verdict import Question, Status, Truth, both, either, negate
from popek.kernel import terms
from popek.kernel.evaluation import evaluate
from popek.kernel.words import Word, symbol
from popek.solving import engine_z3, first_order
from popek.solving.choice import VARIABLE
from popek.solving.solver import (
    Answer,
    Effort,
    QuestionKind,
    Solver,
    assignment,
    holds,
    sha256,
    solver_version,
)

pytestmark = pytest.mark.usefixtures("each_solver")

A, B, V = symbol("a", 8), symbol("b", 8), symbol("v", 8)


def cell(address: Word) -> Word:
    return Word(8, terms.apply("memory", 8, address.term))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(8, 3), VALUES)
def test_a_solver_agrees_with_evaluation(tree: Tree, values: dict[str, int]) -> None:
    term = built(tree)
    solver = Solver()
    for name, number in values.items():
        variable = terms.var(name, VARIABLES[name])
        solver.add(terms.compare("eq", variable, terms.const(variable.width, number)))
    cells = terms.applications_of([term])
    for one in cells:
        solver.add(terms.compare("eq", one, terms.const(one.width, _contents(one, values))))
    solver.add(terms.compare("eq", term, terms.const(8, meaning(tree, values))))
    assert solver.check() is Answer.SAT
    solver.push(terms.invert(terms.compare("eq", term, terms.const(8, meaning(tree, values)))))
    assert solver.check() is Answer.UNSAT


BINARY = ["add", "sub", "mul", "udiv", "urem", "and", "or", "xor", "shl", "lshr", "ashr"]
COMPARISONS = ["eq", "ult", "ule", "slt", "sle"]
P, Q, C = terms.var("p", 4), terms.var("q", 4), terms.var("c", 1)
OPERATIONS = {
    **{op: terms.arithmetic(op, P, Q) for op in BINARY},
    **{op: terms.compare(op, P, Q) for op in COMPARISONS},
    "not": terms.invert(P),
    "ite": terms.ite(terms.compare("ult", P, Q), P, Q),
    "concat": terms.concat(P, Q),
    "extract": terms.extract(terms.arithmetic("add", P, Q), 2, 1),
    "sext": terms.sign_extend(P, 7),
    "condition as a bit": terms.concat(terms.compare("ult", P, Q), P),
    "bit as a condition": terms.ite(C, P, Q),
    "and of bits": terms.arithmetic("and", C, terms.compare("eq", P, Q)),
    "xor of bits": terms.arithmetic("xor", C, terms.compare("sle", P, Q)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_means_to_a_solver_what_it_means_on_numbers(name: str) -> None:
    """On the corners of the numbers of four bits."""
    term, solver = OPERATIONS[name], Solver(kind=QuestionKind.QUICK)
    for p, q, c in itertools.product((0, 1, 7, 8, 15), (0, 1, 3, 4, 8, 15), (0, 1)):
        values = {"p": p, "q": q, "c": c}
        (number,) = evaluate([term], values)
        given = [terms.compare("eq", var, terms.const(var.width, values[str(var.data)])) for var in (P, Q, C)]
        same = terms.compare("eq", term, terms.const(term.width, number))
        assert solver.check([*given, terms.invert(same)]) is Answer.UNSAT, values
        assert solver.check([*given, same]) is Answer.SAT


def test_an_assignment_is_read_before_another_question_is_asked() -> None:
    first = Solver()
    first.add(A == 1)
    second = Solver(beside=first)
    second.add(A == 2)
    assert first.check() is second.check() is Answer.SAT
    assert second.model()(A.term) == 2
    assert first.model()(A.term) == 1


@pytest.mark.parametrize("kind", list(QuestionKind))
def test_an_answer_does_not_depend_on_the_questions_before_it(kind: QuestionKind) -> None:
    """Near its bound, too: what another solver has learnt counts for nothing."""
    wide = [symbol(name, 24) for name in "pqr"]

    def asked(bound: int, before: int) -> Answer:
        effort = Effort(rlimit=bound)
        translated = Solver(effort, kind=kind)
        for number in range(before):
            other = Solver(effort, beside=translated, kind=kind)
            other.add(wide[0] * wide[1] == 2 * number + 1)
            other.add(wide[1] > 1)
            other.check()
        solver = Solver(effort, beside=translated, kind=kind)
        solver.add(wide[0] * (wide[1] + wide[2]) != wide[0] * wide[1] + wide[2] * wide[0])
        return solver.check()

    for bound in (1, 400, 4_000, 40_000):
        assert asked(bound, 0) is asked(bound, 3)


def _contents(application: terms.Term, values: dict[str, int]) -> int:
    (number,) = evaluate([application], values, FUNCTIONS)
    return number


# -- cells ----------------------------------------------------------------------------------------


def test_cells_at_equal_addresses_are_equal() -> None:
    solver = Solver()
    solver.add((cell(A) == 1) & (cell(B) == 2))
    assert solver.check() is Answer.SAT
    assert solver.check([A == B]) is Answer.UNSAT
    assert solver.check([A != B]) is Answer.SAT


def test_cells_are_tied_again_after_the_level_on_which_they_were_is_closed() -> None:
    solver = Solver()
    solver.push((cell(A) == 1) & (cell(B) == 2))
    solver.push(A == B)
    assert solver.check() is Answer.UNSAT
    solver.pop()
    assert solver.check() is Answer.SAT
    solver.pop()
    solver.push((cell(A) == 3) & (A == B))
    assert solver.check([cell(B) != 3]) is Answer.UNSAT
    assert solver.check() is Answer.SAT


def test_conditions_of_a_level_are_gone_when_it_is_closed() -> None:
    solver = Solver()
    for value in range(4):
        solver.push(cell(A) == value)
        solver.push(cell(Word(8, 7)) == value + 1)
        assert solver.check([A == 7]) is Answer.UNSAT
        assert solver.check() is Answer.SAT
        solver.pop()
        assert solver.check([A == 7]) is Answer.SAT
        solver.pop()


def test_cells_of_nested_addresses_are_tied_too() -> None:
    solver = Solver()
    solver.add((cell(B) == A) & (cell(A) != cell(cell(B))))
    assert solver.check() is Answer.UNSAT


def test_two_memories_have_nothing_in_common() -> None:
    other = Word(8, terms.apply("ports", 8, A.term))
    assert holds(cell(A) == other) is Answer.SAT


def test_solvers_that_share_translations_share_no_assumptions() -> None:
    first = Solver()
    first.add((cell(A) == 1) & (A == 0))
    second = Solver(beside=first)
    second.add(cell(A) == 2)
    assert first.check() is Answer.SAT
    assert second.check([A == 0]) is Answer.SAT
    second.add((cell(B) == 3) & (A == B))
    assert second.check() is Answer.UNSAT


# -- answers --------------------------------------------------------------------------------------


def hard() -> Word:
    """Two factors of a product of primes: too much for a few resources."""
    p, q = symbol("p", 64), symbol("q", 64)
    fits = (p > 1) & (q > 1) & (p < 1 << 32) & (q < 1 << 32)
    return (p * q == 2654435789 * 3141592661) & fits & (p < q)


def test_too_few_resources_give_unknown_and_never_an_answer() -> None:
    solver = Solver(Effort(rlimit=10_000))
    solver.add(hard())
    assert solver.check() is Answer.UNKNOWN
    assert Question("hard", [hard()]).ask(Effort(rlimit=10_000))[0] is Answer.UNKNOWN


@pytest.mark.parametrize("seconds", [0.0001, 0.2])
@pytest.mark.parametrize("kind", list(QuestionKind))
def test_a_time_limit_is_kept_however_small(seconds: float, kind: QuestionKind) -> None:
    solver = Solver(Effort(rlimit=0, timeout=seconds), kind=kind)
    solver.add(hard())
    assert solver.check() is Answer.UNKNOWN


@pytest.mark.parametrize("kind", list(QuestionKind))
def test_a_time_limit_is_kept_where_z3_loses_its_timer(
    kind: QuestionKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it does, in one of some thousand checks: here it never hears of the limit."""
    monkeypatch.setenv(VARIABLE, "z3")
    monkeypatch.setattr(engine_z3, "_set_timer", lambda solver, seconds: None)
    solver = Solver(Effort(rlimit=0, timeout=0.5), kind=kind)
    solver.push(hard())
    assert solver.check() is solver.check() is Answer.UNKNOWN
    solver.pop()
    solver.add(A == 3)
    assert solver.check() is Answer.SAT
    assert solver.model()(A.term) == 3
    assert solver.check([A != 3]) is Answer.UNSAT
    assert first_order.ask(Question("hard", [hard()]).smtlib, effort=Effort(0, 0.01)).answer is Answer.UNKNOWN


def test_a_bound_for_one_check_does_not_stay() -> None:
    solver = Solver()
    solver.add(A * B == 143)
    solver.add((A > 1) & (B > 1))
    solver.check(rlimit=1)
    assert solver.check() is Answer.SAT


def test_which_solver_answers_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "z3")
    assert solver_version().startswith("z3 ")
    monkeypatch.setenv(VARIABLE, "bitwuzla")
    assert solver_version().startswith("bitwuzla ")
    monkeypatch.setenv(VARIABLE, "cvc5")
    with pytest.raises(ValueError, match="POPEK_SOLVER=cvc5: expected bitwuzla or z3"):
        Solver()


def test_without_bitwuzla_z3_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    assert solver_version().startswith("bitwuzla ")
    monkeypatch.setattr("popek.solving.choice.find_spec", lambda name: None)
    assert solver_version().startswith("z3 ")


def test_a_model_gives_every_term_its_number_and_0_to_what_was_not_asked() -> None:
    solver = Solver()
    solver.add((A + 1 == 5) & (cell(A) == 9))
    assert solver.check() is Answer.SAT
    model = solver.model()
    assert model(A.term) == 4
    assert model(cell(A).term) == 9
    assert model((A == 4).term) == 1
    assert model(V.term) == 0
    assert assignment(model, [A.term]) == {"a": 4}


def test_a_claim_that_always_holds_is_unsatisfiable_when_denied() -> None:
    assert holds((A & B) <= A) is Answer.UNSAT
    assert holds((A | B) <= A) is Answer.SAT
    assert holds((A | B) <= A, [B == 0]) is Answer.UNSAT


def test_checks_are_counted() -> None:
    effort = Effort()
    solver = Solver(effort)
    solver.check()
    solver.check([A == 1])
    assert effort.checks == 2
    assert effort.seconds > 0


def test_a_question_that_is_false_by_itself_needs_no_solver() -> None:
    effort = Effort()
    assert Question("never", [Word(1, 0), A == 1]).ask(effort) == (Answer.UNSAT, None, None)
    assert effort.checks == 0


def test_a_question_is_shown_as_smtlib_and_named_by_its_hash() -> None:
    question = Question("low", [A < 3])
    assert question.smtlib.startswith("; low\n(set-logic QF_UFBV)\n")
    assert "(check-sat)" in question.smtlib
    assert question.sha256 == sha256(question.smtlib)
    assert question.sha256 != Question("low", [A < 4]).sha256


# -- four answers -------------------------------------------------------------------------

YES, NO, MAYBE = Truth.YES, Truth.NO, Truth.UNKNOWN


@pytest.mark.parametrize("a", [YES, NO, MAYBE])
@pytest.mark.parametrize("b", [YES, NO, MAYBE])
def test_three_valued_logic_is_kleenes(a: Truth, b: Truth) -> None:
    number = {NO: 0, MAYBE: 1, YES: 2}
    assert number[both(a, b)] == min(number[a], number[b])
    assert number[either(a, b)] == max(number[a], number[b])
    assert number[negate(a)] == 2 - number[a]


@pytest.mark.parametrize(
    ("other", "all_of_them", "one_of_them"),
    [
        (YES, Truth.NOT_ASKED, YES),
        (NO, NO, Truth.NOT_ASKED),
        (MAYBE, MAYBE, MAYBE),
        (Truth.NOT_ASKED, Truth.NOT_ASKED, Truth.NOT_ASKED),
    ],
)
def test_what_was_not_asked_is_neither_yes_nor_no(
    other: Truth, all_of_them: Truth, one_of_them: Truth
) -> None:
    assert both(other, Truth.NOT_ASKED) is both(Truth.NOT_ASKED, other) is all_of_them
    assert either(other, Truth.NOT_ASKED) is either(Truth.NOT_ASKED, other) is one_of_them
    assert negate(Truth.NOT_ASKED) is Truth.NOT_ASKED


def test_an_answer_is_no_bool() -> None:
    with pytest.raises(TypeError, match="no bool"):
        bool(YES)
    assert [Status.of(truth) for truth in (YES, NO, MAYBE)] == [Status.HOLDS, Status.REFUTED, Status.UNKNOWN]
