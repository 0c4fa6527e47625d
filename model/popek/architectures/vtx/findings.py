"""What checks find: those that fail, those that some processors fail, and those that lack something."""

from __future__ import annotations

import json
from collections.abc import Sequence

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
    """A check that lacks something, with its place in the ledger and the answer; objects are kept."""

    check: Check
    place: int
    answer: Undecided


@attrs.define
class Findings:
    """What a run of the checks found, in the order of the ledger.

    Attributes:
        violated: checks whose predicate fails.
        doubtful: checks whose predicate holds, but that some processors fail.
        undecided: checks that lack an input, with what an input that is no field is; VMCSs of one stream
            may share a tuple.
        missed: more of them, in the order of the ledger, as a stream of different fields has them.
        perhaps: stages and outcomes that the `missed` ones may come to.
    """

    violated: list[Check]
    doubtful: list[Check]
    undecided: Sequence[tuple[Check, str]]
    missed: Sequence[Missed] = ()
    perhaps: tuple[tuple[int, Outcome], ...] = ()


__all__ = ["Findings", "Missed", "Undecided"]
