"""The 68000 and 68010 model and Musashi, case by case: registers, status, both stacks, and what was stored."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.architectures.m68k.machine import build
from popek.architectures.m68k.operands import encode
from popek.architectures.m68k.state import ADDRESS_ERROR, BUS_ERROR, CELL_ADDRESS, SR_BITS, M68k
from popek.emulators.differential import Difference, DifftestReport, Tally, chosen_forms, in_turns
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import NotModelled, Trap
from popek.kernel.words import Word

from .deviations import explanation
from .processor import CELLS, REGISTERS, M68kResult, pattern, processor, words_at

MODELS: Final = ("68000", "68010")
BYTES: Final = 2 * CELLS
LAST: Final = (BYTES >> 9) - 1
_HALF: Final = 0x8000


@attrs.frozen
class M68kCase:
    """An instruction, and the state it starts from.

    Attributes:
        form: the instruction's.
        operands: the number of each part of its operands.
        model: 0 is the 68000, 1 the 68010.
        registers: as Musashi's results name them.
    """

    form: str
    operands: Mapping[str, int]
    model: int
    registers: Mapping[str, int]

    @property
    def supervisor(self) -> bool:
        """It starts in supervisor state."""
        return bool(self.registers["sr"] >> 13 & 1)

    @property
    def cpl(self) -> int:
        """0 in supervisor state, 1 in user state."""
        return 0 if self.supervisor else 1

    @property
    def dividend(self) -> int:
        """What the last operand, a data register, holds."""
        return self.registers[f"d{list(self.operands.values())[-1] & 7}"]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "form": self.form,
            "operands": dict(self.operands),
            "model": MODELS[self.model],
            "registers": dict(self.registers),
        }

    def state(self, cells: Mapping[int, int]) -> M68k:
        """As the model has it, where storage holds the pattern and, in these cells, something else."""
        given = self.registers
        current, other = ("ssp", "usp") if self.supervisor else ("usp", "ssp")
        changes = {name: given[name] for name in REGISTERS[:16] if name in given}
        changes |= {name: given[name] for name in ("vbr", "sfc", "dfc")}
        changes |= {"sp": given[current], "other_sp": given[other], "m68010": self.model, "last": LAST}
        state = M68k.reset().with_changes(changes)
        state.sr = given["sr"]

        def cell(address: Word) -> Word:
            number = int(address)
            return Word(16, cells.get(number, pattern(number)))

        state.memory = Memory(CELL_ADDRESS, 16, cell)
        return state


def draw(instruction: Instruction, rng: random.Random, model: int) -> M68kCase:
    """A case: registers that mostly point into storage, and operands that exist."""
    while True:
        operands = {name: _number(width, rng) for name, width in instruction.widths.items()}
        if "operand Rc" in operands and rng.random() < 0.5:
            operands["operand Rc"] = rng.choice((0x002, 0x802, 0x803))  # of later models
        if instruction.valid(instruction.words(operands)).value == 1:
            break

    def address() -> int:
        # The high byte does not leave the chip; one place in ten is odd.
        place = rng.choice((rng.randrange(_HALF, BYTES - _HALF), rng.randrange(BYTES)))
        return rng.choice((0, rng.getrandbits(8) << 24)) | place & (-2 if rng.random() < 0.9 else -1)

    registers = {f"d{n}": _number(32, rng) for n in range(8)}
    registers |= {f"a{n}": address() for n in range(7)}
    registers |= {"usp": address() & -2, "ssp": address() & -2}
    registers |= {"pc": rng.randrange(_HALF, BYTES - _HALF) & -2, "sr": rng.getrandbits(16) & SR_BITS}
    later = {
        "vbr": address() & -4 & (1 << 24) - 1,
        "sfc": rng.choice((1, 2, 5, 6)),
        "dfc": rng.choice((1, 2, 5, 6)),
    }
    registers |= later if model else dict.fromkeys(later, 0)
    return M68kCase(instruction.form, operands, model, registers)


def _number(width: int, rng: random.Random) -> int:
    """Any number, and the ones at the edges more often."""
    top = (1 << width) - 1
    return rng.choice((0, 1, top, 1 << width - 1, *(rng.getrandbits(width),) * 4)) & top


@attrs.frozen
class M68kExpected:
    """What the model says, and which bits of it the manual leaves undefined."""

    traps: str | None
    result: M68kResult
    undefined: Mapping[str, int]


def expected(
    machine: Machine[M68k], case: M68kCase, cells: Mapping[int, int]
) -> M68kExpected | NotModelled | str:
    """The state after an instruction and, where it traps, after the entry of the handler; or why it is outside."""
    instruction = machine.instructions[case.form]
    asked: dict[str, int] = {}
    ends = []
    for value in (0, -1):
        choice = {name: value & (1 << width) - 1 for name, width in asked.items()}
        before = case.state(cells).with_undefined(choice, asked)
        outcome = machine.step(instruction, before, instruction.words(case.operands))
        if isinstance(outcome, NotModelled):
            return outcome
        after, traps = outcome.state, None
        if isinstance(outcome, Trap):
            traps = str(outcome.vector)
            if outcome.vector in (BUS_ERROR, ADDRESS_ERROR):
                return f"{traps}, which Musashi does not have"
            assert machine.deliver is not None
            try:
                after = machine.deliver(before, outcome)
            except Exception as stop:
                return str(stop)
        ends.append(_as_result(after))
        if not asked:
            break
    first, last = ends[0], ends[-1]
    undefined = {name: first.registers[name] ^ last.registers[name] for name in first.registers}
    undefined |= {f"cell {a}": first.cells[a] ^ last.cells.get(a, 0) for a in first.cells}
    return M68kExpected(traps, first, undefined)


def _as_result(state: M68k) -> M68kResult:
    supervisor = int(state.sr.s) == 1
    names = (*REGISTERS[:16], "vbr", "sfc", "dfc")
    registers = {name: int(state[name]) for name in names}
    registers |= {"sr": int(state.sr.value)}
    registers |= dict(
        zip(
            ("ssp", "usp") if supervisor else ("usp", "ssp"),
            (int(state.sp), int(state.other_sp)),
            strict=True,
        )
    )
    cells = {int(entry[0]): int(entry[1]) for entry in state.memory.stores if isinstance(entry, tuple)}
    return M68kResult(registers, cells)


def differing(model: M68kExpected, musashi: M68kResult, cells: Mapping[int, int]) -> tuple[str, ...]:
    """One line for each register and each cell that differs: model, then emulator."""
    lines = []
    for name, value in musashi.registers.items():
        wanted, open_ = model.result.registers[name], model.undefined[name]
        if (wanted ^ value) & ~open_:
            lines.append(f"{name}: {wanted:#x}, {value:#x}")
    for cell in sorted({*model.result.cells, *musashi.cells}):
        old = cells.get(cell, pattern(cell))
        wanted, seen = model.result.cells.get(cell, old), musashi.cells.get(cell, old)
        if (wanted ^ seen) & ~model.undefined.get(f"cell {cell}", 0):
            lines.append(f"memory[{cell << 1:#x}]: {wanted:#x}, {seen:#x}")
    return tuple(lines)


@attrs.frozen
class ComparedOnMusashi:
    """A case that was run on both: what the model says, and how Musashi differs, if it does."""

    expected: M68kExpected
    difference: Difference[M68kCase] | None


def compare(machine: Machine[M68k], case: M68kCase) -> ComparedOnMusashi | NotModelled | str:
    """Run one case on both; or why it cannot be.

    Raises:
        MusashiError: Musashi cannot be run.
    """
    instruction = machine.instructions[case.form]
    cells = words_at(case.registers["pc"], encode(instruction, case.operands))
    model = expected(machine, case, cells)
    if not isinstance(model, M68kExpected):
        return model
    seen = processor(case.model).run(case.registers, cells)
    details = differing(model, seen, cells)
    if not details:
        return ComparedOnMusashi(model, None)
    state = "supervisor" if case.supervisor else "user"
    return ComparedOnMusashi(
        model,
        Difference(
            case,
            f"{instruction.assembly(case.operands)} on a {MODELS[case.model]} in {state} state",
            f"{model.traps or 'completes'} at {model.result.registers['pc']:#x}",
            f"ends at {seen.registers['pc']:#x}",
            details,
            explanation(case, model.traps, frozenset(line.split(":")[0] for line in details)),
        ),
    )


def difftest(
    cases: int,
    seed: int = 0,
    forms: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    kept: int = 20,
    machine: Machine[Any] | None = None,
) -> DifftestReport[M68kCase]:
    """Compare the model with Musashi on random cases.

    Args:
        cases: how many to compare; the first half on the 68000, the others on the 68010.
        seed: the same seed draws the same cases.
        forms: instruction forms or mnemonics; all by default, each with its share.
        progress: called with the number of cases done, now and then.
        kept: how many unexplained differences to report in full.
        machine: the model; `m68k` by default.

    Raises:
        UnknownNameError: no such form.
        MusashiError: Musashi is missing.
    """
    started = time.monotonic()
    model: Machine[Any] = machine or build()
    tally: Tally[M68kCase] = Tally(kept)
    rng = random.Random(seed)
    turns = enumerate(in_turns(chosen_forms(model, forms), (), cases, rng))
    for done, instruction in turns:
        while True:
            case = draw(instruction, rng, int(2 * done >= cases))  # first the 68000, then the 68010
            found = compare(model, case)
            if isinstance(found, ComparedOnMusashi):
                break
            (tally.outside if isinstance(found, str) else tally.not_modelled)[
                found if isinstance(found, str) else found.reason
            ] += 1
        mode = f"{MODELS[case.model]}, {'supervisor' if case.supervisor else 'user'}"
        tally.count(case, mode, found.difference, traps=found.expected.traps is not None)
        if progress is not None and done % 100 == 99:
            progress(done + 1)
    report = tally.report(model.name, "Musashi", seed, tally.unexplained, time.monotonic() - started)
    return attrs.evolve(report, level="user state")
