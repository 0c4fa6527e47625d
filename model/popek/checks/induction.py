"""One question of an induction over steps, and what became of it."""

from __future__ import annotations

from typing import Any

import attrs

from .verdict import Evidence, Status


@attrs.frozen(eq=False)
class InductionRow:
    """One question.

    Attributes:
        promise: by name.
        step: ``base``, another step of the declaration, or an instruction form of the guest.
        status: whether it holds.
        evidence: what was asked, hash and answer; None where the step does not touch anything.
        why: what else is to be said.
    """

    promise: str
    step: str
    status: Status
    evidence: Evidence | None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "promise": self.promise,
            "step": self.step,
            "verdict": self.status.value,
            "evidence": None if self.evidence is None else self.evidence.to_json(),
            **({"why": self.why} if self.why else {}),
        }
