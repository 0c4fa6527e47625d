"""Compare VMX non-root operation of the models with Bochs, one instruction of a guest at a time.

A case is an instruction, VM-execution controls and a guest state (`popek.emulators.non_root.cases`).  The model
says whether it leaves the guest and with what exit information, or what the guest's state is afterwards, or which
exception the guest takes; the harness (`popek.emulators.non_root.harness`) says what Bochs did.  A difference is a bug
of the model until shown otherwise; what has been shown otherwise is listed with its evidence in
``popek_specs/ia32/bochs-deviations.toml`` and, for VMX, ``popek_specs/vtx/bochs-guest-deviations.toml``.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from popek.architectures.vtx.operation.state import VmxIa32
from popek.emulators.ia32.assembly import assemble_all, assembly_text
from popek.emulators.ia32.compare import watched
from popek.emulators.ia32.step import StepCaseError
from popek.emulators.vm_entry.harness import DEFAULT_MODEL
from popek.emulators.x86.expectation import OutsideError
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import NotModelled

from .cases import VTPR_AT, Case, random_case
from .expectation import arena_of, predict, state_of, step_of, step_run, virtual_tpr, vmx_machine
from .harness import PROTECTED, GuestResult, World, run_guests
from .observation import Difference, Ready, difference, end

LEVELS: Final = (0, 0, 0, 0, 1, 2, 3, 3)
"""The privilege levels cases are drawn from, by weight."""

GOVERNED: Final = frozenset(
    (
        *("MOV to CR", "MOV from CR", "LMSW", "CLTS", "SMSW", "MOV to DR", "MOV from DR"),
        *("HLT", "INVLPG", "INVPCID", "RDPMC", "RDTSC", "RDTSCP", "RDPID", "MWAIT", "MONITOR", "PAUSE"),
        *("WBINVD", "WBNOINVD", "RDRAND", "RDSEED", "IN", "OUT", "INS", "OUTS", "RDMSR", "WRMSR"),
        *("SGDT", "SIDT", "LGDT", "LIDT", "SLDT", "STR", "LLDT", "LTR", "XSAVES", "XRSTORS"),
        *("VMREAD", "VMWRITE", "VMFUNC"),
        *("INT3", "INTO", "INT1", "BOUND", "UD2"),
    )
)
"""Mnemonics that some control governs; they come more often, and mostly at CPL 0."""

PRIVILEGED_LEVELS: Final = (0, 0, 0, 0, 0, 0, 0, 1, 2, 3)
"""The levels of these."""

_ATTEMPTS = 30
_CHUNK = 1500


@attrs.frozen(eq=False)
class Guests:
    """A kind of guest to compare.

    Attributes:
        machine: makes the model.
        draw: a case of a form at a privilege level.
        text: what is assembled.
        assemble: the machine code of texts; one that is missing cannot be assembled.
        prepare: the case for the harness with what the model says, given the machine, the text, its code and the
            Bochs processor.
        difference: where the model and Bochs do not agree.
        end: how the model says that a step ends.
        world: what the guest finds.
        left_out: forms that are not compared.
    """

    machine: Callable[[], Machine[Any]]
    draw: Callable[[Instruction, int, random.Random], Any]
    text: Callable[[Instruction, Any], Any]
    assemble: Callable[[Iterable[Any]], Mapping[Any, bytes]]
    prepare: Callable[[Machine[Any], Any, Any, bytes, str], Any]
    difference: Callable[[Any, GuestResult], Difference | None]
    end: Callable[[Any], str]
    world: World
    left_out: Callable[[], Iterable[str]] = tuple


@attrs.frozen
class Report:
    """The result of a differential test.

    Attributes:
        model: the Bochs processor.
        seed: of the generator.
        cases: how many were compared.
        by_form: cases by instruction form.
        outcomes: exits by reason, and how many steps completed, halted or trapped in the guest.
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
    differences: tuple[Difference, ...]
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


def prepare(machine: Machine[VmxIa32], case: Case, text: str, code: bytes, model: str) -> Ready | NotModelled:
    """The case for the harness, with what the model says.

    Raises:
        OutsideError: the case leads where the harness cannot follow.
        StepCaseError: likewise.
    """
    instruction = machine.instructions[case.guest.form]
    step = step_of(case, code)
    arena = arena_of(step)
    state = state_of(case, step, arena, model)
    operands = {**case.guest.operands, "operand length": len(code)}
    predicted = predict(machine, instruction, operands, state)
    if isinstance(predicted, NotModelled):
        return predicted
    watch = watched(case.guest, step, predicted.expected)
    if virtual_tpr(state):
        watch = (*watch, (VTPR_AT, 8))
    run = step_run(case, state, arena, watch, model)
    return Ready(case, text, step, state, instruction, operands, run, predicted)


def schedule(
    machine: Machine[Any], cases: int, seed: int, forms: Sequence[str] | None, left_out: Iterable[str] = ()
) -> Iterator[tuple[int, Instruction, int]]:
    """Number, form and level of each case; forms that a control governs come more often."""
    omitted = frozenset(left_out)
    chosen = [i for i in machine.instructions.values() if i.form not in omitted]
    if forms is not None:
        chosen = list(dict.fromkeys(i for name in forms for i in machine.find(name)))
    weighted = [i for i in chosen for _ in range(6 if i.mnemonic in GOVERNED else 1)]
    rng = random.Random(f"guest {seed}")
    turn: list[Instruction] = []
    for number in range(cases):
        if not turn:
            turn = list(chosen) if number == 0 else list(weighted)
            rng.shuffle(turn)
        instruction = turn.pop()
        levels = PRIVILEGED_LEVELS if instruction.mnemonic in GOVERNED else LEVELS
        yield number, instruction, rng.choice(levels)


# Nasm knows these in 64-bit mode alone.
_BYTES: Final = {
    "rdpkru": "db 0x0f, 0x01, 0xee",
    "wrpkru": "db 0x0f, 0x01, 0xef",
    "skinit": "db 0x0f, 0x01, 0xde",
}


def _text(instruction: Instruction, case: Case) -> str:
    text = assembly_text(instruction, case.guest.operands)
    return _BYTES.get(text, text)


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
                case = guests.draw(instruction, level, random.Random(f"{seed}:{number}:{attempt}"))
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
    cases: int,
    seed: int = 0,
    forms: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    model: str = DEFAULT_MODEL,
    machine: Machine[Any] | None = None,
    kept: int = 20,
    guests: Guests | None = None,
) -> Report:
    """Compare non-root operation with Bochs on random cases; every form gets its share.

    Args:
        cases: how many to compare.
        seed: the same seed draws the same cases.
        forms: instruction forms or mnemonics; all by default.
        progress: called with the number of cases done, now and then.
        model: a Bochs processor with VMX.
        machine: the guests' by default.
        kept: how many unexplained differences to report in full.
        guests: guests in protected mode by default.

    Raises:
        UnknownNameError: no such form.
        BochsError: Bochs or nasm is missing.
    """
    started = time.monotonic()
    guests = guests or GUESTS
    machine = machine or guests.machine()
    jobs = list(schedule(machine, cases, seed, forms, guests.left_out()))
    by_form: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    explained: Counter[str] = Counter()
    not_modelled: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    left: list[Difference] = []
    unexplained = done = 0
    for first in range(0, len(jobs), _CHUNK):
        ready = _draw(guests, machine, jobs[first : first + _CHUNK], seed, model, not_modelled, outside)
        results = run_guests([item.run for item in ready], model=model, world=guests.world)
        for item, result in zip(ready, results, strict=True):
            by_form[item.case.guest.form] += 1
            outcomes[guests.end(item.predicted)] += 1
            found = guests.difference(item, result)
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
    return Report(
        model, seed, done, dict(by_form), dict(outcomes), tuple(left), unexplained, dict(explained),
        dict(not_modelled), dict(outside), time.monotonic() - started,
    )  # fmt: skip


def compare(cases: Iterable[Case], *, model: str = DEFAULT_MODEL) -> list[Difference | None]:
    """Run given cases; None where the model and Bochs agree.

    Raises:
        OutsideError: a case leads where the harness cannot follow, or the model does not model it.
    """
    machine = vmx_machine()
    items = list(cases)
    texts = [_text(machine.instructions[case.guest.form], case) for case in items]
    codes = assemble_all(texts)
    ready = []
    for case, text in zip(items, texts, strict=True):
        found = prepare(machine, case, text, codes[text], model)
        if isinstance(found, NotModelled):
            raise OutsideError(f"not modelled: {found.reason}")
        ready.append(found)
    results = run_guests([item.run for item in ready], model=model)
    return [difference(item, result) for item, result in zip(ready, results, strict=True)]


GUESTS: Final = Guests(vmx_machine, random_case, _text, assemble_all, prepare, difference, end, PROTECTED)
"""Guests in protected, real-address and virtual-8086 mode."""
