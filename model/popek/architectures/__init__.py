"""The machines: one package per architecture, each with `MACHINES`, a mapping from name to maker.

A machine of a user's own is a Python file with the same mapping, or with a `Machine` at its top level.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from popek.kernel.machine import Machine


class MachineFileError(ValueError):
    """A file that does not declare a machine; the message names the file and, if there is one, the line."""


def makers() -> Mapping[str, Callable[[], Machine[Any]]]:
    """Every machine that comes with popek, by name, in alphabetical order."""
    return dict(sorted(_declared("MACHINES").items()))


def assisted(name: str, technique: str | None) -> str:
    """The machine whose hardware runs the guests of a machine under a technique; mostly the machine itself."""
    return str(_declared("ASSISTED").get((name, technique), name))


def _declared(what: str) -> dict[Any, Any]:
    """What the packages declare under a name, joined."""
    found: dict[Any, Any] = {}
    for package in pkgutil.iter_modules(__path__):
        found |= getattr(importlib.import_module(f"{__name__}.{package.name}"), what, {})
    return found


def machine(name: str | Machine[Any]) -> Machine[Any]:
    """A machine by name, or from a Python file; a machine itself is returned as it is.

    Raises:
        UnknownNameError: no such machine; with near matches.
        MachineFileError: the file cannot be read, does not run, or declares no machine.
    """
    if not isinstance(name, str):
        return name
    if name.endswith(".py") or "/" in name:
        return from_file(Path(name))
    known: dict[str, Callable[[], Machine[Any]]] = {**makers(), **_declared("VARIANTS")}
    if name not in known:
        from popek.kernel.machine import UnknownNameError

        raise UnknownNameError("machine", name, known)
    return known[name]()


def from_file(path: Path) -> Machine[Any]:
    """The one machine that a Python file declares.

    Raises:
        MachineFileError: the file cannot be read, does not run, or does not declare exactly one machine.
    """
    from popek.kernel.machine import Machine

    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise MachineFileError(f"{path}: {reason}") from None
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(source, str(path), "exec"), names)
        declared: list[Machine[Any]] = [make() for make in names.get("MACHINES", {}).values()]
    except SyntaxError as error:
        raise MachineFileError(f"{path}:{error.lineno}: {error.msg}") from None
    except Exception as error:  # whatever the user's code raises
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise MachineFileError(f"{where}: {type(error).__name__}: {error}") from None
    # A file that imports another's MACHINES declares its own machine all the same.
    made = [value for value in names.values() if isinstance(value, Machine)] or declared
    unique = list({id(value): value for value in made}.values())
    if len(unique) != 1:
        raise MachineFileError(
            f"{path}: expected one Machine, or MACHINES with one maker; found {len(unique)}"
        )
    return unique[0]
