"""The verdict on a VMCS: what VMLAUNCH would do, because of which checks, and what could not be decided.

One module, though long: outcome, failures and suspects are three readings of the same findings.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any, Literal

import attrs

from popek.architectures.vtx.entry_checks.registry import ENTERS, UNDECIDED

from ..x86.evidence import FailedCheck
from .capabilities import UNKNOWN, Capabilities
from .capability_limits import WIDTHS
from .compilation import Lacking
from .entry_checks import Check, Outcome
from .evaluation import Evaluator, missing, order, subjects
from .fields import FIELDS
from .findings import Findings, Undecided, rank
from .identity import by_identity
from .view import View
from .vmcs import MissingField, Vmcs

Answer = Literal["yes", "no", "unknown"]


@attrs.frozen
class Failure(FailedCheck):
    """A check that fails, with the values that make it fail and the conditions under which it is made."""

    gate: tuple[str, ...]


@attrs.frozen
class Suspect:
    """A check whose violation does not fail the entry on every processor."""

    id: str
    fields: Mapping[str, int]
    message: str


@attrs.frozen
class VmEntryVerdict:
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

    @property
    def kind(self) -> str:
        """What becomes of the entry, in a word."""
        return self.outcome.kind

    def to_json(self, *, undecided: bool = True) -> dict[str, Any]:
        """The verdict as `popek vmcs check --json` prints it, without the undecided checks if so wanted."""
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
            "undecided": undecided_json(self.undecided) if undecided else [],
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


_DECIMAL = frozenset({"maxphyaddr", "linear_address_width", "cr3_targets", "msr_list_limit"})


@functools.cache
def _pieces(message: str) -> tuple[tuple[str, str | None], ...]:
    """A message as text and the name behind it."""
    return tuple((text, name) for text, name, _, _ in Formatter().parse(message))


def _shown(view: View, name: str) -> str:
    """A name in a message, as name and value."""
    if name in FIELDS:
        try:
            return f"{name} = {getattr(view, name):#x}"
        except MissingField:
            return name
    try:
        value = getattr(view.cap, name)
    except MissingField:
        # A check can fail for every width there is.
        return WIDTHS.get(name, "unknown")
    return str(value) if name in _DECIMAL else f"{value:#x}"


def explain(check: Check, view: View) -> str:
    """The check's message in one line, with the actual values."""
    text = ""
    for piece, name in _pieces(check.message):
        text += piece if name is None else piece + _shown(view, name)
    if check.note is not None:
        try:
            note = check.note(view)
        except MissingField:
            note = ""
        return f"{text}: {note}" if note else text
    return text


@functools.cache
def _standing(check: Check) -> tuple[str, tuple[str, ...]]:
    """What is the same in every failure of a check: its section, and its gates in words."""
    return check.section, tuple(gate.text for gate in check.gates)


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
    """Every way the entry may end, by the checks that were decided and by those that were not; likeliest first."""
    return decide(findings, view)[1]


def _outcomes(findings: Findings, view: View) -> tuple[list[Outcome], tuple[Outcome, ...], int]:
    """What the decided checks come to: for certain, in every way that is admissible, and the last stage reached."""
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
    horizon = min((check.group.stage for check in must), default=99)
    if may or len(must) != len(likely):
        # What some processors do: each that passes over the doubtful checks, or stops at one of them.
        for outcome in _earliest(must, view) or [ENTERS]:
            found.setdefault(outcome)
        for check in may:
            if check.group.stage <= horizon:
                found.setdefault(_outcome(check, view))
    for check in must:
        # An entry of an MSR area may fail before the one that is known to.
        if check.group.stage == horizon and check.numbers is not None:
            for number in check.numbers(view)[:-1]:
                found.setdefault(attrs.evolve(check.outcome, qualification=number))
    return first, tuple(found), horizon


def _perhaps(undecided: Sequence[Lacking]) -> tuple[tuple[int, Outcome], ...]:
    """Stages and outcomes of the undecided checks; those of a stream share them."""
    if isinstance(undecided, tuple):
        return _perhaps_of_a_stream(undecided)
    return _worked_out_outcomes(undecided)


def _worked_out_outcomes(undecided: Iterable[Lacking]) -> tuple[tuple[int, Outcome], ...]:
    found = dict.fromkeys(
        (check.group.stage, check.outcome) for check, _ in undecided if check.certainty != "warning"
    )
    return tuple(sorted(found, key=rank))


@by_identity
def _perhaps_of_a_stream(undecided: tuple[Lacking, ...]) -> tuple[tuple[int, Outcome], ...]:
    return _worked_out_outcomes(undecided)


def _outcome(check: Check, view: View) -> Outcome:
    if check.numbers is None:
        return check.outcome
    found = check.numbers(view)
    return attrs.evolve(check.outcome, qualification=found[-1]) if found else check.outcome


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
    outcome, admissible, _ = _decided(findings, view)
    return outcome, admissible


def _decided(findings: Findings, view: View) -> tuple[Outcome, tuple[Outcome, ...], tuple[Outcome, ...]]:
    """The outcome, all admissible ones, and those that the decided checks alone admit."""
    certain, decided, horizon = _outcomes(findings, view)
    admissible = decided
    perhaps = _perhaps(findings.undecided) if findings.undecided else ()
    if more := findings.missed.perhaps:
        perhaps = tuple(sorted({*perhaps, *more}, key=rank)) if perhaps else more
    if perhaps:
        # The manual leaves the order of the checks of one stage open, and does not reach the later ones.
        found = dict.fromkeys(decided)
        for stage, outcome in perhaps:
            if stage <= horizon:
                found.setdefault(outcome)
        admissible = tuple(found)
    if certain:
        return main_outcome(admissible, len(certain)), admissible, decided
    if findings.missed.may_fail or any(_can_fail(check) for check, _ in findings.undecided):
        return UNDECIDED, admissible, decided
    return ENTERS, admissible, decided


# The VM-instruction errors of VMLAUNCH and VMRESUME; any other is left from another instruction.
_ENTRY_ERRORS = frozenset({4, 5, 6, 7, 8, 16, 17, 18, 25, 26})


def reported_outcome(vmcs: Vmcs) -> Outcome | None:
    """What the VMCS says happened to the last entry: a failure, a success (`enters`), or None if nothing.

    An exit reason without bit 31 says that some entry succeeded, and not that the last one did: VMfail leaves
    the exit reason of the VM exit before it. It shows the success if the VM-instruction error is known to be
    none of VMLAUNCH and VMRESUME, or if the text around the fields says so.
    """
    reason = vmcs.fields.get("EXIT_REASON")
    if reason is not None and reason & 1 << 31:
        return Outcome(
            "entry-failure", reason=reason & 0xFFFF, qualification=vmcs.fields.get("EXIT_QUALIFICATION")
        )
    error = vmcs.fields.get("VM_INSTRUCTION_ERROR")
    if error in _ENTRY_ERRORS:
        return Outcome("vmfail-valid", errors=(error,))
    if vmcs.entered or (reason is not None and error is not None):
        return ENTERS
    return None


def _explains(
    vmcs: Vmcs, outcome: Outcome, decided: tuple[Outcome, ...], admissible: tuple[Outcome, ...]
) -> Answer:
    """Whether what was reported is among the decided outcomes, or among those that undecided checks admit."""
    report = reported_outcome(vmcs)
    if report is None:
        # A VM-entry failure would have set bit 31 of the exit reason; a VM entry leads to an exit without it.
        given = "EXIT_REASON" in vmcs.fields
        if given and outcome.kind in ("enters", "entry-failure"):
            return "yes" if outcome.kind == "enters" else "no"
        return "unknown"
    if report.kind == "enters" and outcome.kind == "undecided":
        return "unknown"
    if _matches(report, decided):
        return "yes"
    return "unknown" if _matches(report, admissible) else "no"


def _matches(report: Outcome, outcomes: Iterable[Outcome]) -> bool:
    """Whether a report is one of some outcomes; what it does not say of one is no difference."""
    for outcome in outcomes:
        if report.kind != outcome.kind:
            continue
        if report.kind == "vmfail-valid":
            if set(report.errors) & set(outcome.errors):
                return True
        elif report.kind != "entry-failure" or (
            report.reason == outcome.reason
            and (report.qualification is None or outcome.qualification in (None, report.qualification))
        ):
            return True
    return False


def _undecided(lacking: Sequence[Lacking], given: frozenset[str]) -> tuple[Undecided, ...]:
    """What the checks lack, in the order of the ledger; `given` are the ids of the known fields."""
    if isinstance(lacking, tuple):
        return _of_a_stream(lacking)(given)
    return _worked_out(lacking, given)


def _with_missed(findings: Findings, given: frozenset[str]) -> tuple[Undecided, ...]:
    """The checks that lack something, in the order of the ledger."""
    missed = findings.missed
    if not missed.answers:
        return _undecided(findings.undecided, given)
    if not findings.undecided:
        return tuple(missed.answers)
    found = list(zip(missed.places, missed.answers, strict=True))
    found += [
        (order(check), Undecided(check.id, missing(check, given, what))) for check, what in findings.undecided
    ]
    found.sort(key=_place)
    return tuple([answer for _, answer in found])


_place = operator.itemgetter(0)


def _worked_out(lacking: Iterable[Lacking], given: frozenset[str]) -> tuple[Undecided, ...]:
    return tuple(
        Undecided(check.id, missing(check, given, what))
        for check, what in sorted(lacking, key=lambda item: order(item[0]))
    )


@by_identity
def _of_a_stream(lacking: tuple[Lacking, ...]) -> Callable[[frozenset[str]], tuple[Undecided, ...]]:
    """VMCSs of one stream share what they lack: then they share the answer, too."""
    return functools.cache(functools.partial(_worked_out, lacking))


def verdict_of(evaluator: Evaluator, vmcs: Vmcs, only: Container[str] | None = None) -> VmEntryVerdict:
    """The verdict by an evaluator.

    Args:
        only: the ids of checks whose failures are wanted in words; by default all.
    """
    view = evaluator.look(vmcs)
    findings = evaluator.run(vmcs, view)
    outcome, admissible, decided = _decided(findings, view)
    failed = [
        Failure(
            check.id,
            values(check, view),
            explain(check, view),
            *_standing(check),
        )
        for check in sorted(findings.violated, key=order)
        if check.certainty == "must" and (only is None or check.id in only)
    ]
    suspects = [check for check in findings.violated if check.certainty != "must"] + findings.doubtful
    given = frozenset(FIELDS if vmcs.default is not None else vmcs.fields)
    given |= {f"{area}_ADDR" for area in vmcs.areas}  # nobody asks where a list of MSRs lies
    reported = {name: vmcs.fields[name] for name in _REPORTED if name in vmcs.fields}
    return VmEntryVerdict(
        name=vmcs.name,
        outcome=outcome,
        admissible=admissible,
        failed=tuple(failed),
        undecided=_with_missed(findings, given),
        warnings=tuple(
            Suspect(check.id, values(check, view), explain(check, view))
            for check in sorted(suspects, key=order)
        ),
        reported=reported,
        explains_report=_explains(vmcs, outcome, decided, admissible),
    )


def judge(vmcs: Vmcs, capabilities: Capabilities = UNKNOWN) -> VmEntryVerdict:
    """Judge a VMCS for a processor.

    >>> judge(Vmcs(fields={"GUEST_RFLAGS": 0})).failed[0].id
    'GUEST-RFL-02'
    """
    return verdict_of(Evaluator(capabilities), vmcs)


def verdict_of_many(vmcss: Iterable[Vmcs], capabilities: Capabilities) -> Iterator[VmEntryVerdict]:
    """The verdicts on many VMCSs, one by one and in order; much faster than `judge` on each."""
    evaluator = Evaluator(capabilities)
    return (verdict_of(evaluator, vmcs) for vmcs in vmcss)


__all__ = [
    "Failure",
    "Suspect",
    "Undecided",
    "VmEntryVerdict",
    "explain",
    "judge",
    "reported_outcome",
    "verdict_of",
    "verdict_of_many",
]
