"""The paths of an instruction as a tree: what it asks, in order, and how each way ends."""

from __future__ import annotations

import re
from typing import Any

import attrs

from popek.kernel import terms
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.state import Role, State
from popek.kernel.terms import Term

from .names import shortened
from .runs import Run

LONGEST = 42  # characters of a condition that is shown as it is


@attrs.define(eq=False)
class PathNode:
    """A question, or an end.

    Attributes:
        text: in a line.
        whole: the condition as it is, where the line is a short word for it.
        kind: of an end: `trap`, `completes` or `not modelled`; empty for a question.
        yes, no: where the answers lead; an answer that is impossible leads nowhere.
    """

    text: str
    whole: str = ""
    kind: str = ""
    yes: PathNode | None = None
    no: PathNode | None = None

    def to_json(self) -> dict[str, object]:
        """The tree below it."""
        told: dict[str, object] = {"text": self.text, "whole": self.whole, "kind": self.kind}
        for name, below in (("yes", self.yes), ("no", self.no)):
            if below is not None:
                told[name] = below.to_json()
        return told


def path_tree(machine: Machine[Any], run: Run[Any]) -> PathNode | None:
    """The paths of a run as a tree; None where there is no path."""
    root = PathNode("")  # its `yes` is the tree
    known: dict[tuple[tuple[Term, bool], ...], PathNode] = {}
    for path in run.paths:
        prefix: tuple[tuple[Term, bool], ...] = ()
        last, way = root, "yes"
        for condition in path.conditions:
            asked, yes = (condition.args[0], False) if condition.op == "not" else (condition, True)
            at = (*prefix, (asked, True))
            if at not in known:
                whole = spelled(asked, machine.state)
                known[at] = PathNode(f"{brief(asked, whole)} ?", whole[:600])
                setattr(last, way, known[at])
            last, way = known[at], "yes" if yes else "no"
            prefix = (*prefix, (asked, yes))
        lines, _ = ending(run.before, path.result)
        kind = {Next: "completes", Trap: "trap"}.get(type(path.result), "not modelled")
        setattr(last, way, PathNode(" ".join(lines), kind=kind))
    return root.yes


def spelled(term: Term, state: type[State]) -> str:
    """A term with the leaves' names where it reads exactly their bits (`cs.selector.rpl`)."""

    def named(found: re.Match[str]) -> str:
        high = int(found["high"])
        low = int(found["low"] or high)
        for leaf in state.leaves:
            if (leaf.component, leaf.high, leaf.low) == (found["component"], high, low):
                return leaf.name
        return found[0]

    known = "|".join(
        re.escape(name) for name in sorted({leaf.component for leaf in state.leaves}, key=len)[::-1]
    )
    pattern = rf"(?<![\w.])(?P<component>{known})\[(?P<high>\d+)(?::(?P<low>\d+))?\]"
    told = re.sub(pattern, named, terms.render(term))
    return told[1:-1] if term.op in ("eq", "ult", "ule", "slt", "sle") else told


def brief(term: Term, whole: str) -> str:
    """A condition as it is, or, where that is long, what it is about."""
    if len(whole) <= LONGEST:
        return whole
    names = shortened([n.removeprefix("operand ") for n in terms.variables_of([term])])
    return f"test of {names if len(names) <= LONGEST else names[: LONGEST - 1] + '…'}"


def ending(before: State, outcome: Outcome[Any]) -> tuple[list[str], str]:
    """How a path ends: lines, and a color."""
    match outcome:
        case Trap(vector, code, _, _):
            told = "" if code is None else f"({code.value})" if isinstance(code.value, int) else "(…)"
            return [f"traps: {vector}{told}"], "blue"
        case NotModelled():
            return ["not modelled"], "yellow"
        case Next(after):
            changed = [
                leaf.name
                for leaf in before.leaves
                if leaf.role is not Role.PC and after[leaf.name].term is not before[leaf.name].term
            ]
            changed += [n for n, m in after.memories().items() if m is not before.memories()[n]]
            names = shortened(changed) or "nothing but the program counter"
            return [
                "completes, changing",
                names if len(names) <= LONGEST else names[: LONGEST - 1] + "…",
            ], "green"
    raise TypeError(outcome)


__all__ = ["LONGEST", "PathNode", "brief", "ending", "path_tree", "spelled"]
