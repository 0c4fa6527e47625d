"""Terms as Python expressions on integers; what is needed twice is computed once, where it is first needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .terms import MEANINGS, Term, apply, compute, const, mask

_COMPARISONS: Final = {"eq": "==", "ult": "<", "ule": "<="}
_SIGNED: Final = {"slt": "<", "sle": "<="}
_SUMS: Final = {"add": "+", "sub": "-", "mul": "*"}
_BITWISE: Final = {"and": "&", "or": "|", "xor": "^"}
_COMPUTED: Final = frozenset({"udiv", "urem", "shl", "ashr"})
_DEEPEST: Final = 24  # parentheses in one expression; Python takes 200


class Uses:
    """How often each term stands below others, or as a root."""

    def __init__(self, roots: Iterable[Term] = ()) -> None:
        self._counts: Counter[Term] = Counter()
        self.add(roots)

    def add(self, roots: Iterable[Term]) -> None:
        """Count what stands in further terms."""
        pending = list(roots)
        while pending:
            term = pending.pop()
            self._counts[term] += 1
            if self._counts[term] == 1:
                pending += term.args

    def shared(self, term: Term) -> bool:
        """Whether it is worth a name."""
        return self._counts[term] > 1


class NamesInScope:
    """The names that are known at one place of the text.

    Args:
        variables: an expression for every variable.
        memories: for every named contents, an expression for a function from an address and 0 to a cell.
    """

    def __init__(self, variables: Mapping[str, str], memories: Mapping[str, str]) -> None:
        self._variables, self._memories = variables, memories
        self._uses = Uses()
        self._names: dict[Term, str] = {}
        self._count = [0]  # of names, in all scopes

    def used(self, uses: Uses) -> NamesInScope:
        """The same scope, where it is known what is needed twice."""
        found = self.inner()
        found._uses = uses
        return found

    def inner(self) -> NamesInScope:
        """A scope inside this one: what is named there is not known here."""
        found = NamesInScope(self._variables, self._memories)
        found._uses, found._names, found._count = self._uses, dict(self._names), self._count
        return found

    @staticmethod
    def helpers() -> dict[str, Any]:
        """What the expressions call."""
        return {"compute": compute, "meaning": meaning}

    def condition(self, term: Term, lines: list[str], indent: int) -> str:
        """A term of width 1 as a condition."""
        if term.op == "not":
            return f"not {self._text(term.args[0], lines, indent)}"
        return self._text(term, lines, indent)

    def number(self, term: Term, lines: list[str], indent: int) -> str:
        """A term as an integer, and no truth value."""
        text = self._text(term, lines, indent)
        return f"+({text})" if term.width == 1 and term.op not in ("const", "var", "extract") else text

    def _text(self, root: Term, lines: list[str], indent: int) -> str:
        """The expression of a term; lines that name what it needs are put before it."""
        texts: dict[Term, tuple[str, int]] = {}  # with the depth of parentheses
        pending = [root]
        while pending:
            term = pending[-1]
            if term in texts:
                pending.pop()
                continue
            if term in self._names:
                texts[term] = self._names[term], 0
                continue
            below = [arg for arg in term.args if arg not in texts]
            if below:
                pending += below
                continue
            pending.pop()
            text = self._written(term, [texts[arg][0] for arg in term.args])
            depth = 1 + max((texts[arg][1] for arg in term.args), default=-1)
            if term.op != "const" and (depth > _DEEPEST or (self._uses.shared(term) and term is not root)):
                self._count[0] += 1
                name = self._names[term] = f"t{self._count[0]}"
                lines.append(f"{' ' * indent}{name} = {text}")
                text, depth = name, 0
            texts[term] = text, depth
        return self._named(root, texts[root][0], lines, indent)

    def _named(self, root: Term, text: str, lines: list[str], indent: int) -> str:
        if root.op == "const" or root in self._names or not self._uses.shared(root):
            return text
        self._count[0] += 1
        name = self._names[root] = f"t{self._count[0]}"
        lines.append(f"{' ' * indent}{name} = {text}")
        return name

    def _written(self, term: Term, args: list[str]) -> str:
        op, width = term.op, term.width
        ones = mask(width)
        if op == "const":
            return str(term.data)
        if op == "var":
            return self._variables[str(term.data)]
        if op in _COMPARISONS:
            return f"({args[0]} {_COMPARISONS[op]} {args[1]})"
        if op in _SIGNED:
            sign = 1 << term.args[0].width - 1
            return f"(({args[0]} ^ {sign}) {_SIGNED[op]} ({args[1]} ^ {sign}))"
        if op in _BITWISE:
            shown = op if width == 1 and op != "xor" else _BITWISE[op]
            return f"({args[0]} {shown} {args[1]})"
        if op in _SUMS:
            return f"({args[0]} {_SUMS[op]} {args[1]} & {ones})"
        if op == "not":
            return f"(not {args[0]})" if width == 1 else f"({args[0]} ^ {ones})"
        if op == "ite":
            return f"({args[1]} if {args[0]} else {args[2]})"
        if op == "extract":
            assert isinstance(term.data, tuple)
            return self._bits(args[0], term.args[0].width, *term.data)
        if op == "concat":
            return self._side_by_side(term, args)
        if op == "sext":
            sign = 1 << term.args[0].width - 1
            return f"(({args[0]} ^ {sign}) - {sign} & {ones})"
        if op == "lshr":
            return f"({args[0]} >> {args[1]})"
        if op in _COMPUTED:
            return f"compute({op!r}, {width}, {args[0]}, {args[1]})"
        assert op == "apply"
        if term.data in MEANINGS:
            sizes = ", ".join(str(arg.width) for arg in term.args)
            return f"meaning({term.data!r}, {width}, ({sizes},), ({', '.join(args)},))"
        return f"{self._memories[str(term.data)]}({args[0]}, 0)"

    @staticmethod
    def _bits(text: str, width: int, high: int, low: int) -> str:
        shifted = f"{text} >> {low}" if low else text
        return f"({shifted})" if high == width - 1 else f"({shifted} & {mask(high - low + 1)})"

    @staticmethod
    def _side_by_side(term: Term, args: list[str]) -> str:
        parts, shift = [], 0
        for part, text in zip(reversed(term.args), reversed(args), strict=True):
            if part.op != "const" or part.data:
                parts.append(f"{text} << {shift}" if shift else text)
            shift += part.width
        if len(parts) > 1 or "<<" in parts[0]:
            return f"({' | '.join(parts)})"
        return parts[0] if term.args[-1].width > 1 else f"(+{parts[0]})"  # no truth value


def meaning(function: str, width: int, sizes: tuple[int, ...], numbers: tuple[int, ...]) -> int:
    """What a function that is told to solvers only as far as needed is, on numbers."""
    found = apply(
        function, width, *(const(size, number) for size, number in zip(sizes, numbers, strict=True))
    )
    assert isinstance(found.data, int)
    return found.data


__all__ = ["NamesInScope", "Uses", "meaning"]
