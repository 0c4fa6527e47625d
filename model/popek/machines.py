"""The machines: one package per architecture, each with `MACHINES`, a mapping from name to maker.

A package with hardware assistance has `ASSISTANCES`, too: from the technique's name to a maker of the declaration.
A package whose machine has a model of a device has `DEVICES`: from a name to a maker.
A machine of a user's own is a Python file with the same mapping, or with a `Machine` at its top level; an
`Assistance` at its top level is found by the file's name, too.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import linecache
import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popek.errors import PopekError

if TYPE_CHECKING:
    from popek.kernel.agents import Devices
    from popek.kernel.assistance import Assistance
    from popek.kernel.code import MachineCode
    from popek.kernel.machine import Machine


ARCHITECTURES = "popek.architectures"


class MachineFileError(PopekError):
    """A file that does not declare a machine; the message names the file and, if there is one, the line."""


def makers() -> Mapping[str, Callable[[], Machine[Any]]]:
    """Every machine that comes with popek, by name, in alphabetical order."""
    return dict(sorted(_declared("MACHINES").items()))


def usual() -> str:
    """The machine of commands that are given none."""
    return str(importlib.import_module(ARCHITECTURES).USUAL)


def to_begin_with() -> str:
    """The machine that is small enough to be looked at whole."""
    return str(importlib.import_module(ARCHITECTURES).TO_BEGIN_WITH)


def assisted(name: str, technique: str | None) -> str:
    """The machine whose hardware runs the guests of a machine under a technique; mostly the machine itself."""
    return str(_declared("ASSISTED").get((name, technique), name))


def assistances() -> Mapping[str, Callable[[], Assistance[Any]]]:
    """Every kind of hardware assistance that comes with popek, by the name of its technique, in alphabetical order."""
    return dict(sorted(_declared("ASSISTANCES").items()))


@functools.cache
def assistance(name: str) -> Assistance[Any]:
    """A kind of hardware assistance by its technique's name, or from a Python file; the same object every time.

    Raises:
        UnknownNameError: no such assistance; with near matches.
        MachineFileError: the file cannot be read, does not run, or declares no assistance.
    """
    if name.endswith(".py") or "/" in name:
        from popek.kernel.assistance import Assistance

        path = Path(name)
        names = _executed(path)
        made = list({id(v): v for v in names.values() if isinstance(v, Assistance)}.values())
        if len(made) != 1:
            raise MachineFileError(f"{path}: expected one Assistance; found {len(made)}")
        return made[0]
    known = assistances()
    if name not in known:
        from popek.kernel.machine import UnknownNameError

        raise UnknownNameError("hardware assistance", name, known)
    return known[name]()


def devices() -> Mapping[str, Callable[[], Devices[Any]]]:
    """Every machine with a device beside its processor, by name, in alphabetical order."""
    return dict(sorted(_declared("DEVICES").items()))


def with_devices(name: str) -> Devices[Any]:
    """A machine with a device, by name, or from a Python file that has `DEVICES` or a `Devices` at its top level.

    Raises:
        UnknownNameError: no such machine; with near matches.
        MachineFileError: the file cannot be read, does not run, or declares no machine with a device.
    """
    if name.endswith(".py") or "/" in name:
        from popek.kernel.agents import Devices

        path = Path(name)
        names = _executed(path)
        made = [value for value in names.values() if isinstance(value, Devices)]
        made = made or [make() for make in names.get("DEVICES", {}).values()]
        if len(made) != 1:
            raise MachineFileError(
                f"{path}: expected one Devices, or DEVICES with one maker; found {len(made)}"
            )
        return made[0]
    known = devices()
    if name not in known:
        from popek.kernel.machine import UnknownNameError

        raise UnknownNameError("machine with a device", name, known)
    return known[name]()


def codes() -> Mapping[str, MachineCode]:
    """How the code of each machine is read, by its name, where there is a reader; in alphabetical order."""
    return {name: make() for name, make in sorted(_declared("CODE").items())}


def _declared(what: str) -> dict[Any, Any]:
    """What the packages declare under a name, joined."""
    found: dict[Any, Any] = {}
    for package in pkgutil.iter_modules(importlib.import_module(ARCHITECTURES).__path__):
        found |= getattr(importlib.import_module(f"{ARCHITECTURES}.{package.name}"), what, {})
    return found


def machine(name: str | Machine[Any], *, checked: bool = True) -> Machine[Any]:
    """A machine by name, or from a Python file; a machine itself is returned as it is.

    Args:
        name: a file that declares several machines is followed by the wanted one's name, `file.py:toy`.
        checked: see to it that the declaration of a user's means something.

    Raises:
        UnknownNameError: no such machine; with near matches.
        MachineFileError: the file cannot be read, does not run, or declares no machine.
    """
    if not isinstance(name, str):
        return name
    file, _, wanted = name.rpartition(":") if ".py:" in name else (name, "", "")
    if file.endswith(".py") or "/" in file:
        return from_file(Path(file), wanted, checked=checked)
    known: dict[str, Callable[[], Machine[Any]]] = {**makers(), **_declared("VARIANTS")}
    if name not in known:
        from popek.kernel.machine import UnknownNameError

        raise UnknownNameError("machine", name, known)
    return known[name]()


def origin(name: str) -> tuple[str, Path | None]:
    """What makes a machine of this name: a module; or a user's file, and no module.

    Raises:
        KeyError: no such machine.
    """
    file = name.rpartition(":")[0] if ".py:" in name else name
    if file.endswith(".py") or "/" in file:
        return "", Path(file)
    maker: Any = {**makers(), **_declared("VARIANTS")}[name]
    while isinstance(maker, functools.partial):
        maker = maker.func
    return str(maker.__module__), None


def from_file(path: Path, wanted: str = "", *, checked: bool = True) -> Machine[Any]:
    """The machine that a Python file declares.

    Args:
        wanted: its name, where there are several.
        checked: see to it that the declaration means something.

    Raises:
        MachineFileError: the file cannot be read, does not run, does not declare the machine, or declares what means
            nothing.
    """
    return _machine_in(path, _executed(path), wanted, checked=checked)


def from_text(text: str, name: str = "machine.py") -> Machine[Any]:
    """The machine that the text of a Python file declares; it is run, and its text is kept for messages.

    Args:
        name: under which errors speak of it.

    Raises:
        MachineFileError: as for `from_file`.
    """
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    return _machine_in(Path(name), _defined(Path(name), text), "", checked=True)


def _machine_in(path: Path, names: dict[str, Any], wanted: str, *, checked: bool) -> Machine[Any]:
    from popek.kernel.assistance import Assistance, hardware_of
    from popek.kernel.declaration import assert_declared
    from popek.kernel.machine import Machine
    from popek.kernel.outcome import DeclarationError

    try:
        declared: list[Machine[Any]] = [make() for make in names.get("MACHINES", {}).values()]
        if not declared:
            declared = [hardware_of(value) for value in names.values() if isinstance(value, Assistance)]
    except Exception as error:  # whatever the user's code raises
        raise _at_fault(path, error) from None
    # A file that imports another's MACHINES declares its own machine all the same.
    made = [value for value in names.values() if isinstance(value, Machine)] or declared
    unique = list({id(value): value for value in made}.values())
    if wanted:
        unique = [one for one in unique if one.name == wanted] or _no_such(path, wanted, unique)
    if len(unique) != 1:
        found = f"{len(unique)}: {', '.join(f'{path}:{one.name}' for one in unique)}" if unique else "none"
        raise MachineFileError(f"{path}: expected one Machine, or MACHINES with one maker; found {found}")
    if not checked:
        return unique[0]
    try:
        assert_declared(unique[0])
    except DeclarationError as error:
        raise MachineFileError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    return unique[0]


def _no_such(path: Path, wanted: str, declared: list[Machine[Any]]) -> list[Machine[Any]]:
    names = ", ".join(one.name for one in declared) or "none"
    raise MachineFileError(f"{path}: no machine is called {wanted!r}; there are {names}")


def _executed(path: Path) -> dict[str, Any]:
    """What a Python file defines."""
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise MachineFileError(f"{path}: {reason}") from None
    return _defined(path, source)


@functools.lru_cache(maxsize=8)
def _defined(path: Path, source: str) -> dict[str, Any]:
    """What the text of a file defines; a command that asks for its machine several times runs it once."""
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # what lies beside it can be imported, as when it is run
    try:
        exec(compile(source, str(path), "exec"), names)
    except SyntaxError as error:
        raise MachineFileError(f"{path}:{error.lineno}: {error.msg}") from None
    except Exception as error:  # whatever the user's code raises
        raise _at_fault(path, error) from None
    finally:
        sys.path.remove(folder)
    return names


def _at_fault(path: Path, error: Exception) -> MachineFileError:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f"{path}:{lines[-1]}" if lines else str(path)
    from popek.kernel.declaration import described

    return MachineFileError(f"{where}: {described(error)}")
