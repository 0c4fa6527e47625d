"""Questions about a set of VM-entry checks: can all pass, can each fail alone, and which shadow it if not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from popek.architectures.vtx.baselines import MODES, baseline, has_mode
from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.entry_checks import CHECKS, Check
from popek.architectures.vtx.evaluation import Evaluator
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.formulas import Formulas, memory_of
from popek.architectures.vtx.vmcs import Launch, Vmcs
from popek.kernel.words import Word
from popek.solving.optimize import Choices
from popek.solving.solver import Answer, Effort, Model

LAUNCH: Final = Launch(current_vmcs=0x1_1000, vmxon_pointer=0x1_2000, x2apic=False)
"""Where the questions are asked: VMLAUNCH in VMX root operation, 64-bit mode, outside SMM."""


@attrs.frozen
class Answers:
    """What a rule set can do on one processor.

    Attributes:
        processor: its name.
        modes: whether all checks can pass, by guest mode; modes that the processor lacks are left out.
        alone: checks that a VMCS violates while it passes all others; each was replayed on integers.
        never: checks that no VMCS violates on this processor.
        shadowed: checks that are never violated alone, and the fewest others that see to that.
        unknown: checks that were not settled.
        outside: checks of the instruction and of MSR-load entries, which are no matter of fields.
    """

    processor: str
    modes: Mapping[str, bool]
    alone: tuple[str, ...]
    never: tuple[str, ...]
    shadowed: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]
    outside: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The answers as `popek vmcs rules --json` prints them."""
        return {
            "schema": "popek/vmcs-rules/1",
            "processor": self.processor,
            "satisfiable": dict(self.modes),
            "alone": list(self.alone),
            "never_violated": list(self.never),
            "shadowed": {name: list(others) for name, others in self.shadowed.items()},
            "unknown": list(self.unknown),
            "not_about_fields": list(self.outside),
        }


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
    conditions: dict[str, Word] = {}
    for check in asked:
        violated, doubtful = formulas.violation(check), formulas.violation(check, doubt=True)
        if violated is not None and doubtful is not None:
            conditions[f"-{check.id}"], conditions[check.id] = violated, ~doubtful
    choices = Choices(conditions, effort or Effort(rlimit=10_000_000))
    alone: list[str] = []
    never: list[str] = []
    unknown: list[str] = []
    shadowed: dict[str, tuple[str, ...]] = {}
    for check in asked:
        if check.id not in conditions:
            unknown.append(check.id)
            continue
        others = [other.id for other in asked if other is not check and other.id in conditions]
        match choices.check([f"-{check.id}", *others]):
            case Answer.SAT:
                found = _read(formulas, asked, choices.model())
                findings = evaluator.run(found)
                broken = {item.id for item in (*findings.violated, *findings.doubtful)}
                (alone if broken == {check.id} else unknown).append(check.id)
            case Answer.UNSAT:
                core = choices.core([f"-{check.id}", *others]) or ()
                by = tuple(name for name in core if name != f"-{check.id}")
                if by:
                    shadowed[check.id] = by
                else:
                    never.append(check.id)
            case Answer.UNKNOWN:
                unknown.append(check.id)
    return Answers(
        capabilities.name,
        {
            mode: not evaluator.run(baseline(mode, capabilities)).violated
            for mode in MODES
            if has_mode(mode, capabilities)
        },
        tuple(alone),
        tuple(never),
        shadowed,
        tuple(unknown),
        tuple(check.id for check in rules if check not in asked),
    )


def _read(formulas: Formulas, checks: Iterable[Check], model: Model) -> Vmcs:
    """The VMCS of a model."""
    fields = {name: model(word.term) for name, word in formulas.symbols.items()}
    reads = [read for check in checks for read in formulas.reads(check)]
    return Vmcs(fields=fields, memory=memory_of(reads, model), launch=LAUNCH)
