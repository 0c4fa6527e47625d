"""How two VMCSs differ, field by field and bit by bit, and whether their verdicts do."""

from __future__ import annotations

import attrs

from ..capabilities import Capabilities
from ..controls import Bit
from ..fields import FIELDS
from .bits import decode
from .diagnosis import diagnose
from .model import Dump


@attrs.frozen
class FieldChange:
    """A field that both dumps have with different values, and the named bits that differ."""

    field: str
    first: int
    second: int
    bits: tuple[tuple[Bit, Bit], ...]


@attrs.frozen
class DumpComparison:
    """The difference of two dumps; ids are in the order of the encodings."""

    first: Dump
    second: Dump
    changes: tuple[FieldChange, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    first_summary: str
    second_summary: str
    first_failed: tuple[str, ...]
    second_failed: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the two dumps give the same fields the same values."""
        return not (self.changes or self.only_first or self.only_second)


def compare(first: Dump, second: Dump, capabilities: tuple[Capabilities, Capabilities]) -> DumpComparison:
    """Compare two dumps; `capabilities` are those of the two processors."""
    one, two = diagnose(first, capabilities[0]), diagnose(second, capabilities[1])
    both = [id_ for id_ in FIELDS if id_ in first.fields and id_ in second.fields]
    return DumpComparison(
        first=first,
        second=second,
        changes=tuple(
            _change(id_, first.fields[id_], second.fields[id_])
            for id_ in both
            if first.fields[id_] != second.fields[id_]
        ),
        only_first=tuple(id_ for id_ in FIELDS if id_ in first.fields and id_ not in second.fields),
        only_second=tuple(id_ for id_ in FIELDS if id_ in second.fields and id_ not in first.fields),
        first_summary=one.summary,
        second_summary=two.summary,
        first_failed=tuple(failure.id for failure in one.verdict.failed),
        second_failed=tuple(failure.id for failure in two.verdict.failed),
    )


def _change(field_id: str, first: int, second: int) -> FieldChange:
    before = {(bit.high, bit.low): bit for bit in decode(field_id, first)}
    after = {(bit.high, bit.low): bit for bit in decode(field_id, second)}
    pairs = [(before[place], after[place]) for place in before if place in after]
    return FieldChange(
        field_id, first, second, tuple(pair for pair in pairs if pair[0].value != pair[1].value)
    )
