"""Where a mutant can be made: Cosmic Ray's operators that make mistakes an engineer makes, and our own.

An operator that would only ever crash (another type of operator, another exception) is left out; so is a place whose
change nothing can see: annotations, `__all__`, `if TYPE_CHECKING`, an `assert`, a message.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

from .semantic_operators import OWN

_THEIRS: Final = re.compile(
    r"ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Lt_GtE|GtE_Lt|Gt_LtE|LtE_Gt)"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add|BitAnd_BitOr|BitOr_BitAnd|BitXor_BitOr|LShift_RShift|RShift_LShift)"
    r"|ReplaceUnaryOperator_Delete_(Not|Invert)|ReplaceTrueWithFalse|ReplaceFalseWithTrue"
    r"|ReplaceAndWithOr|ReplaceOrWithAnd|AddNot|NumberReplacer"
)
_PROVIDER: Final = OperatorProvider()
OPERATORS: Final[dict[str, Any]] = {
    **{name: _PROVIDER[name]() for name in _PROVIDER if _THEIRS.fullmatch(name)},
    **{operator.__name__: operator() for operator in OWN},
}


@attrs.frozen
class Mutant:
    """A mistake in a file: which operator, its how-manyth place there, and the line it is on."""

    path: str
    operator: str
    occurrence: int
    line: int

    @property
    def name(self) -> str:
        """For logs and lists."""
        return f"{self.path}:{self.line} {self.operator}#{self.occurrence}"

    def code(self, root: Path) -> str:
        """The file with the mistake in it."""
        found = mutate_code((root / self.path).read_text("utf-8"), OPERATORS[self.operator], self.occurrence)
        if found is None:
            raise ValueError(f"{self.name}: there is no such place")
        return found


def _unseen(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The lines (first, last) in which a change cannot be seen, or is no mistake in meaning."""
    found = []
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.expr | ast.stmt | None] = []
        if isinstance(node, ast.FunctionDef):
            parts = [
                node.returns,
                *node.decorator_list,
                *(a.annotation for a in node.args.args + node.args.kwonlyargs),
            ]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif _plain(node):
            parts = [node]
        found += [
            ((part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0))
            for part in parts
            if part
        ]
    return found


def _plain(node: ast.AST) -> bool:
    """Whether it says nothing about meaning."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "__all__"
    return isinstance(node, ast.Assert | ast.Import | ast.ImportFrom)


def mutants(root: Path, path: str) -> Iterator[Mutant]:
    """Every mutant of a file that still compiles and is another program."""
    source = (root / path).read_text("utf-8")
    unseen = _unseen(source)
    tree = get_ast(source)
    for name, operator in OPERATORS.items():
        places = [place for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(places):
            if not any(first <= start and end <= last for first, last in unseen):
                yield Mutant(path, name, occurrence, start[0])


def sample(root: Path, paths: Sequence[str], count: int, draw: random.Random) -> list[Mutant]:
    """So many mutants, each kind of operator as likely as any other, no line twice."""
    by_operator: dict[str, list[Mutant]] = {}
    for path in sorted(paths):
        for mutant in mutants(root, path):
            by_operator.setdefault(mutant.operator.partition("_")[0], []).append(mutant)
    chosen: list[Mutant] = []
    lines: set[tuple[str, int]] = set()
    while by_operator and len(chosen) < count:
        kind = draw.choice(sorted(by_operator))
        mutant = by_operator[kind].pop(draw.randrange(len(by_operator[kind])))
        if not by_operator[kind]:
            del by_operator[kind]
        if (mutant.path, mutant.line) in lines:
            continue
        try:
            changed = ast.dump(ast.parse(mutant.code(root)))
        except SyntaxError:
            continue
        if changed != ast.dump(ast.parse((root / mutant.path).read_text("utf-8"))):
            lines.add((mutant.path, mutant.line))
            chosen.append(mutant)
    return chosen
