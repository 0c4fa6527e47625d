"""Instructions of a tiny machine, drawn from a grammar, and read twice: as semantics for popek, and on plain numbers.

    instruction  ::= statement statement? statement?
    statement    ::= [if expression:] action
    action       ::= acc := expression            general data
                   | pc := expression
                   | timer := expression          a resource of which a VMM has another value than its guest
                   | base := (expression, expression)   where references go: the relocation register, two bits
                   | mode := 0 | mode := 1        0 is the supervisor's
                   | cell reference := expression relocated: the memory trap where base + reference is beyond storage
                   | absolute n := expression     by real address, past the relocation register
                   | trap | trap keeping          with nothing kept, or with the changes made so far
    expression   ::= 0 | 1 | acc | pc | timer | mode | base bit 0 | base bit 1 | operand
                   | cell reference | absolute n
                   | expression and expression | expression xor expression | not expression
    reference    ::= 0 | 1 | operand | acc
    n            ::= 0 | 1 | 2 | 3

Every word has one bit but `base`; storage is four cells of one bit.  Nothing here uses popek: `run` is the other
author of what an instruction does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

CELLS = 4
Expression = tuple[Any, ...]
Statement = tuple[Any, ...]  # (guard or None, action)
Code = tuple[Statement, ...]


class Tiny(NamedTuple):
    """A state, on plain numbers."""

    mode: int  # 0 supervisor, 1 user
    pc: int
    timer: int
    base: int  # two bits
    acc: int
    cells: tuple[int, int, int, int]


class Trapped(NamedTuple):
    """A run that trapped; `state` is what it kept."""

    memory: bool
    keeps: bool
    state: Tiny


def states() -> Iterator[Tiny]:
    """All 1,024 of them."""
    for number in range(1 << 10):
        cells = (number >> 6 & 1, number >> 7 & 1, number >> 8 & 1, number >> 9 & 1)
        yield Tiny(number & 1, number >> 1 & 1, number >> 2 & 1, number >> 3 & 3, number >> 5 & 1, cells)


# -- drawing --------------------------------------------------------------------------------------

_LEAVES = ("acc", "pc", "timer", "mode", "low", "high", "operand")


def draw(chance: random.Random) -> Code:
    """An instruction."""
    return tuple(_statement(chance) for _ in range(chance.choice((1, 1, 2, 2, 3))))


def _statement(chance: random.Random) -> Statement:
    guard = _expression(chance, 1) if chance.random() < 0.4 else None
    return guard, _action(chance)


def _action(chance: random.Random) -> tuple[Any, ...]:
    kind = chance.choices(
        ("acc", "cell", "absolute", "pc", "timer", "base", "mode", "trap", "keep"),
        (6, 4, 1, 2, 1, 1, 1, 3, 1),
    )[0]
    if kind in ("acc", "pc", "timer"):
        return kind, _expression(chance, 2)
    if kind == "cell":
        return kind, _reference(chance), _expression(chance, 1)
    if kind == "absolute":
        return kind, chance.randrange(CELLS), _expression(chance, 1)
    if kind == "base":
        return kind, _expression(chance, 1), _expression(chance, 1)
    if kind == "mode":
        return kind, chance.randrange(2)
    return (kind,)


def _expression(chance: random.Random, depth: int) -> Expression:
    kind = chance.choices(
        ("leaf", "constant", "cell", "absolute", "and", "xor", "not"),
        (8, 2, 3, 1, 2, 2, 1) if depth else (8, 2, 2, 1, 0, 0, 0),
    )[0]
    if kind == "leaf":
        return (chance.choices(_LEAVES, (6, 1, 2, 2, 1, 1, 4))[0],)
    if kind == "constant":
        return kind, chance.randrange(2)
    if kind == "cell":
        return kind, _reference(chance)
    if kind == "absolute":
        return kind, chance.randrange(CELLS)
    if kind == "not":
        return kind, _expression(chance, depth - 1)
    return kind, _expression(chance, depth - 1), _expression(chance, depth - 1)


def _reference(chance: random.Random) -> Expression:
    return chance.choice((("constant", 0), ("constant", 1), ("operand",), ("acc",)))


# -- on plain numbers -----------------------------------------------------------------------------


class _StopError(Exception):
    def __init__(self, memory: bool, keeps: bool) -> None:
        super().__init__()
        self.memory, self.keeps = memory, keeps


def run(code: Code, state: Tiny, operand: int) -> Tiny | Trapped:
    """What the instruction does."""
    now: dict[str, Any] = {**state._asdict(), "pc": state.pc ^ 1, "cells": list(state.cells)}
    try:
        for guard, action in code:
            if guard is None or _value(guard, now, operand):
                _act(action, now, operand)
    except _StopError as stop:
        return Trapped(stop.memory, stop.keeps, _state(now) if stop.keeps else state)
    return _state(now)


def _state(now: dict[str, Any]) -> Tiny:
    return Tiny(**{**now, "cells": tuple(now["cells"])})


def _real(reference: Expression, now: dict[str, Any], operand: int) -> int:
    real: int = now["base"] + _value(reference, now, operand)
    if real >= CELLS:
        raise _StopError(True, False)
    return real


def _value(expression: Expression, now: dict[str, Any], operand: int) -> int:
    kind, *rest = expression
    if kind == "constant":
        return int(rest[0])
    if kind == "operand":
        return operand
    if kind == "low":
        return int(now["base"]) & 1
    if kind == "high":
        return int(now["base"]) >> 1
    if kind == "cell":
        return int(now["cells"][_real(rest[0], now, operand)])
    if kind == "absolute":
        return int(now["cells"][rest[0]])
    if kind == "not":
        return 1 - _value(rest[0], now, operand)
    if kind in ("and", "xor"):
        left, right = (_value(part, now, operand) for part in rest)
        return left & right if kind == "and" else left ^ right
    return int(now[kind])


def _act(action: tuple[Any, ...], now: dict[str, Any], operand: int) -> None:
    kind, *rest = action
    if kind == "trap":
        raise _StopError(False, False)
    if kind == "keep":
        raise _StopError(False, True)
    if kind == "mode":
        now["mode"] = rest[0]
    elif kind == "base":
        low, high = (_value(part, now, operand) for part in rest)
        now["base"] = low + 2 * high
    elif kind == "absolute":
        now["cells"][rest[0]] = _value(rest[1], now, operand)
    elif kind == "cell":
        value = _value(rest[1], now, operand)
        now["cells"][_real(rest[0], now, operand)] = value
    else:
        now[kind] = _value(rest[0], now, operand)
