"""The smallest change of fields that makes rules hold, or the rules that make one impossible; of any structure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs

from popek.kernel import terms
from popek.kernel.words import Word
from popek.solving.optimize import cheapest, contradiction
from popek.solving.solver import Answer, Effort

BIT = 100_000
"""The cost of a changed bit; it outweighs all preferences together."""


@attrs.frozen
class Change:
    """A field that gets another value; `bits` are those that differ, lowest first."""

    field: str
    before: int
    after: int

    @property
    def bits(self) -> tuple[int, ...]:
        """The numbers of the bits that differ."""
        differing = self.before ^ self.after
        return tuple(number for number in range(64) if differing >> number & 1)


@attrs.frozen
class Reason:
    """Why there is no repair: checks that cannot all hold while these fields are kept; each is needed."""

    checks: tuple[str, ...]
    kept: tuple[str, ...]


@attrs.frozen
class Solution:
    """A cheapest assignment.

    Attributes:
        bits: how many bits of known fields change.
        changed: the known fields with the changes.
        missing: values of the fields that were not known.
    """

    bits: int
    changed: Mapping[str, int]
    missing: Mapping[str, int]


@attrs.frozen
class Edits:
    """What must hold of the fields of a structure, and what a change costs.

    Attributes:
        symbols: the fields that may change, by id.
        widths: of them, in bits; a symbol may be wider, with zeros in front.
        known: values of the fields as they are.
        rules: conditions that must hold, by the id of the check.
        keep: ids of fields that must not change.
        weight: of a bit: what it costs to change it, by field, bit and value of the field.
        likely: of fields that are not known; the others are likely 0.
    """

    symbols: Mapping[str, Word]
    widths: Mapping[str, int]
    known: Mapping[str, int]
    rules: Mapping[str, Word]
    keep: Collection[str]
    weight: Callable[[str, int, int], int]
    likely: Mapping[str, int] = attrs.field(factory=dict)

    def _kept(self) -> dict[str, Word]:
        return {
            name: self.symbols[name] == self.known[name]
            for name in self.keep
            if name in self.symbols and name in self.known
        }

    def solve(self, effort: Effort) -> Solution | Answer:
        """A cheapest change, or UNSAT or UNKNOWN."""
        hard = [*self.rules.values(), *self._kept().values()]
        if any(condition.value == 0 for condition in hard):
            return Answer.UNSAT
        mentioned = _mentioned(hard)
        wishes = [
            (word[number] == (value >> number & 1), self.weight(name, number, value) if given else 1)
            for name, word in self.symbols.items()
            if name in mentioned and name not in self.keep
            for given in (name in self.known,)
            for value in (self.known.get(name, self.likely.get(name, 0)),)
            for number in range(self.widths[name])
        ]
        found = cheapest(hard, wishes, effort)
        if found.model is None:
            return found.answer
        changed, missing, bits = dict(self.known), {}, 0
        for name, word in self.symbols.items():
            value = found.model(word.term) if name in mentioned else self.known.get(name, 0)
            if name not in self.known:
                missing[name] = value
            elif value != self.known[name]:
                changed[name] = value
                bits += (value ^ self.known[name]).bit_count()
        return Solution(bits, changed, missing)

    def reason(self, effort: Effort) -> Reason:
        """Why there is no solution."""
        kept = {f"={name}": condition for name, condition in self._kept().items()}
        core = contradiction({**self.rules, **kept}, effort) or ()
        return Reason(
            tuple(name for name in core if name in self.rules),
            tuple(name[1:] for name in core if name in kept),
        )


class EntryVerdict(Protocol):
    """A verdict on a VMCS or a VMCB."""

    @property
    def failed(self) -> Sequence[Any]:
        """The checks that fail, each with `id` and `message`."""

    @property
    def undecided(self) -> Sequence[Any]:
        """The checks that lack something."""

    @property
    def kind(self) -> str:
        """What becomes of the entry: ``enters``, ``undecided``, or how it fails."""

    def to_json(self) -> dict[str, Any]:
        """As a command prints it."""


_REPAIRABLE: Final = {"sat": True, "unsat": False}


@attrs.frozen
class Repair:
    """What has to change in a VMCS or a VMCB so that the entry succeeds.

    Attributes:
        verdict: on the VMCS as it is.
        answer: SAT: `changes` is a smallest repair; UNSAT: there is none, see `reason`; UNKNOWN: out of effort.
        changes: in the order of the fields' encodings; empty if nothing has to change.
        assumed: fields that the VMCS does not give and that checks need, with values that let it enter.
        after: verdict on the VMCS with the changes and the assumed fields.
        reason: why there is no repair.
        plain_processor: whether what is not known of the processor was taken to be as on plain ones.
        unexplained: the entry is said to have failed, and no check is known to fail: the cause is not in what is
            given, and there is nothing to repair.
    """

    verdict: EntryVerdict
    answer: Answer
    changes: tuple[Change, ...] = ()
    assumed: Mapping[str, int] = attrs.field(factory=dict)
    after: EntryVerdict | None = None
    reason: Reason | None = None
    plain_processor: bool = False
    unexplained: bool = False

    def to_json(self) -> dict[str, Any]:
        """The verdict with the repair, as `popek vmcs|vmcb repair --json` prints it."""
        answer = self.verdict.to_json()
        answer["repairable"] = None if self.unexplained else _REPAIRABLE.get(self.answer.value)
        answer["changes"] = [
            {
                "field": change.field,
                "from": hex(change.before),
                "to": hex(change.after),
                "bits": list(change.bits),
            }
            for change in self.changes
        ]
        answer["assumed"] = {name: hex(value) for name, value in self.assumed.items()}
        answer["plain_processor"] = self.plain_processor
        answer["unexplained"] = self.unexplained
        if self.after is not None:
            after = self.after.to_json()
            answer["after"] = {key: after[key] for key in ("outcome", "failed", "undecided", "warnings")}
        if self.reason is not None:
            answer["why"] = {"checks": list(self.reason.checks), "kept": list(self.reason.kept)}
        return answer


def end_of(found: Repair) -> str:
    """How a repaired structure ends, in a word: ``enters``, ``undecided``, or how it fails."""
    if found.unexplained or found.answer is Answer.UNKNOWN:
        return "undecided"
    return found.after.kind if found.after is not None else "fails"


def _mentioned(conditions: Iterable[Word]) -> Collection[str]:
    return frozenset(terms.variables_of(condition.term for condition in conditions))


def changes_between(
    before: Mapping[str, int], after: Mapping[str, int], order: Iterable[str]
) -> tuple[Change, ...]:
    """The fields that differ, in an order."""
    return tuple(
        Change(name, before[name], after[name])
        for name in order
        if name in before and name in after and before[name] != after[name]
    )


__all__ = ["BIT", "Change", "Edits", "Reason", "Repair", "Solution", "changes_between", "end_of"]
