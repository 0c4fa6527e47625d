"""Symbolic terms: an immutable, shared graph of bit-vector operations.

A term is what a symbolic `Word` holds.  Terms know nothing of a solver: they are built, simplified
and substituted here, and translated for a solver in one place (`popek.solving.engine`).  Equal
terms are the same object, so "the two runs compute the same thing" is often seen without a solver.

Widths are in bits; conditions are terms of width 1.

One module, though long: every operation is simplified by the same rules, which have to see one another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Final
from weakref import KeyedRef
from zlib import crc32

# Operations, with the meaning SMT-LIB's QF_UFBV gives them:
#   const n | var name | apply f(args)     leaves and uninterpreted functions (memory contents)
#   add sub mul udiv urem and or xor not shl lshr ashr
#   eq ult ule slt sle                     width 1
#   ite c a b | concat a b … (high first) | extract hi lo | sext
COMMUTATIVE: Final = frozenset({"add", "mul", "and", "or", "xor", "eq"})


class Term:
    """One node.  Build with the functions of this module, never directly."""

    __slots__ = ("__weakref__", "_sum", "args", "data", "op", "order", "width")

    op: str
    width: int
    args: tuple[Term, ...]
    data: int | str | tuple[int, int] | None
    _sum: tuple[Mapping[Term, int], int] | None  # the term as a linear sum, once asked for
    order: int  # a structural digest: the same in every process, so queries are built in a fixed order

    def __repr__(self) -> str:
        return render(self)


Data = int | str | tuple[int, int] | None
# By what makes a term: a dictionary of our own, as WeakValueDictionary's methods take a twentieth of all time.
_interned: dict[tuple[object, ...], KeyedRef[tuple[object, ...], Term]] = {}


def _forget(gone: KeyedRef[tuple[object, ...], Term]) -> None:
    if _interned.get(gone.key) is gone:
        del _interned[gone.key]


@cache
def _digest(op: str, width: int) -> int:
    """Of a node without data: one of few hundred."""
    return crc32(f"{op} {width} None".encode())


def _node(op: str, width: int, args: tuple[Term, ...] = (), data: Data = None) -> Term:
    key = (op, width, data, args)
    known = _interned.get(key)
    if known is not None:
        found = known()
        if found is not None:
            return found
    term = Term.__new__(Term)
    term.op, term.width, term.args, term.data = op, width, args, data
    order = _digest(op, width) if data is None else crc32(f"{op} {width} {data}".encode())
    for arg in args:
        order = (order * 0x9E3779B97F4A7C15 + arg.order + 1) & 0xFFFFFFFFFFFFFFFF
    term.order = order
    term._sum = None
    _interned[key] = KeyedRef(term, _forget, key)
    return term


def alive() -> int:
    """How many terms there are in this process: what they take of its memory is in proportion."""
    return len(_interned)


def mask(width: int) -> int:
    """All ones in `width` bits."""
    return (1 << width) - 1


def const(width: int, value: int) -> Term:
    """The constant `value`, taken modulo 2**width."""
    return _node("const", width, (), value & mask(width))


def var(name: str, width: int) -> Term:
    """The variable `name`."""
    return _node("var", width, (), name)


# What the functions are that are no contents of a storage (`popek.kernel.opaque`), by name.
MEANINGS: Final[dict[str, Callable[..., Term]]] = {}


def apply(function: str, width: int, *args: Term) -> Term:
    """A function's value, `width` bits wide; the function is uninterpreted but for those of `MEANINGS`."""
    if function in MEANINGS and all(arg.op == "const" for arg in args):
        return MEANINGS[function](*args)
    return _node("apply", width, args, function)


ONE: Final = const(1, 1)
ZERO: Final = const(1, 0)


def value_of(term: Term) -> int | None:
    """The number a constant stands for, None for anything else."""
    return term.data if term.op == "const" else None  # type: ignore[return-value]


def linear(term: Term) -> tuple[Mapping[Term, int], int]:
    """A term as a sum: coefficients (not 0) by atom, and a constant, modulo 2**width."""
    if term._sum is None:
        if term.op == "const":
            term._sum = {}, term.data  # type: ignore[assignment]
        elif term.op in ("add", "sub"):
            a, b = linear(term.args[0]), linear(term.args[1])
            term._sum = _combine(a, b, 1 if term.op == "add" else -1, mask(term.width))
        elif term.op == "mul" and term.args[1].op == "const":
            term._sum = _combine(({}, 0), linear(term.args[0]), int(term.args[1].data), mask(term.width))  # type: ignore[arg-type]
        else:
            return {term: 1}, 0  # no cache: the term would keep itself alive
    return term._sum  # type: ignore[return-value]


def _combine(
    a: tuple[Mapping[Term, int], int], b: tuple[Mapping[Term, int], int], factor: int, ones: int
) -> tuple[Mapping[Term, int], int]:
    total = dict(a[0])
    for atom, count in b[0].items():
        new = (total.get(atom, 0) + factor * count) & ones
        if new:
            total[atom] = new
        else:
            total.pop(atom, None)
    return total, (a[1] + factor * b[1]) & ones


def _from_sum(width: int, parts: Mapping[Term, int], offset: int) -> Term:
    """The canonical term of a sum: atoms by digest, the added ones first, the constant last."""
    half = 1 << (width - 1)
    result: Term | None = None
    ordered = sorted(parts.items(), key=lambda item: (item[1] > half, item[0].order))
    for atom, count in ordered:
        negative = count > half
        size = (1 << width) - count if negative else count
        piece = atom if size == 1 else _node("mul", width, (atom, const(width, size)))
        if result is None:
            result = _node("sub", width, (const(width, 0), piece)) if negative else piece
        else:
            result = _node("sub" if negative else "add", width, (result, piece))
    if result is None:
        return const(width, offset)
    return result if offset == 0 else _node("add", width, (result, const(width, offset)))


def add(a: Term, b: Term) -> Term:
    """A + b, as a canonical sum."""
    return _from_sum(a.width, *_combine(linear(a), linear(b), 1, mask(a.width)))


def sub(a: Term, b: Term) -> Term:
    """A - b, as a canonical sum."""
    return _from_sum(a.width, *_combine(linear(a), linear(b), -1, mask(a.width)))


_ARITHMETIC: Final[Mapping[str, Callable[[int, int, int], int]]] = {
    "mul": lambda w, a, b: a * b,
    "udiv": lambda w, a, b: a // b if b else mask(w),
    "urem": lambda w, a, b: a % b if b else a,
    "and": lambda w, a, b: a & b,
    "or": lambda w, a, b: a | b,
    "xor": lambda w, a, b: a ^ b,
    "shl": lambda w, a, b: a << b if b < w else 0,
    "lshr": lambda w, a, b: a >> b if b < w else 0,
    "ashr": lambda w, a, b: signed(a, w) >> min(b, w - 1),
    "add": lambda w, a, b: a + b,
    "sub": lambda w, a, b: a - b,
}


def signed(value: int, width: int) -> int:
    """`value` read as two's complement."""
    return value - (1 << width) if value >> (width - 1) & 1 else value


def compute(op: str, width: int, a: int, b: int) -> int:
    """One arithmetic operation on numbers, modulo 2**width."""
    return _ARITHMETIC[op](width, a, b) & mask(width)


COMPARE: Final[Mapping[str, Callable[[int, int, int], bool]]] = {
    "eq": lambda w, a, b: a == b,
    "ult": lambda w, a, b: a < b,
    "ule": lambda w, a, b: a <= b,
    "slt": lambda w, a, b: signed(a, w) < signed(b, w),
    "sle": lambda w, a, b: signed(a, w) <= signed(b, w),
}


def arithmetic(op: str, a: Term, b: Term) -> Term:
    """A two-operand operation of `_ARITHMETIC`, simplified."""
    if op == "add":
        return add(a, b)
    if op == "sub":
        return sub(a, b)
    width = a.width
    left, right = value_of(a), value_of(b)
    if left is not None and right is not None:
        return const(width, compute(op, width, left, right))
    if op in COMMUTATIVE and left is not None:
        a, b, right = b, a, left
    if right is not None:
        if op in ("and", "mul") and right == 0:
            return b
        if (op == "and" and right == mask(width)) or (
            op in ("or", "xor", "shl", "lshr", "ashr") and right == 0
        ):
            return a
        if op == "or" and right == mask(width):
            return b
        if op == "xor" and right == mask(width):
            return invert(a)
        if op == "mul":
            return _from_sum(width, *_combine(({}, 0), linear(a), right, mask(width)))
        if op in ("shl", "lshr"):  # constant shifts become rewiring, which extract sees through
            if right >= width:
                return const(width, 0)
            if op == "shl":
                return concat(extract(a, width - 1 - right, 0), const(right, 0))
            return concat(const(right, 0), extract(a, width - 1, right))
    elif a is b:
        if op in ("and", "or"):
            return a
        if op == "xor":
            return const(width, 0)
    elif op in COMMUTATIVE and b.order < a.order:
        a, b = b, a
    if width == 1 and op in ("and", "or") and (_complements(a, b)):
        return ZERO if op == "and" else ONE
    return _node(op, width, (a, b))


def _complements(a: Term, b: Term) -> bool:
    return (a.op == "not" and a.args[0] is b) or (b.op == "not" and b.args[0] is a)


def invert(a: Term) -> Term:
    """Bitwise complement; on width 1, logical negation."""
    if a.op == "const":
        return const(a.width, ~a.data)  # type: ignore[operator]
    if a.op == "not":
        return a.args[0]
    return _node("not", a.width, (a,))


def compare(op: str, a: Term, b: Term) -> Term:
    """A comparison of `COMPARE`, width 1, simplified."""
    left, right = value_of(a), value_of(b)
    if left is not None and right is not None:
        return ONE if COMPARE[op](a.width, left, right) else ZERO
    if a is b:
        return ZERO if op in ("ult", "slt") else ONE
    if op == "eq":
        return _equal(a, b)
    if op == "ult":
        if right == 0:
            return ZERO
        if left == 0:
            return invert(_equal(b, a))
        if right == 1:
            return _equal(a, const(a.width, 0))
    elif op == "ule":
        if left == 0 or right == mask(a.width):
            return ONE
        if right == 0:
            return _equal(a, b)
    return _node(op, 1, (a, b))


def _equal(a: Term, b: Term) -> Term:
    if a.op == "const":
        a, b = b, a
    if b.op == "const":
        if a.width == 1:
            return a if b.data == 1 else invert(a)
        if a.op == "concat":  # compare part by part: each part is often a named field
            result, low = ONE, 0
            for part in reversed(a.args):
                piece = const(part.width, int(b.data) >> low)  # type: ignore[arg-type]
                result = arithmetic("and", compare("eq", part, piece), result)
                low += part.width
            return result
        if a.op == "ite" and a.args[1].op == a.args[2].op == "const":
            return ite(a.args[0], compare("eq", a.args[1], b), compare("eq", a.args[2], b))
    else:
        if a.op in _SUMS or b.op in _SUMS:
            parts, offset = _combine(linear(a), linear(b), -1, mask(a.width))
            if not parts:
                return ONE if offset == 0 else ZERO
            return _sum_is_zero(a.width, parts, offset)
        if "concat" in (a.op, b.op):
            return _equal_parts(a, b)
        if b.order < a.order:
            a, b = b, a
    if b.op == "const" and a.op in _SUMS:
        parts, offset = linear(a)
        return _sum_is_zero(a.width, parts, (offset - int(b.data)) & mask(a.width))  # type: ignore[arg-type]
    return _node("eq", 1, (a, b))


def _equal_parts(a: Term, b: Term) -> Term:
    """Equality with a concat: part by part, cut where both have a boundary, or where the one has."""
    cuts = [_boundaries(term) for term in (a, b) if term.op == "concat"]
    common = sorted(set.intersection(*cuts) if len(cuts) == 2 else cuts[0])
    if len(common) == 2:
        return _node("eq", 1, (a, b) if a.order <= b.order else (b, a))
    result = ONE
    for low, end in itertools.pairwise(common):
        piece = compare("eq", extract(a, end - 1, low), extract(b, end - 1, low))
        result = arithmetic("and", piece, result)
    return result


def _boundaries(a: Term) -> set[int]:
    """The bit positions at which the parts of a concat begin, and its width."""
    found = {0}
    for part in reversed(a.args):
        found.add(max(found) + part.width)
    return found


_SUMS: Final = frozenset({"add", "sub"})


def _sum_is_zero(width: int, parts: Mapping[Term, int], offset: int) -> Term:
    """The canonical equation: what is added on the left, what is subtracted on the right."""
    half, ones = 1 << (width - 1), mask(width)
    first = min(parts, key=lambda atom: atom.order)
    if parts[first] > half:  # of the two signs, the one that adds the first atom
        parts, offset = {atom: -count & ones for atom, count in parts.items()}, -offset & ones
    left = _from_sum(width, {a: c for a, c in parts.items() if c <= half}, 0)
    right = _from_sum(width, {a: -c & ones for a, c in parts.items() if c > half}, -offset & ones)
    if right.op != "const" and left.op not in _SUMS and right.op not in _SUMS and right.order < left.order:
        left, right = right, left
    return _node("eq", 1, (left, right))


def ite(condition: Term, a: Term, b: Term) -> Term:
    """`a` where the condition is 1, `b` where it is 0."""
    if condition.op == "const":
        return a if condition.data else b
    if a is b:
        return a
    if condition.op == "not":
        condition, a, b = condition.args[0], b, a
    if a.width == 1:
        if a.op == "const":
            return arithmetic("or", condition, b) if a.data else arithmetic("and", invert(condition), b)
        if b.op == "const":
            return arithmetic("or", invert(condition), a) if b.data else arithmetic("and", condition, a)
    if a.op == "ite" and a.args[0] is condition:
        a = a.args[1]
    if b.op == "ite" and b.args[0] is condition:
        b = b.args[2]
    if a is b:
        return a
    if a.op in _SUMS or b.op in _SUMS:  # what both sides add is added once, outside
        (parts_a, offset_a), (parts_b, offset_b) = linear(a), linear(b)
        shared = {atom: count for atom, count in parts_a.items() if parts_b.get(atom) == count}
        if shared:
            offset = offset_a if offset_a == offset_b else 0
            rest_a = _from_sum(a.width, *_combine((parts_a, offset_a), (shared, offset), -1, mask(a.width)))
            rest_b = _from_sum(a.width, *_combine((parts_b, offset_b), (shared, offset), -1, mask(a.width)))
            return add(ite(condition, rest_a, rest_b), _from_sum(a.width, shared, offset))
    return _node("ite", a.width, (condition, a, b))


def concat(*parts: Term) -> Term:
    """The parts side by side, the most significant first."""
    flat: list[Term] = []
    for part in parts:
        for piece in part.args if part.op == "concat" else (part,):
            if piece.width == 0:
                continue
            last = flat[-1] if flat else None
            merged = None if last is None else _join(last, piece)
            if merged is None:
                flat.append(piece)
            else:
                flat[-1] = merged
    if len(flat) == 1:
        return flat[0]
    return _node("concat", sum(p.width for p in flat), tuple(flat))


def _join(high: Term, low: Term) -> Term | None:
    """Two neighbours as one term, where they are two constants or adjoining bits of one term."""
    if high.op == low.op == "const":
        return const(high.width + low.width, int(high.data) << low.width | int(low.data))  # type: ignore[arg-type]
    if high.op == low.op == "extract" and high.args[0] is low.args[0]:
        (top, middle), (upper, bottom) = _bits(high), _bits(low)
        if middle == upper + 1:
            return extract(high.args[0], top, bottom)
    return None


def _bits(a: Term) -> tuple[int, int]:
    """The bits that an extract takes, high and low."""
    assert isinstance(a.data, tuple)
    return a.data


def extract(a: Term, high: int, low: int) -> Term:
    """Bits high:low, both included; width 0 when high = low - 1."""
    width = high - low + 1
    if width == a.width:
        return a
    if a.op in ("var", "apply") and width:
        return _node("extract", width, (a,), (high, low))
    if width == 0 or a.op == "const":
        return const(width, 0 if width == 0 else int(a.data) >> low)  # type: ignore[arg-type]
    if a.op == "extract":
        base = _bits(a)[1]
        return extract(a.args[0], high + base, low + base)
    if a.op == "concat":
        pieces, position = [], 0
        for part in reversed(a.args):
            after = position + part.width
            if after > low:
                pieces.append(
                    extract(part, min(high + 1, after) - 1 - position, max(low, position) - position)
                )
                if after > high:
                    break
            position = after
        return pieces[0] if len(pieces) == 1 else concat(*reversed(pieces))
    if a.op in ("and", "or", "xor"):
        return arithmetic(a.op, extract(a.args[0], high, low), extract(a.args[1], high, low))
    if a.op == "not":
        return invert(extract(a.args[0], high, low))
    if a.op == "ite":
        return ite(a.args[0], extract(a.args[1], high, low), extract(a.args[2], high, low))
    if a.op == "sext" and high < a.args[0].width:
        return extract(a.args[0], high, low)
    if a.op in ("add", "sub", "mul") and low == 0:  # low bits of a sum need only low bits
        return arithmetic(a.op, extract(a.args[0], high, 0), extract(a.args[1], high, 0))
    return _node("extract", width, (a,), (high, low))


def sign_extend(a: Term, width: int) -> Term:
    """`a` widened to `width` bits by copies of its top bit."""
    if a.op == "const":
        return const(width, signed(int(a.data), a.width))  # type: ignore[arg-type]
    return a if a.width == width else _node("sext", width, (a,))


def rebuild(term: Term, args: tuple[Term, ...]) -> Term:
    """The same operation on other arguments, simplified again."""
    op = term.op
    if op in COMPARE:
        return compare(op, *args)
    if op in _ARITHMETIC:
        return arithmetic(op, *args)
    match op:
        case "not":
            return invert(*args)
        case "ite":
            return ite(*args)
        case "concat":
            return concat(*args)
        case "extract":
            return extract(args[0], *term.data)  # type: ignore[misc]
        case "sext":
            return sign_extend(args[0], term.width)
        case "apply":
            return apply(str(term.data), term.width, *args)
    return term


def postorder(roots: Iterable[Term]) -> Iterator[Term]:
    """Every term below the roots once, arguments before users."""
    seen: set[int] = set()
    stack: list[tuple[Term, bool]] = [(root, False) for root in roots][::-1]
    while stack:
        term, ready = stack.pop()
        if ready:
            yield term
            continue
        if id(term) in seen:
            continue
        seen.add(id(term))
        stack.append((term, True))
        stack.extend((arg, False) for arg in term.args if id(arg) not in seen)


Functions = Mapping[str, Callable[..., Term]]


class Substitution:
    """Replaces variables, uninterpreted functions and terms; keeps its memo, so reuse one per mapping.

    `functions` maps a name to a callable on terms, which receives the substituted arguments; `known` maps
    whole terms to what they are equal to.
    """

    def __init__(
        self,
        variables: Mapping[str, Term] | None = None,
        functions: Functions | None = None,
        known: Mapping[Term, Term] | None = None,
    ) -> None:
        self._variables = variables or {}
        self._functions = functions or {}
        self._memo: dict[Term, Term] = dict(known or {})

    def __call__(self, term: Term) -> Term:
        """The term with every replacement made at once."""
        memo = self._memo
        found = memo.get(term)
        if found is not None:
            return found
        pending = [term]
        while pending:
            node = pending[-1]
            if node in memo:
                pending.pop()
                continue
            below = [arg for arg in node.args if arg not in memo]
            if below:
                pending += below
                continue
            memo[node] = self._replaced(node)
            pending.pop()
        return memo[term]

    def _replaced(self, node: Term) -> Term:
        """A node whose arguments are replaced already."""
        if node.op == "var":
            return self._variables.get(str(node.data), node)
        args = tuple(map(self._memo.__getitem__, node.args))
        if node.op == "apply" and node.data in self._functions:
            return self._functions[str(node.data)](*args)
        return node if args == node.args else rebuild(node, args)


def conjuncts(condition: Term) -> Iterator[Term]:
    """The parts of a conjunction (width 1), left to right; a condition that is none is its own part."""
    pending = [condition]
    while pending:
        term = pending.pop()
        if term.op == "and":
            pending += reversed(term.args)
        else:
            yield term


def literals(conditions: Iterable[Term]) -> dict[Term, Term]:
    """What follows at once from conditions (width 1) that hold: the parts of an and, of a denied or."""
    found: dict[Term, Term] = {}
    pending = [(condition, True) for condition in conditions]
    while pending:
        term, holds = pending.pop()
        if term.op == "const" or term in found:
            continue
        found[term] = ONE if holds else ZERO
        negation = invert(term)
        if negation not in found:
            pending.append((negation, not holds))
        if term.op == ("and" if holds else "or"):
            pending += [(arg, holds) for arg in term.args]
    return found


def variables_of(roots: Iterable[Term]) -> dict[str, Term]:
    """The variables below the roots, by name."""
    return {str(t.data): t for t in postorder(roots) if t.op == "var"}


def bits_of(roots: Iterable[Term]) -> dict[str, int]:
    """Per variable that occurs in the roots, the bits that occur, as a mask."""
    found: dict[str, int] = {}

    def seen(term: Term, bits: int) -> None:
        if term.op == "var":
            found[str(term.data)] = found.get(str(term.data), 0) | bits

    given = list(roots)
    for root in given:
        seen(root, mask(root.width))
    for term in postorder(given):
        for arg in term.args:
            high, low = _bits(term) if term.op == "extract" else (arg.width - 1, 0)
            seen(arg, mask(high + 1) ^ mask(low))
    return found


def applications_of(roots: Iterable[Term]) -> list[Term]:
    """The function applications below the roots, inner ones first."""
    return [t for t in postorder(roots) if t.op == "apply"]


_SYMBOLS: Final = {
    "add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "shl": "<<", "lshr": ">>",
    "ashr": ">>s", "eq": "=", "ult": "<", "ule": "<=", "slt": "<s", "sle": "<=s", "udiv": "/", "urem": "%",
}  # fmt: skip


def render(term: Term, depth: int = 12) -> str:
    """The term as a reader of a manual would write it; deep parts are abbreviated."""
    if term.op == "const":
        number = int(term.data)  # type: ignore[arg-type]
        return str(number) if number < 10 else f"{number:#x}"
    if term.op == "var":
        return str(term.data)
    if depth == 0:
        return "…"
    inner = [render(arg, depth - 1) for arg in term.args]
    match term.op:
        case "not":
            return f"~{inner[0]}"
        case "ite":
            return f"({inner[0]} ? {inner[1]} : {inner[2]})"
        case "concat":
            return "{" + ", ".join(inner) + "}"
        case "extract":
            high, low = _bits(term)
            return f"{inner[0]}[{high}]" if high == low else f"{inner[0]}[{high}:{low}]"
        case "sext":
            return f"sext({inner[0]})"
        case "apply":
            return f"{term.data}({', '.join(inner)})"
    return f"({inner[0]} {_SYMBOLS[term.op]} {inner[1]})"
