"""What the words of a question stand for: machines, forms and settings by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popek import machines as registry
from popek.errors import PopekError

if TYPE_CHECKING:
    from popek.checks.subject import Subject
    from popek.kernel.machine import Machine


def list_machines() -> tuple[str, ...]:
    """The names of the machines that come with popek.

    >>> import popek
    >>> "pg74" in popek.list_machines()
    True
    """
    return tuple(registry.makers())


def machine(name: str | Path | Machine[Any]) -> Machine[Any]:
    """A machine by its name, or from a Python file that declares one.

    Raises:
        PopekError: no such machine, or a file that declares none.

    >>> import popek
    >>> toy = popek.machine("pg74")
    >>> sorted(toy.techniques), len(toy.instructions)
    (['ring-deprivileging'], 11)
    """
    return registry.machine(str(name) if isinstance(name, Path) else name)


def subject(
    name: str | Path | Machine[Any],
    technique: str | None,
    settings: Mapping[str, int | str],
    *,
    timeout: float = 0.0,
    time_is_state: bool = False,
    as_named: bool = False,
    left_open: bool = False,
) -> Subject[Any]:
    """What is asked about.

    Args:
        as_named: the machine itself, and not the one whose hardware assists it under the technique.
        left_open: a setting may be `"?"`.

    Raises:
        PopekError: a name or a setting that is not known, or a number of seconds that is none.
    """
    from popek.checks.subject import Subject

    if not timeout >= 0:
        raise PopekError(f"timeout={timeout!r}: expected a number of seconds, 0 for no bound")
    for setting, value in settings.items():
        if value == "?" and not left_open:
            raise PopekError(
                f'{setting}="?": expected a value; popek.critical_when asks with settings left open'
            )
    wanted = str(name) if isinstance(name, Path) else name
    if isinstance(wanted, str) and not as_named:
        wanted = registry.assisted(wanted, technique)
    given = [f"{setting}={value}" for setting, value in settings.items()]
    return Subject.of(wanted, technique, given, timeout=timeout, time_is_state=time_is_state)


def forms(known: Machine[Any], instructions: Iterable[str]) -> list[str] | None:
    """The forms that mnemonics and forms name; None for all.

    Raises:
        PopekError: no such instruction.
    """
    found = list(dict.fromkeys(i.form for wanted in instructions for i in known.find(wanted)))
    return found or None


def numbers(what: str, given: Mapping[str, int], known: Sequence[str]) -> dict[str, int]:
    """Values by name, each name known and each value a number.

    Raises:
        PopekError: one that is not.
    """
    from popek.kernel.machine import UnknownNameError

    for name, value in given.items():
        if name not in known:
            raise UnknownNameError(what, name, known)
        if not isinstance(value, int) or isinstance(value, bool):
            raise PopekError(f"{what} {name}: expected a number, not {value!r}")
    return dict(given)


__all__ = ["forms", "list_machines", "machine", "numbers", "subject"]
