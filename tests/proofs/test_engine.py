"""The parts under the theorems: formulas in three readings, the solvers, propositions of a user's own."""

from __future__ import annotations

import builtins
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import popek_proofs
from popek.solving import second_solver
from popek.solving.first_order import ask
from popek.solving.formula import (
    BOOL,
    INT,
    STORAGE,
    WORD,
    Function,
    Structure,
    conj,
    constant,
    disj,
    element,
    equal,
    evaluate,
    exists,
    forall,
    functions_of,
    implies,
    ite,
    number,
    script,
    select,
    text,
    var,
)
from popek.solving.second_solver import SecondSolverMissingError, second_answer
from popek.solving.solver import Answer, Effort
from popek_proofs import PropositionsError, known_propositions, propositions
from popek_proofs.theorems import theorem1
from popek_proofs.theorems.proposition import Proposition, TheoremHypothesis, prove_one
from popek_proofs.theorems.small_machine import DecodeError, SmallScope, find

x, y = var("x", "Thing"), var("y", "Thing")
g = Function("g", ("Thing",), "Thing")
red = Function("red", ("Thing",), BOOL)
INJECTIVE = forall([x, y], implies(equal(g(x), g(y)), equal(x, y)))
ONTO = forall([y], exists([x], equal(g(x), y)))


def structure(table: list[int], reds: list[int]) -> Structure:
    size = {"Thing": len(table)}
    return Structure(
        size, {"g": {(i,): v for i, v in enumerate(table)}, "red": {(i,): v for i, v in enumerate(reds)}}
    )


@pytest.mark.parametrize(
    ("formula", "table", "expected"),
    [
        (INJECTIVE, [1, 2, 0], True),
        (INJECTIVE, [1, 1, 0], False),
        (ONTO, [1, 2, 0], True),
        (ONTO, [1, 1, 0], False),
        (exists([x], equal(g(x), x)), [1, 2, 0], False),
        (exists([x], conj(equal(g(x), x), red(x))), [0, 2, 1], True),
        (exists([x], conj(equal(g(x), x), red(x))), [1, 1, 2], False),
        (forall([x], disj(red(x), red(g(x)))), [1, 0, 0], True),
        (forall([x], disj(red(x), red(g(x)))), [1, 2, 2], False),
        (forall([x], equal(ite(red(x), x, g(x)), x)), [0, 1, 2], True),
        (~forall([x], red(x)), [0, 1, 2], True),
    ],
)
def test_the_reading_in_python_and_the_reading_by_a_solver_agree(
    formula: Any, table: list[int], expected: bool
) -> None:
    reds = [1, 0, 0]
    assert evaluate(formula, structure(table, reds)) is expected
    values = [equal(g(element(i, "Thing")), element(v, "Thing")) for i, v in enumerate(table)]
    values += [red(element(i, "Thing")) if v else ~red(element(i, "Thing")) for i, v in enumerate(reds)]
    query = script("a table", [("formula", formula), ("table", conj(*values))], {"Thing": 3})
    wanted = Answer.SAT if expected else Answer.UNSAT
    assert ask(query).answer is wanted
    assert second_answer(query) is wanted


def test_arithmetic_and_storage_are_read_alike() -> None:
    cells, size = constant("cells", STORAGE), constant("size", INT)
    j = var("j", INT)
    sorted_up = forall(
        [j], implies(conj(number(0) <= j, j < size - 1), equal(select(cells, j), select(cells, j + 1)))
    )
    sizes = {INT: 4, WORD: 2}
    for content, expected in (((0, 0, 0, 1), True), ((0, 1, 1, 1), False)):
        tables = {"cells": {(): content}, "size": {(): 3}}
        assert evaluate(sorted_up, Structure(sizes, tables)) is expected


def test_quantifiers_stay_in_the_text_about_any_machine() -> None:
    query = script("any", [("injective", INJECTIVE)])
    assert "(declare-sort Thing 0)" in query
    assert "(forall ((x Thing) (y Thing))" in query
    assert "forall" not in script("small", [("injective", INJECTIVE)], {"Thing": 2})


def test_sorts_are_checked_when_a_formula_is_built() -> None:
    with pytest.raises(TypeError, match="takes"):
        g(constant("E", STORAGE))
    with pytest.raises(TypeError, match="Thing, not Bool"):
        conj(red(x), g(x))
    with pytest.raises(TypeError, match="red is"):
        functions_of([red(x), Function("red", (), BOOL)()])
    with pytest.raises(TypeError, match="no elements to name"):
        text(element(0, "Thing"))


def test_the_smallest_machine_is_found_first() -> None:
    formulas = [("no fixed point", forall([x], ~equal(g(x), x))), ("some red", exists([x], red(x)))]
    answer, machine = find(
        "growing", [(n.replace(" ", "-"), f) for n, f in formulas], SmallScope(growing="Thing")
    )
    assert answer is Answer.SAT
    assert machine is not None
    assert machine.structure.sizes["Thing"] == 2
    assert "thing0" in str(machine)
    assert set(machine.to_json()) == {"thing0", "thing1"}


def test_none_in_scope_is_no_machine() -> None:
    contradiction = conj(forall([x], red(x)), exists([x], ~red(x)))
    assert find("none", [("contradiction", contradiction)], SmallScope(growing="Thing", most=3)) == (
        Answer.UNSAT,
        None,
    )


def test_a_machine_that_does_not_do_what_the_solver_said_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popek_proofs.theorems.small_machine.evaluate", lambda formula, structure: False)
    with pytest.raises(DecodeError, match="does not hold in the machine"):
        find("wrong", [("some-red", exists([x], red(x)))], SmallScope(growing="Thing"))


def test_text_that_is_no_smtlib_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="not an SMT-LIB script"):
        ask("(assert")
    with pytest.raises(ValueError, match="cvc5 does not accept"):
        second_answer("(set-logic ALL)(assert nonsense)")
    with pytest.raises(ValueError, match="declares no constant b"):
        ask("(declare-const a Bool)(assert a)", ["b"])


def test_effort_counts_checks_of_both_solvers() -> None:
    effort = Effort()
    ask("(declare-const a Bool)(assert a)", effort=effort)
    second_answer("(set-logic ALL)(declare-const a Bool)(assert a)", effort)
    assert effort.checks == 2


def test_a_second_solver_out_of_resources_says_unknown() -> None:
    text_of = theorem1.INNOCUOUS_COMMUTES.smtlib
    assert second_answer(text_of, rlimit=1) is Answer.UNKNOWN
    assert second_answer(text_of) is Answer.UNSAT


def test_the_first_solver_out_of_resources_says_unknown() -> None:
    assert ask(theorem1.INNOCUOUS_COMMUTES.smtlib, effort=Effort(rlimit=1)).answer is Answer.UNKNOWN


def test_a_missing_second_solver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "cvc5":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SecondSolverMissingError, match="needs the package cvc5"):
        second_answer("(set-logic ALL)")


def test_the_second_solver_tells_its_version() -> None:
    assert second_solver.available()
    assert second_solver.second_solver_version().startswith("cvc5 1.")


# -- propositions of a user's own ----------------------------------------------------------------------

OWN = Proposition(
    "mine.onto",
    "what is one-one on a few things need not be onto many",
    "own",
    (TheoremHypothesis("injective", "g is one-one", INJECTIVE),),
    conclusion=exists([x], equal(g(x), g(x))),
    occasion=exists([x], red(x)),
    scope=SmallScope(growing="Thing"),
)


def offer(monkeypatch: pytest.MonkeyPatch, package: Any, value: str = "mine") -> None:
    entry = SimpleNamespace(value=value, load=lambda: package)
    monkeypatch.setattr(
        popek_proofs.metadata, "entry_points", lambda group: [entry] if group == "popek.propositions" else []
    )


@pytest.mark.parametrize("offered", [(OWN,), lambda: (OWN,)], ids=["tuple", "callable"])
def test_a_package_of_the_user_s_own_is_found(monkeypatch: pytest.MonkeyPatch, offered: Any) -> None:
    offer(monkeypatch, SimpleNamespace(PROPOSITIONS=offered))
    known = known_propositions()
    assert known[-1] is OWN
    assert len(known) == len(propositions()) + 1


def test_this_package_is_not_listed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, popek_proofs, "popek_proofs")
    assert known_propositions() == propositions()


def test_a_package_that_breaks_the_protocol_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, SimpleNamespace(PROPOSITIONS=3))
    with pytest.raises(PropositionsError, match="mine: expected an attribute PROPOSITIONS"):
        known_propositions()
    offer(monkeypatch, SimpleNamespace(PROPOSITIONS=["text"]))
    with pytest.raises(PropositionsError, match="mine: expected propositions in PROPOSITIONS, not str"):
        known_propositions()
    offer(monkeypatch, SimpleNamespace(PROPOSITIONS=(theorem1.STEP,)))
    with pytest.raises(PropositionsError, match=r"theorem1\.step exists already"):
        known_propositions()


def test_a_hypothesis_that_does_no_work_stays_unneeded() -> None:
    (need,) = prove_one(OWN).needs
    assert need.machine is None
