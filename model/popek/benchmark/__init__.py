"""Speed, measured in one run: what a classification costs beside the solver, and how often the rest is done.

Processor time is measured, which does not grow with the load of the machine as the time of day does.  Figures of one
run can be compared with one another; of two runs, the ratios to what was measured beside them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import attrs

from popek.architectures.vtx.capability_files import load_capabilities
from popek.checks.conditions import critical_when
from popek.checks.counterexample import ReplayError
from popek.checks.runs import explore_instruction
from popek.checks.subject import Subject
from popek.checks.survey import Request, Surveyor
from popek.kernel import terms
from popek.kernel.compiled import Compiled, nothing_undefined
from popek.kernel.evaluation import evaluate
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine, UnknownNameError
from popek.kernel.state import Role, State
from popek.kernel.words import Word
from popek.machines import machine as find_machine

from .commands import commands
from .references import cpu, python_steps, starts, unicorn_steps
from .vmcss import PROCESSOR, judged

PARTS = ("classify", "growth", "start", "steps", "laws", "vmcs", "difftest", "commands")
BUDGET = 1.0  # seconds for a rate
SAMPLE = 24  # instruction forms for the law
CASES = 400  # of a differential test

Progress = Callable[[int, int], None]


@attrs.frozen
class Classified:
    """What classifying some forms took, on one processor.

    Attributes:
        machine: its name.
        forms: how many instruction forms.
        seconds: spent on them.
        solver_seconds: of these, inside the solver.
        growth, solver_growth: seconds after each form, in the order in which the machine declares them.
        slowest: the forms that took longest, with their seconds.
    """

    machine: str
    forms: int
    seconds: float
    solver_seconds: float
    growth: tuple[float, ...]
    solver_growth: tuple[float, ...]
    slowest: tuple[tuple[str, float], ...]

    @property
    def ratio(self) -> float:
        """Total time over time spent in the solver on the same questions."""
        return self.seconds / self.solver_seconds if self.solver_seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """Its keys in `popek/benchmark/1`."""
        return {
            "machine": self.machine,
            "forms": self.forms,
            "seconds": round(self.seconds, 3),
            "solver_seconds": round(self.solver_seconds, 3),
            "total_over_solver": round(self.ratio, 3),
            "growth": [round(seconds, 3) for seconds in self.growth],
            "solver_growth": [round(seconds, 3) for seconds in self.solver_growth],
            "slowest": [[form, round(seconds, 3)] for form, seconds in self.slowest],
        }


@attrs.frozen
class Rate:
    """How often something was done.

    Attributes:
        name: stable.
        unit: what was done, for people.
        count, seconds: how often, and in what processor time; by the clock, where the unit says so.
        missing: why nothing was measured, else empty.
        beside: the name of the rate of the same run that this one is a multiple of, where there is one.
    """

    name: str
    unit: str
    count: int = 0
    seconds: float = 0.0
    missing: str = ""
    beside: str = ""

    @property
    def per_second(self) -> float:
        """0 where nothing was measured."""
        return self.count / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """An entry of `rates` in `popek/benchmark/1`."""
        return {
            "unit": self.unit,
            "count": self.count,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.per_second),
            "missing": self.missing,
            "beside": self.beside,
        }


@attrs.frozen
class Benchmark:
    """What one run measured.

    Attributes:
        classified: None where that part was left out.
        rates: how often things were done.
        settings: of one form, numbers of open settings, and the seconds in which it was said when it is critical.
    """

    classified: Classified | None
    rates: tuple[Rate, ...]
    settings: tuple[tuple[int, float], ...] = ()

    def rate(self, name: str) -> Rate:
        """A rate by its name."""
        return next(rate for rate in self.rates if rate.name == name)

    def ratio(self, rate: Rate) -> float | None:
        """A rate as a multiple of what was measured beside it; None where nothing was."""
        beside = [one.per_second for one in self.rates if one.name == rate.beside and one.per_second]
        return rate.per_second / beside[0] if beside and not rate.missing else None

    def to_json(self) -> dict[str, object]:
        """`popek/benchmark/1`."""
        found: dict[str, object] = {} if self.classified is None else self.classified.to_json()
        found |= {
            f"{rate.name}_per_second": round(rate.per_second) for rate in self.rates if rate.name == "steps"
        }
        rates = {rate.name: rate.to_json() | {"ratio": _rounded(self.ratio(rate))} for rate in self.rates}
        if self.settings:
            found["settings_growth"] = [[count, round(seconds, 3)] for count, seconds in self.settings]
        return found | {"schema": "popek/benchmark/1", "rates": rates}


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else float(f"{ratio:.3g}")


def benchmark(
    name: str,
    forms: Sequence[str] = (),
    *,
    parts: Sequence[str] = PARTS,
    budget: float = BUDGET,
    cases: int = CASES,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure on one processor, a part after the other.

    Args:
        name: of the machine that is classified, stepped and held to the law.
        forms: only these of its forms or mnemonics; all by default.
        parts: of `PARTS`.
        budget: seconds for each rate.
        cases: how many cases of a differential test.
        progress: called with the number of forms that are classified, and of all.

    Raises:
        UnknownNameError: no such machine, form or part.
        ReplayError: the law does not hold: a defect of popek.
    """
    for part in parts:
        if part not in PARTS:
            raise UnknownNameError("part", part, PARTS)
    machine = find_machine(name)
    wanted = list(dict.fromkeys(i.form for given in forms for i in machine.find(given)))
    chosen = [machine.instructions[form] for form in wanted or machine.instructions]
    classified = _classified(machine, chosen, progress) if "classify" in parts else None
    rates: list[Rate] = []
    settings = _open_settings(name, machine, chosen) if "growth" in parts else ()
    if "start" in parts:
        for what, unit, turn in starts(load_capabilities(PROCESSOR)):
            beside = "" if what == "start python" else "start python"
            rates.append(attrs.evolve(_repeated(what, f"starts of {unit}", budget, turn), beside=beside))
    if "steps" in parts:
        rates += _steps(machine, chosen, budget)
    if "laws" in parts:
        rates.append(_law(machine, chosen[:: max(1, len(chosen) // SAMPLE)], budget))
    if "vmcs" in parts:
        for what, unit, turn, beside in judged():
            rates.append(attrs.evolve(_repeated(what, unit, budget, turn), beside=beside))
    if "difftest" in parts:
        rates += [_difftest(emulator, cases) for emulator in ("unicorn", "bochs")]
    if "commands" in parts:
        rates += [
            Rate(what, unit, 1, taken, beside=beside) for what, unit, taken, beside in commands(name, forms)
        ]
    return Benchmark(classified, tuple(rates), settings)


def _classified(
    machine: Machine[Any], chosen: Sequence[Instruction], progress: Progress | None
) -> Classified:
    surveyor = Surveyor(Request(Subject.of(machine)))
    taken: list[tuple[str, float]] = []
    in_solver: list[float] = []
    for number, instruction in enumerate(chosen, 1):
        begin = time.process_time()
        row = surveyor.row(instruction.form)
        taken.append((row.form, time.process_time() - begin))
        in_solver.append(row.solver_seconds)
        if progress is not None:
            progress(number, len(chosen))
    growth = tuple(_sums(seconds for _, seconds in taken))
    solving = tuple(_sums(iter(in_solver)))
    slowest = tuple(sorted(taken, key=lambda pair: -pair[1])[:5])
    return Classified(machine.name, len(taken), growth[-1], solving[-1], growth, solving, slowest)


def _open_settings(
    name: str, machine: Machine[Any], chosen: Sequence[Instruction]
) -> tuple[tuple[int, float], ...]:
    """What it takes to say when one form is critical, with more and more settings left open."""
    names = [setting.name for setting in machine.settings]
    request = Request(Subject.of(name))
    found: list[tuple[int, float]] = []
    form = next(
        (
            one.form
            for one in chosen[:SAMPLE]
            if critical_when(request, names[:2], forms=[one.form]).rows[0].when
        ),
        chosen[0].form,
    )
    counts = [count for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48) if count < len(names)]
    for count in (*counts, len(names)) if names else ():
        begin = time.process_time()
        critical_when(request, names[:count], forms=[form])
        found.append((count, time.process_time() - begin))
    return tuple(found)


def _sums(seconds: Iterator[float]) -> Iterator[float]:
    total = 0.0
    for one in seconds:
        total += one
        yield total


def _repeated(name: str, unit: str, budget: float, turn: Callable[[], int]) -> Rate:
    """As many turns as fit into the budget, one at least; a turn says how often it did something."""
    begin, count = cpu(), 0
    while True:
        count += turn()
        seconds = cpu() - begin
        if seconds >= budget:
            return Rate(name, unit, count, seconds)


# -- concrete steps, and the law ------------------------------------------------------------------


def _steps(machine: Machine[Any], chosen: Sequence[Instruction], budget: float) -> Iterator[Rate]:
    """Steps of the semantics as they are compiled and as they are interpreted, and of what others would do."""
    state = machine.state.reset()
    fast = Compiled(machine)
    prepared = [(instruction, _operands(instruction)) for instruction in chosen]
    runs = [
        (form.run, [int(word) for word in operands.values()])
        for instruction, operands in prepared
        if (form := fast.form(instruction)) is not None
    ]
    words, cells = fast.numbers(state)

    def compiled() -> int:
        for run, operands in runs:
            run(words, cells, operands, nothing_undefined)
        return len(runs)

    def interpreted() -> int:
        for instruction, operands in prepared:
            machine.step(instruction, state, operands)
        return len(prepared)

    unit = f"instructions of {machine.name} run on numbers"
    if runs:
        yield attrs.evolve(_repeated("steps", unit, budget, compiled), beside="steps unicorn")
    else:
        yield Rate("steps", unit, missing="none of these forms is compiled")
    yield attrs.evolve(
        _repeated("steps interpreted", f"{unit}, not compiled", budget, interpreted), beside="steps unicorn"
    )
    called = "one-step calls of Unicorn, an ADD each"
    missing = _missing("unicorn")
    yield (
        Rate("steps unicorn", called, missing=missing)
        if missing
        else _repeated("steps unicorn", called, budget, unicorn_steps())
    )
    plain = "ADDs by an interpreter of four lines of Python"
    yield attrs.evolve(_repeated("steps python", plain, budget, python_steps()), beside="steps unicorn")


def _operands(instruction: Instruction) -> dict[str, Word]:
    return instruction.words(instruction.smallest)


def _law(machine: Machine[Any], chosen: Sequence[Instruction], budget: float) -> Rate:
    """Exactly one path holds in a random state, and it ends as the run on numbers does."""
    chance = random.Random(1)
    explored = [(one, explore_instruction(machine, one), _operands(one)) for one in chosen]
    prepared = [
        (one, run, list(dict.fromkeys(c for path in run.paths for c in path.conditions)), operands)
        for one, run, operands in explored
    ]

    def turn() -> int:
        for instruction, run, conditions, operands in prepared:
            state = _random_state(machine, chance)
            numbers = {name: int(word) for name, word in {**state.words(), **operands}.items()}
            numbers |= {n: 0 for n in terms.variables_of(conditions) if n not in numbers}
            cells = dict.fromkeys(state.memories(), lambda _: 0)
            values = dict(zip(conditions, evaluate(conditions, numbers, cells), strict=True))
            holding = [path for path in run.paths if all(values[c] for c in path.conditions)]
            concrete = machine.step(instruction, state, operands)
            if len(holding) != 1 or type(holding[0].result) is not type(concrete):
                raise ReplayError(f"{machine.name}: {instruction.form}: the law does not hold in {state}")
        return len(prepared)

    return _repeated("laws", f"examples of the law on {len(prepared)} forms", budget, turn)


def _random_state(machine: Machine[Any], chance: random.Random) -> State:
    """A state that exists, with random program data, and random resources where they may be."""
    state: State = machine.state.reset()
    for roles in ((Role.GENERAL,), (Role.RESOURCE, Role.MODE)):
        changes = {
            leaf.name: chance.getrandbits(leaf.width) for leaf in machine.state.leaves if leaf.role in roles
        }
        changed = state.with_changes(changes)
        if machine.invariant(changed).value == 1:
            state = changed
    return state


# -- emulators ------------------------------------------------------------------------------------


def _missing(emulator: str) -> str | None:
    from popek.emulators.bochs import simulator

    if emulator == "unicorn":
        return None if find_spec("unicorn") else "unicorn is not installed"
    return simulator.missing(assembling=True)


def _difftest(emulator: str, cases: int) -> Rate:
    name, unit = f"difftest {emulator}", f"IA-32 cases compared with {emulator.capitalize()}"
    if missing := _missing(emulator):
        return Rate(name, unit, missing=missing)
    from popek.emulators.ia32 import compare as ia32_compare

    against = ia32_compare.BOCHS
    if emulator == "unicorn":
        from popek.emulators.ia32.unicorn import UNICORN

        against = UNICORN
    begin = cpu()
    found = ia32_compare.difftest(cases, against=against)
    return Rate(name, unit, found.cases, cpu() - begin)
