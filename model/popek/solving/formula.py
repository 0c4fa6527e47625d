"""Many-sorted first-order formulas with three readings.

1. As SMT-LIB text with uninterpreted sorts and quantifiers: the arbitrary machine (`script`).
2. As SMT-LIB text over finite sorts, quantifiers written out: the search for one small machine
   (`script` with `sizes`).
3. In plain Python, on the tables of one small machine: the check of what a solver found (`evaluate`).

A formula is built once, in the words of the paper; the readings cannot drift apart.  Sorts are named by
strings: `Bool`, `Int`, `Storage` (an array from Int to Word), and any others, which stay uninterpreted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import attrs

BOOL, INT, STORAGE, WORD = "Bool", "Int", "Storage", "Word"


@attrs.frozen(repr=False, order=False)
class Expr:
    """A term or formula.

    Attributes:
        op: what it is; see the functions of this module.
        sort: its sort.
        args: its parts; of a quantifier the bound variables, then the body.
        name: of a variable, a function or a literal.
    """

    op: str
    sort: str
    args: tuple[Expr, ...] = ()
    name: str = ""

    def __and__(self, other: Expr) -> Expr:
        return conj(self, other)

    def __or__(self, other: Expr) -> Expr:
        return disj(self, other)

    def __invert__(self) -> Expr:
        return Expr("not", BOOL, (_of(BOOL, self),))

    def __add__(self, other: Expr | int) -> Expr:
        return Expr("+", INT, (_of(INT, self), number(other)))

    def __sub__(self, other: Expr | int) -> Expr:
        return Expr("-", INT, (_of(INT, self), number(other)))

    def __lt__(self, other: Expr | int) -> Expr:
        return Expr("<", BOOL, (_of(INT, self), number(other)))

    def __le__(self, other: Expr | int) -> Expr:
        return Expr("<=", BOOL, (_of(INT, self), number(other)))

    def __repr__(self) -> str:
        return text(self)


def _of(sort: str, expr: Expr) -> Expr:
    if expr.sort != sort:
        raise TypeError(f"{expr!r} has sort {expr.sort}, not {sort}")
    return expr


@attrs.frozen
class Function:
    """An uninterpreted function symbol; a constant is one without arguments."""

    name: str
    domain: tuple[str, ...]
    codomain: str

    def __call__(self, *args: Expr) -> Expr:
        """The function applied."""
        if tuple(arg.sort for arg in args) != self.domain:
            raise TypeError(f"{self.name} takes {self.domain}, not {tuple(arg.sort for arg in args)}")
        return Expr("apply", self.codomain, args, self.name)


def constant(name: str, sort: str) -> Expr:
    """One thing of that sort, whichever."""
    return Expr("apply", sort, (), name)


def var(name: str, sort: str) -> Expr:
    """A variable for a quantifier to bind."""
    return Expr("var", sort, (), name)


def number(value: Expr | int) -> Expr:
    """An integer literal; a term of sort Int stays as it is."""
    return Expr("int", INT, (), str(value)) if isinstance(value, int) else _of(INT, value)


def element(value: int, sort: str) -> Expr:
    """An element of a finite sort, by its number; has a meaning only where the sort's size is given."""
    return Expr("element", sort, (), str(value))


def conj(*parts: Expr) -> Expr:
    """Every part holds."""
    return parts[0] if len(parts) == 1 else Expr("and", BOOL, tuple(_of(BOOL, p) for p in parts))


def disj(*parts: Expr) -> Expr:
    """Some part holds."""
    return parts[0] if len(parts) == 1 else Expr("or", BOOL, tuple(_of(BOOL, p) for p in parts))


def implies(premise: Expr, conclusion: Expr) -> Expr:
    """If the premise holds, so does the conclusion."""
    return Expr("=>", BOOL, (_of(BOOL, premise), _of(BOOL, conclusion)))


def equal(a: Expr, b: Expr) -> Expr:
    """Equality; of formulas, equivalence."""
    return Expr("=", BOOL, (a, _of(a.sort, b)))


def ite(condition: Expr, a: Expr, b: Expr) -> Expr:
    """`a` where the condition holds, else `b`."""
    return Expr("ite", a.sort, (_of(BOOL, condition), a, _of(a.sort, b)))


def select(storage: Expr, address: Expr | int) -> Expr:
    """E[address]."""
    return Expr("select", WORD, (_of(STORAGE, storage), number(address)))


def forall(variables: Sequence[Expr], body: Expr) -> Expr:
    """The body holds for all of them."""
    return Expr("forall", BOOL, (*variables, _of(BOOL, body)))


def exists(variables: Sequence[Expr], body: Expr) -> Expr:
    """The body holds for some of them."""
    return Expr("exists", BOOL, (*variables, _of(BOOL, body)))


def walk(exprs: Iterable[Expr]) -> Iterator[Expr]:
    """Every part of the expressions, users before parts."""
    stack = list(exprs)[::-1]
    while stack:
        expr = stack.pop()
        yield expr
        stack.extend(reversed(expr.args))


def functions_of(exprs: Iterable[Expr]) -> dict[str, Function]:
    """The function symbols of the expressions, by name, in order of appearance.

    Raises:
        TypeError: one name stands for two functions.
    """
    found: dict[str, Function] = {}
    for expr in walk(exprs):
        if expr.op == "apply":
            function = Function(expr.name, tuple(arg.sort for arg in expr.args), expr.sort)
            if found.setdefault(expr.name, function) != function:
                raise TypeError(f"{expr.name} is {found[expr.name]} and {function}")
    return found


# -- reading 1 and 2: SMT-LIB ------------------------------------------------------------------------

Sizes: TypeAlias = Mapping[str, int]


def _bits(size: int) -> int:
    return max(1, (size - 1).bit_length())


def _literal(value: int, sort: str, sizes: Sizes) -> str:
    if sort == BOOL:
        return "true" if value else "false"
    return str(value) if sort == INT else f"(_ bv{value} {_bits(sizes[sort])})"


def elements(sort: str, sizes: Sizes) -> range:
    """The elements of a finite sort, as numbers; of Int those below its size.

    Raises:
        TypeError: the sort is not finite.
    """
    if sort == BOOL:
        return range(2)
    if sort not in sizes:
        raise TypeError(f"no quantifier ranges over {sort}")
    return range(sizes[sort])


def text(expr: Expr, sizes: Sizes | None = None, bound: Mapping[str, str] | None = None) -> str:
    """The expression in SMT-LIB; with `sizes`, quantifiers are written out over finite sorts."""
    bound = bound or {}
    op, args = expr.op, expr.args
    if op == "var":
        return bound.get(expr.name, expr.name)
    if op == "int":
        return expr.name
    if op == "element":
        if sizes is None:
            raise TypeError(f"{expr.sort} has no elements to name: it may have any number")
        return _literal(int(expr.name), expr.sort, sizes)
    if op == "apply":
        return f"({expr.name} {' '.join(text(a, sizes, bound) for a in args)})" if args else expr.name
    if op in ("forall", "exists"):
        *variables, body = args
        if sizes is None:
            listed = " ".join(f"({v.name} {v.sort})" for v in variables)
            return f"({op} ({listed}) {text(body, sizes, bound)})"
        written = [text(body, sizes, {**bound, **names}) for names in _bindings(variables, sizes)]
        return f"({'and' if op == 'forall' else 'or'} {' '.join(written)})"
    return f"({op} {' '.join(text(a, sizes, bound) for a in args)})"


def _bindings(variables: Sequence[Expr], sizes: Sizes) -> Iterator[dict[str, str]]:
    for values in itertools.product(*(elements(v.sort, sizes) for v in variables)):
        yield {v.name: _literal(n, v.sort, sizes) for v, n in zip(variables, values, strict=True)}


_BUILT_IN = frozenset({BOOL, INT, STORAGE})


def script(title: str, assertions: Sequence[tuple[str, Expr]], sizes: Sizes | None = None) -> str:
    """The assertions as an SMT-LIB 2 script that ends in `(check-sat)`.

    Args:
        title: a comment.
        assertions: pairs of a name and a formula.
        sizes: elements of each sort; without it the sorts stay uninterpreted.
    """
    functions = functions_of(expr for _, expr in assertions)
    used = {s for f in functions.values() for s in (*f.domain, f.codomain)}
    used |= {expr.sort for _, a in assertions for expr in walk([a])}
    if STORAGE in used:
        used.add(WORD)
    lines = [f"; {line}" for line in title.splitlines()] + ["(set-logic ALL)"]
    for sort in sorted(used - _BUILT_IN):
        if sizes is None:
            lines.append(f"(declare-sort {sort} 0)")
        else:
            lines.append(f"(define-sort {sort} () (_ BitVec {_bits(sizes[sort])}))")
    if STORAGE in used:
        lines.append("(define-sort Storage () (Array Int Word))")
    for f in functions.values():
        lines.append(f"(declare-fun {f.name} ({' '.join(f.domain)}) {f.codomain})")
    for name, expr in assertions:
        lines.append(f"(assert (! {text(expr, sizes)} :named {name}))")
    return "\n".join([*lines, "(check-sat)", ""])


# -- reading 3: tables -------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Structure:
    """One small machine: sorts with so many elements, functions as tables.

    Attributes:
        sizes: elements of each sort.
        tables: by function and arguments, the value; a storage is a tuple of cells.
    """

    sizes: Sizes
    tables: Mapping[str, Mapping[tuple[int, ...], int | tuple[int, ...]]]

    def __call__(self, name: str, *args: int) -> int:
        """The value of a function that is not a storage."""
        value = self.tables[name][args]
        if isinstance(value, tuple):
            raise TypeError(f"{name} is a storage")
        return value


def evaluate(expr: Expr, structure: Structure) -> bool:
    """Whether a closed formula holds in a structure: quantifiers by trying every element."""
    return bool(_value(expr, structure, {}))


_Value: TypeAlias = "int | tuple[int, ...]"
_COMPUTE: Mapping[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
}


def _value(expr: Expr, structure: Structure, bound: dict[str, int]) -> _Value:
    op, args = expr.op, expr.args

    def number_of(part: Expr) -> int:
        value = _value(part, structure, bound)
        if isinstance(value, tuple):
            raise TypeError(f"{part!r} is a storage")
        return value

    match op:
        case "var":
            return bound[expr.name]
        case "int" | "element":
            return int(expr.name)
        case "apply":
            return structure.tables[expr.name][tuple(number_of(a) for a in args)]
        case "not":
            return 1 - number_of(args[0])
        case "and":
            return int(all(_value(a, structure, bound) for a in args))
        case "or":
            return int(any(_value(a, structure, bound) for a in args))
        case "=>":
            return int(not number_of(args[0]) or bool(number_of(args[1])))
        case "=":
            return int(_value(args[0], structure, bound) == _value(args[1], structure, bound))
        case "ite":
            return _value(args[1] if number_of(args[0]) else args[2], structure, bound)
        case "select":
            storage, address = _value(args[0], structure, bound), number_of(args[1])
            if not isinstance(storage, tuple) or not 0 <= address < len(storage):
                raise IndexError(f"{args[0]!r} has no location {address}")
            return storage[address]
        case "forall" | "exists":
            *variables, body = args
            ranges = [elements(v.sort, structure.sizes) for v in variables]
            names = [v.name for v in variables]
            truths = (
                _value(body, structure, {**bound, **dict(zip(names, values, strict=True))})
                for values in itertools.product(*ranges)
            )
            return int(all(truths) if op == "forall" else any(truths))
    return _COMPUTE[op](number_of(args[0]), number_of(args[1]))
