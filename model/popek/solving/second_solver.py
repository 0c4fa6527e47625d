"""A second, independent solver: cvc5, on the SMT-LIB text that was exported.

Only text goes in, so nothing of Z3 is shared.  cvc5 is not needed to run popek: it is imported when it is
asked for, and a missing one is an error that says so.
"""

from __future__ import annotations

import time

from .solver import Answer, Effort

NAME = "cvc5"

# cvc5's own resource units a query may use: ten times what the slowest proof needs, and about a second.
RLIMIT = 100_000


class SecondSolverMissingError(RuntimeError):
    """cvc5 was asked for and is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "the second solver needs the package cvc5: install it, or ask without a second solver"
        )


def available() -> bool:
    """Whether cvc5 is installed."""
    from importlib.util import find_spec

    return find_spec("cvc5") is not None


def second_solver_version() -> str:
    """Which cvc5 answers.

    Raises:
        SecondSolverMissingError: none does.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"cvc5 {version('cvc5')}"
    except PackageNotFoundError:
        raise SecondSolverMissingError from None


def second_answer(script: str, effort: Effort | None = None, *, rlimit: int = RLIMIT) -> Answer:
    """What cvc5 says about an SMT-LIB 2 script; UNKNOWN when it gives up.

    Args:
        script: declarations and assertions, with or without `(check-sat)`.
        effort: its timeout bounds the query, and the tally is kept there; its rlimit is in units of Z3.
        rlimit: bound in cvc5's units, so that the answer is the same on every run; 0 for none.

    Raises:
        SecondSolverMissingError: cvc5 is not installed.
        ValueError: cvc5 does not accept the text.
    """
    try:
        import cvc5  # type: ignore[import-untyped]
    except ImportError:
        raise SecondSolverMissingError from None
    effort = effort or Effort()
    start = time.perf_counter()
    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("enum-inst", "true")  # where no pattern matches, try the terms at hand
    if effort.timeout:
        solver.setOption("tlimit-per", str(max(1, int(effort.timeout * 1000))))
    if rlimit:
        solver.setOption("rlimit-per", str(rlimit))
    parser = cvc5.InputParser(solver)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, script, "query")
    symbols = parser.getSymbolManager()
    try:
        while True:
            command = parser.nextCommand()
            if command.isNull():
                break
            if command.getCommandName() != "check-sat":
                reply = command.invoke(solver, symbols)
                if "error" in reply:
                    raise ValueError(f"cvc5 does not accept the script: {reply.strip()}")
    except RuntimeError as error:
        raise ValueError(f"cvc5 does not accept the script: {error}") from None
    result = solver.checkSat()
    effort.seconds += time.perf_counter() - start
    effort.checks += 1
    if result.isUnsat():
        return Answer.UNSAT
    return Answer.SAT if result.isSat() else Answer.UNKNOWN
