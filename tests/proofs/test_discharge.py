"""Hypotheses that are other propositions follow from them; and all hypotheses hold together somewhere."""

from __future__ import annotations

import attrs
import pytest

from popek.solving.first_order import ask
from popek.solving.formula import Expr, conj, equal, exists, forall, implies, var
from popek.solving.second_solver import second_answer
from popek.solving.solver import Answer, Effort
from popek_proofs import known_propositions
from popek_proofs.theorems.discharge import IN_OTHER_WORDS, cited, obligation, together
from popek_proofs.theorems.proposition import RLIMIT
from popek_proofs.theorems.small_machine import SmallScope, find
from popek_proofs.theorems.theorem1 import monitor
from popek_proofs.theorems.vocabulary import INSTRUCTION, I, S, bare, execute, f, fetch, stops

KNOWN = {one.id: one for one in known_propositions()}
CITED = list(cited(list(KNOWN.values())))
# An equality of conditions under two quantifiers: cvc5 gives up.
ONE_SOLVER = {"map-keeps-the-window"}
ASKED = {(p.id, h.name): (p, h, by) for p, h, by in CITED if h.name not in IN_OTHER_WORDS}


def answer(script: str) -> Answer:
    return ask(script, effort=Effort(rlimit=RLIMIT)).answer


@pytest.mark.parametrize("which", ASKED, ids=" ".join)
def test_what_is_cited_gives_what_is_used(which: tuple[str, str]) -> None:
    script = obligation(*ASKED[which])
    assert script is not None
    assert answer(script) is Answer.UNSAT
    undecided = which[1] in ONE_SOLVER
    assert second_answer(script) is (Answer.UNKNOWN if undecided else Answer.UNSAT)


@pytest.mark.parametrize("which", ASKED, ids=" ".join)
def test_with_another_in_its_place_it_does_not_follow(which: tuple[str, str]) -> None:
    proposition, hypothesis, by = ASKED[which]
    nothing = attrs.evolve(by, conclusion=equal(by.conclusion, by.conclusion))
    script = obligation(proposition, hypothesis, nothing)
    assert script is not None
    assert answer(script) is not Answer.UNSAT


def test_those_that_are_not_asked_say_where_the_step_is_made() -> None:
    assert {h.name for _, h, _ in CITED} == set(IN_OTHER_WORDS) | {name for _, name in ASKED}
    assert len(ASKED) == 23
    assert len(CITED) == 26


def test_nothing_rests_on_itself() -> None:
    rests = {one: {h.by for h in KNOWN[one].hypotheses if h.by} for one in KNOWN}
    while rests:
        free = {one for one, on in rests.items() if not on & rests.keys()}
        assert free, rests
        rests = {one: on for one, on in rests.items() if one not in free}


@pytest.mark.parametrize("theorem", ["theorem1", "theorem3"])
def test_there_is_a_machine_of_which_all_hypotheses_hold(theorem: str) -> None:
    every = together(list(KNOWN.values()), theorem)
    assert len(every) > 20
    occasion = KNOWN[f"{theorem}.step"].occasion
    scope, effort = SmallScope({INSTRUCTION: 2}), Effort()
    found, machine = find("all together", [*every, ("occasion", occasion)], scope, effort)
    assert found is Answer.SAT
    assert machine is not None
    assert all(machine.holds(formula) for _, formula in [*every, ("occasion", occasion)])


def test_one_routine_for_all_instructions_contradicts_the_rest() -> None:
    """Two instructions that trap alike would have one effect; the routine of the fetched one has its own."""
    one_for_all = forall(
        [I, S],
        implies(conj(bare(S), stops(I, f(S))), equal(monitor(execute(I, f(S))), f(execute(I, S)))),
    )
    other = var("J", INSTRUCTION)

    def stop_alike(state: Expr) -> Expr:
        return conj(
            *(bare(state), stops(I, f(state)), stops(other, f(state)), equal(fetch(state), I)),
            equal(execute(I, f(state)), execute(other, f(state))),
            ~equal(f(execute(I, state)), f(execute(other, state))),
        )

    two = ("two", exists([I, other, S], stop_alike(S)))
    every = together(list(KNOWN.values()), "theorem1")
    scope = SmallScope({INSTRUCTION: 2}, most=5)
    assert find("fetched", [*every, two], scope, Effort())[0] is Answer.SAT
    assert find("all", [("one-for-all", one_for_all), two], scope, Effort())[0] is not Answer.SAT
