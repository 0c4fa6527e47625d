"""A machine with instructions that somebody rewrote: their Python as it is shown, and put in the place of ours."""

from __future__ import annotations
import __future__

import inspect
import linecache
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from popek.errors import PopekError
from popek.kernel.declaration import assert_declared, described
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine


class EditError(PopekError):
    """An edited instruction that cannot be used: one line with the line in the text."""


def source_of(instruction: Instruction) -> str:
    """The Python of an instruction, from its decorator on; empty where it is not to be had."""
    try:
        return textwrap.dedent(inspect.getsource(instruction.semantics))
    except (OSError, TypeError):
        return ""


def edited(machine: Machine[Any], edits: Mapping[str, str]) -> Machine[Any]:
    """A machine with the semantics of some forms replaced; the machine itself is changed.

    Args:
        edits: per form the text of a function as `source_of` gives it, with or without its decorator.

    Raises:
        EditError: the text is no such function.
        DeclarationError: the machine with it means nothing.
    """
    for form, text in edits.items():
        instruction = machine.find(form)[0]
        _replace(machine, instruction, text)
    assert_declared(machine)
    return machine


class _Recorder:
    """Stands for the machine in the text: takes what its decorator declares."""

    def __init__(self, machine: Machine[Any]) -> None:
        self._machine = machine
        self.taken: list[Callable[..., None]] = []

    def instruction(self, *forms: str, **_: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Note the function; its forms, source and settings stay as they are."""
        return self._take

    def _take(self, function: Callable[..., None]) -> Callable[..., None]:
        self.taken.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)


def _replace(machine: Machine[Any], instruction: Instruction, text: str) -> None:
    name = f"{instruction.mnemonic}.py"
    semantics = instruction.semantics
    closure = {
        variable: cell.cell_contents
        for variable, cell in zip(semantics.__code__.co_freevars, semantics.__closure__ or (), strict=True)
    }
    recorder = _Recorder(machine)
    # The decorator names a variable of ours, such as `machine`.
    first = text.lstrip().split("\n", 1)[0]
    holder = first[1:].split(".", 1)[0].strip() if first.startswith("@") else ""
    names: dict[str, Any] = {**semantics.__globals__, **closure}
    if holder:
        names[holder] = recorder
    before = dict(names)
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    try:
        exec(compile(textwrap.dedent(text), name, "exec", dont_inherit=True, flags=_ANNOTATIONS), names)
    except SyntaxError as error:
        raise EditError(f"{name}:{error.lineno}: {error.msg}") from None
    except Exception as error:  # whatever the text raises
        raise EditError(f"{name}: {described(error)}") from None
    found = list(dict.fromkeys(recorder.taken)) or [
        value for n, value in names.items() if inspect.isfunction(value) and before.get(n) is not value
    ]
    if len(found) != 1:
        raise EditError(f"{name}: expected one function; found {len(found)}")
    for form, old in list(machine.instructions.items()):
        if old.semantics is semantics:
            new = Instruction(
                old.form, old.mnemonic, old.operands, old.source, found[0], old.settings, old.implicit
            )
            new.assert_takes_its_operands(machine.operands)
            machine.instructions[form] = new


_ANNOTATIONS = __future__.annotations.compiler_flag

__all__ = ["EditError", "edited", "source_of"]
