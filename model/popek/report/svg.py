"""Figures as SVG without a program to lay them out: boxes in columns, grids, readable on light and dark."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import networkx as nx

from .html import STYLE as COLORS

SIZE = 12.0  # of text, in pixels
CHARACTER = SIZE * 0.602  # the width of a character of a monospaced font
LINE = 16.0
GAP, COLUMN, MARGIN = 10.0, 54.0, 8.0
SWEEPS = 6

STYLE = (
    ".popek-figure{max-width:100%;height:auto;font:12px ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace}"
    ".popek-figure text{fill:currentColor;stroke:none;white-space:pre}"
    ".popek-figure .head{font-weight:600}.popek-figure .quiet{opacity:.75}"
    ".popek-figure rect,.popek-figure path,.popek-figure line{stroke:currentColor;stroke-opacity:.55;fill:none}"
    ".popek-figure rect{fill:currentColor;fill-opacity:.05}"
    ".popek-figure .bare rect{stroke-opacity:.25;fill:none}"
    + "".join(
        f".popek-figure .{kind} rect{{stroke:var(--popek-{kind});fill:var(--popek-{kind});stroke-opacity:1;"
        f"fill-opacity:.16}}.popek-figure .{kind} text{{fill:var(--popek-{kind});font-weight:600}}"
        f".popek-figure path.{kind}{{stroke:var(--popek-{kind});stroke-opacity:.9}}"
        for kind in ("red", "green", "yellow", "blue")
    )
)
# The page is drawn, too: what surrounds an image need not have the colors that its reader prefers.  The class is
# there to outweigh `.popek{color:inherit}`, which in an image inherits black.
_ALONE = (
    "svg.popek{color:#1f2328;background:#ffffff}"
    "@media (prefers-color-scheme:dark){svg.popek{color:#e6edf3;background:#0d1117}}"
)


@attrs.frozen(repr=False)
class Figure:
    """A figure: SVG in a notebook, the same said in words elsewhere.

    Attributes:
        body: what is drawn.
        width, height: in pixels.
        words: the figure as plain text.
    """

    body: str
    width: float
    height: float
    words: str

    @property
    def svg(self) -> str:
        """The figure as an SVG element; its style travels with it."""
        size = f'width="{self.width:.0f}" height="{self.height:.0f}" viewBox="0 0 {self.width:.0f} {self.height:.0f}"'
        label = html.escape(self.words, quote=True).replace("\n", "&#10;")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="popek popek-figure" role="img" {size} '
            f'aria-label="{label}"><style>{COLORS}{STYLE}</style>{self.body}</svg>'
        )

    def save(self, file: str | Path) -> None:
        """Write the figure as an SVG file of its own."""
        alone = self.svg.replace("<style>", f"<style>{_ALONE}", 1)
        Path(file).write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n{alone}\n', encoding="utf-8")

    def __repr__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        return self.svg


def box(
    x: float, y: float, width: float, height: float, lines: Sequence[str], kind: str = "", title: str = ""
) -> str:
    """A box with centered lines of text; `title` is shown on hovering."""
    first = y + height / 2 - (len(lines) - 1) * LINE / 2 + SIZE * 0.35
    shown = "".join(
        f'<text x="{x + width / 2:.1f}" y="{first + n * LINE:.1f}" text-anchor="middle">{html.escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    hover = f"<title>{html.escape(title)}</title>" if title else ""
    rect = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"/>'
    return f'<g class="{kind}">{hover}{rect}{shown}</g>'


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(content)}</text>'
    )


def width_of(lines: Iterable[str]) -> float:
    """How wide the widest line is, in pixels."""
    return max((len(line) for line in lines), default=0) * CHARACTER


# -- boxes in columns -----------------------------------------------------------------------------


def columns(graph: nx.DiGraph, titles: Sequence[str] = (), words: str = "") -> Figure:
    """A graph from left to right.

    A node has `layer` (its column), `lines`, and may have `kind` and `title`; an edge may have `kind` and
    `label`.
    """
    routed, chains = _with_bends(graph)
    layers = _layers(routed, len(titles))
    heights = {
        n: len(routed.nodes[n]["lines"]) * LINE + 8 if routed.nodes[n]["lines"] else 4.0 for n in routed
    }
    widths = [
        max([width_of(routed.nodes[n]["lines"]) for n in layer] + [width_of(titles[i : i + 1])]) + 16
        for i, layer in enumerate(layers)
    ]
    lefts = [MARGIN + sum(widths[:i]) + i * COLUMN for i in range(len(layers))]
    middles = _middles(routed, layers, heights)
    top = MARGIN + (LINE + 6 if titles else 0)
    offset = top - min((middles[n] - heights[n] / 2 for n in routed), default=0.0)
    middles = {n: y + offset for n, y in middles.items()}
    parts = [
        text(lefts[i] + widths[i] / 2, MARGIN + SIZE, title, "head", "middle")
        for i, title in enumerate(titles)
    ]
    place = {n: (lefts[i], widths[i], middles[n]) for i, layer in enumerate(layers) for n in layer}
    for (source, target), chain in chains.items():
        parts.append(_edge([place[n] for n in chain], graph.edges[source, target]))
    for name in graph:
        left, width, middle = place[name]
        node = graph.nodes[name]
        height = heights[name]
        parts.append(
            box(
                left,
                middle - height / 2,
                width,
                height,
                node["lines"],
                node.get("kind", ""),
                node.get("title", ""),
            )
        )
    bottom = max((middles[n] + heights[n] / 2 for n in routed), default=top)
    right = lefts[-1] + widths[-1] if layers else 0.0
    return Figure("".join(parts), right + MARGIN, bottom + MARGIN, words or in_words(graph))


def in_words(graph: nx.DiGraph) -> str:
    """A graph as lines of text: each node with what it leads to."""

    def name(node: Any) -> str:
        return " ".join(graph.nodes[node]["lines"])

    lines = []
    for node in graph:
        targets = [
            f"{graph.edges[node, other].get('label', '')} {name(other)}".strip()
            for other in graph.successors(node)
        ]
        if targets:
            lines.append(f"{name(node)} → {'; '.join(targets)}")
        elif not list(graph.predecessors(node)):
            lines.append(name(node))
    return "\n".join(lines)


def _with_bends(graph: nx.DiGraph) -> tuple[nx.DiGraph, Mapping[tuple[Any, Any], list[Any]]]:
    """The graph with a bend in every column that an edge passes, and each edge as a chain of nodes."""
    routed = nx.DiGraph()
    routed.add_nodes_from(graph.nodes(data=True))
    chains: dict[tuple[Any, Any], list[Any]] = {}
    for source, target in graph.edges:
        between = range(graph.nodes[source]["layer"] + 1, graph.nodes[target]["layer"])
        bends = [("bend", source, target, layer) for layer in between]
        for bend, layer in zip(bends, between, strict=True):
            routed.add_node(bend, layer=layer, lines=[])
        chains[source, target] = [source, *bends, target]
        nx.add_path(routed, chains[source, target])
    return routed, chains


def _layers(graph: nx.DiGraph, least: int) -> list[list[Any]]:
    count = max(least, 1 + max((data["layer"] for _, data in graph.nodes(data=True)), default=-1))
    layers: list[list[Any]] = [[] for _ in range(count)]
    for name, data in graph.nodes(data=True):
        layers[data["layer"]].append(name)
    return layers


def _middles(graph: nx.DiGraph, layers: list[list[Any]], heights: Mapping[Any, float]) -> dict[Any, float]:
    """Where the middle of each node is: near its neighbors, without overlaps (barycenter sweeps)."""
    middles: dict[Any, float] = {}
    for layer in layers:
        _stack(layer, {n: float(i) for i, n in enumerate(layer)}, heights, middles)
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        for layer in layers if forwards else reversed(layers):
            wanted = {}
            for node in layer:
                near = list(graph.predecessors(node) if forwards else graph.successors(node))
                wanted[node] = sum(middles[n] for n in near) / len(near) if near else middles[node]
            layer.sort(key=wanted.__getitem__)
            _stack(layer, wanted, heights, middles)
    return middles


def _stack(
    layer: list[Any], wanted: Mapping[Any, float], heights: Mapping[Any, float], middles: dict[Any, float]
) -> None:
    bottom = float("-inf")
    for node in layer:
        middles[node] = max(wanted[node], bottom + GAP + heights[node] / 2)
        bottom = middles[node] + heights[node] / 2
    drift = sum(middles[n] - wanted[n] for n in layer) / max(1, len(layer))
    for node in layer:
        middles[node] -= drift


def _edge(chain: Sequence[tuple[float, float, float]], data: Mapping[str, Any]) -> str:
    left, width, y = chain[0]
    x = left + width
    path = f"M{x:.1f},{y:.1f}"
    for left, width, middle in chain[1:]:
        half = (left - x) / 2
        path += f"C{x + half:.1f},{y:.1f} {left - half:.1f},{middle:.1f} {left:.1f},{middle:.1f}"
        if left + width != chain[-1][0] + chain[-1][1]:
            path += f"H{left + width:.1f}"
        x, y = left + width, middle
    end_x, end_y = chain[-1][0], chain[-1][2]
    head = f"M{end_x - 5:.1f},{end_y - 3:.1f}L{end_x:.1f},{end_y:.1f}L{end_x - 5:.1f},{end_y + 3:.1f}"
    kind = data.get("kind", "")
    label = ""
    if data.get("label"):
        (left, width, first), (second_left, _, second) = chain[0], chain[1]
        x = (left + width + second_left) / 2
        label = text(x, (first + second) / 2 - 4, data["label"], "quiet", "middle")
    return f'<path class="{kind}" d="{path}"/><path class="{kind}" d="{head}"/>{label}'


def stacked(figures: Sequence[Figure]) -> Figure:
    """Figures one below the other."""
    parts, y = [], 0.0
    for figure in figures:
        parts.append(f'<g transform="translate(0 {y:.1f})">{figure.body}</g>')
        y += figure.height
    words = "\n\n".join(figure.words for figure in figures)
    return Figure("".join(parts), max((f.width for f in figures), default=2 * MARGIN), y or 2 * MARGIN, words)


# -- grids ----------------------------------------------------------------------------------------


@attrs.frozen
class GridCell:
    """A cell of a grid: what it says, its kind (a color) and what is shown on hovering."""

    content: str
    kind: str = ""
    title: str = ""


def grid(
    rows: Mapping[str, Sequence[GridCell]], titles: Sequence[str], corner: str = "", words: str = ""
) -> Figure:
    """A table of small colored cells, with names of rows at the left and of columns above."""
    left = MARGIN + width_of([corner, *rows]) + 12
    widths = [
        max(width_of([title]), *(width_of([cells[n].content]) for cells in rows.values())) + 14
        for n, title in enumerate(titles)
    ]
    height = LINE + 6
    parts = [text(MARGIN, MARGIN + SIZE, corner, "head")]
    for n, title in enumerate(titles):
        x = left + sum(widths[:n]) + widths[n] / 2
        parts.append(text(x, MARGIN + SIZE, title, "head", "middle"))
    y = MARGIN + height
    for name, cells in rows.items():
        parts.append(text(MARGIN, y + LINE, name))
        for n, cell in enumerate(cells):
            x = left + sum(widths[:n])
            parts.append(
                box(x, y, widths[n] - 3, height - 3, [cell.content], cell.kind or "bare", cell.title)
            )
        y += height
    said = words or "\n".join(
        f"{name}: " + ", ".join(f"{t} {c.content}" for t, c in zip(titles, cells, strict=True))
        for name, cells in rows.items()
    )
    return Figure("".join(parts), left + sum(widths) + MARGIN, y + MARGIN, said)
