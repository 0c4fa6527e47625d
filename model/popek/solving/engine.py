"""What a solver must be able to do for popek: translate terms, and decide conditions over them.

`Engine` walks terms once and hands each node to a solver; `Session` is a solver in use.  The two engines
are `engine_bitwuzla` and `engine_z3`; `popek.solving.solver` is what the rest of popek asks.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

from popek.kernel.terms import Term


class Answer(enum.Enum):
    """What a solver says."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"


class QuestionKind(enum.Enum):
    """What a solver may expect; measured with `popek bench`, and chosen by whoever asks."""

    QUICK = "easy, or many with little between them"
    CORES = "the same, and what contradicts what is asked too"
    LIKELY = "small and mostly possible: worth a local search, and no preprocessing"
    HARD = "large, and mostly impossible: worth preprocessing"


class Session(Protocol):
    """A solver with what was asserted so far; conditions and vectors are its engine's."""

    def add(self, condition: Any) -> None:
        """Assert a condition on the open level."""

    def push(self) -> None:
        """Open a level."""

    def pop(self) -> None:
        """Close the latest level."""

    def check(self, assumed: Sequence[Any], rlimit: int) -> Answer:
        """Whether everything can hold together, within `rlimit` units (0 for no bound)."""

    def core(self) -> Sequence[Any]:
        """Those of the assumed conditions that contradict one another, after an UNSAT of `CORES` questions."""

    def number(self, vector: Any) -> int:
        """What a vector is in the assignment behind a SAT; valid until the session is used again."""


class Engine(ABC):
    """Terms as a solver has them: each is translated once for all sessions that share the engine.

    A condition (a term of width 1) is a Boolean to the solver where it is one by its operation, and a vector
    of one bit where it is used as one.  An application of a memory's unknown contents becomes a variable.

    Attributes:
        name: the solver and its version.
        unknowns: per translated term the variables and cells below it, inner ones first.
    """

    name: str

    def __init__(self) -> None:
        self._vectors: dict[Term, Any] = {}
        self._bools: dict[Term, Any] = {}
        self._applications: dict[str, int] = {}
        self.unknowns: dict[Term, tuple[Term, ...]] = {}

    @abstractmethod
    def session(self, *, seconds: float = 0.0, kind: QuestionKind = QuestionKind.LIKELY) -> Session:
        """A new solver without assertions.

        Args:
            seconds: a check may take; 0 for no bound.
            kind: of the questions.
        """

    def condition(self, term: Term) -> Any:
        """A term of width 1 as a Boolean."""
        self._translate(term)
        return self._bool(term)

    def vector(self, term: Term) -> Any:
        """A term as a bit-vector."""
        self._translate(term)
        return self._vector(term)

    def _bool(self, term: Term) -> Any:
        found = self._bools.get(term)
        if found is None:
            found = self._bools[term] = self._is_one(self._vectors[term])
        return found

    def _vector(self, term: Term) -> Any:
        found = self._vectors.get(term)
        if found is None:
            found = self._vectors[term] = self._bit(self._bools[term])
        return found

    def _translate(self, root: Term) -> None:
        vectors, bools = self._vectors, self._bools
        pending = [root]
        while pending:
            term = pending[-1]
            if term in vectors or term in bools:
                pending.pop()
                continue
            below = [arg for arg in term.args if arg not in vectors and arg not in bools]
            if below:
                pending += reversed(below)
                continue
            self._node(term)
            self._note_unknowns(term)
            pending.pop()

    def _node(self, term: Term) -> None:
        op, args = term.op, term.args
        if op in COMPARISONS:
            self._bools[term] = self._comparison(op, self._vector(args[0]), self._vector(args[1]))
        elif term.width == 1 and op in CONNECTIVES:
            self._bools[term] = self._connective(op, [self._bool(arg) for arg in args])
        elif term.width == 1 and op == "const":
            self._bools[term] = self._truth(bool(term.data))
        elif op == "const":
            self._vectors[term] = self._number(term.width, int(term.data))  # type: ignore[arg-type]
        elif op == "var":
            self._vectors[term] = self._variable(str(term.data), term.width)
        elif op == "apply":
            self._vectors[term] = self._application(term)
        elif op == "ite":
            branches = self._vector(args[1]), self._vector(args[2])
            self._vectors[term] = self._choice(self._bool(args[0]), *branches)
        else:
            self._vectors[term] = self._operation(term, [self._vector(arg) for arg in args])

    def _note_unknowns(self, term: Term) -> None:
        below = list(filter(None, map(self.unknowns.__getitem__, term.args)))
        found = below[0] if below else ()
        if any(other is not found for other in below):
            found = tuple(dict.fromkeys(chain.from_iterable(below)))
        self.unknowns[term] = (*found, term) if term.op in ("var", "apply") else found

    def _application(self, term: Term) -> Any:
        name = str(term.data)
        number = self._applications.get(name, 0)
        self._applications[name] = number + 1
        return self._variable(f"{name}#{number}", term.width)

    @abstractmethod
    def _truth(self, value: bool) -> Any:
        """True or false."""

    @abstractmethod
    def _is_one(self, vector: Any) -> Any:
        """A vector of one bit as a Boolean."""

    @abstractmethod
    def _bit(self, condition: Any) -> Any:
        """A Boolean as a vector of one bit."""

    @abstractmethod
    def _number(self, width: int, value: int) -> Any:
        """A numeral."""

    @abstractmethod
    def _variable(self, name: str, width: int) -> Any:
        """A variable of that name; asked for once per name."""

    @abstractmethod
    def _comparison(self, op: str, a: Any, b: Any) -> Any:
        """One of `COMPARISONS`."""

    @abstractmethod
    def _connective(self, op: str, parts: Sequence[Any]) -> Any:
        """One of `CONNECTIVES` on Booleans."""

    @abstractmethod
    def _choice(self, condition: Any, a: Any, b: Any) -> Any:
        """One of two vectors."""

    @abstractmethod
    def _operation(self, term: Term, args: Sequence[Any]) -> Any:
        """Any other operation of `popek.kernel.terms` on vectors."""


COMPARISONS = frozenset({"eq", "ult", "ule", "slt", "sle"})
CONNECTIVES = frozenset({"and", "or", "xor", "not", "ite"})
