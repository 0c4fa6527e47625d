"""The checks for streams whose VMCSs give different fields: compiled once, with "absent" as a value of every field.

A gate or a predicate is run once on symbols. Beside its term, the run tells which fields it asks for in any case, and
which only where a condition holds: so it is known, as an expression over the absent fields, when it cannot be
answered. One function then says of every check whether it is closed, passes, fails, or lacks something. What cannot
be told in this way (entries of MSR areas, memory that is given, what is not known of the processor) is left to look at.
"""

from __future__ import annotations

import operator
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
from .findings import Missed, Undecided, rank
from .view import View, derived, field_symbol
from .vmcs import Launch, MissingField, PerhapsMissing

_BITS: Final = {name: 1 << number for number, name in enumerate(FIELDS)}
_ZEROS: Final = dict.fromkeys(FIELDS, 0)
_ALL: Final = (1 << len(FIELDS)) - 1
_NO_MEMORY: Final = 1 << len(FIELDS)
"""Beside the bits of absent fields: nothing is given of memory."""
_TWO: Final = ("VPID", "VPID")
"""Fields that are picked in any case: a tuple has two items at least."""
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
        stopped: whether it cannot do without something that is no field.
    """

    absent: str
    holds: str | None
    memory: bool
    stopped: bool = False

    @property
    def hopeless(self) -> bool:
        """Whether it never holds, whatever the fields are."""
        return self.stopped or (self.holds == "False" and self.absent == "False")


def _run(ask: Callable[[View], Any], capabilities: CapabilityView, launch: Launch) -> _Run:
    need = _Need()
    view = _Traced({"_need": need}, capabilities, launch)
    holds: str | None = None
    value: Any = None
    stopped = False
    try:
        with views.watching(view.watch):
            value = ask(view)
    except (SymbolicConditionError, MissingField) as error:
        # What was asked for up to here is asked for by numbers, too.
        stopped = isinstance(error, MissingField) and not isinstance(error, PerhapsMissing)
    else:
        try:
            holds = text_of(value.term) if isinstance(value, Word) else str(bool(value))
        except NotCompiled:
            holds = None
    try:
        absent = need.absent(text_of)
    except NotCompiled:
        absent, holds = f"m & {need.fields:#x}" if need.fields else "False", None
    return _Run(absent, holds, f"{_NO_MEMORY:#x}" in absent or _looks_at_memory(need), stopped)


def _looks_at_memory(need: _Need) -> bool:
    return bool(need.fields & _NO_MEMORY) or any(_looks_at_memory(inner) for _, inner in need.lazy)


@attrs.define(eq=False)
class Leftover:
    """What a VMCS leaves to do: checks that deserve a look, those that fail, and those that lack something."""

    looks: list[Check]
    failing: list[Check]
    missed: Missed


@attrs.frozen
class _Asked:
    """The processor that is asked about, and those at either end of what is known of it."""

    capabilities: CapabilityView
    launch: Launch
    extremes: tuple[CapabilityView, ...]

    def ask(self, question: Callable[[View], Any]) -> _Run:
        """What a gate or a predicate comes to."""
        return _run(question, self.capabilities, self.launch)

    def hopeless(self, check: Check) -> bool:
        """Whether one of the extreme processors never lets a check pass."""
        return any(_run(check.holds, extreme, self.launch).hopeless for extreme in self.extremes)


class Superset:
    """The checks for one processor, for VMCSs that give any fields; see the module.

    Args:
        checks: in the order of the ledger.
        capabilities: of the processor.
        launch: what the processor is doing.
        extremes: the processors at either end of what is known.
        reads: the fields that a check looks at.
        order: the place of a check in the ledger.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        capabilities: CapabilityView,
        launch: Launch,
        extremes: Sequence[CapabilityView],
        *,
        reads: Callable[[Check], tuple[str, ...]],
        order: Callable[[Check], int],
    ) -> None:
        """Compile the checks; see the class."""
        self._static = reads
        self._of = _Asked(capabilities, launch, tuple(extremes))
        self._outcomes: dict[frozenset[int], tuple[tuple[tuple[int, Outcome], ...], bool]] = {}
        self._checks = tuple(sorted(checks, key=order))
        self._named = [_mask(reads(check)) for check in self._checks]
        self._known: list[dict[int, Undecided]] = [{} for _ in self._checks]
        self._places = [order(check) for check in self._checks]
        self._of_kind: list[tuple[str, tuple[int, Outcome]]] = []
        self._kinds = [self._kind(check) for check in self._checks]
        self._gates: dict[tuple[str, str], str] = {}
        groups: dict[tuple[str, ...], list[str]] = {}
        for number, check in enumerate(self._checks):
            gates = [self._gate(self._of.ask(gate.test)) for gate in check.gates]
            if "False" in gates:
                continue  # on this processor the check never applies
            key = tuple(dict.fromkeys(name for name in gates if name != "True"))
            body = groups.setdefault(key, [])
            body += self._lines(number, check, key)
        self._sift = self._compiled(groups)

    def _kind(self, check: Check) -> int:
        """The number of a certainty, and of what a check may come to."""
        kind = (check.certainty, (check.group.stage, check.outcome))
        if kind not in self._of_kind:
            self._of_kind.append(kind)
        return self._of_kind.index(kind)

    def _gate(self, run: _Run) -> str:
        """The name of a variable that is 0, 1, or 2 where the gate cannot be answered."""
        if run.memory or run.holds is None:
            # It may be open, and nothing closes the check but another gate.
            return "maybe"
        if run.absent == "False" and run.holds in ("True", "False"):
            return run.holds
        return self._gates.setdefault((run.absent, run.holds), f"g{len(self._gates)}")

    def _lines(self, number: int, check: Check, gates: Sequence[str]) -> list[str]:
        """What to do about a check whose gates are not known to be closed."""
        run = self._of.ask(check.holds)
        passes = "False" if run.memory or run.holds is None else run.holds
        sure = passes != "False" or run.holds == "False"
        if check.doubt is not None and passes != "False":
            second = self._of.ask(check.doubt)
            fine = "False" if second.memory or second.holds is None else second.holds
            passes, sure = f"({passes}) and not ({second.absent}) and ({fine})", False
        if "maybe" in gates:
            return [f"if {run.absent} or not ({passes}): look({number})"]
        lines = [f"if {run.absent}: lack({number})"] if run.absent != "False" else []
        if passes == "True":
            return lines
        if sure:
            told = "(lack if u else bad)" if gates else "bad"
        else:
            # If no processor lets it pass, it is undecided with its gates.
            told = "(lack if u else look)" if gates and run.stopped and self._of.hopeless(check) else "look"
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
        used = [*sorted(words & set(FIELDS)), *_TWO]
        head = [
            "def sift(given, m):",
            " maybe = 2",
            f" {', '.join(used)} = pick(given)",
            *(f" {name}s = []; {name} = {name}s.append" for name in ("lack", "bad", "look")),
        ]
        namespace: dict[str, Any] = {"pick": operator.itemgetter(*used)}
        text = "\n".join([*head, *body, " return lacks, bads, looks"])
        exec(compile(text, "<VM-entry checks>", "exec"), namespace)  # the text is made here, from terms
        found: Callable[[Mapping[str, int], int], tuple[list[int], list[int], list[int]]] = namespace["sift"]
        return found

    def sift(self, fields: Mapping[str, int], view: View) -> Leftover:
        """Say what is left to do for a VMCS."""
        absent = _ALL ^ sum(map(_BITS.__getitem__, fields))
        lacking, failing, looks = self._sift(
            {**_ZEROS, **fields}, absent if view._memory else absent | _NO_MEMORY
        )
        checks, named, known = self._checks, self._named, self._known
        lacking.sort()
        answers = [known[number].get(absent & named[number]) for number in lacking]
        if not all(answers):
            for place, number in enumerate(lacking):
                if answers[place] is None:
                    answers[place] = self._answer(number, absent & named[number])
            # What no field explains is named by a look.
            looks += [number for number, answer in zip(lacking, answers, strict=True) if answer is None]
            lacking = [number for number, answer in zip(lacking, answers, strict=True) if answer is not None]
            answers = [answer for answer in answers if answer is not None]
        kinds = self._kinds
        perhaps, may_fail = self._perhaps(frozenset({kinds[number] for number in lacking}))
        return Leftover(
            [checks[number] for number in looks],
            [checks[number] for number in failing],
            Missed(answers, lacking, self._places, perhaps, may_fail),  # type: ignore[arg-type]  # none is None
        )

    def _answer(self, number: int, lacks: int) -> Undecided | None:
        """The check with the names of fields that it lacks, the same object for the same ones; None if none does."""
        if not lacks:
            return None
        check, kept = self._checks[number], self._known[number]
        if len(kept) >= _MOST_KNOWN:
            kept.clear()
        names = tuple([name for name in self._static(check) if lacks & _BITS[name]])
        found = kept[lacks] = Undecided(check.id, names)
        return found

    def _perhaps(self, kinds: frozenset[int]) -> tuple[tuple[tuple[int, Outcome], ...], bool]:
        """Stages and outcomes by their numbers, in their order; and whether one of them is certain."""
        found = self._outcomes.get(kinds)
        if found is None:
            chosen = [self._of_kind[kind] for kind in kinds]
            told = {outcome for certainty, outcome in chosen if certainty != "warning"}
            certain = any(certainty == "must" for certainty, _ in chosen)
            found = self._outcomes[kinds] = tuple(sorted(told, key=rank)), certain
        return found


def _mask(names: Iterable[str]) -> int:
    return sum(_BITS[name] for name in names)


__all__ = ["Leftover", "Superset"]
