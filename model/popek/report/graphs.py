"""Figures of results: path trees, what leaks into what, the premise of Theorem 1, settings, runs, bits."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import networkx as nx

from popek.checks.conditions import Conditions, Weakest
from popek.checks.counterexample import differences
from popek.checks.leaks import Leaks
from popek.checks.path_tree import LONGEST, brief, ending, spelled
from popek.checks.runs import Run
from popek.checks.survey import Survey
from popek.checks.verdict import Truth
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.terms import Term
from popek.kernel.words import Word

from .svg import CHARACTER, LINE, MARGIN, SIZE, Figure, GridCell, box, columns, grid, text, width_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from popek.kernel.program import Line
    from popek_proofs.theorems.monitor import Monitor
    from popek_proofs.theorems.proposition import Proposition

MOST_COMBINATIONS = 32


# -- the paths of an instruction ------------------------------------------------------------------


def path_tree(machine: Machine[Any], instruction: Instruction, run: Run[Any]) -> Figure:
    """What an instruction asks, in order, and how each way through it ends."""
    graph = nx.DiGraph()
    for number, path in enumerate(run.paths):
        prefix: tuple[tuple[Term, bool], ...] = ()
        last: Any = None
        for condition in path.conditions:
            asked, yes = (condition.args[0], False) if condition.op == "not" else (condition, True)
            node = ("asked", prefix, asked)
            if node not in graph:
                whole = spelled(asked, machine.state)
                lines = [f"{brief(asked, whole)} ?"]
                graph.add_node(node, layer=len(prefix), lines=lines, title=whole[:600], kind="")
            _link(graph, last, node)
            last, prefix = (node, yes), (*prefix, (asked, yes))
        end = ("end", number)
        lines, kind = ending(run.before, path.result)
        graph.add_node(end, layer=len(prefix), lines=lines, kind=kind)
        _link(graph, last, end)
    return columns(graph, words=f"{instruction.form}: {_tree_in_words(graph)}")


def _link(graph: nx.DiGraph, last: Any, node: Any) -> None:
    if last is not None:
        graph.add_edge(last[0], node, label="yes" if last[1] else "no")


def _tree_in_words(graph: nx.DiGraph) -> str:
    """The tree, indented."""
    if not graph:
        return "no path"
    lines: list[str] = []

    def tell(node: Any, depth: int, label: str) -> None:
        lines.append("  " * depth + f"{label} {' '.join(graph.nodes[node]['lines'])}".strip())
        for other in graph.successors(node):
            tell(other, depth + 1, f"{graph.edges[node, other]['label']}:")

    tell(next(iter(graph)), 0, "")
    return "\n".join(lines)


# -- what leaks into what -------------------------------------------------------------------------


def sensitivity(found: Iterable[Leaks]) -> nx.DiGraph:
    """Which state component leaks through which instruction into which result.

    On the left every leaf that was found to leak, varied alone.  On the right what the witness shows: the
    results in which its two runs differ, and every mode or resource leaf that a run can change.
    """
    graph = nx.DiGraph()
    for one in found:
        kind = "red" if one.critical is Truth.YES else "green" if one.privileged is Truth.YES else ""
        middle = ("instruction", one.form)
        graph.add_node(middle, layer=1, lines=[one.form], kind=kind, title=one.summary)
        for leaking, shown in zip(one.leaking, one.shown, strict=True):
            _arrows(graph, middle, leaking, kind, into=True)
            _arrows(graph, middle, [_place(name) for name in shown], kind, into=False)
    return graph


def _place(name: str) -> str:
    """A leaf as it is; of a cell, the memory that holds it."""
    return name.partition("[0x")[0]


def _arrows(graph: nx.DiGraph, middle: Any, names: Iterable[str], kind: str, *, into: bool) -> None:
    for name in dict.fromkeys(names):
        component = re.split(r"[.[]", name)[0]
        leaf = name.removeprefix(component)
        side, layer = ("state", 0) if into else ("result", 2)
        node = (side, component)
        if node not in graph:
            graph.add_node(node, layer=layer, lines=[component], leaves=[], title="")
        leaves = graph.nodes[node]["leaves"]
        if leaf and leaf not in leaves:
            leaves.append(leaf)
            shown = " ".join(leaves)
            graph.nodes[node]["lines"] = [
                component,
                shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…",
            ]
            graph.nodes[node]["title"] = f"{component} {shown}"
        edge = (node, middle) if into else (middle, node)
        graph.add_edge(*edge, kind=kind)
        graph.edges[edge].setdefault("leaves", []).append(name)


def sensitivity_figure(found: Iterable[Leaks]) -> Figure:
    """The graph of `sensitivity`: critical instructions red, privileged ones green."""
    return columns(sensitivity(found), ("state that leaks", "instruction", "into, or changes"))


# -- the premise of Theorem 1 ---------------------------------------------------------------------


def premise(found: Survey) -> Figure:
    """Four fields, sensitive or not by privileged or not; Theorem 1 asks for one of them to be empty."""
    fields: dict[tuple[bool, bool], list[str]] = {(s, p): [] for s in (True, False) for p in (True, False)}
    unknown: list[str] = []
    for mnemonic, rows in found.by_mnemonic().items():
        answers = [row.classes[name] for row in rows for name in ("critical", "sensitive", "privileged")]
        if Truth.UNKNOWN in answers:
            unknown.append(mnemonic)
            continue
        critical = any(row.classes["critical"] is Truth.YES for row in rows)
        sensitive = critical or any(row.classes["sensitive"] is Truth.YES for row in rows)
        privileged = not critical and any(row.classes["privileged"] is Truth.YES for row in rows)
        fields[sensitive, privileged].append(mnemonic)
    titles = {
        (True, True): ("sensitive, privileged", "green"),
        (True, False): ("sensitive, not privileged: critical", "red"),
        (False, True): ("privileged, and innocuous by definition", ""),
        (False, False): ("innocuous: run directly", "bare"),
    }
    width = 300.0
    wrapped = {
        key: _wrapped(names or ["(empty)"], int((width - 20) / CHARACTER)) for key, names in fields.items()
    }
    parts: list[str] = []
    y = MARGIN
    for sensitive in (True, False):
        height = max(len(wrapped[sensitive, p]) for p in (True, False)) * LINE + 34
        for n, privileged in enumerate((True, False)):
            title, kind = titles[sensitive, privileged]
            kind = "bare" if not fields[sensitive, privileged] else kind
            x = MARGIN + n * (width + 8)
            parts.append(box(x, y, width, height, [], kind))
            parts.append(text(x + 10, y + LINE + 2, title, "head"))
            parts += [
                text(x + 10, y + 2 * LINE + 8 + i * LINE, line)
                for i, line in enumerate(wrapped[sensitive, privileged])
            ]
        y += height + 8
    verdict = {
        "holds": "Theorem 1 applies: nothing is sensitive and not privileged",
        "refuted": f"Theorem 1 does not apply: {len(fields[True, False])} critical",
        "unknown": "undecided",
    }[found.theorem1.value]
    parts.append(text(MARGIN, y + SIZE, verdict, "head"))
    said = [f"{titles[key][0]}: {', '.join(names) or 'none'}" for key, names in fields.items()]
    if unknown:
        said.append(f"unknown: {', '.join(unknown)}")
        parts.append(text(MARGIN, y + SIZE + LINE, f"unknown: {', '.join(unknown)}"))
        y += LINE
    return Figure("".join(parts), 2 * width + 8 + 2 * MARGIN, y + LINE + MARGIN, "\n".join([*said, verdict]))


def _wrapped(names: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + 2 + len(name) > width:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + name
    return lines


# -- settings -------------------------------------------------------------------------------------


def settings(found: Conditions, values: Mapping[str, Sequence[int]]) -> Figure:
    """Instructions by combinations of the open settings: critical or not; a line per form where they differ.

    Args:
        values: the values of each open setting.

    Raises:
        ValueError: more combinations than can be looked at.
    """
    points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    if len(points) > MOST_COMBINATIONS:
        raise ValueError(f"{len(points)} combinations of {', '.join(values)}: leave fewer settings open")
    told = {row.form: tuple(_cell(row, point) for point in points) for row in found.rows}
    rows: dict[str, Sequence[GridCell]] = {}
    for mnemonic in dict.fromkeys(row.mnemonic for row in found.rows):
        forms = [row.form for row in found.rows if row.mnemonic == mnemonic]
        alike = len({tuple(cell.content for cell in told[form]) for form in forms}) == 1
        rows |= {mnemonic: told[forms[0]]} if alike else {form: told[form] for form in forms}
    return grid(rows, [" ".join(f"{k}={v}" for k, v in point.items()) for point in points])


def _cell(row: Weakest, point: Mapping[str, int]) -> GridCell:
    title = f"{row.form} with {', '.join(f'{k}={v}' for k, v in point.items())}"
    if _meets(row.unknown, point):
        return GridCell("unknown", "yellow", title)
    return GridCell("critical", "red", title) if _meets(row.when, point) else GridCell("·", "", title)


def _meets(alternatives: Iterable[Mapping[str, tuple[int, ...]]], point: Mapping[str, int]) -> bool:
    return any(all(point[name] in allowed for name, allowed in one.items()) for one in alternatives)


# -- theorems -------------------------------------------------------------------------------------


def propositions(known: Sequence[Proposition]) -> Figure:
    """How propositions rest on one another, lemmas at the left."""
    graph = nx.DiGraph()
    for one in known:
        name = one.id.partition(".")[2].replace("-", " ")
        graph.add_node(one.id, layer=0, lines=[name], title=one.statement)
    for one in known:
        graph.add_edges_from((h.by, one.id) for h in one.hypotheses if h.by in graph)
    for layer, names in enumerate(nx.topological_generations(graph)):
        for name in names:
            last = not list(graph.successors(name)) and layer > 0
            graph.nodes[name].update(layer=layer, kind="green" if last else "")
    return columns(graph)


# -- runs and maps --------------------------------------------------------------------------------


def trace(monitor: Monitor[Any], start: Any, program: Sequence[Line]) -> Figure:
    """A program on the bare machine beside the same program under the monitor; differences are red."""
    from popek_proofs.theorems.monitor import bare_step, shown

    bare = guest = start
    graph = nx.DiGraph()
    for n, title in enumerate(("bare machine", "virtual machine")):
        graph.add_node((n, 0), layer=0, lines=[title, _where(monitor.machine, start)])
    for number, line in enumerate(program, 1):
        after = bare_step(monitor.machine, bare, line.instruction, line.words)
        step = monitor.step(guest, line.instruction, line.words)
        left, right = (shown(monitor.machine, s, monitor.cells) for s in (after, step.guest))
        apart = {name for name in left if left[name] != right[name]}
        for n, (before, now) in enumerate(((bare, after), (guest, step.guest))):
            how = "" if n == 0 else f"  [{step.how}]"
            changes = [str(d) for d in differences(before, now)] or ["nothing changes"]
            marked = [f"{c} ◄" if c.split(" ")[0] in _addressed(apart) else c for c in changes]
            lines = [f"{line}{how}", *marked]
            if n == 1 and step.escape:
                lines.append(step.escape)
            kind = "red" if n == 1 and (apart or step.escape) else "green" if n == 1 else ""
            graph.add_node((n, number), layer=number, lines=lines, kind=kind)
            graph.add_edge((n, number - 1), (n, number))
        bare, guest = after, step.guest
    return columns(graph, words=_side_by_side(graph, len(program)))


def _addressed(names: Iterable[str]) -> Collection[str]:
    """Cells as `differences` names them, in hexadecimal."""
    return {re.sub(r"\[(\d+)\]", lambda m: f"[{int(m[1]):#x}]", name) for name in names}


def _where(machine: Machine[Any], state: Any) -> str:
    return "supervisor mode" if bool(machine.supervisor(state)) else "user mode"


def _side_by_side(graph: nx.DiGraph, length: int) -> str:
    return "\n".join(
        " → ".join("; ".join(graph.nodes[n, number]["lines"]) for number in range(length + 1)) for n in (0, 1)
    )


def storage_map(monitor: Monitor[Any], guest: Any, memory: str = "memory") -> Figure:
    """Where the cells of the guest's storage are in the hardware's, under the monitor's map."""
    content = guest.memories()[memory]
    hardware = monitor.technique.map(guest, monitor.private)
    graph = nx.DiGraph()
    size = monitor.cells[memory]
    for address in range(size):
        where = int(monitor.technique.guest_address(monitor.private, Word(content.address_width, address)))
        value = int(content.load(Word(content.address_width, address)))
        graph.add_node(("guest", address), layer=0, lines=[f"{memory}[{address}] = {value:#x}"])
        graph.add_node(("real", address), layer=1, lines=[f"{memory}[{where}]"], kind="green")
        graph.add_edge(("guest", address), ("real", address))
    for d in differences(guest, hardware):
        if not d.name.startswith(f"{memory}["):
            graph.add_node(("guest", d.name), layer=0, lines=[f"{d.name} = {d.before:#x}"])
            graph.add_node(("real", d.name), layer=1, lines=[f"{d.name} = {d.after:#x}"], kind="blue")
            graph.add_edge(("guest", d.name), ("real", d.name))
    return columns(graph, ("what the guest believes", "where the hardware is"))


# -- bits of a field ------------------------------------------------------------------------------


class BitsOfField(Protocol):
    """Named bits of a field."""

    @property
    def high(self) -> int: ...  # noqa: D102
    @property
    def low(self) -> int: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def value(self) -> int: ...  # noqa: D102
    @property
    def meaning(self) -> str: ...  # noqa: D102


def bit_strip(
    field: str, value: int, width: int, bits: Sequence[BitsOfField], wrong: Collection[int] = ()
) -> Figure:
    """A field bit by bit, high ones first, with the names of its parts; `wrong` ones are red."""
    cell, per_row = 25.0, 32
    left = MARGIN
    parts = [text(left, MARGIN + SIZE, f"{field} = {value:#x}", "head")]
    y = MARGIN + LINE + 6
    for top in range(width - 1, -1, -per_row):
        numbers = range(top, max(-1, top - per_row), -1)
        for n, number in enumerate(numbers):
            kind = "red" if number in wrong else "blue" if value >> number & 1 else "bare"
            name = next((b.name for b in bits if b.low <= number <= b.high), "")
            parts.append(text(left + n * cell + cell / 2 - 1, y + SIZE, str(number), "quiet", "middle"))
            parts.append(
                box(
                    left + n * cell,
                    y + LINE,
                    cell - 2,
                    20,
                    [str(value >> number & 1)],
                    kind,
                    f"{number} {name}",
                )
            )
        y += LINE + 26
    names = []
    for bit in bits:
        marked = any(bit.low <= number <= bit.high for number in wrong)
        if bit.value or marked:
            place = f"{bit.high}" if bit.high == bit.low else f"{bit.high}:{bit.low}"
            meaning = f": {bit.meaning}" if bit.meaning else ""
            names.append(f"{'◄ ' if marked else '  '}{bit.name}[{place}] = {bit.value:#x}{meaning}")
            parts.append(text(left, y + SIZE, names[-1], "head" if marked else ""))
            y += LINE
    said = f"{field} = {value:#x}" + (f"; wrong: bits {', '.join(map(str, wrong))}" if wrong else "")
    right = max(left + min(width, per_row) * cell, left + width_of(names) + 30)
    return Figure("".join(parts), right + MARGIN, y + MARGIN, "\n".join([said, *names]))
