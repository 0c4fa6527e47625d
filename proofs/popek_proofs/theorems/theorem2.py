"""Theorem 2: a machine is recursively virtualizable if it is virtualizable and a virtual machine monitor
without any timing dependencies can be built for it.

Popek and Goldberg 1974, recursive virtualization.  The outer control program runs on the hardware
and provides a virtual machine by the map `outer`; the inner control program runs in that virtual machine and
provides another by `inner`.  As in the paper a virtual machine map is one-one and a homomorphism: for each
sequence e of instructions there is a sequence e' with f(e(S)) = e'(f(S)); here e' is `inner_sequence(e)` or
`outer_sequence(e)`.

**Time.**  The paper excepts timing from equivalence, so f(e(S)) = e'(f(S)) can hold only up to time:
`but_time(S)` is everything of S except what a clock shows.  And a virtual machine runs e with other clock
readings than the bare machine would: `inner_delayed(e, S)` is S with those readings.  A sequence that does not
look at clocks does not notice; the inner control program is a guest of the outer one, so *it* must not
look.  That is the theorem's condition, here the hypothesis `inner-has-no-timing-dependency`; dropping it
gives a machine on which the composed map is no map.

**Depth.**  A map commutes up to time, is one-one up to time, and has no timing dependencies (`is_map`).
`composition-commutes`, `composition-is-one-to-one` and `composition-is-timeless` make the composition of two maps a
map, so that it has what an outer map must satisfy in its turn.
`nesting-base` and `nesting-step` are P(1) and "P(n) implies P(n + 1)", where P(n) says that n control
programs, each in the virtual machine of the one before, give a virtual machine map to the hardware; induction
on n does the rest.  What the words mean of a map is in `in_maps`.  `relocations-compose` shows it of the paper's
own map, with k + k' for k.  `depth-base` and `depth-step` show what the exception for resources costs: each level
takes two locations at least, so a machine of q locations nests at most q / 2 deep.
"""

from __future__ import annotations

from popek.solving.formula import (
    BOOL,
    STORAGE,
    Expr,
    Function,
    conj,
    constant,
    equal,
    exists,
    forall,
    implies,
    number,
    var,
)

from .proposition import Proposition, TheoremHypothesis
from .small_machine import SmallScope
from .storage import SCOPE, B, E, H, L, b, cut, integer, k, l, moved, naturals, q, w
from .vocabulary import STATE, S, T

SOURCE = "Popek and Goldberg 1974, Theorem 2"
SEQUENCE, MAP, COUNT = "Sequence", "Map", "Count"

run = Function("run", (SEQUENCE, STATE), STATE)
inner = Function("inner", (STATE,), STATE)
outer = Function("outer", (STATE,), STATE)
inner_sequence = Function("inner_sequence", (SEQUENCE,), SEQUENCE)
outer_sequence = Function("outer_sequence", (SEQUENCE,), SEQUENCE)
inner_delayed = Function("inner_delayed", (SEQUENCE, STATE), STATE)
outer_delayed = Function("outer_delayed", (SEQUENCE, STATE), STATE)
but_time = Function("but_time", (STATE,), "Timeless")
# C_r for each of the two maps: the states without the inner, and without the outer control program.
below_inner = Function("below_inner", (STATE,), BOOL)
below_outer = Function("below_outer", (STATE,), BOOL)
e = var("e", SEQUENCE)


def same_but_time(a: Expr, b: Expr) -> Expr:
    """They differ in what clocks show at most."""
    return equal(but_time(a), but_time(b))


def indifferent(sequence: Expr) -> Expr:
    """What every such sequence (of e) does is the same from states that differ in time only."""
    return forall([e, S, T], implies(same_but_time(S, T), same_but_time(run(sequence, S), run(sequence, T))))


INNER_STATES = TheoremHypothesis(
    "inner-runs-in-a-virtual-machine",
    "the inner map leads to states of the virtual machine that the outer control program provides",
    forall([S], implies(below_inner(S), below_outer(inner(S)))),
)
TIMELESS_MAP = TheoremHypothesis(
    "outer-map-ignores-time",
    "the outer map makes states that differ in time only into such states",
    forall([S, T], implies(same_but_time(S, T), same_but_time(outer(S), outer(T)))),
)

COMMUTES = Proposition(
    "theorem2.composition-commutes",
    "the composition of two virtual machine maps is a homomorphism, up to time",
    SOURCE,
    (
        TheoremHypothesis(
            "inner-is-a-homomorphism",
            "inner(e(S)) = e'(inner(S)), up to time, but with the clock readings of the virtual machine",
            forall(
                [e, S],
                implies(
                    below_inner(S),
                    same_but_time(inner(run(e, inner_delayed(e, S))), run(inner_sequence(e), inner(S))),
                ),
            ),
        ),
        TheoremHypothesis(
            "outer-is-a-homomorphism",
            "outer(e(S)) = e'(outer(S)), up to time, but with the clock readings of the virtual machine",
            forall(
                [e, S],
                implies(
                    below_outer(S),
                    same_but_time(outer(run(e, outer_delayed(e, S))), run(outer_sequence(e), outer(S))),
                ),
            ),
        ),
        TheoremHypothesis(
            "delay-is-in-time-only",
            "the outer virtual machine changes nothing but time",
            forall([e, S], same_but_time(outer_delayed(e, S), S)),
        ),
        TheoremHypothesis(
            "inner-has-no-timing-dependency",
            "the inner control program does not depend on timing: the condition of Theorem 2",
            indifferent(inner_sequence(e)),
        ),
        TIMELESS_MAP,
        INNER_STATES,
    ),
    conclusion=forall(
        [e, S],
        implies(
            below_inner(S),
            same_but_time(
                outer(inner(run(e, inner_delayed(e, S)))),
                run(outer_sequence(inner_sequence(e)), outer(inner(S))),
            ),
        ),
    ),
    occasion=exists(
        [e, S],
        conj(
            below_inner(S),
            ~same_but_time(run(e, S), S),
            ~equal(outer_delayed(inner_sequence(e), inner(S)), inner(S)),
        ),
    ),
    scope=SmallScope({SEQUENCE: 2}, most=4),
)

ONE_TO_ONE = Proposition(
    "theorem2.composition-is-one-to-one",
    "the composition of two virtual machine maps is one-one, up to time",
    SOURCE,
    (
        TheoremHypothesis(
            "inner-is-one-to-one",
            "guest states with the same image differ in time only",
            forall(
                [S, T],
                implies(
                    conj(below_inner(S), below_inner(T), same_but_time(inner(S), inner(T))),
                    same_but_time(S, T),
                ),
            ),
            by="theorem1.map-is-one-to-one",
        ),
        TheoremHypothesis(
            "outer-is-one-to-one",
            "states of the outer virtual machine with the same image differ in time only",
            forall(
                [S, T],
                implies(
                    conj(below_outer(S), below_outer(T), same_but_time(outer(S), outer(T))),
                    same_but_time(S, T),
                ),
            ),
            by="theorem1.map-is-one-to-one",
        ),
        INNER_STATES,
    ),
    conclusion=forall(
        [S, T],
        implies(
            conj(below_inner(S), below_inner(T), same_but_time(outer(inner(S)), outer(inner(T)))),
            same_but_time(S, T),
        ),
    ),
    occasion=exists([S, T], conj(below_inner(S), below_inner(T), ~same_but_time(S, T))),
)

TIMELESS = Proposition(
    "theorem2.composition-is-timeless",
    "the composition of two maps has no timing dependencies: what an outer map must satisfy, it satisfies",
    SOURCE,
    (
        TheoremHypothesis(
            "outer-has-no-timing-dependency",
            "the outer control program does not depend on timing",
            indifferent(outer_sequence(e)),
        ),
        TheoremHypothesis(
            "inner-map-ignores-time",
            "the inner map makes states that differ in time only into such states",
            forall([S, T], implies(same_but_time(S, T), same_but_time(inner(S), inner(T)))),
        ),
        TIMELESS_MAP,
    ),
    conclusion=conj(
        indifferent(outer_sequence(inner_sequence(e))),
        forall([S, T], implies(same_but_time(S, T), same_but_time(outer(inner(S)), outer(inner(T))))),
    ),
    occasion=exists(
        [e, S, T],
        conj(
            same_but_time(S, T),
            ~same_but_time(run(e, S), run(e, T)),
            ~same_but_time(run(outer_sequence(inner_sequence(e)), S), S),
        ),
    ),
    scope=SmallScope({SEQUENCE: 2}, most=4),
)

commutes = Function("commutes", (MAP,), BOOL)
one_to_one = Function("one_to_one", (MAP,), BOOL)
timeless = Function("timeless", (MAP,), BOOL)
closed = Function("closed", (MAP,), BOOL)
fits = Function("fits", (MAP, MAP), BOOL)
composed = Function("composed", (MAP, MAP), MAP)
nested = Function("nested", (COUNT,), MAP)
level = Function("level", (COUNT,), MAP)
one = constant("one", COUNT)
n = constant("n", COUNT)
successor = Function("successor", (COUNT,), COUNT)
F, G, N = var("F", MAP), var("G", MAP), var("N", COUNT)


def is_map(of: Expr) -> Expr:
    """It is a virtual machine map up to time, of a control program without timing dependencies."""
    return conj(commutes(of), one_to_one(of), timeless(of))


EACH_LEVEL = (
    TheoremHypothesis(
        "levels-are-closed",
        "no step leads out of the states that a level's map is of: none brings a control program",
        forall([N], closed(level(N))),
    ),
    TheoremHypothesis(
        "each-level-is-virtualizable",
        "the control program of each level provides a virtual machine",
        forall([N], implies(closed(level(N)), commutes(level(N)))),
        by="theorem1.step",
    ),
    TheoremHypothesis(
        "each-level-is-one-to-one",
        "and its map is one-one",
        forall([N], one_to_one(level(N))),
        by="theorem1.map-is-one-to-one",
    ),
    TheoremHypothesis(
        "no-level-depends-on-timing",
        "and it has no timing dependencies: the condition of Theorem 2",
        forall([N], timeless(level(N))),
    ),
)

NESTING_BASE = Proposition(
    "theorem2.nesting-base",
    "P(1): one control program gives a virtual machine map to the hardware",
    SOURCE,
    (
        *EACH_LEVEL,
        TheoremHypothesis(
            "first-level", "with one control program the map is its own", equal(nested(one), level(one))
        ),
    ),
    conclusion=is_map(nested(one)),
    occasion=is_map(level(one)),
    scope=SmallScope(growing=MAP, most=3),
)


def composing(name: str, statement: str, needs: Expr, result: Function, by: str) -> TheoremHypothesis:
    """Where the map G leads into what F is a map of, their composition is what they are."""
    return TheoremHypothesis(
        name, statement, forall([F, G], implies(conj(fits(F, G), needs), result(composed(F, G)))), by
    )


NESTING_STEP = Proposition(
    "theorem2.nesting-step",
    "P(n) implies P(n + 1): one control program more, in the innermost virtual machine, gives a map to the "
    "hardware",
    SOURCE,
    (
        TheoremHypothesis("induction-hypothesis", "P(n): n control programs give a map", is_map(nested(n))),
        *EACH_LEVEL,
        TheoremHypothesis(
            "next-level",
            "the map of n + 1 levels is that of n after that of the innermost",
            forall([N], equal(nested(successor(N)), composed(nested(N), level(successor(N))))),
        ),
        TheoremHypothesis(
            "next-level-fits",
            "the innermost map leads to states of the virtual machine that n control programs provide",
            forall([N], fits(nested(N), level(successor(N)))),
        ),
        composing(
            "composition-commutes",
            "the composition of two maps is a homomorphism up to time",
            conj(commutes(F), timeless(F), commutes(G), timeless(G)),
            commutes,
            "theorem2.composition-commutes",
        ),
        composing(
            "composition-is-one-to-one",
            "and one-one up to time",
            conj(one_to_one(F), one_to_one(G)),
            one_to_one,
            "theorem2.composition-is-one-to-one",
        ),
        composing(
            "composition-is-timeless",
            "and has no timing dependencies",
            conj(timeless(F), timeless(G)),
            timeless,
            "theorem2.composition-is-timeless",
        ),
    ),
    conclusion=is_map(nested(successor(n))),
    occasion=~equal(nested(successor(n)), nested(n)),
    scope=SmallScope(growing=MAP, most=3),
)

inner_k, inner_w = integer("k_inner"), integer("w_inner")
inner_base, inner_bound = integer("l_inner"), integer("b_inner")
inner_storage = constant("E_inner", STORAGE)

RELOCATIONS = Proposition(
    "theorem2.relocations-compose",
    "the paper's map after the paper's map is the paper's map, with the sum of the two displacements",
    SOURCE,
    (
        TheoremHypothesis(
            "inner-base-is-composed", "the inner control program gives l + k'", equal(inner_base, l + inner_k)
        ),
        TheoremHypothesis(
            "inner-bound-is-cut",
            "and cuts the bound to its guest's storage",
            equal(inner_bound, cut(b, l, inner_w)),
        ),
        TheoremHypothesis(
            "inner-storage-is-moved", "and moves storage by k'", moved(inner_storage, E, inner_k, inner_w)
        ),
        TheoremHypothesis("inner-storage-fits", "k' + w' <= w", inner_k + inner_w <= w),
        TheoremHypothesis(
            "outer-base-is-composed", "the outer control program adds k", equal(L, inner_base + k)
        ),
        TheoremHypothesis(
            "outer-bound-is-cut",
            "and cuts the bound to its guest's storage",
            equal(B, cut(inner_bound, inner_base, w)),
        ),
        TheoremHypothesis("outer-storage-is-moved", "and moves storage by k", moved(H, inner_storage, k, w)),
        TheoremHypothesis("outer-storage-fits", "k + w <= q", k + w <= q),
    ),
    conclusion=conj(
        equal(L, l + inner_k + k),
        equal(B, cut(b, l, inner_w)),
        moved(H, E, inner_k + k, inner_w),
        inner_k + k + inner_w <= q,
    ),
    occasion=conj(number(0) < inner_w, number(0) < k, number(0) < inner_k, number(0) < B, b > B),
    given=naturals(q, w, k, l, b, inner_k, inner_w),
    scope=SCOPE,
)

depth, size, next_size = integer("depth"), integer("w_depth"), integer("w_next")

DEPTH_BASE = Proposition(
    "theorem2.depth-base",
    "at depth 0, which is the bare machine, twice the depth and the storage are q at most",
    "Popek and Goldberg 1974, equivalence: resource bounds",
    (
        TheoremHypothesis("no-control-program", "the depth is 0", equal(depth, number(0))),
        TheoremHypothesis("all-storage", "the bare machine has q locations", equal(size, q)),
    ),
    conclusion=depth + depth + size <= q,
    occasion=number(0) < size,
    given=naturals(q, depth, size),
    scope=SCOPE,
)

DEPTH_STEP = Proposition(
    "theorem2.depth-step",
    "each level takes two locations at least: twice the depth and what is left of the storage stay q at most",
    "Popek and Goldberg 1974, equivalence: resource bounds",
    (
        TheoremHypothesis("induction-hypothesis", "it is so at this depth", depth + depth + size <= q),
        TheoremHypothesis(
            "machine-is-smaller",
            "the next virtual machine has two locations less at least",
            next_size + 2 <= size,
            by="theorem1.machine-is-smaller",
        ),
    ),
    conclusion=(depth + 1) + (depth + 1) + next_size <= q,
    occasion=number(0) < next_size,
    given=naturals(q, depth, size, next_size),
    scope=SCOPE,
)

PROPOSITIONS = (
    COMMUTES,
    ONE_TO_ONE,
    TIMELESS,
    NESTING_BASE,
    NESTING_STEP,
    RELOCATIONS,
    DEPTH_BASE,
    DEPTH_STEP,
)
