"""Storage under the virtual machine map: locations, bounds, and references that fall outside.

The paper's machine has q locations.  A reference a under R = (l, b) memory-traps if a + l >= q or a >= b, and
otherwise reaches E[a + l].  The virtual machine has w locations of its own; the control program has the first
k of the hardware's, and whatever is above k + w.  The map f moves location j to k + j and R = (l, b) to
(l + k, b').

With b' = b the map is right only where l + b <= w: otherwise a reference that the bare machine of w locations
would trap reaches storage behind the virtual machine.  Here the control program cuts the bound to what is
left of the guest's storage; dropping the cut gives the counterexample.

These propositions are what `theorem1` needs to know of f, for every q, w, k, l and b: `map-keeps-references`
says that S and f(S) look alike, `map-frames-the-rest` that what is outside the bounds corresponds,
`control-program-out-of-reach` and `allocator-keeps-apart` that no reference leaves the virtual machine,
`map-commutes-with-stores` that f and a store can change places, and `map-is-one-to-one` that no guest state
is lost.  The last two are about the paper's exception "resource bounds": a virtual machine is smaller than
the real one (`machine-is-smaller`), and a smaller machine differs in nothing but memory traps on references
behind its end (`smaller-machine`).
"""

from __future__ import annotations

from popek.solving.formula import (
    BOOL,
    INT,
    STORAGE,
    WORD,
    Expr,
    conj,
    constant,
    disj,
    equal,
    exists,
    forall,
    implies,
    ite,
    number,
    select,
    var,
)

from .proposition import Proposition, TheoremHypothesis
from .small_machine import SmallScope

SOURCE = "Popek and Goldberg 1974, virtual machine map"
SCOPE = SmallScope({WORD: 2}, limit=4)


def integer(name: str) -> Expr:
    """A natural number, whichever: see `naturals`."""
    return constant(name, INT)


q, w, k = integer("q"), integer("w"), integer("k")
l, b = integer("l"), integer("b")  # noqa: E741 - the paper's letters
L, B = integer("l_mapped"), integer("b_mapped")
E, H = constant("E", STORAGE), constant("E_mapped", STORAGE)
a, j = var("a", INT), var("j", INT)


def naturals(*numbers: Expr) -> tuple[tuple[str, Expr], ...]:
    """They are not negative."""
    return tuple((f"natural-{n.name}", number(0) <= n) for n in numbers)


def outside(reference: Expr, base: Expr, bound: Expr, size: Expr) -> Expr:
    """The reference memory-traps: a + l >= q or a >= b."""
    return disj(size <= reference + base, bound <= reference)


def cut(bound: Expr, base: Expr, size: Expr) -> Expr:
    """The bound, or what is left of the storage above the base where that is less."""
    left = size - base
    return ite(size <= base, number(0), ite(left < bound, left, bound))


def at_each(variable: Expr, size: Expr, body: Expr) -> Expr:
    """The body holds for each location below `size`."""
    return forall([variable], implies(conj(number(0) <= variable, variable < size), body))


def moved(image: Expr, storage: Expr, by: Expr, size: Expr) -> Expr:
    """E'[k + j] = E[j] for each location j of the guest."""
    return at_each(j, size, equal(select(image, by + j), select(storage, j)))


def moved_back(image: Expr, storage: Expr, by: Expr, size: Expr) -> Expr:
    """The same, by the location in the hardware's storage: E'[j] = E[j - k]."""
    there = conj(by <= j, j < by + size)
    return forall([j], implies(there, equal(select(image, j), select(storage, j - by))))


FITS = TheoremHypothesis(
    "storage-fits", "the control program and the virtual machine fit: k + w <= q", k + w <= q
)
FIRST_TWO = TheoremHypothesis(
    "vector-is-owned", "locations 0 and 1 are the control program's: k >= 2", number(2) <= k
)
BASE = TheoremHypothesis("base-is-composed", "l' = l + k", equal(L, l + k))
CUT = TheoremHypothesis(
    "bound-is-cut",
    "b' is b, or what is left of the guest's storage where that is less",
    equal(B, cut(b, l, w)),
)
MOVED = TheoremHypothesis("storage-is-moved", "E'[k + j] = E[j] for j < w", moved(H, E, k, w))

KEEPS_REFERENCES = Proposition(
    "theorem1.map-keeps-references",
    "a reference memory-traps in f(S) if and only if it does in S, and otherwise finds the same contents",
    SOURCE,
    (FITS, BASE, CUT, MOVED),
    conclusion=forall(
        [a],
        implies(
            number(0) <= a,
            conj(
                equal(outside(a, L, B, q), outside(a, l, b, w)),
                disj(outside(a, l, b, w), equal(select(H, a + L), select(E, a + l))),
            ),
        ),
    ),
    occasion=conj(number(0) < w, number(0) < b, l < w, ~equal(select(E, l), select(H, l))),
    given=naturals(q, w, k, l, b),
    scope=SCOPE,
)

E2, H2 = constant("E_2", STORAGE), constant("E_2_mapped", STORAGE)


def inside(location: Expr, base: Expr, bound: Expr) -> Expr:
    """The location lies inside the bounds."""
    return conj(base <= location, location < base + bound)


FRAMES_REST = Proposition(
    "theorem1.map-frames-the-rest",
    "what is outside the bounds of f(S) is decided by what is outside those of S, and by R",
    SOURCE,
    (
        BASE,
        CUT,
        TheoremHypothesis("storage-is-moved", "E'[j] = E[j - k] for k <= j < k + w", moved_back(H, E, k, w)),
        TheoremHypothesis(
            "other-storage-is-moved", "E2'[j] = E2[j - k] for k <= j < k + w", moved_back(H2, E2, k, w)
        ),
        TheoremHypothesis(
            "control-program-is-the-same",
            "the control program's storage depends on the virtual M and R at most",
            at_each(j, q, disj(inside(j, k, w), equal(select(H, j), select(H2, j)))),
        ),
        TheoremHypothesis(
            "rest-is-the-same",
            "the two guest states agree outside their bounds",
            at_each(j, w, disj(inside(j, l, b), equal(select(E, j), select(E2, j)))),
        ),
    ),
    conclusion=at_each(j, q, disj(inside(j, L, B), equal(select(H, j), select(H2, j)))),
    occasion=conj(l < w, number(0) < b, ~equal(select(E, l), select(E2, l)), number(0) < k, k + w <= q),
    given=naturals(q, w, k, l, b),
    scope=SCOPE,
)

OUT_OF_REACH = Proposition(
    "theorem1.control-program-out-of-reach",
    "a reference that does not memory-trap in f(S) reaches the virtual machine's storage, and so neither "
    "the control program's nor E[0] and E[1]",
    "Popek and Goldberg 1974, resource control",
    (BASE, CUT, FIRST_TWO),
    conclusion=forall(
        [a],
        implies(conj(number(0) <= a, ~outside(a, L, B, q)), conj(inside(a + L, k, w), number(2) <= a + L)),
    ),
    occasion=~outside(number(0), L, B, q),
    given=naturals(q, w, k, l, b),
    scope=SCOPE,
)

w2, k2 = integer("w_2"), integer("k_2")
l2, b2, L2, B2 = integer("l_2"), integer("b_2"), integer("l_2_mapped"), integer("b_2_mapped")
a2 = var("a_2", INT)

KEEPS_APART = Proposition(
    "theorem1.allocator-keeps-apart",
    "whatever R two virtual machines ask for, no reference of one reaches a location that a reference of "
    "the other reaches",
    "Popek and Goldberg 1974, allocator and resource control",
    (
        BASE,
        CUT,
        TheoremHypothesis("other-base-is-composed", "l2' = l2 + k2", equal(L2, l2 + k2)),
        TheoremHypothesis(
            "storage-is-given-once",
            "the second machine's storage begins behind the first's: k + w <= k2",
            k + w <= k2,
        ),
    ),
    conclusion=forall(
        [a, a2],
        implies(
            conj(number(0) <= a, number(0) <= a2, ~outside(a, L, B, q), ~outside(a2, L2, B2, q)),
            ~equal(a + L, a2 + L2),
        ),
    ),
    occasion=conj(~outside(number(0), L, B, q), ~outside(number(0), L2, B2, q)),
    given=naturals(q, w, k, l, b, k2, l2, B2),
    scope=SCOPE,
)

x = constant("x", WORD)
reference = integer("reference")
E_after, H_after = constant("E_after", STORAGE), constant("E_after_mapped", STORAGE)


def stored(after: Expr, before: Expr, location: Expr, size: Expr) -> Expr:
    """`after` is `before` with x in that location."""
    return at_each(j, size, equal(select(after, j), ite(equal(j, location), x, select(before, j))))


COMMUTES_WITH_STORES = Proposition(
    "theorem1.map-commutes-with-stores",
    "a store through R and the map can change places: storing through R' in f(S) gives f of S after the "
    "store, and leaves the control program's storage alone",
    SOURCE,
    (
        FITS,
        BASE,
        MOVED,
        TheoremHypothesis(
            "reference-in-bounds", "the reference does not memory-trap", ~outside(reference, l, b, w)
        ),
        TheoremHypothesis(
            "bare-machine-stores",
            "the bare machine stores x in E[a + l]",
            stored(E_after, E, reference + l, w),
        ),
        TheoremHypothesis(
            "hardware-stores", "the hardware stores x in E'[a + l']", stored(H_after, H, reference + L, q)
        ),
    ),
    conclusion=conj(
        moved(H_after, E_after, k, w),
        at_each(j, q, disj(inside(j, k, w), equal(select(H_after, j), select(H, j)))),
    ),
    occasion=conj(number(0) < k, ~equal(select(E, reference + l), x)),
    given=naturals(q, w, k, l, b, reference),
    scope=SCOPE,
)

user_1, user_2 = constant("user_1", BOOL), constant("user_2", BOOL)
noted_user_1, noted_user_2 = constant("noted_user_1", BOOL), constant("noted_user_2", BOOL)
pc_1, pc_2 = constant("pc_1", "Location"), constant("pc_2", "Location")
mapped_pc_1, mapped_pc_2 = constant("pc_1_mapped", "Location"), constant("pc_2_mapped", "Location")
noted_l, noted_b = integer("noted_l"), integer("noted_b")
noted_l2, noted_b2 = integer("noted_l_2"), integer("noted_b_2")

ONE_TO_ONE = Proposition(
    "theorem1.map-is-one-to-one",
    "guest states with the same image, E[0] left aside, are the same",
    SOURCE,
    (
        FITS,
        FIRST_TWO,
        MOVED,
        TheoremHypothesis("other-storage-is-moved", "E2'[k + j] = E2[j] for j < w", moved(H2, E2, k, w)),
        TheoremHypothesis(
            "program-counter-is-kept", "P' = P", conj(equal(mapped_pc_1, pc_1), equal(mapped_pc_2, pc_2))
        ),
        TheoremHypothesis(
            "mode-is-noted",
            "the control program notes the virtual M, which M' = u does not show",
            conj(equal(noted_user_1, user_1), equal(noted_user_2, user_2)),
        ),
        TheoremHypothesis(
            "relocation-is-noted",
            "the control program notes the virtual R, of which a cut bound shows a part",
            conj(equal(noted_l, l), equal(noted_b, b), equal(noted_l2, l2), equal(noted_b2, b2)),
        ),
    ),
    conclusion=implies(
        conj(
            forall(
                [j],
                implies(conj(number(1) <= j, j < q), equal(select(H, j), select(H2, j))),
            ),
            equal(mapped_pc_1, mapped_pc_2),
            equal(noted_user_1, noted_user_2),
            equal(noted_l, noted_l2),
            equal(noted_b, noted_b2),
        ),
        conj(
            at_each(j, w, equal(select(E, j), select(E2, j))),
            equal(pc_1, pc_2),
            equal(user_1, user_2),
            equal(l, l2),
            equal(b, b2),
        ),
    ),
    occasion=conj(number(0) < w, ~equal(l, l2), ~equal(user_1, user_2)),
    given=naturals(q, w, k, l, b, l2, b2),
    scope=SCOPE,
)

SMALLER_MACHINE = Proposition(
    "theorem1.smaller-machine",
    "a machine of w locations differs from one of q only in that it memory-traps on references behind its "
    "end",
    "Popek and Goldberg 1974, equivalence: resource bounds",
    (TheoremHypothesis("no-larger", "w <= q", w <= q),),
    conclusion=forall(
        [a],
        implies(
            number(0) <= a,
            conj(
                implies(~outside(a, l, b, w), ~outside(a, l, b, q)),
                implies(conj(outside(a, l, b, w), ~outside(a, l, b, q)), w <= a + l),
            ),
        ),
    ),
    occasion=exists([a], conj(number(0) <= a, outside(a, l, b, w), ~outside(a, l, b, q))),
    given=naturals(q, w, l, b),
    scope=SCOPE,
)

MACHINE_IS_SMALLER = Proposition(
    "theorem1.machine-is-smaller",
    "a virtual machine has at least two locations less than the real one",
    "Popek and Goldberg 1974, equivalence: resource bounds",
    (FITS, FIRST_TWO),
    conclusion=w + 2 <= q,
    occasion=number(0) < w,
    given=naturals(q, w, k),
    scope=SCOPE,
)

PROPOSITIONS = (
    KEEPS_REFERENCES,
    FRAMES_REST,
    OUT_OF_REACH,
    KEEPS_APART,
    COMMUTES_WITH_STORES,
    ONE_TO_ONE,
    SMALLER_MACHINE,
    MACHINE_IS_SMALLER,
)
