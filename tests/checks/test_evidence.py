"""Evidence names what was really asked: each of its queries was put to the solver as it stands, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import z3

from popek.checks.classify import Classifier
from popek.checks.premises import Premises
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import SIMPLIFICATION, Evidence
from popek.kernel.terms import Term
from popek.solving.asking import EVALUATION
from popek.solving.solver import Answer, Solver

FORMS = {"pg74": ("GMODE a", "LPSW a", "ADD a, b"), "pdp11-45": ("SPL", "RTS R")}

Put = tuple[frozenset[Term], Answer]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> list[Put]:
    """Every check of a solver: what was asserted, and the answer."""
    found: list[Put] = []
    real = Solver.check

    def check(self: Solver, *given: object, **named: object) -> Answer:
        answer = real(self, *given, **named)  # type: ignore[arg-type]
        found.append((frozenset(self._conditions()), answer))
        return answer

    monkeypatch.setattr(Solver, "check", check)
    return found


def evidence(name: str) -> Iterator[Evidence]:
    subject = Subject.of(name)
    classifier, keeper, premises = Classifier(subject), Keeper(subject), Premises(subject)
    for form in FORMS[name]:
        (instruction,) = subject.machine.find(form)
        run = subject.explore(instruction)
        found = classifier.classify(instruction, run).findings.values()
        yield from (one.evidence for one in found if one.evidence is not None)
        kept = keeper.keeps(instruction, run)
        yield from (kept.fidelity.evidence, kept.safety.evidence)
        yield from (one.evidence for one in premises.of(instruction, run) if one.evidence is not None)
    yield from (one.evidence for one in premises.once() if one.evidence is not None)


@pytest.mark.parametrize("name", FORMS)
def test_what_is_named_was_asked(name: str, put: list[Put]) -> None:
    every = list(evidence(name))
    cases = [one for one in every if len(one.asked) > 1]
    assert cases  # some are asked case by case
    for one in every:
        for query in one.asked:
            if query.solver == EVALUATION:
                assert query.answer is Answer.SAT
            elif query.solver != SIMPLIFICATION:
                assert (frozenset(c.term for c in query.conditions), query.answer) in put
                assert query.solver.split()[0] in ("bitwuzla", "z3")
        (by,) = one.answers
        whole = (frozenset(c.term for c in one.question.conditions), one.answer)
        if SIMPLIFICATION in by:
            assert not one.asked or one.question.trivial
        elif not by.endswith("case by case"):
            assert one.at_once
        elif len(one.asked) > 1:
            assert whole not in put  # nobody was asked the whole, so nobody is said to have answered it


@pytest.mark.parametrize("name", FORMS)
def test_the_script_asks_each_case_and_another_solver_answers_each_alike(name: str) -> None:
    told = [one for one in evidence(name) if len(one.asked) > 1]
    for one in told[:6]:
        context = z3.Context()
        said = z3.Z3_eval_smtlib2_string(context.ref(), one.script).split()
        assert said == [query.answer.value for query in one.asked]
        answers = one.to_json()["asked"]["answers"]  # type: ignore[index]
        assert sum(answers.values()) == len(said)
