"""`popek difftest svm`: thousands of VMRUNs on Bochs, each compared with what the checks say."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .errors import UserError

if TYPE_CHECKING:
    from popek.emulators.svm_compare import Compared

_SHOWN = 20


def difftest_svm(
    *,
    cases: Annotated[int, Parameter(help="How many VMCBs to try.")] = 2000,
    seed: Annotated[int, Parameter(help="Another seed gives other VMCBs.")] = 1,
    model: Annotated[str, Parameter(help="A Bochs CPU model with SVM.")] = "ryzen",
    json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")] = False,
) -> int:
    """Try VMRUN on the Bochs emulator and compare whether it enters the guest with the checks.

    Exit code: 0 nothing is left to explain, 1 something is, 2 bad input or no Bochs.
    """
    from popek.emulators.bochs import BochsError
    from popek.emulators.svm_compare import compare, make_cases, unexplained
    from popek.emulators.svm_vmrun import MODELS

    if cases < 1:
        raise UserError(f"--cases {cases}: expected a number above 0")
    if model not in MODELS:
        raise UserError(f"--model {model}: expected one of {', '.join(sorted(MODELS))}")
    try:
        done = compare(make_cases(cases, seed, model), model)
    except BochsError as error:
        raise UserError(str(error)) from None
    left = unexplained(done)
    answer = _summary(done, left, model, seed)
    if json:
        import json as codec

        sys.stdout.write(codec.dumps(answer, sort_keys=True, indent=1) + "\n")
    else:
        _print(answer)
    return 1 if left else 0


def _summary(done: list[Compared], left: list[Compared], model: str, seed: int) -> dict[str, Any]:
    from popek.architectures.svm.bochs import deviations
    from popek.emulators.svm_vmrun import processor

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


def _origin(item: Compared) -> str:
    if item.case.origin == "random":
        return "random bits"
    return "two checks" if " and " in item.case.origin else "one check"


def _print(answer: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{answer['cases']} VMRUNs on Bochs model {answer['model']}, seed {answer['seed']}")
    for what in ("outcomes", "modes", "origins"):
        shown = ", ".join(f"{count} {kind}" for kind, count in sorted(answer[what].items()))
        console.print(f"{what}: {shown}")
    console.print(f"checks violated at least once: {len(answer['checks_violated'])}")
    console.print(f"listed deviations of Bochs taken into account: {len(answer['deviations'])}")
    left = answer["unexplained"]
    console.print(f"unexplained: {len(left)}", style="bold green" if not left else "bold red")
    for item in left[:_SHOWN]:
        console.print(f"  {item['mode']}, {item['origin']}: {item['changes']}", soft_wrap=True)
        console.print(f"    Bochs: {item['bochs']}; checks: {', '.join(item['admissible'])}", soft_wrap=True)
    if len(left) > _SHOWN:
        console.print(f"  and {len(left) - _SHOWN} more; --json prints all")
