"""Configurations: the settings a question fixes, read from `NAME=VALUE` and checked at once."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import attrs

from .machine import Axis, Machine, UnknownNameError
from .state import State
from .words import Word, all_of


class SettingError(ValueError):
    """A setting that does not fit the machine; the message says what was expected."""


@attrs.frozen
class Configuration:
    """The settings of a question, by axis name; an axis that is missing is left open.

    Attributes:
        settings: a number per axis.
    """

    settings: Mapping[str, int] = attrs.field(factory=dict)

    def holds(self, machine: Machine[Any], state: State, *, mentioned: Container[str] | None = None) -> Word:
        """The condition (width 1) that a state has these settings.

        With `mentioned`, a setting that concerns none of these components is left out.
        """
        axes = [(machine.axis(name), value) for name, value in self.settings.items()]
        return all_of(
            axis.holds(state, _as_word(axis, value))
            for axis, value in axes
            if mentioned is None or not axis.concerns or any(c in mentioned for c in axis.concerns)
        )

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.settings.items()) or "nothing fixed"


def _as_word(axis: Axis, value: int) -> Word:
    return Word(max(1, max(axis.values).bit_length()), value)


def default_configuration(machine: Machine[Any]) -> Configuration:
    """Every axis at its default."""
    return Configuration({a.name: a.default for a in machine.axes if a.default is not None})


def configure(
    machine: Machine[Any], settings: Iterable[str], *, open_axes: Iterable[str] = ()
) -> Configuration:
    """The default configuration with `NAME=VALUE` settings applied.

    Args:
        settings: a value is a number, a label of the axis, or `?` for "left open".
        open_axes: axes to leave open.

    Raises:
        SettingError: not NAME=VALUE, or a value that the axis does not have.
        UnknownNameError: no such axis; with near matches.
    """
    chosen = dict(default_configuration(machine).settings)
    for text in settings:
        name, sign, value = text.partition("=")
        if not sign:
            raise SettingError(f"--set {text}: expected NAME=VALUE, such as {_example(machine)}")
        try:
            axis = machine.axis(name)
        except UnknownNameError as error:
            raise SettingError(f"--set {text}: {error}") from None
        if value == "?":
            chosen.pop(axis.name, None)
        else:
            chosen[axis.name] = _value(axis, value, text)
    for name in open_axes:
        chosen.pop(machine.axis(name).name, None)
    return Configuration(chosen)


def _value(axis: Axis, value: str, text: str) -> int:
    by_label = {label.lower(): number for number, label in axis.labels.items()}
    try:
        number = by_label[value.lower()] if value.lower() in by_label else int(value, 0)
    except ValueError:
        number = -1
    if number not in axis.values:
        known = [f"{v} ({axis.labels[v]})" if v in axis.labels else str(v) for v in axis.values]
        raise SettingError(f"--set {text}: {axis.name} is one of {', '.join(known)}, or ? to leave it open")
    return number


def _example(machine: Machine[Any]) -> str:
    return (
        f"{machine.axes[0].name}={machine.axes[0].values[-1]}" if machine.axes else "(this machine has none)"
    )
