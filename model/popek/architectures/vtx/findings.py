"""What checks find: those that fail, those that some processors fail, and those that lack something."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import attrs

from .entry_checks import Check, Outcome
from .fields import FIELDS


@attrs.frozen
class Undecided:
    """A check that lacks inputs: field ids, or words for a capability or a place in memory.

    Streams repeat the same answers, so an answer keeps what is asked of it each time.

    Attributes:
        id: of the check.
        missing: the inputs.
        of_fields: whether the first of them is a field.
        text: the answer as compact JSON.
    """

    id: str
    missing: tuple[str, ...]
    of_fields: bool = attrs.field(init=False, eq=False, repr=False)
    text: str = attrs.field(init=False, eq=False, repr=False)

    @of_fields.default
    def _of_fields(self) -> bool:
        return bool(self.missing) and self.missing[0] in FIELDS

    @text.default
    def _text(self) -> str:
        if self.of_fields:
            names = '","'.join(self.missing)
            return f'{{"id":"{self.id}","missing":["{names}"]}}'
        return json.dumps({"id": self.id, "missing": list(self.missing)}, separators=(",", ":"))


@attrs.frozen(eq=False)
class Missed:
    """What a stream of different fields lacks.

    Attributes:
        answers: the checks that lack something, in the order of the ledger.
        numbers: of them.
        order: place in the ledger by number.
        perhaps: stages and outcomes that they may come to.
        may_fail: whether one of them would fail the entry on every processor.
    """

    answers: Sequence[Undecided] = ()
    numbers: Sequence[int] = ()
    order: Sequence[int] = ()
    perhaps: tuple[tuple[int, Outcome], ...] = ()
    may_fail: bool = False

    @property
    def places(self) -> list[int]:
        """The place of each in the ledger."""
        return [self.order[number] for number in self.numbers]


def rank(item: tuple[int, Outcome]) -> tuple[int, tuple[int, ...], int, int]:
    """The order of stages and outcomes."""
    stage, outcome = item
    return stage, outcome.errors, outcome.reason or 0, outcome.qualification or 0


_NONE: Final = Missed()


@attrs.define
class Findings:
    """What a run of the checks found, in the order of the ledger.

    Attributes:
        violated: checks whose predicate fails.
        doubtful: checks whose predicate holds, but that some processors fail.
        undecided: checks that lack an input, with what an input that is no field is; VMCSs of one stream
            may share a tuple.
        missed: more of them, as a stream of different fields has them.
    """

    violated: list[Check]
    doubtful: list[Check]
    undecided: Sequence[tuple[Check, str]]
    missed: Missed = _NONE


__all__ = ["Findings", "Missed", "Undecided", "rank"]
