"""A hypervisor inside a hypervisor: how the controls of the two are merged for the inner one's guest.

The inner guest runs on controls that the outer VMM makes from its own and from those that the inner VMM wrote.  It must
leave whenever one of the two wants to know (nothing is lost), and should not leave when neither does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.kernel.state import substitution
from popek.kernel.words import Word

from .desk import Desk, Duty

OR, AND, EITHER, NEITHER = "or", "and", "either", "neither"

_MERGERS: Final[Mapping[str, Callable[[int, int], int]]] = {OR: lambda a, b: a | b, AND: lambda a, b: a & b}


@attrs.frozen
class Direction:
    """What a control does to an instruction's exits.

    Attributes:
        more, fewer: with 1 in place of 0 it exits in some case in which it did not, or the other way.
    """

    control: str
    form: str
    more: bool
    fewer: bool

    @property
    def rule(self) -> str:
        """How the two VMMs' values are merged: `or`, `and`, `either` where it does not matter, or `neither`."""
        return {(True, False): OR, (False, True): AND, (False, False): EITHER, (True, True): NEITHER}[
            self.more, self.fewer
        ]


@attrs.frozen
class Merged:
    """An instruction of the inner guest under merged controls.

    Attributes:
        lost: settings of the two VMMs, by control, with which an exit that one of them wants does not happen.
        needless: with which one happens that neither wants.
    """

    form: str
    lost: tuple[Mapping[str, tuple[int, int]], ...]
    needless: tuple[Mapping[str, tuple[int, int]], ...]


def directions(desk: Desk[Any], form: str) -> tuple[Direction, ...]:
    """What each control on which a form's exits depend does to them."""
    due = desk.duty(form, desk.owner_of_all)
    found = []
    for name, knob in _knobs(due).items():
        zero, one = (_exits(due, {knob: value}) for value in (0, 1))
        found.append(Direction(name, form, _possible(due, one & ~zero), _possible(due, zero & ~one)))
    return tuple(found)


def merged(desk: Desk[Any], form: str, rule: Mapping[str, str] | str = OR) -> Merged:
    """Ask of every setting of both VMMs' controls whether the merged ones lose an exit, or add one.

    Args:
        rule: `or` or `and`, for all controls or by name.
    """
    due = desk.duty(form, desk.owner_of_all)
    knobs = _knobs(due)
    rules = {name: rule if isinstance(rule, str) else rule.get(name, OR) for name in knobs}
    exits = {
        values: _exits(due, dict(zip(knobs.values(), values, strict=True)))
        for values in itertools.product((0, 1), repeat=len(knobs))
    }
    lost, needless = [], []
    for outer, inner in itertools.product(exits, repeat=2):
        made = tuple(_MERGERS[rules[n]](a, b) for n, a, b in zip(knobs, outer, inner, strict=True))
        setting = dict(zip(knobs, zip(outer, inner, strict=True), strict=True))
        wanted = exits[outer] | exits[inner]
        if _possible(due, wanted & ~exits[made]):
            lost.append(setting)
        if _possible(due, exits[made] & ~wanted):
            needless.append(setting)
    return Merged(form, tuple(lost), tuple(needless))


def rules(desk: Desk[Any], forms: Sequence[str]) -> Mapping[str, str]:
    """How each control on which these forms' exits depend has to be merged."""
    seen: dict[str, list[Direction]] = {}
    for form in forms:
        for direction in directions(desk, form):
            seen.setdefault(direction.control, []).append(direction)
    return {
        name: Direction(name, "", any(d.more for d in found), any(d.fewer for d in found)).rule
        for name, found in seen.items()
    }


def _knobs(due: Duty[Any]) -> Mapping[str, Word]:
    """The controls that are a bit of the VMM's."""
    chosen = {c.name for c in due.desk.assistance.controls if c.chosen and c.holds is None}
    return {name: knob for name, knob in due.knobs.items() if name in chosen}


def _exits(due: Duty[Any], setting: Mapping[Word, int]) -> Word:
    fixed = {str(knob.term.data): Word(1, value) for knob, value in setting.items()}
    return Word(1, substitution(fixed, {})(due.exits.term))


def _possible(due: Duty[Any], condition: Word) -> bool:
    return condition.value != 0 and due.ask([condition]) is not False
