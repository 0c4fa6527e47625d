"""Reading exported questions back: SMT-LIB 2 text of bit-vectors and uninterpreted functions as a shared graph.

This is no part of what wrote the text: a certificate is for the question that stands in the file.  `Mirror` makes the
same graph of terms, so that it is seen whether the text is theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from popek.kernel.terms import Term

from .engine import Engine, QuestionKind, Session

BOOL: Final = 0  # the sort of a condition; any other sort is the width of a bit-vector


class QuantifiedError(ValueError):
    """The text has more than bit-vectors and functions over them; the message says what."""


@attrs.frozen(eq=False, repr=False)
class Node:
    """A term of a script; equal terms of one graph are one object.

    Attributes:
        op: SMT-LIB's name; `const`, `var` and `apply` for a numeral, a constant and an application.
        sort: `BOOL` or a width in bits.
        data: the number, the name, or the indices of an indexed operator.
        place: in the order in which the graph's nodes were made.
    """

    op: str
    sort: int
    args: tuple[Node, ...] = ()
    data: Any = None
    place: int = 0


_TOKEN: Final = re.compile(r"""\(|\)|\|[^|]*\||"[^"]*"|[^\s()|";]+|;[^\n]*""")
_SAME: Final = frozenset(
    (
        "bvadd",
        "bvsub",
        "bvmul",
        "bvudiv",
        "bvurem",
        "bvand",
        "bvor",
        "bvxor",
        "bvshl",
        "bvlshr",
        "bvashr",
        "bvnot",
    )
)
_CONDITIONS: Final = frozenset(
    ("and", "or", "xor", "not", "=>", "=", "distinct", "bvult", "bvule", "bvslt", "bvsle")
)


class Graph:
    """Makes nodes, each once; the sides of an equation have no order, and a concatenation has no parentheses."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Node] = {}

    def node(self, op: str, sort: int, args: tuple[Node, ...] = (), data: Any = None) -> Node:
        """The node of an operation."""
        if op == "=":
            args = tuple(sorted(args, key=lambda arg: arg.place))
        elif op == "concat":
            args = tuple(piece for arg in args for piece in (arg.args if arg.op == "concat" else (arg,)))
        key = (op, sort, args, data)
        if key not in self._made:
            self._made[key] = Node(op, sort, args, data, len(self._made))
        return self._made[key]

    def number(self, sort: int, value: int) -> Node:
        """A numeral, or a truth value."""
        return self.node("const", sort, (), value)


def assertions(script: str, graph: Graph) -> list[Node]:
    """What a script asserts, in order.

    Raises:
        QuantifiedError: it has quantifiers, or sorts other than Bool and bit-vectors.
        ValueError: it is not SMT-LIB, or not of the kind that is exported here.
    """
    reader, found = _Reader(graph), []
    for command in _expressions(script):
        match command:
            case ["declare-fun", str(name), [*sorts], sort]:
                reader.declared[_bare(name)] = tuple(map(_sort, sorts)), _sort(sort)
            case ["declare-const", str(name), sort]:
                reader.declared[_bare(name)] = (), _sort(sort)
            case ["assert", what]:
                found.append(reader.term(what))
            case ["declare-sort", *_]:
                raise QuantifiedError("it has sorts other than bit-vectors")
            case [str(name), *_] if name in ("set-logic", "set-info", "set-option", "check-sat", "exit"):
                pass
            case _:
                raise ValueError(f"a command that is not understood: {str(command)[:60]}")
    return found


def _expressions(script: str) -> Iterator[Any]:
    open_ones: list[list[Any]] = []
    for found in _TOKEN.finditer(script):
        token = found[0]
        if token[0] == ";":
            continue
        if token == "(":
            open_ones.append([])
        elif token == ")":
            if not open_ones:
                raise ValueError("a parenthesis too many")
            done = open_ones.pop()
            if not open_ones:
                yield done
            else:
                open_ones[-1].append(done)
        elif not open_ones:
            raise ValueError(f"{token[:60]} stands outside of a command")
        else:
            open_ones[-1].append(token)
    if open_ones:
        raise ValueError("the text ends within a command")


def _bare(name: str) -> str:
    return name[1:-1] if name.startswith("|") else name


def _sort(sort: Any) -> int:
    match sort:
        case "Bool":
            return BOOL
        case ["_", "BitVec", str(width)]:
            return int(width)
    raise QuantifiedError("it has sorts other than bit-vectors")


class _Reader:
    """Terms, with what is declared and what `let` binds."""

    def __init__(self, graph: Graph) -> None:
        self.declared: dict[str, tuple[tuple[int, ...], int]] = {}
        self.node, self.number = graph.node, graph.number
        self._bound: dict[str, list[Node]] = {}

    def term(self, root: Any) -> Node:
        """A term; deep ones without recursion."""
        done: list[Node] = []
        todo: list[tuple[str, Any]] = [("read", root)]
        while todo:
            what, item = todo.pop()
            if what == "read":
                if isinstance(item, str):
                    done.append(self._atom(item))
                elif item[0] == "let":
                    names = [_bare(name) for name, _ in item[1]]
                    todo += [("unbind", names), ("read", item[2]), ("bind", names)]
                    todo += [("read", value) for _, value in reversed(item[1])]
                elif item[0] == "_" and item[1].startswith("bv"):
                    done.append(self.number(int(item[2]), int(item[1][2:])))
                elif item[0] in ("forall", "exists"):
                    raise QuantifiedError("it has quantifiers")
                else:
                    todo.append(("apply", item))
                    todo += [("read", arg) for arg in reversed(item[1:])]
            elif what == "bind":
                for name in reversed(item):
                    self._bound.setdefault(name, []).append(done.pop())
            elif what == "unbind":
                for name in item:
                    self._bound[name].pop()
            else:
                count = len(item) - 1
                args = tuple(done[len(done) - count :])
                del done[len(done) - count :]
                done.append(self._application(item[0], args))
        return done[0]

    def _atom(self, token: str) -> Node:
        if token.startswith("#x"):
            return self.number(4 * (len(token) - 2), int(token[2:], 16))
        if token.startswith("#b"):
            return self.number(len(token) - 2, int(token[2:], 2))
        if token in ("true", "false"):
            return self.number(BOOL, int(token == "true"))
        name = _bare(token)
        if self._bound.get(name):
            return self._bound[name][-1]
        if name not in self.declared or self.declared[name][0]:
            raise ValueError(f"{token} is not declared")
        return self.node("var", self.declared[name][1], (), name)

    def _application(self, head: Any, args: tuple[Node, ...]) -> Node:
        sorts = [arg.sort for arg in args]
        match head:
            case ["_", "extract", str(high), str(low)]:
                return self.node("extract", int(high) - int(low) + 1, args, (int(high), int(low)))
            case ["_", "sign_extend" | "zero_extend" as op, str(more)]:
                return self.node(op, sorts[0] + int(more), args)
            case "concat":
                return self.node("concat", sum(sorts), args)
            case "ite":
                return self.node("ite", sorts[1], args)
            case "bvsgt" | "bvsge" | "bvugt" | "bvuge":  # Z3 writes some comparisons the other way round
                return self._application(head.replace("g", "l"), args[::-1])
            case str() if head in _SAME and len(set(sorts)) == 1:
                return self.node(head, sorts[0], args)
            case str() if head in _CONDITIONS and len(set(sorts)) == 1:
                return self.node(head, BOOL, args)
            case str() if _bare(head) in self.declared:
                domain, sort = self.declared[_bare(head)]
                if list(domain) == sorts:
                    return self.node("apply", sort, args, _bare(head))
        raise ValueError(f"{head} of sorts {sorts} is not understood")


class Mirror(Engine):
    """Terms as the nodes that their text should be.

    Args:
        graph: where the text was read into.
    """

    name = "mirror"

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def session(self, *, seconds: float = 0.0, kind: QuestionKind = QuestionKind.LIKELY) -> Session:
        """It answers nothing."""
        raise NotImplementedError

    def _truth(self, value: bool) -> Node:
        return self._graph.number(BOOL, int(value))

    def _is_one(self, vector: Node) -> Node:
        return self._graph.node("=", BOOL, (vector, self._number(1, 1)))

    def _bit(self, condition: Node) -> Node:
        return self._choice(condition, self._number(1, 1), self._number(1, 0))

    def _number(self, width: int, value: int) -> Node:
        return self._graph.number(width, value)

    def _variable(self, name: str, width: int) -> Node:
        return self._graph.node("var", width, (), name)

    def _comparison(self, op: str, a: Node, b: Node) -> Node:
        return self._graph.node("=" if op == "eq" else f"bv{op}", BOOL, (a, b))

    def _connective(self, op: str, parts: Sequence[Node]) -> Node:
        return self._graph.node(op, BOOL, tuple(parts))

    def _choice(self, condition: Node, a: Node, b: Node) -> Node:
        return self._graph.node("ite", a.sort, (condition, a, b))

    def _operation(self, term: Term, args: Sequence[Node]) -> Node:
        names = {"concat": "concat", "extract": "extract", "sext": "sign_extend"}
        return self._graph.node(names.get(term.op, f"bv{term.op}"), term.width, tuple(args), term.data)

    def _application(self, term: Term) -> Node:
        args = tuple(map(self._vector, term.args))
        return self._graph.node("apply", term.width, args, str(term.data))


__all__ = ["BOOL", "Graph", "Mirror", "Node", "QuantifiedError", "assertions"]
