"""Counterexamples: minimal, replayed on the concrete semantics, and shown by field.

A counterexample is found by the solver, made minimal (the fewest leaves that differ from a plain reset
state, in declared order), turned into concrete states, and run again on integers.  Only then is it
reported; a witness that does not replay is a defect of popek and says so.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Container, Iterable, Mapping
from functools import cached_property
from typing import Generic, TypeVar

import attrs

from popek.kernel import terms
from popek.kernel.evaluation import evaluate
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Block, Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.program import Line
from popek.kernel.state import UNDEFINED, State
from popek.kernel.terms import Term
from popek.kernel.words import Word
from popek.solving.solver import Model

S = TypeVar("S", bound=State)


class ReplayError(RuntimeError):
    """A witness did not replay: the symbolic and the concrete run disagree.  A defect of popek."""


@attrs.frozen
class StateDifference:
    """One leaf or storage cell with two values."""

    name: str
    before: int
    after: int
    width: int

    def __str__(self) -> str:
        return f"{self.name} {show(self.before, self.width)} → {show(self.after, self.width)}"


def show(value: int, width: int) -> str:
    """A number as manuals print it: small ones plain, wide ones in hexadecimal."""
    return str(value) if width <= 3 else f"{value:#x}"


@attrs.frozen(eq=False)
class Executed(Generic[S]):
    """A concrete run: where it started, what was run and what happened."""

    label: str
    before: S
    outcome: Outcome[S]
    lines: tuple[Line, ...] = ()

    @cached_property
    def changes(self) -> tuple[StateDifference, ...]:
        """What a completed run changed."""
        return differences(self.before, self.outcome.state) if isinstance(self.outcome, Next) else ()

    def describe(self) -> str:
        """One line."""
        match self.outcome:
            case Next():
                return "; ".join(map(str, self.changes)) or "nothing changes"
            case Trap(vector, code, _, _):
                return f"traps: {vector}" + ("" if code is None else f"({int(code):#x})")
            case NotModelled(reason):
                return f"not modelled: {reason}"

    def to_json(self) -> dict[str, object]:
        """Trap or changes, by name."""
        match self.outcome:
            case Next():
                return {"changes": {d.name: hex(d.after) for d in self.changes}}
            case Trap(vector, code, _, _):
                return {"trap": str(vector), "error_code": None if code is None else hex(int(code))}
            case NotModelled(reason):
                return {"not_modelled": reason}


@attrs.frozen(eq=False)
class Counterexample(Generic[S]):
    """Two runs of one instruction that a claim says cannot be.

    Attributes:
        claim: the class or promise it speaks about.
        story: one sentence that says what the reader sees.
        instruction: which form.
        assembly: the instruction with its operands.
        before: what differs from the plain reset state, in the first run.
        first, second: the two runs; the second is None where one run is the witness.
        differ: the components in which the results differ, or that change.
    """

    claim: str
    story: str
    instruction: Instruction
    assembly: str
    before: tuple[StateDifference, ...]
    first: Executed[S]
    second: Executed[S] | None
    differ: tuple[StateDifference, ...]

    def to_json(self) -> dict[str, object]:
        """The keys of the classification's witness."""
        second = self.second
        start: dict[str, object] = {d.name: hex(d.after) for d in self.before}
        return {
            "claim": self.claim,
            "story": self.story,
            "assembly": self.assembly,
            "labels": [self.first.label, *([] if second is None else [second.label])],
            "before": start,
            "apart": {}
            if second is None
            else {
                d.name: [hex(d.before), hex(d.after)] for d in differences(self.first.before, second.before)
            },
            "native": self.first.to_json(),
            "virtualized": None
            if second is None
            else {
                "before": {d.name: hex(d.after) for d in differences(self.first.before, second.before)},
                **second.to_json(),
            },
            "differ": {d.name: [hex(d.before), hex(d.after)] for d in self.differ},
        }

    def lines(self) -> list[tuple[str, str, str]]:
        """The two runs side by side: what they start from, the instruction, what becomes of it."""
        second = self.second
        apart = {} if second is None else {d.name: d for d in differences(self.first.before, second.before)}
        start = {d.name: d for d in self.before}
        rows = []
        for name in dict.fromkeys((*start, *apart)):
            known = apart.get(name, start.get(name))
            assert known is not None
            left = show(apart[name].before if name in apart else known.after, known.width)
            rows.append((name, left, show(known.after, known.width) if second is not None else ""))
        rows.append((self.assembly, self.first.describe(), "" if second is None else second.describe()))
        rows += [
            (f"→ {d.name}", show(d.before, d.width), show(d.after, d.width))
            for d in self.differ
            if second is not None
        ]
        return rows

    def __str__(self) -> str:
        """As a table of plain text."""
        titles = (self.story, self.first.label, "" if self.second is None else self.second.label)
        return "\n".join("  ".join(f"{cell:<32}" for cell in row).rstrip() for row in (titles, *self.lines()))

    def _repr_html_(self) -> str:
        """As a table for notebooks; what differs is bold."""
        titles = ("", self.first.label, "" if self.second is None else self.second.label)
        head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
        body = ""
        for name, left, right in self.lines():
            tag = "b" if left != right else "span"
            cells = "".join(f"<td><{tag}>{html.escape(cell)}</{tag}></td>" for cell in (left, right))
            body += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
        caption = html.escape(f"{self.assembly}: {self.story}")
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>"


def differences(
    a: State, b: State, addresses: Mapping[str, Iterable[int]] | None = None
) -> tuple[StateDifference, ...]:
    """Every leaf and cell in which two concrete states differ.

    Storage is compared where either state stored something, and at the given addresses by memory name.
    """
    before, after = a.words(), b.words()
    found = [
        StateDifference(leaf.name, int(a[leaf.name]), int(b[leaf.name]), leaf.width)
        for component in before
        if int(before[component]) != int(after[component])
        for leaf in a.leaves_of[component]
        if int(a[leaf.name]) != int(b[leaf.name])
    ]
    for name, left in a.memories().items():
        right = b.memories()[name]
        if left is right:
            continue
        extra = (addresses or {}).get(name, ())
        for address in sorted({*_touched(left), *_touched(right), *extra}):
            where = Word(left.address_width, address)
            old, new = int(left.load(where)), int(right.load(where))
            if old != new:
                found.append(StateDifference(f"{name}[{address:#x}]", old, new, left.cell_width))
    return tuple(found)


def _touched(content: Memory) -> Iterable[int]:
    """Addresses at which a concrete memory may differ from zero."""
    touched: set[int] = set()
    for entry in content.stores:
        if isinstance(entry, Block):
            touched.update(range(int(entry.destination), int(entry.destination) + int(entry.cells)))
        else:
            touched.add(int(entry[0]))
    if isinstance(content.root, Mapping):
        touched.update(content.root)
    return touched


def leaf_preferences(
    state: State, preferred: State, known: Mapping[str, Term]
) -> Iterable[tuple[Term, Term]]:
    """Each leaf of a symbolic state that the query mentions, with its value in the preferred state."""
    for leaf in state.leaves:
        term = state[leaf.name].term
        if mentions(term, known):
            yield term, preferred[leaf.name].term


def mentions(term: Term, known: Container[str]) -> bool:
    """Whether a variable of these is below a term."""
    pending, seen = [term], {term}
    while pending:
        term = pending.pop()
        if term.op == "var" and term.data in known:
            return True
        pending += (arg for arg in term.args if arg not in seen)
        seen.update(term.args)
    return False


def concretize(
    template: S, model: Model, cells: Iterable[Term], variables: Mapping[str, Term], reset: S
) -> S:
    """The concrete state a model gives to a symbolic one.

    Components the query does not mention take their reset values; unknown contents hold the cells that
    the query read, and zero elsewhere.
    """
    contents: dict[str, dict[int, int]] = {}
    for cell in cells:
        contents.setdefault(str(cell.data), {})[model(cell.args[0])] = model(cell)

    def number(name: str, width: int) -> int:
        known = variables.get(name)
        if known is not None:
            return model(known)
        try:
            return int(reset[name.rstrip("'").partition("@")[0]])
        except KeyError:  # no component's: an operand, an undefined result
            return 0

    def value(term: Term) -> int:
        if term.op in ("var", "const"):  # as most are
            return number(str(term.data), term.width) if term.op == "var" else int(term.data)  # type: ignore[arg-type]
        names = terms.variables_of([term])
        env = {n: number(n, t.width) for n, t in names.items()}
        tables: dict[str, Callable[..., int]] = {
            n: (lambda table: lambda address: table.get(address, 0))(contents.get(n, {}))
            for n in {str(t.data) for t in terms.applications_of([term])}
        }
        return evaluate([term], env, tables)[0]

    state = template.copy()
    for name, old in template.words().items():
        state[name] = Word(old.width, value(old.term))
    for name, content in template.memories().items():
        if isinstance(content.root, str):
            cells_here = contents.get(content.root, {})
            made = Memory(
                content.address_width, content.cell_width, {a: v for a, v in cells_here.items() if v}
            )
            for entry in content.stores:
                if isinstance(entry, Block):
                    made = _filled(name, made, entry)
                    continue
                where, what = (Word(w.width, value(w.term)) for w in entry)
                made = made.store(where, what)
            state._memories[name] = made
        elif callable(
            content.root
        ):  # a view of others, which is what they are at the cells that the query read
            seen = {address for table in contents.values() for address in table}
            width = content.address_width
            numbers = {a: value(content.load(Word(width, a)).term) for a in sorted(seen) if a >> width == 0}
            state._memories[name] = Memory(width, content.cell_width, {a: v for a, v in numbers.items() if v})
    return state.with_undefined({n: model(t) for n, t in variables.items() if n.startswith(UNDEFINED)})


def _filled(name: str, memory: Memory, block: Block) -> Memory:
    """The memory after a block of numbers was copied into it."""
    if not (block.destination.concrete and block.cells.concrete):
        raise ReplayError(f"{name}: a state that begins with a copied block")
    for i in range(int(block.cells)):
        memory = memory.store(block.destination + i, block.contents.load(block.source + i))
    return memory


def execute(
    machine: Machine[S], instruction: Instruction, label: str, before: S, operands: Mapping[str, int]
) -> Executed[S]:
    """Run the instruction on numbers."""
    line = Line(instruction, operands)
    return Executed(label, before, machine.step(instruction, before, line.words), (line,))


def assert_within(machine: Machine[S], instruction: Instruction, claim: str, **conditions: Word) -> None:
    """Raise ReplayError unless the states of a witness are such as the question was about.

    Args:
        conditions: what must hold of them (width 1, numbers), by name.
    """
    outside = [name.replace("_", " ") for name, condition in conditions.items() if condition.value != 1]
    if outside:
        raise ReplayError(
            f"{machine.name}: {instruction.form}: the witness for {claim!r} lies outside {', '.join(outside)}"
        )


def assert_replay(
    condition: bool, instruction: Instruction, claim: str, detail: Callable[[], object] | object
) -> None:
    """Raise ReplayError unless the concrete runs show what the solver found."""
    if not condition:
        told = detail() if callable(detail) else detail
        raise ReplayError(f"{instruction.form}: the witness for {claim!r} does not replay: {told}")
