"""Names of machines, techniques and settings, looked up once per command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .options import assert_set_once

if TYPE_CHECKING:
    from popek.checks.subject import Subject
    from popek.kernel.machine import Machine


def subject_of(
    machine: str,
    technique: str | None,
    settings: Sequence[str],
    *,
    timeout: float = 0.0,
    time_is_state: bool = False,
    as_named: bool = False,
) -> Subject[Any]:
    """What the words of a command stand for.

    Args:
        as_named: the machine itself, and not the one whose hardware assists it under the technique.

    Raises:
        UserError: in one line, what is wrong with a name or a setting.
    """
    from popek.checks.subject import Subject
    from popek.machines import assisted

    assert_set_once(settings)
    with known_names():
        return Subject.of(
            machine if as_named else assisted(machine, technique),
            technique,
            settings,
            timeout=timeout,
            time_is_state=time_is_state,
        )


def forms_of(machine: Machine[Any], instructions: Sequence[str]) -> list[str] | None:
    """The forms that mnemonics and forms name; None for all.

    Raises:
        UserError: no such instruction.
    """
    with known_names():
        return list(dict.fromkeys(i.form for wanted in instructions for i in machine.find(wanted))) or None


@contextmanager
def known_names() -> Iterator[None]:
    """Turn what is wrong with names and settings into one line."""
    from popek.kernel.configuration import SettingError
    from popek.kernel.machine import UnknownNameError
    from popek.machines import MachineFileError

    try:
        yield
    except (UnknownNameError, SettingError, MachineFileError) as error:
        raise UserError(str(error)) from None
