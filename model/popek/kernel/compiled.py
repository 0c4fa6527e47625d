"""The semantics on numbers, compiled: the same function, run once on symbols, written as Python on integers.

A form is explored without a solver, so that ways through it that no state takes are there, too, and never taken.  The
paths are a decision tree, the terms are expressions on integers; what is computed is what the interpreted semantics
(`Machine.step`) computes, and a law ties the two.  A form that cannot be written so, because it has too many paths or
copies blocks of storage, is interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs

from .exploration import Budget, Path, PathBudgetError, explore
from .expressions import NamesInScope, Uses
from .instruction import Instruction
from .machine import Machine
from .memory import Memory
from .outcome import DeclarationError, Next, NotModelled, Outcome, SemanticsError, Trap
from .state import State
from .terms import Term, invert, value_of
from .words import SymbolicConditionError, Word

S = TypeVar("S", bound=State)

BUDGET: Final = Budget(paths=600, forks=90, nodes=400_000)
"""What is compiled; where there is more, interpreting is as good."""


class NotCompiledError(Exception):
    """The form cannot be written as a decision tree on integers; the message says why."""


@attrs.frozen(eq=False)
class End:
    """How a path ends.

    Attributes:
        outcome: what it is, where all of it is known; its state is not meant.
        changed: the places of the words that it assigns, with their names and widths.
        stores: the places of the memories that it writes to.
        asks: whether what is undefined was asked for.
    """

    outcome: Next[Any] | Trap[Any] | NotModelled
    changed: tuple[tuple[int, str, int], ...] = ()
    stores: frozenset[int] = frozenset()
    asks: bool = False


Run = Callable[
    [list[int], Sequence[dict[int, int]], Sequence[int], Callable[[str, int], int]], tuple[int, int | None]
]
"""Takes the words of a state in declared order, the cells of its memories, the parts of the operands in declared
order, and what is undefined, by name and width; assigns in place; returns the number of the end, and the error code."""


@attrs.frozen(eq=False)
class CompiledForm:
    """A form as a function on integers.

    Attributes:
        run: the function.
        ends: how it ends, by number.
        source: what it was compiled from.
    """

    run: Run
    ends: tuple[End, ...]
    source: str

    @property
    def writes(self) -> bool:
        """Whether some path stores."""
        return any(end.stores for end in self.ends)


def nothing_undefined(what: str, width: int) -> int:
    """The number of an undefined result that nobody chose."""
    return 0


class Compiled(Generic[S]):
    """A machine whose steps on numbers are compiled, each form when it is first stepped.

    >>> from popek.machines import machine
    >>> pg74 = machine("pg74")
    >>> fast, add = Compiled(pg74), pg74.instructions["ADD a"]
    >>> words, cells = fast.numbers(pg74.state.reset(acc=3))
    >>> fast.form(add) is not None
    True
    """

    def __init__(self, machine: Machine[S]) -> None:
        self.machine = machine
        self._forms: dict[Instruction, CompiledForm | None] = {}
        self.why: dict[str, str] = {}  # forms that are interpreted, and the reason

    def form(self, instruction: Instruction) -> CompiledForm | None:
        """The form as a function on integers; None where it is interpreted."""
        try:
            return self._forms[instruction]
        except KeyError:
            pass
        found: CompiledForm | None = None
        try:
            found = compiled(self.machine, instruction)
        except NotCompiledError as error:
            self.why[instruction.form] = str(error)
        self._forms[instruction] = found
        return found

    def numbers(self, state: S) -> tuple[list[int], list[dict[int, int]]]:
        """A state of numbers as a compiled form takes it: its words, and the cells of its memories, both copied."""
        words = [int(word) for word in state.words().values()]
        return words, [dict(memory.cells()) for memory in state.memories().values()]

    def step(self, instruction: Instruction, state: S, operands: Mapping[str, Word]) -> Outcome[S]:
        """As `Machine.step`, on numbers.

        Raises:
            DeclarationError: the semantics leave open what the machine does not declare.
        """
        found = self._forms.get(instruction) or self.form(instruction)
        if found is None:
            return self.machine.step(instruction, state, operands)
        memories = list(state._memories.items())
        words: list[Any] = [word.value for word in state._words.values()]
        parts: list[Any] = [operands[name].value for name in instruction.widths]
        cells: list[Any] = [_cells(memory, found.writes) for _, memory in memories]
        number, code = found.run(words, cells, parts, lambda what, width: int(state._undefined(what, width)))
        end = found.ends[number]
        outcome = end.outcome
        if end.asks and state.leaves_undefined:  # a semantics may say that nobody chose
            return self.machine.step(instruction, state, operands)
        if type(outcome) is NotModelled:
            return outcome
        after = state
        if end.changed or end.stores or type(outcome) is Next:
            after = state.copy()
            for place, name, width in end.changed:
                after._words[name] = Word(width, words[place])
            for place in end.stores:
                name, memory = memories[place]
                after._memories[name] = _written(memory, cells[place])
        if type(outcome) is Next:
            return Next(after)
        assert type(outcome) is Trap
        width = outcome.vector.error_code_width
        return Trap(
            outcome.vector, None if code is None else Word(width, code), outcome.memory, after, outcome.level
        )


class _Overlay(dict[int, int]):
    """The cells that are written of a memory that has some everywhere."""

    __slots__ = ("memory",)

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def get(self, address: int, default: Any = 0) -> Any:
        """A cell."""
        known = super().get(address)
        return int(self.memory.load(Word(self.memory.address_width, address))) if known is None else known


def _cells(memory: Memory, writes: bool) -> Any:
    if not memory.concrete:
        return _Overlay(memory)
    return dict(memory.cells()) if writes else memory.cells()


def _written(memory: Memory, cells: dict[int, int]) -> Memory:
    if not isinstance(cells, _Overlay):
        return attrs.evolve(memory, root=cells)
    for address, cell in cells.items():
        memory = memory.store(Word(memory.address_width, address), Word(memory.cell_width, cell))
    return memory


class _Everything:
    """An oracle that searches for nothing: what the path does not contradict by itself may be."""

    assignment: object = ()

    def push(self, condition: Term) -> None:
        """Nothing."""

    def pop(self) -> None:
        """Nothing."""

    def feasible(self) -> bool:
        """For all it knows."""
        return True


Explored: TypeAlias = "tuple[Outcome[Any], tuple[tuple[str, int], ...]]"


def compiled(machine: Machine[Any], instruction: Instruction) -> CompiledForm:
    """A form as a function on integers.

    Raises:
        NotCompiledError: it cannot be written so.
    """
    start = machine.state.symbolic()
    symbols = instruction.symbols()
    fresh: Callable[[str, int], Word] = start._undefined
    asked: dict[str, int] = {}

    def undefined(what: str, width: int) -> Word:
        asked[what] = width
        return fresh(what, width)

    start._undefined = undefined

    def run() -> Explored:
        asked.clear()
        outcome = machine.step(instruction, start, symbols)
        return outcome, tuple(asked.items())

    try:
        paths = explore(run, _Everything(), budget=BUDGET)
    except PathBudgetError as error:
        raise NotCompiledError(str(error)) from None
    except (DeclarationError, SemanticsError, SymbolicConditionError) as error:
        raise NotCompiledError(f"on symbols, without a solver: {error}") from None
    return _Writer(start, tuple(symbols), paths).written()


class _Writer:
    """Writes the paths of one form as a decision tree."""

    def __init__(self, start: State, parts: Sequence[str], paths: Sequence[Path[Explored]]) -> None:
        self._start, self._paths = start, paths
        self._places = {name: place for place, name in enumerate(start.words())}
        self._memories = {name: place for place, name in enumerate(start.memories())}
        self._ends: list[End] = []
        self._lines: list[str] = []
        variables = {name: f"w[{place}]" for name, place in self._places.items()}
        variables |= {name: f"p[{place}]" for place, name in enumerate(parts)}
        if len(variables) < len(self._places) + len(parts):
            raise NotCompiledError("an operand has the name of a component")
        for _, asked in (path.result for path in paths):
            variables |= {f"undefined {what}": f"u({what!r}, {width})" for what, width in asked}
        self._scope = NamesInScope(variables, {name: f"c{place}" for name, place in self._memories.items()})

    def written(self) -> CompiledForm:
        """The function."""
        leaves = {id(path): list(self._terms_of(path.result[0])) for path in self._paths}
        uses = Uses([condition for path in self._paths for condition in path.conditions])
        for roots in leaves.values():
            uses.add(roots)
        self._tree(list(self._paths), 0, 1, self._scope.used(uses))
        body = "\n".join(self._lines)
        read = [f" c{place} = m[{place}].get" for place in self._memories.values() if f"c{place}(" in body]
        source = "\n".join(("def run(w, m, p, u):", *read, body, ""))
        namespace = self._scope.helpers()
        try:
            exec(
                compile(source, "<compiled semantics>", "exec"), namespace
            )  # the text is made here, from terms
        except (MemoryError, RecursionError, SyntaxError) as error:
            raise NotCompiledError(f"Python does not take it: {error}") from None
        return CompiledForm(namespace["run"], tuple(self._ends), source)

    def _tree(self, paths: list[Path[Explored]], depth: int, indent: int, scope: NamesInScope) -> None:
        """Paths that have their first `depth` conditions in common; the smaller side of each `if` is indented."""
        while len(paths) > 1 or len(paths[0].conditions) > depth:
            condition = paths[0].conditions[depth]
            there = [path for path in paths if path.conditions[depth] is condition]
            other = [path for path in paths if path.conditions[depth] is not condition]
            if len(other) and len(other) < len(there):
                there, other, condition = other, there, invert(condition)
            text = scope.condition(condition, self._lines, indent)
            self._lines.append(f"{' ' * indent}if {text}:")
            self._tree(there, depth + 1, indent + 1, scope.inner())
            if not other:
                raise NotCompiledError("a decision has one side")
            paths, depth = other, depth + 1
        self._leaf(paths[0].result, indent, scope)

    def _terms_of(self, outcome: Outcome[Any]) -> Iterator[Term]:
        if isinstance(outcome, NotModelled):
            return
        for name in self._changed(outcome.state):
            yield outcome.state.words()[name].term
        for _, address, cell in self._stores(outcome.state):
            yield from (address, cell)
        if isinstance(outcome, Trap) and outcome.error_code is not None:
            yield outcome.error_code.term

    def _changed(self, after: State) -> list[str]:
        before = self._start.words()
        return [name for name, word in after.words().items() if word.term is not before[name].term]

    def _stores(self, after: State) -> Iterator[tuple[int, Term, Term]]:
        for name, place in self._memories.items():
            memory = after.memories()[name]
            if memory.root != self._start.memories()[name].root:
                raise NotCompiledError("a memory is replaced")
            for entry in memory.stores:
                if not isinstance(entry, tuple):
                    raise NotCompiledError("copies a block of storage")
                yield place, entry[0].term, entry[1].term

    def _leaf(self, explored: Explored, indent: int, scope: NamesInScope) -> None:
        outcome, asked = explored
        blank = " " * indent
        code = "None"
        if isinstance(outcome, NotModelled):
            end = End(outcome, asks=bool(asked))
        else:
            changed = self._changed(outcome.state)
            stores = list(self._stores(outcome.state))
            targets = [f"w[{self._places[name]}]" for name in changed]
            targets += [f"{kind}{number}" for number in range(len(stores)) for kind in "av"]
            values = [scope.number(term, self._lines, indent) for term in self._terms_of(outcome)]
            if isinstance(outcome, Trap) and outcome.error_code is not None:
                code = values.pop()
                if value_of(outcome.error_code.term) is None and targets:
                    targets, values, code = [*targets, "code"], [*values, code], "code"
            for what, width in asked:
                self._lines.append(f"{blank}u({what!r}, {width})")
            if targets:
                self._lines.append(f"{blank}{', '.join(targets)} = {', '.join(values)}")
            self._lines += [f"{blank}m[{s[0]}][a{number}] = v{number}" for number, s in enumerate(stores)]
            words = self._start.words()
            end = End(
                attrs.evolve(outcome, state=None),
                tuple((self._places[name], name, words[name].width) for name in changed),
                frozenset(place for place, _, _ in stores),
                bool(asked),
            )
        self._lines.append(f"{blank}return {len(self._ends)}, {code}")
        self._ends.append(end)


__all__ = ["BUDGET", "Compiled", "CompiledForm", "End", "NotCompiledError", "compiled", "nothing_undefined"]
