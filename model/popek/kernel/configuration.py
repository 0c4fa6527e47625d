"""Configurations: the settings a question fixes, read from `NAME=VALUE` and checked at once."""

from __future__ import annotations

import difflib
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


def numbered(machine: Machine[Any], settings: Mapping[str, int | str]) -> dict[str, int]:
    """Settings by their numbers, where some are given as labels.

    Raises:
        SettingError: a setting does not have this value; with near matches.
        UnknownNameError: no such setting; with near matches.
    """
    found: dict[str, int] = {}
    for name, value in settings.items():
        setting = machine.setting(name)
        number = _number(setting, str(value))
        if number is None:
            told = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
            raise SettingError(f"{name} = {told}: {_expected(setting, str(value))}")
        if setting.name in found:
            raise SettingError(f"{name}: {setting.name} is given twice")
        found[setting.name] = number
    return found


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
    number = _number(setting, value)
    if number is None:
        raise SettingError(f"--set {text}: {_expected(setting, value)}, or ? to leave it open")
    return number


def _number(setting: Setting, value: str) -> int | None:
    """The number that a label or a numeral means; None where the setting does not have it."""
    by_label = {label.lower(): number for number, label in setting.labels.items()}
    try:
        number = by_label[value.lower()] if value.lower() in by_label else int(value, 0)
    except ValueError:
        return None
    return number if number in setting.values else None


def _expected(setting: Setting, value: str) -> str:
    """Which values it has, and which of their labels look like this one."""
    known = [f"{v} ({setting.labels[v]})" if v in setting.labels else str(v) for v in setting.values]
    near = difflib.get_close_matches(value, setting.labels.values(), 3, 0.5)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"{setting.name} is one of {', '.join(known)}{hint}"


def _example(machine: Machine[Any]) -> str:
    return (
        f"{machine.settings[0].name}={machine.settings[0].values[-1]}"
        if machine.settings
        else "(this machine has none)"
    )
