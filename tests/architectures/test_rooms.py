"""The rooms of the architectures: who may import whom."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Container, Iterator
from pathlib import Path

import networkx as nx

import popek.architectures

ROOM = "popek.architectures"
FOLDER = Path(popek.architectures.__path__[0])


def _modules() -> dict[str, Path]:
    """Every module of the room, by name."""
    found = {}
    for path in FOLDER.rglob("*.py"):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        found[".".join((ROOM, *(part for part in parts if part != "__init__")))] = path
    return found


def _imported(name: str, path: Path, modules: Container[str]) -> Iterator[str]:
    """What a module names in an import, for type checkers alone or not, at its top level or not."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                inside = f"{source}.{alias.name}"
                yield inside if inside in modules else source


def _graph() -> nx.DiGraph[str]:
    modules = _modules()
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, path in modules.items():
        graph.add_edges_from((name, other) for other in _imported(name, path, modules) if other in modules)
    return graph


GRAPH = _graph()


def test_no_module_of_an_architecture_imports_itself_by_way_of_others() -> None:
    circles = [sorted(found) for found in nx.strongly_connected_components(GRAPH) if len(found) > 1]
    assert circles == []


def test_what_x86_machines_share_stands_below_all_of_them() -> None:
    below = {"x86": "", "ia32": "x86", "x86_64": "x86", "svm": "x86 ia32 x86_64", "vtx": "x86 ia32 x86_64"}
    for room, allowed in below.items():
        inside = f"{ROOM}.{room}."
        reached = {
            other for name in GRAPH if name.startswith(inside) for other in GRAPH[name] if other != ROOM
        }
        rooms = {other.split(".")[2] for other in reached if (FOLDER / other.split(".")[2]).is_dir()}
        assert rooms <= {room, *allowed.split()}, room
