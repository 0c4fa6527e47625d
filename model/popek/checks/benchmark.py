"""Speed, as ratios measured in one run: what is spent outside the solver, and how it grows with forms."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import attrs

from popek.architectures import machine as find_machine
from popek.kernel.configuration import default_configuration
from popek.kernel.words import Word

from .survey import Request, Surveyor

STEPS = 2000


@attrs.frozen
class Benchmark:
    """What one run measured, on one processor.

    Attributes:
        forms: instruction forms classified.
        seconds: spent on them.
        solver_seconds: of these, inside the solver.
        steps_per_second: concrete runs of single instructions, solver and all its terms left out.
        growth: seconds after each form, in the order in which the machine declares them.
        slowest: the forms that took longest, with their seconds.
    """

    machine: str
    forms: int
    seconds: float
    solver_seconds: float
    steps_per_second: float
    growth: tuple[float, ...]
    slowest: tuple[tuple[str, float], ...]

    @property
    def ratio(self) -> float:
        """Total time over time spent in the solver on the same questions."""
        return self.seconds / self.solver_seconds if self.solver_seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """`popek/benchmark/1`."""
        return {
            "schema": "popek/benchmark/1",
            "machine": self.machine,
            "forms": self.forms,
            "seconds": round(self.seconds, 3),
            "solver_seconds": round(self.solver_seconds, 3),
            "total_over_solver": round(self.ratio, 3),
            "steps_per_second": round(self.steps_per_second),
            "growth": [round(seconds, 3) for seconds in self.growth],
            "slowest": [[form, round(seconds, 3)] for form, seconds in self.slowest],
        }


def benchmark(
    name: str, forms: Sequence[str] = (), *, progress: Callable[[int, int], None] | None = None
) -> Benchmark:
    """Classify the forms of a machine, one after the other, and time it.

    Args:
        forms: only these; all by default.

    Raises:
        UnknownNameError: no such machine or form.
    """
    machine = find_machine(name)
    wanted = [i.form for given in forms for i in machine.find(given)] or list(machine.instructions)
    surveyor = Surveyor(Request(name, None, default_configuration(machine)), machine)
    rows = []
    for number, form in enumerate(wanted):
        rows.append(surveyor.row(form))
        if progress is not None:
            progress(number + 1, len(wanted))
    growth, total = [], 0.0
    for row in rows:
        total += row.seconds
        growth.append(total)
    slowest = sorted(rows, key=lambda row: -row.seconds)[:5]
    return Benchmark(
        machine.name,
        len(rows),
        total,
        sum(row.solver_seconds for row in rows),
        _steps_per_second(name, wanted),
        tuple(growth),
        tuple((row.form, row.seconds) for row in slowest),
    )


def _steps_per_second(name: str, forms: Sequence[str]) -> float:
    machine = find_machine(name)
    state = machine.state.reset()
    prepared = []
    for form in forms:
        instruction = machine.instructions[form]
        operands = {
            full: Word(width, operand.kind.first.get(part, 0))
            for operand in instruction.inputs
            for part, (full, width) in zip(operand.kind.parts, operand.part_names(), strict=True)
        }
        prepared.append((instruction, operands))
    begin = time.perf_counter()
    for number in range(STEPS):
        instruction, operands = prepared[number % len(prepared)]
        machine.step(instruction, state, operands)
    return STEPS / (time.perf_counter() - begin)
