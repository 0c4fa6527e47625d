"""`popek difftest vmrun`: thousands of VMRUNs on Bochs, each compared with what the checks say."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .difftest_running import assert_known, on_emulator, print_entries
from .options import AsJson

if TYPE_CHECKING:
    from popek.emulators.vmrun.compare import ComparedVmrun


def difftest_vmrun(
    *,
    cases: Annotated[int, Parameter(help="How many VMCBs to try.")] = 2000,
    seed: Annotated[int, Parameter(help="Another seed gives other VMCBs.")] = 1,
    model: Annotated[str, Parameter(help="A Bochs CPU model with SVM.")] = "ryzen",
    json: AsJson = False,
) -> int:
    """Try VMRUN on the Bochs emulator and compare whether it enters the guest with the checks.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no Bochs.
    """
    from popek.emulators.vmrun.compare import compare, make_cases, unexplained
    from popek.emulators.vmrun.harness import MODELS

    assert_known(cases, model, MODELS)
    done = on_emulator(lambda show: compare(make_cases(cases, seed, model), model, show))
    return print_entries(_summary(done, unexplained(done), model, seed), "VMRUNs", json)


def _summary(done: list[ComparedVmrun], left: list[ComparedVmrun], model: str, seed: int) -> dict[str, Any]:
    from popek.architectures.svm.bochs import deviations
    from popek.emulators.vmrun.harness import processor

    return {
        "schema": "popek/svm-difftest/1",
        "model": model,
        "seed": seed,
        "cases": len(done),
        "modes": dict(Counter(item.case.run.mode for item in done)),
        "origins": dict(Counter(_origin(item) for item in done)),
        "outcomes": dict(Counter(item.outcome for item in done)),
        "checks_violated": sorted({name for item in done for name in item.violated}),
        "deviations": [item.id for item in deviations() if item.applies(processor(model))],
        "unexplained": [
            {
                "mode": item.case.run.mode,
                "nested_paging": item.case.run.nested,
                "host_paging": item.case.run.host_paging,
                "origin": item.case.origin,
                "changes": {name: hex(value) for name, value in item.case.run.fields.items()},
                "memory": {hex(address): data.hex() for address, data in item.case.run.memory},
                "bochs": item.outcome,
                "admissible": list(item.admissible),
                "failed": [failure.id for failure in item.verdict.failed],
            }
            for item in left
        ],
    }


def _origin(item: ComparedVmrun) -> str:
    if item.case.origin == "random":
        return "random bits"
    return "two checks" if " and " in item.case.origin else "one check"
