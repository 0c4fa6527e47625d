"""Configuration as a question: under which settings is an instruction critical?

Settings on which a run does not depend are not tried.  Of the others one is given its values, the one that the
semantics asks for first, and each value leaves fewer paths, which depend on fewer settings; where a form is not
sensitive under any of what is left, one question says so.  So what is asked grows with the ways in which settings
decide, not with their combinations.  The answer is a list of alternatives, each a set of values per setting.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel import terms
from popek.kernel.configuration import Configuration
from popek.kernel.exploration import PathBudgetError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Setting, UnknownNameError
from popek.work import results

from .classify import Classifier
from .cycles import no_search_for_cycles
from .presence import present
from .runs import Run
from .subject import Subject
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
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Conditions:
    """The weakest condition on settings under which each form is critical.

    Args:
        names: settings to leave open besides those that the configuration leaves open.
        jobs: processes; 0 for one per processor.

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
    alone = subject.found_as is None
    found = results(_asking, (subject, tuple(s.name for s in left_open)), wanted, jobs=1 if alone else jobs)
    for number, row in enumerate(found, 1):
        rows.append(row)
        if progress is not None:
            progress(number, len(wanted))
    return Conditions(
        machine.name,
        subject.technique.name,
        subject.configuration,
        tuple(a.name for a in left_open),
        tuple(rows),
    )


def _asking(subject: Subject[Any], left_open: Sequence[str]) -> Callable[[str], Weakest]:
    machine = subject.machine
    settings = [machine.setting(name) for name in left_open]

    def ask(form: str) -> Weakest:
        with no_search_for_cycles():
            return _weakest(subject, machine.instructions[form], settings)

    return ask


def _weakest(subject: Subject[Any], instruction: Instruction, left_open: Sequence[Setting]) -> Weakest:
    try:
        run = subject.explore(instruction)
    except PathBudgetError:
        return Weakest(instruction.form, instruction.mnemonic, (), ({},))
    boxes: dict[Truth, list[dict[str, tuple[int, ...]]]] = {truth: [] for truth in Truth}
    for chosen, answer in _decided(subject, instruction, run, left_open):
        boxes[answer].append({name: (value,) for name, value in chosen.items()})
    named = {name for found in boxes.values() for box in found for name in box}
    varied = {setting.name: setting for setting in left_open if setting.name in named}
    when, unknown = (joined(_points(boxes[truth], varied), varied) for truth in (Truth.YES, Truth.UNKNOWN))
    return Weakest(instruction.form, instruction.mnemonic, when, unknown)


def _decided(
    subject: Subject[Any], instruction: Instruction, run: Run[Any], left_open: Sequence[Setting]
) -> Iterator[tuple[dict[str, int], Truth]]:
    """Values of settings, and whether the form is critical with them, whatever the others are."""
    fixed = subject.configuration.settings
    pending: list[tuple[dict[str, int], Run[Any]]] = [({}, run)]
    while pending:
        chosen, left = pending.pop()
        there = attrs.evolve(subject, configuration=Configuration({**fixed, **chosen}))
        answer = Classifier(there, components=False).classify(instruction, run)
        open_ = [setting for setting in left_open if setting.name not in chosen and _depends(left, setting)]
        # Over several settings two runs may differ in those, too: then only "no" is an answer.
        if not open_ or answer.sensitive is Truth.NO:
            yield chosen, answer.critical
            continue
        setting = _first(left, open_)
        for value in reversed(setting.values):
            pending.append(({**chosen, setting.name: value}, _under(left, setting, value)))


def _under(run: Run[Any], setting: Setting, value: int) -> Run[Any]:
    """The paths that are left where a setting has a value."""
    if setting.leaf is None:
        return run
    return run.at(run.before.with_changes({setting.leaf: value}))


def _first(run: Run[Any], settings: Sequence[Setting]) -> Setting:
    """The setting that a path asks for before the others, of those that are leaves."""
    for path in run.paths:
        for condition in path.conditions:
            read = terms.bits_of([condition])
            for setting in settings:
                if setting.leaf is not None and _reads(run, read, setting):
                    return setting
    return settings[0]


def _depends(run: Run[Any], setting: Setting) -> bool:
    """Whether a run reads what the setting speaks of."""
    if setting.leaf is not None:
        return _reads(run, run.bits_read, setting)
    return not setting.concerns or bool(run.mentioned & set(setting.concerns))


def _reads(run: Run[Any], read: Mapping[str, int], setting: Setting) -> bool:
    leaf = run.before.leaf(setting.leaf or "")
    return bool(read.get(leaf.component, 0) >> leaf.low & terms.mask(leaf.width))


MOST_POINTS: Final = 4096
"""Up to here alternatives are joined from single combinations, and so do not depend on how they were found."""


def _points(
    boxes: list[dict[str, tuple[int, ...]]], varied: Mapping[str, Setting]
) -> list[dict[str, tuple[int, ...]]]:
    """The boxes over all varied settings; as single combinations, where they are not too many."""
    whole = [{name: box.get(name, setting.values) for name, setting in varied.items()} for box in boxes]
    if math.prod(len(setting.values) for setting in varied.values()) > MOST_POINTS:
        return whole
    return [
        {name: (value,) for name, value in zip(box, values, strict=True)}
        for box in whole
        for values in itertools.product(*box.values())
    ]


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
