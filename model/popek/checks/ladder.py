"""How far the evidence of a verdict goes, rung by rung.

A yes that has a witness: a solver found it, it is replayed on numbers, and an emulator confirms it.  A no, and what
holds: a solver found no assignment, a second solver says the same, and a certificate was checked.  What is concluded by
a theorem rests on the lock of what Coq proved.  A rung is reached, was not asked, or was asked and is unknown; the
last two say why.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import attrs


class Rung(enum.Enum):
    """What evidence can be."""

    REPLAYED = "replayed"
    EMULATOR = "emulator"
    SOLVER = "solver"
    SECOND_SOLVER = "second solver"
    CERTIFICATE = "certificate"
    THEOREM = "theorem lock"


class Reached(enum.Enum):
    """Whether a rung was reached."""

    YES = "reached"
    UNKNOWN = "unknown"
    NOT_ASKED = "not asked"


@attrs.frozen
class LadderStep:
    """One rung of one verdict.

    Attributes:
        told: by what it was reached; or why it was not.
    """

    rung: Rung
    reached: Reached
    told: str

    def to_json(self) -> dict[str, object]:
        """`evidence.schema.json`, `step`."""
        return {"rung": self.rung.value, "reached": self.reached.value, "told": self.told}


HOW_TO_CONFIRM: Final = "with --certify"
HOW_TO_CERTIFY: Final = "with --certify"
HOW_TO_EMULATE: Final = "with --confirm"
NOT_WANTED: Final = "no certificate was asked for"


NOT_FOUND: Final = LadderStep(Rung.REPLAYED, Reached.UNKNOWN, "no witness within the time limit")
REPLAYED: Final = LadderStep(Rung.REPLAYED, Reached.YES, "the witness was run on numbers")


@attrs.frozen
class Ladder:
    """The steps of many questions, rung by rung.

    Attributes:
        steps: of each question.
    """

    steps: tuple[tuple[LadderStep, ...], ...]

    @property
    def questions(self) -> int:
        """How many questions."""
        return len(self.steps)

    def of(self, rung: Rung) -> Counter[Reached]:
        """How many reached a rung, or did not."""
        return Counter(step.reached for steps in self.steps for step in steps if step.rung is rung)

    def told(self, rung: Rung, reached: Reached) -> tuple[str, ...]:
        """By what it was reached, or why not: the most frequent first."""
        found = (step for steps in self.steps for step in steps if step.rung is rung)
        return tuple(told for told, _ in Counter(s.told for s in found if s.reached is reached).most_common())

    def to_json(self) -> list[dict[str, object]]:
        """`evidence.schema.json`, `ladder`: a row per rung that is on it."""
        rows = []
        for rung in Rung:
            counted = self.of(rung)
            if counted:
                row: dict[str, object] = {"rung": rung.value, "of": sum(counted.values())}
                row |= {reached.value.replace(" ", "_"): counted[reached] for reached in Reached}
                row["told"] = [told for reached in Reached for told in self.told(rung, reached)]
                rows.append(row)
        return rows

    def __str__(self) -> str:
        """One line: each rung with how many reached it, and why others did not."""
        asked, not_asked = [], []
        for rung in Rung:
            counted = self.of(rung)
            total, reached = sum(counted.values()), counted[Reached.YES]
            why = [told for r in (Reached.UNKNOWN, Reached.NOT_ASKED) for told in self.told(rung, r)[:2]]
            because = f" ({'; '.join(why)})" if why else ""
            if counted[Reached.NOT_ASKED] < total:
                asked.append(f"{rung.value} {reached} of {total}{because}")
            elif total:
                not_asked.append(f"{rung.value}{because}")
        return "; ".join([*asked, *([f"not asked: {', '.join(not_asked)}"] if not_asked else [])])


def ladder(steps: Iterable[Sequence[LadderStep]]) -> Ladder:
    """The ladder of some verdicts."""
    return Ladder(tuple(tuple(one) for one in steps))


__all__ = [
    "HOW_TO_CERTIFY",
    "HOW_TO_CONFIRM",
    "HOW_TO_EMULATE",
    "NOT_FOUND",
    "NOT_WANTED",
    "REPLAYED",
    "Ladder",
    "LadderStep",
    "Reached",
    "Rung",
    "ladder",
]
