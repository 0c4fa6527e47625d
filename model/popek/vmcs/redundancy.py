"""Questions about a set of VM-entry checks: can all pass, can each fail alone, and which shadow it if not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from popek.architectures.vtx.baselines import MODES, baseline, has_mode
from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.entry_checks import CHECKS, Check
from popek.architectures.vtx.evaluation import Evaluator
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.formulas import Formulas, memory_of
from popek.architectures.vtx.vmcs import Launch, Vmcs
from popek.kernel.words import Word
from popek.solving.solver import Effort, Model

from .standing import Answers, standing

LAUNCH: Final = Launch(current_vmcs=0x1_1000, vmxon_pointer=0x1_2000, x2apic=False)
"""Where the questions are asked: VMLAUNCH in VMX root operation, 64-bit mode, outside SMM."""


def ask(
    capabilities: Capabilities, rules: Iterable[Check] | None = None, effort: Effort | None = None
) -> Answers:
    """Ask Z3 about a rule set, with every field free.

    Args:
        capabilities: of the processor.
        rules: the checks; by default all. Checks that only warn are left out.
        effort: bounds, for each check.
    """
    rules = [check for check in rules or CHECKS.values() if check.certainty != "warning"]
    asked = [check for check in rules if check.group.name not in ("basic", "msr-load-area")]
    free = [name for name, field in FIELDS.items() if field.area != "exit-information"]
    formulas = Formulas(Vmcs(launch=LAUNCH), capabilities, free, area=True)
    evaluator = Evaluator(capabilities, rules)
    violations: dict[str, Word] = {}
    holds: dict[str, Word] = {}
    for check in asked:
        violated, doubtful = formulas.violation(check), formulas.violation(check, doubt=True)
        if violated is not None and doubtful is not None:
            violations[check.id], holds[check.id] = violated, ~doubtful

    def broken(model: Model) -> set[str]:
        findings = evaluator.run(_read(formulas, asked, model))
        return {item.id for item in (*findings.violated, *findings.doubtful)}

    effort = effort or Effort(rlimit=10_000_000)
    found = standing([check.id for check in asked], violations, holds, broken, effort)
    return Answers(
        capabilities.name,
        {
            mode: not evaluator.run(baseline(mode, capabilities)).violated
            for mode in MODES
            if has_mode(mode, capabilities)
        },
        found.alone,
        found.never,
        found.shadowed,
        found.unknown,
        tuple(check.id for check in rules if check not in asked),
    )


def _read(formulas: Formulas, checks: Iterable[Check], model: Model) -> Vmcs:
    """The VMCS of a model."""
    fields = {name: model(word.term) for name, word in formulas.symbols.items()}
    reads = [read for check in checks for read in formulas.reads(check)]
    return Vmcs(fields=fields, memory=memory_of(reads, model), launch=LAUNCH)
