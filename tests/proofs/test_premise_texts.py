"""One text for each premise: as Coq prints it, and as a machine is asked it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from popek.checks import premise as names
from popek.checks import premise_reading, premise_texts
from popek.checks.premise_texts import TEXTS, coq, granted, is_read
from popek.checks.premises import Premises
from popek.checks.subject import Subject
from popek.checks.verdict import Truth
from popek.solving.formula import conj, exists, forall, implies
from popek_proofs import rocq
from popek_proofs.theorems.instantiate import PROVED, WITH_INTERRUPTS


def printed(name: str) -> str:
    """A premise as the lock has it: what Coq printed, on one line and without its type."""
    return " ".join(rocq.load().premises[name].partition("\n     : ")[0].split())


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_what_coq_prints(name: str) -> None:
    assert coq(name) == printed(name)


def test_every_hypothesis_has_one_discharger_or_is_taken_for_granted() -> None:
    """What a theorem needs, and what is asked of a machine for it, are the same: none is left over on either side."""
    asked = {"theorem1": names.THEOREM1, "theorem2": names.THEOREM2, "theorem3": names.THEOREM3}
    assert set(asked) == set(PROVED)
    for theorem, chosen in asked.items():
        hypotheses = set(rocq.load().theorem(PROVED[theorem]).premises)
        other = names.PART_OF.get(theorem, {})
        discharged = {other.get(name, name) for name in chosen} - {names.A1S}  # that is of the model
        taken = {name for name in hypotheses if name in TEXTS and granted(name)}
        assert hypotheses == discharged | taken
        assert not discharged & taken
        assert taken <= set(names.TAKEN_FOR_GRANTED)
        if theorem in WITH_INTERRUPTS:  # the same, and A6; A4's first half by itself, too
            more = set(rocq.load().theorem(WITH_INTERRUPTS[theorem]).premises)
            assert more == hypotheses | {*names.INTERRUPTS, names.A4_IMAGE}


def test_what_is_taken_for_granted_is_what_has_no_meaning_over_words() -> None:
    assert set(names.TAKEN_FOR_GRANTED) == {name for name in TEXTS if granted(name)}
    own = {name for name in TEXTS if not granted(name) and not is_read(name)}
    assert own == {
        "A4_entry_tells_apart",
        "A4_stop_tells",
        "A5_vector",
        "A6_interrupt_tells_apart",
        "A6_interrupt_noticed",
        "A6_interrupt_closure",
    }


def asked_of(form: str, *settings: str) -> dict[str, Any]:
    subject: Subject[Any] = Subject.of("pg74", None, settings)
    instruction = subject.machine.instructions[form]
    found = Premises(subject).of(instruction, subject.explore(instruction))
    return {premise.name: premise for premise in found}


def changed(monkeypatch: pytest.MonkeyPatch, name: str, formula: Any) -> None:
    texts = {**TEXTS, name: attrs.evolve(TEXTS[name], formula=formula)}
    monkeypatch.setattr(premise_texts, "TEXTS", texts)
    monkeypatch.setattr(premise_reading, "TEXTS", texts)


def test_what_is_asked_is_what_the_text_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a part of the text an unfaithful instruction passes, and Coq's print is another."""
    assert asked_of("GMODE a", "GMODE=0")[names.A1].truth is Truth.NO
    assert asked_of("DROP a", "DROP=0")[names.A1].truth is Truth.NO
    formula = TEXTS["fidelity"].formula
    assert formula is not None
    *variables, body = formula.args
    hypotheses = []
    while body.op == "=>":
        hypotheses.append(body.args[0])
        body = body.args[1]
    ended, (completes, image, note) = body.args[0], body.args[1].args
    for kept, form, setting in (
        ((completes, note), "GMODE a", "GMODE=0"),
        ((completes, image), "DROP a", "DROP=0"),
    ):
        less = exists([ended], conj(*kept))
        for hypothesis in reversed(hypotheses):
            less = implies(hypothesis, less)
        with monkeypatch.context() as patch:
            changed(patch, "fidelity", forall(variables, less))
            assert coq("fidelity") != printed("fidelity")
            assert asked_of(form, setting)[names.A1].truth is Truth.YES


def test_a_hypothesis_more_is_one_that_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A10 is A1 of guests in user mode: DROP in supervisor mode is no matter to it."""
    found = asked_of("DROP a", "DROP=0")
    assert (found[names.A1].truth, found[names.A10].truth) == (Truth.NO, Truth.YES)
    found = asked_of("GMODE a", "GMODE=0")
    assert (found[names.A1].truth, found[names.A10].truth) == (Truth.NO, Truth.YES)
