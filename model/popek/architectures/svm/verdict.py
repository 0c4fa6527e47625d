"""The verdict on a VMCB: whether VMRUN enters the guest, and because of which checks it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from ..x86.evidence import FailedCheck
from .checks import CHECKS, NotGiven, VmcbCheck, VmcbView
from .exit_codes import named, refused, whole
from .vmcb import SvmProcessor, Vmcb

VmrunOutcome = Literal["enters", "vmexit-invalid", "undecided"]

Failure = FailedCheck
"""A check that fails, or fails on some processors, with the fields that make it fail."""


@attrs.frozen
class UndecidedVmcbCheck:
    """A check that lacks an input: a field id, or something about the processor; or one that nobody is sure of."""

    id: str
    missing: str
    unsure: bool = False


@attrs.frozen
class VmrunVerdict:
    """What becomes of a VMRUN.

    `warnings` are failures on some processors only. `against` says why the VMCB is not of the processor that was named,
    whose values were left aside.
    """

    name: str
    outcome: VmrunOutcome
    failed: tuple[Failure, ...]
    undecided: tuple[UndecidedVmcbCheck, ...]
    warnings: tuple[Failure, ...]
    reported: Mapping[str, int]
    explains_report: Literal["yes", "no", "unknown"]
    against: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What becomes of VMRUN, in a word."""
        return self.outcome

    @property
    def entered(self) -> bool:
        """Whether the exit code is that of a VM exit, which only a guest that was entered has."""
        code = self.reported.get("EXITCODE", 0)
        return code != 0 and not refused(code)

    def to_json(self) -> dict[str, Any]:
        """The verdict as `popek vmcb check --json` prints it."""
        return {
            "schema": "popek/vmcb-verdict/1",
            "name": self.name,
            "outcome": {"kind": self.outcome},
            "failed": [_failure(item) for item in self.failed],
            "undecided": [{"id": item.id, "missing": [item.missing]} for item in self.undecided],
            "warnings": [_failure(item) for item in self.warnings],
            "reported": {name: hex(value) for name, value in self.reported.items()},
            "explains_report": self.explains_report,
            **(
                {"inferred": [f"not of the named processor: {why}" for why in self.against]}
                if self.against
                else {}
            ),
        }


def _failure(item: Failure) -> dict[str, Any]:
    fields = {name: hex(value) for name, value in item.fields.items()}
    return {"id": item.id, "fields": fields, "message": item.message, "section": item.section}


def violated(check: VmcbCheck, view: VmcbView) -> bool:
    """Whether the state violates a check.

    Raises:
        NotGiven: that cannot be decided.
    """
    missing: NotGiven | None = None
    for gate in check.gates:
        try:
            if not gate(view):
                return False
        except NotGiven as error:
            missing = missing or error
    if check.holds(view):
        return False
    if missing is not None:
        raise missing
    return True


def judge(
    vmcb: Vmcb, processor: SvmProcessor | None = None, checks: Mapping[str, VmcbCheck] = CHECKS
) -> VmrunVerdict:
    """Judge a VMCB by the checks of the ledger, or by others.

    What the processor is not sure of fails nothing, but is a warning. Where somebody only named the processor, and the
    exit code shows that VMRUN entered although what was said of it makes a check fail, it is another processor.

    >>> judge(Vmcb(fields={"ASID": 0})).failed[0].id
    'SVM-CTL-02'
    """
    known = processor or SvmProcessor()
    found = _run(vmcb, known.sure, checks)
    against: tuple[str, ...] = ()
    if found.failed and known.named and found.entered:
        unsaid = _run(vmcb, SvmProcessor(), checks)
        anyway = {item.id for item in unsaid.failed}
        against = tuple(f"{item.id}: {item.message}" for item in found.failed if item.id not in anyway)
        if against:
            return attrs.evolve(unsaid, against=against)
    if not known.unsure:
        return found
    return _with_doubts(found, _run(vmcb, attrs.evolve(known, unsure=()), checks), known, checks)


def _with_doubts(
    found: VmrunVerdict, likely: VmrunVerdict, known: SvmProcessor, checks: Mapping[str, VmcbCheck]
) -> VmrunVerdict:
    """A verdict with what fails by values that nobody is sure of among its warnings."""
    told = {item.id for item in (*found.failed, *found.warnings)}
    open_ = {item.id: item.missing for item in found.undecided}
    more = tuple(
        attrs.evolve(
            item, message=f"{item.message} (by {open_[item.id]}, of which {known.named} is not sure)"
        )
        for item in (*likely.failed, *likely.warnings)
        if item.id not in told and item.id in open_
    )
    return attrs.evolve(found, warnings=(*found.warnings, *more)) if more else found


def _run(vmcb: Vmcb, processor: SvmProcessor, checks: Mapping[str, VmcbCheck]) -> VmrunVerdict:
    view = VmcbView(vmcb.fields, processor, vmcb.memory)
    failed: list[Failure] = []
    warnings: list[Failure] = []
    undecided: list[UndecidedVmcbCheck] = []
    for check in checks.values():
        try:
            if not violated(check, view):
                continue
            if check.certainty == "unsure":
                undecided.append(
                    UndecidedVmcbCheck(check.id, f"what VMRUN does unless {check.statement}", True)
                )
                continue
            (failed if check.certainty == "must" else warnings).append(_described(check, vmcb))
        except NotGiven as error:
            if check.certainty != "unsure":
                undecided.append(UndecidedVmcbCheck(check.id, str(error)))
    waiting = any(checks[item.id].certainty == "must" for item in undecided)
    # Where the exit code says that no guest was entered, checks that pass leave the reason open.
    open_ = waiting or refused(vmcb.fields.get("EXITCODE", 0))
    outcome: VmrunOutcome = "vmexit-invalid" if failed else "undecided" if open_ else "enters"
    reported = {
        name: vmcb.fields[name] for name in ("EXITCODE", "EXITINFO1", "EXITINFO2") if name in vmcb.fields
    }
    explains = _explains(vmcb.fields.get("EXITCODE"), bool(failed), waiting, bool(warnings))
    return VmrunVerdict(
        vmcb.name, outcome, tuple(failed), tuple(undecided), tuple(warnings), reported, explains
    )


def _explains(
    code: int | None, failed: bool, waiting: bool, warnings: bool
) -> Literal["yes", "no", "unknown"]:
    """Whether the checks account for an exit code."""
    if code is None:
        return "unknown"
    if refused(code):
        # Of the other codes that refuse an entry no check says anything.
        told = whole(code) == whole(-1)
        return "yes" if failed and told else "unknown" if waiting or warnings or not told else "no"
    if failed:
        return "no" if code else "unknown"
    return "unknown" if waiting else "yes"


def _described(check: VmcbCheck, vmcb: Vmcb) -> Failure:
    fields = {name: vmcb.fields[name] for name in check.fields if name in vmcb.fields}
    values = ", ".join(f"{name} = {value:#x}" for name, value in fields.items())
    when = "" if check.gate_text.startswith("always") else f" (where {check.gate_text})"
    return Failure(check.id, fields, f"{check.statement}{when}, but {values}", check.section)


def exit_name(code: int) -> str:
    """An exit code as the manual calls it."""
    found = named(code)
    return found.name if found else ""
