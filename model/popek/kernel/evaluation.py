"""The numbers that terms stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from .terms import COMPARE, MEANINGS, Term, apply, compute, const, mask, signed, value_of


class Evaluation:
    """Terms under one assignment; keeps what it has worked out, so reuse one per assignment.

    Args:
        unknown: what a variable, or a function at these numbers, is (taken modulo 2**width).
        known: terms with their numbers; it becomes the memo.
    """

    def __init__(
        self, unknown: Callable[[Term, Sequence[int]], int], known: Mapping[Term, int] | None = None
    ) -> None:
        self._unknown = unknown
        self._numbers: dict[Term, int] = dict(known or {})

    def __call__(self, root: Term) -> int:
        """The number of a term; only the branch of an `ite` that is taken is looked at."""
        numbers = self._numbers
        pending = [root]
        while pending:
            term = pending[-1]
            if term in numbers:
                pending.pop()
                continue
            needed = term.args
            if term.op == "ite":
                condition = numbers.get(needed[0])
                needed = needed[:1] if condition is None else needed[1:2] if condition else needed[2:]
            below = [arg for arg in needed if arg not in numbers]
            if below:
                pending += below
                continue
            numbers[term] = self._number(term, [numbers[arg] for arg in needed])
            pending.pop()
        return numbers[root]

    def _number(self, term: Term, args: Sequence[int]) -> int:
        op = term.op
        if op == "ite":
            return args[0]
        if op in COMPARE:
            return int(COMPARE[op](term.args[0].width, *args))
        match op:
            case "const":
                number = value_of(term)
                assert number is not None
                return number
            case "apply" if term.data in MEANINGS:
                value = apply(
                    str(term.data),
                    term.width,
                    *(const(a.width, n) for a, n in zip(term.args, args, strict=True)),
                )
                assert isinstance(value.data, int)
                return value.data
            case "var" | "apply":
                return self._unknown(term, args) & mask(term.width)
            case "not":
                return args[0] ^ mask(term.width)
            case "concat":
                total = 0
                for part, number in zip(term.args, args, strict=True):
                    total = total << part.width | number
                return total
            case "extract":
                assert isinstance(term.data, tuple)
                return args[0] >> term.data[1] & mask(term.width)
            case "sext":
                return signed(args[0], term.args[0].width) & mask(term.width)
        return compute(op, term.width, *args)


def evaluate(
    roots: Iterable[Term],
    variables: Mapping[str, int],
    functions: Mapping[str, Callable[..., int]] | None = None,
) -> list[int]:
    """The numbers the roots stand for; a variable that is needed and not given raises KeyError."""

    def unknown(term: Term, args: Sequence[int]) -> int:
        return (functions or {})[str(term.data)](*args) if term.op == "apply" else variables[str(term.data)]

    return list(map(Evaluation(unknown), roots))


__all__ = ["Evaluation", "evaluate"]
