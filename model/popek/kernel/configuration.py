"""Configurations: the settings a question fixes, read from `NAME=VALUE` and checked at once."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import attrs

from popek.errors import PopekError

from .machine import Machine, Setting, UnknownNameError
from .state import State
from .words import Word, all_of


class SettingError(PopekError):
    """A setting that does not fit the machine; the message says what was expected."""


@attrs.frozen
class Configuration:
    """The settings of a question, by setting name; a setting that is missing is left open.

    Attributes:
        settings: a number per setting.
    """

    settings: Mapping[str, int] = attrs.field(factory=dict)

    def holds(self, machine: Machine[Any], state: State, *, mentioned: Container[str] | None = None) -> Word:
        """The condition (width 1) that a state has these settings.

        With `mentioned`, a setting that concerns none of these components is left out.
        """
        fixed = [(machine.setting(name), value) for name, value in self.settings.items()]
        return all_of(
            setting.holds(state, _as_word(setting, value))
            for setting, value in fixed
            if mentioned is None or not setting.concerns or any(c in mentioned for c in setting.concerns)
        )

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.settings.items()) or "nothing fixed"


def _as_word(setting: Setting, value: int) -> Word:
    return Word(max(1, max(setting.values).bit_length()), value)


def default_configuration(machine: Machine[Any]) -> Configuration:
    """Every setting at its default."""
    return Configuration({a.name: a.default for a in machine.settings if a.default is not None})


def configure(
    machine: Machine[Any], settings: Iterable[str], *, left_open: Iterable[str] = ()
) -> Configuration:
    """The default configuration with `NAME=VALUE` settings applied.

    Args:
        settings: a value is a number, a label of the setting, or `?` for "left open".
        left_open: settings to leave open.

    Raises:
        SettingError: not NAME=VALUE, or a value that the setting does not have.
        UnknownNameError: no such setting; with near matches.
    """
    chosen = dict(default_configuration(machine).settings)
    for text in settings:
        name, sign, value = text.partition("=")
        if not sign:
            raise SettingError(f"--set {text}: expected NAME=VALUE, such as {_example(machine)}")
        try:
            setting = machine.setting(name)
        except UnknownNameError as error:
            raise SettingError(f"--set {text}: {error}") from None
        if value == "?":
            chosen.pop(setting.name, None)
        else:
            chosen[setting.name] = _value(setting, value, text)
    for name in left_open:
        chosen.pop(machine.setting(name).name, None)
    return Configuration(chosen)


def _value(setting: Setting, value: str, text: str) -> int:
    by_label = {label.lower(): number for number, label in setting.labels.items()}
    try:
        number = by_label[value.lower()] if value.lower() in by_label else int(value, 0)
    except ValueError:
        number = -1
    if number not in setting.values:
        known = [f"{v} ({setting.labels[v]})" if v in setting.labels else str(v) for v in setting.values]
        raise SettingError(
            f"--set {text}: {setting.name} is one of {', '.join(known)}, or ? to leave it open"
        )
    return number


def _example(machine: Machine[Any]) -> str:
    return (
        f"{machine.settings[0].name}={machine.settings[0].values[-1]}"
        if machine.settings
        else "(this machine has none)"
    )
