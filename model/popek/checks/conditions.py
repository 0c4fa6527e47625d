"""Configuration as a question: under which settings is an instruction critical?

Settings on which a run does not depend are not tried.  The answer is a list of alternatives, each a set of
values per setting, found by trying every combination and joining those that differ in one setting.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from popek.kernel.configuration import Configuration
from popek.kernel.exploration import PathBudgetError
from popek.kernel.machine import Machine, Setting, UnknownNameError

from .classify import Classifier
from .presence import present
from .runs import Run
from .survey import Request
from .verdict import Truth

Alternative = Mapping[str, tuple[int, ...]]
"""Per setting the values that are allowed; a setting that is missing may have any."""


@attrs.frozen
class Weakest:
    """When one form is critical.

    Attributes:
        when: alternatives of which one must hold; none for never, an empty one for always.
        unknown: those under which nothing can be said.
    """

    form: str
    mnemonic: str
    when: tuple[Alternative, ...]
    unknown: tuple[Alternative, ...]

    def to_json(self) -> dict[str, object]:
        """By setting."""
        return {
            "form": self.form,
            "mnemonic": self.mnemonic,
            "critical_when": [{k: list(v) for k, v in sorted(a.items())} for a in self.when],
            "unknown_when": [{k: list(v) for k, v in sorted(a.items())} for a in self.unknown],
        }


@attrs.frozen
class Conditions:
    """When each form of a machine is critical, for the settings that were left open."""

    machine: str
    technique: str
    configuration: Configuration
    open: tuple[str, ...]
    rows: tuple[Weakest, ...]

    @property
    def unknown(self) -> bool:
        """Whether something could not be said."""
        return any(row.unknown for row in self.rows)

    def to_json(self) -> dict[str, object]:
        """`popek/conditions/1`."""
        return {
            "schema": "popek/conditions/1",
            "machine": self.machine,
            "technique": self.technique,
            "configuration": dict(self.configuration.settings),
            "open": list(self.open),
            "instructions": [row.to_json() for row in self.rows],
        }


def critical_when(
    request: Request,
    names: Sequence[str] = (),
    *,
    forms: Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conditions:
    """The weakest condition on settings under which each form is critical.

    Args:
        names: settings to leave open besides those that the configuration leaves open.

    Raises:
        UnknownNameError: no such setting.
    """
    machine = request.subject.machine
    fixed = dict(request.subject.configuration.settings)
    for name in names:
        fixed.pop(machine.setting(name).name, None)
    left_open = [setting for setting in machine.settings if setting.name not in fixed]
    if not left_open:
        raise UnknownNameError("open setting; name some", "", [setting.name for setting in machine.settings])
    subject = attrs.evolve(request.subject, configuration=Configuration(fixed))
    present(subject)
    wanted = list(machine.instructions) if forms is None else list(forms)
    rows = []
    for number, form in enumerate(wanted):
        instruction = machine.instructions[form]
        try:
            run = subject.explore(instruction)
        except PathBudgetError:
            rows.append(Weakest(form, instruction.mnemonic, (), ({},)))
            continue
        varied = [setting for setting in left_open if _depends(machine, run, setting)]
        answers: dict[Truth, list[dict[str, tuple[int, ...]]]] = {truth: [] for truth in Truth}
        for values in itertools.product(*(setting.values for setting in varied)):
            chosen = {setting.name: value for setting, value in zip(varied, values, strict=True)}
            there = attrs.evolve(subject, configuration=Configuration({**fixed, **chosen}))
            classifier = Classifier(there, components=False)
            answer = classifier.classify(instruction, run).critical
            answers[answer].append({name: (value,) for name, value in chosen.items()})
        known = {setting.name: setting for setting in varied}
        rows.append(
            Weakest(
                form,
                instruction.mnemonic,
                joined(answers[Truth.YES], known),
                joined(answers[Truth.UNKNOWN], known),
            )
        )
        if progress is not None:
            progress(number + 1, len(wanted))
    return Conditions(
        machine.name,
        subject.technique.name,
        subject.configuration,
        tuple(a.name for a in left_open),
        tuple(rows),
    )


def _depends(machine: Machine[Any], run: Run[Any], setting: Setting) -> bool:
    """Whether a run reads what the setting speaks of."""
    concerned = set(setting.concerns) if setting.leaf is None else {run.before.leaf(setting.leaf).component}
    return not concerned or bool(run.mentioned & concerned)


def joined(
    points: list[dict[str, tuple[int, ...]]], varied: Mapping[str, Setting]
) -> tuple[Alternative, ...]:
    """The same combinations as few alternatives; a setting with all of its values is left out."""
    boxes = points
    for name in varied:
        merged: dict[tuple[tuple[str, tuple[int, ...]], ...], set[int]] = {}
        for box in boxes:
            others = tuple(sorted((k, v) for k, v in box.items() if k != name))
            merged.setdefault(others, set()).update(box[name])
        boxes = [{**dict(others), name: tuple(sorted(values))} for others, values in merged.items()]
    return tuple({k: v for k, v in box.items() if set(v) != set(varied[k].values)} for box in boxes)
