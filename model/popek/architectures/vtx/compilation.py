"""The checks as one straight-line function on integers, for streams of VMCSs.

Each gate and predicate is run once on symbols, with the processor's capabilities as constants; the terms that
come out are written as Python. The function only says which checks deserve a look: those are then run as they
are, so an answer never rests on the generated code alone, other than that a check passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from popek.kernel.terms import Term, mask, postorder
from popek.kernel.words import SymbolicConditionError, Word

from .capabilities import CapabilityView
from .checks import Check, Condition
from .fields import FIELDS
from .view import View, field_symbol
from .vmcs import Launch, MissingField

Sieve = Callable[[Mapping[str, int]], tuple[list[Check], list[tuple[Check, str]]]]
"""Takes the given fields; returns the checks that deserve a look, and those that lack a field, with its id."""

_COMPARISONS: Final = {"eq": "==", "ult": "<", "ule": "<="}
_BITWISE: Final = {"and": "&", "or": "|", "xor": "^"}
_MODULAR: Final = {"add": "+", "sub": "-", "mul": "*"}


class _NotCompiled(Exception):  # noqa: N818 -- control flow, never shown
    """A predicate branches, reads memory, or needs something that is unknown."""


def sieve(
    checks: Iterable[Check], given: Iterable[str], capabilities: CapabilityView, launch: Launch
) -> Sieve:
    """Compile checks for VMCSs that give the same fields.

    Args:
        checks: those to compile; any that cannot be is always looked at once its gates let it.
        given: ids of the fields that are known.
        capabilities: of the processor.
        launch: what the processor is doing.
    """
    view = View({name: field_symbol(name) for name in given if name in FIELDS}, capabilities, launch)
    writer = _Writer()
    groups: dict[tuple[str, ...], list[tuple[str, Check]]] = {}
    lacking: dict[tuple[str, ...], list[tuple[Check, str]]] = {}
    for check in checks:
        gates, complete = _gates(check.gates, view, writer)
        if gates is None:
            continue
        field = _lacks(check, view) if complete else None
        if field is not None:
            lacking.setdefault(gates, []).append((check, field))
        else:
            groups.setdefault(gates, []).append((_passes(check, view), check))
    members = [tuple(check for _, check in group) for group in groups.values()]
    open_rows = [tuple(group) for group in lacking.values()]
    body: list[str] = []
    for number, (gates, group) in enumerate(groups.items()):
        passes = [text for text, _ in group if text != "True"]
        if not passes:
            continue
        condition = " and ".join((*gates, f"not ({' and '.join(passes)})"))
        body += [f" if {condition}:", f"  look += members[{number}]"]
    for number, gates in enumerate(lacking):
        body += [f" if {' and '.join(gates) or True}:", f"  lack += open_rows[{number}]"]
    lines = [
        "def sieve(given):",
        *(f" {name} = given[{name!r}]" for name in sorted(writer.fields | _names(body))),
        *writer.lines,
        " look = []",
        " lack = []",
        *body,
        " return look, lack",
    ]
    namespace: dict[str, Any] = {"members": members, "open_rows": open_rows}
    exec(
        compile("\n".join(lines), "<VM-entry checks>", "exec"), namespace
    )  # the text is made here, from terms
    compiled: Sieve = namespace["sieve"]
    return compiled


def _names(lines: Iterable[str]) -> set[str]:
    words = {word for line in lines for word in line.replace("(", " ").replace(")", " ").split()}
    return words & set(FIELDS)


def _gates(gates: Iterable[Condition], view: View, writer: _Writer) -> tuple[tuple[str, ...] | None, bool]:
    """The gates as expressions, or None if one never holds; and whether all of them could be compiled."""
    found: list[str] = []
    complete = True
    for gate in gates:
        try:
            value = gate.test(view)
            text = writer.named(value.term) if isinstance(value, Word) else str(bool(value))
        except (MissingField, SymbolicConditionError, _NotCompiled):
            complete = False
            continue
        if text == "False":
            return None, True
        if text != "True":
            found.append(text)
    return tuple(found), complete


# On integers these are asked for only where another control says so; on symbols always.
_CONDITIONAL: Final = frozenset(
    ("SECONDARY_PROC_CONTROLS", "TERTIARY_PROC_CONTROLS", "SECONDARY_EXIT_CONTROLS")
) | {f"GUEST_PDPTE{number}" for number in range(4)}


def _lacks(check: Check, view: View) -> str | None:
    """A field that the predicate cannot do without and nobody gave."""
    try:
        check.holds(view)
    except MissingField as error:
        return error.what if error.what in FIELDS and error.what not in _CONDITIONAL else None
    except SymbolicConditionError:
        return None
    return None


def _passes(check: Check, view: View) -> str:
    """The predicate as an expression; ``False`` if it cannot be compiled, so that the check is looked at."""
    texts: list[str] = []
    for predicate in (check.holds, check.doubt):
        if predicate is None:
            continue
        try:
            value = predicate(view)
            texts.append(_text(value.term) if isinstance(value, Word) else str(bool(value)))
        except (MissingField, SymbolicConditionError, _NotCompiled):
            return "False"
    return " and ".join(text for text in texts if text != "True") or "True"


class _Writer:
    """Collects the lines that compute what several checks share."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fields: set[str] = set()
        self._names: dict[Term, str] = {}

    def named(self, term: Term) -> str:
        """The name of a variable that holds a condition."""
        name = self._names.get(term)
        if name is None:
            text = _text(term)
            if term.op == "const":
                return str(bool(term.data))
            name = f"c{len(self._names)}"
            self.fields |= {str(node.data) for node in postorder([term]) if node.op == "var"}
            self.lines.append(f" {name} = {text}")
            self._names[term] = name
        return name


def _text(term: Term) -> str:
    """A term as a Python expression over the fields' names."""
    if term.op == "const":
        return str(bool(term.data)) if term.width == 1 else hex(int(term.data))  # type: ignore[arg-type]
    if term.op == "var":
        return str(term.data)
    args = term.args
    if term.op in _COMPARISONS:
        return f"({_text(args[0])} {_COMPARISONS[term.op]} {_text(args[1])})"
    if term.op in _BITWISE:
        if term.width == 1 and term.op != "xor":
            return f"({_text(args[0])} {term.op} {_text(args[1])})"
        return f"({_text(args[0])} {_BITWISE[term.op]} {_text(args[1])})"
    if term.op in _MODULAR:
        return f"({_text(args[0])} {_MODULAR[term.op]} {_text(args[1])} & {mask(term.width):#x})"
    if term.op == "not":
        return f"(not {_text(args[0])})" if term.width == 1 else f"({_text(args[0])} ^ {mask(term.width):#x})"
    if term.op == "ite":
        return f"({_text(args[1])} if {_text(args[0])} else {_text(args[2])})"
    if term.op == "extract":
        assert isinstance(term.data, tuple)
        high, low = term.data
        shifted = f"{_text(args[0])} >> {low}" if low else _text(args[0])
        whole = high == args[0].width - 1
        return f"({shifted})" if whole else f"({shifted} & {mask(high - low + 1):#x})"
    if term.op == "concat":
        parts, shift = [], 0
        for part in reversed(args):
            if part.op != "const" or part.data:
                parts.append(f"{_text(part)} << {shift}" if shift else _text(part))
            shift += part.width
        return f"({' | '.join(parts)})" if len(parts) > 1 or "<<" in parts[0] else parts[0]
    raise _NotCompiled(term.op)
