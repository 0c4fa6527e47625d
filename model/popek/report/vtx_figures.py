"""VT-x as figures: which control decides about which exit, and the chosen controls bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx

from popek.architectures.vtx.controls import exit_reasons
from popek.architectures.vtx.dumps.bits import decode
from popek.architectures.vtx.fields import FIELDS
from popek.assistance.vtx_requirements import Governed
from popek.assistance.vtx_synthesis import Synthesis

from .graphs import bit_strip
from .svg import Figure, columns, stacked
from .vtx import short

WORDS = ("PIN_CONTROLS", "PRIMARY_PROC_CONTROLS", "SECONDARY_PROC_CONTROLS")


def exits(found: Sequence[Governed]) -> Figure:
    """Controls to the left, instructions in the middle, the exits they may take to the right.

    An instruction that exits whatever the controls is red, one that never exits is green.
    """
    reasons = exit_reasons()
    graph = nx.DiGraph()
    for item in found:
        never = item.reason is None
        kind = "green" if never else "" if item.controls else "red"
        graph.add_node(("form", item.form), layer=1, lines=[item.form], kind=kind)
        for control in item.controls:
            graph.add_node(("control", control), layer=0, lines=[short(control)], kind="blue")
            graph.add_edge(("control", control), ("form", item.form))
        if item.reason is not None:
            graph.add_node(("exit", item.reason), layer=2, lines=[f"{item.reason} {reasons[item.reason]}"])
            graph.add_edge(("form", item.form), ("exit", item.reason), kind="" if item.controls else "red")
    return columns(graph, ("control that decides", "instruction", "exit reason"))


def controls(found: Synthesis) -> Figure:
    """The chosen control words, bit by bit."""
    return stacked(
        [
            bit_strip(word, found.fields[word], FIELDS[word].width, decode(word, found.fields[word]))
            for word in WORDS
        ]
    )
