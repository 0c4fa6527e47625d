"""Mistakes that Cosmic Ray's operators do not make: a check dropped or made too late, a condition, role or effect lost.

Each is an operator as Cosmic Ray's own are, on parso's trees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.operator import Example, Operator

Position = tuple[tuple[int, int], tuple[int, int]]


def _place(node: Any) -> Position:
    return node.start_pos, node.end_pos


def _is_check(node: Any) -> bool:
    """`if condition: raise ...`, and nothing else."""
    if node.type != "if_stmt" or len(node.children) != 4:
        return False
    body = node.children[3]
    statements = body.children[1:] if body.type == "suite" else [body]
    return len(statements) == 1 and statements[0].get_first_leaf().value == "raise"


def _told(text: str, node: Any) -> Any:
    """A leaf that stands where a node stood."""
    return parso.python.tree.Name(text, node.start_pos, prefix=node.get_first_leaf().prefix)


class DropCheck(Operator):
    """A fault that is never raised."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        """Of every check."""
        if _is_check(node):
            yield _place(node.children[1])

    def mutate(self, node: Any, index: int) -> Any:
        """Its condition is False."""
        node.children[1] = _told("False", node.children[1])
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """One."""
        return (Example("if a == 1:\n    raise B\n", "if False:\n    raise B\n"),)


class SwapChecks(Operator):
    """Two checks in the wrong order; not two that raise the same, of which nobody can tell the order."""

    @staticmethod
    def _pairs(node: Any) -> list[int]:
        if node.type not in ("suite", "file_input"):
            return []
        raised = [child.children[3].get_code().strip() if _is_check(child) else "" for child in node.children]
        pairs = enumerate(itertools.pairwise(raised))
        return [place for place, (first, second) in pairs if first and second and first != second]

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        """Of every pair."""
        for place in self._pairs(node):
            yield node.children[place].start_pos, node.children[place + 1].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The second goes first."""
        place = self._pairs(node)[index]
        first, second = node.children[place : place + 2]
        one, two = first.get_first_leaf(), second.get_first_leaf()
        one.prefix, two.prefix = two.prefix, one.prefix
        node.children[place : place + 2] = [second, first]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """One."""
        return (
            Example(
                "if a:\n    raise B\nif c:\n    raise D\n",
                "if c:\n    raise D\nif a:\n    raise B\n",
            ),
        )


class DropCondition(Operator):
    """One of several conditions that must hold together is forgotten."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        """Of every operand of `&` and `and`."""
        if node.type in ("and_expr", "and_test"):
            for operand in node.children[::2]:
                yield _place(operand)

    def mutate(self, node: Any, index: int) -> Any:
        """Without it."""
        prefix = node.get_first_leaf().prefix
        operands = node.children[::2]
        del operands[index]
        if len(operands) == 1:
            operands[0].get_first_leaf().prefix = prefix
            return operands[0]
        gone = (
            node.children[2 * index : 2 * index + 2]
            if index == 0
            else node.children[2 * index - 1 : 2 * index + 1]
        )
        node.children = [child for child in node.children if child not in gone]
        node.get_first_leaf().prefix = prefix
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """First, middle and last."""
        return (
            Example("x = a & b", "x = b"),
            Example("x = a & b & c", "x = a & c", occurrence=1),
            Example("x = a and b", "x = a", occurrence=1),
        )


class DropEffect(Operator):
    """A statement that changes the state, or asks whether something is intercepted, is forgotten."""

    @staticmethod
    def _is_effect(node: Any) -> bool:
        if node.type == "expr_stmt":
            return node.children[0].type in ("atom_expr", "power")
        return node.type in ("atom_expr", "power") and node.children[-1].get_code().strip().startswith("(")

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        """Of every assignment to an attribute or an item, and every call whose result nobody takes."""
        if node.type == "simple_stmt" and self._is_effect(node.children[0]):
            yield _place(node.children[0])

    def mutate(self, node: Any, index: int) -> Any:
        """`pass` in its place."""
        node.children[0] = _told("pass", node.children[0])
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Both."""
        return (
            Example("def f(cpu):\n    cpu.a = 1\n", "def f(cpu):\n    pass\n"),
            Example("def f(cpu):\n    g(cpu)\n", "def f(cpu):\n    pass\n"),
        )


class DropRole(Operator):
    """A leaf whose role is forgotten."""

    @staticmethod
    def _roles(node: Any) -> list[int]:
        if node.type != "arglist":
            return []
        return [
            place
            for place, child in enumerate(node.children)
            if child.type == "argument" and child.children[0].get_code().strip() == "role" and place
        ]

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        """Of every `role=...` that is not the first argument."""
        for place in self._roles(node):
            yield _place(node.children[place])

    def mutate(self, node: Any, index: int) -> Any:
        """Without it."""
        place = self._roles(node)[index]
        del node.children[place - 1 : place + 1]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """One."""
        return (Example("a = word(1, role=HIDDEN)", "a = word(1)"),)


OWN: tuple[type[Operator], ...] = (DropCheck, SwapChecks, DropCondition, DropEffect, DropRole)
