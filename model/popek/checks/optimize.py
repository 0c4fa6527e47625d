"""Z3 beyond yes and no: the cheapest model of a formula, and the smallest reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
import z3

from popek.kernel.words import Word

from .solver import Answer, Effort, Model, Solver


@attrs.frozen
class Optimum:
    """An answer, with the cheapest model if it is SAT."""

    answer: Answer
    model: Model | None = None


def cheapest(
    hard: Iterable[Word], wishes: Sequence[tuple[Word, int]], effort: Effort | None = None
) -> Optimum:
    """A model of `hard` that breaks wishes of the least total weight.

    Args:
        hard: conditions (width 1), without memory.
        wishes: conditions with what it costs to break each.
        effort: bounds, and the tally.
    """
    solver = Solver(effort)
    optimizer = z3.Optimize(ctx=solver._context)
    optimizer.set("rlimit", solver.effort.rlimit)
    for condition in hard:
        optimizer.add(solver.condition(condition.term))
    for wish, weight in wishes:
        optimizer.add_soft(solver.condition(wish.term), weight)
    answer = optimizer.check()
    solver.effort.checks += 1
    if answer == z3.sat:
        return Optimum(Answer.SAT, Model(solver, optimizer.model()))
    return Optimum(Answer.UNSAT if answer == z3.unsat else Answer.UNKNOWN)


def contradiction(named: Mapping[str, Word], effort: Effort | None = None) -> tuple[str, ...] | None:
    """The names of conditions that contradict one another, none of which can be spared.

    None if they can hold together. A condition whose part in it Z3 cannot settle within its bounds stays in.
    """
    solver = Solver(effort)
    inner = solver._solver
    literals = {name: z3.Bool(f"?{number}", ctx=solver._context) for number, name in enumerate(named)}
    for name, condition in named.items():
        inner.add(z3.Implies(literals[name], solver.condition(condition.term)))
    if inner.check(*literals.values()) != z3.unsat:
        return None
    by_literal = {str(literal): name for name, literal in literals.items()}
    kept = [by_literal[str(literal)] for literal in inner.unsat_core()]
    for name in list(kept):
        fewer = [other for other in kept if other != name]
        if name in kept and inner.check(*(literals[other] for other in fewer)) == z3.unsat:
            left = {by_literal[str(literal)] for literal in inner.unsat_core()}
            kept = [other for other in fewer if other in left]
    return tuple(name for name in named if name in kept)
