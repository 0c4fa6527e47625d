"""Every small mistake in a module's expressions, one at a time in this process: a number, a comparison, a connective.

For rules that are registered when their module is run and that numbers alone judge, this tries every mistake in the
time in which a test run tries one. `mistakes` lists what can be changed in a statement; who calls it runs the result.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping

import attrs

_COMPARISONS: Mapping[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE,),
    ast.LtE: (ast.Lt, ast.Eq),
    ast.Gt: (ast.GtE,),
    ast.GtE: (ast.Gt, ast.Eq),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_CONNECTIVES: Mapping[type[ast.operator], type[ast.operator]] = {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
_WORDS: Mapping[str, str] = {
    "on": "off",
    "off": "on",
    "either": "both",
    "both": "either",
    "any": "all",
    "all": "any",
}
_TWINS: Mapping[str, str] = {"canonical": "extended", "extended": "canonical"}


@attrs.frozen
class Mistake:
    """A statement with one thing wrong; `literal` where that is a number."""

    line: int
    was: str
    becomes: str
    literal: bool
    statement: ast.stmt

    @property
    def where(self) -> str:
        """The name that the statement defines, or the first text that it passes on."""
        node = self.statement
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            return node.name
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name):
            return target.id
        texts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str))
        return next(texts, "")

    def __str__(self) -> str:
        """For people."""
        return f"{self.where} (line {self.line}): {self.was} -> {self.becomes}"


def _ceiling(value: int) -> int:
    """The width of the word that a mask is of."""
    return next(width for width in (16, 32, 64, 128) if value.bit_length() <= width)


def _numbers(value: int, bits: bool) -> list[int]:
    """The neighbours of a number; of a mask also each bit changed."""
    near = [value + 1, value - 1] if value > 0 else [value + 1]
    if bits and value > 0xFF:
        near += [value ^ 1 << bit for bit in range(min(value.bit_length() + 1, _ceiling(value)))]
    return [one for one in dict.fromkeys(near) if one != value]


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """What may stand for a node, and whether it is a number that changes."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        for number in _numbers(node.value, bits=True):
            yield ast.Constant(number), True
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in _COMPARISONS.get(type(operator), ()):
                changed = copy.deepcopy(node)
                changed.ops[index] = other()
                yield changed, False
    elif isinstance(node, ast.BinOp) and type(node.op) in _CONNECTIVES:
        changed_ = copy.copy(node)
        changed_.op = _CONNECTIVES[type(node.op)]()
        yield changed_, False
    elif isinstance(node, ast.BoolOp):
        whole = copy.copy(node)
        whole.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield whole, False
        for index in range(len(node.values)):
            rest = [value for place, value in enumerate(node.values) if place != index]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest), False
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
        yield node.operand, False
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        for words in (_WORDS, _TWINS):
            if node.func.id in words:
                changed__ = copy.copy(node)
                changed__.func = ast.Name(words[node.func.id], ast.Load())
                yield changed__, False
    elif isinstance(node, ast.Tuple) and node.elts and isinstance(node.ctx, ast.Load):
        for index in range(len(node.elts)):
            if not isinstance(node.elts[index], (ast.Constant, ast.Tuple, ast.Starred)):
                yield (
                    ast.Tuple([one for place, one in enumerate(node.elts) if place != index], ast.Load()),
                    False,
                )


def _nodes(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str, int | None]]:
    """Each expression below a statement with its place: parent, field and index; no text, no annotation."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, one in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(one, ast.AST) or isinstance(one, ast.JoinedStr) or _is_text(one):
                continue
            yield one, tree, field, index
            yield from _nodes(one)


def _is_text(node: ast.AST) -> bool:
    """Whether it makes text, `"...".format(...)`."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"


def mistakes(statement: ast.stmt) -> Iterator[Mistake]:
    """Every mistake in a statement; the statement is as before after each step."""
    for node, parent, field, index in list(_nodes(statement)):
        for changed, literal in _changes(node):
            ast.copy_location(changed, node)
            _put(parent, field, index, changed)
            ast.fix_missing_locations(statement)
            yield Mistake(node.lineno, ast.unparse(node), ast.unparse(changed), literal, statement)  # type: ignore[attr-defined]
            _put(parent, field, index, node)


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node
