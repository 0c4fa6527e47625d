"""The theorems for any machine: they hold, each hypothesis is needed, and a broken lemma is caught."""

from __future__ import annotations

import attrs
import pytest

from popek.checks.verdict import Status, Truth
from popek.kernel.machine import UnknownNameError
from popek.solving.formula import conj, equal, forall, implies
from popek.solving.second_solver import second_answer
from popek.solving.solver import Answer, Effort
from popek_proofs import propositions, prove
from popek_proofs.theorems import storage, theorem1, theorem2, theorem3
from popek_proofs.theorems import vocabulary as v
from popek_proofs.theorems.proposition import (
    Proof,
    Proposition,
    TheoremHypothesis,
    prove_one,
    select_propositions,
)

ALL = propositions()
IDS = [p.id for p in ALL]


@pytest.fixture(scope="module")
def proofs() -> dict[str, Proof]:
    return {p.proposition.id: p for p in prove(second_solver=second_answer).proofs}


@pytest.mark.parametrize("name", IDS)
def test_a_proposition_holds_by_two_solvers_and_is_about_something(
    name: str, proofs: dict[str, Proof]
) -> None:
    proof = proofs[name]
    assert proof.answers == {"z3": Answer.UNSAT, "cvc5": Answer.UNSAT}
    assert proof.verdict is Status.HOLDS
    assert proof.vacuous is Truth.NO
    example = proof.example
    assert example is not None
    for _, formula in proof.proposition.assumptions():
        assert example.holds(formula)
    assert example.holds(proof.proposition.conclusion)


@pytest.mark.parametrize("name", IDS)
def test_without_any_one_hypothesis_a_small_machine_refutes_it(name: str, proofs: dict[str, Proof]) -> None:
    proof = proofs[name]
    proposition = proof.proposition
    assert [need.hypothesis for need in proof.needs] == list(proposition.hypotheses)
    for need in proof.needs:
        assert need.needed is Truth.YES, need.hypothesis.name
        machine = need.machine
        assert machine is not None
        for label, formula in proposition.assumptions():
            assert machine.holds(formula) is (label != need.hypothesis.name), label
        assert not machine.holds(proposition.conclusion)


@pytest.mark.parametrize("name", IDS)
def test_the_negated_conclusion_does_not_pass(name: str) -> None:
    proposition = next(p for p in ALL if p.id == name)
    negated = attrs.evolve(proposition, conclusion=~proposition.conclusion)
    proof = prove_one(negated, Effort(rlimit=200_000), needs=False)
    assert proof.verdict is not Status.HOLDS
    assert proof.verdict is Status.REFUTED or proof.answers["z3"] is not Answer.UNSAT


def _with(proposition: Proposition, name: str, formula: object) -> Proposition:
    assert name in {h.name for h in proposition.hypotheses}
    changed = tuple(attrs.evolve(h, formula=formula) if h.name == name else h for h in proposition.hypotheses)
    return attrs.evolve(proposition, hypotheses=changed)


WEAKENED = {
    "only user mode is asked": _with(
        theorem1.INNOCUOUS_COMMUTES,
        "not-behaviour-sensitive",
        theorem3.user_location_innocent(v.i),
    ),
    "control sensitivity only in user mode": _with(
        theorem1.INNOCUOUS_COMMUTES, "not-control-sensitive", theorem3.user_control_innocent(v.i)
    ),
    "a trap may forget the PSW": _with(
        theorem1.ENTRY_TELLS,
        "trap-exchanges-psw",
        forall(
            [v.S],
            implies(
                v.stops(v.i, v.S),
                conj(
                    equal(v.psw(v.execute(v.i, v.S)), v.new(v.S)),
                    equal(v.kept(v.execute(v.i, v.S)), v.kept(v.S)),
                ),
            ),
        ),
    ),
    "the bound is kept as it is": _with(
        storage.KEEPS_REFERENCES, "bound-is-cut", equal(storage.B, storage.b)
    ),
    "the bound is cut to the hardware's storage": _with(
        storage.OUT_OF_REACH, "bound-is-cut", equal(storage.B, storage.cut(storage.b, storage.l, storage.q))
    ),
    "one location is left for the control program": _with(
        storage.MACHINE_IS_SMALLER, "vector-is-owned", storage.number(1) <= storage.k
    ),
}


@pytest.mark.parametrize("name", WEAKENED)
def test_a_weakened_hypothesis_is_caught_with_a_machine(name: str) -> None:
    proof = prove_one(WEAKENED[name], second_solver=second_answer, needs=False)
    assert proof.verdict is Status.REFUTED
    assert Answer.UNSAT not in proof.answers.values()
    machine = proof.counterexample
    assert machine is not None
    assert all(machine.holds(formula) for _, formula in WEAKENED[name].assumptions())
    assert not machine.holds(WEAKENED[name].conclusion)


def test_contradictory_hypotheses_are_vacuous_not_a_proof() -> None:
    contradiction = TheoremHypothesis("never", "no state is bare", forall([v.S], ~v.bare(v.S)))
    broken = attrs.evolve(
        theorem1.INNOCUOUS_COMMUTES, hypotheses=(*theorem1.INNOCUOUS_COMMUTES.hypotheses, contradiction)
    )
    proof = prove_one(broken, needs=False)
    assert proof.vacuous is Truth.YES
    assert proof.example is None


def test_an_idle_hypothesis_is_not_called_needed() -> None:
    idle = TheoremHypothesis("idle", "f is not the identity", forall([v.S], ~equal(v.f(v.S), v.S)))
    more = attrs.evolve(theorem1.INNOCUOUS_DIRECT, hypotheses=(*theorem1.INNOCUOUS_DIRECT.hypotheses, idle))
    needs = {need.hypothesis.name: need.needed for need in prove_one(more).needs}
    assert needs["idle"] is Truth.UNKNOWN
    assert needs["references-relocated"] is Truth.YES


def test_disagreement_of_the_solvers_is_unknown() -> None:
    proof = prove_one(theorem1.STEP, second_solver=lambda text: Answer.SAT, needs=False)
    assert proof.verdict is Status.UNKNOWN


def test_the_second_solver_gets_the_text_alone_and_can_say_no() -> None:
    seen: list[str] = []

    def recording(text: str) -> Answer:
        seen.append(text)
        return second_answer(text)

    prove_one(theorem2.DEPTH_STEP, second_solver=recording, needs=False)
    assert seen == [theorem2.DEPTH_STEP.smtlib]
    assert second_answer(theorem2.DEPTH_STEP.without("machine-is-smaller").smtlib) is Answer.SAT


def test_the_timing_condition_is_what_theorem_2_needs() -> None:
    """Without it: two states that differ in time only, which the inner control program tells apart."""
    proof = prove_one(theorem2.COMMUTES)
    need = next(n for n in proof.needs if n.hypothesis.name == "inner-has-no-timing-dependency")
    machine = need.machine
    assert machine is not None
    table = machine.structure
    runs = [
        (s, t, table("inner_sequence", e))
        for e in range(table.sizes["Sequence"])
        for s in range(table.sizes["State"])
        for t in range(table.sizes["State"])
        if table("but_time", s) == table("but_time", t)
    ]
    assert any(
        table("but_time", table("run", e, s)) != table("but_time", table("run", e, t)) for s, t, e in runs
    )


def test_hypotheses_that_are_lemmas_name_existing_propositions() -> None:
    cited = {h.by for p in ALL for h in p.hypotheses if h.by}
    assert cited
    assert cited <= set(IDS)
    for p in ALL:
        for h in p.hypotheses:
            assert h.by != p.id


def test_ids_are_unique_and_selected_by_name_and_by_group() -> None:
    assert len(set(IDS)) == len(IDS)
    assert [p.id for p in select_propositions(ALL, ["theorem1.step"])] == ["theorem1.step"]
    assert {p.id for p in select_propositions(ALL, ["Theorem2"])} == {
        n for n in IDS if n.startswith("theorem2.")
    }
    with pytest.raises(UnknownNameError, match=r"theorem1\.step"):
        select_propositions(ALL, ["theorem1.stepp"])


def test_the_report_has_the_promised_keys() -> None:
    report = prove(["theorem1.step"], second_solver=second_answer, needs=False)
    assert report.exit_code == 0
    document = report.to_json()
    assert document["schema"] == "popek/proofs/1"
    (row,) = document["propositions"]  # type: ignore[misc]
    assert row["id"] == "theorem1.step"
    assert row["verdict"] == "holds"
    assert row["vacuous"] == "no"
    assert len(row["hypotheses"]) == len(theorem1.STEP.hypotheses)
    assert row["evidence"]["solvers"] == {"z3": "unsat", "cvc5": "unsat"}
    assert len(row["evidence"]["smtlib_sha256"]) == 64
    assert row["evidence"]["certificate"] is None


def test_the_exit_code_tells_refuted_from_unknown(proofs: dict[str, Proof]) -> None:
    from popek_proofs.theorems.proposition import ProofReport

    good = proofs["theorem1.step"]
    refuted = attrs.evolve(good, verdict=Status.REFUTED)
    unknown = attrs.evolve(good, verdict=Status.UNKNOWN)
    vacuous = attrs.evolve(good, vacuous=Truth.YES)
    assert [ProofReport(p).exit_code for p in ((good,), (refuted, unknown), (good, unknown), (vacuous,))] == [
        0,
        1,
        3,
        1,
    ]
