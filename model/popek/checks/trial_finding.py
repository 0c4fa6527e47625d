"""What a trial of a machine finds: a line for each thing that is wrong or odd."""

from __future__ import annotations

import enum

import attrs


class TrialKind(enum.Enum):
    """What was found."""

    MISTAKE = "mistake"  # nothing can be asked
    LAW = "law"  # what is explored is not what runs
    LIMIT = "limit"  # more than the budget
    ADVICE = "advice"  # may be meant


@attrs.frozen
class TrialFinding:
    """One thing that was found.

    Attributes:
        form: the instruction it is about; empty where it is about the machine.
        text: a line for people.
    """

    kind: TrialKind
    form: str
    text: str

    def to_json(self) -> dict[str, str]:
        """For `popek machines --check --json`."""
        return {"kind": self.kind.value, "form": self.form, "text": self.text}
