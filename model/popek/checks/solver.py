"""The one place where terms meet Z3.

Every question gets a context of its own, terms are translated in a fixed order, and effort is bounded
by Z3's resource count rather than by the clock, so an answer is the same on every run.  Memory contents
are uninterpreted functions from address to cell; each application becomes a variable, and equal arguments
force equal values (Ackermann's reduction), so every query is plain QF_BV.  Most pairs of cells never
matter: a pair is tied only when a model would have it otherwise, and the check is repeated.
"""

from __future__ import annotations

import enum
import hashlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import z3

from popek.kernel import terms
from popek.kernel.terms import Term
from popek.kernel.words import Word


class Answer(enum.Enum):
    """What a solver says."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"


@attrs.define
class Effort:
    """How hard to try, and what was spent.

    Attributes:
        rlimit: Z3 resource units a single check may use; 0 for no bound.
        timeout: seconds a single check may take; 0 for no bound.
        seconds: time spent inside the solver so far.
        checks: number of checks so far.
    """

    rlimit: int = 20_000_000
    timeout: float = 0.0
    seconds: float = 0.0
    checks: int = 0


class Model:
    """A satisfying assignment; what the query does not mention reads as 0."""

    def __init__(self, solver: Solver, model: Any) -> None:
        self._solver, self._model = solver, model
        self._values: dict[Term, Any] = {}

    def __call__(self, term: Term) -> int:
        """The number a term has in this model."""
        value = self._model.eval(self._solver.translate(term), model_completion=True)
        if z3.is_bool(value):
            return int(z3.is_true(value))
        return int(value.as_long())

    def value(self, unknown: Term) -> Any:
        """Z3's numeral for a variable or a cell."""
        found = self._values.get(unknown)
        if found is None:
            found = self._model.eval(self._solver.translate(unknown), model_completion=True)
            self._values[unknown] = found
        return found

    def consistent(self, cells: Iterable[Term]) -> bool:
        """Whether cells at equal addresses have equal values."""
        return not _loose(self._model, cells, self._solver._memo)


class Solver:
    """An incremental solver over terms.

    Args:
        effort: bounds, and the tally.
        rlimit: Z3 resource units for a check, where it is to be another bound than the effort's.
        beside: a solver whose context and translations it shares; nothing else.
        functions: leave memories functions, so that `smtlib` says all that is meant.
        small: the question is small: Z3's general core is quicker than its bit-vector strategy.
    """

    def __init__(
        self,
        effort: Effort | None = None,
        *,
        rlimit: int | None = None,
        beside: Solver | None = None,
        functions: bool = False,
        small: bool = False,
    ) -> None:
        self._functions = functions
        self.effort = effort or Effort()
        self._context: Any = z3.Context() if beside is None else beside._context
        self._solver = (
            z3.SimpleSolver(ctx=self._context) if small else z3.SolverFor("QF_BV", ctx=self._context)
        )
        self._bound = self.effort.rlimit if rlimit is None else rlimit
        self._solver.set("rlimit", self._bound)
        if self.effort.timeout:
            self._solver.set("timeout", max(1, int(self.effort.timeout * 1000)))
        self._memo: dict[Term, Any] = {} if beside is None else beside._memo
        self._bools: dict[Term, Any] = {} if beside is None else beside._bools
        self._applications: dict[str, int] = {} if beside is None else beside._applications
        self._named: dict[str, Any] = {}
        self._unknowns: dict[Term, tuple[Term, ...]] = {} if beside is None else beside._unknowns
        self._axioms: list[list[Any]] = [[]]  # by level: those added there
        self._cells: list[list[Term]] = [[]]  # by level: the applications that its conditions read

    # -- assumptions --------------------------------------------------------------------------

    def add(self, condition: Term | Word) -> None:
        """Assert a condition (width 1)."""
        term = _term(condition)
        self._solver.add(self.condition(term))
        self._cells[-1] += self._cells_of([term])

    def fix(self, unknowns: Iterable[Term], model: Model) -> None:
        """Assert that variables and cells have the values that another assignment gives to them.

        The assignment is of a solver that shares its translations with this one.
        """
        for unknown in unknowns:
            self._solver.add(self.translate(unknown) == model.value(unknown))
            if unknown.op == "apply":
                self._cells[-1].append(unknown)

    def unknowns(self, conditions: Iterable[Term]) -> dict[Term, None]:
        """The variables and cells that conditions read, in order of first use."""
        found: dict[Term, None] = {}
        for condition in conditions:
            known = self._unknowns.get(condition)
            if known is None:
                known = tuple(t for t in terms.postorder([condition]) if t.op in ("var", "apply"))
                self._unknowns[condition] = known
            found.update(dict.fromkeys(known))
        return found

    def _cells_of(self, conditions: Iterable[Term]) -> list[Term]:
        return [unknown for unknown in self.unknowns(conditions) if unknown.op == "apply"]

    def push(self, condition: Term | Word | None = None) -> None:
        """Open a level, and assert a condition on it."""
        self._solver.push()
        self._axioms.append([])
        self._cells.append([])
        if condition is not None:
            self.add(condition)

    def pop(self) -> None:
        """Close the latest level."""
        self._solver.pop()
        self._cells.pop()
        # Variables that stand for applications outlive the level, so what ties them must too.
        lost = self._axioms.pop()
        self._solver.add(*lost)
        self._axioms[-1].extend(lost)

    def check(self, assumptions: Iterable[Term | Word] = (), *, rlimit: int | None = None) -> Answer:
        """Whether what was asserted, and the assumptions, can hold together; `rlimit` for this check alone."""
        if rlimit is not None:
            self._solver.set("rlimit", rlimit)
            try:
                return self.check(assumptions)
            finally:
                self._solver.set("rlimit", self._bound)
        assumed = [_term(a) for a in assumptions]
        literals = [self.condition(a) for a in assumed]
        cells = [*self._asserted_cells(), *self._cells_of(assumed)]
        start = time.perf_counter()
        answer = self._solver.check(*literals)
        while answer == z3.sat and (loose := _loose(self._solver.model(), cells, self._memo)):
            for pair in loose:
                self._assert_congruence(*pair)
            answer = self._solver.check(*literals)
        self.effort.seconds += time.perf_counter() - start
        self.effort.checks += 1
        return _answer(answer)

    def _asserted_cells(self) -> list[Term]:
        return [cell for level in self._cells for cell in level]

    def _assert_congruence(self, a: Term, b: Term) -> None:
        """Equal arguments give equal values."""
        same = terms.ONE
        for left, right in zip(a.args, b.args, strict=True):
            same = terms.arithmetic("and", same, terms.compare("eq", left, right))
        axiom = z3.Implies(self.condition(same), self._memo[a] == self._memo[b], self._context)
        self._solver.add(axiom)
        self._axioms[-1].append(axiom)

    def model(self) -> Model:
        """The assignment behind the latest SAT."""
        return Model(self, self._solver.model())

    # -- conditions by name, and wishes ---------------------------------------------------------

    def add_named(self, name: str, condition: Term | Word) -> None:
        """Assert a condition (width 1) that holds only where `check_named` is asked for its name."""
        literal = self._named[name] = z3.Bool(f"?{len(self._named)}", ctx=self._context)
        self._solver.add(z3.Implies(literal, self.condition(_term(condition))))

    def check_named(self, names: Iterable[str]) -> Answer:
        """Whether what was asserted, and the conditions of these names, can hold together; without memory."""
        self.effort.checks += 1
        return _answer(self._solver.check(*(self._named[name] for name in names)))

    def core(self) -> list[str]:
        """Names of conditions that contradict one another, after an UNSAT of `check_named`; in Z3's order."""
        names = {str(literal): name for name, literal in self._named.items()}
        return [names[str(literal)] for literal in self._solver.unsat_core()]

    def cheapest(
        self, hard: Iterable[Term | Word], wishes: Iterable[tuple[Term | Word, int]]
    ) -> tuple[Answer, Model | None]:
        """A model of `hard` that breaks wishes of the least total weight; nothing else is asserted.

        Args:
            hard: conditions (width 1), without memory.
            wishes: conditions with what it costs to break each.
        """
        optimizer = z3.Optimize(ctx=self._context)
        optimizer.set("rlimit", self._bound)
        for condition in hard:
            optimizer.add(self.condition(_term(condition)))
        for wish, weight in wishes:
            optimizer.add_soft(self.condition(_term(wish)), weight)
        answer = _answer(optimizer.check())
        self.effort.checks += 1
        return answer, Model(self, optimizer.model()) if answer is Answer.SAT else None

    def smtlib(self) -> str:
        """What is asserted, as an SMT-LIB 2 script."""
        # Z3 writes primed names and reserved words bare, which SMT-LIB does not allow.
        return re.sub(
            r"\|[^|]*\||[^\s()|]*'[^\s()|]*|(?<=[\s(])(?:par|match|as)(?=[\s)])",
            lambda found: found[0] if found[0].startswith("|") else f"|{found[0]}|",
            str(self._solver.to_smt2()),
        )

    # -- translation --------------------------------------------------------------------------

    def condition(self, term: Term) -> Any:
        """A term of width 1 as a Z3 Bool."""
        self._translate_all(term)
        return self._bool(term)

    def translate(self, term: Term) -> Any:
        """A term as a Z3 bit-vector."""
        self._translate_all(term)
        return self._vector(term)

    def _translate_all(self, root: Term) -> None:
        if root in self._memo or root in self._bools:
            return
        for term in terms.postorder([root]):
            if term not in self._memo and term not in self._bools:
                self._node(term)

    def _bool(self, term: Term) -> Any:
        found = self._bools.get(term)
        if found is None:
            found = self._memo[term] == z3.BitVecVal(1, 1, self._context)
            self._bools[term] = found
        return found

    def _vector(self, term: Term) -> Any:
        found = self._memo.get(term)
        if found is None:
            one, zero = z3.BitVecVal(1, 1, self._context), z3.BitVecVal(0, 1, self._context)
            found = z3.If(self._bools[term], one, zero, self._context)
            self._memo[term] = found
        return found

    def _node(self, term: Term) -> None:
        op, args, context = term.op, term.args, self._context
        vector = self._vector
        if op in _BOOLEAN:
            self._bools[term] = _BOOLEAN[op](vector(args[0]), vector(args[1]))
        elif term.width == 1 and op in ("and", "or", "xor", "not", "ite", "const"):
            self._bools[term] = self._connective(term)
        elif op == "const":
            self._memo[term] = z3.BitVecVal(term.data, term.width, context)
        elif op == "var":
            self._memo[term] = z3.BitVec(str(term.data), term.width, context)
        elif op == "apply":
            self._memo[term] = self._apply(term)
        elif op == "ite":
            self._memo[term] = z3.If(self._bool(args[0]), vector(args[1]), vector(args[2]), context)
        elif op == "not":
            self._memo[term] = ~vector(args[0])
        elif op == "concat":
            self._memo[term] = z3.Concat(*map(vector, args))
        elif op == "extract":
            high, low = term.data  # type: ignore[misc, str-unpack]
            self._memo[term] = z3.Extract(high, low, vector(args[0]))
        elif op == "sext":
            self._memo[term] = z3.SignExt(term.width - args[0].width, vector(args[0]))
        else:
            self._memo[term] = _VECTOR[op](vector(args[0]), vector(args[1]))

    def _connective(self, term: Term) -> Any:
        if term.op == "const":
            return z3.BoolVal(bool(term.data), self._context)
        parts = [self._bool(arg) for arg in term.args]
        match term.op:
            case "and":
                return z3.And(*parts)
            case "or":
                return z3.Or(*parts)
            case "xor":
                return z3.Xor(*parts)
            case "not":
                return z3.Not(parts[0])
        return z3.If(*parts, self._context)

    def _apply(self, term: Term) -> Any:
        """A variable for a function's value, or the value itself."""
        name = str(term.data)
        if self._functions:
            sorts = [z3.BitVecSort(part.width, self._context) for part in (*term.args, term)]
            return z3.Function(name, *sorts)(*map(self._vector, term.args))
        number = self._applications.get(name, 0)
        self._applications[name] = number + 1
        return z3.BitVec(f"{name}#{number}", term.width, self._context)


_BOOLEAN = {
    "eq": lambda a, b: a == b,
    "ult": z3.ULT,
    "ule": z3.ULE,
    "slt": lambda a, b: a < b,
    "sle": lambda a, b: a <= b,
}
_VECTOR = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "udiv": z3.UDiv,
    "urem": z3.URem,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b,
    "lshr": z3.LShR,
    "ashr": lambda a, b: a >> b,
}


def _term(condition: Term | Word) -> Term:
    return condition.term if isinstance(condition, Word) else condition


def _answer(answer: Any) -> Answer:
    if answer == z3.sat:
        return Answer.SAT
    return Answer.UNSAT if answer == z3.unsat else Answer.UNKNOWN


def _loose(model: Any, applications: Iterable[Term], values: Mapping[Term, Any]) -> list[tuple[Term, Term]]:
    """The applications to which a model gives equal arguments and different values."""
    found = []
    seen: dict[tuple[object, ...], Term] = {}
    for term in applications:
        where = (term.data, *(_number(model, values[arg]) for arg in term.args))
        other = seen.setdefault(where, term)
        if other is not term and _number(model, values[term]) != _number(model, values[other]):
            found.append((other, term))
    return found


def _number(model: Any, value: Any) -> int:
    return int(model.eval(value, model_completion=True).as_long())


def solver_version() -> str:
    """Which Z3 answers."""
    return f"z3 {z3.get_version_string()}"


def sha256(text: str) -> str:
    """The hash that names a query."""
    return hashlib.sha256(text.encode()).hexdigest()


def holds(claim: Word, assuming: Sequence[Word] = (), effort: Effort | None = None) -> Answer:
    """Ask whether `claim` can fail: UNSAT means that it always holds under the assumptions."""
    solver = Solver(effort)
    for assumption in assuming:
        solver.add(assumption)
    solver.add(~claim)
    return solver.check()


def assignment(model: Model, roots: Iterable[Term]) -> Mapping[str, int]:
    """The values of the variables below the roots."""
    return {name: model(variable) for name, variable in terms.variables_of(roots).items()}
