"""A premise read over words: the ways in which it can fail, each of which is asked.

The negation of a premise is taken apart as its text is (`premise_texts`): the hypotheses hold, and the conclusion
fails.  Which hypotheses there are is said by the text alone; a `Meaning` says what its symbols are of one machine,
technique and instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import attrs

from popek.kernel import terms
from popek.kernel.terms import Term
from popek.kernel.words import TRUE, Word
from popek.solving.formula import Expr

from .premise_texts import TEXTS, is_read

Values = Mapping[str, Any]
"""By the name of a variable what it stands for: a symbolic state, or how a run has ended."""


@attrs.frozen(eq=False)
class WayToFail:
    """A way in which a premise can fail: words for it, and conditions that must hold together.

    Attributes:
        how: in words.
        given: terms of width 1.
        also: a further condition (width 1).
        hardware: whether the run on the hardware is part of it.
        states: further symbolic states.
        silent: if it is possible, nothing is known.
        parts: where the whole is too large a question: conditions (each of width 1) in the place of `also`; where none
            of them is possible, it is not.
    """

    how: str
    given: tuple[Term, ...]
    also: Word
    hardware: bool = True
    states: tuple[Any, ...] = ()
    silent: bool = False
    parts: Callable[[], Iterable[Word]] | None = None

    @property
    def conditions(self) -> list[Word]:
        """All of it (each of width 1)."""
        return [*(Word(1, term) for term in self.given), self.also]


@attrs.frozen(eq=False)
class Holds:
    """A way in which a hypothesis holds.

    Attributes:
        given: terms of width 1.
        also: a further condition (width 1).
        values: of the variables that it determines.
        fails: where it is part of a conclusion and this is how it fails: in words.
    """

    given: tuple[Term, ...] = ()
    also: Word = TRUE
    values: Values = attrs.field(factory=dict)
    fails: str = ""


class Meaning(Protocol):
    """What the symbols of premises are."""

    def values(self, variables: tuple[Expr, ...], body: Expr) -> Values | None:
        """Of the variables that a premise speaks of all of; None where there is nothing to speak of.

        Those that a hypothesis determines, such as where a run ends, come with it.
        """

    def holds(self, atom: Expr, values: Values) -> Iterator[Holds]:
        """The ways in which a hypothesis holds."""

    def ends(self, atom: Expr, values: Values) -> Iterator[Holds]:
        """The ways in which what is said to be there is or is not: how a run ends."""

    def fails(self, atom: Expr, values: Values) -> Iterator[WayToFail]:
        """The ways in which a conclusion fails."""


def ways(name: str, meaning: Meaning) -> list[WayToFail]:
    """The ways in which a premise can fail, by part of its conclusion, and those of few conditions first.

    Args:
        name: of a premise that is read over words.
    """
    text = TEXTS[name]
    assert is_read(name), name
    formula = TEXTS[text.of].formula if text.formula is None else text.formula
    assert formula is not None
    found = sorted(_fails(formula, {}, meaning), key=lambda one: (one[0], len(set(one[1].given))))
    return [way for _, way in found]


def _fails(expr: Expr, values: Values, meaning: Meaning) -> Iterator[tuple[int, WayToFail]]:
    """The ways in which something fails, with the place of its part of the conclusion."""
    if expr.op == "forall":
        *variables, body = expr.args
        chosen = meaning.values(tuple(variables), body)
        if chosen is not None:
            yield from _fails(body, {**values, **chosen}, meaning)
    elif expr.op == "=>":
        hypothesis, conclusion = expr.args
        for held in meaning.holds(hypothesis, values):
            for place, way in _fails(conclusion, {**values, **held.values}, meaning):
                yield from _within(held, place, way)
    elif expr.op == "and":
        for number, part in enumerate(expr.args):
            for _, way in _fails(part, values, meaning):
                yield number, way
    elif expr.op == "exists":
        # What a run ends in is one thing: what is said of it fails, or there is none.
        body = expr.args[-1]
        first, *rest = body.args if body.op == "and" else (body,)
        for end in meaning.ends(first, values):
            if end.fails:
                yield len(rest), WayToFail(end.fails, end.given, end.also)
                continue
            for number, part in enumerate(rest):
                for _, way in _fails(part, {**values, **end.values}, meaning):
                    yield from _within(end, number, way)
    else:
        for way in meaning.fails(expr, values):
            yield 0, way


def _within(held: Holds, place: int, way: WayToFail) -> Iterator[tuple[int, WayToFail]]:
    """The same under conditions; nothing where they exclude one another."""
    known = set(held.given)
    if not any(terms.invert(term) in known for term in way.given):
        given = tuple(dict.fromkeys((*held.given, *way.given)))
        yield place, attrs.evolve(way, given=given, also=held.also & way.also)


__all__ = ["Holds", "Meaning", "Values", "WayToFail", "ways"]
