"""Hypotheses that are other propositions: what is cited gives what is used, as a solver says.

A hypothesis with `by` must follow from the conclusion of the proposition that it names.  That speaks of one
instruction i, whichever; so it is taken for all, and what it introduces for i (an interpreter routine) becomes a
function of i.  What a symbol of the citing proposition stands for is a definition.  Where one speaks of states and the
other of storage, mode and relocation, what the words mean in storage is a definition, too (`in_storage`); and what the
words mean of maps (`in_maps`), where a hypothesis may take several questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from popek.solving.formula import Expr, Function, conj, equal, forall, functions_of, implies, script, var

from . import in_maps, theorem1, theorem3
from .in_storage import MEANING
from .proposition import Proposition, TheoremHypothesis
from .vocabulary import INSTRUCTION, STATE, I, S, bare, execute, f, fetch, i, stops

_FETCHED = execute(fetch(S), f(S))
_recovered, _routine = (
    Function(name, (INSTRUCTION, STATE), STATE) for name in ("recovered_by", "routine_of")
)
_found = theorem1.recovered(execute(i, f(S)))


def _step(name: str, step: Expr) -> Expr:
    return forall([S], equal(Function(name, (STATE,), STATE)(S), step))


_BARE_STEP: Final = _step("bare_step", execute(fetch(S), S))
# By hypothesis: what its symbols stand for, beside the conclusion that it cites.
DEFINITIONS: Final[Mapping[str, tuple[Expr, ...]]] = {
    # It may be a table: a guest state from which the dispatcher is entered so.
    "recovers-the-guest": (
        forall(
            [S],
            implies(
                conj(bare(S), stops(i, f(S))),
                conj(*(bare(_found), stops(i, f(_found))), equal(execute(i, f(_found)), execute(i, f(S)))),
            ),
        ),
    ),
    # The control program has a routine for each instruction, and takes that of the fetched one.
    "traps-are-interpreted": (
        forall(
            [S],
            equal(
                theorem1.monitor(_FETCHED),
                theorem1.resumed(_routine(fetch(S), _recovered(fetch(S), _FETCHED))),
            ),
        ),
    ),
    "steps-correspond": (
        _BARE_STEP,
        _step("virtual_step", theorem1.virtual_step(S)),
        _step("hybrid_step", theorem3.hybrid_step(S)),
    ),
}
# What a cited proposition introduces for its instruction, as a function of the instruction.
INDEXED: Final[Mapping[str, Function]] = {"recovered": _recovered, "routine": _routine}


def cited(known: Sequence[Proposition]) -> Iterator[tuple[Proposition, TheoremHypothesis, Proposition]]:
    """Each hypothesis that is another proposition, with that one.

    Raises:
        KeyError: it names none.
    """
    by_id = {one.id: one for one in known}
    for proposition in known:
        for hypothesis in proposition.hypotheses:
            if hypothesis.by:
                yield proposition, hypothesis, by_id[hypothesis.by]


def obligations(proposition: Proposition, hypothesis: TheoremHypothesis, by: Proposition) -> list[str]:
    """SMT-LIB scripts, each of which must be unsatisfiable; the last has the conclusion that is cited."""
    title = f"{hypothesis.name} of {proposition.id} by {by.id}"
    if hypothesis.name in in_maps.QUESTIONS:
        asked = in_maps.QUESTIONS[hypothesis.name](hypothesis, by)
        return [script(f"{title}: {what}" if what else title, parts) for what, parts in asked]
    conclusion = by.conclusion
    meaning = MEANING.get(hypothesis.name)
    definitions = DEFINITIONS.get(hypothesis.name, ())
    if meaning is not None:
        conclusion, definitions = meaning.said(conclusion), meaning.definitions
    elif "i" in functions_of([conclusion]) and "i" not in functions_of([hypothesis.formula]):
        conclusion = forall([I], _for_any(conclusion))
    given = [(f"meaning-{n}", one) for n, one in enumerate(definitions)]
    return [script(title, [("cited", conclusion), *given, ("does-not-follow", ~hypothesis.formula)])]


def together(known: Sequence[Proposition], theorem: str) -> list[tuple[str, Expr]]:
    """All that the propositions of a theorem assume about any machine, by name: there must be one of which all hold.

    Raises:
        ValueError: one name stands for two hypotheses.
    """
    found: dict[str, Expr] = {}
    for one in known:
        if one.id.startswith(f"{theorem}.") and _of_one_step(one):
            for name, formula in one.assumptions():
                if found.setdefault(name, formula) != formula:
                    raise ValueError(f"{name} is said in two ways")
    return list(found.items())


def _of_one_step(proposition: Proposition) -> bool:
    """Whether it speaks of f and of an instruction, and of no sequences."""
    names = functions_of(formula for _, formula in proposition.assumptions())
    return {"f", "execute"} <= names.keys() and not names.keys() & {"bare_run", "inner", "outer"}


def _for_any(expr: Expr) -> Expr:
    """The same of the instruction I in the place of i."""
    if expr.op == "apply" and expr.name == "i":
        return var("I", INSTRUCTION)
    args = tuple(map(_for_any, expr.args))
    if expr.op == "apply" and expr.name in INDEXED:
        return INDEXED[expr.name](I, *args)
    return attrs.evolve(expr, args=args)


__all__ = ["DEFINITIONS", "cited", "obligations", "together"]
