"""Hardware assistance as figures: which control decides about which exit, and the chosen controls bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import networkx as nx

from popek.assistance.exits import Governed
from popek.assistance.synthesis import Synthesis
from popek.kernel.assistance import Assistance, Processor

from .assistance import short
from .graphs import bit_strip
from .svg import Figure, columns, stacked


@attrs.frozen
class _Bit:
    high: int
    low: int
    name: str
    meaning: str
    value: int


def exits(assistance: Assistance[Any], found: Sequence[Governed]) -> Figure:
    """Controls to the left, instructions in the middle, the exits they may take to the right.

    An instruction that exits whatever the controls is red, one that never exits is green.
    """
    graph = nx.DiGraph()
    for item in found:
        never = item.reason is None
        kind = "green" if never else "" if item.controls else "red"
        graph.add_node(("form", item.form), layer=1, lines=[item.form], kind=kind)
        for control in item.controls:
            graph.add_node(("control", control), layer=0, lines=[short(assistance, control)], kind="blue")
            graph.add_edge(("control", control), ("form", item.form))
        if item.reason is not None:
            graph.add_node(("exit", item.reason), layer=2, lines=[f"{item.reason} {item.title}"])
            graph.add_edge(("form", item.form), ("exit", item.reason), kind="" if item.controls else "red")
    return columns(graph, ("control that decides", "instruction", "exit reason"))


def controls(processor: Processor, found: Synthesis) -> Figure:
    """The chosen fields that have named bits, bit by bit."""
    strips = []
    for field, value in found.fields.items():
        width, bits = processor.layout(field, value)
        if bits:
            parts = [
                _Bit(high, low, name, meaning, value >> low & (2 << high - low) - 1)
                for high, low, name, meaning in bits
            ]
            strips.append(bit_strip(field, value, width, parts))
    return stacked(strips)
