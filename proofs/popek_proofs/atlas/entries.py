"""What the atlas says: plain data, made in several processes, kept in files, shown as a table or a page."""

from __future__ import annotations

import base64
import enum
import gzip
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs

from popek.checks.premise import THEOREM1, THEOREM3
from popek.checks.survey import Survey, SurveyRow
from popek.checks.verdict import Status, Truth

from .places import AtlasPlace


@attrs.frozen
class Asked:
    """A question about an instruction form, and the answer.

    Attributes:
        truth: the answer to the question that a reader has: is it in the class, is the promise kept?
        title: what the solver was asked, for people.
        answer: sat, unsat or unknown.
        solver: which one answered.
        sha256: the hash of the SMT-LIB text; empty where one of the conditions is false by itself, so that
            there was nothing to ask a solver.
        packed: the SMT-LIB text, gzip and base64; empty where it was not kept.
        size: of the text, in bytes.
    """

    truth: Truth
    title: str
    answer: str
    solver: str
    sha256: str = ""
    packed: str = ""
    size: int = 0

    @property
    def smtlib(self) -> str:
        """The text; empty where it was not kept."""
        return gzip.decompress(base64.b64decode(self.packed)).decode() if self.packed else ""

    def to_json(self) -> dict[str, object]:
        """As evidence is told elsewhere."""
        return {
            "holds": self.truth.value,
            "question": self.title,
            "smtlib_sha256": self.sha256 or None,
            "solvers": {self.solver: self.answer},
        }


def pack(text: str) -> str:
    """A text as gzip and base64, the same on every run."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


@attrs.frozen
class Form:
    """An instruction form in one row of the atlas.

    Attributes:
        row: its classes, and what leaks or changes.
        summary: what it does, from the semantics.
        witnesses: per class or promise, where this form is the one of its mnemonic that shows it.
        asked: per class or promise, the question.
        defects: witnesses that did not replay: defects of popek, which no verdict hides.
    """

    row: SurveyRow
    summary: str = ""
    witnesses: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    asked: Mapping[str, Asked] = attrs.field(factory=dict)
    defects: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What becomes of it under the technique: one of `KINDS`."""
        classes = self.row.classes
        if classes["critical"] is Truth.YES:
            return CRITICAL
        if Truth.UNKNOWN in (classes["sensitive"], classes["critical"]):
            return UNDECIDED
        if classes["sensitive"] is Truth.YES:
            return EMULATED
        if self.row.needless_trap is Truth.YES:
            return NEEDLESS
        return UNDECIDED if self.row.needless_trap is not Truth.NO else DIRECT


DIRECT, NEEDLESS, EMULATED, CRITICAL, UNDECIDED = "direct", "needless", "emulated", "critical", "undecided"
KINDS = {
    DIRECT: "innocuous, runs directly",
    NEEDLESS: "innocuous, and can trap for nothing",
    EMULATED: "sensitive and privileged: traps and is emulated",
    CRITICAL: "critical: sensitive and not privileged",
    UNDECIDED: "undecided",
}


@attrs.frozen
class FailedHypothesis:
    """A hypothesis of a theorem that does not hold for an instruction form, or is unknown."""

    name: str
    form: str
    truth: Truth
    because: str


@attrs.frozen
class Efficiency:
    """How many forms run directly, trap for nothing, must trap, should and do not, and how many are undecided."""

    counts: Mapping[str, int]

    @property
    def innocuous(self) -> int:
        """Forms that need no trap, and whether they trap is known."""
        return self.counts[DIRECT] + self.counts[NEEDLESS]

    @property
    def needless(self) -> int:
        """Those of them that can trap all the same."""
        return self.counts[NEEDLESS]

    @property
    def share(self) -> float | None:
        """Needless over innocuous; None where there is nothing to divide."""
        return self.needless / self.innocuous if self.innocuous else None

    def to_json(self) -> dict[str, object]:
        """Counts of forms."""
        share = None if self.share is None else round(self.share, 4)
        return {
            "forms": dict(self.counts),
            "needless": self.needless,
            "innocuous": self.innocuous,
            "share": share,
        }


class Verdict(enum.Enum):
    """What the theorems say of a machine under a technique with a configuration."""

    VIRTUALIZABLE = "virtualizable"
    HYBRID = "hybrid virtualizable"
    NEITHER = "by neither theorem"
    UNDECIDED = "undecided"


@attrs.frozen(slots=False)
class AtlasEntry:
    """A row of the atlas.

    Attributes:
        place: of what.
        forms: every instruction form, in the order of the machine.
        hypotheses: what besides sensitivity the theorems ask for and does not hold or is unknown; asked only
            where sensitivity alone refutes neither theorem.
    """

    place: AtlasPlace
    forms: tuple[Form, ...]
    hypotheses: tuple[FailedHypothesis, ...] = ()

    @cached_property
    def survey(self) -> Survey:
        """The classification."""
        rows = tuple(form.row for form in self.forms)
        return Survey(self.place.name, self.place.technique, self.place.as_configuration(), rows)

    def _theorem(self, premise: Status, names: tuple[str, ...]) -> Status:
        failing = {h.truth for h in self.hypotheses if h.name in names}
        if premise is Status.REFUTED or Truth.NO in failing:
            return Status.REFUTED
        return Status.UNKNOWN if premise is Status.UNKNOWN or failing else Status.HOLDS

    @property
    def by_classes(self) -> tuple[int, ...]:
        """The theorems, 1 and 3, that critical forms refute by their letter, whatever the premises.

        What such a theorem rests on may hold all the same: where every critical form does in the guest what it does
        on the guest's own machine.  `popek prove` asks that.
        """
        premises = {1: self.survey.theorem1, 3: self.survey.theorem3}
        return tuple(number for number, status in premises.items() if status is Status.REFUTED)

    @property
    def theorem1(self) -> Status:
        """Whether the hypotheses of Theorem 1 hold."""
        return self._theorem(self.survey.theorem1, THEOREM1)

    @property
    def theorem3(self) -> Status:
        """Whether the hypotheses of Theorem 3 hold."""
        return self._theorem(self.survey.theorem3, THEOREM3)

    @property
    def verdict(self) -> Verdict:
        """What follows."""
        if self.theorem1 is Status.HOLDS:
            return Verdict.VIRTUALIZABLE
        if self.theorem3 is Status.HOLDS:
            return Verdict.HYBRID
        return Verdict.NEITHER if self.theorem3 is self.theorem1 is Status.REFUTED else Verdict.UNDECIDED

    @property
    def critical(self) -> list[str]:
        """The critical mnemonics."""
        return self.survey.mnemonics("critical")

    @property
    def efficiency(self) -> Efficiency:
        """By forms."""
        kinds = [form.kind for form in self.forms]
        return Efficiency({kind: kinds.count(kind) for kind in KINDS})

    @property
    def defects(self) -> list[str]:
        """Witnesses that did not replay."""
        return [f"{self.place.id}: {defect}" for form in self.forms for defect in form.defects]

    def to_json(self) -> dict[str, object]:
        """An entry of `popek/atlas/1`."""
        return {
            "id": self.place.id,
            "machine": self.place.name,
            "technique": self.place.technique,
            "configuration": dict(self.place.configuration),
            "settings": dict(self.place.settings),
            "label": self.place.label,
            "note": self.place.note,
            "source": self.place.source,
            "verdict": self.verdict.value,
            "refuted_by_classes": list(self.by_classes),
            "theorem1": self.theorem1.value,
            "theorem3": self.theorem3.value,
            "critical_mnemonics": self.critical,
            "user_critical_mnemonics": self.survey.mnemonics("user_critical"),
            "efficiency": self.efficiency.to_json(),
            "hypotheses": [
                {"premise": h.name, "form": h.form, "holds": h.truth.value, "because": h.because}
                for h in self.hypotheses
            ],
            "defects": self.defects,
            "instructions": [
                {
                    **form.row.to_json(),
                    "kind": form.kind,
                    "evidence": {name: asked.to_json() for name, asked in form.asked.items()},
                    "witnesses": {name: dict(witness) for name, witness in form.witnesses.items()},
                }
                for form in self.forms
            ],
        }


@attrs.frozen
class Atlas:
    """All rows."""

    entries: tuple[AtlasEntry, ...]
    seconds: float = 0.0

    @property
    def unknown(self) -> bool:
        """Whether some answer is missing."""
        return any(entry.survey.unknown or entry.verdict is Verdict.UNDECIDED for entry in self.entries)

    @property
    def defects(self) -> list[str]:
        """Witnesses that did not replay."""
        return [defect for entry in self.entries for defect in entry.defects]

    def to_json(self) -> dict[str, object]:
        """`popek/atlas/1`."""
        return {"schema": "popek/atlas/1", "entries": [entry.to_json() for entry in self.entries]}
