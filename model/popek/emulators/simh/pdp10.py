"""One KS10 instruction on SIMH's `pdp10`, from a complete given state.

Page tables are laid out once, before the first case: the executive's map every page to itself, and each
user process table maps the user's pages to consecutive ones.  A monitor call and a page failure are taken
within the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from popek.architectures.pdp10.ks10_state import Ks10
from popek.kernel.memory import Memory
from popek.kernel.words import Word

from .simulator import SimhAnswer, run_cases

EXECUTIVE_TABLE: Final = 0o760
"""Core page of the executive process table; all tables lie below 256 K, see the list of deviations."""
USER_TABLES: Final[Mapping[int, tuple[int, int]]] = {
    0o761: (0o777, 0),
    0o762: (0o777, 0o1234),
    0o763: (0o17, 0o700),
    0o764: (0, 0o2777),
}
"""User process tables: their core page, and the last page and the first core page of their users."""

_PRESENT: Final = 0o500000  # accessible and writable
_SETUP: Final = ("set cpu tops10",)
_REGISTERS: Final = (
    "PC", "FLAGS", "PION", "PIENB", "PIACT", "PIPRQ", "APRENB", "APRFLG", "APRLVL", "EBR", "PGON",
    "UBR", "HSB",
)  # fmt: skip


@attrs.frozen(eq=False)
class Ks10Result:
    """What SIMH did.

    Attributes:
        halted: the processor stopped.
        state: the state after the instruction and after what it trapped to.
    """

    halted: bool
    state: Ks10


def process_maps() -> Memory:
    """What the tables of `USER_TABLES` say, as the model keeps it."""
    return Memory(11, 20, {table: bound << 11 | base for table, (bound, base) in USER_TABLES.items()})


def run_steps(states: Iterable[Ks10]) -> list[Ks10Result]:
    """Run one instruction from each state; its memory holds the instruction and all that is to be reported.

    Raises:
        SimhError: SIMH is missing or refused a command.
    """
    states = list(states)
    answers = run_cases("pdp10", [_commands(state) for state in states], setup=[*_SETUP, *_tables()])
    return [_result(state, answer) for state, answer in zip(states, answers, strict=True)]


def _tables() -> list[str]:
    cells: dict[int, int] = {}

    def entry(cell: int, page: int, core: int | None) -> None:
        value = 0 if core is None else _PRESENT | core
        cells[cell] = cells.get(cell, 0) | value << (0 if page & 1 else 18)

    for page in range(0o340):
        entry((EXECUTIVE_TABLE << 9) + 0o600 + (page >> 1), page, page)
    for page in range(0o400, 0o1000):
        entry((EXECUTIVE_TABLE << 9) + 0o200 + ((page - 0o400) >> 1), page, page)
    for table, (bound, base) in USER_TABLES.items():
        for page in range(0o1000):
            entry((table << 9) + (page >> 1), page, base + page if page <= bound else None)
        for page in range(0o340, 0o400):
            entry((table << 9) + 0o400 + ((page - 0o340) >> 1), page, page)
    return [f"d {cell:o} {value:o}" for cell, value in cells.items()]


def _commands(state: Ks10) -> list[str]:
    values = {
        "PC": state.pc,
        "FLAGS": state.flags.value.zero_extend(18) << 5,
        "PION": state.pi_on,
        "PIENB": state.pi_enabled,
        "PIACT": state.pi_active,
        "PIPRQ": state.pi_requests,
        "APRENB": state.apr_enabled,
        "APRFLG": state.apr_flags,
        "APRLVL": state.apr_channel,
        "EBR": state.ebr,
        "PGON": state.paging,
        "UBR": state.ubr,
        "HSB": state.halt_status,
    }
    # Without a reset the timer would go off every 8000 instructions and set its flag in `apr_flags`.
    lines = ["reset tim", "reset pag", *(f"d {name} {int(value):o}" for name, value in values.items())]
    lines += [f"d ac{number:o} {int(state.ac[number]):o}" for number in range(16)]
    cells = state.memory.cells()
    lines += [f"d {cell:o} {value:o}" for cell, value in cells.items()]
    lines += ["step", *(f"ex {name}" for name in _REGISTERS), "ex ac0-ac17"]
    lines += [f"ex {cell:o}" for cell in cells]
    lines += [f"d {cell:o} 0" for cell in cells]
    return lines


def _result(before: Ks10, answer: SimhAnswer) -> Ks10Result:
    values = answer.values
    halted = answer.stops[:1] == ("HALT instruction",)
    state = before.copy()
    state.pc = Word(18, values["PC"])
    state.flags = Word(13, values["FLAGS"] >> 5)
    state.pi_on, state.pi_enabled = Word(1, values["PION"]), Word(7, values["PIENB"])
    state.pi_active, state.pi_requests = Word(7, values["PIACT"]), Word(7, values["PIPRQ"])
    state.apr_enabled, state.apr_flags = Word(8, values["APRENB"]), Word(8, values["APRFLG"])
    state.apr_channel, state.ebr = Word(3, values["APRLVL"]), Word(11, values["EBR"])
    state.paging, state.ubr = Word(1, values["PGON"]), Word(11, values["UBR"] & 0o3777)
    state.halt_status = Word(20, values["HSB"] & 0o3777777)
    for number in range(16):
        state.ac[number] = Word(36, values[f"AC{number:o}"])
    state.memory = Memory(20, 36, {cell: answer.cell(cell) for cell in before.memory.cells()})
    state.running = Word(1, 0 if halted else 1)
    return Ks10Result(halted, state)
