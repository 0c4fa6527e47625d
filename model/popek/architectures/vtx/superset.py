"""The checks for streams whose VMCSs give different fields: compiled once, with "absent" as a value of every field.

A gate or a predicate is run once on symbols. Beside its term, the run tells which fields it asks for in any case, and
which only where a condition holds: so it is known, as an expression over the absent fields, when it cannot be
answered. One function then says of every check whether it is closed, passes, fails, or lacks something. What cannot
be told in this way (entries of MSR areas, memory that is given, what is not known of the processor) is left to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel.terms import Term
from popek.kernel.words import SymbolicConditionError, Word

from . import view as views
from .capabilities import CapabilityView
from .compilation import NotCompiled, text_of
from .entry_checks import Check, Outcome
from .fields import FIELDS
from .findings import Missed, Undecided
from .view import View, derived, field_symbol
from .vmcs import Launch, MissingField

_BITS: Final = {name: 1 << number for number, name in enumerate(FIELDS)}
_ZEROS: Final = dict.fromkeys(FIELDS, 0)
_ALL: Final = (1 << len(FIELDS)) - 1
_NO_MEMORY: Final = 1 << len(FIELDS)
"""Beside the bits of absent fields: nothing is given of memory."""
_MOST_KNOWN: Final = 1 << 10


@attrs.define
class _Need:
    """What a run asks for.

    Attributes:
        fields: asked for in any case, as bits.
        lazy: conditions, and what is asked for only where they hold.
    """

    fields: int = 0
    lazy: list[tuple[Word, _Need]] = attrs.field(factory=list)

    def absent(self, text: Callable[[Term], str]) -> str:
        """An expression over `m`, the absent fields: whether something lacks."""
        parts = [f"m & {self.fields:#x}"] if self.fields else []
        for where, need in self.lazy:
            if (inner := need.absent(text)) != "False":
                parts.append(f"({text(where.term)} and ({inner}))")
        return " or ".join(parts) or "False"


class _Traced(View):
    """A view of symbols that notes what is asked for, each time."""

    def __getattr__(self, name: str) -> Any:
        """Make a symbol, or derive a value; nothing is kept, as what was asked for lazily may be needed later."""
        if name in FIELDS:
            self.__dict__["_need"].fields |= _BITS[name]
            return field_symbol(name)
        return derived(self, name)

    def read(self, address: Any, size: int) -> Any:
        """Memory is looked at, if there is any."""
        self.__dict__["_need"].fields |= _NO_MEMORY
        return super().read(address if isinstance(address, Word) else Word(64, address), size)

    def watch(self, where: Word, ask: Callable[[], Any]) -> Any:
        """Note what is asked for only under a condition."""
        outer, inner = self.__dict__["_need"], _Need()
        outer.lazy.append((where, inner))
        self.__dict__["_need"] = inner
        try:
            return ask()
        finally:
            self.__dict__["_need"] = outer


@attrs.frozen
class _Run:
    """What a gate or a predicate comes to on symbols.

    Attributes:
        absent: an expression: whether it cannot be answered, as far as the run went.
        holds: an expression: its value where it can be answered; None if that is not known.
        memory: whether it looks at memory.
    """

    absent: str
    holds: str | None
    memory: bool


def _run(ask: Callable[[View], Any], capabilities: CapabilityView, launch: Launch) -> _Run:
    need = _Need()
    view = _Traced({"_need": need}, capabilities, launch)
    holds: str | None = None
    value: Any = None
    try:
        with views.watching(view.watch):
            value = ask(view)
    except (SymbolicConditionError, MissingField):
        pass  # what was asked for up to here is asked for by numbers, too
    else:
        try:
            holds = text_of(value.term) if isinstance(value, Word) else str(bool(value))
        except NotCompiled:
            holds = None
    try:
        absent = need.absent(text_of)
    except NotCompiled:
        absent, holds = f"m & {need.fields:#x}" if need.fields else "False", None
    return _Run(absent, holds, f"{_NO_MEMORY:#x}" in absent or _looks_at_memory(need))


def _looks_at_memory(need: _Need) -> bool:
    return bool(need.fields & _NO_MEMORY) or any(_looks_at_memory(inner) for _, inner in need.lazy)


@attrs.frozen(eq=False)
class _Row:
    """A check, the fields that its answer names where they are absent, and what it may come to, as one bit."""

    check: Check
    named: int
    kind: int
    kept: dict[int, Missed] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Leftover:
    """What a VMCS leaves to do.

    Attributes:
        looks: checks that deserve a look.
        failing: checks that fail.
        lacking: checks that lack something, in the order of the ledger.
        kinds: what the lacking ones may come to, as bits; see `Superset.outcomes`.
    """

    looks: list[Check]
    failing: list[Check]
    lacking: list[Missed]
    kinds: int


class Superset:
    """The checks for one processor, for VMCSs that give any fields; see the module.

    Args:
        checks: in the order of the ledger.
        capabilities: of the processor.
        launch: what the processor is doing.
        reads: the fields that a check looks at.
        order: the place of a check in the ledger.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        capabilities: CapabilityView,
        launch: Launch,
        *,
        reads: Callable[[Check], tuple[str, ...]],
        order: Callable[[Check], int],
    ) -> None:
        """Compile the checks; see the class."""
        self._static, self._place = reads, order
        self._kinds: list[tuple[int, Outcome]] = []
        self._outcomes: dict[int, tuple[tuple[int, Outcome], ...]] = {}
        self._rows = tuple(
            _Row(check, _mask(reads(check)), self._kind(check)) for check in sorted(checks, key=order)
        )
        self._gates: dict[tuple[str, str], str] = {}
        groups: dict[tuple[str, ...], list[str]] = {}
        for number, row in enumerate(self._rows):
            gates: list[str] | None = []
            for gate in row.check.gates:
                name = self._gate(_run(gate.test, capabilities, launch))
                if name == "False":
                    gates = None
                    break
                if name != "True":
                    gates.append(name)
            if gates is None:
                continue  # on this processor the check never applies
            key = tuple(dict.fromkeys(gates))
            body = groups.setdefault(key, [])
            body += self._lines(number, row.check, capabilities, launch, key)
        self._sift = self._compiled(groups)

    def _kind(self, check: Check) -> int:
        if check.certainty == "warning":
            return 0
        known = (check.group.stage, check.outcome)
        if known not in self._kinds:
            self._kinds.append(known)
        return 1 << self._kinds.index(known)

    def _gate(self, run: _Run) -> str:
        """The name of a variable that is 0, 1, or 2 where the gate cannot be answered."""
        if run.memory or run.holds is None:
            # It may be open, and nothing closes the check but another gate.
            return "maybe"
        if run.absent == "False" and run.holds in ("True", "False"):
            return run.holds
        return self._gates.setdefault((run.absent, run.holds), f"g{len(self._gates)}")

    @staticmethod
    def _lines(
        number: int, check: Check, capabilities: CapabilityView, launch: Launch, gates: Sequence[str]
    ) -> list[str]:
        """What to do about a check whose gates are not known to be closed."""
        run = _run(check.holds, capabilities, launch)
        passes = "False" if run.memory or run.holds is None else run.holds
        sure = passes != "False" or run.holds == "False"
        if check.doubt is not None and passes != "False":
            second = _run(check.doubt, capabilities, launch)
            fine = "False" if second.memory or second.holds is None else second.holds
            passes, sure = f"({passes}) and not ({second.absent}) and ({fine})", False
        if "maybe" in gates:
            return [f"if {run.absent} or not ({passes}): look({number})"]
        lines = [f"if {run.absent}: lack({number})"] if run.absent != "False" else []
        if passes == "True":
            return lines
        told = "look" if not sure else "(lack if u else bad)" if gates else "bad"
        return [*lines, f"{'elif' if lines else 'if'} not ({passes}): {told}({number})"]

    def _compiled(
        self, groups: Mapping[tuple[str, ...], Sequence[str]]
    ) -> Callable[[Mapping[str, int], int], tuple[list[int], list[int], list[int]]]:
        body = [f" {name} = 2 if {absent} else {holds}" for (absent, holds), name in self._gates.items()]
        for gates, lines in groups.items():
            if not gates:
                body += [f" {line}" for line in lines]
                continue
            unknown = " or ".join(f"{name} == 2" for name in gates)
            body += [f" if {' and '.join(gates)}:", f"  u = {unknown}", *(f"  {line}" for line in lines)]
        words = {word for line in body for word in line.replace("(", " ").replace(")", " ").split()}
        head = [
            "def sift(given, m):",
            " maybe = 2",
            *(f" {name} = given[{name!r}]" for name in sorted(words & set(FIELDS))),
            *(f" {name}s = []; {name} = {name}s.append" for name in ("lack", "bad", "look")),
        ]
        namespace: dict[str, Any] = {}
        text = "\n".join([*head, *body, " return lacks, bads, looks"])
        exec(compile(text, "<VM-entry checks>", "exec"), namespace)  # the text is made here, from terms
        found: Callable[[Mapping[str, int], int], tuple[list[int], list[int], list[int]]] = namespace["sift"]
        return found

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
        absent = _ALL ^ sum(map(_BITS.__getitem__, fields))
        lacking, failing, looks = self._sift(
            {**_ZEROS, **fields}, absent if view._memory else absent | _NO_MEMORY
        )
        rows, kinds = self._rows, 0
        leftover = Leftover([rows[n].check for n in looks], [rows[n].check for n in failing], [], 0)
        lacking.sort()
        found = leftover.lacking
        for number in lacking:
            row = rows[number]
            lacks = absent & row.named
            missed = row.kept.get(lacks)
            if missed is None:
                if not lacks:
                    leftover.looks.append(row.check)
                    continue
                missed = self._missed(row, lacks)
            kinds |= row.kind
            found.append(missed)
        leftover.kinds = kinds
        return leftover

    def _missed(self, row: _Row, lacks: int) -> Missed:
        """The check with the names of fields that it lacks; the same object for the same ones."""
        names = tuple([name for name in self._static(row.check) if lacks & _BITS[name]])
        if len(row.kept) >= _MOST_KNOWN:
            row.kept.clear()
        missed = row.kept[lacks] = Missed(row.check, self._place(row.check), Undecided(row.check.id, names))
        return missed


def _mask(names: Iterable[str]) -> int:
    return sum(_BITS[name] for name in names)


__all__ = ["Leftover", "Superset"]
