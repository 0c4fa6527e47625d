"""A row of a survey: one instruction form, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from .ladder import HOW_TO_CERTIFY, LadderStep, Rung
from .leaks import Leaks
from .verdict import Truth

CLASSES = (
    "privileged",
    "control_sensitive",
    "location_sensitive",
    "mode_sensitive",
    "resource_sensitive",
    "user_sensitive",
    "sensitive",
    "innocuous",
    "critical",
    "user_critical",
)
PROMISED = ("faithful", "safe", "needless_trap")


@attrs.frozen
class LetterRow:
    """One form by the letter of 1974.

    Attributes:
        classes: the answer per class of `LETTER`.
        here: the answers of `SurveyRow.classes`, by the same names.
        witness: a counterexample, where a class has another answer here.
        not_asked: why *privileged* was not asked.
    """

    classes: Mapping[str, Truth]
    here: Mapping[str, Truth]
    witness: Mapping[str, Any] | None = None
    not_asked: str = ""

    @property
    def differs(self) -> tuple[str, ...]:
        """The classes with another answer here."""
        return tuple(name for name, truth in self.classes.items() if truth is not self.here[name])

    def to_json(self) -> dict[str, object]:
        """By class."""
        row: dict[str, object] = {name: truth.value for name, truth in self.classes.items()}
        row |= {"differs": list(self.differs), "witness": self.witness}
        return row | ({"not_asked": self.not_asked} if self.not_asked else {})


@attrs.frozen
class SurveyRow:
    """One instruction form.

    Attributes:
        classes: the answer per class of `CLASSES`.
        components: what leaks or changes.
        undecided: what may, too.
        faithful, safe, needless_trap: the promises, where they were asked about.
        breaches: how the promises are broken, by name.
        witness: a counterexample for a critical form, where it was asked for.
        leaks: what leaks through it, where that was asked for.
        not_asked: per class that was not asked, why.
        steps: per question, how far the evidence goes.
        remark: why something is unknown.
        letter: the classes by the letter of 1974, where they were asked for.
        seconds, solver_seconds: what it took.
        from_store: it was found earlier, and kept.
    """

    form: str
    mnemonic: str
    source: str
    classes: Mapping[str, Truth]
    components: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    faithful: Truth | None = None
    safe: Truth | None = None
    needless_trap: Truth | None = None
    breaches: Mapping[str, str] = attrs.field(factory=dict)
    witness: Mapping[str, Any] | None = None
    leaks: Leaks | None = attrs.field(default=None, repr=False)
    remark: str = ""
    not_asked: Mapping[str, str] = attrs.field(factory=dict)
    steps: Mapping[str, tuple[LadderStep, ...]] = attrs.field(factory=dict, eq=False)
    letter: LetterRow | None = None
    seconds: float = 0.0
    solver_seconds: float = 0.0
    from_store: bool = attrs.field(default=False, eq=False)

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        asked = [*self.classes.values(), *(t for t in (self.faithful, self.safe) if t is not None)]
        asked += [] if self.letter is None else self.letter.classes.values()
        return Truth.UNKNOWN in asked

    def to_json(self) -> dict[str, object]:
        """The keys of `popek/classification/1`."""
        row: dict[str, object] = {
            "mnemonic": self.mnemonic,
            "form": self.form,
            "source": self.source,
            "components": list(self.components),
            "components_undecided": list(self.undecided),
            "witness": self.witness,
        }
        row |= {name: truth.value for name, truth in self.classes.items()}
        for name in PROMISED:
            truth = getattr(self, name)
            row[name] = (Truth.NOT_ASKED if truth is None else truth).value
        if self.breaches:
            row["breaches"] = dict(self.breaches)
        if self.not_asked:
            row["not_asked"] = dict(self.not_asked)
        if self.letter is not None:
            row["by_the_letter"] = self.letter.to_json()
        if self.remark:
            row["remark"] = self.remark
        if self.from_store:
            row["from_store"] = True
        every = (step for steps in self.steps.values() for step in steps)
        if any(step.rung is Rung.CERTIFICATE and step.told != HOW_TO_CERTIFY for step in every):
            row["ladder"] = {name: [s.to_json() for s in steps] for name, steps in self.steps.items()}
        return row


__all__ = ["CLASSES", "PROMISED", "LetterRow", "SurveyRow"]
