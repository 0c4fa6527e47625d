"""First-order questions as SMT-LIB text, answered by Z3.

The theorems about an arbitrary machine need uninterpreted sorts, quantifiers and arrays, which the
bit-vector questions of `solver` do not have.  Here the SMT-LIB script *is* the question: what Z3 reads is
what a second solver reads and what a reader sees.  It also confirms what another solver said of a bit-vector
question, from the text that was exported.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import z3

from .engine_z3 import checked
from .solver import Answer, Effort


@attrs.frozen
class Reply:
    """What a solver said about a script.

    Attributes:
        answer: satisfiable, unsatisfiable or unknown.
        values: where it is satisfiable, a number for each constant asked for (a Bool is 0 or 1).
    """

    answer: Answer
    values: tuple[int, ...] = ()


def ask(script: str, constants: Sequence[str] = (), effort: Effort | None = None) -> Reply:
    """Answer an SMT-LIB 2 script (declarations and assertions; no commands that print).

    Args:
        script: the text.
        constants: declared constants (Bool, Int or bit-vector) whose values are wanted.
        effort: bounds; the tally is kept there.

    Raises:
        ValueError: the text is not SMT-LIB, or a constant is not declared in it.
    """
    effort = effort or Effort()
    context = z3.Context()
    solver = z3.Solver(ctx=context)
    if effort.rlimit:
        solver.set("rlimit", effort.rlimit)
    start = time.perf_counter()
    try:
        solver.from_string(script)
    except z3.Z3Exception as error:
        raise ValueError(f"not an SMT-LIB script: {error}") from None
    answer = checked(solver, seconds=effort.timeout)
    effort.seconds += time.perf_counter() - start
    effort.checks += 1
    if answer is not Answer.SAT:
        return Reply(answer)
    model = solver.model()
    declared = {symbol.name(): symbol for symbol in model.decls()}
    return Reply(Answer.SAT, tuple(_number(model, declared, name) for name in constants))


def _number(model: z3.ModelRef, declared: dict[str, z3.FuncDeclRef], name: str) -> int:
    if name not in declared:
        raise ValueError(f"the script declares no constant {name}")
    value = model[declared[name]]
    return int(z3.is_true(value)) if z3.is_bool(value) else int(value.as_long())
