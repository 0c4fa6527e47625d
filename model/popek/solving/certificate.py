"""A certificate that a question has no answer: clauses, a proof that refutes them, and both checked.

The clauses are made from the exported text (`bit_blasting`), a SAT solver refutes them and writes a proof, and
`proof_checker` checks that, from the texts that are kept; a long proof `drat_trim`, where it is installed.  That the
clauses mean what was asked is *not* proved: the text is compared with the question's terms node by node, and on some
assignments, random and at the boundaries, the bits of every subterm are compared with what `popek.kernel.evaluation`
says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel.evaluation import Evaluation
from popek.kernel.terms import Term, mask, postorder

from . import drat_trim
from .bit_blasting import FALSE, TRUE, Clauses
from .proof_checker import ProofError, check
from .smtlib import Graph, Mirror, Node, QuantifiedError, assertions

SAT_SOLVER: Final = "glucose4"
CONFLICTS: Final = 200_000  # of the SAT solver, before a question counts as too hard
CLAUSES: Final = 4_000_000
LONG: Final = 10_000  # steps of a proof, above which drat-trim checks it where it is installed
BY_DRAT_TRIM: Final = "by_drat_trim"
ASSIGNMENTS: Final = 8


class NotCertifiedError(Exception):
    """There is no certificate; the message says why."""


class TooHardError(NotCertifiedError):
    """The SAT solver met as many conflicts as it may."""


class RefutedError(Exception):
    """The evidence is wrong: the clauses have an assignment, or do not say what was asked, or a proof fails."""


@attrs.frozen
class Certificate:
    """Clauses and a proof that refutes them, checked.

    Attributes:
        cnf: in DIMACS format.
        proof: in DRAT's text format.
        figures: how many clauses; ties of applications; steps of the proof, and those that the checker needed;
            values of subterms that were compared with the clauses' bits; 1 where drat-trim checked the proof.
    """

    cnf: str
    proof: str
    figures: Mapping[str, int]


def available() -> bool:
    """Whether the SAT solver is installed."""
    from importlib.util import find_spec

    return find_spec("pysat") is not None


def certify(
    script: str, conditions: Sequence[Term] | None = None, *, about: str = "", conflicts: int = CONFLICTS
) -> Certificate:
    """Refute a script, and check that.

    Args:
        script: SMT-LIB 2 text of bit-vectors and functions over them.
        conditions: the terms (width 1) of which it is the text, one for each assertion, to be compared.
        about: a comment for the CNF.
        conflicts: how many the SAT solver may meet.

    Raises:
        NotCertifiedError: the text is of another kind, or there are too many clauses.
        TooHardError: the SAT solver does not get to the end.
        RefutedError: something is wrong with the evidence.
        ValueError: the text is not SMT-LIB.
    """
    try:
        graph = Graph()
        nodes = assertions(script, graph)
    except QuantifiedError as error:
        raise NotCertifiedError(str(error)) from None
    made = Clauses()
    asserted = [made.add(node)[0] for node in nodes]
    if len(made.clauses) > CLAUSES:
        raise NotCertifiedError(f"more than {CLAUSES} clauses")
    ties = _tied(made, asserted, conflicts)
    cnf = made.dimacs(asserted, [*about.splitlines(), *_inputs(made)])
    lines = _refuted(made, asserted, conflicts)
    proof = "\n".join(lines) + "\n"
    long = len(lines) > LONG and drat_trim.available()
    try:
        needed = drat_trim.check(cnf, proof) if long else check(cnf, proof)
    except ProofError as error:
        raise RefutedError(f"the proof of {SAT_SOLVER} is not accepted: {error}") from None
    compared = 0 if conditions is None else compare(made, conditions, nodes, graph)
    counts = {"clauses": len(made.clauses) + len(asserted), "ties": ties, "steps": len(lines)}
    counts |= {"needed": needed, "compared": compared}
    return Certificate(cnf, proof, {**counts, BY_DRAT_TRIM: 1} if long else counts)


def _inputs(made: Clauses) -> Iterator[str]:
    """Which variables are the bits of which input."""
    for node, bits in made.bits.items():
        if node.op in ("var", "apply"):
            what = (
                node.data
                if node.op == "var"
                else f"{node.data} applied to "
                + ", ".join(" ".join(map(str, made.bits[arg])) for arg in node.args)
            )
            yield f"{what}, low bit first: {' '.join(map(str, bits))}"


def _solver(clauses: Sequence[Sequence[int]], **options: Any) -> Any:
    from pysat.solvers import Solver

    return Solver(name=SAT_SOLVER, bootstrap_with=clauses, **options)


def _tied(made: Clauses, asserted: Sequence[int], conflicts: int) -> int:
    """Tie applications until no assignment has equal arguments and different values; the number of ties."""
    ties = 0
    if len({cell.data for cell in made.cells}) == len(made.cells):
        return ties
    with _solver([*made.clauses, *([one] for one in asserted)]) as solver:
        while _solved(solver, conflicts):
            true = set(solver.get_model())
            before = len(made.clauses)
            for a, b in _loose(made, true):
                made.tie(a, b)
                ties += 1
            if len(made.clauses) == before:
                raise RefutedError("the clauses have an assignment: the question is satisfiable")
            solver.append_formula(made.clauses[before:])
    return ties


def _loose(made: Clauses, true: set[int]) -> Iterator[tuple[Node, Node]]:
    """Applications that have equal arguments and different values."""
    seen: dict[tuple[object, ...], Node] = {}
    for cell in made.cells:
        where = (cell.data, *(_number(made.bits[arg], true) for arg in cell.args))
        other = seen.setdefault(where, cell)
        if _number(made.bits[other], true) != _number(made.bits[cell], true):
            yield other, cell


def _number(bits: Sequence[int], true: set[int]) -> int:
    return sum(1 << place for place, bit in enumerate(bits) if bit == TRUE or (bit != FALSE and bit in true))


def _solved(solver: Any, conflicts: int) -> bool:
    solver.conf_budget(conflicts)
    answer = solver.solve_limited()
    if answer is None:
        raise TooHardError(f"{SAT_SOLVER} meets more than {conflicts} conflicts")
    return bool(answer)


def _refuted(made: Clauses, asserted: Sequence[int], conflicts: int) -> list[str]:
    """The proof, by lines."""
    with _solver([*made.clauses, *([one] for one in asserted)], with_proof=True) as solver:
        if _solved(solver, conflicts):
            raise RefutedError("the clauses have an assignment: the question is satisfiable")
        lines = [line.strip() for line in solver.get_proof()]
    return lines if lines and lines[-1] == "0" else [*lines, "0"]


# -- what the clauses mean ------------------------------------------------------------------------


def compare(made: Clauses, conditions: Sequence[Term], nodes: Sequence[Node], graph: Graph) -> int:
    """Compare the clauses with terms on some assignments.

    Args:
        made: the clauses of the nodes.
        conditions: of width 1.
        nodes: what was read, one for each condition.
        graph: where it was read into.

    Returns:
        How many values of subterms were compared.

    Raises:
        RefutedError: the text is not that of the terms, or a bit is another than it should be.
    """
    mirror = Mirror(graph)
    if [mirror.condition(condition) for condition in conditions] != list(nodes):
        raise RefutedError("the text does not say what was asked")
    before = len(made.clauses)
    bits = {term: made.add(mirror.vector(term)) for term in postorder(conditions)}
    assert len(made.clauses) == before
    with _solver(made.clauses) as solver:
        for number in range(ASSIGNMENTS):
            evaluation = _evaluation(number)
            given = []
            for term in bits:
                if term.op in ("var", "apply"):
                    value = evaluation(term)
                    given += [bit if value >> place & 1 else -bit for place, bit in enumerate(bits[term])]
            possible, implied = solver.propagate(assumptions=given)
            true = set(implied)
            for term, word in bits.items():
                if not possible or _number(word, true) != evaluation(term):
                    raise RefutedError(f"the clauses and the term differ about {term!r}"[:200])
    return len(bits) * ASSIGNMENTS


def _evaluation(number: int) -> Evaluation:
    """All zeros, all ones, random numbers, and mixtures of few, so that some are equal."""
    few = [random.Random(f"{number} {place}").getrandbits(512) for place in range(3)]

    def unknown(term: Term, args: Sequence[int]) -> int:
        if number < 2:
            return -number & mask(term.width)
        chance = random.Random(f"{number} {term.data} {' '.join(map(str, args))}")
        edges = (0, 1, -1, 1 << (term.width - 1), (1 << (term.width - 1)) - 1)
        return chance.choice([chance.getrandbits(512), *few, *edges] if number % 2 else few) & mask(
            term.width
        )

    return Evaluation(unknown)


__all__ = [
    "BY_DRAT_TRIM",
    "CONFLICTS",
    "Certificate",
    "NotCertifiedError",
    "RefutedError",
    "TooHardError",
    "available",
    "certify",
    "compare",
]
