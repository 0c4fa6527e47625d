"""Theorem 2: a machine is recursively virtualizable if it is virtualizable and a virtual machine monitor
without any timing dependencies can be built for it.

Popek and Goldberg 1974, recursive virtualization.  The outer control program runs on the hardware
and provides a virtual machine by the map `outer`; the inner control program runs in that virtual machine and
provides another by `inner`.  As in the paper a virtual machine map is one-one and a homomorphism: for each
sequence e of instructions there is a sequence e' with f(e(S)) = e'(f(S)); here e' is `inner_sequence(e)` or
`outer_sequence(e)`.

**Time.**  The paper excepts timing from equivalence, so f(e(S)) = e'(f(S)) can hold only up to time:
`but_time(S)` is everything of S except what a clock shows.  And a virtual machine runs e with other clock
readings than the bare machine would: `delayed(e, S)` is S with those readings.  A sequence that does not
look at clocks does not notice; the inner control program is a guest of the outer one, so *it* must not
look.  That is the theorem's condition, here the hypothesis `inner-has-no-timing-dependency`; dropping it
gives a machine on which the composed map is no map.

**Depth.**  `composition-commutes` and `composition-is-one-to-one` make the composition of two maps a map.
`nesting-base` and `nesting-step` are P(1) and "P(n) implies P(n + 1)", where P(n) says that n control
programs, each in the virtual machine of the one before, give a virtual machine map to the hardware; induction
on n does the rest.  `relocations-compose` shows it of the paper's own map, with k + k' for k.  `depth-base`
and `depth-step` show what the exception for resources costs: each level takes two locations at least, so a
machine of q locations nests at most q / 2 deep.
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
delayed = Function("delayed", (SEQUENCE, STATE), STATE)
but_time = Function("but_time", (STATE,), "Timeless")
# C_r for each of the two maps: the states without the inner, and without the outer control program.
below_inner = Function("below_inner", (STATE,), BOOL)
below_outer = Function("below_outer", (STATE,), BOOL)
e = var("e", SEQUENCE)


def same_but_time(a: Expr, b: Expr) -> Expr:
    """They differ in what clocks show at most."""
    return equal(but_time(a), but_time(b))


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
            "inner(e(S)) = e'(inner(S)), up to time",
            forall(
                [e, S],
                implies(below_inner(S), same_but_time(inner(run(e, S)), run(inner_sequence(e), inner(S)))),
            ),
        ),
        TheoremHypothesis(
            "outer-is-a-homomorphism",
            "outer(e(S)) = e'(outer(S)), up to time, but with the clock readings of the virtual machine",
            forall(
                [e, S],
                implies(
                    below_outer(S),
                    same_but_time(outer(run(e, delayed(e, S))), run(outer_sequence(e), outer(S))),
                ),
            ),
        ),
        TheoremHypothesis(
            "delay-is-in-time-only",
            "a virtual machine changes nothing but time",
            forall([e, S], same_but_time(delayed(e, S), S)),
        ),
        TheoremHypothesis(
            "inner-has-no-timing-dependency",
            "the inner control program does not depend on timing: the condition of Theorem 2",
            forall(
                [e, S, T],
                implies(
                    same_but_time(S, T), same_but_time(run(inner_sequence(e), S), run(inner_sequence(e), T))
                ),
            ),
        ),
        TIMELESS_MAP,
        INNER_STATES,
    ),
    conclusion=forall(
        [e, S],
        implies(
            below_inner(S),
            same_but_time(outer(inner(run(e, S))), run(outer_sequence(inner_sequence(e)), outer(inner(S)))),
        ),
    ),
    occasion=exists(
        [e, S],
        conj(
            below_inner(S),
            ~same_but_time(run(e, S), S),
            ~equal(delayed(inner_sequence(e), inner(S)), inner(S)),
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

is_map = Function("is_map", (MAP,), BOOL)
composed = Function("composed", (MAP, MAP), MAP)
nested = Function("nested", (COUNT,), MAP)
level = Function("level", (COUNT,), MAP)
one = constant("one", COUNT)
n = constant("n", COUNT)
successor = Function("successor", (COUNT,), COUNT)
F, G, N = var("F", MAP), var("G", MAP), var("N", COUNT)

EACH_LEVEL = TheoremHypothesis(
    "each-level-is-virtualizable",
    "a control program without timing dependencies provides a virtual machine on each level",
    forall([N], is_map(level(N))),
    by="theorem1.step",
)

NESTING_BASE = Proposition(
    "theorem2.nesting-base",
    "P(1): one control program gives a virtual machine map to the hardware",
    SOURCE,
    (
        EACH_LEVEL,
        TheoremHypothesis(
            "first-level", "with one control program the map is its own", equal(nested(one), level(one))
        ),
    ),
    conclusion=is_map(nested(one)),
    occasion=is_map(level(one)),
    scope=SmallScope(growing=MAP, most=3),
)

NESTING_STEP = Proposition(
    "theorem2.nesting-step",
    "P(n) implies P(n + 1): one control program more, in the innermost virtual machine, gives a map to the "
    "hardware",
    SOURCE,
    (
        TheoremHypothesis("induction-hypothesis", "P(n): n control programs give a map", is_map(nested(n))),
        EACH_LEVEL,
        TheoremHypothesis(
            "next-level",
            "the map of n + 1 levels is that of n after that of the innermost",
            forall([N], equal(nested(successor(N)), composed(nested(N), level(successor(N))))),
        ),
        TheoremHypothesis(
            "composition-is-a-map",
            "the composition of two virtual machine maps is one",
            forall([F, G], implies(conj(is_map(F), is_map(G)), is_map(composed(F, G)))),
            by="theorem2.composition-commutes",
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

PROPOSITIONS = (COMMUTES, ONE_TO_ONE, NESTING_BASE, NESTING_STEP, RELOCATIONS, DEPTH_BASE, DEPTH_STEP)
