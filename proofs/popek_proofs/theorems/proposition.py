"""Propositions: a statement about any machine, its hypotheses, and what became of it.

A proposition *holds* when its hypotheses and the negation of its conclusion contradict one another, as Z3
and, where it is asked, a second solver say of the same SMT-LIB text.  Two more questions keep it honest:

* vacuous: is there a machine at all in which the hypotheses hold and the occasion arises?
* needed: for each hypothesis, a machine in which all the others hold and the conclusion fails.

Both are answered with a small machine that was found by a solver and checked in Python (`small_machine`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import attrs

from popek.checks.ladder import NOT_FOUND, REPLAYED, LadderStep, Reached, Rung
from popek.checks.verdict import Status, Truth
from popek.kernel.machine import UnknownNameError
from popek.solving.first_order import ask
from popek.solving.formula import Expr, script
from popek.solving.solver import Answer, Effort, sha256

from .small_machine import SmallMachine, SmallScope, find

RLIMIT = 500_000  # Z3 resources for one query; the slowest needs a fifth of it
NO_CERTIFICATE = LadderStep(Rung.CERTIFICATE, Reached.UNKNOWN, "it has sorts other than bit-vectors")
SecondSolver = Callable[[str], Answer]


@attrs.frozen
class TheoremHypothesis:
    """What a proposition assumes.

    Attributes:
        name: short and greppable.
        statement: one sentence.
        formula: what it says.
        by: where it is not an assumption but another proposition, that one's id.
    """

    name: str
    statement: str
    formula: Expr
    by: str = ""


@attrs.frozen(slots=False)
class Proposition:
    """A statement about any machine.

    Attributes:
        id: stable; what the command line, the report and a bug title use.
        statement: one or two sentences.
        source: section of the paper.
        hypotheses: what it assumes.
        conclusion: what follows.
        occasion: what must be possible together with the hypotheses, or the statement is about nothing.
        given: facts of arithmetic that the words presuppose (addresses are natural numbers).
        scope: how small its small machines are.
    """

    id: str
    statement: str
    source: str
    hypotheses: tuple[TheoremHypothesis, ...]
    conclusion: Expr
    occasion: Expr
    given: tuple[tuple[str, Expr], ...] = ()
    scope: SmallScope = attrs.field(factory=SmallScope)

    def assumptions(self) -> list[tuple[str, Expr]]:
        """The given facts and the hypotheses, by name."""
        return [*self.given, *((h.name, h.formula) for h in self.hypotheses)]

    @cached_property
    def smtlib(self) -> str:
        """The question whose answer must be `unsat`."""
        lines = [f"{self.id}: {self.statement}"]
        lines += [f"  {h.name}: {h.statement}" + (f" [{h.by}]" if h.by else "") for h in self.hypotheses]
        return script("\n".join(lines), [*self.assumptions(), ("conclusion-fails", ~self.conclusion)])

    def without(self, hypothesis: str) -> Proposition:
        """The same proposition with one hypothesis dropped."""
        if hypothesis not in {h.name for h in self.hypotheses}:
            raise UnknownNameError(f"hypothesis of {self.id}", hypothesis, [h.name for h in self.hypotheses])
        return attrs.evolve(self, hypotheses=tuple(h for h in self.hypotheses if h.name != hypothesis))


@attrs.frozen(eq=False)
class HypothesisNeeded:
    """What happens without one hypothesis.

    Attributes:
        hypothesis: the one that is dropped.
        needed: yes where a machine shows that the conclusion can fail without it.
        machine: that machine.
    """

    hypothesis: TheoremHypothesis
    needed: Truth
    machine: SmallMachine | None

    def to_json(self) -> dict[str, object]:
        """The hypothesis and the machine's tables."""
        tables = None if self.machine is None else self.machine.to_json()
        return {"hypothesis": self.hypothesis.name, "needed": self.needed.value, "machine": tables}


@attrs.frozen(eq=False)
class Proof:
    """What became of a proposition.

    Attributes:
        proposition: which.
        verdict: holds, refuted or unknown.
        answers: what each solver said, by its name.
        seconds: time spent.
        vacuous: no where a machine shows that the hypotheses can hold.
        example: that machine.
        needs: per hypothesis, what happens without it; empty when that was not asked.
        counterexample: where it is refuted, a machine in which the hypotheses hold and the conclusion fails.
    """

    proposition: Proposition
    verdict: Status
    answers: dict[str, Answer]
    seconds: float
    vacuous: Truth
    example: SmallMachine | None
    needs: tuple[HypothesisNeeded, ...]
    counterexample: SmallMachine | None

    @property
    def steps(self) -> tuple[LadderStep, ...]:
        """How far the evidence goes."""
        (first, answer), *others = self.answers.items()
        if self.verdict is Status.REFUTED:
            replayed = REPLAYED if self.counterexample is not None else NOT_FOUND
            return (replayed, LadderStep(Rung.SOLVER, Reached.YES, first))
        if self.verdict is not Status.HOLDS:
            return (LadderStep(Rung.SOLVER, Reached.UNKNOWN, f"{first} says {answer.value}"),)
        second = LadderStep(Rung.SECOND_SOLVER, Reached.NOT_ASKED, "no second solver is installed")
        if others:
            second = LadderStep(Rung.SECOND_SOLVER, Reached.YES, ", ".join(name for name, _ in others))
        return (LadderStep(Rung.SOLVER, Reached.YES, first), second, NO_CERTIFICATE)

    def to_json(self) -> dict[str, object]:
        """A row of `popek prove --json`."""
        proposition = self.proposition
        row: dict[str, object] = {
            "id": proposition.id,
            "statement": proposition.statement,
            "source": proposition.source,
            "verdict": self.verdict.value,
            "hypotheses": [f"{h.name}: {h.statement}" for h in proposition.hypotheses],
            "seconds": round(self.seconds, 3),
            "evidence": {
                "smtlib_sha256": sha256(proposition.smtlib),
                "solvers": {name: answer.value for name, answer in sorted(self.answers.items())},
                "certificate": None,
                "ladder": [step.to_json() for step in self.steps],
            },
            "vacuous": self.vacuous.value,
            "needs": [need.to_json() for need in self.needs],
        }
        if self.counterexample is not None:
            row["counterexample"] = self.counterexample.to_json()
        return row


@attrs.frozen(eq=False)
class ProofReport:
    """The proofs that were asked for, in order."""

    proofs: tuple[Proof, ...]

    @property
    def exit_code(self) -> int:
        """0 where all hold and none is vacuous, 1 where one fails, 3 where one is unknown."""
        if any(p.verdict is Status.REFUTED or p.vacuous is Truth.YES for p in self.proofs):
            return 1
        unknown = any(p.verdict is Status.UNKNOWN or p.vacuous is Truth.UNKNOWN for p in self.proofs)
        return 3 if unknown else 0

    def to_json(self) -> dict[str, object]:
        """`popek/proofs/1`."""
        return {"schema": "popek/proofs/1", "propositions": [proof.to_json() for proof in self.proofs]}


def prove_one(
    proposition: Proposition,
    effort: Effort | None = None,
    *,
    second_solver: SecondSolver | None = None,
    needs: bool = True,
) -> Proof:
    """Prove or refute one proposition.

    Args:
        effort: bounds of each query, and the tally.
        second_solver: answers the exported text independently; both must agree.
        needs: also drop each hypothesis in turn.

    Raises:
        DecodeError: a defect of popek.
    """
    start = time.perf_counter()
    effort = effort or Effort(rlimit=RLIMIT)
    answers = {"z3": ask(proposition.smtlib, effort=effort).answer}
    if second_solver is not None:
        answers["cvc5"] = second_solver(proposition.smtlib)
    counterexample = None
    if set(answers.values()) == {Answer.UNSAT}:
        verdict = Status.HOLDS
    else:
        # A solver that says "sat" of quantified text may give up as well as find: a small machine decides.
        counterexample = _machine(proposition, effort, fails=True)[1]
        refuted = counterexample is not None and Answer.UNSAT not in answers.values()
        verdict = Status.REFUTED if refuted else Status.UNKNOWN
    vacuous, example = _vacuous(proposition, effort)
    found = tuple(_need(proposition, h, effort) for h in proposition.hypotheses) if needs else ()
    return Proof(
        proposition,
        verdict,
        answers,
        time.perf_counter() - start,
        vacuous,
        example,
        found,
        counterexample,
    )


def _machine(proposition: Proposition, effort: Effort, *, fails: bool) -> tuple[Answer, SmallMachine | None]:
    last = ("conclusion-fails", ~proposition.conclusion) if fails else ("occasion", proposition.occasion)
    return find(proposition.id, [*proposition.assumptions(), last], proposition.scope, effort)


def _vacuous(proposition: Proposition, effort: Effort) -> tuple[Truth, SmallMachine | None]:
    _, example = _machine(proposition, effort, fails=False)
    if example is not None:
        return Truth.NO, example
    # No small one: is there none at all?
    query = script(proposition.id, [*proposition.assumptions(), ("occasion", proposition.occasion)])
    impossible = ask(query, effort=effort).answer is Answer.UNSAT
    return (Truth.YES if impossible else Truth.UNKNOWN), None


def _need(proposition: Proposition, hypothesis: TheoremHypothesis, effort: Effort) -> HypothesisNeeded:
    rest = proposition.without(hypothesis.name)
    # The tables show the dropped hypothesis failing, so its functions belong to them.
    broken = (f"{hypothesis.name}-fails", ~hypothesis.formula)
    formulas = [*rest.assumptions(), broken, ("conclusion-fails", ~rest.conclusion)]
    answer, machine = find(f"{proposition.id} without {hypothesis.name}", formulas, proposition.scope, effort)
    # None in scope proves nothing about larger machines.
    return HypothesisNeeded(hypothesis, Truth.YES if answer is Answer.SAT else Truth.UNKNOWN, machine)


def select_propositions(known: Sequence[Proposition], names: Iterable[str]) -> list[Proposition]:
    """The propositions that the names mean: an id, or what ids begin with (`theorem1`); all without names.

    Raises:
        UnknownNameError: with near matches.
    """
    by_id = {p.id: p for p in known}
    groups = {p.id.partition(".")[0] for p in known}
    chosen: dict[str, Proposition] = {}
    for name in names:
        folded = name.lower()
        if folded in by_id:
            chosen[folded] = by_id[folded]
        elif folded in groups:
            chosen.update({p.id: p for p in known if p.id.startswith(f"{folded}.")})
        else:
            raise UnknownNameError("proposition", name, [*groups, *by_id])
    return list(chosen.values()) if chosen else list(known)


def prove_all(
    known: Sequence[Proposition],
    names: Iterable[str] = (),
    effort: Effort | None = None,
    *,
    second_solver: SecondSolver | None = None,
    needs: bool = True,
) -> ProofReport:
    """Prove the named propositions, all of them by default.

    Raises:
        UnknownNameError: with near matches.
    """
    chosen = select_propositions(known, names)
    return ProofReport(tuple(prove_one(p, effort, second_solver=second_solver, needs=needs) for p in chosen))
