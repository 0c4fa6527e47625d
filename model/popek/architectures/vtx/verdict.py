"""The verdict on a VMCS: what VMLAUNCH would do, because of which checks, and what could not be decided."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any, Literal

import attrs

from popek.architectures.vtx.entry_checks.registry import ENTERS, UNDECIDED

from .capabilities import UNKNOWN, Capabilities
from .capability_limits import WIDTHS
from .compilation import Lacking
from .entry_checks import Check, Outcome
from .evaluation import Evaluator, Findings, missing, order, subjects
from .fields import FIELDS
from .identity import by_identity
from .view import View
from .vmcs import MissingField, Vmcs

Answer = Literal["yes", "no", "unknown"]


@attrs.frozen
class Failure:
    """A check that fails, with the values that make it fail."""

    id: str
    fields: Mapping[str, int]
    message: str
    section: str
    gate: tuple[str, ...]


@attrs.frozen
class Undecided:
    """A check that lacks inputs: field ids, or words for a capability or a place in memory."""

    id: str
    missing: tuple[str, ...]


@attrs.frozen
class Suspect:
    """A check whose violation does not fail the entry on every processor."""

    id: str
    fields: Mapping[str, int]
    message: str


@attrs.frozen
class Verdict:
    """What becomes of a VM entry.

    Attributes:
        name: of the VMCS.
        outcome: what happens; where the manual leaves an order open, the first of `admissible`, with all
            admissible errors.
        admissible: every outcome that the manual allows, and those that only some processors show.
        failed: the checks that fail.
        undecided: the checks that lack inputs.
        warnings: the checks that fail the entry on some processors only, and other suspects.
        reported: what the VMCS itself says about the last entry and exit.
        explains_report: whether `failed`, or what may fail, accounts for `reported`.
    """

    name: str
    outcome: Outcome
    admissible: tuple[Outcome, ...]
    failed: tuple[Failure, ...]
    undecided: tuple[Undecided, ...]
    warnings: tuple[Suspect, ...]
    reported: Mapping[str, int]
    explains_report: Answer

    def to_json(self) -> dict[str, Any]:
        """The verdict as `popek vmcs check --json` prints it."""
        return {
            "schema": "popek/vmcs-verdict/1",
            "name": self.name,
            "outcome": _outcome_json(self.outcome),
            "admissible": [_outcome_json(outcome) for outcome in self.admissible],
            "failed": [
                {
                    "id": failure.id,
                    "fields": _hex(failure.fields),
                    "message": failure.message,
                    "section": failure.section,
                    "gate": list(failure.gate),
                }
                for failure in self.failed
            ],
            "undecided": undecided_json(self.undecided),
            "warnings": [
                {"id": item.id, "fields": _hex(item.fields), "message": item.message}
                for item in self.warnings
            ],
            "reported": _hex(self.reported),
            "explains_report": self.explains_report,
        }


def undecided_json(undecided: Iterable[Undecided]) -> list[dict[str, Any]]:
    """The undecided checks of a verdict as `popek vmcs check --json` prints them."""
    return [{"id": item.id, "missing": list(item.missing)} for item in undecided]


def _hex(values: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{value:#x}" for name, value in values.items()}


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": outcome.kind}
    if outcome.errors:
        shown["errors"] = list(outcome.errors)
    if outcome.reason is not None:
        shown["reason"] = outcome.reason
        shown["qualification"] = outcome.qualification
    return shown


# -- explanations ------------------------------------------------------------------------


class _Shown(dict[str, str]):
    """Names in a message, replaced by name and value."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def __missing__(self, name: str) -> str:
        if name in FIELDS:
            try:
                return f"{name} = {getattr(self._view, name):#x}"
            except MissingField:
                return name
        try:
            value = getattr(self._view.cap, name)
        except MissingField:
            # A check can fail for every width there is.
            return WIDTHS.get(name, "unknown")
        return str(value) if name in _DECIMAL else f"{value:#x}"


_DECIMAL = frozenset({"maxphyaddr", "linear_address_width", "cr3_targets", "msr_list_limit"})


def explain(check: Check, view: View) -> str:
    """The check's message in one line, with the actual values."""
    return check.message.format_map(_Shown(view))


@functools.cache
def _shown_fields(check: Check) -> tuple[str, ...]:
    """The fields that belong to a failure: those of the message, then those of the predicate."""
    shown = [name for _, name, _, _ in Formatter().parse(check.message) if name in FIELDS]
    return tuple(dict.fromkeys([*filter(None, shown), *subjects(check)]))


def values(check: Check, view: View) -> dict[str, int]:
    """The known fields that the check's message shows or its predicate looks at."""
    found: dict[str, int] = {}
    for name in _shown_fields(check):
        try:
            found[name] = getattr(view, name)
        except MissingField:
            continue
    return found


# -- the outcome -------------------------------------------------------------------------

_REPORTED = (
    "VM_INSTRUCTION_ERROR",
    "EXIT_REASON",
    "EXIT_QUALIFICATION",
    "EXIT_INTR_INFO",
    "EXIT_INTR_ERROR_CODE",
    "IDT_VECTORING_INFO",
    "IDT_VECTORING_ERROR_CODE",
    "EXIT_INSTRUCTION_LENGTH",
)


def admissible_outcomes(findings: Findings, view: View) -> tuple[Outcome, ...]:
    """Every way the entry may end by the checks that were decided; the likeliest first."""
    return _outcomes(findings, view)[1]


def _outcomes(findings: Findings, view: View) -> tuple[list[Outcome], tuple[Outcome, ...]]:
    """What the checks that fail for certain come to, without those on which processors differ; and every way."""
    must: list[Check] = []
    may: list[Check] = list(findings.doubtful)
    for check in findings.violated:
        if check.certainty == "must":
            (may if check.tolerated is not None and check.tolerated(view) else must).append(check)
        elif check.certainty == "may":
            may.append(check)
    likely = [check for check in findings.violated if check.certainty == "must"]
    first = _earliest(likely, view)
    found = dict.fromkeys(first or [ENTERS])
    if not may and len(must) == len(likely):
        return first, tuple(found)
    # What some processors do: each that passes over the doubtful checks, or stops at one of them.
    horizon = min((check.group.stage for check in must), default=99)
    for outcome in _earliest(must, view) or [ENTERS]:
        found.setdefault(outcome)
    for check in may:
        if check.group.stage <= horizon:
            found.setdefault(_outcome(check, view))
    return first, tuple(found)


def _outcome(check: Check, view: View) -> Outcome:
    if check.first_bad is None:
        return check.outcome
    try:
        return attrs.evolve(check.outcome, qualification=check.first_bad(view))
    except MissingField:
        return check.outcome  # some processors stop earlier than others


def _earliest(checks: Iterable[Check], view: View) -> list[Outcome]:
    """The outcomes of the checks of the first stage that fails, in the order of the ledger."""
    checks = sorted(checks, key=order)
    if not checks:
        return []
    if len(checks) == 1:
        return [_outcome(checks[0], view)]
    stage = min(check.group.stage for check in checks)
    now = [check for check in checks if check.group.stage == stage]
    if stage == 0:
        return [_outcome(now[0], view)]  # the manual fixes the order here
    outcomes = list(dict.fromkeys(_outcome(check, view) for check in now))
    if stage == 3:
        # Entries are loaded in order: the first bad one ends it.
        return [min(outcomes, key=lambda outcome: outcome.qualification or 0)]
    return sorted(outcomes, key=lambda outcome: (outcome.errors, outcome.qualification or 0))


def main_outcome(admissible: tuple[Outcome, ...], certain: int) -> Outcome:
    """The first admissible outcome, for VMfailValid with the errors of the `certain` first ones."""
    first = admissible[0]
    if first.kind != "vmfail-valid":
        return first
    errors = sorted({e for outcome in admissible[:certain] for e in outcome.errors})
    return Outcome("vmfail-valid", errors=tuple(errors))


def _can_fail(check: Check) -> bool:
    return check.certainty == "must"


def decide(findings: Findings, view: View) -> tuple[Outcome, tuple[Outcome, ...]]:
    """The outcome, and all admissible ones."""
    certain, admissible = _outcomes(findings, view)
    if certain:
        return main_outcome(admissible, len(certain)), admissible
    if any(_can_fail(check) for check, _ in findings.undecided):
        return UNDECIDED, admissible
    return ENTERS, admissible


# The VM-instruction errors of VMLAUNCH and VMRESUME; any other is left from another instruction.
_ENTRY_ERRORS = frozenset({4, 5, 6, 7, 8, 16, 17, 18, 25, 26})


def reported_outcome(vmcs: Vmcs) -> Outcome | None:
    """What the VMCS says happened to the last entry: a failure, a success (`enters`), or None if nothing."""
    reason = vmcs.fields.get("EXIT_REASON")
    if reason is not None and reason & 1 << 31:
        return Outcome(
            "entry-failure", reason=reason & 0xFFFF, qualification=vmcs.fields.get("EXIT_QUALIFICATION")
        )
    error = vmcs.fields.get("VM_INSTRUCTION_ERROR")
    if error in _ENTRY_ERRORS:
        return Outcome("vmfail-valid", errors=(error,))
    return None if reason is None else ENTERS


def _explains(report: Outcome | None, admissible: tuple[Outcome, ...], undecided: bool) -> Answer:
    """Whether what was reported is among the admissible outcomes, other than by doing nothing wrong."""
    if report is None:
        return "unknown"
    for outcome in admissible:
        if report.kind != outcome.kind:
            continue
        if report.kind == "enters":
            return "unknown" if undecided else "yes"
        if report.kind == "vmfail-valid" and set(report.errors) & set(outcome.errors):
            return "yes"
        if (
            report.kind == "entry-failure"
            and report.reason == outcome.reason
            and report.qualification in (None, outcome.qualification)
        ):
            return "yes"
    return "unknown" if undecided else "no"


def _undecided(lacking: Sequence[Lacking], given: frozenset[str]) -> tuple[Undecided, ...]:
    """What the checks lack, in the order of the ledger; `given` are the ids of the known fields."""
    if isinstance(lacking, tuple):
        return _of_a_stream(lacking)(given)
    return _worked_out(lacking, given)


def _worked_out(lacking: Iterable[Lacking], given: frozenset[str]) -> tuple[Undecided, ...]:
    return tuple(
        Undecided(check.id, missing(check, given, what))
        for check, what in sorted(lacking, key=lambda item: order(item[0]))
    )


@by_identity
def _of_a_stream(lacking: tuple[Lacking, ...]) -> Callable[[frozenset[str]], tuple[Undecided, ...]]:
    """VMCSs of one stream share what they lack: then they share the answer, too."""
    return functools.cache(functools.partial(_worked_out, lacking))


def _verdict(evaluator: Evaluator, vmcs: Vmcs) -> Verdict:
    view = evaluator.look(vmcs)
    findings = evaluator.run(vmcs, view)
    outcome, admissible = decide(findings, view)
    failed = [
        Failure(
            check.id,
            values(check, view),
            explain(check, view),
            check.section,
            tuple(gate.text for gate in check.gates),
        )
        for check in sorted(findings.violated, key=order)
        if check.certainty == "must"
    ]
    suspects = [check for check in findings.violated if check.certainty != "must"] + findings.doubtful
    given = frozenset(FIELDS if vmcs.default is not None else vmcs.fields)
    reported = {name: vmcs.fields[name] for name in _REPORTED if name in vmcs.fields}
    return Verdict(
        name=vmcs.name,
        outcome=outcome,
        admissible=admissible,
        failed=tuple(failed),
        undecided=_undecided(findings.undecided, given),
        warnings=tuple(
            Suspect(check.id, values(check, view), explain(check, view))
            for check in sorted(suspects, key=order)
        ),
        reported=reported,
        explains_report=_explains(reported_outcome(vmcs), admissible, bool(findings.undecided)),
    )


def judge(vmcs: Vmcs, capabilities: Capabilities = UNKNOWN) -> Verdict:
    """Judge a VMCS for a processor.

    >>> judge(Vmcs(fields={"GUEST_RFLAGS": 0})).failed[0].id
    'GUEST-RFL-02'
    """
    return _verdict(Evaluator(capabilities), vmcs)


def verdict_of_many(vmcss: Iterable[Vmcs], capabilities: Capabilities) -> Iterator[Verdict]:
    """The verdicts on many VMCSs, one by one and in order; much faster than `judge` on each."""
    evaluator = Evaluator(capabilities)
    return (_verdict(evaluator, vmcs) for vmcs in vmcss)


__all__ = [
    "Failure",
    "Suspect",
    "Undecided",
    "Verdict",
    "explain",
    "judge",
    "reported_outcome",
    "verdict_of_many",
]
