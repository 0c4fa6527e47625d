"""Occurrences asked about one by one: the form with the operands that stand in the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from popek.checks.classify import Classifier
from popek.checks.explanation import FormExplanation, explain_form
from popek.checks.promises import Keeper
from popek.checks.runs import Run
from popek.checks.subject import Subject
from popek.kernel.code import MachineCode
from popek.kernel.instruction import Instruction
from popek.kernel.outcome import Trap
from popek.kernel.state import substitution
from popek.kernel.terms import ZERO
from popek.kernel.words import Word

from .judging import ScanFinding, broken
from .sweep import Occurrence


@attrs.frozen
class Replacement:
    """What must stand where an instruction stood.

    Attributes:
        size: of what it replaces, in bytes.
        own: what must come from the guest's own state and not from the hardware's: what the form is sensitive to.
        writes: what it may change; all else must be preserved.
        traps: which it may have to raise: those that the instruction has on the guest's own machine, in whatever state.
    """

    size: int
    own: tuple[str, ...]
    writes: tuple[str, ...]
    traps: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """For `popek/scan/1`."""
        return {
            "size": self.size,
            "own": list(self.own),
            "writes": list(self.writes),
            "traps": list(self.traps),
        }


@attrs.frozen
class ExplainedOccurrence:
    """What is so of a form with the operands of one or more occurrences.

    Attributes:
        places: where this instruction stands.
        breaks: what these operands break; none, where only other operands of the form do.
        witnesses: per class or promise that has one.
        unknown: some answer is missing.
        replacement: what must stand there; None where the paths of the instruction are too many.
    """

    form: str
    places: tuple[Occurrence, ...]
    breaks: tuple[str, ...]
    witnesses: Mapping[str, Mapping[str, Any]]
    replacement: Replacement | None
    unknown: bool = False

    def to_json(self) -> dict[str, object]:
        """For `popek/scan/1`."""
        return {
            "form": self.form,
            "text": self.places[0].text,
            "places": [{"section": one.section, "address": hex(one.address)} for one in self.places],
            "breaks": list(self.breaks),
            "unknown": self.unknown,
            "witnesses": dict(self.witnesses),
            "replacement": None if self.replacement is None else self.replacement.to_json(),
        }


def explained(
    subject: Subject[Any],
    code: MachineCode,
    mode: int,
    findings: Iterable[ScanFinding],
    *,
    most: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ExplainedOccurrence, ...]:
    """Each instruction that was found, asked about once for all places where it stands with the same operands.

    Offsets that depend on registers stay free.

    Args:
        most: of each form at most so many places; 0 for all.
    """
    classifier, keeper = Classifier(subject), Keeper(subject)
    groups: dict[tuple[str, tuple[tuple[str, int], ...], str], list[Occurrence]] = {}
    for finding in findings:
        for place in finding.places[:most] if most else finding.places:
            parts = tuple(sorted(code.decode(place.raw, mode).parts.items()))
            groups.setdefault((finding.form, parts, place.text), []).append(place)
    asked: dict[tuple[str, tuple[tuple[str, int], ...]], FormExplanation] = {}
    found = []
    for number, ((form, parts, _), places) in enumerate(groups.items(), 1):
        instruction = subject.machine.instructions[form].fixed(dict(parts))
        if (form, parts) not in asked:
            asked[form, parts] = explain_form(subject, instruction, classifier, keeper)
        one = asked[form, parts]
        replacement = None
        if one.run is not None:
            needed = (len(places[0].raw), tuple(one.row.components))
            replacement = Replacement(*needed, _written(one.run, instruction, dict(parts)), _traps(one.run))
        found.append(
            ExplainedOccurrence(
                form, tuple(places), broken(one.row), one.witnesses, replacement, one.row.unknown
            )
        )
        if progress is not None:
            progress(number, len(groups))
    return tuple(found)


def _written(run: Run[Any], instruction: Instruction, parts: Mapping[str, int]) -> tuple[str, ...]:
    """Leaves and memories that some way through may change, in declared order."""
    before, names = run.before, dict.fromkeys(leaf.name for leaf in run.before.leaves)
    widths = instruction.widths
    replace = substitution({name: Word(widths[name], n) for name, n in parts.items() if name in widths}, {})
    memories = before.memories()
    changed: set[str] = set()
    for _, after in run.completions():
        changed |= {name for name in names if replace(after[name].term) is not before[name].term}
        changed |= {name for name, content in after.memories().items() if content is not memories[name]}
    return tuple(name for name in (*names, *memories) if name in changed)


def _traps(run: Run[Any]) -> tuple[str, ...]:
    possible = (one for one in run.paths if ZERO not in one.conditions)
    return tuple(dict.fromkeys(str(one.result.vector) for one in possible if isinstance(one.result, Trap)))
