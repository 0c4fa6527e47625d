"""Operand kinds as the manuals write them, and the declaration of instructions."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from popek.kernel.instruction import Instruction, Operand, OperandKind
from popek.kernel.machine import Machine
from popek.kernel.words import Word

from . import interruptions as program
from .encoding import halfwords
from .state import Address, Cpu

C = TypeVar("C", bound=Cpu)
F = TypeVar("F", bound=Callable[..., None])


def _number(name: str, width: int) -> OperandKind:
    return OperandKind(name, {"": width}, spell=lambda parts: str(parts[""]))


def _storage(name: str) -> OperandKind:
    def spell(parts: Mapping[str, int]) -> str:
        return f"{parts['d']}({parts['b']})"

    return OperandKind(
        name, {"b": 4, "d": 12}, spell=spell, make=lambda parts: Address(parts["b"], parts["d"])
    )


def _with_length(name: str, size: int) -> OperandKind:
    def spell(parts: Mapping[str, int]) -> str:
        return f"{parts['d']}({size},{parts['b']})"

    return OperandKind(
        name, {"b": 4, "d": 12}, spell=spell, make=lambda parts: Address(parts["b"], parts["d"])
    )


def _indexed(name: str) -> OperandKind:
    def spell(parts: Mapping[str, int]) -> str:
        return f"{parts['d']}({parts['x']},{parts['b']})"

    def make(parts: Mapping[str, Word]) -> Address:
        return Address(parts["b"], parts["d"], parts["x"])

    return OperandKind(name, {"x": 4, "b": 4, "d": 12}, spell=spell, make=make)


def _range(name: str, count: int) -> OperandKind:
    """Registers R1 through R3, of which there are `count`; 15 is followed by 0."""
    return OperandKind(name, {"": 4}, spell=lambda parts: f"{parts['']},{(parts[''] + count - 1) % 16}")


KINDS: Final[Mapping[str, OperandKind]] = {
    kind.name: kind
    for kind in (
        *(_number(name, 4) for name in ("R1", "R2", "R3", "M1", "M3")),
        *(_number(name, 8) for name in ("I2", "I")),
        *map(_storage, ("D1(B1)", "D2(B2)")),
        *(_with_length(f"D1({size},B1)", size) for size in (1, 2)),
        _with_length("D2(2,B2)", 2),
        _indexed("D2(X2,B2)"),
        _range("R1,R3=R1", 1),
        _range("R1,R3=R1+1", 2),
    )
}

_ANY_KIND: Final = re.compile(
    "|".join(rf"(?<![\w(]){re.escape(name)}(?![\w+=(])" for name in sorted(KINDS, key=len, reverse=True))
)


def declare(
    machine: Machine[C], *forms: str, source: str, privileged: bool = False, **settings: Any
) -> Callable[[F], F]:
    """Declare the decorated function as the semantics of one or more forms.

    Before it runs, the instruction address moves past the instruction, and a privileged instruction in the
    problem state meets the privileged-operation exception, which comes before any other of its own.
    """

    def decorate(semantics: F) -> F:
        for form in forms:
            mnemonic = form.split()[0]
            length = halfwords(mnemonic)

            @functools.wraps(semantics)
            def run(cpu: Cpu, *operands: Any, _length: int = length, **chosen: Any) -> None:
                cpu.begin(_length)
                if privileged and cpu.psw.problem:
                    raise program.exception(program.PRIVILEGED_OPERATION)
                semantics(cpu, *operands, **chosen)

            if form in machine.instructions:
                raise ValueError(f"{machine.name}: {form} is declared twice")
            found = tuple(Operand(name, KINDS[name]) for name in _ANY_KIND.findall(form))
            machine.instructions[form] = Instruction(form, mnemonic, found, source, run, settings)
        return semantics

    return decorate
