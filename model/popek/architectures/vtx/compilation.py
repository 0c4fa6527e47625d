"""The checks as one straight-line function on integers, for streams of VMCSs that give the same fields.

Each gate and predicate is run once on symbols, with the processor's capabilities as constants; the terms that
come out are written as Python. What a check lacks is known by then, too: whatever a run on symbols cannot do
without, a run on numbers cannot either, but for what a condition decides (`PerhapsMissing`). So the function
says which checks lack something, and which deserve a look: those are then run as they are.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel.terms import Term, mask, postorder
from popek.kernel.words import SymbolicConditionError, Word

from .capabilities import CapabilityView
from .entry_checks import Check, Condition
from .fields import FIELDS
from .view import View, field_symbol
from .vmcs import Launch, MissingField, PerhapsMissing

Lacking = tuple[Check, str]
"""A check, and the first input that it lacks."""

_COMPARISONS: Final = {"eq": "==", "ult": "<", "ule": "<="}
_BITWISE: Final = {"and": "&", "or": "|", "xor": "^"}
_MODULAR: Final = {"add": "+", "sub": "-", "mul": "*"}

ACTIVATIONS: Final = (
    ("SECONDARY_PROC_CONTROLS", "sec", "PRIMARY_PROC_CONTROLS", 31),
    ("TERTIARY_PROC_CONTROLS", "ter", "PRIMARY_PROC_CONTROLS", 17),
    ("SECONDARY_EXIT_CONTROLS", "exit2", "EXIT_CONTROLS", 31),
)
"""Controls, what a view calls them where they are in effect, and the bit that puts them into effect."""


@attrs.frozen(eq=False)
class Sieve:
    """What is left to do for VMCSs that give the same fields.

    Attributes:
        scan: takes the given fields; returns the checks that deserve a look, the `groups` that lack something, as
            the bits of a number, and the checks that fail.
        groups: checks that lack something under the same conditions.
    """

    scan: Callable[[Mapping[str, int]], tuple[list[Check], int, list[Check]]]
    groups: tuple[tuple[Lacking, ...], ...]
    _known: dict[int, tuple[Lacking, ...]] = attrs.field(factory=dict)

    def lacking(self, numbers: int) -> tuple[Lacking, ...]:
        """The checks of some groups; the same object for the same groups."""
        found = self._known.get(numbers)
        if found is None:
            if len(self._known) > _MOST_SELECTIONS:
                self._known.clear()
            chosen = (group for number, group in enumerate(self.groups) if numbers >> number & 1)
            found = self._known[numbers] = tuple(item for group in chosen for item in group)
        return found


_MOST_SELECTIONS: Final = 4096


def inactive(fields: Mapping[str, int]) -> tuple[str, ...]:
    """The controls that nobody gave and that are not in effect, as a view calls them."""
    return tuple(
        name
        for field, name, activator, bit in ACTIVATIONS
        if field not in fields and activator in fields and not fields[activator] >> bit & 1
    )


class NotCompiled(Exception):  # noqa: N818 -- control flow, never shown
    """A predicate branches, reads memory, or needs something that may not matter."""


class _Symbols(View):
    """A view of symbols that knows nothing of memory."""

    def read(self, address: Any, size: int) -> Any:
        """Memory, which numbers may find missing before anything else."""
        raise PerhapsMissing("memory")


class _Missing(enum.Enum):
    """In the place of an expression: the input is not there."""

    MISSING = enum.auto()


_MISSING: Final = _Missing.MISSING
Expression = str | _Missing


@attrs.frozen
class _Rule:
    """A check for one processor: what its gates and its predicate come to, and the first input they lack.

    `passes` is missing if the predicate cannot do without something; `lacks` counts the gates first.
    """

    gates: tuple[str, ...]
    passes: Expression
    lacks: str | None
    of_the_processor: bool

    @property
    def unknown(self) -> bool:
        """Whether the check cannot come out as violated."""
        return self.lacks is not None

    @property
    def respected(self) -> str:
        """That the check is not violated, as far as that can be told."""
        closed = [f"not ({' and '.join(self.gates)})"] if self.gates else []
        passed = [self.passes] if isinstance(self.passes, str) else []
        return " or ".join((*closed, *passed)) or "False"


def sieve(
    checks: Iterable[Check],
    given: Iterable[str],
    capabilities: CapabilityView,
    launch: Launch,
    *,
    extremes: Sequence[CapabilityView] = (),
    unused: Iterable[str] = (),
    decidable: Callable[[Check], bool] = lambda check: False,
) -> Sieve:
    """Compile checks for VMCSs that give the same fields.

    Args:
        checks: those to compile; any that cannot be is always looked at once its gates let it.
        given: ids of the fields that are known.
        capabilities: of the processor.
        launch: what the processor is doing.
        extremes: the processors at either end of what is known.
        unused: what `inactive` says.
        decidable: whether the `extremes` may decide a check that lacks something about the processor.
    """
    symbols = {name: field_symbol(name) for name in given if name in FIELDS} | dict.fromkeys(unused, 0)
    view = _Symbols(symbols, capabilities, launch)
    others = [_Symbols(symbols, other, launch) for other in extremes]
    writer = _Writer()
    looks: dict[tuple[str, ...], list[tuple[str, Check]]] = {}
    lacks: dict[tuple[str, ...], list[Lacking]] = {}
    for check in checks:
        gates, rule = _rule(check, view, writer)
        if gates is None:
            continue
        if rule is None:
            looks.setdefault(gates, []).append(("False", check))
            continue
        passes = "False" if rule.passes is _MISSING else str(rule.passes)
        if passes == "True":
            continue
        if rule.lacks is None:
            looks.setdefault(gates, []).append((passes, check))
            continue
        conditions = gates if passes == "False" else (*gates, f"not ({passes})")
        row = (check, rule.lacks)
        if not (rule.of_the_processor and decidable(check)):
            lacks.setdefault(conditions, []).append(row)
            continue
        if check.doubt is not None:
            looks.setdefault(conditions, []).append(("False", check))
            continue
        rules = [_rule(check, other, writer)[1] for other in others]
        if None in rules:
            looks.setdefault(conditions, []).append(("False", check))
            continue
        answers = [other.respected for other in rules if other is not None]
        fine = " and ".join(f"({answer})" for answer in answers)
        if any(other.unknown for other in rules if other is not None):
            lacks.setdefault((*conditions, f"not ({fine})"), []).append(row)
            continue
        violated = " and ".join(f"not ({answer})" for answer in answers)
        looks.setdefault((*conditions, violated), []).append(("False", check))
        lacks.setdefault((*conditions, f"not ({fine})", f"not ({violated})"), []).append(row)
    return _written(looks, lacks, writer)


def _written(
    looks: Mapping[tuple[str, ...], Sequence[tuple[str, Check]]],
    lacks: Mapping[tuple[str, ...], Sequence[Lacking]],
    writer: _Writer,
) -> Sieve:
    body: list[str] = []
    for number, (gates, group) in enumerate(looks.items()):
        condition = " and ".join((*gates, f"not ({' and '.join(text for text, _ in group)})"))
        body.append(f" if {condition}:")
        for place, (text, _) in enumerate(group):
            # What is compiled, and doubted on no processor, is known to fail where it does not pass.
            told = "bad" if text != "False" and group[place][1].doubt is None else "look"
            body += [f"  if not ({text}):", f"   {told}.append(members[{number}][{place}])"]
    for number, conditions in enumerate(lacks):
        body += [f" if {' and '.join(conditions) or True}:", f"  lack |= {1 << number:#x}"]
    lines = [
        "def scan(given):",
        *(f" {name} = given[{name!r}]" for name in sorted(writer.fields | _names(body))),
        *writer.lines,
        " look = []",
        " bad = []",
        " lack = 0",
        *body,
        " return look, lack, bad",
    ]
    members = [tuple(check for _, check in group) for group in looks.values()]
    namespace: dict[str, Any] = {"members": members}
    exec(
        compile("\n".join(lines), "<VM-entry checks>", "exec"), namespace
    )  # the text is made here, from terms
    return Sieve(namespace["scan"], tuple(map(tuple, lacks.values())))


def _names(lines: Iterable[str]) -> set[str]:
    words = {word for line in lines for word in line.replace("(", " ").replace(")", " ").split()}
    return words & set(FIELDS)


def _rule(check: Check, view: View, writer: _Writer) -> tuple[tuple[str, ...] | None, _Rule | None]:
    """The gates as expressions, None if one never holds; and the whole check, None if it cannot be compiled."""
    gates, complete, lacking = _gates(check.gates, view, writer)
    if gates is None:
        # On the processor of this view the check never applies.
        return None, _Rule((), "True", None, False)
    if not complete:
        return gates, None
    passes: Expression
    try:
        passes = _passes(check, view)
    except MissingField as error:
        if isinstance(error, PerhapsMissing):
            return gates, None
        passes = _MISSING
        if error.what in FIELDS:
            # Without a field of its own a check is undecided, whatever its gates know of the processor.
            return gates, _Rule(gates, passes, lacking[0] if lacking else error.what, False)
        lacking.append(error.what)
    except (SymbolicConditionError, NotCompiled):
        return gates, None
    if not lacking:
        return gates, _Rule(gates, passes, None, False)
    return gates, _Rule(gates, passes, lacking[0], any(what not in FIELDS for what in lacking))


def _gates(
    gates: Iterable[Condition], view: View, writer: _Writer
) -> tuple[tuple[str, ...] | None, bool, list[str]]:
    """The gates as expressions, or None if one never holds; whether all could be compiled; what they lack."""
    found: list[str] = []
    lacking: list[str] = []
    complete = True
    for gate in gates:
        try:
            value = gate.test(view)
            text = writer.named(value.term) if isinstance(value, Word) else str(bool(value))
        except MissingField as error:
            lacking.append(error.what)
            complete = complete and not isinstance(error, PerhapsMissing)
            continue
        except (SymbolicConditionError, NotCompiled):
            complete = False
            continue
        if text == "False":
            return None, True, []
        if text != "True":
            found.append(text)
    return tuple(found), complete, lacking


def _passes(check: Check, view: View) -> str:
    """The predicate as an expression."""
    value = check.holds(view)
    texts = [text_of(value.term) if isinstance(value, Word) else str(bool(value))]
    if check.doubt is not None:
        try:
            value = check.doubt(view)
        except MissingField as error:
            raise PerhapsMissing(error.what) from None  # asked only of what holds
        texts.append(text_of(value.term) if isinstance(value, Word) else str(bool(value)))
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
            text = text_of(term)
            if term.op == "const":
                return str(bool(term.data))
            name = f"c{len(self._names)}"
            self.fields |= {str(node.data) for node in postorder([term]) if node.op == "var"}
            self.lines.append(f" {name} = {text}")
            self._names[term] = name
        return name


def text_of(term: Term) -> str:
    """A term as a Python expression over the fields' names."""
    if term.op == "const":
        return str(bool(term.data)) if term.width == 1 else hex(int(term.data))  # type: ignore[arg-type]
    if term.op == "var":
        return str(term.data)
    args = term.args
    if term.op in _COMPARISONS:
        return f"({text_of(args[0])} {_COMPARISONS[term.op]} {text_of(args[1])})"
    if term.op in _BITWISE:
        if term.width == 1 and term.op != "xor":
            return f"({text_of(args[0])} {term.op} {text_of(args[1])})"
        return f"({text_of(args[0])} {_BITWISE[term.op]} {text_of(args[1])})"
    if term.op in _MODULAR:
        return f"({text_of(args[0])} {_MODULAR[term.op]} {text_of(args[1])} & {mask(term.width):#x})"
    if term.op == "not":
        return (
            f"(not {text_of(args[0])})"
            if term.width == 1
            else f"({text_of(args[0])} ^ {mask(term.width):#x})"
        )
    if term.op == "ite":
        return f"({text_of(args[1])} if {text_of(args[0])} else {text_of(args[2])})"
    if term.op == "extract":
        assert isinstance(term.data, tuple)
        high, low = term.data
        shifted = f"{text_of(args[0])} >> {low}" if low else text_of(args[0])
        whole = high == args[0].width - 1
        return f"({shifted})" if whole else f"({shifted} & {mask(high - low + 1):#x})"
    if term.op == "concat":
        parts, shift = [], 0
        for part in reversed(args):
            if part.op != "const" or part.data:
                parts.append(f"{text_of(part)} << {shift}" if shift else text_of(part))
            shift += part.width
        return f"({' | '.join(parts)})" if len(parts) > 1 or "<<" in parts[0] else parts[0]
    raise NotCompiled(term.op)
