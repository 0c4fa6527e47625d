"""Compare guests of a model with an emulator, one instruction at a time.

A case is an instruction, controls and a guest state.  The model says whether it leaves the guest and with what exit
information, or what the guest's state is afterwards, or which exception the guest takes; a harness says what the
emulator did.  A difference is a bug of the model until shown otherwise.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.emulators.differential import Difference, chosen_forms
from popek.emulators.ia32.step import StepCaseError
from popek.emulators.x86.expectation import OutsideError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

from .observation import GuestSteps

LEVELS: Final = (0, 0, 0, 0, 1, 2, 3, 3)
"""The privilege levels cases are drawn from, by weight."""

PRIVILEGED_LEVELS: Final = (0, 0, 0, 0, 0, 0, 0, 1, 2, 3)
"""The levels of mnemonics that a control governs."""

_ATTEMPTS = 30
_CHUNK = 1500


@attrs.frozen(eq=False)
class Guests:
    """A kind of guest to compare.

    Attributes:
        series: what the random generator starts from; another series draws other forms.
        governed: mnemonics that some control is about; they come more often, and mostly at CPL 0.
        draw: a case of a form at a privilege level, for a processor of the emulator.
        text: what is assembled.
        assemble: the machine code of texts; one that is missing cannot be assembled.
        prepare: the case for the harness with what the model says, given the machine, the text, its code and the
            emulator's processor.
        steps: where the model and the emulator do not agree.
        run: the harness, given the prepared cases and the emulator's processor.
        processor: of the emulator, where none is named.
        left_out: forms that are not compared.
    """

    series: str
    governed: Collection[str]
    draw: Callable[[Instruction, int, random.Random, str], Any]
    text: Callable[[Instruction, Any], Any]
    assemble: Callable[[Iterable[Any]], Mapping[Any, bytes]]
    prepare: Callable[[Machine[Any], Any, Any, bytes, str], Any]
    steps: GuestSteps
    run: Callable[[Sequence[Any], str], Sequence[Any]]
    processor: str
    left_out: Callable[[], Iterable[str]] = tuple


@attrs.frozen
class GuestReport:
    """The result of a differential test of guests.

    Attributes:
        model: the emulator's processor.
        seed: of the generator.
        cases: how many were compared.
        by_form: cases by instruction form.
        outcomes: exits by what they tell, and how many steps completed, halted or trapped in the guest.
        differences: those that nothing explains, the first in full.
        unexplained: how many there are.
        explained: cases by the deviation that explains them.
        not_modelled, outside: cases drawn again, by reason.
        seconds: of real time.
    """

    model: str
    seed: int
    cases: int
    by_form: Mapping[str, int]
    outcomes: Mapping[str, int]
    differences: tuple[Difference[Any], ...]
    unexplained: int
    explained: Mapping[str, int]
    not_modelled: Mapping[str, int]
    outside: Mapping[str, int]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "against": "bochs",
            "model": self.model,
            "seed": self.seed,
            "cases": self.cases,
            "by_form": dict(sorted(self.by_form.items())),
            "outcomes": dict(sorted(self.outcomes.items())),
            "unexplained": self.unexplained,
            "differences": [difference.to_json() for difference in self.differences],
            "explained": dict(sorted(self.explained.items())),
            "not_modelled": dict(self.not_modelled),
            "outside": dict(self.outside),
        }


def schedule(
    guests: Guests, machine: Machine[Any], cases: int, seed: int, forms: Sequence[str] | None
) -> Iterator[tuple[int, Instruction, int]]:
    """Number, form and level of each case; forms that a control governs come more often."""
    omitted = frozenset(guests.left_out()) if forms is None else frozenset()
    chosen = [i for i in chosen_forms(machine, forms) if i.form not in omitted]
    weighted = [i for i in chosen for _ in range(6 if i.mnemonic in guests.governed else 1)]
    rng = random.Random(f"{guests.series} {seed}")
    turn: list[Instruction] = []
    for number in range(cases):
        if not turn:
            turn = list(chosen) if number == 0 else list(weighted)
            rng.shuffle(turn)
        instruction = turn.pop()
        levels = PRIVILEGED_LEVELS if instruction.mnemonic in guests.governed else LEVELS
        yield number, instruction, rng.choice(levels)


def _draw(
    guests: Guests,
    machine: Machine[Any],
    jobs: Sequence[tuple[int, Instruction, int]],
    seed: int,
    model: str,
    not_modelled: Counter[str],
    outside: Counter[str],
) -> list[Any]:
    ready: dict[int, Any] = {}
    for attempt in range(_ATTEMPTS):
        drawn = []
        for number, instruction, level in jobs:
            if number not in ready:
                case = guests.draw(instruction, level, random.Random(f"{seed}:{number}:{attempt}"), model)
                drawn.append((number, case, guests.text(instruction, case)))
        if not drawn:
            break
        codes = guests.assemble(text for _, _, text in drawn)
        for number, case, text in drawn:
            if text not in codes:
                outside["no encoding"] += 1
                continue
            try:
                found = guests.prepare(machine, case, text, codes[text], model)
            except (OutsideError, StepCaseError) as error:
                words = str(error).split()
                outside[" ".join(w for w in words if not w.strip(",()").startswith("0x"))] += 1
                continue
            if isinstance(found, NotModelled):
                not_modelled[found.reason] += 1
            else:
                ready[number] = found
    return [ready[number] for number, _, _ in jobs if number in ready]


def difftest(
    guests: Guests,
    cases: int,
    seed: int = 0,
    forms: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    model: str | None = None,
    kept: int = 20,
) -> GuestReport:
    """Compare guests with the emulator on random cases; every form gets its share.

    Args:
        guests: what is compared.
        cases: how many to compare.
        seed: the same seed draws the same cases.
        forms: instruction forms or mnemonics; all by default.
        progress: called with the number of cases done, now and then.
        model: a processor of the emulator.
        kept: how many unexplained differences to report in full.

    Raises:
        UnknownNameError: no such form.
        BochsError: Bochs or nasm is missing.
    """
    started = time.monotonic()
    model = model or guests.processor
    machine = guests.steps.machine()
    jobs = list(schedule(guests, machine, cases, seed, forms))
    by_form: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    explained: Counter[str] = Counter()
    not_modelled: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    left: list[Difference[Any]] = []
    unexplained = done = 0
    for first in range(0, len(jobs), _CHUNK):
        ready = _draw(guests, machine, jobs[first : first + _CHUNK], seed, model, not_modelled, outside)
        results = guests.run([item.run for item in ready], model)
        for item, result in zip(ready, results, strict=True):
            by_form[item.case.form] += 1
            outcomes[guests.steps.end(item.predicted)] += 1
            found = guests.steps.difference(item, result)
            if found is None:
                continue
            if found.deviation is not None:
                explained[found.deviation] += 1
                continue
            unexplained += 1
            if len(left) < kept:
                left.append(found)
        done += len(ready)
        if progress is not None:
            progress(done)
    return GuestReport(
        model, seed, done, dict(by_form), dict(outcomes), tuple(left), unexplained, dict(explained),
        dict(not_modelled), dict(outside), time.monotonic() - started,
    )  # fmt: skip
