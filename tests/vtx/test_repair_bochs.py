"""Every repair of a mutated VMCS enters on Bochs, where the processor is one of Bochs' models."""

from __future__ import annotations

import random

import pytest

from popek.architectures.vtx.verdict import judge
from popek.emulators.vm_entry.compare import (
    HANDS_OFF,
    VmEntryCase,
    case_of,
    modes,
    outcome_of,
    preset,
    random_case,
    vmcs_of,
)
from popek.emulators.vm_entry.harness import run_cases
from popek.vmcs.repair import repair

pytestmark = pytest.mark.emulator

CASES = 15


@pytest.mark.parametrize("model", ["tigerlake", "corei7_haswell_4770"])
def test_repairs_enter(model: str) -> None:
    rnd = random.Random(f"repairs on {model}")
    repaired: list[VmEntryCase] = []
    before: list[VmEntryCase] = []
    while len(repaired) < CASES:
        case = random_case(rnd, rnd.choice(modes(model)), model)
        vmcs = vmcs_of(case, model)
        verdict = judge(vmcs, preset(model))
        if verdict.outcome.kind in ("enters", "undecided"):
            continue
        found = repair(vmcs, preset(model), keep=HANDS_OFF)
        assert found.after is not None, (case, found.reason)
        assert found.after.outcome.kind == "enters"
        changes = {change.field: change.after for change in found.changes}
        before.append(case)
        repaired.append(VmEntryCase(case.mode, {**case.changes, **changes}))
    for case, result in zip(repaired, run_cases(map(case_of, repaired), model=model), strict=True):
        outcome = outcome_of(result)
        assert outcome is not None
        assert outcome.kind == "enters", (case, result)
    refused = [outcome_of(result) for result in run_cases(map(case_of, before), model=model)]
    assert sum(outcome is not None and outcome.kind != "enters" for outcome in refused) > CASES // 2
