"""The checks for streams whose VMCSs give different fields: compiled once for all fields, then asked what is missing.

A VMCS is filled up with zeros and sifted as a complete one. What the sieve says of a check that reads no missing field
is the truth. Of the others, a gate that reads no missing field and does not hold closes a check; a check that reads
each of its fields whatever the others are (`_Shape.plain`) is undecided without them, unless what is known of it holds;
the few others are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel.words import SymbolicConditionError, Word

from . import view as views
from .capabilities import CapabilityView
from .compilation import ACTIVATIONS, Sieve, inactive, sieve, text_of
from .entry_checks import Check, Outcome
from .fields import FIELDS
from .findings import Missed, Undecided
from .view import View, field_symbol
from .vmcs import Launch, MissingField

_NUMBER: Final = {name: number for number, name in enumerate(FIELDS)}
_ZEROS: Final = dict.fromkeys(FIELDS, 0)
_ALL: Final = (1 << len(FIELDS)) - 1
_UNUSED: Final = {name: field for field, name, _, _ in ACTIVATIONS}
_MOST_KNOWN: Final = 1 << 10


@attrs.frozen(eq=False)
class _Shape:
    """How a check reads its fields; fields and gates are bits of numbers.

    Attributes:
        reads: the fields it may look at.
        named: those of them that an answer names where they are missing.
        gates: those of its gates that are compiled.
        predicate: the fields that its predicate looks at.
        plain: it reads each of them whatever the others are, and asks nothing of the processor that is not known.
        kind: what an undecided one may come to, as one bit.
    """

    check: Check
    reads: int
    named: int
    gates: int
    predicate: int
    plain: bool
    kind: int


@attrs.define(eq=False)
class Leftover:
    """What a VMCS leaves to do: checks to look at, and those that lack something.

    Attributes:
        looks: checks that deserve a look.
        failing: checks that fail.
        lacking: checks that lack something, in no order.
        kinds: what the lacking ones may come to, as bits; see `Superset.outcomes`.
    """

    looks: list[Check]
    failing: list[Check]
    lacking: list[Missed]
    kinds: int


class _Traced(View):
    """A view of symbols for one gate or predicate, which notes the fields that are asked for."""

    def __getattr__(self, name: str) -> Any:
        """Make a symbol, or derive a value; a control word that is not in effect counts as given."""
        if name in FIELDS:
            self._read[name] = None
            value = self.__dict__[name] = field_symbol(name)
            return value
        before = views.asked_lazily()
        value = super().__getattr__(name)
        if name in _UNUSED:
            self.__dict__["_discount"] += views.asked_lazily() - before
        return value

    def read(self, address: Any, size: int) -> Any:
        """Memory is not traced."""
        raise _Untraceable


class _Untraceable(Exception):  # noqa: N818 -- control flow, never shown
    """Memory is read."""


class Superset:
    """The checks for one processor, for VMCSs that give any fields; see the module.

    Args:
        checks: in the order of the ledger.
        capabilities: of the processor.
        launch: what the processor is doing.
        extremes, decidable: as for `sieve`.
        reads: the fields that a check looks at.
        order: the place of a check in the ledger.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        capabilities: CapabilityView,
        launch: Launch,
        extremes: Sequence[CapabilityView],
        decidable: Callable[[Check], bool],
        *,
        reads: Callable[[Check], tuple[str, ...]],
        order: Callable[[Check], int],
    ) -> None:
        """Compile the checks; see the class."""
        self._static, self._place = reads, order
        self._sieve: Sieve = sieve(
            checks, FIELDS, capabilities, launch, extremes=extremes, decidable=decidable
        )
        self._gates: dict[str, int] = {}
        self._gate_reads: list[int] = []
        self._kinds: list[tuple[int, Outcome]] = []
        self._known: dict[tuple[int, str], Missed] = {}
        self._outcomes: dict[int, tuple[tuple[int, Outcome], ...]] = {}
        shapes: list[_Shape] = []
        for check in checks:
            shape = self._shape(check, lambda question: _traced(question, capabilities, launch))
            if shape is not None:
                shapes.append(shape)
        self._kept_of: dict[int, dict[int, Missed]] = {id(shape): {} for shape in shapes}
        self._rows = tuple(
            (s.reads, s.gates, s.plain, s.predicate, s.kind, s.named, s, self._kept_of[id(s)]) for s in shapes
        )
        self._of = {id(shape.check): shape for shape in shapes}
        readers = [0] * len(FIELDS)
        for number, asked in enumerate(self._gate_reads):
            for field in range(len(FIELDS)):
                if asked >> field & 1:
                    readers[field] |= 1 << number
        self._gate_readers = tuple(readers)
        self._false = self._compiled(list(self._gates))

    def _compiled(self, texts: Sequence[str]) -> Callable[[Mapping[str, int]], int]:
        names = sorted({word for text in texts for word in _words(text)} & set(FIELDS))
        lines = ["def false(given):", *(f" {name} = given[{name!r}]" for name in names), " found = 0"]
        for number, text in enumerate(texts):
            lines += [f" if not {text}: found |= {1 << number:#x}"]
        lines.append(" return found")
        namespace: dict[str, Any] = {}
        exec(compile("\n".join(lines), "<gates>", "exec"), namespace)  # the text is made here, from terms
        found: Callable[[Mapping[str, int]], int] = namespace["false"]
        return found

    def _shape(self, check: Check, ask: Callable[[Callable[[View], Any]], _Trace]) -> _Shape | None:
        """How a check reads its fields; None if it never applies on this processor."""
        named = _mask(self._static(check))
        gates, reads, plain = 0, named, check.doubt is None
        for gate in check.gates:
            trace = ask(gate.test)
            reads |= trace.reads
            if trace.constant is False:
                return None
            if trace.constant is None and trace.plain:
                text = text_of(trace.value.term)
                number = self._gates.setdefault(text, len(self._gates))
                if number == len(self._gate_reads):
                    self._gate_reads.append(trace.reads)
                gates |= 1 << number
            plain = plain and trace.plain
        trace = ask(check.holds)
        reads |= trace.reads | (ask(check.doubt).reads if check.doubt is not None else 0)
        kind = 0
        if check.certainty != "warning":
            known = (check.group.stage, check.outcome)
            if known not in self._kinds:
                self._kinds.append(known)
            kind = 1 << self._kinds.index(known)
        return _Shape(check, reads, named, gates, trace.reads, plain and trace.plain, kind)

    def outcomes(self, kinds: int) -> tuple[tuple[int, Outcome], ...]:
        """Stages and outcomes by the bits of `Leftover.kinds`."""
        found = self._outcomes.get(kinds)
        if found is None:
            chosen = [item for number, item in enumerate(self._kinds) if kinds >> number & 1]
            chosen.sort(
                key=lambda item: (item[0], item[1].errors, item[1].reason or 0, item[1].qualification or 0)
            )
            found = self._outcomes[kinds] = tuple(chosen)
        return found

    def sift(self, fields: Mapping[str, int], view: View) -> Leftover:
        """Say what is left to do for a VMCS."""
        missing, unsure = 0, 0
        for name in _NUMBER.keys() - fields.keys():
            number = _NUMBER[name]
            missing |= 1 << number
            unsure |= self._gate_readers[number]
        absent = missing
        for name in inactive(fields):
            missing &= ~(1 << _NUMBER[_UNUSED[name]])
        if missing != absent:
            unsure = 0
            for number in _NUMBER.values():
                if missing >> number & 1:
                    unsure |= self._gate_readers[number]
        full = {**_ZEROS, **fields}
        candidates, groups, bad = self._sieve.scan(full)
        of = self._of
        looks = [check for check in candidates if not of[id(check)].reads & missing]
        failing = [check for check in bad if not of[id(check)].reads & missing]
        found: list[Missed] = []
        kinds = 0
        closed = self._false(full) & ~unsure
        left = [row for row in self._rows if row[0] & missing and not row[1] & closed]
        for _, _, plain, predicate, kind, named, shape, kept in left:
            if not plain:
                looks.append(shape.check)
                continue
            if not predicate & missing and shape.check.holds(view):
                continue
            kinds |= kind
            lacks = absent & named
            missed = kept.get(lacks)
            found.append(missed or self._missed(shape, lacks, ""))
        for check, what in self._sieve.lacking(groups):
            shape = of[id(check)]
            if not shape.reads & missing:
                kinds |= shape.kind
                found.append(self._missed(shape, absent & shape.named, what))
        return Leftover(looks, failing, found, kinds)

    def _missed(self, shape: _Shape, lacks: int, what: str) -> Missed:
        """The check with the names of fields that it lacks; the same object for the same ones."""
        names = tuple(name for name in self._static(shape.check) if lacks >> _NUMBER[name] & 1)
        if not names:
            known = self._known.get((id(shape), what))
            if known is None:
                known = Missed(shape.check, self._place(shape.check), Undecided(shape.check.id, (what,)))
                self._known[id(shape), what] = known
            return known
        kept = self._kept_of[id(shape)]
        missed = kept.get(lacks)
        if missed is None:
            if len(kept) >= _MOST_KNOWN:
                kept.clear()
            missed = kept[lacks] = Missed(
                shape.check, self._place(shape.check), Undecided(shape.check.id, names)
            )
        return missed


@attrs.frozen
class _Trace:
    """What a gate or a predicate comes to on symbols.

    Attributes:
        value: its term.
        constant: its value, where that does not depend on fields.
        reads: the fields that it asks for.
        plain: it asks for each of them whatever the others are.
    """

    value: Any
    constant: bool | None
    reads: int
    plain: bool


def _traced(ask: Callable[[View], Any], capabilities: CapabilityView, launch: Launch) -> _Trace:
    view = _Traced({"_read": {}, "_discount": 0}, capabilities, launch)
    before = views.asked_lazily()
    try:
        value = ask(view)
    except (SymbolicConditionError, _Untraceable):
        return _Trace(None, None, _ALL, False)
    except MissingField:
        return _Trace(None, None, _mask(view._read), False)
    fields, lazy = _mask(view._read), views.asked_lazily() - before - view._discount
    if isinstance(value, Word) and not value.concrete:
        return _Trace(value, None, fields, not lazy)
    # Where nothing can change the value, what is asked for on the way must be there all the same.
    constant = bool(value.value if isinstance(value, Word) else value)
    if fields:
        return _Trace(None, None, fields, False)
    return _Trace(None, constant, 0, True)


def _mask(names: Iterable[str]) -> int:
    return sum(1 << _NUMBER[name] for name in names)


def _words(text: str) -> Iterable[str]:
    return text.replace("(", " ").replace(")", " ").split()


__all__ = ["Leftover", "Superset"]
