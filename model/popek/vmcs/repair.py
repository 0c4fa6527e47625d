"""The smallest repair of a VMCS that does not enter, or the checks that make one impossible.

A repair changes the fewest bits; among those it prefers to change what a failed check is about rather than
the controls that make the check apply, and to leave controls as hypervisors have them.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import attrs

from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.dumps.processors import ReportedProcessor, judge_any
from popek.architectures.vtx.entry_checks import CHECKS, Check
from popek.architectures.vtx.evaluation import Evaluator, reads, subjects
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.formulas import Formulas
from popek.architectures.vtx.verdict import VmEntryVerdict, judge, reported_outcome
from popek.architectures.vtx.vmcs import Vmcs
from popek.kernel.words import Word, all_of
from popek.solving.solver import Answer, Effort
from popek_specs.vtx import rows

from .edits import BIT, Edits, Reason, Repair, changes_between

_GATE, _ELSEWHERE, _AGAINST_PRACTICE = 4, 8, 5
_GIVEN_UP = 500
"""More than what other fields are taken to be may cost."""
_MOST_ENTRIES: Final = 64
_LINK: Final = "VMCS_LINK_POINTER"
_UNUSABLE: Final = 16  # of access rights
_LIKELY: Final = {_LINK: (1 << 64) - 1}  # of missing fields; the others are likely 0


def repair(
    vmcs: Vmcs,
    capabilities: Capabilities = UNKNOWN,
    *,
    keep: Collection[str] = (),
    effort: Effort | None = None,
) -> Repair:
    """The smallest repair of a VMCS.

    Args:
        vmcs: to be repaired.
        capabilities: of the processor; what is unknown is taken to be as on a processor without relaxations.
        keep: ids of fields that must not change.
        effort: bounds on Z3.
    """
    judgement = judge_any(vmcs, ReportedProcessor(capabilities))
    verdict, capabilities = judgement.verdict, judgement.processor.sure
    plain = judgement.processor.plain.known
    likely = judge(vmcs, plain)
    guessing = any(_lacks_processor(item.missing) for item in verdict.undecided)
    if not likely.failed and not verdict.failed:
        report = reported_outcome(vmcs)
        failed = report is not None and report.kind != "enters"
        return Repair(verdict, Answer.SAT, after=verdict, plain_processor=guessing, unexplained=failed)
    effort = effort or Effort(rlimit=200_000_000)
    best: tuple[int, Vmcs, Vmcs] | None = None
    answer = Answer.UNSAT
    for count, cost in _entry_counts(vmcs, keep):
        if best is not None and best[0] <= cost:
            break
        start = vmcs if count is None else vmcs.with_fields(ENTRY_MSR_LOAD_COUNT=count)
        problem = _Problem(vmcs, start, plain, keep)
        found = problem.solve(effort)
        if isinstance(found, Answer):
            answer = Answer.UNKNOWN if found is Answer.UNKNOWN else answer
            continue
        total = cost + found[0]
        if best is None or total < best[0]:
            best = total, found[1], found[2]
    if best is None:
        if answer is Answer.UNKNOWN:
            return Repair(verdict, answer, plain_processor=guessing)
        reason = _Problem(vmcs, vmcs, plain, keep).reason(effort)
        return Repair(verdict, answer, reason=reason, plain_processor=guessing)
    _, changed, complete = best
    return _checked(verdict, vmcs, changed, complete, capabilities, guessing)


def _lacks_processor(missing: Iterable[str]) -> bool:
    return any(what not in FIELDS and not what.startswith("memory") for what in missing)


def _checked(
    verdict: VmEntryVerdict, vmcs: Vmcs, changed: Vmcs, complete: Vmcs, known: Capabilities, guessing: bool
) -> Repair:
    """Judge the repaired VMCS on integers; give it those missing fields that are needed."""
    after = judge(changed, known)
    needed = {name for item in after.undecided for name in item.missing if name in FIELDS}
    assumed = {name: complete.fields[name] for name in FIELDS if name in needed and name in complete.fields}
    if assumed:
        after = judge(changed.with_fields(**assumed), known)
    if after.failed:
        names = ", ".join(item.id for item in after.failed)
        raise RuntimeError(f"a repair of {vmcs.name or 'a VMCS'} does not pass {names} on integers")
    before = {name: value for name in FIELDS if (value := vmcs.get(name)) is not None}
    changes = changes_between(before, changed.fields, FIELDS)
    return Repair(verdict, Answer.SAT, changes, assumed, after, plain_processor=guessing)


def _entry_counts(vmcs: Vmcs, keep: Collection[str]) -> list[tuple[int | None, int]]:
    """Numbers of MSR-load entries to try, with the bits that change; the present one (None) first."""
    count = vmcs.get("ENTRY_MSR_LOAD_COUNT")
    if not count or "ENTRY_MSR_LOAD_COUNT" in keep:
        return [(None, 0)]
    fewer = {*range(min(count, _MOST_ENTRIES)), *(count & ~(1 << number) for number in range(32))} - {count}
    tries = sorted(fewer, key=lambda other: ((other ^ count).bit_count(), count - other))
    return [(None, 0), *((other, (other ^ count).bit_count()) for other in tries)]


class _Problem:
    """What must hold of the repaired VMCS, over symbols."""

    def __init__(
        self, original: Vmcs, start: Vmcs, capabilities: Capabilities, keep: Collection[str]
    ) -> None:
        self.start, self.keep = start, keep
        free = [name for name, field in FIELDS.items() if field.area != "exit-information"]
        known = attrs.evolve(
            start, fields={name: value for name in FIELDS if (value := start.get(name)) is not None}
        )
        self.known = known.fields
        self.formulas = Formulas(known, capabilities, free)
        findings = Evaluator(capabilities).run(original)
        self.failed = [check for check in findings.violated if check.certainty == "must"]
        unknown = {check.id for check, _ in findings.undecided}
        passed = {*CHECKS} - unknown - {check.id for check in (*findings.violated, *findings.doubtful)}
        self.rules: dict[str, Word] = {}
        for check in CHECKS.values():
            holds = self._rule(check, check.id in unknown, check.id in passed)
            if holds is not None:
                self.rules[check.id] = holds

    def _rule(self, check: Check, unknown: bool, passed: bool) -> Word | None:
        if check.certainty == "warning" or (check.certainty == "may" and not passed):
            return None
        # Memory that nobody described could not be judged before, and cannot be now. But a VMCS link pointer
        # that is wrong anyway becomes none at all, as hypervisors have it, not a page that nobody knows.
        relinked = _LINK in subjects(check) and any(_LINK in subjects(item) for item in self.failed)
        if unknown and not relinked and (violated := self.formulas.violation(check)) is not None:
            return ~(violated & all_of(read.known for read in self.formulas.reads(check)))
        violated = self.formulas.worst(check)
        return None if violated is None else ~violated

    @property
    def _edits(self) -> Edits:
        symbols = self.formulas.symbols
        widths = {name: FIELDS[name].width for name in symbols}
        return Edits(symbols, widths, self.known, self.rules, self.keep, self._weight, _LIKELY)

    def solve(self, effort: Effort) -> tuple[int, Vmcs, Vmcs] | Answer:
        """The bits that change, the VMCS with the changes, and one with its missing fields filled in."""
        found = self._edits.solve(effort)
        if isinstance(found, Answer):
            return found
        given = {name: found.changed[name] for name in self.known if self.known[name] != found.changed[name]}
        changed = attrs.evolve(self.start, fields={**self.start.fields, **given})
        return found.bits, changed, changed.with_fields(**found.missing)

    def _weight(self, name: str, number: int, value: int) -> int:
        weight = BIT
        if not any(name in subjects(check) for check in self.failed):
            weight += _GATE if any(name in reads(check) for check in self.failed) else _ELSEWHERE
        required, used = _practice().get((name, number), (False, True))
        if (value >> number & 1 and required) or not (value >> number & 1 or used):
            weight += _AGAINST_PRACTICE
        if name.endswith("_ACCESS_RIGHTS") and number == _UNUSABLE and not value >> number & 1:
            weight += _GIVEN_UP  # that mends whatever is wrong with a segment, and is seldom meant
        if name == "VPID":
            weight += number  # a small number is as good as any
        return weight

    def reason(self, effort: Effort) -> Reason:
        """Why there is no solution."""
        return self._edits.reason(effort)


@functools.cache
def _practice() -> Mapping[tuple[str, int], tuple[bool, bool]]:
    """Control bits: whether most hypervisors require them, and whether some uses them."""
    fields = {(row["control"], row["bit"]): row["field"] for row in rows("controls.csv")}
    found = {(field, int(bit)): (False, False) for (_, bit), field in fields.items()}
    for row in rows("hypervisor-controls.csv"):
        required, used = len(row["required_by"].split()), len(row["used_by"].split())
        found[fields[row["control"], row["bit"]], int(row["bit"])] = (2 * required > used, used > 0)
    return found


__all__ = ["Repair", "repair"]
