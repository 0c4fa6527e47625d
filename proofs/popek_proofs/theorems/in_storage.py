"""What the words of states mean in storage, mode and relocation: so that a proposition about the one gives one about
the other.

The propositions of `storage` speak of E, l, b and their images; those of `vocabulary` of states, of which what can be
reached, what is outside and what is kept are functions.  A state has a storage and a relocation, and the words are
defined by them; what a proposition says of E and E' is then said of the storages of S and f(S).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from popek.solving.formula import (
    BOOL,
    INT,
    STORAGE,
    Expr,
    Function,
    conj,
    disj,
    equal,
    exists,
    forall,
    implies,
    number,
    select,
)

from . import in_maps, storage
from .theorem2 import (
    F,
    N,
    below_inner,
    below_outer,
    inner,
    level,
    next_size,
    one_to_one,
    outer,
    same_but_time,
    size,
)
from .vocabulary import STATE, S, T, bare, base, bound, f, kept, new, pc, psw, rest, same, user, window

_storage = Function("storage_of", (STATE,), STORAGE)
_l, _b = Function("l_of", (STATE,), INT), Function("b_of", (STATE,), INT)
_noted_user = Function("noted_user", (STATE,), BOOL)
_noted_l, _noted_b = Function("noted_l_of", (STATE,), INT), Function("noted_b_of", (STATE,), INT)


def _words(state: Expr, image: Expr, second: bool) -> dict[str, Expr]:
    """What the constants of a proposition about storage are, of a state and its image."""
    after, number_ = ("_2", "2") if second else ("", "1")
    return {
        f"E{after}": _storage(state),
        f"E{after}_mapped": _storage(image),
        f"l{after}": _l(state),
        f"b{after}": _b(state),
        f"l{after}_mapped": _l(image),
        f"b{after}_mapped": _b(image),
        f"pc_{number_}": pc(state),
        f"pc_{number_}_mapped": pc(image),
        f"user_{number_}": user(state),
        f"noted_user_{number_}": _noted_user(image),
        f"noted_l{after}": _noted_l(image),
        f"noted_b{after}": _noted_b(image),
    }


def _said(expr: Expr, words: Mapping[str, Expr]) -> Expr:
    """The same with those constants replaced."""
    if expr.op == "apply" and not expr.args:
        return words.get(expr.name, expr)
    return attrs.evolve(expr, args=tuple(_said(arg, words) for arg in expr.args))


def _if(condition: Expr, there: Expr, result: Expr) -> Expr:
    """Where `there` and a condition of all a, or j, hold, so does the result; with the quantifier outside."""
    conditions = condition.args if condition.op == "and" else (condition,)
    variables: list[Expr] = []
    parts: list[Expr] = [there]
    for one in conditions:
        if one.op == "forall":
            *bound_ones, one = one.args
            variables += bound_ones
        parts.append(one)
    told = implies(conj(*parts), result)
    return exists(list(dict.fromkeys(variables)), told) if variables else told


@attrs.frozen
class MeaningInStorage:
    """How a proposition about storage is one about states.

    Attributes:
        words: what its constants are, of states.
        of: the variables of which it is said.
        there: what is assumed of them.
        definitions: what the words of the hypothesis mean.
    """

    words: Mapping[str, Expr]
    of: tuple[Expr, ...] = ()
    there: Expr | None = None
    definitions: tuple[Expr, ...] = ()

    def said(self, conclusion: Expr) -> Expr:
        """What is cited, of any states."""
        told = _said(conclusion, self.words)
        told = told if self.there is None else implies(self.there, told)
        return forall(self.of, told) if self.of else told


_ONE: Final = _words(S, f(S), second=False)
_TWO: Final = {**_ONE, **_words(T, f(T), second=True)}
_BOTH: Final = conj(bare(S), bare(T))
_REACH: Final = _said(storage.KEEPS_REFERENCES.conclusion, _ONE)
_FRAME: Final = _said(storage.FRAMES_REST.conclusion, _TWO)
_control_and_rest: Final = conj(
    *(
        _said(one.formula, _TWO)
        for one in storage.FRAMES_REST.hypotheses
        if one.name in ("control-program-is-the-same", "rest-is-the-same")
    )
)
_alike: Final = conj(_BOTH, same(S, T, user, base, bound, rest))
_out_of_reach: Final = forall(
    [storage.a],
    implies(
        conj(number(0) <= storage.a, ~disj(storage.q <= storage.a + _l(f(S)), _b(f(S)) <= storage.a)),
        ~equal(storage.a + _l(f(S)), number(1)),
    ),
)
_alike_at_one: Final = equal(select(_storage(f(S)), 1), select(_storage(T), 1))


def _one_to_one(
    image: Callable[[Expr], Expr],
    there: Callable[[Expr], Expr],
    alike: Callable[..., Expr],
    result: Callable[..., Expr],
    *of: Expr,
) -> MeaningInStorage:
    """E[0] aside, what is kept and P are all of an image; and E, M, P and R are all of a state."""
    words = {**_words(S, image(S), second=False), **_words(T, image(T), second=True)}
    images, guests = (_said(part, words) for part in storage.ONE_TO_ONE.conclusion.args)
    those = conj(there(S), there(T))
    return MeaningInStorage(
        words,
        (*of, S, T),
        those,
        (
            forall([*of, S, T], implies(conj(those, alike(image(S), image(T))), images)),
            forall([*of, S, T], _if(guests, those, result(S, T))),
        ),
    )


def _of_each_level() -> MeaningInStorage:
    """The same of the map of each level, which is one-one up to time."""
    found = _one_to_one(
        lambda state: in_maps.sends(level(N), state),
        lambda state: in_maps.of(level(N), state),
        same_but_time,
        same_but_time,
        N,
    )
    word = forall([F], equal(one_to_one(F), in_maps.MEANS[one_to_one](F)))
    return attrs.evolve(found, definitions=(*found.definitions, word))


# By hypothesis.
MEANING: Final[Mapping[str, MeaningInStorage]] = {
    # What is seen through R, and how much of it, is what references that do not memory-trap find; P' is P.
    "map-keeps-the-window": MeaningInStorage(
        _ONE,
        (S,),
        bare(S),
        (
            forall([S], _if(_REACH, bare(S), same(S, f(S), window, bound))),
            forall([S], implies(bare(S), equal(pc(S), pc(f(S))))),
        ),
    ),
    # The rest is what is outside the bounds; what the control program keeps depends on the virtual M and R at most.
    "map-frames-the-rest": MeaningInStorage(
        _TWO,
        (S, T),
        conj(_BOTH, _control_and_rest),
        (
            forall([S, T], implies(_alike, _control_and_rest)),
            forall([S, T], _if(_FRAME, _alike, equal(rest(f(S)), rest(f(T))))),
        ),
    ),
    "map-is-one-to-one": _one_to_one(f, bare, lambda a, b: same(a, b, psw, kept), equal),
    "inner-is-one-to-one": _one_to_one(inner, below_inner, same_but_time, same_but_time),
    "outer-is-one-to-one": _one_to_one(outer, below_outer, same_but_time, same_but_time),
    "each-level-is-one-to-one": _of_each_level(),
    # States with one R and one rest have the same in a location that is not in reach; E[1] is the next PSW.
    "vector-outside-the-window": MeaningInStorage(
        _ONE,
        (S,),
        bare(S),
        (
            forall(
                [S, T],
                _if(_out_of_reach, conj(bare(S), same(f(S), T, base, bound, rest)), _alike_at_one),
            ),
            forall([S, T], implies(_alike_at_one, equal(new(f(S)), new(T)))),
        ),
    ),
    # The hardware of the next level is the virtual machine of this one.
    "machine-is-smaller": MeaningInStorage({"w": next_size, "q": size}),
}
"""Whoever reads a definition here reads what the paper says of the word."""

__all__ = ["MEANING", "MeaningInStorage"]
