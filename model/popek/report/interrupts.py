"""Traces of interrupts, as text and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .svg import Figure, columns

if TYPE_CHECKING:
    from collections.abc import Callable

    from popek.kernel.interrupts import TraceStep
    from popek_proofs.assistance.interrupts import InterruptResult, Trace

_STYLES = {"holds": "bold green", "refuted": "bold red", "unknown": "bold yellow"}
_LONGEST = 34  # characters of a line in a box


def result(found: InterruptResult) -> RenderableType:
    """Every promise with its verdict, and the traces that break one."""
    dropped = ", ".join(sorted(found.dropped)) or "nothing"
    questions = sum(row.evidence is not None for row in found.rows)
    parts: list[RenderableType] = [Text(f"dropped: {dropped}; {questions} questions, base and steps")]
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, statement, status in found.promises:
        table.add_row(Text(status.value, _STYLES[status.value]), name, statement)
    parts.append(table)
    by_steps: dict[tuple[str, ...], list[Trace]] = {}
    for trace in found.traces:
        by_steps.setdefault(tuple(step.event for step in trace.steps), []).append(trace)
    for same in by_steps.values():
        parts += ["", *_trace(same, found.interrupts.words)]
    return Group(*parts)


def _trace(same: list[Trace], guest: Callable[[Any], str]) -> list[RenderableType]:
    head = Text(f"shortest trace against {', '.join(trace.promise for trace in same)}", "bold")
    table = Table(box=None, pad_edge=False)
    for title in ("", "guest", "what happens", "outcome"):
        table.add_column(title)
    for number, step in enumerate(same[0].steps, 1):
        outcome = Text("; ".join(outcomes(step)), "red" if step.broken else "")
        table.add_row(str(number), guest(step.before), step.event, outcome)
    return [head, table]


def outcomes(step: TraceStep) -> list[str]:
    """What came of a step."""
    found = []
    if step.injected is not None:
        found.append("VM exit" + (f", injects {step.injected:#x}" if step.injected else ", injects nothing"))
    if step.given:
        found.append(f"the guest is given an {step.given}")
    if step.broken:
        found.append(f"breaks {', '.join(step.broken)}")
    return found


def figure(trace: Trace, guest: Callable[[Any], str]) -> Figure:
    """A trace from left to right: the guest's state (in words), what happens, the next state."""
    graph = nx.DiGraph()
    for number, step in enumerate(trace.steps):
        state, event = ("state", number), ("event", number)
        graph.add_node(state, layer=2 * number, lines=wrapped(guest(step.before)), kind="")
        kind = (
            "red" if step.broken else "blue" if step.injected is not None else "green" if step.given else ""
        )
        lines = [*wrapped(step.event), *(line for told in outcomes(step) for line in wrapped(told))]
        graph.add_node(event, layer=2 * number + 1, lines=lines, kind=kind)
        graph.add_edge(state, event)
        if number:
            graph.add_edge(("event", number - 1), state)
    words = "\n".join(
        f"{number}. {guest(step.before)}: {step.event}" + "".join(f"; {told}" for told in outcomes(step))
        for number, step in enumerate(trace.steps, 1)
    )
    return columns(graph, words=f"breaks {trace.promise}\n{words}")


def wrapped(words: str) -> list[str]:
    """The words in lines that fit into a box."""
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _LONGEST:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
