"""Assignments that violate one rule and no other, and those one bit away from that; of any structure of fields."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import attrs

from popek.kernel.words import Word
from popek.solving.solver import Answer, Effort, Model, QuestionKind, Solver

T = TypeVar("T")
M = TypeVar("M")
_RANDOM_BITS: Final = 12
_SOLVERS_AT_ONCE: Final = 8  # each holds some megabytes
_FRUITLESS: Final = 50


@attrs.frozen
class Impossible(Exception):  # noqa: N818 -- an answer, not a defect
    """Nothing was found that violates the check and no other; `why` is one line."""

    why: str

    def __str__(self) -> str:
        return self.why


@attrs.frozen
class Edge:
    """A structure at the edge of a check.

    Attributes:
        found: a VMCS or a VMCB, with all fields given.
        mode: of the baseline that it started from.
        check: id of the check.
        violates: whether it violates the check, and no other; if not, it violates none.
        flip: for one that violates nothing, a field and a bit whose change makes it violate the check.
    """

    found: Any
    mode: str
    check: str
    violates: bool
    flip: tuple[str, int] | None = None


class Finder:
    """Finds assignments that violate one rule only, near a base.

    Args:
        symbols: the fields that may change, by id.
        widths: of them, in bits.
        base: values of all fields; they violate nothing.
        violated: where each rule is violated; None if that is not known.
        holds: where each rule holds on every processor; None if that is not known.
        wider: fields that often have to follow when one changes.
        effort: bounds on the solver.
    """

    def __init__(
        self,
        symbols: Mapping[str, Word],
        widths: Mapping[str, int],
        base: Mapping[str, int],
        violated: Mapping[str, Word | None],
        holds: Mapping[str, Word | None],
        wider: Sequence[str],
        effort: Effort,
    ) -> None:
        """Prepare for questions; see the class."""
        self.symbols, self.widths, self.base = symbols, widths, base
        self._violated, self._holds, self._wider, self._effort = violated, holds, wider, effort
        self._translated = Solver(effort)
        self._solvers: dict[str, tuple[Solver, Sequence[str]] | None] = {}

    def violation(
        self, check_id: str, near: Sequence[str], rnd: random.Random, read: Callable[[Model], T | None]
    ) -> T | None:
        """What `read` makes of a model, another one each time; None if there is none, or `read` refuses four.

        Args:
            check_id: of the rule.
            near: fields that the rule looks at: they are tried first.
            rnd: for the samples.
            read: makes a structure of a model; None if it is not as wanted after all.
        """
        if check_id not in self._solvers:
            if len(self._solvers) >= _SOLVERS_AT_ONCE:
                self._solvers.clear()
            self._solvers[check_id] = self._prepare(check_id, near)
        prepared = self._solvers[check_id]
        if prepared is None:
            return None
        for _ in range(4):
            found = self._sample(*prepared, rnd, read)
            if found is not None:
                return found
        return None

    def _prepare(self, check_id: str, near: Sequence[str]) -> tuple[Solver, Sequence[str]] | None:
        """A solver for the violation of a check alone, with as few fields free as will do."""
        violated, symbols = self._violated[check_id], self.symbols
        if violated is None or violated.value == 0:
            return None
        common = [word for other, word in self._holds.items() if other != check_id and word is not None]
        if any(holds.value == 0 for holds in common):
            return None
        near = [name for name in near if name in symbols]
        wider = [name for name in self._wider if name in symbols and name not in near]
        for names in (near, [*near, *wider], list(symbols)):
            solver = Solver(self._effort, beside=self._translated, kind=QuestionKind.QUICK)
            for name, word in symbols.items():
                if name not in names:
                    solver.add(word == self.base[name])
            for condition in (violated, *common):
                solver.add(condition)
            if solver.check() is Answer.SAT:
                return solver, names
        return None

    def _sample(
        self, solver: Solver, names: Sequence[str], rnd: random.Random, read: Callable[[Model], T | None]
    ) -> T | None:
        levels = 0
        try:
            for _ in range(rnd.randrange(_RANDOM_BITS)):
                name = rnd.choice(names)
                wanted = self.symbols[name][rnd.randrange(self.widths[name])] == rnd.randrange(2)
                solver.push(wanted)
                levels += 1
                if solver.check() is not Answer.SAT:
                    solver.pop()
                    levels -= 1
            return read(solver.model()) if solver.check() is Answer.SAT else None
        finally:
            for _ in range(levels):
                solver.pop()

    def beside(
        self,
        fields: Mapping[str, int],
        near: Iterable[str],
        rnd: random.Random,
        passes: Callable[[str, int], T | None],
    ) -> tuple[T, str, int] | None:
        """What passes with one bit of the fields of a rule turned over, and that bit; None if no bit does it.

        Args:
            fields: that violate the rule.
            near: fields that the rule looks at.
            rnd: for the order.
            passes: takes a field and its other value; None if something is violated still.
        """
        bits = [
            (name, number) for name in near if name in self.symbols for number in range(self.widths[name])
        ]
        rnd.shuffle(bits)
        for name, number in bits:
            if (other := passes(name, fields[name] ^ 1 << number)) is not None:
                return other, name, number
        return None


def alternate(
    check_id: str,
    count: int,
    rnd: random.Random,
    modes: Iterable[M],
    violation: Callable[[M], T | None],
    beside: Callable[[M, T], tuple[T, str, int] | None],
    why_not: Callable[[], str],
) -> Iterator[Edge]:
    """Violations of a check and, in turn, what is one bit away from one, over several modes.

    Args:
        check_id: of the check.
        count: how many.
        rnd: for the order of the modes.
        modes: to start from.
        violation: another violation in a mode; None if there is none.
        beside: what is one bit away from a violation, and the bit.
        why_not: why there is none, in one line.

    Raises:
        Impossible: no mode has a violation.
    """
    waiting = list(modes)
    rnd.shuffle(waiting)
    made, fruitless = 0, 0
    while made < count:
        if not waiting or fruitless > _FRUITLESS:
            if made:
                return
            raise Impossible(why_not())
        mode = waiting.pop(0)
        found = violation(mode)
        if found is None:
            fruitless += 1
            continue  # this mode has none
        waiting.append(mode)
        yield Edge(found, str(mode), check_id, violates=True)
        made += 1
        if made < count and (near := beside(mode, found)) is not None:
            other, name, number = near
            yield Edge(other, str(mode), check_id, violates=False, flip=(name, number))
            made += 1


def edge_json(
    edge: Edge,
    number: int,
    capabilities: str | Mapping[str, object],
    memory: Collection[tuple[int, int, int]],
) -> dict[str, object]:
    """A line for `check --jsonl`, with what was sought beside it."""
    line: dict[str, object] = {
        "name": f"{edge.check} {number} {edge.mode} {'violation' if edge.violates else 'boundary'}",
        "check": edge.check,
        "violates": edge.violates,
        "fields": {name: hex(value) for name, value in edge.found.fields.items()},
        "capabilities": capabilities,
    }
    if memory:
        line["memory"] = [[hex(address), size, hex(value)] for address, size, value in memory]
    if edge.flip is not None:
        line["flip"] = {"field": edge.flip[0], "bit": edge.flip[1]}
    return line


__all__ = ["Edge", "Finder", "Impossible", "alternate", "edge_json"]
