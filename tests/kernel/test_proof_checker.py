"""The proof checker: it accepts what solvers write, notices what was spoilt, and never accepts what is satisfiable."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysat.solvers import Solver

from popek.solving import proof_checker
from popek.solving.proof_checker import ProofError, check

Clauses = list[list[int]]


def dimacs(clauses: Clauses) -> str:
    variables = max((abs(x) for clause in clauses for x in clause), default=0)
    lines = [" ".join(map(str, [*clause, 0])) for clause in clauses]
    return "\n".join([f"p cnf {variables} {len(clauses)}", *lines]) + "\n"


def pigeons(holes: int) -> Clauses:
    """One more pigeon than holes; no clause can be spared."""
    at = {pair: 1 + n for n, pair in enumerate(itertools.product(range(holes + 1), range(holes)))}
    some = [[at[pigeon, hole] for hole in range(holes)] for pigeon in range(holes + 1)]
    pairs = itertools.combinations(range(holes + 1), 2)
    return some + [[-at[a, hole], -at[b, hole]] for a, b in pairs for hole in range(holes)]


def proof(clauses: Clauses, solver: str) -> list[str]:
    with Solver(name=solver, bootstrap_with=clauses, with_proof=True) as found:
        assert not found.solve()
        lines = [line.strip() for line in found.get_proof()]
    return lines if lines[-1] == "0" else [*lines, "0"]


CNF = pigeons(4)
PROOF = proof(CNF, "glucose4")
WRONG = "does not follow|deletes a clause that is not there"
# An example of Wetzler, Heule and Hunt (2014): its first step is no RUP.
RAT = [[1, 2, -3], [-1, -2, 3], [2, 3, -4], [-2, -3, 4], [-1, -3, -4], [1, 3, 4], [-1, 2, 4], [1, -2, -4]]


@pytest.mark.parametrize("solver", ["cadical153", "cadical195", "glucose4", "lingeling"])
def test_what_solvers_write_is_accepted(solver: str) -> None:
    assert check(dimacs(CNF), "\n".join(proof(CNF, solver))) > 0


def test_a_step_that_keeps_the_rest_satisfiable_is_accepted() -> None:
    assert check(dimacs(RAT), "-1 0\nd -1 2 4 0\n2 0\n0\n") == 2
    for dropped in range(len(RAT)):
        with pytest.raises(ProofError, match=WRONG):
            check(dimacs(RAT[:dropped] + RAT[dropped + 1 :]), "-1 0\nd -1 2 4 0\n2 0\n0\n")


def test_a_clause_that_was_deleted_is_of_no_use() -> None:
    cnf = dimacs([[1, 2], [-1, 2], [1, -2], [-1, -2]])
    assert check(cnf, "2 0\n0\n") == 1
    with pytest.raises(ProofError, match="does not follow"):
        check(cnf, "d -1 -2 0\n2 0\n0\n")
    with pytest.raises(ProofError, match="step 2 deletes a clause that is not there"):
        check(cnf, "d -1 -2 0\nd -2 -1 0\n2 0\n0\n")


@pytest.mark.parametrize("dropped", range(len(CNF)))
def test_a_dropped_clause_is_noticed(dropped: int) -> None:
    less = CNF[:dropped] + CNF[dropped + 1 :]
    with pytest.raises(ProofError, match=WRONG):
        check(dimacs(less), "\n".join(PROOF))
    lines = dimacs(CNF).splitlines()
    del lines[1 + dropped]
    with pytest.raises(ProofError, match=f"announces {len(CNF)} clauses and has {len(less)}"):
        check("\n".join(lines), "\n".join(PROOF))


@pytest.mark.parametrize("place", range(0, len(CNF), 5))
def test_a_changed_literal_is_noticed(place: int) -> None:
    changed = [list(clause) for clause in CNF]
    changed[place][0] *= -1
    with pytest.raises(ProofError, match=WRONG):
        check(dimacs(changed), "\n".join(PROOF))


def test_another_question_is_noticed() -> None:
    others = [[-x for x in clause] for clause in CNF]
    with pytest.raises(ProofError, match=WRONG):
        check(dimacs(others), "\n".join(PROOF))


def test_a_truncated_file_is_noticed() -> None:
    whole, text = dimacs(CNF), "\n".join(PROOF) + "\n"
    for length in range(0, len(text) - 2, 7):
        with pytest.raises(
            ProofError, match=r"does not end with the empty clause|expected one 0|expected numbers"
        ):
            check(whole, text[:length])
    for length in range(0, len(whole) - 3, 7):
        with pytest.raises(ProofError, match=r"no CNF|announces|expected one 0|expected numbers"):
            check(whole[:length], text)


@pytest.mark.parametrize(
    ("cnf", "steps", "why"),
    [
        ("p cnf 1 2\n1 0\n-1 0\n", "1 -1 0\n0\n", "step 1 is a tautology"),
        ("p cnf 2 2\n1 -1 0\n2 0\n", "1 0\n0\n", "does not follow"),
        ("p cnf 2 2\n1 2 0\n-1 2 0\n", "0\n", "the empty clause does not follow"),
        ("p cnf 1 2\n1 0\n-1 0\n", "", "does not end with the empty clause"),
        ("p cnf 1 2\n1 0\n-1 0\n", "x 0\n0\n", "step 1: expected numbers"),
        ("p cnf 2 1\n1 2 0\n", "3 0\n0\n", "step 1 has a variable above 2"),
        ("p cnf 1 2\n1 0\n-2 0\n", "0\n", "clause 2 has a variable above 1"),
        ("p cnf 1 2\n1 0 -1 0\n1 0\n", "0\n", "clause 1: expected one 0, at its end"),
        ("1 0\n-1 0\n", "0\n", "expected a line 'p cnf VARIABLES CLAUSES'"),
    ],
)
def test_what_is_no_proof_says_so(cnf: str, steps: str, why: str) -> None:
    with pytest.raises(ProofError, match=why):
        check(cnf, steps)


LITERALS = st.sampled_from([-4, -3, -2, -1, 1, 2, 3, 4])
FORMULAS = st.lists(st.lists(LITERALS, min_size=1, max_size=3), max_size=12)


def satisfiable(clauses: Clauses) -> bool:
    every = itertools.product((False, True), repeat=4)
    return any(all(any(a[abs(x) - 1] == (x > 0) for x in c) for c in clauses) for a in every)


@settings(max_examples=400)
@given(FORMULAS, st.lists(st.tuples(st.booleans(), st.lists(LITERALS, min_size=1, max_size=3)), max_size=8))
def test_nothing_satisfiable_is_refuted(clauses: Clauses, steps: list[tuple[bool, list[int]]]) -> None:
    cnf = f"p cnf 4 {len(clauses)}\n" + "".join(" ".join(map(str, [*c, 0])) + "\n" for c in clauses)
    lines = [("d " if deletes else "") + " ".join(map(str, [*c, 0])) for deletes, c in steps]
    try:
        check(cnf, "\n".join([*lines, "0"]))
    except ProofError:
        return
    assert not satisfiable(clauses)


def test_it_runs_alone(tmp_path: Path) -> None:
    file = tmp_path / "checker.py"
    shutil.copy(proof_checker.__file__, file)
    assert len(file.read_text().splitlines()) < 300
    (tmp_path / "a.cnf").write_text(dimacs(CNF))
    (tmp_path / "a.drat").write_text("\n".join(PROOF))
    (tmp_path / "b.drat").write_text("0\n")

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-I", "-S", file, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        return done.returncode, done.stdout + done.stderr

    assert run("a.cnf", "a.drat")[1].startswith("verified: ")
    assert run("a.cnf", "b.drat") == (
        1,
        "not verified: the empty clause does not follow by unit propagation\n",
    )
    assert run("a.cnf", "c.drat")[0] == 1
    assert run("a.cnf") == (2, "expected: QUESTION.cnf QUESTION.drat\n")
