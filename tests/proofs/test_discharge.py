"""Hypotheses that are other propositions follow from them; and all hypotheses hold together somewhere."""

from __future__ import annotations

import attrs
import pytest

from popek.solving.first_order import ask
from popek.solving.formula import Expr, conj, equal, exists, forall, implies, var
from popek.solving.second_solver import second_answer
from popek.solving.solver import Answer, Effort
from popek_proofs import known_propositions
from popek_proofs.theorems.discharge import cited, obligations, together
from popek_proofs.theorems.proposition import RLIMIT, TheoremHypothesis
from popek_proofs.theorems.small_machine import SmallScope, find
from popek_proofs.theorems.theorem1 import monitor
from popek_proofs.theorems.theorem2 import F, G, N, below_outer
from popek_proofs.theorems.vocabulary import INSTRUCTION, I, S, bare, execute, f, fetch, stops

KNOWN = {one.id: one for one in known_propositions()}
CITED = list(cited(list(KNOWN.values())))
COMPOSITION = ("commutes", "is-one-to-one", "is-timeless")
# An equality of conditions under two quantifiers: cvc5 gives up.
ONE_SOLVER = {"map-keeps-the-window"}
ASKED = {(p.id, h.name): (p, h, by) for p, h, by in CITED}


def answer(script: str) -> Answer:
    return ask(script, effort=Effort(rlimit=RLIMIT)).answer


@pytest.mark.parametrize("which", ASKED, ids=" ".join)
def test_what_is_cited_gives_what_is_used(which: tuple[str, str]) -> None:
    undecided = which[1] in ONE_SOLVER
    for script in obligations(*ASKED[which]):
        assert answer(script) is Answer.UNSAT
        assert second_answer(script) is (Answer.UNKNOWN if undecided else Answer.UNSAT)


@pytest.mark.parametrize("which", ASKED, ids=" ".join)
def test_with_another_in_its_place_it_does_not_follow(which: tuple[str, str]) -> None:
    proposition, hypothesis, by = ASKED[which]
    nothing = attrs.evolve(by, conclusion=equal(by.conclusion, by.conclusion))
    assert answer(obligations(proposition, hypothesis, nothing)[-1]) is not Answer.UNSAT


def test_every_hypothesis_that_cites_is_asked() -> None:
    assert len(CITED) == len(ASKED) == 30
    assert {by.id for _, _, by in CITED} >= {f"theorem2.composition-{c}" for c in COMPOSITION}


@pytest.mark.parametrize("name", COMPOSITION)
def test_each_hypothesis_of_a_composition_is_asked_of_any_two_maps(name: str) -> None:
    proposition, hypothesis, by = ASKED["theorem2.nesting-step", f"composition-{name}"]
    *applies, gives = obligations(proposition, hypothesis, by)
    assert len(applies) == len(by.hypotheses)
    assert "cited" in gives
    # A cited proposition that asks for more than a map has does not apply.
    more = TheoremHypothesis("never", "no state is in either", forall([S], ~below_outer(S)))
    asked = obligations(proposition, hypothesis, attrs.evolve(by, hypotheses=(more,)))
    assert answer(asked[0]) is not Answer.UNSAT


def test_maps_that_do_not_fit_are_not_composed() -> None:
    proposition, hypothesis, by = ASKED["theorem2.nesting-step", "composition-commutes"]
    *_, told = hypothesis.formula.args
    there, result = told.args
    unfit = forall([F, G], implies(conj(*there.args[1:]), result))
    asked = obligations(proposition, attrs.evolve(hypothesis, formula=unfit), by)
    said = [answer(script) is Answer.UNSAT for script in asked]
    assert said.count(False) == 1
    assert by.hypotheses[said.index(False)].name == "inner-runs-in-a-virtual-machine"


def test_a_level_that_steps_out_of_its_states_is_not_virtualizable() -> None:
    proposition, hypothesis, by = ASKED["theorem2.nesting-base", "each-level-is-virtualizable"]
    _, closed_there = hypothesis.formula.args
    any_level = forall([N], closed_there.args[1])
    asked = obligations(proposition, attrs.evolve(hypothesis, formula=any_level), by)
    assert [answer(script) is Answer.UNSAT for script in asked] == [True, False, True]


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
