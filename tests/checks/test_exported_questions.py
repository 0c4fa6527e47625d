"""What is written out as SMT-LIB says all that was asked: a solver that we did not write answers the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from popek.checks.classify import Classifier
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Evidence, Question
from popek.kernel.words import Word, symbol
from popek.machines import machine
from popek.solving.second_solver import second_answer
from popek.solving.solver import Answer

# The promise of `MOV (R), R` holds only because a cell that is read twice holds one value.
FORMS = {"pg74": ("ADD a, b", "SREL a", "GMODE a", "LRA a, b"), "pdp11-45": ("MOV (R), R", "RTS R", "SPL")}


def _evidence(name: str) -> Iterator[Evidence]:
    found = machine(name)
    subject = Subject.of(found)
    classifier, keeper = Classifier(subject, components=False), Keeper(subject)
    for form in FORMS[name]:
        (instruction,) = found.find(form)
        kept = keeper.keeps(instruction)
        asked = (finding.evidence for finding in classifier.classify(instruction).findings.values())
        yield from (evidence for evidence in asked if evidence is not None)
        yield from (kept.fidelity.evidence, kept.safety.evidence)


@pytest.mark.parametrize("name", FORMS)
def test_a_second_solver_gives_the_same_answer(name: str) -> None:
    asked = list(_evidence(name))
    answers = [second_answer(evidence.question.smtlib) for evidence in asked]
    assert answers == [next(iter(evidence.answers.values())) for evidence in asked]
    assert {Answer.SAT, Answer.UNSAT} == set(answers)


@pytest.mark.parametrize("name", ["mode'", "par", "as", "match", "operand a", "cr0.pe", "cr0[15:6]"])
def test_names_of_leaves_are_smt_lib_symbols(name: str) -> None:
    seven = symbol(name, 8) == Word(8, 7)
    assert second_answer(Question("a name", (seven,)).smtlib) is Answer.SAT
    assert second_answer(Question("a name", (seven, symbol(name, 8) == Word(8, 8))).smtlib) is Answer.UNSAT
