"""A question about storage that is cut store by store says what the whole question says."""

from __future__ import annotations

import pytest

from popek.checks import frames
from popek.checks.form_premises import FormPremises
from popek.checks.premise import A1
from popek.checks.premises import Premises
from popek.checks.subject import Subject
from popek.kernel.words import Word, any_of
from popek.solving.solver import Answer, holds

FORM = "MOV m8, r8"


def cut(form: str) -> list[tuple[Word, list[Word]]]:
    """The ways in which A1 can fail of a form of IA-32 that can be cut, and their parts."""
    subject = Subject.of("ia32", None)
    premises = Premises(subject)
    instruction = subject.machine.instructions[form]
    asked = FormPremises(premises, instruction, subject.explore(instruction))
    return [(way.also, list(way.parts())) for way in asked._ways(A1) if way.parts is not None]


def test_whatever_breaks_the_whole_breaks_a_part() -> None:
    """With none of the path's conditions: the guest may store to its own GDT, which is copied."""
    whole = cut(FORM)
    assert len(whole) == 2
    for also, parts in whole:
        assert not also.concrete
        assert holds(any_of(parts), [also]) is Answer.UNSAT  # no assignment has it otherwise


def test_the_copies_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the parts about cells of which a copy is kept, a store to the guest's GDT goes unnoticed."""
    monkeypatch.setattr(frames, "copied", lambda technique, guests: iter(()))
    also, parts = cut(FORM)[0]
    assert holds(any_of(parts), [also]) is Answer.SAT


def test_many_stores_are_decided() -> None:
    """PUSHA stores sixteen cells, each of which may be read as a descriptor."""
    subject = Subject.of("ia32", None)
    instruction = subject.machine.instructions["PUSHA"]
    found = FormPremises(Premises(subject), instruction, subject.explore(instruction)).read(A1)
    assert found.truth.value == "yes"
    assert found.evidence is not None
    assert all(one.answer is Answer.UNSAT for one in found.evidence.asked)
