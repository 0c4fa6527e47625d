"""Lists of instructions that somebody rewrites: mnemonics and forms, as text, TOML or JSON."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from popek.errors import PopekError
from popek.kernel.machine import Machine, UnknownNameError


class GivenFormsError(PopekError):
    """A file that is no such list: one line with the file, the place and what was expected."""


def given_forms(path: Path, machine: Machine[Any]) -> list[str]:
    """The forms that a list names, in its order.

    A ``.json`` file is a list of names, or has one under ``forms``; a ``.toml`` file has it under ``forms``.  Any other
    file has a name a line, and comments after ``#``.

    Raises:
        GivenFormsError: it cannot be read, is no such list, names an instruction that the machine lacks, or nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise GivenFormsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise GivenFormsError(f"{path}: expected UTF-8 text") from None
    forms: dict[str, None] = {}
    for place, name in _names(path, text):
        try:
            forms |= dict.fromkeys(one.form for one in machine.find(name))
        except UnknownNameError as error:
            raise GivenFormsError(f"{place}: {error}") from None
    if not forms:
        raise GivenFormsError(f"{path}: expected at least one mnemonic or form, found none")
    return list(forms)


def _names(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """The names, each with the place where it stands."""
    if path.suffix not in (".json", ".toml"):
        for number, line in enumerate(text.splitlines(), 1):
            if name := line.partition("#")[0].strip():
                yield f"{path}:{number}", name
        return
    try:
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except json.JSONDecodeError as error:
        raise GivenFormsError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise GivenFormsError(f"{path}: not {path.suffix[1:].upper()}: {error}") from None
    names = found.get("forms") if isinstance(found, dict) else found
    if not isinstance(names, list):
        raise GivenFormsError(f'{path}: forms: expected a list of mnemonics and forms such as ["SGDT m"]')
    for number, name in enumerate(names, 1):
        if not isinstance(name, str):
            raise GivenFormsError(f"{path}: forms, item {number}: expected text, not {name!r}")
        yield f"{path}: forms, item {number}", name
