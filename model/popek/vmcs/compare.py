"""Two rule sets for VM entry: equivalent, or here is a VMCS that they treat differently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from popek.architectures.vtx.baselines import MODES, baseline, has_mode
from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.entry_checks import CHECKS, Check, Outcome
from popek.architectures.vtx.evaluation import Evaluator
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.formulas import Formulas, memory_of
from popek.architectures.vtx.verdict import decide
from popek.architectures.vtx.vmcs import Vmcs
from popek.kernel.words import FALSE, TRUE, Word, any_of
from popek.solving.optimize import cheapest
from popek.solving.solver import Answer, Effort, Model, Solver

from .redundancy import LAUNCH

_Key = tuple[int, Outcome, str]


@attrs.frozen
class Comparison:
    """How two rule sets differ on one processor.

    Attributes:
        answer: UNSAT: they are equivalent; SAT: see `separating`; UNKNOWN: not settled.
        processor: its name.
        separating: a VMCS that they treat differently, as few bits away from one that enters as can be.
        changes: what differs from the VMCS that enters: before and after.
        first: what the first makes of it.
        second: what the second makes of it.
        beyond: checks that differ and are not compared: those of the instruction, of MSR-load entries, and
            those that need what is not known of the processor.
    """

    answer: Answer
    processor: str
    separating: Vmcs | None = None
    changes: Mapping[str, tuple[int, int]] = attrs.field(factory=dict)
    first: str = ""
    second: str = ""
    beyond: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The comparison as `popek vmcs compare --json` prints it."""
        answer: dict[str, Any] = {
            "schema": "popek/vmcs-rule-comparison/1",
            "processor": self.processor,
            "equivalent": {"unsat": True, "sat": False}.get(self.answer.value),
            "not_compared": list(self.beyond),
        }
        if self.separating is not None:
            answer |= {
                "ours": self.first,
                "other": self.second,
                "changes": [
                    {"field": name, "from": hex(before), "to": hex(after)}
                    for name, (before, after) in self.changes.items()
                ],
                "fields": {name: hex(value) for name, value in self.separating.fields.items()},
                "memory": [[hex(a), size, hex(value)] for a, size, value in self.separating.memory],
            }
        return answer


def compare_rules(
    other: Mapping[str, Check],
    capabilities: Capabilities,
    ours: Mapping[str, Check] = CHECKS,
    effort: Effort | None = None,
) -> Comparison:
    """Compare a rule set with ours, with every field free.

    They are equivalent if the same VMCSs enter, and the others fail with the same outcomes; checks that only
    some processors have count with those that all have. The separating VMCS is replayed on integers.
    """
    effort = effort or Effort(rlimit=100_000_000)
    differing = [name for name in dict.fromkeys([*ours, *other]) if ours.get(name) is not other.get(name)]
    free = [name for name, field in FIELDS.items() if field.area != "exit-information"]
    formulas = Formulas(Vmcs(launch=LAUNCH), capabilities, free, area=True)
    beyond = tuple(
        name
        for name in differing
        if any(_beyond(formulas, rules[name]) for rules in (ours, other) if name in rules)
    )
    sets = [[check for check in rules.values() if _counts(check)] for rules in (ours, other)]
    answer = Answer.UNSAT
    for question in (_acceptance(formulas, sets), _outcomes(formulas, sets)):
        if question.value == 0:
            continue
        solver = Solver(effort)
        solver.add(question)
        match solver.check():
            case Answer.UNKNOWN:
                answer = Answer.UNKNOWN
            case Answer.SAT:
                found = _separating(formulas, question, capabilities, sets, effort)
                if found is not None:
                    return attrs.evolve(found, beyond=beyond)
                answer = Answer.UNKNOWN
    if beyond and answer is Answer.UNSAT:
        answer = Answer.UNKNOWN
    return Comparison(answer, capabilities.name, beyond=beyond)


def _beyond(formulas: Formulas, check: Check) -> bool:
    """Whether a check that differs cannot be compared."""
    return check.certainty != "warning" and (not _counts(check) or formulas.violation(check) is None)


def _counts(check: Check) -> bool:
    return check.certainty != "warning" and check.group.name not in ("basic", "msr-load-area")


def _violated(formulas: Formulas, checks: Iterable[Check]) -> dict[_Key, Word]:
    """Where some check of each stage, outcome and certainty is violated."""
    found: dict[_Key, Word] = {}
    for check in checks:
        violated = formulas.violation(check)
        if violated is not None:
            key = check.group.stage, check.outcome, check.certainty
            found[key] = found.get(key, FALSE) | violated
    return found


def _acceptance(formulas: Formulas, sets: Iterable[Iterable[Check]]) -> Word:
    """Where one set lets the entry succeed and the other does not."""
    first, second = (
        any_of(word for (_, _, certainty), word in _violated(formulas, checks).items() if certainty == "must")
        for checks in sets
    )
    return first ^ second


def _outcomes(formulas: Formulas, sets: Iterable[Iterable[Check]]) -> Word:
    """Where the outcomes differ that the first failing stage admits."""
    tables = [_violated(formulas, checks) for checks in sets]
    reached = [_reached(table) for table in tables]
    return any_of(
        (tables[0].get(key, FALSE) & reached[0][key[0]]) ^ (tables[1].get(key, FALSE) & reached[1][key[0]])
        for key in dict.fromkeys([*tables[0], *tables[1]])
    )


def _reached(table: Mapping[_Key, Word]) -> dict[int, Word]:
    """By stage, where no earlier stage fails for certain."""
    found: dict[int, Word] = {}
    passed: Word = TRUE
    for stage in range(4):
        found[stage] = passed
        for (at, _, certainty), violated in table.items():
            if at == stage and certainty == "must":
                passed = passed & ~violated
    return found


def _separating(
    formulas: Formulas,
    question: Word,
    capabilities: Capabilities,
    sets: list[list[Check]],
    effort: Effort,
) -> Comparison | None:
    """A VMCS that answers the question, replayed; the nearest to a baseline of the first mode that has one."""
    for mode in (mode for mode in MODES if has_mode(mode, capabilities)):
        base = baseline(mode, capabilities).fields
        wishes = [
            (word[number] == (base.get(name, 0) >> number & 1), 1)
            for name, word in formulas.symbols.items()
            for number in range(FIELDS[name].width)
        ]
        found = cheapest([question], wishes, effort)
        if found.model is None:
            continue
        shown = _replayed(formulas, found.model, capabilities, sets, base)
        if shown is not None:
            return shown
    return None


def _replayed(
    formulas: Formulas,
    model: Model,
    capabilities: Capabilities,
    sets: list[list[Check]],
    base: Mapping[str, int],
) -> Comparison | None:
    fields = {name: model(word.term) for name, word in formulas.symbols.items()}
    reads = [read for checks in sets for check in checks for read in formulas.reads(check)]
    vmcs = Vmcs(name="separating", fields=fields, memory=memory_of(reads, model), launch=LAUNCH)
    first, second = (_ends(Evaluator(capabilities, checks), vmcs) for checks in sets)
    if first == second:
        return None
    changes = {
        name: (base.get(name, 0), fields[name])
        for name in FIELDS
        if name in fields and fields[name] != base.get(name, 0)
    }
    return Comparison(Answer.SAT, capabilities.name, vmcs, changes, first, second)


def _ends(evaluator: Evaluator, vmcs: Vmcs) -> str:
    """How an entry ends by a rule set, in words."""
    view = evaluator.look(vmcs)
    findings = evaluator.run(vmcs, view)
    outcome, admissible = decide(findings, view)
    failed = ", ".join(check.id for check in findings.violated if check.certainty == "must")
    words = " or ".join(dict.fromkeys(_words(item) for item in (outcome, *admissible)))
    return f"{words} ({failed})" if failed else words


def _words(outcome: Outcome) -> str:
    if outcome.kind == "vmfail-valid":
        return f"VMfailValid {', '.join(map(str, outcome.errors))}"
    if outcome.kind == "entry-failure":
        return f"entry failure {outcome.reason}, qualification {outcome.qualification}"
    return outcome.kind
