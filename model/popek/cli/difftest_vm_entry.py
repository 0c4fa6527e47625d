"""`popek difftest vm-entry`: thousands of VM entries on Bochs, each compared with what the checks say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .difftest_running import assert_known, on_emulator, print_entries
from .options import AsJson

if TYPE_CHECKING:
    from popek.architectures.vtx.entry_checks import Outcome
    from popek.emulators.vm_entry.compare import ComparedEntry, VmEntryCase


def difftest_vm_entry(
    *,
    cases: Annotated[int, Parameter(help="How many VMCSs to try.")] = 2000,
    seed: Annotated[int, Parameter(help="Another seed gives other VMCSs.")] = 1,
    model: Annotated[str, Parameter(help="A Bochs CPU model with VMX.")] = "tigerlake",
    msr_areas: Annotated[
        bool, Parameter(help="Every VMCS loads MSRs, of all that the manual lists.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Try VM entries on the Bochs emulator and compare outcome and exit qualification with the checks.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no Bochs.
    """
    from popek.emulators.vm_entry.compare import compare, unexplained

    assert_known(cases, model.replace("_", "-"), _models())
    made = make_area_cases if msr_areas else make_cases
    done = on_emulator(lambda show: compare(made(cases, seed, model), model, show))
    return print_entries(_summary(done, unexplained(done), model, seed), "VM entries", json)


def make_cases(count: int, seed: int, model: str = "tigerlake") -> list[VmEntryCase]:
    """Cases in all guest modes that the model has; the same seed gives the same cases.

    A quarter comes from the generator, around the checks; the others are baselines with one or two fields
    changed, or with MSRs to load.
    """
    import itertools
    import random

    from popek.emulators.vm_entry.compare import (
        HANDS_OFF,
        VmEntryCase,
        base_vmcs,
        modes,
        predictable,
        preset,
        random_area_case,
        random_case,
    )
    from popek.vmcs.cases import around_checks

    rnd = random.Random(f"vm entry {seed}")
    known = modes(model)
    bases = {mode: base_vmcs(mode, model) for mode in known}
    edges = around_checks(bases, preset(model), rnd, HANDS_OFF)
    around = (VmEntryCase(item.mode, item.changes, item.origin) for item in edges)
    made = list(itertools.islice((case for case in around if predictable(case, model)), count // 4))
    while len(made) < count:
        area = rnd.random() < _AREAS
        case = (
            random_area_case(rnd, rnd.choice(known)) if area else random_case(rnd, rnd.choice(known), model)
        )
        if predictable(case, model):
            made.append(case)
    return made


def make_area_cases(count: int, seed: int, model: str = "tigerlake") -> list[VmEntryCase]:
    """Baselines in all guest modes that the model has, with MSRs to load; the checks decide each."""
    import random

    from popek.emulators.vm_entry.compare import modes, predictable, random_area_case

    rnd = random.Random(f"msr areas {seed}")
    known = modes(model)
    made: list[VmEntryCase] = []
    while len(made) < count:
        case = random_area_case(rnd, rnd.choice(known), every=True)
        if predictable(case, model):
            made.append(case)
    return made


_AREAS = 0.15
"""How many of the random cases load MSRs."""


def _models() -> list[str]:
    from popek.architectures.vtx.capability_files import presets

    return [name.removeprefix("bochs-") for name in presets() if name.startswith("bochs-")]


def _summary(done: list[ComparedEntry], left: list[ComparedEntry], model: str, seed: int) -> dict[str, Any]:
    from collections import Counter

    from popek.architectures.vtx.bochs import deviations
    from popek.emulators.vm_entry.compare import preset

    kinds = Counter("none" if item.outcome is None else item.outcome.kind for item in done)
    origins = Counter("generator" if item.case.origin != "random" else "random mutation" for item in done)
    return {
        "schema": "popek/vmx-difftest/1",
        "model": model,
        "seed": seed,
        "cases": len(done),
        "modes": dict(Counter(item.case.mode for item in done)),
        "origins": dict(origins),
        "outcomes": dict(kinds),
        "checks_violated": sorted({name for item in done for name in item.violated}),
        "deviations": [item.id for item in deviations() if item.applies(preset(model))],
        "unexplained": [
            {
                "mode": item.case.mode,
                "origin": item.case.origin,
                "changes": {name: hex(value) for name, value in item.case.changes.items()},
                "loads": [[hex(part) for part in entry] for entry in item.case.loads],
                "bochs": _outcome(item.outcome) or item.result.kind,
                "admissible": [_outcome(outcome) for outcome in item.admissible],
                "violated": list(item.violated),
            }
            for item in left
        ],
    }


def _outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    details = [*outcome.errors, outcome.reason, outcome.qualification]
    return " ".join([outcome.kind, *(str(detail) for detail in details if detail is not None)])
