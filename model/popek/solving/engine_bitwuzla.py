"""Bitwuzla, which is quick on the bit-vectors of one or two steps of a machine.

Where an assignment is likely it first searches locally, then by bit-blasting.  Its work is bounded by how
often it asks whether to stop, which is the same on every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from importlib.metadata import version
from itertools import chain, repeat
from typing import Any, Final

import bitwuzla
from bitwuzla import Kind, Option, Result

from popek.kernel.terms import Term

from .engine import Answer, Engine, QuestionKind

# Steps of the local search before bits are blasted.
_LOCAL_STEPS: Final = 2000
# Units of `rlimit` for one question of Bitwuzla whether to stop: roughly the same time.
_UNITS: Final = 40

_KINDS: Final[Mapping[str, Kind]] = {
    "eq": Kind.EQUAL,
    "ult": Kind.BV_ULT,
    "ule": Kind.BV_ULE,
    "slt": Kind.BV_SLT,
    "sle": Kind.BV_SLE,
    "add": Kind.BV_ADD,
    "sub": Kind.BV_SUB,
    "mul": Kind.BV_MUL,
    "udiv": Kind.BV_UDIV,
    "urem": Kind.BV_UREM,
    "and": Kind.BV_AND,
    "or": Kind.BV_OR,
    "xor": Kind.BV_XOR,
    "not": Kind.BV_NOT,
    "shl": Kind.BV_SHL,
    "lshr": Kind.BV_SHR,
    "ashr": Kind.BV_ASHR,
    "concat": Kind.BV_CONCAT,
}
_CONNECTIVES: Final[Mapping[str, Kind]] = {
    "and": Kind.AND,
    "or": Kind.OR,
    "xor": Kind.XOR,
    "not": Kind.NOT,
    "ite": Kind.ITE,
}


class BitwuzlaEngine(Engine):
    """Terms of one Bitwuzla term manager."""

    name = f"bitwuzla {version('bitwuzla')}"

    def __init__(self) -> None:
        super().__init__()
        self.manager = bitwuzla.TermManager()
        self._sorts: dict[int, Any] = {}

    def session(self, *, seconds: float = 0.0, kind: QuestionKind = QuestionKind.LIKELY) -> BitwuzlaSession:
        """A new solver without assertions."""
        return BitwuzlaSession(self, seconds, kind)

    def _sort(self, width: int) -> Any:
        found = self._sorts.get(width)
        if found is None:
            found = self._sorts[width] = self.manager.mk_bv_sort(width)
        return found

    @cached_property
    def _one(self) -> Any:
        return self.manager.mk_bv_one(self._sort(1))

    @cached_property
    def _zero(self) -> Any:
        return self.manager.mk_bv_zero(self._sort(1))

    def _truth(self, value: bool) -> Any:
        return self.manager.mk_true() if value else self.manager.mk_false()

    def _is_one(self, vector: Any) -> Any:
        return self.manager.mk_term(Kind.EQUAL, [vector, self._one])

    def _bit(self, condition: Any) -> Any:
        return self.manager.mk_term(Kind.ITE, [condition, self._one, self._zero])

    def _number(self, width: int, value: int) -> Any:
        return self.manager.mk_bv_value(self._sort(width), value)

    def _variable(self, name: str, width: int) -> Any:
        return self.manager.mk_const(self._sort(width), name)

    def _comparison(self, op: str, a: Any, b: Any) -> Any:
        return self.manager.mk_term(_KINDS[op], [a, b])

    def _connective(self, op: str, parts: Sequence[Any]) -> Any:
        return self.manager.mk_term(_CONNECTIVES[op], parts)

    def _choice(self, condition: Any, a: Any, b: Any) -> Any:
        return self.manager.mk_term(Kind.ITE, [condition, a, b])

    def _operation(self, term: Term, args: Sequence[Any]) -> Any:
        match term.op:
            case "extract":
                assert isinstance(term.data, tuple)
                return self.manager.mk_term(Kind.BV_EXTRACT, args, list(term.data))
            case "sext":
                return self.manager.mk_term(Kind.BV_SIGN_EXTEND, args, [term.width - term.args[0].width])
        return self.manager.mk_term(_KINDS[term.op], args)


class BitwuzlaSession:
    """What is asserted in one session of an engine: a Bitwuzla of its own.

    One that several sessions shared would save a little work, and give a question that is at its bound another answer
    after other questions.
    """

    def __init__(self, engine: BitwuzlaEngine, seconds: float, kind: QuestionKind) -> None:
        milliseconds = max(1, int(seconds * 1000)) if seconds else 0
        self._solver = bitwuzla.Bitwuzla(engine.manager, _options(milliseconds, kind))
        self._free = _LOCAL_STEPS if kind is QuestionKind.LIKELY else 0

    def add(self, condition: Any) -> None:
        """Assert a condition on the open level."""
        self._solver.assert_formula(condition)

    def push(self) -> None:
        """Open a level."""
        self._solver.push(1)

    def pop(self) -> None:
        """Close the latest level."""
        self._solver.pop(1)

    def check(self, assumed: Sequence[Any], rlimit: int) -> Answer:
        """Whether everything can hold together."""
        # Bitwuzla asks some thousand times a second: a function of Python's would take a fifth of the time.
        enough = (
            chain(repeat(False, self._free + rlimit // _UNITS), repeat(True)) if rlimit else repeat(False)
        )
        self._solver.configure_terminator(enough.__next__)
        return _ANSWERS[self._solver.check_sat(*assumed)]

    def core(self) -> list[Any]:
        """Those of the assumed conditions that contradict one another, after an UNSAT."""
        return list(self._solver.get_unsat_assumptions())

    def number(self, vector: Any) -> int:
        """What a vector is in the assignment behind a SAT."""
        return int(self._solver.get_value(vector).value(10))


@cache
def _options(milliseconds: int, kind: QuestionKind) -> Any:
    options = bitwuzla.Options()
    options.set(Option.PRODUCE_MODELS, True)
    if kind is not QuestionKind.HARD:
        # Terms come simplified, and questions are small: these take longer than they save.
        options.set(Option.REWRITE_LEVEL, 0)
        options.set(Option.PP_EMBEDDED_CONSTR, False)
        options.set(Option.PP_NORMALIZE, False)
        options.set(Option.PP_SKELETON_PREPROC, False)
    if kind is QuestionKind.CORES:
        options.set(Option.PRODUCE_UNSAT_ASSUMPTIONS, True)
    if kind is QuestionKind.LIKELY:
        options.set(Option.BV_SOLVER, "preprop")
        options.set(Option.PROP_NPROPS, _LOCAL_STEPS)
    if milliseconds:
        options.set(Option.TIME_LIMIT_PER, milliseconds)
    return options


_ANSWERS: Final = {Result.SAT: Answer.SAT, Result.UNSAT: Answer.UNSAT, Result.UNKNOWN: Answer.UNKNOWN}
