"""Shared by these tests: run one Itanium instruction on numbers."""

from __future__ import annotations

from functools import cache

from popek.architectures.ia64 import MACHINES
from popek.architectures.ia64.state import Ia64
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import Word


@cache
def ia64() -> Machine[Ia64]:
    return MACHINES["ia64"]()


def run(form: str, state: Ia64, *operands: int) -> Outcome[Ia64]:
    """The outcome of a form, its operands in order."""
    instruction = ia64().instructions[form]
    names = [name for operand in instruction.inputs for name in operand.part_names()]
    assert len(names) == len(operands), form
    words = {name: Word(width, value) for (name, width), value in zip(names, operands, strict=True)}
    return ia64().step(instruction, state, words)


def completed(form: str, state: Ia64, *operands: int) -> Ia64:
    outcome = run(form, state, *operands)
    assert isinstance(outcome, Next), f"{form}: {outcome}"
    return outcome.state


def trapped(form: str, state: Ia64, *operands: int) -> tuple[str, int | None]:
    """The trap's name and its error code."""
    outcome = run(form, state, *operands)
    assert isinstance(outcome, Trap), f"{form} completes"
    return outcome.vector.name, None if outcome.error_code is None else int(outcome.error_code)


def put(state: Ia64, number: int, value: int, *, nat: int = 0) -> Ia64:
    """The state with GR[number] set."""
    new = state.copy()
    new.write_gr(Word(7, number), Word(64, value), Word(1, nat))
    return new


def gr(state: Ia64, number: int) -> int:
    return int(state.read_gr(Word(7, number)))


def nat(state: Ia64, number: int) -> int:
    return int(state.read_nat(Word(7, number)))


def guest_kernel(**changes: int) -> Ia64:
    """PSR.vm = 1, CPL 0, translation and collection on."""
    usual = {"psr__vm": 1, "psr__ic": 1, "psr__dt": 1, "psr__it": 1, "psr__rt": 1, "psr__i": 1, "psr__si": 1}
    return Ia64.reset(**{**usual, **changes})


def guest_user(**changes: int) -> Ia64:
    return guest_kernel(**{"psr__cpl": 3, **changes})
