"""From bit-vectors to clauses: the question that stands in a file as a CNF, for a SAT solver and a proof.

Each operation is its textbook circuit, each gate its clauses in both directions (Tseitin 1983), so that every bit
follows from those of the variables by unit propagation.  An application of a function becomes a fresh vector; two that
have equal arguments are tied where it matters (Ackermann 1954), which `tie` adds.  A tie follows from the question, so
that a CNF without some of them is refuted only if the question is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Final

from .smtlib import BOOL, Node

Bits = tuple[int, ...]  # literals, the low bit first

TRUE: Final = 1
FALSE: Final = -1


class Clauses:
    """A CNF that grows by gates; variable 1 is true.

    Attributes:
        clauses: lists of literals.
        variables: how many there are.
        bits: what each node is; a condition has one bit.
        cells: the applications, in order of first use.
    """

    def __init__(self) -> None:
        self.clauses: list[list[int]] = [[TRUE]]
        self.variables = 1
        self.bits: dict[Node, Bits] = {}
        self.cells: list[Node] = []
        self._gates: dict[tuple[object, ...], int] = {}

    # -- gates --------------------------------------------------------------------------------

    def new(self) -> int:
        """A fresh variable."""
        self.variables += 1
        return self.variables

    def both(self, *inputs: int) -> int:
        """And of any number."""
        kept = sorted({one for one in inputs if one != TRUE}, key=abs)
        if FALSE in kept or any(a == -b for a, b in pairwise(kept)):
            return FALSE
        if len(kept) < 2:
            return kept[0] if kept else TRUE
        key = ("and", *kept)
        if key not in self._gates:
            gate = self._gates[key] = self.new()
            self.clauses += [[-gate, one] for one in kept]
            self.clauses.append([gate, *(-one for one in kept)])
        return self._gates[key]

    def either(self, *inputs: int) -> int:
        """Or of any number."""
        return -self.both(*(-one for one in inputs))

    def differ(self, a: int, b: int) -> int:
        """Exclusive or."""
        if abs(a) > abs(b):
            a, b = b, a
        if abs(a) == TRUE:
            return b if a == FALSE else -b
        if abs(a) == abs(b):
            return FALSE if a == b else TRUE
        sign = 1 if (a > 0) == (b > 0) else -1
        a, b = abs(a), abs(b)
        key = ("xor", a, b)
        if key not in self._gates:
            gate = self._gates[key] = self.new()
            self.clauses += [[-gate, a, b], [-gate, -a, -b], [gate, -a, b], [gate, a, -b]]
        return sign * self._gates[key]

    def choose(self, condition: int, a: int, b: int) -> int:
        """`a` where the condition holds, else `b`."""
        if abs(condition) == TRUE:
            return a if condition == TRUE else b
        if a == b:
            return a
        if a == -b:
            return self.differ(condition, b)
        if condition < 0:
            condition, a, b = -condition, b, a
        if a in (TRUE, condition):
            return self.either(condition, b)
        if a in (FALSE, -condition):
            return self.both(-condition, b)
        if b in (TRUE, -condition):
            return self.either(-condition, a)
        if b in (FALSE, condition):
            return self.both(condition, a)
        key = ("ite", condition, a, b)
        if key not in self._gates:
            gate = self._gates[key] = self.new()
            self.clauses += [[-gate, -condition, a], [-gate, condition, b], [-gate, a, b]]
            self.clauses += [[gate, -condition, -a], [gate, condition, -b], [gate, -a, -b]]
        return self._gates[key]

    def most(self, a: int, b: int, c: int) -> int:
        """At least two of three."""
        a, b, c = sorted((a, b, c), key=abs)
        if abs(a) == TRUE:
            return self.either(b, c) if a == TRUE else self.both(b, c)
        if a == b or b == c:
            return b
        if a == -b:
            return c
        if b == -c:
            return a
        key = ("most", a, b, c)
        if key not in self._gates:
            gate = self._gates[key] = self.new()
            for x, y in ((a, b), (a, c), (b, c)):
                self.clauses += [[gate, -x, -y], [-gate, x, y]]
        return self._gates[key]

    # -- words --------------------------------------------------------------------------------

    def equal(self, a: Bits, b: Bits) -> int:
        """Bit by bit the same."""
        return self.both(*(-self.differ(x, y) for x, y in zip(a, b, strict=True)))

    def select(self, condition: int, a: Bits, b: Bits) -> Bits:
        """One of two words."""
        return tuple(self.choose(condition, x, y) for x, y in zip(a, b, strict=True))

    def sum(self, a: Bits, b: Bits, carry: int = FALSE) -> Bits:
        """Modulo 2**width."""
        total = []
        for x, y in zip(a, b, strict=True):
            total.append(self.differ(self.differ(x, y), carry))
            carry = self.most(x, y, carry)
        return tuple(total)

    def less(self, a: Bits, b: Bits, otherwise: int = FALSE) -> int:
        """Unsigned; `otherwise` where they are equal."""
        for x, y in zip(a, b, strict=True):
            otherwise = self.most(-x, y, otherwise)
        return otherwise

    def product(self, a: Bits, b: Bits) -> Bits:
        """Modulo 2**width."""
        total: Bits = (FALSE,) * len(a)
        for place, bit in enumerate(b):
            if bit != FALSE:
                shifted = (FALSE,) * place + a[: len(a) - place]
                total = self.sum(total, tuple(self.both(bit, x) for x in shifted))
        return total

    def divide(self, a: Bits, b: Bits) -> tuple[Bits, Bits]:
        """Quotient and remainder, by subtraction from the top; by zero all ones and `a`, as in SMT-LIB."""
        wide = (*b, FALSE)
        rest: Bits = (FALSE,) * len(b)
        quotient = []
        for bit in reversed(a):
            longer = (bit, *rest)
            fits = -self.less(longer, wide)
            quotient.append(fits)
            rest = self.select(fits, self.sum(longer, _inverted(wide), TRUE), longer)[:-1]
        return tuple(reversed(quotient)), rest

    def shift(self, op: str, a: Bits, by: Bits) -> Bits:
        """Stage by stage; by the width or more all bits are those that come in."""
        width = len(a)
        fill = a[-1] if op == "bvashr" else FALSE
        word, far = a, FALSE
        for stage, bit in enumerate(by):
            step = 1 << stage
            if step >= width:
                far = self.either(far, bit)
                continue
            moved = (fill,) * step + word[:-step] if op == "bvshl" else word[step:] + (fill,) * step
            word = self.select(bit, moved, word)
        return self.select(far, (fill,) * width, word)

    # -- terms --------------------------------------------------------------------------------

    def add(self, root: Node) -> Bits:
        """The bits of a node and of all below it."""
        pending = [root]
        while pending:
            node = pending[-1]
            below = [arg for arg in node.args if arg not in self.bits]
            if node in self.bits:
                pending.pop()
            elif below:
                pending += below
            else:
                self.bits[node] = self._made(node, [self.bits[arg] for arg in node.args])
                pending.pop()
        return self.bits[root]

    def tie(self, a: Node, b: Node) -> None:
        """Assert that two applications of a function are equal where their arguments are."""
        same = [self.equal(self.bits[x], self.bits[y]) for x, y in zip(a.args, b.args, strict=True)]
        unlike = [-one for one in same]
        for x, y in zip(self.bits[a], self.bits[b], strict=True):
            self.clauses += [[*unlike, -x, y], [*unlike, x, -y]]

    def _made(self, node: Node, args: Sequence[Bits]) -> Bits:
        op, width = node.op, node.sort or 1
        if node.sort == BOOL and op not in ("const", "var", "apply", "ite"):
            return (self._condition(op, node, args),)
        match op:
            case "const":
                return tuple(TRUE if node.data >> place & 1 else FALSE for place in range(width))
            case "var" | "apply":
                if op == "apply":
                    self.cells.append(node)
                return tuple(self.new() for _ in range(width))
            case "ite":
                return self.select(args[0][0], args[1], args[2])
            case "concat":
                return tuple(bit for part in reversed(args) for bit in part)
            case "extract":
                return args[0][node.data[1] : node.data[0] + 1]
            case "sign_extend":
                return args[0] + args[0][-1:] * (width - len(args[0]))
            case "zero_extend":
                return args[0] + (FALSE,) * (width - len(args[0]))
            case "bvnot":
                return _inverted(args[0])
            case "bvadd":
                return reduce(self.sum, args)
            case "bvsub":
                return self.sum(args[0], _inverted(args[1]), TRUE)
            case "bvmul":
                return reduce(self.product, args)
            case "bvudiv":
                return self.divide(*args)[0]
            case "bvurem":
                return self.divide(*args)[1]
            case "bvshl" | "bvlshr" | "bvashr":
                return self.shift(op, *args)
        gates: dict[str, Callable[[int, int], int]] = {
            "bvand": self.both,
            "bvor": self.either,
            "bvxor": self.differ,
        }
        return tuple(reduce(gates[op], bits) for bits in zip(*args, strict=True))

    def _condition(self, op: str, node: Node, args: Sequence[Bits]) -> int:
        ones = [arg[0] for arg in args]
        match op:
            case "and":
                return self.both(*ones)
            case "or":
                return self.either(*ones)
            case "not":
                return -ones[0]
            case "xor":
                return reduce(self.differ, ones)
            case "=>" if len(ones) == 2:
                return self.either(-ones[0], ones[1])
            case "=":
                return self.both(*(self.equal(a, b) for a, b in pairwise(args)))
            case "distinct" if len(args) == 2:
                return -self.equal(*args)
            case "bvult" | "bvule" | "bvslt" | "bvsle":
                a, b = ((*arg[:-1], -arg[-1]) for arg in args) if op[2] == "s" else args
                return self.less(a, b, TRUE if op.endswith("e") else FALSE)
        raise ValueError(f"{op} of {len(node.args)} arguments is not understood")

    def dimacs(self, asserted: Sequence[int], comments: Sequence[str] = ()) -> str:
        """The CNF in DIMACS format, with what is asserted as clauses of one literal."""
        clauses = [*self.clauses, *([one] for one in asserted)]
        lines = [f"c {line}" for line in comments]
        lines.append(f"p cnf {self.variables} {len(clauses)}")
        lines += [" ".join(map(str, clause)) + " 0" for clause in clauses]
        return "\n".join(lines) + "\n"


def _inverted(a: Bits) -> Bits:
    return tuple(-bit for bit in a)


__all__ = ["FALSE", "TRUE", "Bits", "Clauses"]
