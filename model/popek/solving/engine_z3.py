"""Z3: a context of its own for every question, effort bounded by its resource count; time limits are kept."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import z3

from popek.kernel.terms import Term

from .engine import Answer, Engine, QuestionKind


class Z3Engine(Engine):
    """Terms of one Z3 context.

    Args:
        functions: leave memories functions, so that a script says all that is meant.
    """

    name = f"z3 {z3.get_version_string()}"

    def __init__(self, *, functions: bool = False) -> None:
        super().__init__()
        self.context: Any = z3.Context()
        self._functions = functions

    def session(self, *, seconds: float = 0.0, kind: QuestionKind = QuestionKind.LIKELY) -> Z3Session:
        """A new solver without assertions."""
        return Z3Session(self, seconds, kind)

    def _truth(self, value: bool) -> Any:
        return z3.BoolVal(value, self.context)

    def _is_one(self, vector: Any) -> Any:
        return vector == self._number(1, 1)

    def _bit(self, condition: Any) -> Any:
        return self._choice(condition, self._number(1, 1), self._number(1, 0))

    def _number(self, width: int, value: int) -> Any:
        return z3.BitVecVal(value, width, self.context)

    def _variable(self, name: str, width: int) -> Any:
        return z3.BitVec(name, width, self.context)

    def _comparison(self, op: str, a: Any, b: Any) -> Any:
        return _COMPARISONS[op](a, b)

    def _connective(self, op: str, parts: Sequence[Any]) -> Any:
        match op:
            case "and":
                return z3.And(*parts)
            case "or":
                return z3.Or(*parts)
            case "xor":
                return z3.Xor(*parts)
            case "not":
                return z3.Not(parts[0])
        return z3.If(*parts, self.context)

    def _choice(self, condition: Any, a: Any, b: Any) -> Any:
        return z3.If(condition, a, b, self.context)

    def _operation(self, term: Term, args: Sequence[Any]) -> Any:
        match term.op:
            case "not":
                return ~args[0]
            case "concat":
                return z3.Concat(*args)
            case "extract":
                assert isinstance(term.data, tuple)
                return z3.Extract(*term.data, args[0])
            case "sext":
                return z3.SignExt(term.width - term.args[0].width, args[0])
        return _OPERATIONS[term.op](*args)

    def _application(self, term: Term) -> Any:
        if not self._functions:
            return super()._application(term)
        sorts = [z3.BitVecSort(part.width, self.context) for part in (*term.args, term)]
        return z3.Function(str(term.data), *sorts)(*map(self._vector, term.args))


_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "eq": lambda a, b: a == b,
    "ult": z3.ULT,
    "ule": z3.ULE,
    "slt": lambda a, b: a < b,
    "sle": lambda a, b: a <= b,
}
_OPERATIONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
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


_GRACE: Final = 0.25  # seconds between Z3's time and the first word of ours, and between two words


class Z3Session:
    """One Z3 solver."""

    def __init__(self, engine: Z3Engine, seconds: float, kind: QuestionKind) -> None:
        # Most questions are quicker in the general core than in the bit-vector strategy, which prepares at length.
        context = engine.context
        self._model: Any = None
        self._seconds = seconds
        hard = kind is QuestionKind.HARD
        self._solver = z3.SolverFor("QF_BV", ctx=context) if hard else z3.SimpleSolver(ctx=context)

    def add(self, condition: Any) -> None:
        """Assert a condition on the open level."""
        self._solver.add(condition)

    def push(self) -> None:
        """Open a level."""
        self._solver.push()

    def pop(self) -> None:
        """Close the latest level."""
        self._solver.pop()

    def check(self, assumed: Sequence[Any], rlimit: int) -> Answer:
        """Whether everything can hold together."""
        self._model = None
        self._solver.set("rlimit", rlimit)
        return checked(self._solver, assumed, self._seconds)

    def number(self, vector: Any) -> int:
        """What a vector is in the assignment behind a SAT."""
        if self._model is None:
            self._model = self._solver.model()
        return int(self._model.eval(vector, model_completion=True).as_long())

    def core(self) -> list[Any]:
        """Those of the assumed conditions that contradict one another, after an UNSAT; in Z3's order."""
        return list(self._solver.unsat_core())

    def script(self) -> str:
        """What is asserted, as an SMT-LIB 2 script."""
        # Z3 writes primed names and reserved words bare, which SMT-LIB does not allow.
        return re.sub(
            r"\|[^|]*\||[^\s()|]*'[^\s()|]*|(?<=[\s(])(?:par|match|as)(?=[\s)])",
            lambda found: found[0] if found[0].startswith("|") else f"|{found[0]}|",
            str(self._solver.to_smt2()),
        )


def checked(solver: Any, assumed: Sequence[Any] = (), seconds: float = 0.0) -> Answer:
    """What a Z3 solver says within a time.

    Z3's timer stops a check by setting a flag, once; a check that is about to clear the flag loses it, and goes on
    for ever.  So the check is told again, until it is over.

    Args:
        solver: of a context that nothing else uses meanwhile.
        assumed: for this check alone.
        seconds: of real time, 0 for no bound; what Z3 says later counts no more.
    """
    if not seconds:
        return answer_of(solver.check(*assumed))
    _set_timer(solver, seconds)
    over, told = threading.Event(), threading.Event()

    def tell() -> None:
        wait = seconds + _GRACE
        while not over.wait(wait):
            told.set()
            solver.ctx.interrupt()
            wait = _GRACE

    watch = threading.Thread(target=tell, name="popek-time-limit", daemon=True)
    watch.start()
    try:
        answer = answer_of(solver.check(*assumed))
    finally:
        over.set()
        watch.join()
    if told.is_set():
        # The last word may have come after the check: the next one would be as good as stopped, and this model gone.
        z3.SimpleSolver(ctx=solver.ctx).check()
        return Answer.UNKNOWN
    return answer


def answer_of(result: Any) -> Answer:
    """Z3's answer as ours."""
    if result == z3.sat:
        return Answer.SAT
    return Answer.UNSAT if result == z3.unsat else Answer.UNKNOWN


def _set_timer(solver: Any, seconds: float) -> None:
    solver.set("timeout", max(1, int(seconds * 1000)))


def smtlib_of_cases(common: Iterable[Term], cases: Sequence[Iterable[Term]]) -> str:
    """Cases (conjunctions of width 1) as one SMT-LIB 2 script that asks for each whether it is possible."""
    engine = Z3Engine(functions=True)
    session = engine.session()
    for condition in common:
        session.add(engine.condition(condition))
    names = []
    for number, case in enumerate(cases):
        name = z3.Bool(f"case{number}", engine.context)
        session.add(name == z3.And(z3.BoolVal(True, engine.context), *map(engine.condition, case)))
        names.append(name.decl().name())
    checks = "\n".join(f"(check-sat-assuming ({name}))" for name in names)
    return session.script().replace("(check-sat)", checks)


def smtlib(conditions: Iterable[Term]) -> str:
    """Conditions (width 1) as an SMT-LIB 2 script without a logic, memories as functions."""
    engine = Z3Engine(functions=True)
    session = engine.session()
    for condition in conditions:
        session.add(engine.condition(condition))
    return session.script()
