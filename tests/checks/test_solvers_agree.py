"""Bitwuzla and Z3 find the same classes, promises and components, and the same minimal witnesses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from popek.checks.subject import Subject
from popek.checks.survey import ALL, Request, Surveyor, SurveyRow
from popek.checks.verdict import Evidence, Question, SolversDisagreeError
from popek.kernel.words import Word, symbol
from popek.machines import machine
from popek.solving.asking import SolverQuery
from popek.solving.choice import VARIABLE
from popek.solving.engine_z3 import Z3Engine
from popek.solving.first_order import Reply
from popek.solving.solver import Answer

FORMS = {
    "pg74": None,
    "ia32": (
        "SGDT m", "SMSW r32", "POPFD", "PUSH CS", "LAR r16, r16", "STI", "MOV Sreg, r16", "LLDT r16", "ADD r32, r32",
    ),
    "pdp11-45": ("MOV (R), R", "RTI", "SPL"),
    "s370": ("SSM", "LRA", "STCK", "TS"),
}  # fmt: skip


def _rows(name: str) -> Iterator[SurveyRow]:
    found = machine(name)
    request = Request(Subject.of(name), promises=True, witnesses=ALL)
    surveyor = Surveyor(request)
    wanted = FORMS[name] or tuple(found.instructions)
    for form in (i.form for one in wanted for i in found.find(one)):
        yield surveyor.row(form)


def _told(row: SurveyRow) -> dict[str, Any]:
    told = row.to_json()
    for name in ("components", "components_undecided"):
        told[name] = sorted(told[name])  # type: ignore[call-overload]
    return told


@pytest.mark.parametrize("name", FORMS)
def test_either_solver_finds_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "bitwuzla")
    ours = [_told(row) for row in _rows(name)]
    monkeypatch.setenv(VARIABLE, "z3")
    assert [_told(row) for row in _rows(name)] == ours
    assert any(row["witness"] for row in ours) == (name in ("ia32", "pdp11-45"))


def answered(question: Question, answer: Answer) -> Evidence:
    """What Bitwuzla said to a question as it stands."""
    return Evidence(question, answer, (SolverQuery(tuple(question.conditions), answer, "bitwuzla"),))


def test_z3_confirms_from_the_exported_text_that_there_is_no_assignment() -> None:
    question = Question("low and high", [symbol("a", 8) < 3, symbol("a", 8) > 7])
    evidence = answered(question, Answer.UNSAT)
    assert evidence.confirmed == {"bitwuzla": Answer.UNSAT, Z3Engine.name: Answer.UNSAT}
    assert evidence.to_json()["solvers"] == {"bitwuzla": "unsat", Z3Engine.name: "unsat"}


def test_an_assignment_needs_no_second_solver_and_what_is_false_by_itself_none_at_all() -> None:
    low = symbol("a", 8) < 3
    assert answered(Question("low", [low]), Answer.SAT).confirmed == {"bitwuzla": Answer.SAT}
    never = answered(Question("never", [low, Word(1, 0)]), Answer.UNSAT)
    assert never.confirmed == {"simplification": Answer.UNSAT}


def test_solvers_that_disagree_are_an_error() -> None:
    low = Question("low", [symbol("a", 8) < 3])
    with pytest.raises(SolversDisagreeError, match="low: no assignment, but z3"):
        _ = answered(low, Answer.UNSAT).confirmed


def test_a_second_solver_that_gives_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popek.solving.first_order.ask", lambda text, effort: Reply(Answer.UNKNOWN))
    evidence = answered(Question("low", [symbol("a", 8) < 3]), Answer.UNSAT)
    assert evidence.confirmed[Z3Engine.name] is Answer.UNKNOWN
