"""What an answer about a VMCB says: the outcome, what the dump reports, what it leaves open, and what would decide."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from .checks import CHECKS, NotGiven, VmcbCheck, VmcbView
from .exit_codes import named
from .verdict import VmrunVerdict
from .vmcb import FIELDS, SvmProcessor, Vmcb


@attrs.frozen
class NearVmcbMiss:
    """A check that fails if it applies: its statement, when that is, and what would tell."""

    id: str
    message: str
    condition: str
    missing: tuple[str, ...]


@attrs.frozen
class VmrunDiagnosis:
    """A verdict on a VMCB in sentences.

    Attributes:
        label: the outcome in a word.
        summary: the outcome in a sentence.
        said: what the dump reports.
        agreement: whether the verdict explains that; empty if nothing is reported.
        near_misses: undecided checks that fail if they apply.
        asked: what undecided checks wait for, with the number of checks; what decides most comes first.
        unsure: sentences about checks of which nobody says what becomes of a violation.
    """

    label: str
    summary: str
    said: tuple[str, ...]
    agreement: str
    near_misses: tuple[NearVmcbMiss, ...]
    asked: tuple[tuple[str, int], ...]
    unsure: tuple[str, ...]


def diagnose(vmcb: Vmcb, processor: SvmProcessor, verdict: VmrunVerdict) -> VmrunDiagnosis:
    """Put a verdict beside what the dump says happened."""
    waiting: dict[str, int] = {}
    for item in verdict.undecided:
        if not item.unsure:
            waiting[item.missing] = waiting.get(item.missing, 0) + 1
    label = {"enters": "ENTERS", "vmexit-invalid": "VMEXIT_INVALID", "undecided": "UNDECIDED"}[
        verdict.outcome
    ]
    if verdict.outcome == "undecided" and verdict.entered:
        label = "NO ENTRY FAILURE"
    known = SvmProcessor() if verdict.against else processor.sure
    near = () if verdict.failed or verdict.entered else tuple(_near_misses(vmcb, known, verdict))
    return VmrunDiagnosis(
        label,
        _summary(verdict),
        _said(verdict),
        _agreement(verdict),
        near,
        tuple(sorted(waiting.items(), key=lambda item: (-item[1], item[0] not in FIELDS, item[0]))),
        tuple(f"{item.id}: {item.missing}" for item in verdict.undecided if item.unsure),
    )


def _summary(verdict: VmrunVerdict) -> str:
    open_ = len(verdict.undecided)
    decided = len(CHECKS) - open_
    if verdict.failed:
        count = len(verdict.failed)
        return f"a VMRUN with these values fails: {count} check{'s fail' if count > 1 else ' fails'}"
    if verdict.outcome == "enters":
        rest = "every check passes" if not open_ else f"{decided} checks were decided and none fails"
        if verdict.warnings:
            rest = f"{decided} checks were decided and none fails on every processor"
        return f"VMRUN enters the guest: {rest}"
    if not open_:
        passes = "no check fails on every processor" if verdict.warnings else "every check passes"
        return f"{passes}, and yet the exit code says that VMRUN failed"
    lacking = f"no check fails of the {decided} that could be decided; {open_} lack inputs"
    return f"the dump reports none, and {lacking}" if verdict.entered else lacking


def _said(verdict: VmrunVerdict) -> tuple[str, ...]:
    code = verdict.reported.get("EXITCODE")
    if code is None:
        return ()
    found = named(code)
    what = f" {found.name} ({found.title})" if found else ""
    said = [f"exit code {code:#x}{what}"]
    if verdict.entered:
        said.append(
            "that is the code of a VM exit, which comes after other values than these: they were changed since, or "
            "read from somewhere else"
            if verdict.failed
            else "that is the code of a VM exit: the last VMRUN entered the guest"
        )
    if found is not None and (verdict.entered or found.refused) and found.name != "VMEXIT_INVALID":
        said.append(f"usual cause: {found.cause}")
    return tuple(said)


def _agreement(verdict: VmrunVerdict) -> str:
    code = verdict.reported.get("EXITCODE")
    if code is None or (code == 0 and not verdict.entered):
        return ""
    if verdict.entered:
        return "" if verdict.failed else "No check contradicts this."
    if verdict.explains_report == "yes":
        return "The failed checks explain this."
    if verdict.failed:
        return "The failed checks are of VMEXIT_INVALID, and this is another code."
    if verdict.explains_report == "no":
        return "Nothing explains this: every check passes on the values that are printed."
    if verdict.warnings:
        return "No check fails on every processor; those that fail on some would explain this."
    return "The cause is not in what the dump prints: an undecided check may explain it."


def _near_misses(vmcb: Vmcb, processor: SvmProcessor, verdict: VmrunVerdict) -> Iterator[NearVmcbMiss]:
    """The undecided checks whose predicate is known to fail: only whether they apply is not known."""
    view = VmcbView(vmcb.fields, processor, vmcb.memory)
    told = {item.id for item in verdict.warnings}
    for item in verdict.undecided:
        check = CHECKS[item.id]
        if item.unsure or item.id in told or not _fails(check, view):
            continue
        shown = ", ".join(f"{name} = {vmcb.fields[name]:#x}" for name in check.fields if name in vmcb.fields)
        yield NearVmcbMiss(item.id, f"{check.statement}, but {shown}", check.gate_text, (item.missing,))


def _fails(check: VmcbCheck, view: VmcbView) -> bool:
    try:
        return not check.holds(view)
    except NotGiven:
        return False


__all__ = ["NearVmcbMiss", "VmrunDiagnosis", "diagnose"]
