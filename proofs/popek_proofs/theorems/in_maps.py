"""What the words of maps mean, so that Theorem 2's induction over levels rests on what is said of states.

`nesting-base` and `nesting-step` speak of maps, of which `commutes`, `one_to_one` and `timeless` are words.  A map
sends states, of those that it is of; it has for each sequence e the sequence e' of the hardware, and other clock
readings.

* What is cited of two maps `inner` and `outer` is said of any two, F and G.  That the cited proposition applies is a
  question for each of its hypotheses; that its conclusion is the word of the composition is another.
* What Theorem 1 says of a step is said of sequences by induction over their length: its base, its step, and that its
  result is the word are questions.  The principle of induction is not, as in Lemma 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.solving.formula import BOOL, Expr, Function, conj, constant, equal, forall, implies

from . import theorem1
from .proposition import Proposition, TheoremHypothesis
from .theorem2 import (
    COUNT,
    MAP,
    SEQUENCE,
    F,
    G,
    N,
    closed,
    commutes,
    composed,
    e,
    fits,
    indifferent,
    level,
    one_to_one,
    run,
    same_but_time,
    timeless,
)
from .vocabulary import STATE, S, T, execute, fetch

sends = Function("sends", (MAP, STATE), STATE)
of = Function("of", (MAP, STATE), BOOL)
coded = Function("coded", (MAP, SEQUENCE), SEQUENCE)
later = Function("later", (MAP, SEQUENCE, STATE), STATE)


def _homomorphism(a: Expr) -> Expr:
    told = same_but_time(sends(a, run(e, later(a, e, S))), run(coded(a, e), sends(a, S)))
    return forall([e, S], implies(of(a, S), told))


def _in_time_only(a: Expr) -> Expr:
    return forall([e, S], same_but_time(later(a, e, S), S))


def _ignores_time(a: Expr) -> Expr:
    return forall([S, T], implies(same_but_time(S, T), same_but_time(sends(a, S), sends(a, T))))


def _tells(a: Expr) -> Expr:
    those = conj(of(a, S), of(a, T), same_but_time(sends(a, S), sends(a, T)))
    return forall([S, T], implies(those, same_but_time(S, T)))


MEANS: Final[Mapping[Function, Callable[[Expr], Expr]]] = {
    commutes: lambda a: conj(_homomorphism(a), _in_time_only(a)),
    one_to_one: _tells,
    timeless: lambda a: conj(indifferent(coded(a, e)), _ignores_time(a)),
}
"""What it says of a map that it is such a one."""


def _word(word: Function) -> Expr:
    return forall([F], equal(word(F), MEANS[word](F)))


_FITS: Final = forall([F, G], equal(fits(F, G), forall([S], implies(of(G, S), of(F, sends(G, S))))))
# -- of two maps ----------------------------------------------------------------------------------

_BOTH: Final = composed(F, G)
_COMPOSED: Final = (
    forall([F, G, S], equal(sends(_BOTH, S), sends(F, sends(G, S)))),
    forall([F, G, S], equal(of(_BOTH, S), of(G, S))),
    forall([F, G, e], equal(coded(_BOTH, e), coded(F, coded(G, e)))),
    forall([F, G, e, S], equal(later(_BOTH, e, S), later(G, e, S))),
    # The one part of `commutes` that is of G alone.
    forall([G], implies(commutes(G), _in_time_only(G))),
)
_OF_TWO: Final[Mapping[str, tuple[Function, Expr]]] = {
    "inner": (sends, G),
    "outer": (sends, F),
    "below_inner": (of, G),
    "below_outer": (of, F),
    "inner_sequence": (coded, G),
    "outer_sequence": (coded, F),
    "inner_delayed": (later, G),
    "outer_delayed": (later, F),
}


def _said(expr: Expr, words: Mapping[str, tuple[Function, Expr]]) -> Expr:
    """The same of the maps that stand there."""
    args = tuple(_said(arg, words) for arg in expr.args)
    if expr.op == "apply" and expr.name in words:
        function, whose = words[expr.name]
        return function(whose, *args)
    return attrs.evolve(expr, args=args)


Questions = list[tuple[str, list[tuple[str, Expr]]]]
"""What each asks, and what it asserts by name."""


def of_compositions(hypothesis: TheoremHypothesis, by: Proposition) -> Questions:
    """Questions, none of which may have an answer, by what they ask."""
    *_, told = hypothesis.formula.args
    there, result = told.args
    (word,) = (one for one in MEANS if one(_BOTH) == result)
    meanings = [("meaning-fits", _FITS), *((f"meaning-{one.name}", _word(one)) for one in MEANS)]
    asked = []
    for one in by.hypotheses:
        applies = forall([F, G], implies(there, _said(one.formula, _OF_TWO)))
        asked.append((f"it applies: {one.name}", [*meanings, ("does-not-follow", ~applies)]))
    cited = forall([F, G], implies(there, _said(by.conclusion, _OF_TWO)))
    given = [(f"meaning-{n}", part) for n, part in enumerate(_COMPOSED)]
    folded = ("meaning", forall([F, G], implies(MEANS[word](_BOTH), word(_BOTH))))
    asked.append(
        ("it gives this", [("cited", cited), *given, folded, ("does-not-follow", ~hypothesis.formula)])
    )
    return asked


# -- of one level ---------------------------------------------------------------------------------

_empty, _more = constant("empty", SEQUENCE), Function("more", (SEQUENCE,), SEQUENCE)
_monitor_of = Function("monitor_of", (COUNT, STATE), STATE)
_level: Final = level(N)
_OF_LEVEL: Final[Mapping[str, tuple[Function, Expr]]] = {
    "f": (sends, _level),
    "bare": (of, _level),
    "monitor": (_monitor_of, N),
}


def _bare_step(state: Expr) -> Expr:
    return execute(fetch(state), state)


def _virtual_step(state: Expr) -> Expr:
    return _said(theorem1.virtual_step(state), _OF_LEVEL)


def _there(length: Expr, state: Expr) -> Expr:
    return run(coded(_level, length), state)


def _after(length: Expr) -> Expr:
    """So many instructions on, the virtual machine is in the image of the bare machine's state."""
    here = run(length, S)
    image = equal(_there(length, sends(_level, S)), sends(_level, here))
    return forall([S], implies(of(_level, S), conj(of(_level, here), image)))


_LEVEL: Final = (
    # A sequence is the instructions that the machine fetches, so many; e' is the steps of the virtual machine.
    forall([S], equal(run(_empty, S), S)),
    forall([e, S], equal(run(_more(e), S), _bare_step(run(e, S)))),
    forall([N, S], equal(_there(_empty, S), S)),
    forall([N, e, S], equal(_there(_more(e), S), _virtual_step(_there(e, S)))),
    # Theorem 1 knows no clocks.
    forall([N, e, S], equal(later(_level, e, S), S)),
    forall([N], equal(closed(_level), forall([S], implies(of(_level, S), of(_level, _bare_step(S)))))),
)


def of_each_level(hypothesis: TheoremHypothesis, by: Proposition) -> Questions:
    """What is said of one step gives what is said of sequences; no question may have an answer."""
    given = [(f"meaning-{n}", part) for n, part in enumerate(_LEVEL)]
    begins = forall([N], _after(_empty))
    always = ("by-induction", forall([N], implies(closed(_level), forall([e], _after(e)))))
    goes_on = forall([N, e], implies(conj(closed(_level), _after(e)), _after(_more(e))))
    cited = ("cited", forall([N], _said(by.conclusion, _OF_LEVEL)))
    return [
        ("no instruction", [*given, ("does-not-follow", ~begins)]),
        (
            "any number",
            [*given, always, ("meaning", _word(commutes)), ("does-not-follow", ~hypothesis.formula)],
        ),
        ("one more", [cited, *given, ("does-not-follow", ~goes_on)]),
    ]


QUESTIONS: Final[Mapping[str, Callable[[TheoremHypothesis, Proposition], Questions]]] = {
    "each-level-is-virtualizable": of_each_level,
    "composition-commutes": of_compositions,
    "composition-is-one-to-one": of_compositions,
    "composition-is-timeless": of_compositions,
}
"""By hypothesis."""

__all__ = ["MEANS", "QUESTIONS", "Questions", "of", "sends"]
