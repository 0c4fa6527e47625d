"""Small machines: found by a solver, decoded into tables, checked in plain Python.

A lemma about an arbitrary machine is worth little if its hypotheses cannot hold together, or if one of
them does no work.  Both are shown by a machine small enough to read: one in which the hypotheses hold, and
for each hypothesis one in which the others hold and the conclusion fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import attrs

from popek.solving.first_order import ask
from popek.solving.formula import (
    BOOL,
    INT,
    STORAGE,
    WORD,
    Expr,
    Function,
    Sizes,
    Structure,
    conj,
    constant,
    disj,
    element,
    elements,
    equal,
    evaluate,
    functions_of,
    number,
    script,
    select,
    walk,
)
from popek.solving.solver import Answer, Effort


class DecodeError(RuntimeError):
    """A machine that a solver found does not do, in Python, what the solver said.  A defect of popek."""


@attrs.frozen
class SmallScope:
    """How small a machine to look for.

    Attributes:
        sizes: elements of each sort; a sort that is not listed has two.
        growing: the sort that grows until a machine is found, one element at a time.
        most: how many elements it may get.
        limit: constants of sort Int are at most this, and a storage has the locations from 0 to twice it,
            which
            is what a quantifier over Int ranges over: formulas guard their locations, so that no more matter.
    """

    sizes: Mapping[str, int] = attrs.field(factory=dict)
    growing: str = "State"
    most: int = 6
    limit: int = 4

    @property
    def locations(self) -> int:
        """How many locations a storage has."""
        return 2 * self.limit + 1

    def steps(self, sorts: set[str]) -> Iterator[Sizes]:
        """The sizes to try, the smallest first."""
        fixed = {sort: self.sizes.get(sort, 2) for sort in sorts} | {INT: self.locations}
        if self.growing not in sorts:
            yield fixed
            return
        for size in range(1, self.most + 1):
            yield {**fixed, self.growing: size}


@attrs.frozen(eq=False)
class SmallMachine:
    """A machine as tables.

    Attributes:
        structure: the tables.
        functions: what each table is the table of.
    """

    structure: Structure
    functions: Mapping[str, Function]

    def holds(self, formula: Expr) -> bool:
        """Whether a formula holds in it, by trying every element."""
        return evaluate(formula, self.structure)

    def columns(self) -> dict[str, dict[str, object]]:
        """The tables for people: a row per state (and per storage location), a column per function."""
        rows: dict[str, dict[str, object]] = {}
        for name, function in sorted(self.functions.items(), key=_column):
            for args, value in self.structure.tables[name].items():
                *others, last = function.domain or ("",)
                column = name
                if others:
                    listed = ", ".join(_name(s, a) for s, a in zip(others, args[:-1], strict=True))
                    column = f"{name}({listed}, ·)"
                row = _name(last, args[-1]) if args else "constants"
                rows.setdefault(row, {})[column] = _shown(function.codomain, value)
        return rows

    def to_json(self) -> dict[str, object]:
        """The tables by row and column."""
        return dict(self.columns())

    def __str__(self) -> str:
        blocks: dict[tuple[str, ...], list[list[str]]] = {}
        for row, cells in self.columns().items():
            blocks.setdefault(tuple(cells), []).append([row, *(str(v) for v in cells.values())])
        shown = []
        for head, lines in blocks.items():
            table = [["", *head], *lines]
            widths = [max(len(line[c]) for line in table) for c in range(len(table[0]))]
            shown += [
                "  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)).rstrip() for line in table
            ]
        return "\n".join(shown)


def _column(item: tuple[str, Function]) -> tuple[int, bool, bool]:
    """What a state is comes first, then the maps, then the instructions: whether they trap, and where they
    lead."""
    domain, codomain = item[1].domain, item[1].codomain
    return len(domain), codomain in domain, codomain != BOOL


def _name(sort: str, value: int) -> str:
    return str(value) if sort in (INT, BOOL) else f"{sort.lower()}{value}"


def _shown(sort: str, value: int | tuple[int, ...]) -> object:
    if isinstance(value, tuple):
        return " ".join(str(cell) for cell in value)
    if sort == BOOL:
        return "yes" if value else "no"
    return value if sort == INT else _name(sort, value)


def find(
    title: str, formulas: Sequence[tuple[str, Expr]], scope: SmallScope, effort: Effort | None = None
) -> tuple[Answer, SmallMachine | None]:
    """The smallest machine in scope in which all the formulas hold.

    Returns:
        SAT and the machine; UNSAT and None where there is none in scope; UNKNOWN and None.

    Raises:
        DecodeError: what was found does not hold in Python.
    """
    exprs = [expr for _, expr in formulas]
    functions = functions_of(exprs)
    sorts = {e.sort for e in walk(exprs)} | {s for f in functions.values() for s in f.domain}
    if STORAGE in sorts:
        sorts.add(WORD)
    last = Answer.UNSAT
    for sizes in scope.steps(sorts - {BOOL, INT, STORAGE}):
        answer, machine = _find_in(title, formulas, functions, sizes, scope, effort)
        if machine is not None:
            for name, expr in formulas:
                if not machine.holds(expr):
                    raise DecodeError(
                        f"{title}: {name} does not hold in the machine that was found\n{machine}"
                    )
            return answer, machine
        last = Answer.UNKNOWN if Answer.UNKNOWN in (answer, last) else answer
    return last, None


def _find_in(
    title: str,
    formulas: Sequence[tuple[str, Expr]],
    functions: Mapping[str, Function],
    sizes: Sizes,
    scope: SmallScope,
    effort: Effort | None,
) -> tuple[Answer, SmallMachine | None]:
    entries = list(_entries(functions, sizes, scope.locations))
    extra: list[tuple[str, Expr]] = []
    for index, (_, _, term) in enumerate(entries):
        extra.append((f"output-is-{index}", equal(constant(f"output-{index}", term.sort), term)))
        if term.sort == INT:
            extra.append((f"range-{index}", conj(number(0) <= term, term <= scope.limit)))
        elif term.sort != BOOL:
            known = [equal(term, element(value, term.sort)) for value in elements(term.sort, sizes)]
            extra.append((f"range-{index}", disj(*known)))
    query = script(title, [*formulas, *extra], sizes)
    reply = ask(query, [f"output-{index}" for index in range(len(entries))], effort)
    if reply.answer is not Answer.SAT:
        return reply.answer, None
    tables: dict[str, dict[tuple[int, ...], int | tuple[int, ...]]] = {name: {} for name in functions}
    for (name, args, term), value in zip(entries, reply.values, strict=True):
        if term.op == "select":
            cells = tables[name].get((), ())
            assert isinstance(cells, tuple)
            tables[name][()] = (*cells, value)
        else:
            tables[name][args] = value
    return reply.answer, SmallMachine(Structure(sizes, tables), functions)


def _entries(
    functions: Mapping[str, Function], sizes: Sizes, locations: int
) -> Iterator[tuple[str, tuple[int, ...], Expr]]:
    """Every entry of every table, as a term; a storage has one per location."""
    for name, function in functions.items():
        if function.codomain == STORAGE:
            for address in range(locations):
                yield name, (address,), select(function(), address)
            continue
        for args in itertools.product(*(elements(sort, sizes) for sort in function.domain)):
            given = [element(a, sort) for sort, a in zip(function.domain, args, strict=True)]
            yield name, args, function(*given)
