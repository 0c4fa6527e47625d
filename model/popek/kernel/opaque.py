"""Arithmetic that a solver is told of only as far as it needs.

That two products are equal because their factors are takes a solver of bit-vectors long, if the factors were
found in storage in different ways.  So a product of symbols is a function of its operands, of which a solver knows
that equal operands give equal results; what the function is it is told where that does not do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from . import terms
from .words import Word, concat


def opaque(width: int, *operands: int) -> Callable[[Callable[..., Word]], Callable[..., Word]]:
    """Declare the decorated function of words, which must not branch, to be arithmetic of this kind.

    Args:
        width: bits of the result.
        operands: bits of each operand.

    >>> @opaque(16, 8, 8)
    ... def square_sum(a: Word, b: Word) -> Word:
    ...     return a.zero_extend(16) * a.zero_extend(16) + b.zero_extend(16)
    >>> square_sum(Word(8, 3), Word(8, 1))
    Word(16, 0xa)
    """

    def decorate(define: Callable[..., Word]) -> Callable[..., Word]:
        name = f"{define.__module__}.{define.__qualname__}".removeprefix("popek.").replace(".<locals>", "")

        def meaning(joined: terms.Term) -> terms.Term:
            rest, found = Word(joined.width, joined), []
            low = rest.width
            for size in operands:
                low -= size
                found.append(rest[low + size - 1 : low])
            return define(*found).term

        @functools.wraps(define)
        def told(*words: Word) -> Word:
            if all(word.concrete for word in words):
                return define(*words)
            return Word(width, terms.apply(name, width, concat(*words).term))

        terms.MEANINGS[name] = meaning
        return told

    return decorate


__all__ = ["opaque"]
