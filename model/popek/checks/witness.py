"""From a satisfiable question to a minimal, replayed counterexample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.state import State
from popek.kernel.terms import Term
from popek.solving.solver import Model, Solver

from .counterexample import concretize, leaf_preferences, mentions
from .minimizer import Minimizer
from .verdict import Question

S = TypeVar("S", bound=State)


@attrs.frozen(eq=False)
class FoundStates(Generic[S]):
    """Concrete states and operands behind a model.

    Attributes:
        states: the concrete counterparts of the symbolic states asked for, in order.
        operands: a number per operand part.
        addresses: the probed address per memory, where the query probed one.
        model: for further terms.
    """

    states: tuple[S, ...]
    operands: Mapping[str, int]
    addresses: Mapping[str, tuple[int, ...]]
    model: Model


def find_minimal(
    machine: Machine[S],
    instruction: Instruction,
    question: Question,
    solver: Solver,
    model: Model,
    states: Sequence[S],
    probes: Mapping[str, Term],
    resets: Sequence[S] = (),
    guess: dict[str, int] | None = None,
) -> FoundStates[S]:
    """The minimal model of a satisfiable question, as concrete states.

    Args:
        solver, model: as the question's `ask` returned them.
        states: symbolic states, the most important first; a later one that shares a leaf's symbol with
            an earlier one follows it, and primed leaves prefer the value of the unprimed ones.
        probes: the probed address of each memory.
        guess: values of variables in a model that was found earlier, which saves work; this one's are noted there.
        resets: preferred states, one per symbolic state; the machine's plain reset state by default.
    """
    plain = machine.state.reset()
    wanted = [resets[i] if i < len(resets) else plain for i in range(len(states))]
    minimizer = Minimizer(solver, question.conditions)
    known = minimizer.variables
    preferences: list[tuple[Term, Term]] = []
    for other in states[1:]:  # the two runs should differ in as little as possible
        preferences += [
            (other[leaf.name].term, states[0][leaf.name].term)
            for leaf in machine.state.leaves
            if other[leaf.name].term is not states[0][leaf.name].term
            and mentions(other[leaf.name].term, known)
        ]
    for symbolic, reset in zip(states, wanted, strict=True):
        preferences += leaf_preferences(symbolic, reset, known)
    smallest = instruction.smallest
    for name, width in instruction.widths.items():
        if name in known:
            preferences.append((known[name], terms.const(width, smallest[name])))
    cells = minimizer.cells()
    preferences += [(cell, terms.const(cell.width, 0)) for cell in cells]
    # The probed addresses last: they say where to look, not what the state is.
    preferences += [(term, terms.const(term.width, 0)) for term in probes.values() if str(term.data) in known]
    model = minimizer.run(model, preferences, guess)
    if guess is not None:
        guess.update((name, model(variable)) for name, variable in known.items())
    concrete = tuple(
        concretize(symbolic, model, cells, known, reset)
        for symbolic, reset in zip(states, wanted, strict=True)
    )
    # What the question does not depend on has the first valid value.
    operands = {name: model(known[name]) if name in known else value for name, value in smallest.items()}
    # Where two memories differ everywhere the question does not mention the probe: any address will do.
    addresses = {name: (model(term),) for name, term in probes.items()}
    return FoundStates(concrete, operands, addresses, model)
